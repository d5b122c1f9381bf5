"""Networks converted once per run, in a process of their own: a hostile file harms only that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from runner.execute.watch import GangResult
from runner.instances import Instance
from runner.judge import Answer, preparation_failure
from runner.vocabulary import Cause

TARGET = "runner.verify.rank:prepare_target"

# As much as VNN-COMP gives prepare_instance.sh.
PREPARE_TIMEOUT_S = 600.0

# What the property is to blame for says nothing about the network's other instances.
_OF_THE_PROPERTY = frozenset(
    {Cause.MALFORMED_PROPERTY, Cause.UNSUPPORTED_PROPERTY, Cause.SHAPE_MISMATCH, Cause.MISSING_FILE}
)


class Server(Protocol):
    """What runs gangs: `runner.execute.gang.RankServer`, or a stand-in."""

    def run(
        self,
        target: str,
        payload: dict[str, Any],
        ranks: int,
        folder: Path,
        timeout_s: float,
        grace_s: float = ...,
        memory_limit_bytes: int | None = ...,
    ) -> GangResult:
        """Call `target` in each of `ranks` processes; see RankServer.run."""


class Preparation(NamedTuple):
    """The converted network, how long converting took, and why it failed if it did."""

    prepared: Path
    seconds: float
    failure: Answer | None


class Preparer:
    """Converts each network once; `scratch` keeps the result."""

    def __init__(self, server: Server, scratch: Path, memory_limit_bytes: int | None) -> None:
        self._server = server
        self._scratch = scratch
        self._memory_limit_bytes = memory_limit_bytes
        self._known: dict[Path, Preparation] = {}

    def prepare(self, instance: Instance, gang_folder: Path) -> Preparation:
        """The time of a network that was converted before is the time that took."""
        known = self._known.get(instance.network)
        if known:
            return known
        prepared = self._scratch / f"network{len(self._known)}.safetensors"
        payload = {
            "network": str(instance.network),
            "prepared": str(prepared),
            "property": str(instance.property),
        }
        result = self._server.run(
            TARGET,
            payload,
            ranks=1,
            folder=gang_folder,
            timeout_s=PREPARE_TIMEOUT_S,
            memory_limit_bytes=self._memory_limit_bytes,
        )
        done = Preparation(prepared, result.run_time_s, preparation_failure(result))
        if done.failure is None or done.failure.cause not in _OF_THE_PROPERTY:
            self._known[instance.network] = done
        return done
