"""The shell of every program that ranks run: which rank this is, what it may take, when it ends,
and what it reports whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from runner.contract.limits import cap_memory, lift_memory_cap
from runner.contract.measurements import Measurements
from runner.contract.question import Question, Report
from runner.contract.shell import MeasuredFailure
from runner.contract.vocabulary import Cause, Verdict
from runner.engine.bounds.rounding import plain_products
from runner.engine.clock import Deadline, DeadlineReached
from runner.engine.finding import Finding
from runner.engine.heap import keep_freed_memory
from runner.engine.layout.devices import rank_device
from runner.engine.layout.group import Group, joined_group
from runner.engine.measure.probe import Probe
from runner.engine.programs.same_gang import check_gang, world_for
from runner.engine.search.search import Progress

# Part of the timeout kept for ending: what a rank stops before, in seconds and as a share.
ENDING_SECONDS = 0.5
ENDING_SHARE = 0.05


@dataclass
class Rank:
    """One rank at work; what it took is known at any moment, also when it fails.

    `progress` and `weight_bytes` are for the program to fill.
    """

    device: torch.device
    probe: Probe
    group: Group
    deadline: Deadline
    progress: Progress = field(default_factory=Progress)
    weight_bytes: int | None = None

    def measured(self) -> Measurements:
        traffic = self.group.traffic
        return replace(
            self.probe.measurements(),
            device=str(self.device),
            weight_bytes=self.weight_bytes,
            comm_bytes=traffic.bytes,
            comm_s=traffic.seconds,
            collectives=traffic.collectives,
            **self._searched(),
        )

    def _searched(self) -> dict[str, Any]:
        """What branch and bound did; without a round, it was not there."""
        progress = self.progress
        if not progress.rounds:
            return {}
        return {
            "domains": progress.domains,
            "rounds": progress.rounds,
            "domains_per_s": progress.domains_per_s,
            "depth": progress.depth,
        }


def as_rank(question: Question, work: Callable[[Rank], Finding]) -> Report:
    """Does `work` as rank RANK of WORLD_SIZE (of the environment), in the question's time.

    Raises MeasuredFailure from whatever goes wrong once measuring has begun, InstanceError before:
    for a gang, too, that is not the one which the question is for.
    """
    number, device = world_for(question).rank, rank_device(question.device)
    plain_products()
    if question.memory_limit_bytes is None:
        keep_freed_memory()
    with Probe(device) as probe, joined_group(device) as group:
        check_gang(question, group)
        if question.memory_limit_bytes is not None:
            # Not before: a backend whose threads get no memory aborts the rank or waits for ever.
            _cap_device_memory(device, question.memory_limit_bytes)
        ending = min(ENDING_SECONDS, ENDING_SHARE * question.timeout_s)
        rank = Rank(device, probe, group, Deadline(group, question.timeout_s - ending))
        finding = _found(question, work, rank)
        if number == 0 and question.progress and rank.progress.history:
            rank.progress.write(Path(question.progress))
        return Report(
            rank=number,
            verdict=finding.verdict,
            cause=finding.cause,
            message=finding.message,
            method=finding.method,
            lower_bound=finding.lower_bound,
            counterexample=finding.verdict is Verdict.SAT,
            measured=rank.measured(),
        )


def _found(question: Question, work: Callable[[Rank], Finding], rank: Rank) -> Finding:
    try:
        return work(rank)
    except DeadlineReached:
        message = "the time was over before there was a bound"
        method = str(question.method)
        return Finding(Verdict.TIMEOUT, Cause.DEADLINE, method, message=message)
    except Exception as error:
        lift_memory_cap()  # else there may be none to tell with
        raise MeasuredFailure(rank.measured()) from error


def _cap_device_memory(device: torch.device, limit_bytes: int) -> None:
    """Tensors of this rank may take so much: on a GPU of its memory, else of the host's."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)
    else:
        cap_memory(limit_bytes)
