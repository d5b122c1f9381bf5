"""The attack finds what is there, and asks only about points of the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from questions import DriverStub, anything, case, identity, question, region
from small_networks import CPU, Builder, SmallNetwork, mlp

from runner.engine.attack.pgd import Attack, AttackSettings
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op
from runner.engine.targets import Candidate, Target, targets_of
from runner.problem.property.model import Property

SETTINGS = AttackSettings(restarts=10, steps=15)


class Recorder:
    """Confirms a candidate that really is one, in float64."""

    def __init__(self, network: SmallNetwork, instance: Property) -> None:
        self.network = network
        self.instance = instance
        self.candidates: list[Candidate] = []

    def __call__(self, candidate: Candidate) -> bool:
        self.candidates.append(candidate)
        point, target = candidate
        x = torch.from_numpy(point).reshape(1, *self.network.graph.input.shape).double()
        outputs = self.network.outputs(x)[0].numpy()
        return self.instance.cases[target.case].unsafe[target.disjunct].holds(outputs)


def attack(network: SmallNetwork, instance: Property, seed: int = 0) -> tuple[bool, Recorder]:
    recorder = Recorder(network, instance)
    chosen = Attack(DriverStub(network), instance, CPU, seed, NoTagger(), lambda: None, recorder)
    return chosen.search(targets_of(instance), SETTINGS), recorder


@examples(15)
@given(st.integers(0, 1000), st.floats(0.3, 3.0))
def test_a_planted_counterexample_is_found_inside_the_box(seed: int, radius: float) -> None:
    """One point of the box in a hundred is one."""
    network = mlp(4, 16, 3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(2000, 4, generator=generator) * 2 - 1) * radius
    rare = float(network.outputs(x)[:, 0].quantile(0.01))
    instance = question(case([-radius] * 4, [radius] * 4, region([[1, 0, 0]], [rare])), outputs=3)
    found, recorder = attack(network, instance)
    assert found
    for point, _ in recorder.candidates:
        assert point.dtype == np.float32
        assert (np.abs(point.astype(np.float64)) <= radius).all()


def test_all_constraints_of_a_disjunct_hold_at_once() -> None:
    builder = Builder((2,))
    network = builder.network(builder.linear_of("x", torch.eye(2), torch.zeros(2)))
    corner = region([[1, 0], [-1, 0], [0, -1]], [-0.8, 0.9, -0.8])
    found, recorder = attack(network, question(case([-1, -1], [1, 1], corner), outputs=2))
    assert found
    assert len(recorder.candidates) == 1
    x, y = recorder.candidates[0][0]
    assert -0.9 <= x <= -0.8
    assert y >= 0.8


def test_the_disjunct_and_the_case_that_can_be_reached_are_named() -> None:
    never, reached = region([[1]], [-1e3]), region([[-1]], [-4])
    instance = question(case([0], [1], never, reached), case([3], [5], never, reached))
    found, recorder = attack(identity(), instance)
    assert found
    point, target = recorder.candidates[-1]
    assert target == Target(1, 1)
    assert 4 <= point[0] <= 5


def test_what_is_not_there_is_not_found() -> None:
    found, recorder = attack(identity(), question(case([0], [1], region([[1]], [-0.1]))))
    assert not found
    assert recorder.candidates == []


def test_everything_is_unsafe_where_a_disjunct_has_no_rows() -> None:
    never = region([[1]], [-1e3])
    found, recorder = attack(identity(), question(case([0], [1], never, anything())))
    assert found
    assert recorder.candidates[-1][1] == Target(0, 1)


def test_nothing_is_searched_without_a_target() -> None:
    found, recorder = attack(identity(), question(case([0], [1])))
    assert not found
    assert recorder.candidates == []


def test_a_start_on_the_edge_of_a_strict_constraint_does_not_hide_the_others() -> None:
    """y = -relu(x): 0 and flat from the centre leftwards, and y < 0 is unsafe."""
    builder = Builder((1,))
    x = builder.pointwise(Op.RELU, builder.linear_of("x", torch.eye(1), torch.zeros(1)))
    network = builder.network(builder.linear_of(x, -torch.eye(1), torch.zeros(1)))
    strict = question(case([-1], [1], region([[1]], [0], strict=True)))
    found, recorder = attack(network, strict)
    assert found
    assert recorder.candidates[-1][0][0] > 0


def test_equality_is_no_counterexample_of_a_strict_constraint() -> None:
    edge = question(case([1], [2], region([[1]], [1], strict=True)))
    assert not attack(identity(), edge)[0]
    assert attack(identity(), question(case([1], [2], region([[1]], [1]))))[0]


def test_a_box_of_one_point_is_tried() -> None:
    found, recorder = attack(identity(), question(case([0.1], [0.1], region([[1]], [0.2]))))
    assert found
    assert recorder.candidates[0][0][0] == pytest.approx(0.1, abs=1e-8)


def test_a_seed_makes_the_same_attack() -> None:
    network = mlp(3, 8, 2)
    instance = question(case([-1] * 3, [1] * 3, region([[1, 0]], [-1e3])), outputs=2)
    points = []
    for seed in (1, 1, 2):
        stub = DriverStub(network)
        chosen = Attack(stub, instance, CPU, seed, NoTagger(), lambda: None, lambda c: False)
        chosen.search(targets_of(instance), SETTINGS)
        points.append(torch.cat(stub.points))
    assert torch.equal(points[0], points[1])
    assert not torch.equal(points[0], points[2])
    assert (points[0].abs() <= 1).all()


def test_the_deadline_is_asked_at_every_step() -> None:
    calls: list[None] = []

    def checkpoint() -> None:
        calls.append(None)
        if len(calls) == 5:
            raise TimeoutError

    instance = question(case([0], [1], region([[1]], [-1])))
    chosen = Attack(DriverStub(identity()), instance, CPU, 0, NoTagger(), checkpoint, bool)
    with pytest.raises(TimeoutError):
        chosen.search(targets_of(instance), SETTINGS)
    assert len(calls) == 5


def test_a_search_that_is_told_to_end_keeps_what_it_came_to() -> None:
    stub, instance = DriverStub(identity()), question(case([0], [1], region([[1]], [-1])))
    chosen = Attack(stub, instance, CPU, 0, NoTagger(), lambda: None, bool)
    asked: list[None] = []

    def ended() -> bool:
        asked.append(None)
        return len(asked) >= 3

    assert not chosen.search(targets_of(instance), SETTINGS, ended)
    assert len(stub.points) == 3
    ((target, point),) = chosen.ends
    assert target == Target(0, 0)
    assert float(point) == pytest.approx(0.0), "the nearest so far"


def test_many_targets_are_searched_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.engine.attack.pgd.BATCH_BYTES", 1)
    never, reached = region([[1]], [-1e3]), region([[1]], [0.5])
    found, recorder = attack(identity(), question(case([0], [1], never, never, reached)))
    assert found
    assert recorder.candidates[-1][1] == Target(0, 2)


def test_steps_hide_nothing_from_the_attack() -> None:
    """Of 12 signs 11 must be on, each by a coordinate in a twentieth of its range."""
    builder = Builder((12,))
    # No corner where an attack begins has all of them.
    sides = torch.diag(torch.tensor([1.0, -1.0]).repeat(6))
    x = builder.linear_of("x", sides, torch.full((12,), -0.9))
    signs = builder.add(Op.FUNCTION, (x,), (12,), {"function": "Sign"})
    network = builder.network(builder.linear_of(signs, torch.ones(1, 12), torch.zeros(1)))
    found, _ = attack(network, question(case([-1] * 12, [1] * 12, region([[-1]], [-10]))))
    assert found


def test_a_softmax_that_saturates_hides_nothing_from_the_attack() -> None:
    """The first class wins by hundreds, and its output is 1 to the last bit, but in a corner."""
    builder = Builder((10,))
    sides = torch.tensor([1.0, -1.0]).repeat(5)
    weight = torch.tensor([-60.0, 100.0, 0.0, 0.0])[:, None] * sides
    x = builder.linear_of("x", weight, torch.tensor([700.0, -750.0, 0.0, 0.0]))
    sums = builder.flatten(builder.exp_sums(x, 4))
    network = builder.network(builder.pointwise(Op.RECIPROCAL, sums))
    lost = [region([[1, -1, 0, 0]], [0]), region([[1, 0, -1, 0]], [0])]
    found, _ = attack(network, question(case([-1] * 10, [1] * 10, *lost), outputs=4))
    assert found


def test_a_point_counts_for_whichever_disjunct_it_reaches() -> None:
    """The first disjunct is out of reach; the second holds where the search begins."""
    instance = question(case([0], [1], region([[1]], [-1e3]), region([[-1]], [0])))
    found, recorder = attack(identity(), instance)
    assert found
    assert [target.disjunct for _, target in recorder.candidates] == [1]
