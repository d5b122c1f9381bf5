"""`vnncomp-runner verify`: one query, asked and answered as chapter 5 of VNN-LIB 2.0 has it.

Standard output has the verdict, then nothing but the assignment; all else is on standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from runner.cli import STARTED
from runner.cli.deadline import at, last_moment
from runner.cli.terminal import exit_codes
from runner.contract.errors import InstanceError, UsageError
from runner.contract.vocabulary import Device, Method, Verdict
from runner.problem.assignment import format_assignment, serialise_assignment
from runner.problem.files import find_maybe_gz
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.counterexample import read_assignment
from runner.problem.property.declared import ELEMENT_TYPES, REAL, Network, Variable
from runner.problem.property.read_property import read_networks
from runner.run.competitor import Options, Reply, ask
from runner.run.kept import Kept
from runner.run.single import Posed

FAILED = 1
EXIT_CODES = (
    "Exit codes: 0 with one of the four verdicts, 1 the query cannot be answered, "
    "2 wrong options or networks that do not fit the query."
)


class Result(StrEnum):
    """VNN-LIB 2.0's words for a verdict."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMED_OUT = "timed-out"


_RESULTS = {
    Verdict.SAT: Result.SAT,
    Verdict.UNSAT: Result.UNSAT,
    Verdict.UNKNOWN: Result.UNKNOWN,
    Verdict.TIMEOUT: Result.TIMED_OUT,
}


def verify(
    query: Annotated[Path, typer.Argument(help="VNN-LIB file, 2.0 or 1.0, maybe .gz.")],
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODEL", help="The ONNX file of a network that QUERY declares."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Of everything, the start included.")
    ] = 300.0,
    serialise_assignments: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the assignment there, a TensorProto a variable."),
    ] = None,
    strategy: Annotated[
        str, typer.Option(envvar="VNNCOMP_RUNNER_STRATEGY", help="One strategy.")
    ] = Options.strategy,
    ranks: Annotated[
        int, typer.Option(envvar="VNNCOMP_RUNNER_RANKS", min=1, help="Of a parallel strategy.")
    ] = Options.ranks,
    method: Annotated[
        Method, typer.Option(envvar="VNNCOMP_RUNNER_METHOD", help="As of `run`.")
    ] = Method.COMPLETE,
    device: Annotated[
        Device, typer.Option(envvar="VNNCOMP_RUNNER_DEVICE", help="As of `run`.")
    ] = Device.AUTO,
) -> None:
    """Answer one query: prints sat, unsat, unknown or timed-out, and what satisfies it.

    \b
    Example:
      vnncomp-runner verify prop.vnnlib --network f=net.onnx --timeout 60
    """
    with exit_codes():
        if not 0 < timeout < float("inf"):
            raise UsageError(f"--timeout {timeout:g}: a positive number of seconds is needed")
        until = last_moment(timeout, spent_s=time.monotonic() - STARTED)
        options = Options(strategy, ranks, method, device)
        try:
            with at(until, lambda: _print(Result.TIMED_OUT)):
                asked, declared, said = _asked(query, network or [], options, until)
            code = _tell(asked, declared, said, serialise_assignments)
        except InstanceError as error:
            typer.echo(f"error: {error.cause}: {error}", err=True)
            code = FAILED
    raise typer.Exit(code)


def _asked(
    query: Path, models: Sequence[str], options: Options, until: float
) -> tuple[Posed, Sequence[Network], Reply]:
    """With the networks that the query declares."""
    query = find_maybe_gz(query) or query
    declared = read_networks(query)
    model = _model(models, declared)
    asked = options.question(model, query, max(1e-3, until - time.monotonic()))
    if declared:
        _check_types(declared[0], asked.instance.network)
    return asked, declared, ask(asked, until, options, Kept())


def _tell(asked: Posed, declared: Sequence[Network], said: Reply, folder: Path | None) -> int:
    """Print the verdict and the assignment, which goes to `folder` where there is one."""
    if said.message:
        typer.echo(f"{said.cause}: {said.message}", err=True)
    if said.verdict is Verdict.ERROR:
        return FAILED
    assignment = ""
    if said.verdict is Verdict.SAT:
        inputs, outputs = _variables(declared, asked.instance.network, said)
        assigned = read_assignment(said.counterexample)
        if folder is None:
            assignment = format_assignment(inputs, outputs, assigned)
        else:
            serialise_assignment(folder, inputs, outputs, assigned)
    _print(_RESULTS[said.verdict], assignment)
    return 0


def _model(models: Sequence[str], declared: Sequence[Network]) -> Path:
    """The only network's file. Raises UsageError for one too few or too many, or of another name.

    What VNN-LIB 1.0 calls its network is nowhere said, so that any name will do.
    """
    found: dict[str, Path] = {}
    for text in models:
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise UsageError(f"--network {text}: NAME=MODEL is needed")
        if name in found:
            raise UsageError(f"--network {text}: {name} has a model already, {found[name]}")
        found[name] = Path(path)
    wanted = [network.name for network in declared if network.own_model]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UsageError(f"network {missing[0]} has no model; add --network {missing[0]}=MODEL")
    if declared and (unknown := [name for name in found if name not in wanted]):
        raise UsageError(f"--network {unknown[0]}: the query needs models for {', '.join(wanted)}")
    if len(found) != 1:
        raise UsageError(f"{len(found)} networks; one is needed: --network NAME=MODEL")
    return next(iter(found.values())).absolute()


def _check_types(network: Network, model: Path) -> None:
    """Raises UsageError for types that are not the model's, or that nothing is proved about."""
    variables = (*network.inputs, *network.outputs)
    for variable in variables:
        if variable.type not in ELEMENT_TYPES:
            raise UsageError(
                f"{variable.name} is {variable.type}, of which nothing is proved; declare it "
                f"{REAL} to have it answered in real arithmetic"
            )
    if all(variable.type == REAL for variable in variables):
        return
    of_inputs, of_outputs = _types(OnnxRuntime(model))
    actuals = [of_inputs] * len(network.inputs) + [of_outputs] * len(network.outputs)
    for variable, actual in zip(variables, actuals, strict=True):
        if variable.type not in (REAL, actual):
            raise UsageError(
                f"{variable.name} is declared {variable.type}, but {model} has {actual}"
            )


def _variables(
    declared: Sequence[Network], model: Path, said: Reply
) -> tuple[Sequence[Variable], Sequence[Variable]]:
    """Inputs and outputs: as declared, or of VNN-LIB 1.0, where X and Y are flat."""
    if declared:
        return declared[0].inputs, declared[0].outputs
    assigned = read_assignment(said.counterexample)
    types = _types(OnnxRuntime(model))
    return (
        [Variable("X", types[0], (len(assigned.inputs),))],
        [Variable("Y", types[1], (len(assigned.outputs),))],
    )


def _types(runtime: OnnxRuntime) -> tuple[str, str]:
    return runtime.dtype.__name__, runtime.output_type


def _print(result: Result, assignment: str = "") -> None:
    sys.stdout.write(f"{result}\n{assignment}")
    sys.stdout.flush()
