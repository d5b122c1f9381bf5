"""The instances of a trained category in a run folder beside it, verified or bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from runner.contract.vocabulary import Device, Method, Verdict
from runner.execute.gang import RankServer
from runner.experiments.train import CheckedRecipe
from runner.record.folder import open_run
from runner.record.manifest import Command
from runner.record.schema import Outcome
from runner.run.plan import Task, plan
from runner.run.programs import VERIFY
from runner.run.schedule import Observer, schedule
from runner.verifiers.strategies import strategy_named

Observed = Callable[[int, Sequence[Verdict]], AbstractContextManager[Observer]]


class QuietObserver:
    """Tells nobody."""

    def started(self, task: Task) -> None:
        pass

    def recorded(self, outcome: Outcome) -> None:
        pass


def quiet(tasks: int, done: Sequence[Verdict]) -> AbstractContextManager[Observer]:
    del tasks, done
    return nullcontext(QuietObserver())


def verified_run(
    checked: CheckedRecipe,
    server: RankServer,
    observed: Observed = quiet,
    *,
    strategies: Sequence[str] = ("baseline",),
    ranks: int = 1,
    timeout_s: float | None = None,
    method: Method = Method.COMPLETE,
    target: str = VERIFY,
) -> Path:
    """Runs what is not run yet; gives the run folder, which is called after what is asked.

    `observed` is entered with the number of tasks and what was said of those that are done.
    """
    parallel = any(strategy_named(strategy).parallel for strategy in strategies)
    limit = "" if timeout_s is None else f"-{timeout_s:g}s"
    name = f"{method}-{','.join(strategies)}{f'-ranks{ranks}' if parallel else ''}{limit}"
    command = Command(
        categories=(str(checked.category.absolute()),),
        strategies=tuple(strategies),
        ranks=ranks if parallel else 1,
        timeout_s=timeout_s,
        filter=None,
        limit=None,
        method=method,
        seed=0,
        device=Device.AUTO,
        repeat=1,
    )
    tasks = plan(command)
    with open_run(checked.home, command, len(tasks), name) as folder:
        done = [folder.done[task.key()] for task in tasks if task.key() in folder.done]
        with observed(len(tasks), done) as observer:
            schedule(tasks, command, folder, server, observer, target)
    return checked.home / name
