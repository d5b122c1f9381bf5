"""What the ReLUs of a network are given at a point."""

from __future__ import annotations

from torch import Tensor, nn

from runner.training.categories.networks import Residual


def pre_activations(network: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Of each ReLU in order [B, *shape], and the network's output."""
    seen: list[Tensor] = []
    return seen, _forward(network, x, seen)


def _forward(module: nn.Module, x: Tensor, seen: list[Tensor]) -> Tensor:
    match module:
        case nn.Sequential():
            for layer in module:
                x = _forward(layer, x, seen)
            return x
        case Residual():
            return _forward(module.body, x, seen) + _forward(module.shortcut, x, seen)
        case nn.ReLU():
            seen.append(x)
    output: Tensor = module(x)
    return output
