"""A SLURM of one machine, for tests: needs root, Debian's slurm-wlm and munge; no cgroups."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "munged")
WITHIN_S = 30.0

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
SlurmctldPort={ctld}
SlurmdPort={slurmd}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no SLURM here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"no {', '.join(absent)} (apt-get install slurm-wlm munge)" if absent else ""


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """One node of 4 cores that takes jobs; SLURM_CONF names it. Raises TimeoutError."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    ports = {name: _port() for name in ("ctld", "slurmd")}
    conf.write_text(_CONF.format(host=host, folder=folder, **ports))
    os.environ["SLURM_CONF"] = str(conf)
    key, socket_file = folder / "munge.key", folder / "munge.socket"
    subprocess.run(["mungekey", "-c", "-k", str(key)], check=True)
    munged = [
        *("munged", "--foreground", "--force", "--key-file", str(key)),
        *("--socket", str(socket_file), "--seed-file", str(folder / "munge.seed")),
        *("--pid-file", str(folder / "munge.pid"), "--log-file", str(folder / "munge.log")),
    ]
    daemons = [_daemon(*munged)]
    try:
        _until(socket_file.exists, "munged makes no socket")
        daemons.append(_daemon("slurmctld", "-D", "-f", str(conf)))
        daemons.append(_daemon("slurmd", "-D", "-f", str(conf), "-N", host))
        _until(lambda: _said("sinfo", "--noheader", "--format=%T") == "idle", _said("sinfo"))
        try:
            yield
        finally:  # what a failed test left would outlive the daemons
            subprocess.run(["scancel", "--me"])
            _until(lambda: not _said("squeue", "--me", "--noheader"), "jobs do not end")
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(WITHIN_S)
        del os.environ["SLURM_CONF"]


def _daemon(*command: str) -> subprocess.Popen[bytes]:
    """Its log has what it says."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _until(condition: object, otherwise: str) -> None:
    give_up = time.monotonic() + WITHIN_S
    while not (callable(condition) and condition()):
        if time.monotonic() > give_up:
            raise TimeoutError(otherwise)
        time.sleep(0.05)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
