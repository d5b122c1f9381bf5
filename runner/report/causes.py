"""What was not decided, and why."""

from __future__ import annotations

import pandas as pd

from runner.report.gather import SOLVED, Evidence

COLUMNS = ["strategy", "verdict", "cause", "instances", "category", "network", "property",
           "message"]  # fmt: skip


def causes(evidence: Evidence) -> pd.DataFrame:
    """One row per label, verdict and cause, most frequent first, with the first such instance
    (`category`, `network`, `property`) and its message as an example.
    """
    undecided = evidence.outcomes[~evidence.outcomes["verdict"].isin(SOLVED)]
    groups = undecided.groupby(["label", "verdict", "cause"], sort=False)
    examples = groups[["category", "network", "property", "message"]].first()
    table = examples.assign(instances=groups.size()).reset_index()
    table = table.rename(columns={"label": "strategy"})[COLUMNS]
    places = {label: place for place, label in enumerate(evidence.labels)}
    table["place"] = table["strategy"].map(places)
    table = table.sort_values(["place", "instances"], ascending=[True, False], ignore_index=True)
    return table.drop(columns="place")
