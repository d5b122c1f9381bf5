"""Shapes of networks that are trained or filled at random."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


class Residual(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.body(x) + self.shortcut(x))


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers from sizes[0] inputs to sizes[-1] outputs, with ReLU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(outputs: int) -> nn.Sequential:
    """Two convolutions and two Linear layers over images of 1x8x8."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, outputs),
    )


def resnet(outputs: int) -> nn.Sequential:
    """One residual block with a plain and one with a strided shortcut, over images of 1x8x8."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Residual(_block(8, 8, stride=1), nn.Identity()),
        nn.ReLU(),
        Residual(_block(8, 12, stride=2), nn.Conv2d(8, 12, 1, stride=2)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, outputs),
    )


def _block(channels: int, features: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, features, 3, stride=stride, padding=1),
        nn.BatchNorm2d(features),
        nn.ReLU(),
        nn.Conv2d(features, features, 3, padding=1),
        nn.BatchNorm2d(features),
    )
