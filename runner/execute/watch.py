"""How a gang ended, and what the scheduler has seen of one that is under way."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from runner.contract.shell import REPORTED, read_report, report_path
from runner.execute.channel import Message
from runner.execute.launch import Launch

_PF_EXITING = 0x4


class Ending(StrEnum):
    """How a gang ended."""

    FINISHED = "finished"  # with reports; after one that tells of an error, the others were ended
    KILLED_AT_DEADLINE = "killed_at_deadline"
    RANK_DIED = "rank_died"  # a rank ended without a report, and the others were ended
    SERVER_DIED = "server_died"  # or did not answer; all ranks were killed


@dataclass(frozen=True)
class GangResult:
    """What became of a gang.

    `run_time_s` goes from the launch request to the end of the last rank. `reports` has an entry
    per rank, None where it left none. `dead_rank` is the rank that failed first, by dying or by
    reporting an error, and `how` says how it ended, e.g. "signal 9 (SIGKILL)" or "exit code 3".
    `stopped_ranks` were suspended (SIGSTOP) when the gang was ended.
    """

    ended: Ending
    run_time_s: float
    reports: tuple[dict[str, Any] | None, ...]
    dead_rank: int | None = None
    how: str = ""
    stopped_ranks: tuple[int, ...] = ()


class Watch:
    """One gang, as the server's events tell it. `ended` stays None while nothing went wrong."""

    def __init__(self, launch: Launch) -> None:
        self.gang = launch.gang
        self.pids: list[int] = []
        self.ended: Ending | None = None
        self._folder = Path(launch.folder)
        self._ranks = launch.ranks
        self._gone: set[int] = set()
        self._stopped: set[int] = set()
        self._dead_rank: int | None = None
        self._how = ""
        self._settled = False

    @property
    def over(self) -> bool:
        """Whether every rank is gone."""
        return len(self._gone) == self._ranks

    @property
    def dying(self) -> bool:
        """Whether a rank is on its way out unseen: one that holds a GPU's memory takes a while, and
        its peers, who lost it, are seen first.
        """
        left = (pid for rank, pid in enumerate(self.pids) if rank not in self._gone)
        return any(map(_is_exiting, left))

    def settle(self) -> None:
        """From here on ranks end because they are told to."""
        self._settled = True

    def note(self, event: Message) -> None:
        """Take in one event; those of other gangs are passed over."""
        if event.get("gang") != self.gang:
            return
        match event["event"]:
            case "started":
                self.pids = event["pids"]
            case "stopped":
                self._stopped.add(event["rank"])
            case "continued":
                self._stopped.discard(event["rank"])
            case "exited":
                self._note_exit(event["rank"], event["code"], event["signal"])

    def result(self, run_time_s: float) -> GangResult:
        return GangResult(
            ended=self.ended or Ending.FINISHED,
            run_time_s=run_time_s,
            reports=tuple(read_report(self._folder, rank) for rank in range(self._ranks)),
            dead_rank=self._dead_rank,
            how=self._how,
            stopped_ranks=tuple(sorted(self._stopped)),
        )

    def _note_exit(self, rank: int, code: int | None, number: int | None) -> None:
        self._gone.add(rank)
        reported = report_path(self._folder, rank).exists()
        if self._settled:
            return  # by us
        self._stopped.discard(rank)
        if self.ended is not None and (reported or self.ended is Ending.RANK_DIED):
            return  # for what happened to another
        if code == REPORTED and reported:
            return
        self.ended = Ending.FINISHED if reported else Ending.RANK_DIED
        self._dead_rank = rank
        self._how = signal_name(number) if number is not None else f"exit code {code}"


def _is_exiting(pid: int) -> bool:
    """By the flags of the process, see proc(5); False where there is no such file."""
    try:
        _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return False
    return bool(int(fields.split()[6]) & _PF_EXITING)


def signal_name(number: int) -> str:
    """As in "signal 9 (SIGKILL)"."""
    names = {known.value: known.name for known in signal.Signals}
    return f"signal {number} ({names.get(number, 'real-time')})"
