"""Plane split: no verdict contradicts a MILP, the batch changes none, and few boxes are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from examples import seeds
from questions import bounded, case, identity, near_reached, question, region
from small_networks import SmallNetwork, mlp
from test_input_split import TOLERANCE, context, deepest

from runner.contract.vocabulary import Method
from runner.contract.workload import Workload
from runner.engine.clock import Deadline, DeadlineReached, RoundOver
from runner.engine.incomplete import Incomplete
from runner.engine.layout.group import Group
from runner.engine.search import plane_split
from runner.engine.search.plane_split import PlaneSplit
from runner.engine.search.relu_split import ReluSplit
from runner.engine.search.search import Progress, Search, SearchContext, SearchEnd
from runner.engine.search.sharing import Apart
from runner.problem.property.model import Property


def asked(seed: int) -> tuple[SmallNetwork, Property]:
    """Of a random network of one hidden layer."""
    random = np.random.default_rng(seed)
    inputs, outputs = int(random.integers(1, 5)), int(random.integers(1, 4))
    network = mlp(inputs, int(random.integers(2, 9)), outputs, seed=seed)
    return network, near_reached(network, random)


def search(
    network: SmallNetwork,
    instance: Property,
    make: Callable[[SearchContext], Search] = PlaneSplit,
    checkpoint: Callable[[], None] = lambda: None,
) -> tuple[SearchEnd, Incomplete, Progress]:
    """After interval bounds."""
    found = bounded(network, instance, Method.IBP)
    chosen = context(network, instance, found, checkpoint)
    if not bool(found.cases[0].open.any()):
        return SearchEnd.PROVED, found, chosen.progress
    return make(chosen).run(), found, chosen.progress


@pytest.mark.parametrize("batch", [1, plane_split.BATCH])
def test_no_verdict_contradicts_a_milp(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_split, "BATCH", batch)
    decided = []
    for seed in seeds(batch * 1000, 40):
        network, instance = asked(seed)
        distance = deepest(network, instance.cases[0])
        if abs(distance) < TOLERANCE:
            continue
        outcome, found, _ = search(network, instance)
        sat = distance < 0
        assert outcome is (SearchEnd.COUNTEREXAMPLE if sat else SearchEnd.PROVED), (seed, distance)
        if not sat:
            assert 0 < found.lower_bound <= distance + TOLERANCE
        decided.append(sat)
    assert {True, False} == set(decided)


def wide(seed: int = 0, room: float = 0.1) -> tuple[SmallNetwork, Property]:
    """Of 12 inputs and 40 ReLUs; an output is to stay above what a descent found, less `room`."""
    network = mlp(12, 40, 1, seed=seed)
    x = torch.rand(500, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for _ in range(60):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network.outputs(x).sum(), x)
        x = (x - 0.1 * slope.sign()).clamp(-1, 1)
    least = float(network.outputs(x.detach()).min())
    return network, question(case([-1] * 12, [1] * 12, region([[1]], [least - room])))


def test_no_rank_is_told_of_the_end_of_a_round_while_planes_are_made() -> None:
    """Before its first round there is none to end, though another rank may have had its own."""
    network, instance = wide()
    confirmation: Any = None
    sharing = Apart(Group(), Deadline(Group(), 0.0), confirmation)
    found = bounded(network, instance, Method.IBP)
    with pytest.raises(RoundOver):
        sharing.checkpoint()
    with pytest.raises(DeadlineReached):
        PlaneSplit(context(network, instance, found, sharing=sharing))


def test_a_root_is_tighter_than_splits_of_neurons_begin_with() -> None:
    for seed in range(3):
        roots = [search(*wide(seed), make)[2].history[0].bound for make in (PlaneSplit, ReluSplit)]
        assert roots[1] * 0.75 < roots[0] < 0


def test_it_pauses_where_it_gains_little_and_goes_on_where_it_gains() -> None:
    """Of wide boxes of many inputs, each cut takes little."""
    network = mlp(30, 60, 1)
    x = torch.rand(1000, 30, generator=torch.Generator().manual_seed(0)) - 0.5
    least = float(network.outputs(x).min())
    hopeless = question(case([-0.5] * 30, [0.5] * 30, region([[1]], [least - 1.0])))
    found = bounded(network, hopeless, Method.IBP)
    assert PlaneSplit(context(network, hopeless, found), stalls=True).run() is SearchEnd.PAUSED
    network, instance = wide(room=0.02)
    found = bounded(network, instance, Method.IBP)
    chosen = context(network, instance, found)
    assert PlaneSplit(chosen, stalls=True).run() is SearchEnd.PROVED
    assert chosen.progress.domains > plane_split.TRIAL


def test_it_pauses_where_boxes_would_take_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network, instance = wide(room=0.02)
    monkeypatch.setattr(plane_split, "STORE_BYTES", 1)
    found = bounded(network, instance, Method.IBP)
    chosen = context(network, instance, found)
    assert PlaneSplit(chosen, stalls=True).run() is SearchEnd.PAUSED
    assert PlaneSplit(chosen).run() is SearchEnd.PROVED


def test_the_record_tells_what_was_done() -> None:
    outcome, found, progress = search(*wide(room=0.02))
    assert outcome is SearchEnd.PROVED
    assert not found.open_targets
    assert progress.rounds == len(progress.history) > 1
    assert progress.domains == progress.history[-1].domains > 2
    assert progress.history[-1].open == 0
    bounds = [point.bound for point in progress.history]
    assert bounds[0] < 0 < bounds[-1]


def test_a_counterexample_that_no_attack_found_is_found() -> None:
    network, instance = wide(room=-0.02)
    outcome, found, _ = search(network, instance)
    assert outcome is SearchEnd.COUNTEREXAMPLE
    assert found.open_targets


def test_a_bound_that_is_never_reached_closes_nothing() -> None:
    """The least value is the threshold itself, and strictness is not for bounds to tell."""
    network, instance = identity(), question(case([1.0], [2.0], region([[1]], [1.0], strict=True)))
    outcome, found, _ = search(network, instance)
    assert outcome is SearchEnd.GAVE_UP
    assert found.open_targets


def test_an_end_of_time_keeps_what_was_proved() -> None:
    calls = iter(range(10**6))

    def late() -> None:
        if next(calls) > 30:
            raise DeadlineReached

    network, instance = wide(room=0.001)
    found = bounded(network, instance, Method.IBP)
    before = found.lower_bound
    tree = PlaneSplit(context(network, instance, found, late))
    with pytest.raises(DeadlineReached):
        tree.run()
    assert before < found.lower_bound <= 0.001


def test_a_fixed_workload_closes_nothing() -> None:
    network, instance = wide()
    found = bounded(network, instance, Method.IBP)
    chosen = replace(context(network, instance, found), workload=Workload(rounds=3, batch=8))
    assert PlaneSplit(chosen).run() is SearchEnd.GAVE_UP
    assert found.open_targets
