"""What starts gangs of ranks, whatever stands behind it. See docs/adding-an-executor.md."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runner.execute.watch import Ending, GangResult

__all__ = ["Ending", "Executor", "Gang", "GangResult"]

GRACE_S = 2.0


@dataclass(frozen=True)
class Gang:
    """A request for ranks that answer one question together.

    `target`: "module:function", called with `payload` in each of `ranks` processes; payload and
    result are dicts of JSON values. `folder`: is created, and receives `rank<r>.json` and
    `rank<r>.log`. `timeout_s`: ranks are expected to keep to it by themselves; `grace_s` later they
    are ended. `memory_limit_bytes`: what each rank may allocate of the host's memory.
    """

    target: str
    payload: dict[str, Any]
    ranks: int
    folder: Path
    timeout_s: float
    memory_limit_bytes: int | None = None
    grace_s: float = GRACE_S


class Executor(Protocol):
    """Runs gangs: on the fork server (`runner.execute.gang.RankServer`), by torchrun, elsewhere."""

    def submit(self, gang: Gang) -> Future[GangResult]:
        """Start the gang now, or after those before it; returns at once.

        The result comes whatever becomes of the ranks, and no later than their deadline allows;
        none of them runs any more then. The future raises UsageError if gangs cannot be started
        at all.
        """
