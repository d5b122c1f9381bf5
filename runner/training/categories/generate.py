"""Categories made for an experiment: one random network and one robustness property."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.training.categories.category import (
    Shape,
    robustness_property,
    write_instances,
    write_network,
)
from runner.training.categories.networks import Residual, mlp

OUTPUTS = 10
CANDIDATES = 64
IMAGE = (3, 32, 32)


def random_mlp(inputs: int, width: int, depth: int) -> nn.Sequential:
    """`depth` Linear layers with ReLU between them."""
    return initialised(mlp(inputs, *[width] * (depth - 1), OUTPUTS))


def random_cnn(channels: int) -> nn.Sequential:
    """Two strided convolutions and two Linear layers over images of 3x32x32."""
    return initialised(
        nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * channels * 8 * 8, 128),
            nn.ReLU(),
            nn.Linear(128, OUTPUTS),
        )
    )


def random_resnet(channels: int) -> nn.Sequential:
    """Two residual blocks, the second with a strided shortcut, over images of 3x32x32."""
    return initialised(
        nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            Residual(_block(channels, channels, stride=1), nn.Identity()),
            nn.ReLU(),
            Residual(
                _block(channels, 2 * channels, stride=2),
                nn.Conv2d(channels, 2 * channels, 1, stride=2),
            ),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * channels * 8 * 8, OUTPUTS),
        )
    )


def _block(channels: int, features: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, features, 3, stride=stride, padding=1),
        nn.ReLU(),
        nn.Conv2d(features, features, 3, padding=1),
    )


def initialised(network: nn.Sequential) -> nn.Sequential:
    """He initialisation: variance 2/fan-in keeps the size of activations from layer to layer."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def clear_image(network: nn.Module, shape: Shape) -> tuple[torch.Tensor, int]:
    """Of some random images the one [*shape] with the clearest class, and that class.

    A small box around any other might hold a counterexample, which ends a run before it has
    computed a bound.
    """
    images = torch.rand(CANDIDATES, *shape)
    with torch.no_grad():
        scores, classes = network(images).topk(2, dim=1)
    best = int((scores[:, 0] - scores[:, 1]).argmax())
    return images[best], int(classes[best, 0])


def write_category(
    folder: Path,
    name: str,
    network: nn.Sequential,
    shape: Shape,
    radius: float,
    timeout_s: float,
) -> None:
    """One network and one L∞ property of this radius; `shape`: of one input."""
    image, label = clear_image(network, shape)
    write_network(folder / "onnx" / f"{name}.onnx", network, (1, *shape), OUTPUTS)
    text = robustness_property(image.double().numpy(), label, radius, OUTPUTS)
    (folder / "vnnlib").mkdir(parents=True, exist_ok=True)
    (folder / "vnnlib" / f"{name}.vnnlib").write_text(text, encoding="ascii")
    write_instances(folder, [(f"onnx/{name}.onnx", f"vnnlib/{name}.vnnlib", timeout_s)])


def _network(kind: str, sizes: Sequence[int]) -> tuple[nn.Sequential, Shape]:
    match kind:
        case "mlp":
            return random_mlp(*sizes), (sizes[0],)
        case "cnn":
            return random_cnn(*sizes), IMAGE
        case "resnet":
            return random_resnet(*sizes), IMAGE
    raise ValueError(f"no random network of kind {kind}")


def generate_target(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the category of a `runner.experiments.experiment.Generated`, given as JSON."""
    torch.manual_seed(payload["seed"])
    network, shape = _network(payload["kind"], payload["sizes"])
    write_category(
        Path(payload["folder"]),
        payload["name"],
        network,
        shape,
        payload["radius"],
        payload["timeout_s"],
    )
    return {}
