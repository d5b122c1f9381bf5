"""What each strategy bought and cost, in a sentence."""

from __future__ import annotations

import pandas as pd

from runner.contract.vocabulary import Verdict
from runner.report.columns import short_name
from runner.report.gather import SOLVED, Evidence
from runner.report.strategy_rows import against_baseline, floats, geometric_mean
from runner.report.text import difference, ratio


def sentences(evidence: Evidence) -> list[str]:
    """One for each label that has a baseline, in the one order.

    Figures are of the instances that all strategies ran to an end: a rank's peak memory where
    baseline's is greatest and in the median, and the geometric mean of run times.
    """
    pairs = against_baseline(evidence)
    return [
        _sentence(evidence, label, baseline, pairs[pairs["label"] == label])
        for label in evidence.labels
        if (baseline := evidence.baselines.get(label, label)) != label
    ]


def _sentence(evidence: Evidence, label: str, baseline: str, pairs: pd.DataFrame) -> str:
    if pairs.empty:
        said = ["nothing to compare, as no instance was run to an end by every strategy"]
    else:
        memory = _memory(pairs, baseline)
        time = _time(pairs, "its" if memory else f"of {baseline}'s")
        said = [", ".join(part for part in (memory, time) if part), _bounds(pairs)]
    said.append(_answers(evidence.outcomes, label, baseline))
    return f"{label}: {'; '.join(part for part in said if part)}."


def _memory(pairs: pd.DataFrame, baseline: str) -> str:
    """Empty where peaks were not measured, or not with the same meter."""
    metered = pairs[pairs["meter"] == pairs["meter_baseline"]]
    theirs = floats(metered["peak_tensor_bytes_baseline"])
    ratios = floats(metered["peak_tensor_bytes"]) / theirs
    if ratios.isna().all():
        return ""
    most = int(theirs.where(ratios.notna(), -1.0).argmax())
    said = f"{ratio(ratios.iloc[most])} of {baseline}'s peak memory per rank"
    if ratios.count() == 1:
        return said
    network = short_name(str(metered["network"].iloc[most]))
    return f"{said} on {network}, which needs the most ({ratio(ratios.median())} in the median)"


def _time(pairs: pd.DataFrame, whose: str) -> str:
    times = geometric_mean(pairs["run_time_s"] / pairs["run_time_s_baseline"])
    return "" if pd.isna(times) else f"{ratio(times)} {whose} time"


def _bounds(pairs: pd.DataFrame) -> str:
    """Empty where no two bounds can be compared."""
    apart = (pairs["lower_bound"] - pairs["lower_bound_baseline"]).abs().max()
    if pd.isna(apart):
        return ""
    return f"bounds within {difference(apart)}" if apart else "bounds equal to the last bit"


def _answers(outcomes: pd.DataFrame, label: str, baseline: str) -> str:
    """What it decided and what broke, where that is not as under the baseline."""
    ours, theirs = (outcomes[outcomes["label"] == name]["verdict"] for name in (label, baseline))
    said = []
    if (solved := int(ours.isin(SOLVED).sum())) != (before := int(theirs.isin(SOLVED).sum())):
        said.append(f"{solved} of {len(ours)} solved, {baseline} {before} of {len(theirs)}")
    if broken := int((ours == Verdict.ERROR).sum()):
        said.append("1 error" if broken == 1 else f"{broken} errors")
    return ", ".join(said)
