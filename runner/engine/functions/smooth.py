"""Functions that bend smoothly, each in one entry of `FAMILIES`."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from runner.engine.functions.family import Bend, Family, Function, of_argument

UP, DOWN, STRAIGHT = Bend.UP, Bend.DOWN, Bend.STRAIGHT


def _log() -> Function:
    return Function(torch.log, torch.reciprocal, (DOWN,), outside=lambda lower, upper: ~(lower > 0))


def _erf() -> Function:
    def derivative(x: Tensor) -> Tensor:
        return 2 / sqrt(pi) * torch.exp(-x.square())

    return Function(torch.erf, derivative, (UP, DOWN), (0.0,), least=-1.0, most=1.0)


def _softplus() -> Function:
    def value(x: Tensor) -> Tensor:
        return torch.logaddexp(x, torch.zeros_like(x))

    return Function(value, torch.sigmoid, (UP,), least=0.0)


def _softsign() -> Function:
    return Function(
        lambda x: x / (1 + x.abs()),
        lambda x: 1 / (1 + x.abs()).square(),
        (UP, DOWN),
        (0.0,),
        least=-1.0,
        most=1.0,
    )


def _elu(alpha: float, steepness: float = 1.0, scale: float = 1.0) -> Function:
    """scale x, and below 0 scale alpha (exp(steepness x) - 1)."""
    bent, depth = scale * alpha * steepness, scale * alpha

    def value(x: Tensor) -> Tensor:
        below = depth * torch.expm1(steepness * x.clamp(max=0))
        return torch.where(x > 0, scale * x, below)

    def derivative(x: Tensor) -> Tensor:
        return torch.where(x > 0, scale, bent * torch.exp(steepness * x.clamp(max=0)))

    def size(x: Tensor, value: Tensor) -> Tensor:
        # The argument of exp is rounded as well; a steep one overflows where that matters.
        return (1 + abs(steepness * x.clamp(max=0))) * (abs(bent) + abs(depth) + value.abs())

    way = UP if bent * steepness > 0 else DOWN
    bends = (way if depth else STRAIGHT, STRAIGHT)
    return Function(value, derivative, bends, (0.0,), turns=(0.0,), size=size)


def _selu(alpha: float, gamma: float) -> Function:
    return _elu(alpha, scale=gamma)


def _celu(alpha: float) -> Function:
    return _elu(alpha, 1 / alpha)


def _mish() -> Function:
    def value(x: Tensor) -> Tensor:
        return x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x)))

    def derivative(x: Tensor) -> Tensor:
        part = torch.tanh(torch.logaddexp(x, torch.zeros_like(x)))
        return part + x * torch.sigmoid(x) * (1 - part.square())

    return Function(
        value,
        derivative,
        (DOWN, UP, DOWN),
        (-2.25637639636079312, 1.4905711794854284593),
        turns=(-1.1924312145154952121,),
        size=of_argument,
    )


def _gelu(approximate: str) -> Function:
    return _gelu_by_tanh() if approximate == "tanh" else _gelu_by_erf()


def _gelu_by_erf() -> Function:
    def share(x: Tensor) -> Tensor:
        return 0.5 + torch.erf(x / sqrt(2)) / 2

    def derivative(x: Tensor) -> Tensor:
        return share(x) + x * torch.exp(-x.square() / 2) / sqrt(2 * pi)

    return Function(
        lambda x: x * share(x),
        derivative,
        (DOWN, UP, DOWN),
        (-sqrt(2), sqrt(2)),
        turns=(-0.75179152469356445746,),
        size=of_argument,
    )


def _gelu_by_tanh() -> Function:
    root, cubic = sqrt(2 / pi), 0.044715

    def value(x: Tensor) -> Tensor:
        return x / 2 * (1 + torch.tanh(root * (x + cubic * x**3)))

    def derivative(x: Tensor) -> Tensor:
        part = torch.tanh(root * (x + cubic * x**3))
        # Where tanh is 1 to the last bit, what it is multiplied with may overflow.
        slope = (root * (1 + 3 * cubic * x.square())).clamp(max=1e200)
        return (1 + part) / 2 + (x / 2).clamp(-1e50, 1e50) * (1 - part.square()) * slope

    return Function(
        value,
        derivative,
        (DOWN, UP, DOWN),
        (-1.4185040087908283555, 1.4185040087908283555),
        turns=(-0.75246142207101625849,),
        size=of_argument,
    )


def _power(exponent: float) -> Function:
    """x to a constant power; negative x only to whole ones."""
    whole, odd = exponent == int(exponent), exponent % 2 == 1
    right = UP if exponent * (exponent - 1) > 0 else DOWN
    left = (DOWN if odd else UP) if whole else right

    def outside(lower: Tensor, upper: Tensor) -> Tensor:
        if exponent < 0:
            return ~((lower > 0) | ((upper < 0) if whole else torch.zeros_like(upper) > 0))
        return ~(lower >= 0) if not whole else torch.zeros_like(lower, dtype=torch.bool)

    return Function(
        lambda x: x**exponent,
        lambda x: exponent * x ** (exponent - 1),
        (left, right),
        (0.0,),
        turns=(0.0,) if exponent > 0 else (),
        outside=outside,
        least=-torch.inf if whole and odd else 0.0,
        size=lambda x, value: (1 + abs(exponent)) * (value.abs() + (x ** (exponent - 1)).abs()),
    )


def _exp() -> Function:
    return Function(torch.exp, torch.exp, (UP,), least=0.0)


def _sigmoid() -> Function:
    def derivative(x: Tensor) -> Tensor:
        return torch.sigmoid(x) * torch.sigmoid(-x)

    return Function(torch.sigmoid, derivative, (UP, DOWN), (0.0,), least=0.0, most=1.0)


def _tanh() -> Function:
    def derivative(x: Tensor) -> Tensor:
        return 1 - torch.tanh(x).square()

    return Function(torch.tanh, derivative, (UP, DOWN), (0.0,), least=-1.0, most=1.0)


FAMILIES = {
    "Celu": Family({"alpha": 1.0}, _celu),
    "Elu": Family({"alpha": 1.0}, _elu),
    "Erf": Family({}, _erf),
    "Gelu": Family({"approximate": "none"}, _gelu),
    "Log": Family({}, _log),
    "Mish": Family({}, _mish),
    "Selu": Family({"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}, _selu),
    "Softplus": Family({}, _softplus),
    "Softsign": Family({}, _softsign),
}
# No operators of ONNX by themselves, or with an `Op` of their own.
INNER = {
    "Exp": Family({}, _exp),
    "Power": Family({"exponent": 1.0}, _power),
    "Sigmoid": Family({}, _sigmoid),
    "Tanh": Family({}, _tanh),
}
