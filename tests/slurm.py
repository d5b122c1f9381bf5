"""A SLURM of one machine, for tests: needs root, Debian's slurm-wlm and munge; no cgroups.

It has two nodes of two cores in the partition `main`, and one in the partition `blind`, which does
not see one folder that the others see.
"""

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
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{machines}
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
PartitionName=blind Nodes={blind} MaxTime=INFINITE State=UP
"""
_NODE = "NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000"
NODES, BLIND = ("machine0", "machine1"), "machine2"


def missing() -> str:
    """Why there can be no SLURM here; empty if there can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"no {', '.join(absent)} (apt-get install slurm-wlm munge)" if absent else ""


@contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """Nodes that take jobs, named by SLURM_CONF. Gives the folder that the node BLIND does not see.

    Raises TimeoutError.
    """
    host = socket.gethostname().partition(".")[0]
    hidden = folder / "hidden"
    for made in (folder / "state", hidden):
        made.mkdir()
    conf = folder / "slurm.conf"
    lines = [_NODE.format(node=node, host=host, port=_port()) for node in (*NODES, BLIND)]
    said = {"machines": "\n".join(lines), "nodes": ",".join(NODES), "blind": BLIND}
    conf.write_text(_CONF.format(host=host, folder=folder, port=_port(), **said))
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
        for node in NODES:
            daemons.append(_daemon("slurmd", "-D", "-f", str(conf), "-N", node))
        blinded = f'mount -t tmpfs none "{hidden}" && exec slurmd -D -f "{conf}" -N {BLIND}'
        daemons.append(_daemon("unshare", "--mount", "sh", "-c", blinded))
        idle = ["idle"] * (len(NODES) + 1)
        _until(lambda: _states() == idle, f"nodes do not come: {_states()}")
        try:
            yield hidden
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


def _states() -> list[str]:
    return _said("sinfo", "--noheader", "--Node", "--format=%T").split()


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
