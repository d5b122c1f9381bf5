"""Networks converted once per run, in a process of their own: a hostile file harms only that."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from runner.contract.vocabulary import Cause
from runner.execute.executor import Executor, Gang
from runner.problem.instances import Instance
from runner.run.judge import Answer, preparation_failure
from runner.run.programs import PREPARE
from runner.run.shared import Shared

# As much as VNN-COMP gives prepare_instance.sh, at most. Other rows wait for it, so no longer than
# twice the row's own time, but so long in any case.
PREPARE_TIMEOUT_S = 600.0
PREPARE_ROWS = 2.0
PREPARE_LEAST_S = 30.0

# Of the machine's memory; small machines and large files need more.
MEMORY_SHARE = 0.25
LEAST_MEMORY_BYTES = 2 * 2**30
MEMORY_PER_FILE = 16

# What the property or its box is to blame for says nothing about the network's other instances.
_OF_THE_PROPERTY = frozenset(
    {
        Cause.MALFORMED_PROPERTY,
        Cause.UNSUPPORTED_PROPERTY,
        Cause.SHAPE_MISMATCH,
        Cause.MISSING_FILE,
        Cause.REPLAY_MISMATCH,
    }
)


class Preparation(NamedTuple):
    """The converted network, how long converting took, and why it failed if it did.

    `inputs`: of the network; 0 where it failed.
    """

    prepared: Path
    seconds: float
    failure: Answer | None
    inputs: int = 0

    @property
    def bytes(self) -> int:
        """Of the converted network."""
        return self.prepared.stat().st_size


class Preparer:
    """Converts each network once; `scratch` keeps the result.

    `memory_limit_bytes`: what converting may take; None: a quarter of the machine's memory.
    `shared`: a folder where others leave what they converted, and find it.
    """

    def __init__(
        self,
        executor: Executor,
        scratch: Path,
        memory_limit_bytes: int | None,
        shared: Path | None = None,
    ) -> None:
        self._shared = Shared(shared) if shared else None
        self._executor = executor
        self._scratch = scratch
        self._memory_limit_bytes = memory_limit_bytes
        self._known: dict[Path, tuple[Preparation, float]] = {}  # and the time that it had

    def prepare(self, instance: Instance, gang_folder: Path) -> Preparation:
        """The time of a network that was converted before is the time that took."""
        timeout_s = prepare_timeout_s(instance.timeout_s)
        known, had_s = self._known.get(instance.network, (None, 0.0))
        if known and not (_ran_out_of_time(known) and had_s < timeout_s):
            return known
        left = self._shared.find(instance.network) if self._shared else None
        if left is not None:
            done = Preparation(left.prepared, left.seconds, None, left.inputs)
            self._known[instance.network] = done, timeout_s
            return done
        prepared = self._scratch / f"network{len(self._known)}.safetensors"
        payload = {
            "network": str(instance.network),
            "prepared": str(prepared),
            "property": str(instance.property),
        }
        memory_bytes = self._memory_limit_bytes or prepare_memory_bytes(instance.network)
        result = self._executor.submit(
            Gang(
                target=PREPARE,
                payload=payload,
                ranks=1,
                folder=gang_folder,
                timeout_s=timeout_s,
                memory_limit_bytes=memory_bytes,
            )
        ).result()
        failure = _explained(preparation_failure(result), instance.network, timeout_s, memory_bytes)
        inputs = 0 if failure else int((result.reports[0] or {})["inputs"])
        if self._shared and failure is None:
            prepared = self._shared.leave(instance.network, prepared, result.run_time_s, inputs)
        done = Preparation(prepared, result.run_time_s, failure, inputs)
        if done.failure is None or done.failure.cause not in _OF_THE_PROPERTY:
            self._known[instance.network] = done, timeout_s
        return done


def prepare_timeout_s(row_s: float) -> float:
    """How long converting may take for a row with this time limit."""
    return min(PREPARE_TIMEOUT_S, max(PREPARE_LEAST_S, PREPARE_ROWS * row_s))


def prepare_memory_bytes(network: Path) -> int:
    """How much converting may take where nothing else is said."""
    import psutil  # not above: a question whose network is converted need not wait for it

    size = network.stat().st_size if network.is_file() else 0
    share = int(MEMORY_SHARE * psutil.virtual_memory().total)
    return max(LEAST_MEMORY_BYTES, share, MEMORY_PER_FILE * size)


def _ran_out_of_time(done: Preparation) -> bool:
    return done.failure is not None and done.failure.cause is Cause.KILLED_AT_DEADLINE


def _explained(
    failure: Answer | None, network: Path, timeout_s: float, memory_bytes: int
) -> Answer | None:
    """With the limit that was met, and how to raise it."""
    if failure is None:
        return None
    words = {
        Cause.KILLED_AT_DEADLINE: f"it may take {timeout_s:g} s, which is twice the time limit of "
        f"the row, at least {PREPARE_LEAST_S:g} s and at most {PREPARE_TIMEOUT_S:g} s",
        Cause.OUT_OF_MEMORY: f"it may take {memory_bytes / 2**30:.3g} GiB, which --memory-limit "
        "changes",
    }.get(failure.cause)
    if words is None:
        return failure
    return failure._replace(message=f"{network}: {failure.message}; {words}")
