"""What a run says about each strategy, in bytes and seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.record.schema import Key
from runner.vocabulary import Meter, Verdict

BASELINE = "baseline"

_QUESTION = [name for name in Key._fields if name != "strategy"]
_SOLVED = (Verdict.SAT, Verdict.UNSAT)
# Times and peaks of a run that was cut short or broke compare nothing.
_COMPARABLE = (*_SOLVED, Verdict.UNKNOWN)


def summary(outcomes: pd.DataFrame, ranks: pd.DataFrame, by_category: bool = False) -> pd.DataFrame:
    """One row per strategy, in the order of the run; with `by_category` per category and strategy.

    `outcomes` and `ranks` are as `runner.record.read` gives them. Columns:

    - instances; sat, unsat, unknown, timeout, error: numbers of instances
    - par2_s: mean over instances of the run time, or of twice the timeout where it is neither
      sat nor unsat; rows that have no readable timeout do not count
    - median_run_s: over all instances that ran
    - peak_tensor_median_bytes, peak_tensor_max_bytes, weight_max_bytes: per rank
    - meter: how tensor bytes were measured (several are joined by "+")
    - compared: on how many instances both this strategy and `baseline` ran to an end (sat, unsat
      or unknown); the ratios are geometric means over these
    - speed_ratio: run time of baseline / of this strategy, above 1 is faster
    - memory_ratio, weight_ratio: greatest peak tensor and resting weight bytes of a rank / of
      baseline, below 1 is less; only where both were read with the same meter
    - comm_s: seconds in collectives, summed over instances, mean over ranks
    - comm_share: share of the ranks' wall-clock time spent in collectives
    """
    group = ["category", "strategy"] if by_category else ["strategy"]
    keys = outcomes[group].drop_duplicates()
    rows = []
    for values in keys.itertuples(index=False, name=None):
        chosen = _select(outcomes, group, values)
        baseline = outcomes[outcomes["strategy"] == BASELINE]
        rows.append(
            dict(zip(group, values, strict=True))
            | _verdicts(chosen)
            | _times(chosen)
            | _memory(chosen, _select(ranks, group, values))
            | _against(chosen, baseline)
            | _communication(_select(ranks, group, values))
        )
    return pd.DataFrame(rows)


def contradictions(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The solved rows of every instance that is `sat` for one strategy and `unsat` for another."""
    solved = outcomes[outcomes["verdict"].isin(_SOLVED)]
    verdicts = solved.groupby(_QUESTION, dropna=False)["verdict"].transform("nunique")
    return solved[verdicts > 1]


def _select(table: pd.DataFrame, names: Sequence[str], values: Sequence[object]) -> pd.DataFrame:
    chosen = np.logical_and.reduce(
        [table[name] == value for name, value in zip(names, values, strict=True)]
    )
    return table[chosen]


def _verdicts(outcomes: pd.DataFrame) -> dict[str, object]:
    counts = outcomes["verdict"].value_counts()
    numbers: dict[str, object] = {"instances": len(outcomes)}
    return numbers | {str(verdict): int(counts.get(verdict, 0)) for verdict in Verdict}


def _times(outcomes: pd.DataFrame) -> dict[str, object]:
    solved = outcomes["verdict"].isin(_SOLVED)
    par2 = outcomes["run_time_s"].where(solved, 2 * outcomes["timeout_s"])
    return {"par2_s": par2.mean(), "median_run_s": outcomes["run_time_s"].median()}


def _memory(outcomes: pd.DataFrame, ranks: pd.DataFrame) -> dict[str, object]:
    meters = sorted(set(outcomes["meter"]) - {Meter.NONE})
    return {
        "peak_tensor_median_bytes": _float(ranks["peak_tensor_bytes"]).median(),
        "peak_tensor_max_bytes": _float(ranks["peak_tensor_bytes"]).max(),
        "weight_max_bytes": _float(ranks["weight_bytes"]).max(),
        "meter": "+".join(meters) or str(Meter.NONE),
    }


def _against(outcomes: pd.DataFrame, baseline: pd.DataFrame) -> dict[str, object]:
    pairs = outcomes.merge(baseline, on=_QUESTION, suffixes=("", "_baseline"))
    ended = pairs["verdict"].isin(_COMPARABLE) & pairs["verdict_baseline"].isin(_COMPARABLE)
    pairs = pairs[ended]
    same_meter = pairs[pairs["meter"] == pairs["meter_baseline"]]
    return {
        "compared": len(pairs),
        "speed_ratio": _geometric_mean(pairs["run_time_s_baseline"], pairs["run_time_s"]),
        "memory_ratio": _ratio(same_meter, "peak_tensor_bytes"),
        "weight_ratio": _ratio(same_meter, "weight_bytes"),
    }


def _communication(ranks: pd.DataFrame) -> dict[str, object]:
    measured = ranks[ranks["comm_s"].notna()]
    wall_s = measured["wall_s"].sum()
    return {
        "comm_s": (measured["comm_s"] / _float(measured["ranks"])).sum(min_count=1),
        "comm_share": measured["comm_s"].sum() / wall_s if wall_s else float("nan"),
    }


def _ratio(pairs: pd.DataFrame, column: str) -> float:
    return _geometric_mean(_float(pairs[column]), _float(pairs[f"{column}_baseline"]))


def _geometric_mean(numerator: pd.Series[float], denominator: pd.Series[float]) -> float:
    """Of the quotients of positive numbers; NaN when there is none."""
    positive = (numerator > 0) & (denominator > 0)
    return float(np.exp(np.log(numerator[positive] / denominator[positive]).mean()))


def _float(values: pd.Series[int]) -> pd.Series[float]:
    """Nullable integers as floats, NaN where nothing was measured."""
    return values.astype("Float64").astype("float64")
