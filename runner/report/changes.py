"""One run against another: answers lost and won, times and memory that changed beyond noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from runner.contract.errors import UsageError
from runner.record.read import Run
from runner.report.gather import ENDED, QUESTION, SOLVED, incomplete, setting
from runner.report.strategy_rows import floats, geometric_mean

# Without repeats nothing is known of the noise: what is beyond these factors counts as a change.
TIME_NOISE = 1.5
MEMORY_NOISE = 1.02
# Starting processes takes a time of its own, in seconds, whatever the instance.
LEAST_SECONDS = 0.1
_DEVIATIONS = 3.0  # of the difference of two means
_LEAST_NOISE = 1.02  # however well repeats agree

_WHO = ["strategy", "ranks"]
_MEASURES = {"time": "run_time_s", "memory": "peak_tensor_bytes"}


class Change(StrEnum):
    """What became of an answer."""

    NONE = ""
    LOST = "lost"
    WON = "won"
    CONTRADICTS = "contradicts"  # sat before and unsat now, or the other way round
    OTHER = "changed"  # not solved before, not solved now, for another reason


@dataclass(frozen=True)
class FailOn:
    """What fails a comparison. `time`, `memory`: a change beyond noise by more than the factor."""

    verdict: bool = False
    time: float | None = None
    memory: float | None = None


def fail_on(text: str) -> FailOn:
    """From `verdict,time:1.3,memory:1.2`. Raises UsageError for anything else."""
    chosen: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, factor = part.partition(":")
        try:
            value = float(factor) if factor else float("nan")
        except ValueError:
            value = 0.0
        is_verdict = name == "verdict" and not factor
        if not is_verdict and not (name in _MEASURES and value >= 1):
            raise UsageError(
                f"--fail-on {part}: expected verdict, time:FACTOR or memory:FACTOR, "
                "with a factor of at least 1"
            )
        chosen[name] = value
    return FailOn("verdict" in chosen, chosen.get("time"), chosen.get("memory"))


def changes(old: Run, new: Run) -> pd.DataFrame:
    """One row per question that both runs asked one strategy on as many ranks.

    verdict_old, verdict_new: of the first repeat; change: a `Change`. For time and memory:
    `<name>_old` and `<name>_new` (geometric means over repeats, NaN where the answer was cut
    short), `<name>_ratio` (new / old), `<name>_noise` (the factor that noise explains), and
    `<name>_changed` (whether the ratio is beyond that). Raises UsageError when nothing is shared.
    """
    for run in (old, new):
        if run.outcomes.empty:
            raise UsageError(f"{run.path}: no outcome was recorded yet")
    sides = [_side(run) for run in (old, new)]
    table = sides[0].merge(sides[1], on=[*_WHO, *QUESTION], suffixes=("_old", "_new"))
    if table.empty:
        raise UsageError(
            f"{old.path} and {new.path} share no instance under one strategy and number of ranks "
            "(its timeout is part of an instance)"
        )
    pairs = zip(table["verdict_old"], table["verdict_new"], strict=True)
    table["change"] = pd.array([_change(before, after) for before, after in pairs], dtype="string")
    for name, default in (("time", TIME_NOISE), ("memory", MEMORY_NOISE)):
        ratio = table[f"{name}_new"] / table[f"{name}_old"]
        if name == "memory":
            ratio = ratio.where(table["meter_old"] == table["meter_new"])
        noise = _noise(table, name, default)
        changed = (ratio > noise) | (ratio < 1 / noise)
        if name == "time":
            changed &= (table["time_new"] - table["time_old"]).abs() > LEAST_SECONDS
        table = table.assign(
            **{f"{name}_ratio": ratio, f"{name}_noise": noise, f"{name}_changed": changed}
        )
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy: instances, lost, won, contradicts; time_ratio and memory_ratio
    (geometric means), slower and faster, more and less (memory): numbers beyond noise;
    time_noise: the median factor.
    """
    rows = []
    for (strategy, ranks), part in table.groupby(_WHO, sort=False):
        answers = part["change"].value_counts()
        row: dict[str, object] = {"strategy": strategy, "ranks": ranks, "instances": len(part)}
        for change in (Change.LOST, Change.WON, Change.CONTRADICTS):
            row[str(change)] = int(answers.get(change, 0))
        for name, above, below in (("time", "slower", "faster"), ("memory", "more", "less")):
            changed = part.loc[part[f"{name}_changed"], f"{name}_ratio"]
            row |= {
                f"{name}_ratio": geometric_mean(part[f"{name}_ratio"]),
                f"{name}_noise": part[f"{name}_noise"].median(),
                above: int((changed > 1).sum()),
                below: int((changed < 1).sum()),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def failures(table: pd.DataFrame, limits: FailOn, missing: int = 0) -> list[str]:
    """Why the new run is worse than allowed; empty when it is not.

    missing: how many outcomes the new run has yet to record, which may all be lost.
    """
    found = []
    if limits.verdict and missing:
        found.append(f"verdict: the new run has {missing} outcomes yet to record")
    if limits.verdict:
        for change in (Change.LOST, Change.CONTRADICTS):
            number = int((table["change"] == change).sum())
            if number:
                found.append(f"verdict: {number} answers {change}")
    for name, limit in (("time", limits.time), ("memory", limits.memory)):
        if limit is None:
            continue
        worse = table[table[f"{name}_changed"] & (table[f"{name}_ratio"] > limit)]
        if len(worse):
            most = worse[f"{name}_ratio"].max()
            found.append(f"{name}: {len(worse)} instances beyond {limit:g}×, at most {most:.2f}×")
    return found


def notes(old: Run, new: Run, table: pd.DataFrame) -> list[str]:
    """What a reader must know before believing a change."""
    said = incomplete((old, new))
    asked = max(len(_side(run)) for run in (old, new))
    if len(table) < asked:
        said.append(f"{len(table)} of {asked} answers are in both runs; the others do not count.")
    for name, before, after in zip(
        ("host", "device", "method"), setting(old.manifest), setting(new.manifest), strict=True
    ):
        if before != after:
            said.append(f"The runs differ in {name}: {before}, {after}.")
    if "time" not in _repeated(table):
        said.append(
            f"Without repeats the noise is not known: times count as changed beyond {TIME_NOISE}× "
            f"and {LEAST_SECONDS} s, memory beyond {MEMORY_NOISE}×. See `run --repeat`."
        )
    return said


def _side(run: Run) -> pd.DataFrame:
    """One row per question: its first verdict, means over repeats, their spread and number."""
    rows = run.outcomes
    ended = rows["verdict"].isin(ENDED)
    values = {
        "time": rows["run_time_s"].where(ended & (rows["run_time_s"] > 0)),
        "memory": floats(rows["peak_tensor_bytes"]).where(ended & (rows["peak_tensor_bytes"] > 0)),
    }
    logs = rows[[*_WHO, *QUESTION, "verdict", "meter"]].assign(
        **{name: np.log(value.astype("float64")) for name, value in values.items()}
    )
    groups = logs.groupby([*_WHO, *QUESTION], sort=False, dropna=False)
    table = groups.agg(verdict=("verdict", "first"), meter=("meter", "first"))
    for name in _MEASURES:
        table[name] = np.exp(groups[name].mean())
        table[f"{name}_count"] = groups[name].count()
        table[f"{name}_variance"] = groups[name].var()
    return table.reset_index()


def _noise(table: pd.DataFrame, name: str, default: float) -> pd.Series[float]:
    """The factor up to which two means may differ by chance.

    Repeats of one question are few: their spread is pooled over all questions of a strategy.
    """
    noise = pd.Series(default, index=table.index)
    counts = {side: table[f"{name}_count_{side}"] for side in ("old", "new")}
    for _, part in table.groupby(_WHO, sort=False):
        spread, freedom = 0.0, 0
        for side, count in counts.items():
            repeated = part[count.loc[part.index] > 1]
            weights = repeated[f"{name}_count_{side}"] - 1
            spread += float((repeated[f"{name}_variance_{side}"] * weights).sum())
            freedom += int(weights.sum())
        if freedom:
            deviation = np.sqrt(spread / freedom)
            inverse = sum(1 / count.loc[part.index].clip(lower=1) for count in counts.values())
            factor = np.exp(_DEVIATIONS * deviation * np.sqrt(inverse))
            noise.loc[part.index] = np.maximum(factor, _LEAST_NOISE)
    return noise


def _repeated(table: pd.DataFrame) -> Sequence[str]:
    return [
        name
        for name in _MEASURES
        if max(table[f"{name}_count_old"].max(), table[f"{name}_count_new"].max()) > 1
    ]


def _change(before: str, after: str) -> Change:
    if before == after:
        return Change.NONE
    was_solved, is_solved = before in SOLVED, after in SOLVED
    if was_solved and is_solved:
        return Change.CONTRADICTS
    if was_solved:
        return Change.LOST
    return Change.WON if is_solved else Change.OTHER
