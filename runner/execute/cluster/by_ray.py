"""Ray: a task for each shard, which holds its CPUs and GPUs on one node until it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.contract.errors import UsageError
from runner.execute.cluster import node
from runner.execute.cluster.cluster import ShardProgram, ShardStage, ShardState
from runner.execute.cluster.placement import Placement
from runner.execute.link import environment

_ANSWERS_WITHIN_S = 10.0


class Ray:
    """Tasks end with the command that submitted them."""

    def __init__(self, folder: Path, placement: Placement) -> None:
        try:
            import ray
        except ImportError as error:
            raise UsageError('--on ray needs Ray: pip install "vnncomp-runner[ray]"') from error
        self._ray = ray
        self._placement = placement
        self._tasks: dict[str, tuple[Any, ShardProgram]] = {}
        address = placement.address or os.environ.get("RAY_ADDRESS") or "auto"
        try:
            _check_reached(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"--on ray: no Ray cluster at {address} ({error}); start one with `ray start "
                "--head`, or name it by --cluster address=HOST:PORT"
            ) from error
        self._check_room()
        ray.cloudpickle.register_pickle_by_value(node)
        self._run = ray.remote(node.run_on_node).options(
            num_cpus=placement.cpus,
            num_gpus=placement.gpus,
            memory=int(placement.memory * 2**30) or None,
            max_retries=0,  # the scheduler of the run submits lost shards again
            scheduling_strategy="SPREAD",
        )

    def submit(self, programs: Sequence[ShardProgram]) -> list[str]:
        names = []
        for program in programs:
            task = self._run.remote(
                node.with_setup(program.arguments, self._placement.setup),
                environment()["PYTHONPATH"],
                str(program.log),
                str(program.ended),
            )
            names.append(str(task.hex()))
            self._tasks[names[-1]] = task, program
        return names

    def states(self, jobs: Sequence[str]) -> Mapping[str, ShardState]:
        known = [self._tasks[job][0] for job in jobs if job in self._tasks]
        ended, _ = self._ray.wait(known, num_returns=len(known), timeout=0) if known else ([], [])
        gone = {str(task.hex()) for task in ended}
        return {
            job: ShardState(
                ShardStage.ENDED if job in gone or job not in self._tasks else self._begun(job)
            )
            for job in jobs
        }

    def _begun(self, job: str) -> ShardStage:
        return ShardStage.RUNNING if self._tasks[job][1].log.exists() else ShardStage.WAITING

    def cancel(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            if job in self._tasks:
                self._ray.cancel(self._tasks[job][0], force=True)

    def _check_room(self) -> None:
        """Raises UsageError where no node could ever run a shard: Ray would wait for ever."""
        asked = {"CPU": self._placement.cpus, "GPU": self._placement.gpus}
        nodes = [found["Resources"] for found in self._ray.nodes() if found["Alive"]]
        if not any(
            all(have.get(name, 0) >= count for name, count in asked.items()) for have in nodes
        ):
            has = "; ".join(
                ", ".join(f"{have.get(name, 0):g} {name}" for name in asked) for have in nodes
            )
            raise UsageError(
                f"no node of the Ray cluster has {asked['CPU']} CPU and {asked['GPU']} GPU for a "
                f"shard (nodes: {has}); change --cluster cpus=… or gpus=…"
            )


def _check_reached(address: str) -> None:
    """Raises OSError where nothing listens there: Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()
