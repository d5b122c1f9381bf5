"""A rank without a scheduler: what `torchrun` starts, over one machine or several.

    torchrun --nproc-per-node 2 -m runner.execute.rank JOB.json

JOB.json is what `runner.execute.wire.job_to_json` gives; rank r writes `rank<r>.json` beside it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from runner.execute.boundary import run_guarded
from runner.verify.rank import verify_target


def main(job: Path) -> int:
    """Run the job as the RANK of the environment (0 without one); gives the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    rank = int(os.environ.get("RANK", "0"))
    return run_guarded(lambda: verify_target(json.loads(job.read_text())), rank, job.parent)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)  # no clean-up that could wait for another rank
