"""What all commands share: where they print, and which exit code an error has."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from runner.contract.errors import UsageError
from runner.record.append import DiskFullError, is_disk_full

USAGE, DISK_FULL, IN_USE, NO_REPORT, LOST, INTERRUPTED = 2, 3, 4, 5, 6, 130

_WIDTH_OF_LOGS = 120


def console() -> Console:
    """Standard output; files and pipes get lines of a fixed length, and no colours."""
    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=_WIDTH_OF_LOGS if fixed else None)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Ends the command with the exit code of a known error, its message on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        yield
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(_code(error)) from error
    except OSError as error:
        if not is_disk_full(error):
            raise
        typer.echo(f"error: no room left ({error}); free some and run this again", err=True)
        raise typer.Exit(DISK_FULL) from error
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(INTERRUPTED) from interrupt


def _code(error: UsageError) -> int:
    # Not above: the doctor prints even where what this imports is missing.
    from runner.record.folder import RunInUseError
    from runner.run.spread import LostShardsError

    match error:
        case DiskFullError():
            return DISK_FULL
        case RunInUseError():
            return IN_USE
        case LostShardsError():
            return LOST
        case _:
            return USAGE
