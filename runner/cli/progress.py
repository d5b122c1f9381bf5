"""How a run goes: a bar on a terminal, a line per outcome everywhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from runner.contract.vocabulary import Verdict
from runner.record.schema import Outcome
from runner.report.text import seconds
from runner.report.words import VERDICT_STYLES
from runner.run.plan import Task


class RunProgress:
    """The observer that people see. `done`: the verdicts of a resumed run so far."""

    def __init__(self, console: Console, total: int, done: Iterable[Verdict]) -> None:
        self._console = console
        self._total = total
        self._counts = Counter(done)
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._line = self._bar.add_task(
            "", total=total, completed=self._counts.total(), counts=self._text()
        )

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def started(self, task: Task) -> None:
        self._bar.update(self._line, description=f"{task.strategy.name} {task.name}")

    def recorded(self, outcome: Outcome) -> None:
        self._counts[outcome.verdict] += 1
        self._bar.update(self._line, advance=1, counts=self._text(), description="")
        if not self._console.is_terminal:
            self._console.print(self._sentence(outcome), soft_wrap=True)

    def _text(self) -> str:
        return "  ".join(
            f"[{VERDICT_STYLES[verdict]}]{verdict} {self._counts[verdict]}[/]"
            for verdict in Verdict
            if self._counts[verdict]
        )

    def _sentence(self, outcome: Outcome) -> Text:
        done = f"[{self._counts.total():>{len(str(self._total))}}/{self._total}]"
        time = "" if outcome.run_time_s is None else f" in {seconds(outcome.run_time_s)}"
        cause = f" ({outcome.cause})" if outcome.cause else ""
        return Text(
            f"{done} {outcome.strategy} {outcome.category} {outcome.network} "
            f"{outcome.property}: {outcome.verdict}{cause}{time}"
        )
