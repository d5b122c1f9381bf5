"""A tighter method is never looser, what is known is never lost, and blocks change nothing."""

from __future__ import annotations

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SmallNetwork, box_of, boxes, cnn, mlp, networks, specs_of
from sound_bounds import counted_rows
from torch import Tensor

from runner.contract.vocabulary import BOUNDS, Method
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.relu import ReluRelaxation

QUICK = AlphaSettings(iterations=3)


def propagator(
    network: SmallNetwork,
    method: Method,
    row_block: int = 64,
    alpha: AlphaSettings | None = None,
) -> Propagator:
    return Propagator(network.bound(), Settings(method, row_block, alpha or QUICK))


def assert_within(inner: NetworkBounds, outer: NetworkBounds) -> None:
    """Of all nodes but the input, whose bounds are the box."""
    for name, interval in list(inner.intervals.items())[1:]:
        assert (interval.lower >= outer.intervals[name].lower).all(), name
        assert (interval.upper <= outer.intervals[name].upper).all(), name


@pytest.mark.slow
@examples(15)
@given(st.data(), networks())
def test_each_method_is_as_tight_as_the_one_before_it(
    data: st.DataObject, network: SmallNetwork
) -> None:
    """As a verification climbs: with what the method before it knows."""
    box = data.draw(boxes(network.graph.input.shape)).to(torch.float64)
    specs = specs_of(network, 3).double()
    known: NetworkBounds | None = None
    for method in BOUNDS:
        chosen = propagator(network, method)
        bounds = chosen.bound(box, known)
        found = chosen.spec_bounds(bounds, specs)
        interval = bounds.intervals[network.graph.output]
        by_interval = specs @ interval.centre.T - specs.abs() @ interval.radius.T
        assert (found >= by_interval - 1e-9 * (1 + by_interval.abs())).all()
        if known is not None:
            assert_within(bounds, known)
        known = bounds


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "make", [cnn, lambda seed: mlp(6, 12, 12, 12, 4, seed=seed)], ids=["cnn", "mlp"]
)
def test_on_usual_networks_each_method_is_tighter(make: object, seed: int) -> None:
    network: SmallNetwork = make(seed)  # type: ignore[operator]
    box, specs = box_of(network, 0.2, batch=2), specs_of(network, 4)
    found = {}
    for method in BOUNDS:
        chosen = propagator(network, method)
        found[method] = chosen.spec_bounds(chosen.bound(box), specs)
    assert (found[Method.CROWN] > found[Method.IBP]).all()
    assert (found[Method.ALPHA_CROWN] >= found[Method.CROWN] - 1e-5).all()
    better = found[Method.ALPHA_CROWN] > found[Method.CROWN] + 1e-3
    assert better.float().mean() > 0.4


def test_alpha_leaves_the_limits_it_starts_at() -> None:
    """Behind a clamp, torch 2.14 gives α no gradient at 0 and 1, and α-CROWN is CROWN."""
    network = mlp(6, 16, 16, 4)
    box, specs = box_of(network, 0.5), specs_of(network, 8)
    bounds = propagator(network, Method.CROWN).bound(box)
    slopes = [r.adaptive for r in bounds.relaxations.values() if isinstance(r, ReluRelaxation)]
    assert {*torch.cat(slopes, 1).flatten().tolist()} == {0.0, 1.0}
    crown = propagator(network, Method.CROWN).spec_bounds(bounds, specs)
    steps = [
        propagator(network, Method.ALPHA_CROWN, alpha=AlphaSettings(iterations)).spec_bounds(
            bounds, specs
        )
        for iterations in (1, 5, 20)
    ]
    torch.testing.assert_close(steps[0], crown)
    assert (steps[1] >= crown - 1e-6).all()
    assert (steps[1] > crown + 1e-2).float().mean() > 0.3
    assert (steps[2] >= steps[1]).all()
    assert (steps[2] > steps[1] + 1e-3).any()


def test_each_row_has_its_own_alpha() -> None:
    """A row's bound is the same whatever rows are optimised beside it, up to the float32 that α is
    searched in.
    """
    network = mlp(6, 16, 16, 4)
    box, specs = box_of(network, 0.5).to(torch.float64), specs_of(network, 6).double()
    chosen = propagator(network, Method.ALPHA_CROWN)
    bounds = chosen.bound(box)
    together = chosen.spec_bounds(bounds, specs)
    alone = torch.cat([chosen.spec_bounds(bounds, row[None]) for row in specs])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize(
    "make", [lambda: cnn(channels=2, size=5), lambda: mlp(6, 12, 12, 4)], ids=["cnn", "mlp"]
)
def test_the_size_of_row_blocks_changes_rounding_only(make: object, method: Method) -> None:
    network: SmallNetwork = make()  # type: ignore[operator]
    box, specs = box_of(network, 0.3, batch=2).to(torch.float64), specs_of(network, 3).double()
    whole = propagator(network, method, row_block=10_000)
    expected = whole.bound(box)
    for row_block in (1, 7, 32):
        chosen = propagator(network, method, row_block)
        bounds = chosen.bound(box)
        for name, interval in bounds.intervals.items():
            for side in ("lower", "upper"):
                # What float32 settles is not taken again in float64.
                torch.testing.assert_close(
                    getattr(interval, side),
                    getattr(expected.intervals[name], side),
                    rtol=1e-5,
                    atol=1e-6,
                )
        torch.testing.assert_close(
            chosen.spec_bounds(bounds, specs), whole.spec_bounds(expected, specs)
        )


@pytest.mark.parametrize("method", BOUNDS)
def test_boxes_of_a_batch_are_bounded_as_if_each_were_alone(method: Method) -> None:
    """Also where a neuron is stable over one box and unstable over another.

    With one hidden layer: deeper, a neuron is bounded anew for all boxes if it is for one.
    """
    network = mlp(4, 20, 3)
    box, specs = box_of(network, 0.3, batch=3).to(torch.float64), specs_of(network, 3).double()
    box = Interval(box.lower, torch.cat((box.lower[:1], box.upper[1:])))
    chosen = propagator(network, method)
    found = chosen.spec_bounds(chosen.bound(box), specs)
    for index in range(3):
        one = Interval(box.lower[index : index + 1], box.upper[index : index + 1])
        alone = chosen.spec_bounds(chosen.bound(one), specs)
        torch.testing.assert_close(found[:, index : index + 1], alone)


@pytest.mark.parametrize("method", BOUNDS)
def test_known_bounds_are_kept_and_used(method: Method) -> None:
    """Bounds from elsewhere, here the exact ones of a smaller box, make all later ones tighter."""
    network = mlp(4, 12, 12, 3)
    box, smaller = box_of(network, 1.0), box_of(network, 0.1)
    chosen = propagator(network, method)
    without = chosen.bound(box)
    known = propagator(network, Method.ALPHA_CROWN).bound(smaller)
    bounds = chosen.bound(box, known)
    assert_within(bounds, known)
    specs = specs_of(network, 3)
    tighter = chosen.spec_bounds(bounds, specs) > chosen.spec_bounds(without, specs)
    assert tighter.all()


def test_known_bounds_of_a_larger_box_loosen_nothing() -> None:
    network = mlp(4, 12, 12, 3)
    chosen = propagator(network, Method.IBP)
    known, expected = chosen.bound(box_of(network, 2.0)), chosen.bound(box_of(network, 0.1))
    found = chosen.bound(box_of(network, 0.1), known)
    for name, interval in expected.intervals.items():
        assert torch.equal(found.intervals[name].lower, interval.lower)
        assert torch.equal(found.intervals[name].upper, interval.upper)


def test_rows_exist_for_unstable_neurons_only_and_in_blocks() -> None:
    """The checkpoint is called once a block, and between the steps of α."""
    network = mlp(4, 12, 30, 3)
    box = box_of(network, 0.3)
    by_interval = propagator(network, Method.IBP).bound(box).intervals["linear_3"]
    unstable = int(((by_interval.lower < 0) & (by_interval.upper > 0)).sum())
    assert 8 < unstable < 30
    calls: list[None] = []
    settings = Settings(Method.CROWN, row_block=8)
    Propagator(network.bound(), settings, None, lambda: calls.append(None)).bound(box)
    blocks = -(-unstable // 4)
    assert len(calls) == blocks + blocks % 2


def test_a_checkpoint_that_raises_ends_the_bounds_at_once() -> None:
    class Stop(Exception):
        pass

    calls: list[None] = []

    def checkpoint() -> None:
        calls.append(None)
        if len(calls) == 7:
            raise Stop

    network = mlp(4, 12, 12, 3)
    chosen = Propagator(network.bound(), Settings(Method.ALPHA_CROWN), None, checkpoint)
    with pytest.raises(Stop):
        chosen.bound(box_of(network, 1.0))
    assert len(calls) == 7


def test_alpha_ends_when_its_caller_has_enough() -> None:
    network = mlp(6, 16, 16, 4)
    chosen = propagator(network, Method.ALPHA_CROWN, alpha=AlphaSettings(20))
    bounds, specs = chosen.bound(box_of(network, 0.5)), specs_of(network, 8)
    seen: list[Tensor] = []

    def enough(best: Tensor) -> bool:
        seen.append(best.clone())
        return len(seen) == 3

    found = chosen.spec_bounds(bounds, specs, enough)
    assert len(seen) == 3
    assert (seen[1] >= seen[0]).all()
    assert (seen[2] >= seen[1]).all()
    # What was searched without charges is proved: it comes to a little less.
    assert (found <= seen[-1]).all()
    torch.testing.assert_close(found, seen[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", BOUNDS)
def test_bounds_that_overflow_are_not_numbers_and_not_a_proof(method: Method) -> None:
    network = mlp(2, 3, 3, 1)
    huge = {name: value * 1e15 for name, value in network.tensors.items()}
    network = SmallNetwork(network.graph, huge)
    box = Interval(torch.full((1, 2), -1e8), torch.full((1, 2), 1e8))
    chosen = propagator(network, method)
    found = chosen.spec_bounds(chosen.bound(box), torch.tensor([[1.0], [-1.0]]))
    assert not (found > -1e38).any()


def test_what_float32_shows_to_be_stable_has_no_rows_in_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A box in float64, of a network in float32: the dearer rows are those that are left."""
    network = mlp(20, 60, 60, 3, seed=6)
    box = box_of(network, 0.02).to(torch.float64)
    rows = counted_rows(monkeypatch)
    settings = Settings(Method.CROWN, forward_share=0.0)
    found = Propagator(network.bound(), settings).bound(box).intervals
    of_each = {dtype: 0 for dtype, _ in rows}
    for dtype, count in rows:
        of_each[dtype] += count
    assert 0 < of_each[torch.float64] < of_each[torch.float32]
    monkeypatch.setattr(Propagator, "_lower", lambda self, bounds: bounds)
    for name, interval in Propagator(network.bound(), settings).bound(box).intervals.items():
        still = (found[name].lower < 0) & (found[name].upper > 0)
        assert torch.equal(still, (interval.lower < 0) & (interval.upper > 0)), name
        torch.testing.assert_close(found[name].lower[still], interval.lower[still])
        torch.testing.assert_close(found[name].upper[still], interval.upper[still])
