"""The same branch and bound for every strategy, so that what it costs can be compared."""

from __future__ import annotations

from dataclasses import dataclass

from runner.contract.errors import UsageError


@dataclass(frozen=True)
class Workload:
    """`rounds` batches of at most `batch` domains, whatever is proved or found on the way.

    A batch is the two children of each domain that is split. Raises UsageError for a workload
    that cannot be done.
    """

    rounds: int
    batch: int

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"--fixed-workload {self.rounds}: at least one round is needed")
        if self.batch < 2 or self.batch % 2:
            raise UsageError(
                f"--batch {self.batch}: an even number of domains is needed, two for each split"
            )


def workload_of(rounds: int | None, batch: int | None) -> Workload | None:
    """As asked for on the command line; None when nothing is fixed.

    Raises UsageError for one without the other.
    """
    if rounds is None and batch is None:
        return None
    if rounds is None:
        raise UsageError(f"--batch {batch}: only a fixed workload has it; add --fixed-workload")
    if batch is None:
        raise UsageError(
            f"--fixed-workload {rounds}: how many domains a round has is not said; "
            "add --batch, such as --batch 512"
        )
    return Workload(rounds, batch)
