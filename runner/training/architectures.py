"""The shapes of networks that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from runner.contract.errors import UsageError
from runner.training.categories.networks import Residual, mlp
from runner.training.data import CLASSES
from runner.training.ranges import within


@dataclass(frozen=True)
class Architecture:
    """`kind`: a name of KINDS. `hidden`, `width`: of an MLP's hidden layers; `width` also is the
    number of channels of a residual network, and a factor of 1/16 of those of the CNNs, whose
    default of 16 is the published size.
    """

    kind: str = "mlp"
    hidden: int = 2
    width: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"unknown kind {self.kind!r}; known: {', '.join(KINDS)}")
        within("hidden", self.hidden, 1, 64)
        within("width", self.width, 0, 65_536)

    def shape(self, side: int) -> tuple[int, ...]:
        """Of one input, of images that are `side` pixels wide and high."""
        return (side * side,) if self.kind == "mlp" else (1, side, side)

    def network(self, side: int, seed: int) -> nn.Sequential:
        """Its initial weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return KINDS[self.kind](self, side)


def _mlp(asked: Architecture, side: int) -> nn.Sequential:
    """Of MNIST-FC's kind."""
    return mlp(side * side, *[asked.width or 256] * asked.hidden, CLASSES)


def _small(asked: Architecture, side: int) -> nn.Sequential:
    """MixTrain's small network."""
    first = asked.width or 16
    return nn.Sequential(
        *_conv(1, first, kernel=4, stride=2),
        *_conv(first, 2 * first, kernel=4, stride=2),
        nn.Flatten(),
        nn.Linear(2 * first * (side // 4) ** 2, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )


def _large(asked: Architecture, side: int) -> nn.Sequential:
    """MixTrain's large network."""
    first = 2 * (asked.width or 16)
    return nn.Sequential(
        *_conv(1, first, kernel=3, stride=1),
        *_conv(first, first, kernel=4, stride=2),
        *_conv(first, 2 * first, kernel=3, stride=1),
        *_conv(2 * first, 2 * first, kernel=4, stride=2),
        nn.Flatten(),
        nn.Linear(2 * first * (side // 4) ** 2, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, CLASSES),
    )


def _resnet(asked: Architecture, side: int) -> nn.Sequential:
    """Two residual blocks, the second with a strided shortcut; no normalisation, whose statistics
    of a batch have no bounds."""
    channels = asked.width or 8
    return nn.Sequential(
        *_conv(1, channels, kernel=4, stride=2),
        Residual(_block(channels, channels, stride=1), nn.Identity()),
        nn.ReLU(),
        Residual(
            _block(channels, 2 * channels, stride=2),
            nn.Conv2d(channels, 2 * channels, 2, stride=2),
        ),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * (side // 4) ** 2, CLASSES),
    )


def _block(channels: int, features: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv(channels, features, kernel=2 + stride, stride=stride),
        nn.Conv2d(features, features, 3, padding=1),
    )


def _conv(channels: int, features: int, kernel: int, stride: int) -> tuple[nn.Conv2d, nn.ReLU]:
    return nn.Conv2d(channels, features, kernel, stride=stride, padding=1), nn.ReLU()


KINDS: dict[str, Callable[[Architecture, int], nn.Sequential]] = {
    "mlp": _mlp,
    "cnn-small": _small,
    "cnn-large": _large,
    "resnet": _resnet,
}
