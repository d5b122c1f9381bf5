"""Planes above ReLUs: rows are what the network computes, no multipliers prove what a point
refutes, and what is found is the concave envelope.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from small_networks import CPU, Builder, SmallNetwork, mlp
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds import hinge_planes as planes_module
from runner.engine.bounds.hinge_planes import HingePlanes
from runner.engine.bounds.hinges import HingedRows, bends_once, hinged
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op
from runner.engine.specs import Specs
from runner.problem.property.model import Case, Conjunction

# What an input that lies between two neighbouring floats moves a row by, at most.
CLOSE = 1e-5


def rows_of(network: SmallNetwork, lower: Tensor, upper: Tensor, matrix: Tensor) -> HingedRows:
    """Of rows [S, outputs] with thresholds 0.5, over a box of float32 limits."""
    limits = np.full(len(matrix), 0.5)
    unsafe = Conjunction(matrix.numpy(), limits, np.zeros(len(matrix), dtype=bool))
    asked = Case(lower.double().numpy(), upper.double().numpy(), (unsafe,))
    specs = Specs.of(asked, CPU)
    shape = network.graph.input.shape
    box = Interval(lower.reshape(1, *shape), upper.reshape(1, *shape))
    known = Propagator(network.bound(), Settings(Method.CROWN)).bound(box)
    return hinged(network.bound(), known.intervals, specs, NoTagger(), lambda: None)


def value(rows: HingedRows, x: Tensor) -> Tensor:
    """[points, rows], at points [points, inputs that vary]."""
    rising, falling = (
        (x @ part.slopes.T + part.offsets).relu() @ part.weights.T
        for part in (rows.rising, rows.falling)
    )
    return rows.constant + x @ rows.slopes.T + rising - falling


def skipping(seed: int = 0) -> SmallNetwork:
    """Two ReLUs side by side, and a way around both."""
    builder = Builder((4,), seed)
    ways = [builder.pointwise(Op.RELU, builder.linear("x", 6)) for _ in range(2)]
    both = builder.pointwise(Op.ADD, *ways)
    added = builder.pointwise(Op.ADD, builder.linear(both, 3), builder.linear("x", 3))
    return builder.network(added)


def convolution(seed: int = 0) -> SmallNetwork:
    builder = Builder((1, 3, 3), seed)
    hidden = builder.pointwise(Op.RELU, builder.conv("x", 3, kernel=(2, 2)))
    builder.linear(builder.flatten(hidden), 3)
    return builder.network()


def sigmoid() -> SmallNetwork:
    builder = Builder((4,))
    builder.linear(builder.pointwise(Op.SIGMOID, builder.linear("x", 5)), 3)
    return builder.network()


ONCE: dict[str, Callable[[int], SmallNetwork]] = {
    "one layer": lambda seed: mlp(4, 12, 3, seed=seed),
    "side by side": skipping,
    "convolution": convolution,
}


def drawn(network: SmallNetwork, seed: int) -> tuple[HingedRows, Tensor, Tensor]:
    """Rows over a box of which one input lies between two neighbouring floats; its lower limits
    [inputs], and the rows' matrix.
    """
    random = torch.Generator().manual_seed(seed)
    inputs = network.graph.input.size
    lower = torch.randn(inputs, generator=random)
    upper = lower + 2 * torch.rand(inputs, generator=random)
    upper[1] = torch.nextafter(lower[1], upper[1] + 1)
    matrix = torch.randn(2, 3, generator=random, dtype=torch.float64)
    return rows_of(network, lower, upper, matrix), lower, matrix


def test_a_node_none_of_whose_relus_rise_has_no_hinges() -> None:
    network, far = mlp(4, 1, 3), 100 * torch.randn(4, generator=torch.Generator().manual_seed(0))
    matrix = torch.ones(1, 3, dtype=torch.float64)
    sides = [rows_of(network, at - 0.1, at + 0.1, matrix) for at in (far, -far)]
    counts = [side.rising.weights.shape[1] + side.falling.weights.shape[1] for side in sides]
    assert sorted(counts) == [0, 1], "the one ReLU is on at one of two opposite points alone"
    flat = sides[counts.index(0)]
    assert not flat.slopes.any()
    row = torch.zeros(1, dtype=torch.long)
    planes = HingePlanes(flat)
    whole = Interval(flat.lower[None], flat.upper[None])
    found, _ = planes.bound(whole, row, planes.unpacked(torch.zeros(1, planes.length)), 3)
    assert torch.allclose(found, flat.constant)


def points_of(rows: HingedRows, count: int, seed: int) -> Tensor:
    """Of its box, half of them corners."""
    random = torch.Generator().manual_seed(seed)
    share = torch.rand(count, len(rows.lower), generator=random, dtype=torch.float64)
    share[::2] = share[::2].round()
    return rows.lower + share * (rows.upper - rows.lower)


def test_what_bends_once_is_known() -> None:
    assert all(bends_once(make(0).bound()) for make in ONCE.values())
    assert not bends_once(mlp(4, 6, 6, 1).bound())
    assert not bends_once(mlp(4, 1).bound())
    assert not bends_once(sigmoid().bound())


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("seed", range(3))
def test_rows_are_what_the_network_computes_and_never_more(name: str, seed: int) -> None:
    network = ONCE[name](seed)
    rows, lower, matrix = drawn(network, seed)
    assert len(rows.lower) == network.graph.input.size - 1, "what is fixed does not count"
    x = points_of(rows, 200, seed)
    whole = lower.double().repeat(len(x), 1)
    whole[:, rows.inputs] = x
    whole[::3, 1] = torch.nextafter(lower[1], lower[1] + 1).double()
    outputs = network.outputs(whole.reshape(-1, *network.graph.input.shape))
    exact = outputs @ matrix.T - 0.5
    found = value(rows, x)
    assert (found <= exact + 1e-13).all()
    assert torch.allclose(found, exact, rtol=0, atol=CLOSE)


def parts(rows: HingedRows, count: int, seed: int) -> Interval:
    """Boxes [count, inputs], some of them thin."""
    one, other = points_of(rows, count, seed), points_of(rows, count, seed + 1)
    other[::3] = one[::3] + 1e-3 * (other[::3] - one[::3])
    return Interval(torch.minimum(one, other), torch.maximum(one, other))


@given(st.integers(0, 2**16), st.sampled_from(sorted(ONCE)), st.sampled_from([0, 1, 7]))
@example(10307, "side by side", 0)  # One of the two ReLU nodes is off throughout.
def test_no_multipliers_prove_what_a_point_refutes(seed: int, name: str, steps: int) -> None:
    """Whatever the search was given, and whatever it made of it."""
    rows, _, _ = drawn(ONCE[name](seed % 5), seed)
    planes, random = HingePlanes(rows), torch.Generator().manual_seed(seed)
    box = parts(rows, 6, seed)
    row = torch.arange(6) % 2
    start = planes.unpacked(torch.rand(6, planes.length, generator=random))
    found, _ = planes.bound(box, row, start, steps)
    share = torch.rand(50, 6, len(rows.lower), generator=random, dtype=torch.float64)
    share[::2] = share[::2].round()
    x = (box.lower + share * (box.upper - box.lower)).flatten(0, 1)
    least = value(rows, x).reshape(50, 6, 2).amin(0)[torch.arange(6), row]
    assert (found <= least).all()


def envelope(rows: HingedRows) -> float:
    """The least value at corners: what a concave row comes to."""
    corners = itertools.product(*zip(rows.lower.tolist(), rows.upper.tolist(), strict=True))
    return float(value(rows, torch.tensor(list(corners), dtype=torch.float64)).min())


@pytest.mark.parametrize("seed", range(4))
def test_one_falling_hinge_is_bounded_by_its_envelope(seed: int) -> None:
    """Where the line in the hinge's input alone misses much."""
    random = torch.Generator().manual_seed(seed)
    builder = Builder((6,), seed)
    hinge = builder.pointwise(Op.RELU, builder.linear_of("x", torch.ones(1, 6), torch.zeros(1)))
    down = builder.linear_of(hinge, -torch.ones(1, 1), torch.zeros(1))
    slope = torch.tensor([[1.0, 1.0, 1.0, -0.3, -0.3, -0.3]])
    slope = slope + 0.3 * torch.rand(1, 6, generator=random)
    builder.pointwise(Op.ADD, down, builder.linear_of("x", slope, torch.zeros(1)))
    network, ones = builder.network(), torch.ones(6)
    rows = rows_of(network, -ones, ones, torch.ones(1, 1, dtype=torch.float64))
    planes, row = HingePlanes(rows), torch.zeros(1, dtype=torch.long)
    box = Interval(rows.lower[None], rows.upper[None])
    first = planes.first(box, row)
    line, _ = planes.bound(box, row, first, 0)
    found, _ = planes.bound(box, row, first, 400)
    exact = envelope(rows)
    assert exact - 1e-3 < float(found) <= exact
    assert float(line) < exact - 0.1


def test_a_hinge_that_does_not_bend_in_a_box_is_exact_there() -> None:
    rows, _, _ = drawn(mlp(4, 12, 3, seed=1), 1)
    planes = HingePlanes(rows)
    middle = (rows.lower + rows.upper) / 2
    box = Interval((middle - 1e-6)[None], (middle + 1e-6)[None])
    row = torch.zeros(1, dtype=torch.long)
    worst = planes.unpacked(torch.full((1, planes.length), 0.5))
    found, _ = planes.bound(box, row, worst, 0)
    assert float(value(rows, middle[None])[0, 0] - found) < 1e-4


def exact_value(network: SmallNetwork, x: Tensor, row: Tensor) -> Fraction:
    """Of a network of one hidden layer, in rational arithmetic."""
    values = [Fraction(v) for v in x.tolist()]
    for node in network.graph.nodes[1:]:
        if node.op is Op.RELU:
            values = [max(Fraction(0), v) for v in values]
            continue
        weight, bias = (network.tensors[node.parameters[r]].tolist() for r in ("weight", "bias"))
        values = [
            sum((Fraction(w) * v for w, v in zip(ws, values, strict=True)), Fraction(b))
            for ws, b in zip(weight, bias, strict=True)
        ]
    return sum((Fraction(w) * v for w, v in zip(row.tolist(), values, strict=True)), Fraction(-0.5))


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8])
def test_bounds_hold_in_rational_arithmetic_where_large_weights_cancel(scale: float) -> None:
    random = torch.Generator().manual_seed(int(scale))
    for seed in range(4):
        centre = torch.randn(3, generator=random)
        builder = Builder((3,), seed)
        weight = builder.random(8, 3) * scale
        hidden = builder.linear_of("x", weight, -weight @ centre + builder.random(8) * 1e-3 * scale)
        builder.linear_of(builder.pointwise(Op.RELU, hidden), builder.random(2, 8), torch.zeros(2))
        network, radius = builder.network(), 1e-3
        matrix = torch.randn(1, 2, generator=random, dtype=torch.float64)
        rows = rows_of(network, centre - radius, centre + radius, matrix)
        planes, row = HingePlanes(rows), torch.zeros(5, dtype=torch.long)
        x = points_of(rows, 5, seed)
        box = Interval(x, x)
        found, _ = planes.bound(box, row, planes.first(box, row), 5)
        for point, bound in zip(x, found.tolist(), strict=True):
            exact = exact_value(network, point, matrix[0])
            assert Fraction(bound) <= exact
            assert float(exact - Fraction(bound)) < 1e-5 * scale


Offsets = Callable[[Tensor, Tensor, Tensor], Tensor]
RIGHT = planes_module._offsets
WRONG: dict[str, Offsets] = {
    "above zero alone": lambda shares, sizes, middle: (shares * sizes).sum(2),
    "above the value alone": lambda shares, sizes, middle: middle + ((1 - shares) * sizes).sum(2),
    "a little too low": lambda *of: RIGHT(*of) - 0.02 * of[1].sum(2),
}


@pytest.mark.parametrize("wrong", [None, *WRONG])
def test_points_refute_planes_that_are_not_above_the_hinge(
    wrong: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above look at would tell."""
    rows, _, _ = drawn(mlp(4, 12, 3, seed=2), 2)
    planes = HingePlanes(rows)
    box, row = parts(rows, 32, 0), torch.zeros(32, dtype=torch.long)
    if wrong is not None:
        monkeypatch.setattr(planes_module, "_offsets", WRONG[wrong])
    found, _ = planes.bound(box, row, planes.first(box, row), 20)
    random = torch.Generator().manual_seed(0)
    share = torch.rand(500, 32, len(rows.lower), generator=random, dtype=torch.float64)
    share[::2] = share[::2].round()
    x = (box.lower + share * (box.upper - box.lower)).flatten(0, 1)
    least = value(rows, x)[:, 0].reshape(500, 32).amin(0)
    assert bool((found > least).any()) is (wrong is not None)
