"""Writes a category with one random wide MLP: `python scripts/wide_mlp.py FOLDER --width 4096`.

The weights dominate its memory, which makes it the instance on which to measure how a strategy
spreads them over ranks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from category import robustness_property, write_instances, write_network
from networks import mlp
from torch import nn

OUTPUTS = 10
CANDIDATES = 64


def random_mlp(inputs: int, width: int, depth: int) -> nn.Sequential:
    """`depth` Linear layers with ReLU between them, He initialisation, biases 0.

    Variance 2/fan-in keeps the size of activations the same from layer to layer.
    """
    network = mlp(inputs, *[width] * (depth - 1), OUTPUTS)
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network


def clear_image(network: nn.Module, inputs: int) -> tuple[torch.Tensor, int]:
    """Of some random images [inputs] the one with the clearest class, and that class.

    A small box around any other might hold a counterexample, which ends a run before it has
    computed a bound.
    """
    images = torch.rand(CANDIDATES, inputs)
    with torch.no_grad():
        scores, classes = network(images).topk(2, dim=1)
    best = int((scores[:, 0] - scores[:, 1]).argmax())
    return images[best], int(classes[best, 0])


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write the category.")],
    width: Annotated[int, typer.Option(min=1, help="Neurons of a hidden layer.")] = 4096,
    depth: Annotated[int, typer.Option(min=1, help="Linear layers.")] = 8,
    inputs: Annotated[int, typer.Option(min=1, help="Input variables.")] = 784,
    radius: Annotated[float, typer.Option(min=0, help="L∞ radius of the input box.")] = 5e-4,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for the instance.")] = 600,
    seed: Annotated[int, typer.Option(help="Of the weights and of the image.")] = 0,
) -> None:
    """Write a category with one random wide MLP and one robustness property."""
    torch.manual_seed(seed)
    network = random_mlp(inputs, width, depth)
    image, label = clear_image(network, inputs)
    name = f"wide_{depth}x{width}"
    write_network(folder / "onnx" / f"{name}.onnx", network, (1, inputs), OUTPUTS)
    text = robustness_property(image.double().numpy(), label, radius, OUTPUTS)
    (folder / "vnnlib").mkdir(parents=True, exist_ok=True)
    (folder / "vnnlib" / f"{name}.vnnlib").write_text(text, encoding="ascii")
    write_instances(folder, [(f"onnx/{name}.onnx", f"vnnlib/{name}.vnnlib", timeout)])


if __name__ == "__main__":
    typer.run(main)
