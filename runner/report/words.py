"""How verdicts look on a terminal."""

from __future__ import annotations

from runner.contract.vocabulary import Verdict

VERDICT_STYLES = {
    Verdict.SAT: "magenta",
    Verdict.UNSAT: "green",
    Verdict.UNKNOWN: "yellow",
    Verdict.TIMEOUT: "yellow",
    Verdict.ERROR: "red",
}
