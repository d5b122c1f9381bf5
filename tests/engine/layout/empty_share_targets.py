"""What ranks do in the tests of empty shares: bounds, then verdicts, all in one gang."""

from __future__ import annotations

import os
from typing import Any

from agreement_targets import in_few_steps

from runner.engine.programs.verify import verify_target

Payload = dict[str, Any]


def bounds_and_verdicts(payload: Payload) -> Payload:
    """How far bounds are from baseline's, as `in_few_steps` says it, and the reports of `jobs`."""
    bounds = in_few_steps(payload["bounds"])
    meeting, reports = os.environ["RENDEZVOUS"], []
    for number, job in enumerate(payload["jobs"]):
        os.environ["RENDEZVOUS"] = f"{meeting}{number}"  # the ranks meet anew
        reports.append(verify_target(job))
    return {"bounds": bounds, "reports": reports}
