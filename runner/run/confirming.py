"""A claimed counterexample, replayed by `runner.problem.confirm` in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from runner.contract.vocabulary import Cause
from runner.contract.wire import MALFORMED, from_json, to_json
from runner.execute.link import environment
from runner.problem.claim import Checked, Claim
from runner.run.step import Step, how_it_ended

CONFIRM_TIMEOUT_S = 600.0  # loading a network of gigabytes takes a while
_PROGRAM = "runner.problem.confirm"


def confirmed(claim: Claim, home: Path) -> Checked:
    """What the replay found; a replay that breaks confirms nothing."""
    step = Step(home, "confirm")
    arguments = (sys.executable, "-m", _PROGRAM, json.dumps(to_json(claim)))
    result = step.run(arguments, environment(), home, CONFIRM_TIMEOUT_S)
    try:
        return from_json(json.loads(Path(claim.checked).read_text()), Checked)
    except (OSError, *MALFORMED):
        message = f"sat with a counterexample whose replay broke ({how_it_ended(result)})"
        return Checked(Cause.INVALID_COUNTEREXAMPLE, f"{message}: {step.last_error}")
