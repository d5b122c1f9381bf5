"""Every instance under every strategy, disagreements first."""

from __future__ import annotations

import pandas as pd

from runner.report.gather import NODE, QUESTION, Evidence
from runner.report.strategy_rows import contradictions

ANSWER = ["verdict", "cause", "late_answer", "run_time_s"]


def instances(evidence: Evidence) -> pd.DataFrame:
    """One row per instance: the question, `disagree`, and for each label the columns of `ANSWER`
    called `<label>: verdict` and so on, missing where the strategy did not run it. Of runs over a
    cluster also `node`: its kinds of nodes.

    Instances that were found both sat and unsat come first; otherwise the order of the runs.
    """
    questions = evidence.outcomes[QUESTION].drop_duplicates(ignore_index=True)
    contradicting = contradictions(evidence)[QUESTION].drop_duplicates()
    table = questions.merge(contradicting.assign(disagree=True), on=QUESTION, how="left")
    table["disagree"] = table["disagree"].notna()
    if NODE in evidence.outcomes:
        kinds = evidence.outcomes.groupby(QUESTION, dropna=False)[NODE].agg(_together)
        table = table.merge(kinds.reset_index(), on=QUESTION, how="left")
    for label in evidence.labels:
        rows = evidence.outcomes[evidence.outcomes["label"] == label]
        named = {name: f"{label}: {name}" for name in ANSWER}
        table = table.merge(rows[QUESTION + ANSWER].rename(columns=named), on=QUESTION, how="left")
    return table.sort_values("disagree", ascending=False, kind="stable", ignore_index=True)


def _together(kinds: pd.Series[str]) -> str:
    return " / ".join(sorted(set(kinds.dropna())))
