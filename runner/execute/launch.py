"""What a forked process does to become one rank of a gang."""

from __future__ import annotations

import faulthandler
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.contract.limits import cap_memory, die_with_parent
from runner.contract.shell import run_guarded

Target = Callable[[dict[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Launch:
    """A request for a gang: `ranks` processes that each call `target` with `payload`.

    `target` is "module:function"; `folder` exists and receives `rank<r>.log` and `rank<r>.json`.
    """

    gang: int
    ranks: int
    target: str
    payload: dict[str, Any]
    folder: str
    memory_limit_bytes: int | None = None


def become_rank(launch: Launch, rank: int, server: int) -> int:
    """Run the target as rank `rank`, in a child of the process `server`; gives the exit code."""
    die_with_parent(server)
    folder = Path(launch.folder)
    _redirect_output(folder / f"rank{rank}.log")
    os.environ.update(rank_environment(rank, launch.ranks, folder))
    if launch.memory_limit_bytes is not None:
        cap_memory(launch.memory_limit_bytes)
    code = run_guarded(lambda: resolve(launch.target)(launch.payload), rank, folder)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def rank_environment(rank: int, ranks: int, folder: Path) -> Mapping[str, str]:
    """What torch.distributed expects, with a file in place of a port: nothing can be taken."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "RENDEZVOUS": str(rendezvous_path(folder)),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def rendezvous_path(folder: Path) -> Path:
    return folder / "rendezvous"


def resolve(target: str) -> Target:
    """The function that "module:function" names."""
    module, _, function = target.partition(":")
    resolved: Target = getattr(importlib.import_module(module), function)
    return resolved


def _redirect_output(log: Path) -> None:
    """Send stdout and stderr, Python's and C's, to `log`; show where a killed rank was."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    faulthandler.enable()
    # On TERM the stack of every thread goes to the log before the rank dies.
    faulthandler.register(signal.SIGTERM, chain=True)
