"""Products of computed matrices and the sums of a softmax, as wholes and entry by entry."""

from __future__ import annotations

import pytest
import torch
from small_networks import Builder, SmallNetwork, attention, box_of, specs_of
from sound_bounds import assert_sound, bounded
from torch import Tensor
from torch.autograd import gradcheck

from runner.contract.vocabulary import Method
from runner.engine.bounds import exp_sums
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.matmul import relax
from runner.engine.bounds.mixed import Parametrised
from runner.engine.bounds.relaxed import BentRule
from runner.engine.network.graph import Attribute, Node, Op

SHAPE = {"batch": 2, "rows": 3, "length": 4, "columns": 2}

# Ascents over the same parameters do not take quite the same steps.
APART = {Method.IBP: 1e-9, Method.CROWN: 1e-9, Method.ALPHA_CROWN: 1e-3}


def factors(builder: Builder) -> tuple[str, str]:
    """[2, 3, 4] and [2, 4, 2] of the input."""
    return (
        builder.reshape(builder.linear("x", 24), 2, 3, 4),
        builder.reshape(builder.linear("x", 16), 2, 4, 2),
    )


def summed(builder: Builder, x: str, count: int) -> str:
    rows = builder.reshape(x, 1, torch.Size(builder.shape(x)).numel() // count, count)
    shape = (1, builder.shape(rows)[1], 1)
    options: dict[str, Attribute] = {"padding": (0, 0), "dilation": (1, 1), "groups": 1}
    ones = {"weight": torch.ones(1, 1, 1, count), "bias": torch.zeros(1)}
    return builder.add(Op.CONV, (rows,), shape, {"stride": (1, 1), **options}, **ones)


def products_as_one() -> SmallNetwork:
    builder = Builder((5,), seed=2)
    met = builder.matmul(*factors(builder))
    return builder.network(builder.linear(builder.flatten(met), 3))


def products_by_entry() -> SmallNetwork:
    builder = Builder((5,), seed=2)
    first, second = factors(builder)
    rows = torch.arange(24).reshape(2, 3, 1, 4).expand(2, 3, 2, 4)
    columns = torch.arange(16).reshape(2, 4, 2).mT[:, None].expand(2, 3, 2, 4)
    pair = [builder.select(first, rows[None]), builder.select(second, columns[None])]
    both = builder.concat(0, *pair)
    met = summed(builder, builder.add(Op.PRODUCT, (both,), (2, 3, 2, 4)), 4)
    return builder.network(builder.linear(builder.flatten(met), 3))


def sums_as_one() -> SmallNetwork:
    builder = Builder((5,), seed=2)
    sums = builder.exp_sums(builder.linear("x", 6), 3)
    return builder.network(builder.linear(builder.flatten(sums), 3))


def sums_by_entry() -> SmallNetwork:
    builder = Builder((5,), seed=2)
    x = builder.linear("x", 6)
    index = torch.arange(6).reshape(2, 3)
    others = builder.select(x, index[:, None, :].expand(2, 3, 3))
    mine = builder.select(x, index[:, :, None].expand(2, 3, 3))
    exponentials = builder.pointwise(Op.EXP, builder.pointwise(Op.SUB, others, mine))
    return builder.network(builder.linear(builder.flatten(summed(builder, exponentials, 3)), 3))


def spec_bounds(network: SmallNetwork, radius: float, method: Method) -> Tensor:
    box = box_of(network, radius, batch=2).to(torch.float64)
    _, found = bounded(network, box, specs_of(network, 4).double(), method)
    return found


@pytest.mark.parametrize("method", APART)
@pytest.mark.parametrize("radius", [0.01, 0.5])
def test_a_product_of_matrices_is_bounded_as_its_entries_are(radius: float, method: Method) -> None:
    one, entries = products_as_one(), products_by_entry()
    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(one.outputs(x), entries.outputs(x))
    found, expected = (spec_bounds(network, radius, method) for network in (one, entries))
    near = APART[method]
    torch.testing.assert_close(found, expected, rtol=near, atol=near)


@pytest.mark.parametrize("method", APART)
@pytest.mark.parametrize("radius", [0.01, 0.5])
def test_sums_of_exponentials_are_bounded_at_least_as_their_entries(
    radius: float, method: Method
) -> None:
    """The exponential of a value less itself is 1, which its entries do not know."""
    one, entries = sums_as_one(), sums_by_entry()
    x = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(one.outputs(x), entries.outputs(x))
    found, known = (spec_bounds(network, radius, method) for network in (one, entries))
    assert (found >= known - APART[method] * known.abs()).all()
    assert (found > known + 1e-9 * known.abs()).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0.0, 0.01, 0.3, 3.0])
def test_attention_stays_within_its_bounds(radius: float, dtype: torch.dtype) -> None:
    network = attention()
    assert_sound(network, box_of(network, radius, batch=2), dtype)


def test_a_function_of_a_bounded_value_is_not_bounded_anew() -> None:
    network = attention().bound()
    ops = {network.graph.node(name).op for name in network.start_nodes}
    assert Op.RECIPROCAL not in ops
    assert Op.EXP_SUMS in ops


@pytest.mark.parametrize("op", [Op.RELU, Op.SIGMOID])
def test_what_is_multiplied_is_bounded_where_its_function_is_known(op: Op) -> None:
    """Of every neuron, also where a ReLU is stable and would ask for no bound itself."""
    builder = Builder((3,), seed=5)
    before = builder.linear(builder.pointwise(Op.TANH, builder.linear("x", 4)), 8)
    after = builder.reshape(builder.pointwise(op, before), 2, 4)
    product = builder.add(Op.PRODUCT, (after,), (4,))
    network = builder.network(builder.linear(product, 3))
    known = network.bound()
    assert before in known.start_nodes
    assert before not in known.only_unstable
    assert not any(known.graph.node(name).op is op for name in known.start_nodes)
    assert_sound(network, box_of(network, 0.5, batch=2), torch.float64)


MATMUL = Node("m", Op.MATMUL, ("x",), (2, 3, 2), SHAPE)
EXP_SUMS = Node("s", Op.EXP_SUMS, ("x",), (2, 3))


def around(node: Node, size: int, radius: float) -> tuple[Interval, Parametrised]:
    centre = torch.randn(1, size, generator=torch.Generator().manual_seed(0)).double()
    box = Interval(centre - radius, centre + radius)
    shape = (1, 2, size // 2)
    lines = BentRule(node).relax(box.reshape(*shape))
    assert isinstance(lines, Parametrised)
    return box, lines


@pytest.mark.parametrize(("node", "size"), [(MATMUL, 40), (EXP_SUMS, 6)])
def test_gradients_of_rows_and_parameters(node: Node, size: int) -> None:
    _, lines = around(node, size, 0.3)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 1, *node.shape, generator=generator).double().requires_grad_()
    at = torch.rand(lines.initial(2).shape, generator=generator).double().requires_grad_()
    assert gradcheck(lines.backward, (rows,))
    assert gradcheck(lines.backward, (rows, at))


@pytest.mark.parametrize("radius", [0.01, 0.3, 2.0])
@pytest.mark.parametrize(("node", "size"), [(MATMUL, 40), (EXP_SUMS, 6)])
def test_any_parameters_are_sound(node: Node, size: int, radius: float) -> None:
    """Also those that an ascent has made too large, or no number."""
    box, lines = around(node, size, radius)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(6, 1, *node.shape, generator=generator).double()
    at = torch.rand(lines.initial(6).shape, generator=generator).double().round(decimals=1)
    at[4:] = at[4:] * 3 - 1
    at[5, :, 0] = torch.nan
    found, bias = lines.backward(rows, at)
    shares = torch.rand(4000, size, generator=generator).double()
    shares[::2] = shares[::2].round()
    x = torch.lerp(box.lower, box.upper, shares)
    before = x.reshape(-1, 2, size // 2)
    values = BentRule(node).forward(before).flatten(1)
    below = x @ found.flatten(2)[:, 0].T + bias.T
    assert (below <= values @ rows.flatten(2)[:, 0].T + 1e-9).all()


def test_the_middle_of_all_planes_is_what_rows_without_parameters_get() -> None:
    _, lines = around(MATMUL, 40, 0.3)
    rows = torch.randn(2, 1, 2, 3, 2).double()
    torch.testing.assert_close(lines.backward(rows, lines.initial(2)), lines.backward(rows))


def test_differences_that_a_part_does_not_narrow_keep_their_lines() -> None:
    lower = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0)).double()
    root = Interval(lower, lower + 1)
    node = Node("s", Op.EXP_SUMS, ("x",), (2, 4))
    whole = exp_sums.relax(node, root)
    same = exp_sums.relax_where(node, whole, root, root)
    assert same.pairs.bundle is whole.pairs.bundle
    part = Interval(root.lower.repeat(2, 1, 1), root.upper.repeat(2, 1, 1))
    part.upper[1, 0, 2] -= 0.5
    found = exp_sums.relax_where(node, whole, root, part)
    moved = found.pairs.bundle.moved
    assert moved is not None
    first, second = moved.neuron // 16, moved.neuron % 16
    assert set(moved.domain.tolist()) == {1}
    assert set(first.tolist()) == {0}
    assert all(2 in divmod(pair, 4) for pair in second.tolist())
    anew = exp_sums.relax(node, part)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3, 2, 2, 4, generator=generator).double().requires_grad_()
    at = torch.rand(3, 2, 32, generator=generator).double().requires_grad_()
    made = [lines.backward(rows, at) for lines in (found, anew)]
    torch.testing.assert_close(made[0], made[1])
    weights = [torch.randn(x.shape, generator=generator).double() for x in made[0]]
    slopes = [
        torch.autograd.grad([(x * w).sum() for x, w in zip(one, weights, strict=True)], (rows, at))
        for one in made
    ]
    torch.testing.assert_close(slopes[0], slopes[1])


@pytest.mark.parametrize("end", [torch.inf, 1e300])
def test_what_overflows_says_nothing(end: float) -> None:
    node = Node("m", Op.MATMUL, ("x",), (2, 3, 2), SHAPE)
    lower, upper = torch.zeros(1, 2, 20).double(), torch.ones(1, 2, 20).double()
    lower[0, 0, 3], upper[0, 0, 3] = -end, end
    lower[0, -1, -1], upper[0, -1, -1] = -end, end
    lines = relax(node, Interval(lower, upper))
    assert not lines.below.isnan().any()
    assert not lines.above.isnan().any()
