"""The command line: reads arguments and prints; what it does is elsewhere."""

from __future__ import annotations

import signal
import sys
import time

STARTED = time.monotonic()  # nearly: of a command that has a time limit


def main() -> None:
    """The console entry. A request to terminate ends a run as Ctrl-C does: it can be resumed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from runner.cli.app import app
    except ImportError as error:
        _without_dependencies(error)
    else:
        app(prog_name="vnncomp-runner")
    sys.exit(0)


def _without_dependencies(error: ImportError) -> None:
    """Where one is missing only the doctor starts, who names all that are and the remedies."""
    if sys.argv[1:2] != ["doctor"]:
        sys.exit(f"error: {error}; `vnncomp-runner doctor` names what is missing, and the remedy")
    try:
        import typer

        from runner.cli.doctor_command import doctor
    except ImportError as needed:  # by the doctor itself
        sys.exit(f"error: {needed}; the remedy: pip install --no-deps -r requirements.lock")
    alone = typer.Typer()
    alone.command()(doctor)
    alone(sys.argv[2:])
