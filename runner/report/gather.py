"""One or several runs as one body of evidence: who was compared, on what, with which baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Device, Verdict
from runner.record.manifest import Manifest
from runner.record.read import Run
from runner.record.schema import Key
from runner.verifiers.strategies import STRATEGIES

BASELINE = "baseline"
INSTANCE = ["category", "network", "property"]
# An instance under its timeout: what a strategy is asked.
QUESTION = [name for name in Key._fields if name not in ("strategy", "repeat")]
SOLVED = (Verdict.SAT, Verdict.UNSAT)
# The kind of node of an outcome, in runs over a cluster.
NODE = "node"
# Times and peaks of what was cut short or broke compare nothing.
ENDED = (*SOLVED, Verdict.UNKNOWN)

_SOURCE = ["run", "label", *QUESTION, "repeat"]


class Setting(NamedTuple):
    """What must be equal for two times to be comparable."""

    host: str
    device: str
    method: str


class Contender(NamedTuple):
    """One strategy at one number of ranks in one setting."""

    strategy: str
    ranks: int
    setting: Setting

    def order(self) -> tuple[bool, bool, int, str, int, Setting]:
        """`baseline` first, then as the strategies are declared, then by ranks."""
        known = list(STRATEGIES)
        place = known.index(self.strategy) if self.strategy in known else len(known)
        return (
            self.strategy != BASELINE,
            self.strategy not in known,
            place,
            self.strategy,
            self.ranks,
            self.setting,
        )


@dataclass(frozen=True)
class Evidence:
    """Runs put together. Every table has columns `run` and `label` besides those of its schema.

    outcomes: one row per question and label; of several repeats, the one with the median run time
    ranks: the rank rows of these outcomes
    repeats: the outcomes of all repeats
    labels: names of the contenders, in the one order that every table and legend has; a label is
      the strategy's name, and the ranks or the setting where several of them were run
    baselines: the label to compare each label with, absent where its setting has no baseline
    contenders: what each label stands for
    """

    runs: tuple[Run, ...]
    outcomes: pd.DataFrame
    ranks: pd.DataFrame
    repeats: pd.DataFrame
    labels: tuple[str, ...]
    baselines: dict[str, str]
    contenders: dict[str, Contender]
    notes: tuple[str, ...]

    @property
    def categories(self) -> list[str]:
        return list(self.outcomes["category"].unique())

    def only(self, chosen: Callable[[str, str], bool]) -> Evidence:
        """The part about instances whose network and property names are chosen."""

        def part(table: pd.DataFrame) -> pd.DataFrame:
            names = zip(table["network"], table["property"], strict=True)
            # As an array: an empty list would choose no column instead of no row.
            return table[np.array([chosen(*pair) for pair in names], dtype=bool)]

        return replace(
            self,
            outcomes=part(self.outcomes),
            ranks=part(self.ranks),
            repeats=part(self.repeats),
        )


def gather(runs: Sequence[Run]) -> Evidence:
    """Raises UsageError when no run has an outcome."""
    filled = [run for run in runs if not run.outcomes.empty]
    if not filled:
        raise UsageError(f"{', '.join(str(run.path) for run in runs)}: no outcome was recorded yet")
    contenders = {
        contender: index
        for index, contender in enumerate(
            sorted({found for run in filled for found in _contenders(run)}, key=Contender.order)
        )
    }
    labels = _labels(list(contenders))
    repeats = pd.concat([_labelled(run.outcomes, run, labels) for run in filled], ignore_index=True)
    ranks = pd.concat([_labelled(run.ranks, run, labels) for run in filled], ignore_index=True)
    outcomes = _representatives(repeats)
    return Evidence(
        runs=tuple(runs),
        outcomes=outcomes,
        ranks=ranks.merge(outcomes[_SOURCE], on=_SOURCE, how="inner"),
        repeats=repeats,
        labels=tuple(labels.values()),
        baselines=_baselines(labels),
        contenders={label: contender for contender, label in labels.items()},
        notes=tuple(_notes(runs, repeats, labels)),
    )


def incomplete(runs: Sequence[Run]) -> list[str]:
    """What is not there: outcomes that a run has yet to record, and rows that were left out."""
    unfinished = [
        f"{run.path.name} is {run.manifest.status}: "
        f"{len(run.outcomes)} of {run.manifest.rows} outcomes."
        for run in runs
        if len(run.outcomes) < run.manifest.rows
    ]
    return [*unfinished, *(str(row) for run in runs for row in run.left_out)]


def setting(manifest: Manifest) -> Setting:
    """Of a whole run."""
    device = manifest.command.device
    if device is Device.AUTO:
        device = Device.CUDA if manifest.gpus else Device.CPU
    method, workload = str(manifest.command.method), manifest.command.workload
    if workload is not None:
        # So much work takes its own time, and not that of deciding.
        method = f"{method} {workload.rounds}x{workload.batch}"
    if manifest.command.work_memory_mib is not None:
        method = f"{method} {manifest.command.work_memory_mib:g} MiB"
    return Setting(str(manifest.host.get("name", "")), device, method)


def _contenders(run: Run) -> set[Contender]:
    pairs = run.outcomes[["strategy", "ranks"]].drop_duplicates()
    where = setting(run.manifest)
    return {
        Contender(str(strategy), int(ranks), where)
        for strategy, ranks in pairs.itertuples(index=False, name=None)
    }


def _labels(contenders: Sequence[Contender]) -> dict[Contender, str]:
    """Names as short as they can be told apart."""
    labels = {}
    for contender in contenders:
        ranks = {other.ranks for other in contenders if other.strategy == contender.strategy}
        parts = [contender.strategy]
        if len(ranks) > 1:
            parts.append(f"P={contender.ranks}")
        for field, value in zip(Setting._fields, contender.setting, strict=True):
            if len({getattr(other.setting, field) for other in contenders}) > 1:
                parts.append(f"@{value}" if field == "host" else value)
        labels[contender] = " ".join(parts)
    return labels


def _labelled(table: pd.DataFrame, run: Run, labels: dict[Contender, str]) -> pd.DataFrame:
    """The table with `run` and `label`; two runs of one name are told apart by their folders."""
    where = setting(run.manifest)
    names = {
        (contender.strategy, contender.ranks): label
        for contender, label in labels.items()
        if contender.setting == where
    }
    keys = zip(table["strategy"], table["ranks"].astype("int64"), strict=True)
    label = pd.array([names[key] for key in keys], dtype="string")
    return table.assign(run=pd.array([str(run.path)] * len(table), dtype="string"), label=label)


def _representatives(repeats: pd.DataFrame) -> pd.DataFrame:
    """The row with the median run time of each question and label (the lower one of two)."""
    group = ["label", *QUESTION]
    if not repeats.duplicated(group).any():
        return repeats
    by_time = repeats.sort_values("run_time_s", kind="stable")
    groups = by_time.groupby(group, sort=False, dropna=False)
    place, size = groups.cumcount(), groups["repeat"].transform("size")
    return by_time[place == (size - 1) // 2].sort_index().reset_index(drop=True)


def _baselines(labels: dict[Contender, str]) -> dict[str, str]:
    by_setting = {
        contender.setting: label
        for contender, label in labels.items()
        if contender.strategy == BASELINE
    }
    return {
        label: by_setting[contender.setting]
        for contender, label in labels.items()
        if contender.setting in by_setting
    }


def _notes(runs: Sequence[Run], repeats: pd.DataFrame, labels: dict[Contender, str]) -> list[str]:
    """What a reader must know before believing a figure."""
    notes = [*incomplete(runs), *_node_notes(repeats)]
    missing = [label for label in labels.values() if label not in _baselines(labels)]
    if missing:
        notes.append(f"No baseline to compare with: {', '.join(missing)}.")
    if len(labels) == 1:
        notes.append("Only one strategy was run: there is nothing to compare.")
    elif not _shared_questions(repeats):
        notes.append("No instance was run by all strategies: there are no ratios.")
    verdicts = repeats.groupby(["label", *QUESTION], dropna=False)["verdict"].nunique()
    if (verdicts > 1).any():
        notes.append(f"{int((verdicts > 1).sum())} answers differ from repeat to repeat.")
    for name in ("git_revision", "seed", "versions"):
        if len({str(getattr(run.manifest, name)) for run in runs}) > 1:
            notes.append(f"The runs differ in {name.replace('_', ' ')}.")
    return notes


def _node_notes(repeats: pd.DataFrame) -> list[str]:
    """Of runs over a cluster whose nodes are not alike."""
    if NODE not in repeats:
        return []
    kinds = repeats[NODE].dropna().value_counts()
    kinds = kinds[kinds.index != ""]
    if len(kinds) < 2:
        return []
    counts = "; ".join(f"{count} outcomes on {kind}" for kind, count in kinds.items())
    notes = [f"Times are of {len(kinds)} kinds of nodes: {counts}."]
    apart = int((repeats.groupby(QUESTION, dropna=False)[NODE].nunique() > 1).sum())
    if apart:
        notes.append(
            f"{apart} instances moved to another kind of node between strategies, where their "
            "shard was lost: they count in no ratio."
        )
    return notes


def _shared_questions(repeats: pd.DataFrame) -> int:
    asked = repeats.groupby(QUESTION, dropna=False)["label"].nunique()
    return int((asked == repeats["label"].nunique()).sum())
