"""How a run goes: a bar on a terminal, a line per outcome everywhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from runner.cli.bar import VerdictBar, counted
from runner.contract.vocabulary import Verdict
from runner.record.schema import Outcome
from runner.report.text import seconds
from runner.run.plan import Task


class RunProgress(VerdictBar):
    """The observer that people see. `done`: the verdicts of a resumed run so far."""

    def __init__(self, console: Console, total: int, done: Iterable[Verdict]) -> None:
        super().__init__(console)
        self._total = total
        self._counts = Counter(done)
        self._line = self._bar.add_task(
            "", total=total, completed=self._counts.total(), counts=counted(self._counts)
        )

    def started(self, task: Task) -> None:
        self._bar.update(self._line, description=f"{task.strategy.name} {task.name}")

    def recorded(self, outcome: Outcome) -> None:
        self._counts[outcome.verdict] += 1
        self._bar.update(self._line, advance=1, counts=counted(self._counts), description="")
        if not self._console.is_terminal:
            self._console.print(self._sentence(outcome), soft_wrap=True)

    def _sentence(self, outcome: Outcome) -> Text:
        done = f"[{self._counts.total():>{len(str(self._total))}}/{self._total}]"
        time = "" if outcome.run_time_s is None else f" in {seconds(outcome.run_time_s)}"
        cause = f" ({outcome.cause})" if outcome.cause else ""
        return Text(
            f"{done} {outcome.strategy} {outcome.category} {outcome.network} "
            f"{outcome.property}: {outcome.verdict}{cause}{time}"
        )
