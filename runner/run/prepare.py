"""What questions need, made once per run in a process of its own: a bad file harms only that."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from runner.contract.vocabulary import Cause
from runner.execute.executor import Executor, Gang, GangResult
from runner.problem.files import source_digest
from runner.problem.instances import Instance
from runner.run.judge import Answer, preparation_failure
from runner.run.programs import PREPARE, PREPARE_PROPERTY
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

    `inputs`: of the network; 0 where it failed. `fitted`: the property as it was read, fitted to
    the network; None where it failed.
    """

    prepared: Path
    seconds: float
    failure: Answer | None
    inputs: int = 0
    fitted: Path | None = None

    @property
    def bytes(self) -> int:
        """Of the converted network."""
        return self.prepared.stat().st_size


class Preparer:
    """Converts each network once, and reads each property once; `scratch` keeps the results.

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
        self._fitted: dict[tuple[Path, Path], tuple[Preparation, float]] = {}

    def prepare(self, instance: Instance, gang_folder: Path) -> Preparation:
        """The time of a network that was converted before is the time that took."""
        timeout_s = prepare_timeout_s(instance.timeout_s)
        pair = instance.network, instance.property
        done, had_s = self._fitted.get(pair, (None, 0.0))
        if done is None or (_ran_out_of_time(done) and had_s < timeout_s):
            done = self._network(instance, gang_folder)
            if done.failure is None and done.fitted is None:
                done = self._property(instance, gang_folder, done)
            if done.fitted is not None:
                self._fitted[pair] = done, timeout_s
        return done

    def _network(self, instance: Instance, gang_folder: Path) -> Preparation:
        """Fitted to the property too where it is converted only now."""
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
        asked = _Asked(instance, prepared, self._named(instance.property), gang_folder)
        result, failure = self._submit(PREPARE, asked, instance.network)
        inputs = 0 if failure else int((result.reports[0] or {})["inputs"])
        if self._shared and failure is None:
            prepared = self._shared.leave(instance.network, prepared, result.run_time_s, inputs)
        done = Preparation(prepared, result.run_time_s, failure, inputs)
        if done.failure is None or done.failure.cause not in _OF_THE_PROPERTY:
            self._known[instance.network] = done, timeout_s
        return done if done.failure else done._replace(fitted=asked.fitted)

    def _property(self, instance: Instance, gang_folder: Path, done: Preparation) -> Preparation:
        """Of a network that was converted before."""
        asked = _Asked(instance, done.prepared, self._named(instance.property), gang_folder)
        _, failure = self._submit(PREPARE_PROPERTY, asked, instance.property)
        return done._replace(failure=failure, fitted=asked.fitted)

    def _named(self, source: Path) -> Path:
        """After what is in it: a property that lies in several places is one."""
        return self._scratch / f"{source_digest(source) or 'unread'}.property"

    def _submit(self, target: str, asked: _Asked, blamed: Path) -> tuple[GangResult, Answer | None]:
        """`blamed`: the file that is named where a limit is met."""
        timeout_s = prepare_timeout_s(asked.instance.timeout_s)
        network = asked.instance.network
        memory_bytes = self._memory_limit_bytes or prepare_memory_bytes(network)
        payload = {
            "network": str(network),
            "prepared": str(asked.prepared),
            "property": str(asked.instance.property),
            "fitted": str(asked.fitted),
        }
        result = self._executor.submit(
            Gang(
                target=target,
                payload=payload,
                ranks=1,
                folder=asked.folder,
                timeout_s=timeout_s,
                memory_limit_bytes=memory_bytes,
            )
        ).result()
        return result, _explained(preparation_failure(result), blamed, timeout_s, memory_bytes)


class _Asked(NamedTuple):
    """`prepared`, `fitted`: where the network and the property go; `folder`: of the gang."""

    instance: Instance
    prepared: Path
    fitted: Path
    folder: Path


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
