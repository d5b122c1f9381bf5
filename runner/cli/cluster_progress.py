"""How a run over a cluster goes: a bar on a terminal, a line now and then everywhere else."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from runner.cli.bar import VerdictBar, counted
from runner.contract.vocabulary import Verdict
from runner.report.text import seconds
from runner.run.spread import Standing

_EVERY_S = 10.0  # a line, where there is no terminal


class ClusterProgress(VerdictBar):
    """The observer that people see."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console)
        self._first: tuple[float, int] | None = None  # when there were how many, then
        self._said: tuple[float, Standing] | None = None
        self._told: set[str] = set()
        self._line = self._bar.add_task("", total=total, counts="")

    def stands(self, standing: Standing) -> None:
        counts = counted(standing.verdicts)
        done = sum(standing.verdicts.values())
        self._bar.update(self._line, completed=done, counts=counts, description=_shards(standing))
        for wait in standing.waits:
            if wait not in self._told:
                self._told.add(wait)
                self.happened(wait)
        if not self._console.is_terminal:
            self._say(standing, done)

    def happened(self, what: str) -> None:
        self._console.print(Text(what, style="yellow"), soft_wrap=True)

    def _say(self, standing: Standing, done: int) -> None:
        now = time.monotonic()
        if done and self._first is None:
            self._first = now, done
        if self._said is not None:
            when, before = self._said
            moved = standing.shards != before.shards or done == standing.rows
            if standing == before or (now < when + _EVERY_S and not moved):
                return
        self._said = now, standing
        verdicts = ", ".join(
            f"{count} {verdict}" for verdict in Verdict if (count := standing.verdicts.get(verdict))
        )
        parts = [f"[{done}/{standing.rows}]", verdicts or "nothing yet"]
        start, at_start = self._first or (now, done)
        if at_start < done < standing.rows:
            left_s = (now - start) / (done - at_start) * (standing.rows - done)
            parts.append(f"about {seconds(left_s)} left")
        self._console.print(Text(f"{'; '.join([*parts, _shards(standing)])}"), soft_wrap=True)


def _shards(standing: Standing) -> str:
    where = [f"{count} {stage}" for stage, count in sorted(standing.shards.items())]
    lost = [f"lost {standing.lost} times"] if standing.lost else []
    return f"shards: {', '.join([*where, *lost])}"
