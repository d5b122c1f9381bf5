"""What `vnncomp_scripts/` call: one instance prepared or answered, as VNN-COMP wants it.

Not a command of `vnncomp-runner`: the start is part of the time limit, so that nothing is imported
that is not needed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from runner.cli.deadline import at, last_moment
from runner.contract.errors import InstanceError, UsageError
from runner.contract.vocabulary import Verdict

VERSION = "v1"  # of the three scripts
FAILED, USAGE = 1, 2

_KNOWN = (UsageError, InstanceError, OSError)


def main(arguments: list[str]) -> int:
    """Gives the exit code; what goes wrong is told on standard error."""
    try:
        match arguments:
            case ["prepare", version, _, network, property]:
                _check(version)
                return _prepare(Path(network).absolute(), Path(property).absolute())
            case ["run", started, version, _, network, property, results, timeout]:
                _check(version)
                return _run(
                    network=Path(network).absolute(),
                    property=Path(property).absolute(),
                    results=Path(results).absolute(),
                    until=_until(started, timeout),
                )
        raise UsageError(
            "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB, or "
            "run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT"
        )
    except _KNOWN as error:
        _tell(f"error: {error}")
        return USAGE if isinstance(error, UsageError) else FAILED


def _prepare(network: Path, property: Path) -> int:
    from runner.run.competitor import Options, prepare

    _leave()
    failure = prepare(network, property, Options.of_environment())
    if failure is None:
        return 0
    _tell(f"{failure.cause}: {failure.message}")
    return FAILED


def _run(*, network: Path, property: Path, results: Path, until: float) -> int:
    _write(results, "unknown")  # what is there if this process is killed
    _leave()
    try:
        with at(until, lambda: _write(results, "timeout")):
            verdict, more = _answer(network, property, until)
    except _KNOWN:
        _write(results, Verdict.ERROR)
        raise
    _write(results, verdict, more)
    return 0


def _answer(network: Path, property: Path, until: float) -> tuple[str, str]:
    """The verdict, and the counterexample in the form of the property's version of VNN-LIB."""
    from runner.run.competitor import Options, ask, printed
    from runner.run.kept import Kept

    options = Options.of_environment()
    asked = options.question(network, property, max(1e-3, until - time.monotonic()))
    said = ask(asked, until, options, Kept())
    if said.message:
        _tell(f"{said.cause}: {said.message}")
    return said.verdict, printed(said, asked) if said.counterexample else ""


def _until(started: str, timeout: str) -> float:
    """When, of `time.monotonic`, the answer must be written. `started`: seconds since 1970."""
    try:
        # Bash writes the decimal separator of the user's language.
        began, limit_s = float(started.replace(",", ".")), float(timeout)
    except ValueError as error:
        raise UsageError(f"TIMEOUT {timeout}: a number of seconds is needed") from error
    if not 0 < limit_s < float("inf"):
        raise UsageError(f"TIMEOUT {timeout}: a positive number of seconds is needed")
    return last_moment(limit_s, spent_s=max(0.0, time.time() - began))


def _write(results: Path, verdict: str, more: str = "") -> None:
    """Whole or not at all, so that the file is never empty."""
    draft = results.with_name(f".{results.name}.{os.getpid()}.draft")
    draft.write_text(f"{verdict}\n{more}")
    draft.replace(results)


def _leave() -> None:
    """Python processes that are started here import nothing from the caller's folder."""
    os.chdir("/")


def _check(version: str) -> None:
    if version != VERSION:
        raise UsageError(f"version {version!r} of VNN-COMP's scripts; only {VERSION} is known")


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
