"""How evenly time and memory lie on the ranks."""

from __future__ import annotations

import pandas as pd

from runner.report.gather import QUESTION, Evidence
from runner.report.strategy_rows import floats


def balance(evidence: Evidence) -> pd.DataFrame:
    """One row per category and label that ran on several ranks. Columns:

    - busy_median, busy_worst: time outside collectives of the busiest rank / mean over ranks,
      median and greatest over instances; 1 is even
    - memory_median, memory_worst: the same of peak tensor bytes
    - weight_worst: the same of resting weights
    - comm_bytes: bytes that a rank sent, mean over ranks and instances
    - collectives: how many a rank took part in, likewise
    """
    ranks = evidence.ranks[evidence.ranks["ranks"] > 1]
    measured = pd.DataFrame(
        {
            "busy": ranks["wall_s"] - ranks["comm_s"],
            "memory": floats(ranks["peak_tensor_bytes"]),
            "weight": floats(ranks["weight_bytes"]),
            "comm_bytes": floats(ranks["comm_bytes"]),
            "collectives": floats(ranks["collectives"]),
        }
    )
    keys = ["label", *QUESTION]
    groups = measured.groupby([ranks[name] for name in keys], sort=False, dropna=False)
    means = groups.mean()
    uneven = (groups.max() / means.where(means > 0)).reset_index()
    sent = means.reset_index()
    rows = []
    for (category, label), part in uneven.groupby(["category", "label"], sort=False):
        traffic = sent[(sent["category"] == category) & (sent["label"] == label)]
        rows.append(
            {
                "category": category,
                "strategy": label,
                "ranks": evidence.contenders[str(label)].ranks,
                "instances": len(part),
                "busy_median": part["busy"].median(),
                "busy_worst": part["busy"].max(),
                "memory_median": part["memory"].median(),
                "memory_worst": part["memory"].max(),
                "weight_worst": part["weight"].max(),
                "comm_bytes": traffic["comm_bytes"].mean(),
                "collectives": traffic["collectives"].mean(),
            }
        )
    return _ordered(pd.DataFrame(rows, columns=_COLUMNS), evidence)


_COLUMNS = [
    "category", "strategy", "ranks", "instances", "busy_median", "busy_worst",
    "memory_median", "memory_worst", "weight_worst", "comm_bytes", "collectives",
]  # fmt: skip


def _ordered(table: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    places = {name: place for place, name in enumerate((*evidence.categories, *evidence.labels))}
    return table.sort_values(
        ["category", "strategy"], key=lambda names: names.map(places), ignore_index=True
    )
