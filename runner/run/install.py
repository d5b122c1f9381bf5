"""Other verifiers made ready, once for each run: a marker in the run folder says that it is done.

A resumed run finds the marker and installs nothing, unless the verifier became another version.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from runner.contract.errors import UsageError
from runner.contract.verifier import Verifier
from runner.contract.vocabulary import Device
from runner.record.folder import RunFolder
from runner.run.plan import Task
from runner.run.step import Step, how_it_ended

INSTALL_TIMEOUT_S = 3600.0
_MARKER, _STEP = "installed", "install"
_LINES_SHOWN = 10


def install_verifiers(
    tasks: Iterable[Task], folder: RunFolder, say: Callable[[str], None], device: Device
) -> None:
    """Installs every verifier that one of these tasks waits for, and notes its version.

    `say` is told of each that takes its time. Raises UsageError with the last lines of what failed.
    """
    waiting = (task for task in tasks if task.verifier and task.key() not in folder.done)
    for verifier in {task.strategy.name: task.verifier for task in waiting}.values():
        if verifier is not None:
            _install(verifier, folder, say, device)


def tool_environment(verifier: Verifier, device: Device) -> dict[str, str]:
    """Of all its programs: ours, without GPUs where the run is to be without, and its own."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device is Device.CPU else {}
    return {**os.environ, **hidden, **verifier.tool.environment}


def _install(
    verifier: Verifier, folder: RunFolder, say: Callable[[str], None], device: Device
) -> None:
    name, home = verifier.tool.name, folder.installation(verifier.tool.name)
    marker, output = home / _MARKER, home / f"{_STEP}.out"
    if not marker.exists() or marker.read_text() != verifier.version(_text(output)):
        home.mkdir(parents=True, exist_ok=True)
        marker.unlink(missing_ok=True)
        say(f"Installing {name}; its output: {home}/")
        _run(verifier, home, device)
        marker.write_text(verifier.version(_text(output)))
    folder.note_version(name, marker.read_text())


def _run(verifier: Verifier, home: Path, device: Device) -> None:
    step, arguments = Step(home, _STEP), verifier.installation()
    environment = tool_environment(verifier, device)
    result = step.run(arguments, environment, home, INSTALL_TIMEOUT_S)
    if result.exit_code == 0:
        return
    said = [line for log in (step.output, step.errors) for line in _text(log).splitlines()]
    last = "".join(f"\n  {line}" for line in said[-_LINES_SHOWN:]) or " nothing"
    raise UsageError(
        f"verifier {verifier.tool.name}: {arguments[0]} failed ({how_it_ended(result)}); it wrote "
        f"last:{last}\nall that it wrote: {step.output} and {step.errors.name}; "
        "mend that and run this again"
    )


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""
