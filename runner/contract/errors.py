"""The one error that carries a cause; everything else is a defect and becomes `internal_error`."""

from __future__ import annotations

from runner.contract.vocabulary import Cause


class InstanceError(Exception):
    """Something is wrong with one instance; the rest of a run goes on.

    `str(error)` is a message for the user: it names the file, the line where there is one, and
    the remedy. `cause` goes to the outcome's own column.
    """

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class UsageError(Exception):
    """The command cannot start: a bad argument, a missing category, a locked run folder."""


class NothingToRunError(UsageError):
    """A category without a row, or without one file that its rows name; others may have some."""
