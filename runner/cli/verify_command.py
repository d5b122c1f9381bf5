"""`vnncomp-runner verify`: one query, asked and answered as chapter 5 of VNN-LIB 2.0 has it.

Standard output has the verdict, then nothing but the assignment; all else is on standard error.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from runner.cli import STARTED
from runner.cli.deadline import at, last_moment
from runner.cli.results import FAILED, Result, print_result
from runner.cli.terminal import exit_codes
from runner.contract.errors import InstanceError, UsageError
from runner.contract.vocabulary import Device, Method
from runner.run.competitor import Options

EXIT_CODES = (
    "Exit codes: 0 with one of the four verdicts, 1 the query cannot be answered, "
    "2 wrong options or networks that do not fit the query."
)


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
            with at(until, lambda: print_result(Result.TIMED_OUT)):
                # Numpy and ONNX Runtime come with it, which no other command is to wait for.
                from runner.cli.query import answered, tell

                asked, declared, said = answered(query, network or [], options, until)
            code = tell(asked, declared, said, serialise_assignments)
        except InstanceError as error:
            typer.echo(f"error: {error.cause}: {error}", err=True)
            code = FAILED
    raise typer.Exit(code)
