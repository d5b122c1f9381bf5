"""A counterexample that another verifier claims, replayed in a process of its own: a network that
breaks ONNX Runtime harms only that. Started as `python -m runner.problem.confirm JSON`, where JSON
has the fields of `Claim`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from runner.contract.vocabulary import Cause
from runner.contract.wire import from_json, to_json
from runner.problem.claim import Checked, Claim
from runner.problem.property.counterexample import write_counterexample
from runner.problem.replay import Validity, replay


def confirm(claim: Claim) -> Checked:
    """Writes the counterexample if it holds on ONNX Runtime and in exact arithmetic."""
    found = replay(Path(claim.network), Path(claim.property), Path(claim.said))
    if found.validity not in (Validity.VALID, Validity.TOLERATED):
        told = f"{found.validity}: {found.detail}" if found.detail else str(found.validity)
        if found.validity is Validity.OUTSIDE:
            told += f", {found.excess:.3g} away"
        return Checked(Cause.INVALID_COUNTEREXAMPLE, f"sat with a {told}")
    if found.rounding:
        return Checked(Cause.OUTSIDE_BOX, f"{found.rounding}, and in the box only as limits round")
    if not found.exact or found.computed is None or found.outputs is None:
        message = "sat with a point that is a counterexample only as float64 rounds"
        return Checked(Cause.INVALID_COUNTEREXAMPLE, message)
    write_counterexample(Path(claim.counterexample), found.computed, found.outputs)
    return Checked(Cause.NONE)


def main() -> None:
    claim = from_json(json.loads(sys.argv[1]), Claim)
    Path(claim.checked).write_text(json.dumps(to_json(confirm(claim))))


if __name__ == "__main__":
    main()
