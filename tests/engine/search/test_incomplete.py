"""What bounds alone prove: the ladder of methods, disjuncts, and margins within rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from questions import anything, bounded, case, identity, incomplete, question, region
from small_networks import Builder, SmallNetwork, mlp
from sound_bounds import counted_rows

from runner.contract.vocabulary import BOUNDS, Method
from runner.engine.bounds.alpha import optimized_slopes
from runner.engine.bounds.network_bounds import NetworkBounds
from runner.engine.bounds.propagate import Propagator
from runner.engine.clock import DeadlineReached
from runner.engine.incomplete import TimeShares, ladder
from runner.engine.lirpa_engine import LirpaBounding
from runner.engine.network.graph import Op
from runner.engine.specs import Specs, box_around
from runner.engine.targets import Target
from runner.problem.property.model import Property

CPU = torch.device("cpu")


def test_the_ladder_goes_from_the_cheapest_method_to_the_one_asked_for() -> None:
    assert list(ladder(Method.IBP)) == [Method.IBP]
    assert list(ladder(Method.ALPHA_CROWN)) == [*BOUNDS]


def test_the_first_method_that_proves_everything_is_the_last() -> None:
    found = bounded(identity(), question(case([0], [1], region([[1]], [-1]))))
    assert (found.method, found.open_targets) == (Method.IBP, [])
    assert found.lower_bound == pytest.approx(1, abs=1e-4)


def test_a_tighter_method_goes_on_with_what_is_open_and_bounds_only_rise() -> None:
    network = mlp(4, 16, 16, 3)
    box = [-1.0] * 4, [1.0] * 4
    margins = []
    for method in BOUNDS:
        found = bounded(network, question(case(*box, region([[1, 0, 0]], [2])), outputs=3), method)
        assert found.method is method
        assert found.open_targets == [Target(0, 0)]
        margins.append(found.lower_bound)
    assert margins == sorted(margins)
    assert margins[0] < margins[1] < margins[2] < 0


def test_a_conjunction_is_excluded_by_any_of_its_rows() -> None:
    both = region([[1], [-1]], [0.5, -0.2])  # 0.2 <= y <= 0.5
    for lower, upper, is_open in ((0.0, 0.1, False), (0.6, 1.0, False), (0.0, 1.0, True)):
        found = bounded(identity(), question(case([lower], [upper], both)))
        assert bool(found.open_targets) is is_open


def test_every_disjunct_of_every_case_must_be_excluded() -> None:
    low, high = region([[1]], [-1]), region([[-1]], [-5])
    instance = question(case([0], [1], low, high), case([4], [6], low, high), case([0], [9]))
    found = bounded(identity(), instance)
    assert found.open_targets == [Target(1, 1)]
    assert found.lower_bound == pytest.approx(-1, abs=1e-4)


def test_a_case_without_disjuncts_is_safe_and_one_without_rows_is_not() -> None:
    safe = bounded(identity(), question(case([0], [1])))
    assert (safe.open_targets, safe.lower_bound) == ([], math.inf)
    unsafe = bounded(identity(), question(case([0], [1], region([[1]], [-1]), anything())))
    assert unsafe.open_targets == [Target(0, 1)]
    assert unsafe.lower_bound == -math.inf


@pytest.mark.slow
@pytest.mark.parametrize("rows", [15, 16, 17, 40])
def test_a_conjunction_may_have_more_rows_than_a_block(rows: int) -> None:
    """Open for CROWN, so that α has to stop or to go on for each block."""
    network = mlp(4, 16, 16, rows)
    box = [-0.5] * 4, [0.5] * 4
    never = region(np.eye(rows), [100.0] * rows)
    found = bounded(network, question(case(*box, never, never), outputs=rows), row_block=16)
    assert found.open_targets == [Target(0, 0), Target(0, 1)]
    last = np.full(rows, 100.0)
    last[-1] = -1e3
    found = bounded(network, question(case(*box, region(np.eye(rows), last)), outputs=rows))
    assert found.open_targets == []


@examples(15)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(2, 6))
def test_blocks_of_specs_change_no_verdict(sizes: list[int], row_block: int) -> None:
    network = mlp(3, 8, 2)
    generator = np.random.default_rng(sum(sizes))
    unsafe = [region(generator.normal(size=(n, 2)), generator.normal(size=n) - 0.5) for n in sizes]
    instance = question(case([-0.2] * 3, [0.2] * 3, *unsafe), outputs=2)
    expected = bounded(network, instance, row_block=10_000)
    found = bounded(network, instance, row_block=row_block)
    assert found.open_targets == expected.open_targets
    assert found.lower_bound == pytest.approx(expected.lower_bound, abs=1e-2)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.dtype]]:
    """The dtypes of the boxes that are bounded."""
    dtypes: list[torch.dtype] = []
    bound = Propagator.bound

    def recorded(self: Propagator, *arguments: Any) -> NetworkBounds:
        found = bound(self, *arguments)
        dtypes.append(found.dtype)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Propagator, "bound", recorded)
        yield dtypes


def test_a_clear_margin_is_proved_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as dtypes:
        found = bounded(identity(), question(case([0], [1], region([[1]], [-0.5]))))
    assert found.open_targets == []
    assert dtypes == [torch.float32]


def thirds() -> SmallNetwork:
    """y = x / 3 + x / 3 + x / 3 + 1 - 1, in an order that rounds."""
    builder = Builder((1,))
    x = builder.linear_of("x", torch.full((3, 1), 1 / 3), torch.ones(3) / 3)
    x = builder.pointwise(Op.RELU, x)
    return builder.network(builder.linear_of(x, torch.ones(1, 3), -torch.ones(1)))


@pytest.mark.parametrize("make", [identity, thirds])
@pytest.mark.parametrize("offset", [1e-6, 1e-7, 0.0, -1e-8, -1e-7])
def test_a_margin_within_rounding_is_what_float64_says(
    make: Callable[[], SmallNetwork], offset: float
) -> None:
    """The least output of the float32 weights, known exactly, plus or minus next to nothing."""
    network = make()
    least = float(network.outputs(torch.full((1, 1), 0.25, dtype=torch.float64)))
    instance = question(case([0.25], [0.75], region([[1]], [least - offset])))
    found = bounded(network, instance)
    assert (found.open_targets == []) is (offset > 0)


def test_values_that_cancel_leave_no_false_proof() -> None:
    """y = 3e4 - relu(x + 3e4): float32 keeps thousandths of the sum, exactly y reaches -0.3016."""
    builder = Builder((1,))
    x = builder.linear_of("x", torch.eye(1), torch.tensor([3e4]))
    x = builder.pointwise(Op.RELU, x)
    network = builder.network(builder.linear_of(x, -torch.eye(1), torch.tensor([3e4])))
    for threshold, proved in ((-0.3012, False), (-0.3017, True)):
        found = bounded(network, question(case([0], [0.3016], region([[1]], [threshold]))))
        assert (found.open_targets == []) is proved


def test_a_float64_limit_between_two_float32_values_is_not_cut_off() -> None:
    """The box is rounded outwards: 0.1 is below its float32 neighbour."""
    for limit, sign in ((0.1, 1), (np.nextafter(np.float32(0.1), 0).item() + 1e-9, 1), (0.3, -1)):
        instance = question(case([limit], [limit], region([[sign]], [sign * limit])))
        assert bounded(identity(), instance).open_targets == [Target(0, 0)]


@pytest.mark.parametrize("method", BOUNDS)
def test_bounds_that_overflow_prove_nothing(method: Method) -> None:
    """y = relu(1e38 x) - relu(1e38 x) + 1 over a huge box: infinite minus infinite."""
    builder = Builder((1,))
    x = builder.linear_of("x", torch.full((2, 1), 1e30), torch.zeros(2))
    x = builder.pointwise(Op.RELU, x)
    x = builder.linear_of(x, torch.tensor([[1e30, -1e30]]), torch.zeros(1))
    network = builder.network(
        builder.linear_of(builder.pointwise(Op.RELU, x), torch.eye(1), torch.ones(1))
    )
    found = bounded(network, question(case([-1], [1], region([[1]], [0.5]))), method)
    assert found.open_targets == [Target(0, 0)]
    assert not math.isnan(found.lower_bound)


def test_bounds_of_auto_lirpa_that_overflow_prove_nothing() -> None:
    first, last = torch.nn.Linear(1, 2), torch.nn.Linear(2, 1)
    module = torch.nn.Sequential(first, torch.nn.ReLU(), last).requires_grad_(False)
    first.weight.fill_(1e30)
    last.weight.copy_(torch.tensor([[1e30, -1e30]]))
    instance = question(case([-1], [1], region([[1]], [0])))
    specs = Specs.of(instance.cases[0], CPU)
    box = box_around(instance.cases[0], (1,), CPU)
    proof = bounded(identity(), instance)
    found = LirpaBounding(module, [box], [specs], lambda: None, lambda: proof)
    found.run(Method.CROWN)
    assert found.open_targets == [Target(0, 0)]
    assert found.lower_bound == -math.inf


def test_what_was_proved_before_a_checkpoint_raised_is_kept() -> None:
    network = mlp(4, 16, 16, 2)
    calls: list[Method] = []

    def checkpoint() -> None:
        calls.append(found.method)
        if calls.count(Method.ALPHA_CROWN) == 4:
            raise TimeoutError

    row = region([[1, 0]], [-1e-3])
    instance = question(case([-1] * 4, [1] * 4, row, region([[1, 0]], [-1e4])), outputs=2)
    crown = bounded(network, instance, Method.CROWN)
    found = incomplete(network, instance, checkpoint=checkpoint)
    with pytest.raises(TimeoutError):
        found.run(Method.ALPHA_CROWN)
    assert found.method is Method.ALPHA_CROWN
    assert found.open_targets == [Target(0, 0)]
    assert found.lower_bound == crown.lower_bound > -math.inf


def after(asked: int) -> Callable[[float], bool]:
    """A share of the time that is over when it has been asked for so often."""
    times = iter([False] * asked)
    return lambda share: next(times, True)


def dear(monkeypatch: pytest.MonkeyPatch) -> tuple[SmallNetwork, Property]:
    """A question that no bounds decide, where rows of layers count as dear."""
    monkeypatch.setattr("runner.engine.incomplete.EARLY_WORK", 0)
    network = mlp(3, 20, 20, 20, 1, seed=2)
    return network, question(case([-1.0] * 3, [1.0] * 3, region([[1]], [0.0])))


def test_specs_have_a_linear_bound_before_rows_of_layers_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, instance = dear(monkeypatch)
    by_interval = bounded(network, instance, Method.IBP).lower_bound

    def at_the_first_block(share: float) -> bool:
        raise DeadlineReached

    found = incomplete(network, instance, shares=TimeShares(passed_apart=at_the_first_block))
    with pytest.raises(DeadlineReached):
        found.run(Method.ALPHA_CROWN)
    assert by_interval < found.lower_bound < 0
    assert found.progress == "crown of 0 of 2 layers"


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1, 3])
def test_when_the_share_for_layers_is_over_specs_are_bounded_with_what_there_is(
    asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, instance = dear(monkeypatch)
    shares = TimeShares(lambda share: True, after(asked))
    found = incomplete(network, instance, shares=shares)
    found.run(Method.ALPHA_CROWN)
    by_interval = bounded(network, instance, Method.IBP).lower_bound
    in_full = bounded(network, instance, Method.ALPHA_CROWN).lower_bound
    assert by_interval < found.lower_bound < in_full < 0
    assert found.method is Method.ALPHA_CROWN


def test_more_of_the_time_for_layers_is_a_tighter_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    network, instance = dear(monkeypatch)
    margins = []
    for asked in (0, 4, 1000):
        found = incomplete(network, instance, shares=TimeShares(passed_apart=after(asked)))
        found.run(Method.CROWN)
        margins.append(found.lower_bound)
    assert margins == sorted(margins)
    assert margins[0] < margins[2]
    assert found.progress == "crown of 2 of 2 layers"


def test_what_specs_do_not_see_has_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder((2, 20, 20), seed=3)
    x = builder.pointwise(Op.RELU, builder.conv("x", 3, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.conv(x, 3, padding=(1, 1)))
    network = builder.network(builder.flatten(builder.conv(x, 1, padding=(1, 1))))
    row = np.zeros((1, 400))
    row[0, 210] = 1.0
    instance = question(case([-1.0] * 800, [1.0] * 800, region(row, [-100.0])), outputs=400)
    monkeypatch.setattr("runner.engine.incomplete.EARLY_WORK", 0)
    rows = counted_rows(monkeypatch)
    found = incomplete(network, instance)
    found.cases[0].margins[:] = -np.inf
    found.run(Method.IBP)
    found.cases[0].open[:] = True
    found.run(Method.CROWN)
    assert (
        0 < sum(count for _, count in rows) <= 2 * 3 * 9 + 20
    )  # in both precisions, and those that rounding is seen at


@pytest.mark.parametrize("gain", [-1.0, 2.0])
def test_before_splits_slopes_are_gone_on_with_where_a_few_steps_gained(
    gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, instance = dear(monkeypatch)
    monkeypatch.setattr("runner.engine.incomplete.FEW_GAIN", gain)
    monkeypatch.setattr("runner.engine.incomplete.LONG_WORK", 0)
    taken: list[int] = []

    def counting(*arguments: Any, **others: Any) -> dict[str, torch.Tensor]:
        taken.append(arguments[5].iterations)
        return optimized_slopes(*arguments, **others)

    monkeypatch.setattr("runner.engine.bounds.proved_rows.optimized_slopes", counting)
    steps, bounds = [], []
    for searched in (False, True):
        taken.clear()
        found = incomplete(network, instance)
        found.run(Method.ALPHA_CROWN, searched=searched)
        steps.append(sum(taken))
        bounds.append(found.lower_bound)
    assert steps[1] < steps[0] if gain > 1 else steps[1] == steps[0]
    assert bounds[1] < bounds[0] if gain > 1 else bounds[1] == bounds[0]
