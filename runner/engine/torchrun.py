"""A rank without a scheduler: what `torchrun` starts, over one machine or several.

    torchrun --nproc-per-node 2 -m runner.engine.torchrun JOB.json

JOB.json is what `runner.contract.wire.question_to_json` gives; rank r writes `rank<r>.json` beside
it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from runner.contract.errors import InstanceError
from runner.contract.shell import REPORTED_ERROR, report_path, run_guarded
from runner.engine.layout.world import world
from runner.engine.programs.verify import verify_target

_log = logging.getLogger(__name__)


def main(job: Path) -> int:
    """Run the job as the RANK of the environment (0 without one); gives the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    try:
        rank = world().rank
    except InstanceError as error:  # nobody knows whose report this would be
        _log.error("%s", error)
        return REPORTED_ERROR
    # What an earlier start left must not stand for one that is killed.
    report_path(job.parent, rank).unlink(missing_ok=True)
    return run_guarded(lambda: verify_target(json.loads(job.read_text())), rank, job.parent)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # no clean-up that could wait for another rank
