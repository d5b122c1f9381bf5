"""One rank of a gang that something else than the fork server starts: torchrun, srun, a test.

    RANK=0 WORLD_SIZE=1 python -m runner.execute.started_rank GANG.json

GANG.json is what `write_gang` writes; rank r writes `rank<r>.json` beside it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from runner.contract.limits import cap_memory, die_with_parent
from runner.contract.shell import report_path, run_guarded
from runner.execute.executor import Gang
from runner.execute.launch import resolve

BEGIN_WITHIN_S = 180.0  # ranks import torch from disks that may be far
# A rank ends itself this much after the deadline, so that the scheduler's word comes first.
ALARM_AFTER_S = 2.0
_FILE = "gang.json"
_POLL_S = 0.02


def write_gang(gang: Gang) -> Path:
    """The file that ranks of the gang are started with; reports of an earlier one are removed."""
    gang.folder.mkdir(parents=True, exist_ok=True)
    for rank in range(gang.ranks):
        report_path(gang.folder, rank).unlink(missing_ok=True)
        began(gang.folder, rank).unlink(missing_ok=True)
    file = gang.folder / _FILE
    file.write_text(json.dumps({**asdict(gang), "folder": str(gang.folder)}))
    return file


def began(folder: Path, rank: int) -> Path:
    """A file that is there once the rank runs."""
    return folder / f"rank{rank}.began"


def all_began(folder: Path, ranks: int) -> bool:
    return all(began(folder, rank).exists() for rank in range(ranks))


def main(file: Path) -> int:
    """Run the gang's target as the RANK of the environment; gives the exit code."""
    die_with_parent(os.getppid())  # torchrun gives its ranks a session that no signal reaches
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    gang = json.loads(file.read_text())
    if gang["memory_limit_bytes"] is not None:
        cap_memory(gang["memory_limit_bytes"])
    rank = int(os.environ["RANK"])
    function = resolve(gang["target"])  # imports what takes its time
    began(file.parent, rank).touch()
    # No handler: whatever the rank is in, it ends, also where no signal of the scheduler gets.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, BEGIN_WITHIN_S)
    while not all_began(file.parent, gang["ranks"]):  # from then on the gang's time counts
        time.sleep(_POLL_S)
    signal.setitimer(signal.ITIMER_REAL, gang["timeout_s"] + gang["grace_s"] + ALARM_AFTER_S)
    return run_guarded(lambda: function(gang["payload"]), rank, file.parent)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no clean-up that could wait for another rank
