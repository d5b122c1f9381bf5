"""SLURM, and side by side on this machine: what submitit submits to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from runner.contract.errors import UsageError
from runner.execute.cluster import node
from runner.execute.cluster.cluster import ShardProgram, ShardStage, ShardState
from runner.execute.cluster.placement import Placement
from runner.execute.link import environment

_NAME = "vnncomp-runner"
_WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "STOPPED"})
# Said of every job that will get its turn.
_ORDINARY = frozenset({"", "None", "Resources", "Priority", "BeginTime", "JobArrayTaskLimit"})
_LONG_MIN = 60 * 24 * 365


class Local:
    """Processes on this machine, which outlive the command no longer than they are watched."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        submitit = _submitit("local")
        self._executor = submitit.LocalExecutor(folder)
        self._executor.update_parameters(timeout_min=_LONG_MIN, gpus_per_node=placement.gpus)
        self._setup = placement.setup
        self._at_once = placement.at_once
        self._jobs: dict[str, Any] = {}
        self._later: dict[str, Any] = {}

    def submit(self, programs: Sequence[ShardProgram]) -> list[str]:
        names = []
        for program in programs:
            names.append(f"{program.ended.stem}-{len(self._jobs) + len(self._later)}")
            self._later[names[-1]] = _call(program, self._setup)
        self._start()
        return names

    def states(self, jobs: Sequence[str]) -> Mapping[str, ShardState]:
        self._start()
        return {job: self._state(job) for job in jobs}

    def cancel(self, jobs: Iterable[str]) -> None:
        for name in jobs:
            self._later.pop(name, None)
            job = self._jobs.get(name)
            if job is not None and not job.done():
                os.kill(int(job.job_id), signal.SIGTERM)  # what submitit sends is told as a crash

    def _start(self) -> None:
        """As many as may run at the same time."""
        running = sum(job is not None and not job.done() for job in self._jobs.values())
        room = len(self._later) if not self._at_once else self._at_once - running
        for name in list(self._later)[: max(room, 0)]:
            self._jobs[name] = self._executor.submit(self._later.pop(name))

    def _state(self, name: str) -> ShardState:
        if name in self._later:
            return ShardState(ShardStage.WAITING)
        job = self._jobs.get(name)
        return ShardState(ShardStage.ENDED if job is None or job.done() else ShardStage.RUNNING)


class Slurm:
    """Job arrays, one element a shard."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        submitit = _submitit("slurm")
        missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
        if missing:
            raise UsageError(
                f"--on slurm: no {' and no '.join(missing)} on this machine; run this where jobs "
                "are submitted (a login node), or use --on ray or --on local"
            )
        asked: dict[str, Any] = {
            "job_name": _NAME,
            "time": placement.time_limit,
            "cpus_per_task": placement.cpus,
            "partition": placement.partition or None,
            "account": placement.account or None,
            "gpus_per_node": placement.gpus or None,
            "mem": f"{round(placement.memory * 1024)}M" if placement.memory else None,
            "setup": list(placement.setup) or None,
            "signal_delay_s": 30,
            # SLURM would have a job wait for two minutes after its node went down.
            "additional_parameters": {"no_requeue": True},
        }
        if placement.at_once:
            asked["array_parallelism"] = placement.at_once
        self._executor = submitit.SlurmExecutor(folder)
        self._executor.update_parameters(
            **{name: value for name, value in asked.items() if value is not None}
        )

    def submit(self, programs: Sequence[ShardProgram]) -> list[str]:
        from submitit.core.utils import FailedJobError

        try:
            with self._executor.batch():
                jobs = [self._executor.submit(_call(program)) for program in programs]
        except FailedJobError as error:
            said = f"SLURM refuses the shards: {_reason(error)}{_partitions()}"
            raise UsageError(said) from error

        return [job.job_id for job in jobs]

    def states(self, jobs: Sequence[str]) -> Mapping[str, ShardState]:
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r"]
        asked = subprocess.run(command, capture_output=True, text=True)
        if asked.returncode:  # it restarts, or is busy: ask again
            return {
                job: ShardState(ShardStage.WAITING, f"squeue: {asked.stderr.strip()}")
                for job in jobs
            }
        queue = {name: rest for name, *rest in map(_fields, asked.stdout.splitlines())}
        return {job: _of_queue(queue.get(job)) for job in jobs}

    def cancel(self, jobs: Iterable[str]) -> None:
        names = list(jobs)
        if names:
            subprocess.run(["scancel", *names], capture_output=True)


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split("|")]


def _of_queue(found: list[str] | None) -> ShardState:
    if found is None:
        return ShardState(ShardStage.ENDED)
    state, reason = found
    if state not in _WAITING:
        return ShardState(ShardStage.RUNNING)
    return ShardState(ShardStage.WAITING, "" if reason in _ORDINARY else reason)


def _call(program: ShardProgram, setup: Sequence[str] = ()) -> partial[None]:
    """By value: a node that cannot import this project must be able to say so."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(node)
    return partial(
        node.run_on_node,
        node.with_setup(program.arguments, setup),
        environment()["PYTHONPATH"],
        str(program.log),
        str(program.ended),
    )


def _reason(error: Exception) -> str:
    """What sbatch itself said."""
    cause = error.__cause__ or error.__context__
    said = getattr(cause, "stderr", None) or str(error)
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    lines = [line.removeprefix("sbatch: error: ") for line in text.splitlines() if line.strip()]
    return "; ".join(lines)


def _partitions() -> str:
    asked = subprocess.run(["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True)
    names = ", ".join(dict.fromkeys(asked.stdout.split()))
    return f" (partitions: {names}; change --cluster partition=…)" if names else ""


def _submitit(extra: str) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UsageError(
            f'--on {extra} needs submitit: pip install "vnncomp-runner[slurm]"'
        ) from error
    return submitit
