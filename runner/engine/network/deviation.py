"""What ONNX Runtime's rounding may do to each value of a network, at given inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from runner.engine.functions import function_of
from runner.engine.network.evaluate import apply, differences, in_dtype, matrices, window_of
from runner.engine.network.graph import Graph, Node, Op

# Of the functions that it approximates, and of what it rounds them to.
_UNITS_OF_FUNCTIONS = 8.0
_WEIGHTS_AT_ONCE = 1 << 20
_UNIT = 2.0**-53  # of float64
# Deviations below zero from where rounding does not make a ReLU active.
_FAR = 16.0
_LARGEST = 1e300  # of a variance
# Deviations within which a function may jump.
_REACH = 8.0


# By the derivative at the value.
_BENT: dict[Op, Callable[[Tensor, Tensor], Tensor]] = {
    Op.EXP: lambda x, variance: variance * x.exp() ** 2,
    Op.SQRT: lambda x, variance: variance / (4 * x.abs()),
    Op.SQUARE: lambda x, variance: variance * (2 * x) ** 2 + 2 * variance**2,
    Op.RECIPROCAL: lambda x, variance: variance / x**4,
    Op.SIN: lambda x, variance: variance,
    Op.COS: lambda x, variance: variance,
    Op.PRODUCT: lambda x, variance: (variance * x.flip(1) ** 2).sum(1) + variance.prod(1),
}


def with_deviation(
    graph: Graph, tensors: Mapping[str, Tensor], x: Tensor, unit: float
) -> tuple[Tensor, Tensor]:
    """Outputs [B, outputs] in float64, and the standard deviation that rounding gives each.

    x: [B, *input_shape]; `unit`: relative error of one rounding. Roundings count as independent:
    a bound on the worst of them grows with every layer by the norm of |W| and soon says nothing.
    """
    values = {graph.input.name: x.double()}
    # A value that is cast is rounded, and the input is what is cast as a rule.
    cast = unit if graph.lowest is not None else 0.0
    variances = {graph.input.name: (cast * values[graph.input.name]) ** 2}
    for node in graph.nodes[1:]:
        inputs = [values[name] for name in node.inputs]
        if node.op is Op.LINEAR:
            weight, bias = (tensors[node.parameters[role]] for role in ("weight", "bias"))
            value, carried, own = _linear(weight, bias, inputs[0], variances[node.inputs[0]])
            values[node.name], variances[node.name] = value, _finite(carried + unit**2 * own)
            continue
        parameters = {
            role: in_dtype(tensors[name], torch.float64) for role, name in node.parameters.items()
        }
        values[node.name] = apply(node, parameters, *inputs)
        before = [variances[name] for name in node.inputs]
        if node.op is Op.FUNCTION:
            carried = _of_function(node, inputs[0], before[0])
        elif node.op in _BENT:
            carried = _BENT[node.op](inputs[0], before[0])
        elif node.op is Op.MATMUL:
            carried = _of_matmul(node, inputs[0], before[0])
        elif node.op is Op.EXP_SUMS:
            of_pair = before[0].unsqueeze(-2) + before[0].unsqueeze(-1)
            carried = (of_pair * _squared_exponentials(inputs[0])).sum(-1)
        else:
            carried = _carried(node, parameters, *before)
        if node.op is Op.RELU:
            carried = torch.where(inputs[0] < -_FAR * carried.sqrt(), 0.0, carried)
        added = _added(node, parameters, inputs, values[node.name])
        variances[node.name] = _finite(carried + unit**2 * added)
    return values[graph.output].flatten(1), variances[graph.output].flatten(1).sqrt()


def _finite(variance: Tensor) -> Tensor:
    """What has overflowed is no reason to accept more."""
    return variance.nan_to_num(nan=0.0, posinf=_LARGEST)


def _of_function(node: Node, x: Tensor, variance: Tensor) -> Tensor:
    """From how far the value moves as the argument does, over a jump too, if one is near."""
    f = function_of(node)
    here, reach = f.value(x), _REACH * variance.sqrt()
    moved = [(f.value(x + way * reach) - here).abs().nan_to_num(0.0) for way in (-1, 1)]
    return (torch.maximum(*moved) / _REACH) ** 2


def _of_matmul(node: Node, x: Tensor, variance: Tensor) -> Tensor:
    """(v + x²) (w + y²) - x² y², where v and w are the variances of x and y."""
    squares, spread = (matrices(node, part) for part in (x**2, variance))
    carried = spread[0] @ (squares[1] + spread[1]) + squares[0] @ spread[1]
    return carried.reshape(-1, *node.shape)


def _squared_exponentials(x: Tensor) -> Tensor:
    """Of all differences but those of a value with itself: [B, groups, count, count]."""
    mine = torch.eye(x.shape[-1], dtype=torch.bool, device=x.device)
    return (2 * differences(x)).exp().masked_fill(mine, 0.0)


def _linear(
    weight: Tensor, bias: Tensor, x: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A product's value, the variance that it carries on, and what its own roundings add.

    A few rows at once, as weights are widened; what meets zeros only, of which lattices are made,
    is left out.
    """
    squares = torch.cat((variance, x**2))
    values, spreads = [], []
    for rows in weight.split(max(1, _WEIGHTS_AT_ONCE // weight.shape[1])):
        used = rows.any(0).nonzero().flatten()
        few = 2 * len(used) < weight.shape[1]
        part = (rows[:, used] if few else rows).double()
        values.append((x[:, used] if few else x) @ part.T)
        spreads.append((squares[:, used] if few else squares) @ (part * part).T)
    value = torch.cat(values, dim=1) + bias.double()
    carried, own = torch.cat(spreads, dim=1).chunk(2)
    return value, carried, (weight.shape[1] + 1) * (own + bias.double() ** 2 + value**2)


def _carried(node: Node, parameters: Mapping[str, Tensor], *variances: Tensor) -> Tensor:
    """The variance of a node's value, from those of its inputs."""
    match node.op:
        case Op.CONV:
            squares = {"weight": parameters["weight"] ** 2}
            return apply(node, squares | {"bias": torch.zeros_like(parameters["bias"])}, *variances)
        case Op.AFFINE:
            return variances[0] * parameters["scale"] ** 2
        case Op.ADD | Op.SUB:
            return variances[0] + variances[1]
        case Op.AVGPOOL:
            return apply(node, parameters, *variances) / _window_size(node)
        case Op.RELU | Op.SIGMOID | Op.TANH:
            return variances[0]  # none is steeper than 1
    return apply(node, parameters, *variances)  # moves values or takes one of them


def _added(
    node: Node, parameters: Mapping[str, Tensor], inputs: list[Tensor], value: Tensor
) -> Tensor | float:
    """What a node's own roundings add, in squared units: each partial sum of n is rounded."""
    squares = inputs[0] ** 2
    match node.op:
        case Op.CONV:
            terms = parameters["weight"][0].numel() + 1
            of_squares = {role: tensor**2 for role, tensor in parameters.items()}
            return terms * (apply(node, of_squares, squares) + value**2)
        case Op.AFFINE:
            none = torch.zeros(())
            # What is computed in float64 with this error is off by as many units in any type.
            scale, shift = (
                parameters[role] ** 2 + (parameters.get(f"{role}_error", none) / _UNIT) ** 2
                for role in ("scale", "shift")
            )
            return squares * scale + shift + value**2
        case Op.ADD | Op.SUB:
            return value**2
        case Op.AVGPOOL:
            return _window_size(node) * apply(node, parameters, squares) + value**2
        case Op.SIGMOID | Op.TANH | Op.SIN | Op.COS:
            return _UNITS_OF_FUNCTIONS**2
        case Op.FUNCTION:
            return (_UNITS_OF_FUNCTIONS * function_of(node).size(inputs[0], value)) ** 2
        case Op.EXP | Op.SQRT | Op.SQUARE | Op.RECIPROCAL | Op.PRODUCT:
            return (_UNITS_OF_FUNCTIONS * value) ** 2
        case Op.MATMUL:
            first, second = matrices(node, squares)
            units = first.shape[-1] + 1 + _UNITS_OF_FUNCTIONS**2
            return units * ((first @ second).reshape(value.shape) + value**2)
        case Op.EXP_SUMS:
            units = value.shape[-1] + 1 + _UNITS_OF_FUNCTIONS**2
            gaps = differences(inputs[0]) ** 2
            return (_squared_exponentials(inputs[0]) * (gaps + units)).sum(-1) + units * value**2
    return 0.0


def _window_size(node: Node) -> int:
    attributes: dict[str, Any] = dict(node.attributes)
    rows, columns = window_of(attributes)[0]
    return int(rows * columns)
