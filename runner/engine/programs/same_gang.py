"""Whether the ranks that run are those that the job is for, and were all given the same job.

A rank that is alone, or has other files than its peers, would answer another question than the
one that was asked.
"""

from __future__ import annotations

import json
from hashlib import sha256

import torch

import runner
from runner.contract.errors import InstanceError
from runner.contract.question import Question
from runner.contract.vocabulary import Cause
from runner.contract.wire import question_to_json
from runner.engine.layout.group import Group
from runner.engine.layout.world import World, world

# What may differ from machine to machine; `files` stands for what is in them.
_PATHS = frozenset(
    {"network", "prepared", "property", "fitted", "counterexample", "bounds", "progress", "files"}
)


def world_for(question: Question) -> World:
    """This process's place. Raises InstanceError GANG_MISMATCH if it is not one the job is for."""
    here = world()
    _check_size(question, here.size, f"WORLD_SIZE is {here.size}")
    return here


def check_gang(question: Question, group: Group) -> None:
    """The same of the ranks that have joined, who must also have one and the same job."""
    _check_size(question, group.size, f"{group.size} joined")
    if question.files:
        _check_same_job(question, group)


def _check_size(question: Question, size: int, found: str) -> None:
    if size != question.ranks:
        raise InstanceError(
            Cause.GANG_MISMATCH,
            f"the job is for {question.ranks} rank(s), but {found}: start {question.ranks} on all "
            f"machines together (torchrun: --nnodes times --nproc-per-node), or make the job again "
            "with " + (f"a layout of {size}" if question.strategy.layout else f"--ranks {size}"),
        )


def _check_same_job(question: Question, group: Group) -> None:
    """Every rank sees the same difference, so that all of them stop."""
    options = {
        name: value for name, value in question_to_json(question).items() if name not in _PATHS
    }
    parts = {
        "options": json.dumps(options, sort_keys=True),
        "network or property": question.files,
        "version of vnncomp-runner or torch": f"{runner.__version__} {torch.__version__}",
    }
    ranks = group.all_gather(torch.tensor([_digest(text) for text in parts.values()]))
    for rank, same in enumerate((ranks == ranks[0]).tolist()):
        other = [part for part, alike in zip(parts, same, strict=True) if not alike]
        if other:
            raise InstanceError(
                Cause.GANG_MISMATCH,
                f"the {' and the '.join(other)} of rank {rank} are not those of rank 0: run the "
                "same `vnncomp-runner job` with the same files on every machine",
            )


def _digest(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big", signed=True)
