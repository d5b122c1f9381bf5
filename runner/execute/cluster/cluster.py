"""A cluster: it runs a shard's program on one of its nodes, and says how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class ShardStage(StrEnum):
    """How far one submission of a shard is."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class ShardProgram:
    """`arguments`: of the process that runs the shard. `log`: what it says is appended there.
    `ended`: the file that its exit code is written to.
    """

    arguments: tuple[str, ...]
    log: Path
    ended: Path

    def exit_code(self) -> int | None:
        """None where the program has not ended, or was lost before it could say how."""
        text = self.ended.read_text() if self.ended.exists() else ""
        return int(text) if text else None


@dataclass(frozen=True)
class ShardState:
    """`why`: what a waiting shard waits for, where the cluster says so."""

    stage: ShardStage
    why: str = ""


class Cluster(Protocol):
    """What shards are submitted to. Jobs are known by names that outlive the process that made
    them; where the jobs do not outlive it, their state is ENDED.
    """

    def submit(self, programs: Sequence[ShardProgram]) -> list[str]:
        """Each program once, on any node; gives the jobs. Raises UsageError if refused."""

    def states(self, jobs: Sequence[str]) -> Mapping[str, ShardState]:
        """Of each of the jobs."""

    def cancel(self, jobs: Iterable[str]) -> None:
        """Those that wait never start, those that run are ended."""
