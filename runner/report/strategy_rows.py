"""What the evidence says about each strategy, in bytes and seconds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from runner.contract.vocabulary import Meter, Verdict
from runner.report.gather import ENDED, INSTANCE, NODE, QUESTION, SOLVED, Evidence
from runner.report.points import POINTS, WRONG

ALL = "all"


def strategies(evidence: Evidence, by_category: bool = True) -> pd.DataFrame:
    """One row per category and label, in the one order; then a row per label for all categories.

    Without `by_category` only the latter, and with one category only the former. Columns:

    - category, strategy (the label), ranks
    - instances; sat, unsat, unknown, timeout, error: numbers of instances; solved: sat and unsat
    - score: VNN-COMP points, where every `sat` counts as confirmed (`run` records no other)
    - par2_s: mean over instances of the run time, or of twice the timeout where it is neither
      sat nor unsat; rows that have no readable timeout do not count
    - median_run_s, total_run_s: over all instances that ran
    - domains_per_s_median, domains_total: of branch and bound, over the instances that had one
    - compared: the number of instances that every strategy that ended any in the category ran to
      an end (sat, unsat or unknown); ratios are geometric means over these
    - speed_ratio: run time of baseline / of this strategy, above 1 is faster
    - memory_ratio, weight_ratio: greatest peak tensor and resting weight bytes of a rank / of
      baseline, below 1 is less; only where both were read with the same meter
    - bound_difference: greatest difference of an output lower bound to that of baseline
    - peak_tensor_median_bytes, peak_tensor_max_bytes, weight_max_bytes: per rank
    - comm_s: seconds in collectives, summed over instances, mean over ranks
    - comm_share: share of the ranks' wall-clock time spent in collectives
    - meter: how tensor bytes were measured (several are joined by "+")
    """
    wrong = _wrong(evidence.outcomes)
    outcomes = evidence.outcomes.assign(wrong=wrong.to_numpy())
    pairs = against_baseline(evidence)
    parts = [(category, "category") for category in evidence.categories]
    if not by_category or len(parts) > 1:
        parts = [*(parts if by_category else []), (ALL, "")]
    rows = []
    for name, column in parts:
        chosen, ranks, compared = (
            table[table[column] == name] if column else table
            for table in (outcomes, evidence.ranks, pairs)
        )
        by_label = dict(iter(chosen.groupby("label")))
        ranks_by_label = dict(iter(ranks.groupby("label")))
        pairs_by_label = dict(iter(compared.groupby("label")))
        for label in evidence.labels:
            if label in by_label:
                rows.append(
                    {"category": name, "strategy": label}
                    | {"ranks": evidence.contenders[label].ranks}
                    | _verdicts(by_label[label])
                    | _times(by_label[label])
                    | _search(by_label[label])
                    | _against(pairs_by_label.get(label, compared.iloc[:0]))
                    | _memory(by_label[label], ranks_by_label.get(label, ranks.iloc[:0]))
                    | _communication(ranks_by_label.get(label, ranks.iloc[:0]))
                )
    return pd.DataFrame(rows)


def contradictions(evidence: Evidence) -> pd.DataFrame:
    """The solved rows of every instance that was found both `sat` and `unsat`, in any repeat and
    under any timeout.
    """
    solved = evidence.repeats[evidence.repeats["verdict"].isin(SOLVED)]
    verdicts = solved.groupby(INSTANCE)["verdict"].transform("nunique")
    return solved[verdicts > 1]


def against_baseline(evidence: Evidence) -> pd.DataFrame:
    """One row per label and instance that all strategies ran to an end, with the baseline's
    figures in columns that end in `_baseline`. A label without baseline has no row.

    A strategy that ended no instance of a category is not waited for in that category.
    """
    ended = evidence.outcomes[evidence.outcomes["verdict"].isin(ENDED)]
    taking_part = ended.groupby("category")["label"].transform("nunique")
    ended_by = ended.groupby(QUESTION, dropna=False)["label"].transform("nunique")
    shared = ended[ended_by == taking_part]
    figures = ["run_time_s", "peak_tensor_bytes", "weight_bytes", "lower_bound", "meter"]
    if NODE in shared:  # times of two kinds of nodes are no comparison
        shared = shared[shared.groupby(QUESTION, dropna=False)[NODE].transform("nunique") <= 1]
    theirs = shared[["label", *QUESTION, *figures]].rename(columns={"label": "baseline"})
    ours = shared.assign(baseline=shared["label"].map(evidence.baselines).astype("string"))
    return ours.merge(theirs, on=["baseline", *QUESTION], suffixes=("", "_baseline"))


def geometric_mean(values: pd.Series[float]) -> float:
    """Of the positive ones; NaN when there is none."""
    positive = values[values > 0]
    return float(np.exp(np.log(positive).mean())) if len(positive) else float("nan")


def floats(values: pd.Series[int]) -> pd.Series[float]:
    """Nullable integers as floats, NaN where nothing was measured."""
    return values.astype("Float64").astype("float64")


def _wrong(outcomes: pd.DataFrame) -> pd.Series[bool]:
    """`unsat` where another strategy confirmed a counterexample."""
    is_sat = outcomes["verdict"] == Verdict.SAT
    refuted = is_sat.groupby([outcomes[name] for name in INSTANCE]).transform("any")
    return refuted & (outcomes["verdict"] == Verdict.UNSAT)


def _verdicts(outcomes: pd.DataFrame) -> dict[str, object]:
    counts = outcomes["verdict"].value_counts()
    by_verdict = {str(verdict): int(counts.get(verdict, 0)) for verdict in Verdict}
    solved, wrong = sum(by_verdict[verdict] for verdict in SOLVED), int(outcomes["wrong"].sum())
    return {
        "instances": len(outcomes),
        **by_verdict,
        "solved": solved,
        "score": POINTS * (solved - wrong) + WRONG * wrong,
    }


def _times(outcomes: pd.DataFrame) -> dict[str, object]:
    solved = outcomes["verdict"].isin(SOLVED)
    par2 = outcomes["run_time_s"].where(solved, 2 * outcomes["timeout_s"])
    return {
        "par2_s": par2.mean(),
        "median_run_s": outcomes["run_time_s"].median(),
        "total_run_s": outcomes["run_time_s"].sum(min_count=1),
    }


def _search(outcomes: pd.DataFrame) -> dict[str, object]:
    return {
        "domains_per_s_median": outcomes["domains_per_s"].median(),
        "domains_total": floats(outcomes["domains"]).sum(min_count=1),
    }


def _memory(outcomes: pd.DataFrame, ranks: pd.DataFrame) -> dict[str, object]:
    meters = sorted(set(outcomes["meter"]) - {Meter.NONE})
    peaks = floats(ranks["peak_tensor_bytes"])
    return {
        "peak_tensor_median_bytes": peaks.median(),
        "peak_tensor_max_bytes": peaks.max(),
        "weight_max_bytes": floats(ranks["weight_bytes"]).max(),
        "meter": "+".join(meters) or str(Meter.NONE),
    }


def _against(pairs: pd.DataFrame) -> dict[str, object]:
    metered = pairs[pairs["meter"] == pairs["meter_baseline"]]
    difference = (pairs["lower_bound"] - pairs["lower_bound_baseline"]).abs()
    return {
        "compared": len(pairs),
        "speed_ratio": geometric_mean(pairs["run_time_s_baseline"] / pairs["run_time_s"]),
        "memory_ratio": _ratio(metered, "peak_tensor_bytes"),
        "weight_ratio": _ratio(metered, "weight_bytes"),
        "bound_difference": difference.max(),
    }


def _ratio(pairs: pd.DataFrame, column: str) -> float:
    return geometric_mean(floats(pairs[column]) / floats(pairs[f"{column}_baseline"]))


def _communication(ranks: pd.DataFrame) -> dict[str, object]:
    measured = ranks[ranks["comm_s"].notna()]
    wall_s = measured["wall_s"].sum()
    return {
        "comm_s": (measured["comm_s"] / floats(measured["ranks"])).sum(min_count=1),
        "comm_share": measured["comm_s"].sum() / wall_s if wall_s else float("nan"),
    }
