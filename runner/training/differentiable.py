"""Differentiable bounds for training: interval bounds, and CROWN over interval bounds (CROWN-IBP).

They are sound in real arithmetic and are not charged for rounding: nothing is proved by them, the
verifier proves. They are our own: auto_LiRPA's are equal and no faster (docs/training.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from runner.training.categories.networks import Residual


class Bound(StrEnum):
    """How margins are bounded."""

    IBP = "ibp"
    CROWN_IBP = "crown-ibp"


@dataclass(frozen=True)
class Box:
    """Values between `lower` and `upper`, both [B, *shape]."""

    lower: Tensor
    upper: Tensor


# What each layer (not Sequential nor Residual) was given.
Inputs = dict[nn.Module, Box]


def ball(images: Tensor, radius: float) -> Box:
    """Pixels within `radius` (L∞) and in [0, 1]."""
    return Box((images - radius).clamp(0, 1), (images + radius).clamp(0, 1))


def interval(module: nn.Module, box: Box, inputs: Inputs) -> Box:
    """Interval bounds of the module's output; what every layer was given goes to `inputs`."""
    match module:
        case nn.Sequential():
            for layer in module:
                box = interval(layer, box, inputs)
            return box
        case Residual():
            body, shortcut = (interval(m, box, inputs) for m in (module.body, module.shortcut))
            return Box(body.lower + shortcut.lower, body.upper + shortcut.upper)
    inputs[module] = box
    match module:
        case nn.Linear() | nn.Conv2d():
            centre, spread = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
            middle, reach = module(centre), _product(module, spread)
            return Box(middle - reach, middle + reach)
        case nn.ReLU() | nn.Flatten() | nn.Identity():  # they keep order
            return Box(module(box.lower), module(box.upper))
    raise TypeError(f"no interval bounds are known for {type(module).__name__}")


def relu_boxes(network: nn.Module, images: Tensor, radius: float) -> list[Box]:
    """Interval bounds of what each ReLU is given, in order."""
    inputs: Inputs = {}
    interval(network, ball(images, radius), inputs)
    return [box for module, box in inputs.items() if isinstance(module, nn.ReLU)]


def margins(
    network: nn.Module, images: Tensor, labels: Tensor, radius: float, bound: Bound
) -> Tensor:
    """Lower bounds [B, classes] of the label's output less each output, over the ball; 0 at the
    label itself. IBP leaves no interval before the last layer: its rows are multiplied in first.
    """
    box = ball(images, radius)
    inputs: Inputs = {}
    output = interval(network, box, inputs).lower
    rows = _differences(labels, output)
    if bound is Bound.IBP:
        last = list(inputs)[-1]
        if isinstance(last, nn.Linear):
            coefficients, constant = _backward(last, rows, inputs)
            return constant + least(coefficients, inputs[last])
        raise TypeError("a network must end in a Linear layer")
    coefficients, constant = _backward(network, rows, inputs)
    return constant + least(coefficients, box)


def least(coefficients: Tensor, box: Box) -> Tensor:
    """The least [B, S] of linear functions [B, S, *shape] over the box."""
    centre, spread = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
    flat = coefficients.flatten(2)
    at_centre = (flat @ centre.flatten(1)[..., None])[..., 0]
    return at_centre - (flat.abs() @ spread.flatten(1)[..., None])[..., 0]


def _differences(labels: Tensor, output: Tensor) -> Tensor:
    """[B, classes, classes]: row j takes the label's output less output j."""
    one = torch.eye(output.shape[1], dtype=output.dtype)
    return one[labels][:, None] - one


def _product(layer: nn.Linear | nn.Conv2d, spread: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(spread, layer.weight.abs())
    return torch.conv2d(spread, layer.weight.abs(), None, layer.stride, _padding(layer))


def _backward(module: nn.Module, rows: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Lower lines: rows @ module(x) >= coefficients @ x + constant for x in the module's box."""
    match module:
        case nn.Sequential():
            constant = rows.new_zeros(rows.shape[:2])
            for layer in reversed(module):
                rows, more = _backward(layer, rows, inputs)
                constant = constant + more
            return rows, constant
        case Residual():
            body, first = _backward(module.body, rows, inputs)
            shortcut, second = _backward(module.shortcut, rows, inputs)
            return body + shortcut, first + second
        case nn.Linear():
            return rows @ module.weight, rows @ module.bias
        case nn.Conv2d():
            return _through_conv(module, rows, inputs[module].lower.shape[1:])
        case nn.ReLU():
            return _through_relu(rows, inputs[module])
        case nn.Flatten() | nn.Identity():
            shape = inputs[module].lower.shape[1:]
            return rows.reshape(*rows.shape[:2], *shape), rows.new_zeros(rows.shape[:2])
    raise TypeError(f"no linear bounds are known for {type(module).__name__}")


def _through_relu(rows: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """CROWN's lines: above through both ends; below 0 or x, whichever leaves less area."""
    lower, upper = box.lower, box.upper
    above = upper.clamp(min=0) / (upper.clamp(min=0) - lower.clamp(max=0)).clamp(min=1e-12)
    offset = above * -lower.clamp(max=0)
    below = torch.where(lower >= 0, 1.0, torch.where(upper + lower > 0, 1.0, 0.0))
    below = torch.where(upper <= 0, 0.0, below)
    positive, negative = rows.clamp(min=0), rows.clamp(max=0)
    constant = (negative.flatten(2) @ offset.flatten(1)[..., None])[..., 0]
    return positive * below[:, None] + negative * above[:, None], constant


def _through_conv(layer: nn.Conv2d, rows: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    grid = rows.flatten(0, 1)
    into = conv2d_input((len(grid), *shape), layer.weight, grid, layer.stride, _padding(layer))
    bias = layer.bias if layer.bias is not None else layer.weight.new_zeros(len(layer.weight))
    return into.reshape(*rows.shape[:2], *shape), rows.sum((-1, -2)) @ bias


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    if not isinstance(layer.padding, tuple):
        raise TypeError("padding by name has no bounds here")
    return layer.padding
