"""Forms whose errors are all variables, and products of two forms as what they are: quadratic.

Where few inputs vary and few neurons bend, each of these has a variable t in [-1, 1] of its own,
from where it comes to the outputs. A product of two forms is a plane through their centres and the
product of what both are away from those, two sums of variables. That rest is a variable too, for
the forms that follow; beside that it is known, so that bounds of the outputs see how it curves
(`runner.engine.bounds.quadratic`). All is in float64, and holds in real arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.engine.bounds.bands import relaxed
from runner.engine.bounds.form import Form, through
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import grown, unit
from runner.engine.network.graph import RELAXED, Graph, Node, Op

WIDE = torch.float64
# Their factors are sums of variables, so that what planes leave of them is quadratic.
_CURVED = frozenset({Op.PRODUCT, Op.SQUARE})
# Every neuron of every box has as many columns.
MOST_VARIABLES = 64
# Of a product of two values, of each of them times a column, and of the sum of those.
_ROUNDINGS = 8


@dataclass(frozen=True)
class Curved:
    """Of n products over B boxes, the variable of each by those before it.

    t_p reach_p = (sum_k t_k left_kp) (sum_k t_k right_kp), with k over `symbols`, for p from
    `first` on. left, right: [K, B, n]; reach: [B, n].
    """

    symbols: tuple[int, ...]
    left: Tensor
    right: Tensor
    reach: Tensor
    first: int


@dataclass(frozen=True)
class CurvedBounds:
    """The form of the outputs [B, *output], and what is known of the variables of products.

    Variables 0 to inputs - 1 are those of the flat input.
    """

    output: Form
    products: tuple[Curved, ...]
    inputs: int


def variables(graph: Graph) -> int:
    """Of the input and of all that bends, at most."""
    return sum(node.size for node in graph.nodes if not node.inputs or node.op in RELAXED)


def curves(graph: Graph) -> bool:
    """Whether there are products, and few variables."""
    some = any(node.op in _CURVED for node in graph.nodes)
    return some and variables(graph) <= MOST_VARIABLES


@torch.no_grad()
def curved_bounds(network: BoundNetwork, box: Interval) -> CurvedBounds:
    """Over boxes [B, *input]."""
    forms: dict[str, Form] = {}
    products: list[Curved] = []
    count = 0
    for node in network.graph.nodes:
        before = [forms[name] for name in node.inputs]
        if node.name in network.linear:
            forms[node.name] = through(network.linear[node.name], before)
            continue
        if node.op in _CURVED:
            form, product = _product(node, before[0], count)
            products.append(product)
        elif not node.inputs:
            form = _of_errors(Form.of(box.to(WIDE)), count)
        else:
            form = _of_errors(_bent(network, node, before[0]), count)
        forms[node.name] = form
        count += node.size
    return CurvedBounds(forms[network.graph.output], tuple(products), network.graph.input.size)


def _bent(network: BoundNetwork, node: Node, form: Form) -> Form:
    rule, before = network.relaxed[node.name], form.interval
    return relaxed(node, rule, form, before, rule.interval(before))


def _of_errors(form: Form, first: int) -> Form:
    """Each error as a variable, with numbers from `first` on; infinite ones stay."""
    known = form.error.isfinite()
    moved = torch.where(known, form.error, 0.0)
    return _with(replace(form, error=form.error - moved), moved, first)


def _with(form: Form, reach: Tensor, first: int) -> Form:
    """What each neuron has beside the form, of size `reach` [B, *shape], as a variable."""
    columns = torch.diag_embed(reach.flatten(1)).transpose(0, 1)
    count = len(columns)
    return replace(
        form,
        symbols=form.symbols + tuple(range(first, first + count)),
        columns=torch.cat((form.columns, columns.reshape(count, *reach.shape))),
    )


@dataclass(frozen=True)
class _Factor:
    """The form of one of two factors; `reach`: no less than its columns, added up."""

    centre: Tensor
    columns: Tensor
    error: Tensor
    reach: Tensor

    @staticmethod
    def both(node: Node, form: Form) -> tuple[_Factor, _Factor]:
        reach = grown(form.reach(len(form.symbols)), len(form.symbols) + 2, 1)
        whole = _Factor(form.centre, form.columns, form.error, reach)
        if node.op is Op.SQUARE:
            return whole, whole
        first, second = (
            _Factor(whole.centre[:, i], whole.columns[:, :, i], whole.error[:, i], reach[:, i])
            for i in (0, 1)
        )
        return first, second


def _product(node: Node, form: Form, first: int) -> tuple[Form, Curved]:
    x, y = _Factor.both(node, form)
    size = x.centre.abs() * (y.centre.abs() + y.reach) + y.centre.abs() * x.reach
    error = x.centre.abs() * y.error + y.centre.abs() * x.error
    error = error + x.error * (y.reach + y.error) + y.error * x.reach
    error = error + size * (2 * _ROUNDINGS * unit(size.dtype))
    error = grown(error, 2 * _ROUNDINGS, len(form.symbols) + _ROUNDINGS)
    reach = grown(x.reach * y.reach, 2, 1)
    # Where a rest has overflowed, nothing is known of the product.
    error = torch.where(reach.isfinite(), error, torch.inf)
    plane = x.centre * y.columns + y.centre * x.columns
    found = Form(form.symbols, plane, x.centre * y.centre, error).settled()
    lost = ~found.error.isfinite()
    left, right = (part.columns.masked_fill(lost, 0.0).flatten(2) for part in (x, y))
    curved = Curved(form.symbols, left, right, reach.masked_fill(lost, 1.0).flatten(1), first)
    return _with(found, reach.masked_fill(lost, 0.0), first), curved
