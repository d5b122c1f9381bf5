"""What ranks do in the tests of `dp`: searches over sub-problems that lie on all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from questions import DriverStub, bounded, case, incomplete, question, region
from small_networks import CPU, SmallNetwork, mlp
from test_input_split import asked, context, holds
from test_many_boxes import boxes_of
from test_plane_split import asked as asked_of_one_layer
from test_plane_split import wide
from test_relu_split import PLAIN, hard
from torch import Tensor

from runner.contract.layout import Axis
from runner.contract.vocabulary import Method
from runner.engine.attack.pgd import Attack, AttackPart, AttackSettings
from runner.engine.attack.shared_attack import SharedAttack
from runner.engine.bounds.refinement import Depth
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import Deadline, DeadlineReached
from runner.engine.driver_engine import DriverEngine
from runner.engine.layout.block_owners import plan_blocks
from runner.engine.layout.blocked_weights import BlockedWeights
from runner.engine.layout.group import Group, joined_group
from runner.engine.layout.mesh import Mesh
from runner.engine.network.blocks import weights_of
from runner.engine.network.prepared import PreparedWeights, read_graph
from runner.engine.search.complete import Complete
from runner.engine.search.deepening import Deepening
from runner.engine.search.input_split import InputSplit
from runner.engine.search.plane_split import PlaneSplit
from runner.engine.search.relu_split import ReluSplit
from runner.engine.search.search import Progress, Search, SearchContext, SearchEnd
from runner.engine.search.sharing import Alike, Apart, Sharing
from runner.engine.targets import Candidate, Target, targets_of
from runner.problem.property.model import Property
from runner.verifiers.strategies import strategy_named

Payload = dict[str, Any]
SEARCHES: dict[str, Callable[[SearchContext], Search]] = {
    "input-split": InputSplit,
    "plane-split": PlaneSplit,
    "beta-crown": lambda context: ReluSplit(context, replace(PLAIN, batch=4)),
    "trees of neurons": lambda context: Deepening(context, (Depth(2, 1), Depth(6, 0)), trial=0),
    "second attempt": lambda context: ReluSplit(context, replace(PLAIN, batch=4, trial=8)),
}
CANDIDATE: Candidate = (np.zeros(1), Target(0, 0))


class Judge:
    """Confirms as the tests of one rank do, and knows who would have written the file."""

    def __init__(self, holds: Callable[[Candidate], bool], group: Group) -> None:
        self.confirmed = False
        self.wrote = False
        self._holds = holds
        self._group = group

    def alone(self, candidate: Candidate) -> bool:
        self.confirmed |= self._holds(candidate)
        return self.confirmed

    def settle(self, writer: int) -> None:
        self.wrote = self._group.rank == writer and self.confirmed


def searches(payload: Payload) -> Payload:
    """Of each question: the outcome on one rank and on all, and this rank's domains."""
    with joined_group(CPU) as group:
        return {
            f"{seed} {name}": _both(seed, name, group)
            for seed in payload["seeds"]
            for name in SEARCHES
        }


def _both(seed: int, name: str, group: Group) -> list[Any]:
    if name == PlaneSplit.name:  # of networks that bend once
        network, instance = wide(room=0.02) if seed == 0 else asked_of_one_layer(seed)
    else:
        network, instance = hard() if seed == 0 else asked(seed)
    confirm = holds(network, instance)
    alone, _ = _search(network, instance, name, Alike(lambda: None, confirm))
    judge = Judge(confirm, group)
    signals = f"{seed} {name}"
    apart = Apart(group, Deadline(group, 1e6), judge, name=signals)  # type: ignore[arg-type]
    shared, progress = _search(network, instance, name, apart)
    return [alone, shared, progress.domains, judge.wrote]


def _search(
    network: SmallNetwork, instance: Property, name: str, sharing: Sharing
) -> tuple[SearchEnd, Progress]:
    incomplete = bounded(network, instance, Method.CROWN)
    (case,) = incomplete.cases
    chosen = context(network, instance, incomplete, sharing=sharing)
    if not bool(case.open.any()):
        return SearchEnd.PROVED, chosen.progress
    (open_case,) = incomplete.open_cases
    chosen = replace(chosen, deepen=lambda depth: open_case.deepen(depth, 1.0))
    outcome = SEARCHES[name](chosen).run()
    proved = not bool(case.open.any())
    assert proved == (outcome is SearchEnd.PROVED), (
        "a case is closed when, and only when, it is told"
    )
    return outcome, chosen.progress


def found_elsewhere(payload: Payload) -> Payload:
    """The first of those that search apart finds a counterexample while all others are in a round
    without an end.
    """
    with joined_group(CPU) as group:
        judge = Judge(lambda _: True, group)
        apart, alike = _searchers(group, payload)
        sharing = Apart(apart, Deadline(group, 60), judge, alike=alike)  # type: ignore[arg-type]
        group.all_gather(torch.zeros(1))
        start = time.perf_counter()
        with sharing.round():
            if apart.rank == 0:
                sharing.confirm(CANDIDATE)
            while apart.rank:
                sharing.checkpoint()
        due = sharing.due(waits=False)
        meeting = sharing.meet(0, torch.zeros(1), None)
        seconds = time.perf_counter() - start
        return {"due": due, "found": meeting.found, "wrote": judge.wrote, "seconds": seconds}


def _searchers(group: Group, payload: Payload) -> tuple[Group, Group]:
    """Those that search apart, and those that search alike."""
    mesh = Mesh(group, strategy_named(payload["strategy"]))
    return mesh.along(Axis.DOMAINS), mesh.beside(Axis.DOMAINS)


def killed(payload: Payload) -> Payload:
    """The last rank dies in a round, while the others wait in `meet` or serve weights."""
    prepared = Path(payload["prepared"])
    with joined_group(CPU) as group:
        engine = DriverEngine(prepared, strategy_named(payload["strategy"]), group, CPU, NoTagger())
        sharing = engine.sharing(Deadline(group, 60), Judge(lambda _: False, group))  # type: ignore[arg-type]
        group.all_gather(torch.zeros(1))
        with sharing.search(), sharing.round():
            if group.rank == group.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            sharing.meet(0, torch.zeros(1), None)
    return {}


def deadline(payload: Payload) -> Payload:
    """The time is over on the last of those that search apart, in the middle of a round; on one
    rank of it alone, where several search alike.
    """
    with joined_group(CPU) as group:
        judge = Judge(lambda _: False, group)
        apart, alike = _searchers(group, payload)
        last = apart.rank == apart.size - 1
        clock = Deadline(group, 0.2 if last and alike.rank == 0 else 60)
        sharing = Apart(apart, clock, judge, alike=alike)  # type: ignore[arg-type]
        with sharing.round():
            while last:
                sharing.checkpoint()
        try:
            sharing.meet(0, torch.zeros(1), None)
        except DeadlineReached:
            return {"reached": True}
        return {"reached": False}


def attacks(payload: Payload) -> Payload:
    """One search of an attack, as `_attacked`."""
    with joined_group(CPU) as group:
        return _attacked(group, payload)


def attacks_twice(payload: Payload) -> Payload:
    """The same of the gang's first question and of its second one."""
    with joined_group(CPU) as group:
        return {number: _attacked(group, payload[number]) for number in ("first", "second")}


def _attacked(group: Group, payload: Payload) -> Payload:
    """What it came to, and the points that this rank began at. `finder`: the only rank whose
    candidates hold; `dies`: the rank that does, at its third step; `late`: the rank whose time is
    over.
    """
    apart, alike = _searchers(group, payload)
    network, instance = mlp(4, 16, 3), _reached(payload["reached"])
    stub = _Mortal(network, 3 if group.rank == payload.get("dies") else None)
    judge = Judge(lambda _: group.rank == payload.get("finder"), group)
    clock = Deadline(group, 0.0 if group.rank == payload.get("late") else 60)
    sharing = Apart(apart, clock, judge, alike=alike, name="attack")  # type: ignore[arg-type]
    part = AttackPart(sharing.rank, sharing.ranks)
    attack = Attack(
        stub, instance, CPU, 0, NoTagger(), sharing.checkpoint, sharing.confirm, part=part
    )
    shared, settings = SharedAttack(attack, sharing), AttackSettings(payload["restarts"], 15)
    try:
        found = shared.search(targets_of(instance), settings, until=1.0)
    except DeadlineReached:
        return {"reached": True}
    ends = [(target.case, target.disjunct, *point.tolist()) for target, point in shared.ends]
    began = stub.points[0].tolist() if stub.points else []
    return {"found": found, "wrote": judge.wrote, "ends": ends, "began": began}


def many_boxes(payload: Payload) -> Payload:
    """The end of a property of many boxes, what each has, and the pieces that this rank bounded."""
    with joined_group(CPU) as group:
        network = mlp(2, 24, 24, 2)
        instance = boxes_of(network, payload["below"])
        apart, alike = _searchers(group, payload)
        judge = Judge(holds(network, instance), group)
        clock = Deadline(group, 0.0 if group.rank == payload.get("late") else 60)
        sharing = Apart(apart, clock, judge, alike=alike)  # type: ignore[arg-type]
        cases, progress = incomplete(network, instance).open_cases, Progress()
        complete = Complete(instance, CPU, 0, NoTagger(), clock, sharing, progress)
        try:
            end = complete.run(cases)
        except DeadlineReached:
            return {"reached": True}
        margins = [case.progress.margins.tolist() for case in cases]
        still_open = [bool(case.progress.open.any()) for case in cases]
        return {
            "end": str(end),
            "margins": margins,
            "open": still_open,
            "domains": progress.domains,
        }


def _reached(somewhere: bool) -> Property:
    """Of three outputs of `mlp(4, 16, 3)`, whether each may be low, which it is everywhere or
    nowhere.
    """
    limit = 1e3 if somewhere else -1e3
    rows = [[float(row == column) for column in range(3)] for row in range(3)]
    return question(*(case([-1] * 4, [1] * 4, region([row], [limit])) for row in rows), outputs=3)


class _Mortal(DriverStub):
    """Kills its rank at a step."""

    def __init__(self, network: SmallNetwork, last: int | None) -> None:
        super().__init__(network)
        self._last = last

    def forward(self, x: Tensor) -> Tensor:
        if len(self.points) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def requests(payload: Payload) -> Payload:
    """Ranks want all weights, each rank in another order and not equally often."""
    prepared = Path(payload["prepared"])
    graph, source = read_graph(prepared), PreparedWeights(prepared)
    with joined_group(CPU) as group:
        plan = plan_blocks(weights_of(graph, source.shape), group.size)
        weights = BlockedWeights(graph, source, plan, group, CPU, NoTagger())
        random = np.random.default_rng(group.rank)
        right = []
        with weights.on_request() as serve:
            for name in random.choice(list(plan), size=4 + 3 * group.rank):
                whole = torch.full(source.shape(name), torch.nan)
                for start, stop, block in weights.products(
                    name, lambda start, stop, block: block, lambda start, stop: (1,), torch.float32
                ):
                    whole[:, start:stop] = block
                right.append(torch.equal(whole, source.tensor(name)))
            serve()
        group.all_gather(torch.zeros(1))
        return {"right": right, "bytes": group.traffic.bytes}
