"""VNN-COMP's score, by the rules of 2026, with the reason for every point that was lost.

Ten points for a correct answer, −150 for a wrong one. `sat` needs a counterexample whose replay on
ONNX Runtime violates the property, in the input box or within the tolerance of it; `unsat` is
wrong where any tool has a counterexample inside the box itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from runner.contract.vocabulary import Verdict
from runner.problem.instances import Instance
from runner.problem.replay import Replay, Validity, replay
from runner.report.official import Contestant, GivenAnswer
from runner.report.points import POINTS, WRONG, percent
from runner.report.sources import CommonName, Sources

Checker = Callable[[Path, Path, Path | None], Replay]

ANSWERS = {
    "category": "string", "network": "string", "property": "string", "tool": "string",
    "verdict": "string", "run_s": "float64", "counterexample": "string", "truth": "string",
    "points": "int64", "reason": "string", "detail": "string", "rounding": "string",
}  # fmt: skip
_CREDITED = (Validity.VALID, Validity.TOLERATED)


def answers(tools: Sequence[Contestant], files: Sources, check: Checker = replay) -> pd.DataFrame:
    """One row per question and tool, with the columns of `ANSWERS`; every tool has every question
    that any tool has in a category.

    points: 10, 0 or −150; reason: why it is not 10, empty where it is; counterexample: what its
    replay said; truth: `sat` where one is valid, else `unsat` where anyone said so, else "-";
    rounding: where the counterexample that points depend on lies outside the box by more than the
    tolerance and is valid only as limits are rounded, how far.
    """
    by_tool = {tool.name: {answer.question: answer for answer in tool.answers} for tool in tools}
    questions = dict.fromkeys(answer.question for tool in tools for answer in tool.answers)
    rows = []
    for asked in questions:
        given = {name: answers.get(asked) for name, answers in by_tool.items()}
        rows += _question(asked, given, files.get(asked), check)
    return pd.DataFrame(rows, columns=list(ANSWERS), dtype=object).astype(ANSWERS)


def _question(
    asked: CommonName,
    given: Mapping[str, GivenAnswer | None],
    source: Instance | None,
    check: Checker,
) -> list[dict[str, object]]:
    replays = {
        name: _replay(answer, source, check)
        for name, answer in given.items()
        if answer and _said(answer, source) is Verdict.SAT
    }
    refuting = [name for name, found in replays.items() if found.validity is Validity.VALID]
    verdicts = {_said(answer, source) for answer in given.values() if answer}
    truth = Verdict.SAT if refuting else Verdict.UNSAT if Verdict.UNSAT in verdicts else "-"
    rows = []
    for name, answer in given.items():
        points, reason = _points(answer, source, replays.get(name), refuting)
        counts = replays.get(name) or (_soundest(replays, refuting) if points == WRONG else None)
        rows.append(
            asked._asdict()
            | {
                "tool": name,
                "verdict": str(answer.verdict) if answer else "",
                "run_s": answer.run_s if answer else math.nan,
                "counterexample": replays[name].validity if name in replays else "",
                "truth": truth,
                "points": points,
                "reason": reason,
                "detail": replays[name].detail if name in replays else "",
                "rounding": counts.rounding if counts else "",
            }
        )
    return rows


def _soundest(replays: Mapping[str, Replay], refuting: Sequence[str]) -> Replay:
    """The one that needs no rounding, if there is any."""
    return min((replays[name] for name in refuting), key=lambda found: bool(found.rounding))


def _said(answer: GivenAnswer, source: Instance | None) -> Verdict:
    """What counts: an answer after the timeout is none."""
    late = source is not None and answer.run_s > source.timeout_s
    return Verdict.TIMEOUT if late else answer.verdict


def _replay(answer: GivenAnswer, source: Instance | None, check: Checker) -> Replay:
    if source is None:
        path = answer.counterexample()
        if path is None:
            return Replay(Validity.MISSING)
        return Replay(Validity.UNCHECKED, "its network or property was not found (--benchmarks)")
    return check(source.network, source.property, answer.counterexample())


def _points(
    answer: GivenAnswer | None,
    source: Instance | None,
    found: Replay | None,
    refuting: Sequence[str],
) -> tuple[int, str]:
    if answer is None:
        return 0, "not run"
    said = _said(answer, source)
    if said is Verdict.TIMEOUT and answer.verdict in (Verdict.SAT, Verdict.UNSAT):
        return 0, "answer after the timeout"
    if said is Verdict.UNSAT and refuting:
        return WRONG, "unsat, but there is a valid counterexample"
    if said is Verdict.SAT and found and found.validity is Validity.UNCHECKED:
        return 0, str(Validity.UNCHECKED)
    if said is Verdict.SAT and found and found.validity not in _CREDITED:
        return WRONG, str(found.validity)
    if said in (Verdict.SAT, Verdict.UNSAT):
        return POINTS, ""
    return 0, str(said)


def by_category(answers: pd.DataFrame) -> pd.DataFrame:
    """One row per category and tool, best first: verified, falsified, penalties, points, percent
    (of the best tool's points, never below 0), solved_share.
    """
    rows = []
    for category, part in answers.groupby("category", sort=False):
        scores = part.groupby("tool", sort=False)["points"].sum()
        best = int(scores.max())
        for tool, own in part.groupby("tool", sort=False):
            correct = own["points"] == POINTS
            verified = int((correct & (own["verdict"] == Verdict.UNSAT)).sum())
            falsified = int((correct & (own["verdict"] == Verdict.SAT)).sum())
            points = int(own["points"].sum())
            rows.append(
                {
                    "category": category,
                    "tool": tool,
                    "verified": verified,
                    "falsified": falsified,
                    "penalties": int((own["points"] == WRONG).sum()),
                    "points": points,
                    "percent": percent(points, best),
                    "solved_share": (verified + falsified) / len(own),
                    "place": -points,
                }
            )
    table = pd.DataFrame(rows)
    places = {category: place for place, category in enumerate(answers["category"].unique())}
    table = table.assign(first=table["category"].map(places))
    table = table.sort_values(["first", "place"], kind="stable", ignore_index=True)
    return table.drop(columns=["first", "place"])


def totals(answers: pd.DataFrame) -> pd.DataFrame:
    """One row per tool, best first: categories in which it solved any, sat, unsat, penalties,
    points, score (the sum of its percents), and overhead_s: its quickest answer, which is not
    subtracted from anything.
    """
    categories = by_category(answers)
    rows = []
    for tool, own in answers.groupby("tool", sort=False):
        part = categories[categories["tool"] == tool]
        solved = own[own["verdict"].isin([Verdict.SAT, Verdict.UNSAT])]
        rows.append(
            {
                "tool": tool,
                "categories": int((part["verified"] + part["falsified"] > 0).sum()),
                "verified": int(part["verified"].sum()),
                "falsified": int(part["falsified"].sum()),
                "penalties": int(part["penalties"].sum()),
                "points": int(part["points"].sum()),
                "score": float(part["percent"].sum()),
                "overhead_s": solved["run_s"].min(),
            }
        )
    return pd.DataFrame(rows).sort_values(
        ["score", "points"], ascending=False, kind="stable", ignore_index=True
    )


def losses(answers: pd.DataFrame) -> pd.DataFrame:
    """One row per tool and reason: how many answers, and the points lost to it, most first."""
    lost = answers[answers["points"] < POINTS]
    groups = lost.assign(lost=POINTS - lost["points"]).groupby(["tool", "reason"], sort=False)
    table = groups.agg(answers=("lost", "size"), lost=("lost", "sum"))
    return table.reset_index().sort_values("lost", ascending=False, ignore_index=True)


def penalties(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers that cost points."""
    return answers[answers["points"] == WRONG].reset_index(drop=True)


def rounded(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers whose points depend on a point that only rounding lets into the box."""
    return answers[answers["rounding"] != ""].reset_index(drop=True)
