"""An experiment is data: which networks, under which strategies, over how many ranks.

It is a folder of run folders, one for each method and number of ranks, all resumable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.contract.errors import UsageError
from runner.contract.strategy import Engine
from runner.contract.vocabulary import Device, Method
from runner.contract.whole import replace_file
from runner.contract.workload import Workload
from runner.execute.executor import Executor, Gang
from runner.execute.gang import RankServer
from runner.record.folder import open_run
from runner.record.manifest import Command
from runner.run.plan import plan
from runner.run.programs import VERIFY
from runner.run.schedule import Observer, schedule
from runner.verifiers.strategies import strategy_named

TARGET = "runner.engine.programs.measured_bounds:bounds_target"
GENERATE = "runner.training.categories.generate:generate_target"
PRELOAD = ("runner.engine.programs.measured_bounds", "runner.training.categories.generate")
GENERATE_WITHIN_S = 600.0

REFERENCE = "baseline"


@dataclass(frozen=True)
class Generated:
    """A random network and one property. `sizes`: what `kind` takes
    (runner.training.categories.generate).
    """

    kind: str
    sizes: tuple[int, ...]
    radius: float

    @property
    def name(self) -> str:
        if self.kind == "mlp":
            _, width, depth = self.sizes
            return f"mlp_{depth}x{width}"
        return f"{self.kind}_{'x'.join(map(str, self.sizes))}"


@dataclass(frozen=True)
class Part:
    """What one run folder of the experiment holds. Categories are folders, or are generated."""

    method: Method
    ranks: int
    strategies: tuple[str, ...]
    categories: tuple[Path | Generated, ...]

    @property
    def name(self) -> str:
        return f"{self.method}-ranks{self.ranks}"


@dataclass(frozen=True)
class Experiment:
    """`kind` names its table. The filter, limit and timeout are those of `vnncomp-runner run`.

    With a `workload`, branch and bound is measured, else the bounds of a method.
    """

    kind: str
    parts: tuple[Part, ...]
    timeout_s: float
    filter: str | None = None
    limit: int | None = None
    seed: int = 0
    device: Device = Device.AUTO
    repeat: int = 1
    workload: Workload | None = None
    work_memory_mib: float | None = None


def parts_over(
    methods: Sequence[Method],
    ranks: Sequence[int],
    strategies: Sequence[str],
    categories: Sequence[Path | Generated],
) -> Iterator[Part]:
    """The reference and strategies of one rank at P=1, the parallel ones at every other P, layouts
    at their own.

    A parallel strategy on one rank is the reference. Raises UsageError for an unknown strategy.
    """
    known = [strategy_named(name) for name in strategies]
    if any(strategy.engine is Engine.NULL for strategy in known):
        raise UsageError("strategy null computes no bounds; leave it out")
    alone = tuple(s.name for s in known if not s.parallel and s.name != REFERENCE)
    parallel: dict[int, tuple[str, ...]] = {}
    for strategy in known:
        for count in sorted({strategy.ranks_of(asked) for asked in ranks} - {1}):
            parallel[count] = (*parallel.get(count, ()), strategy.name)
    for method in methods:
        yield Part(method, 1, (REFERENCE, *alone), tuple(categories))
        for count in sorted(parallel):
            yield Part(method, count, parallel[count], tuple(categories))


def parts_growing(
    methods: Sequence[Method], networks: Mapping[int, Generated], strategies: Sequence[str]
) -> Iterator[Part]:
    """Every number of ranks has a network of its own; the reference bounds all of them."""
    for method in methods:
        yield Part(method, 1, (REFERENCE,), tuple(networks.values()))
        for count, network in networks.items():
            for part in parts_over([method], [count], strategies, [network]):
                if part.ranks == count > 1:
                    yield part


Progress = Callable[[Part, int], AbstractContextManager[Observer]]


def run_experiment(experiment: Experiment, folder: Path, progress: Progress) -> None:
    """Runs what is not done yet; `progress` is entered for each part, with its number of tasks.

    Raises UsageError when `folder` belongs to another experiment, and what `schedule` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "experiment.json", experiment)
    target = VERIFY if experiment.workload else TARGET
    with RankServer(folder / "server.log", PRELOAD) as server:
        for part in experiment.parts:
            categories = [
                _generated(category, experiment, folder, server)
                if isinstance(category, Generated)
                else category
                for category in part.categories
            ]
            command = Command(
                categories=tuple(str(category.absolute()) for category in categories),
                strategies=part.strategies,
                ranks=part.ranks,
                timeout_s=experiment.timeout_s,
                filter=experiment.filter,
                limit=experiment.limit,
                method=part.method,
                seed=experiment.seed,
                device=experiment.device,
                repeat=experiment.repeat,
                workload=experiment.workload,
                work_memory_mib=experiment.work_memory_mib,
            )
            tasks = plan(command)
            with (
                open_run(folder, command, len(tasks), part.name) as run,
                progress(part, len(tasks)) as observer,
            ):
                schedule(tasks, command, run, server, observer, target)


def _claim(file: Path, experiment: Experiment) -> None:
    """Notes what the folder is for, or checks that it is for the same."""
    text = json.dumps(asdict(experiment), indent=2, default=str) + "\n"
    if not file.exists():
        replace_file(file, text)
    elif file.read_text(encoding="utf-8") != text:
        raise UsageError(f"{file.parent} holds another experiment; choose another --run name")


def _generated(wanted: Generated, experiment: Experiment, folder: Path, executor: Executor) -> Path:
    category = folder / "networks" / wanted.name
    if not (category / "instances.csv").exists():
        payload = {
            **asdict(wanted),
            "name": wanted.name,
            "folder": str(category.absolute()),
            "seed": experiment.seed,
            "timeout_s": experiment.timeout_s,
        }
        gang = Gang(GENERATE, payload, 1, folder / "generate", GENERATE_WITHIN_S)
        result = executor.submit(gang).result()
        if not (category / "instances.csv").exists():
            raise UsageError(f"{wanted.name} was not made: {result.how}; see {folder}/generate")
    return category
