"""Writes a category with one random wide MLP: `python scripts/wide_mlp.py FOLDER --width 4096`.

The weights dominate its memory, which makes it the instance on which to measure how a strategy
spreads them over ranks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from runner.training.categories.generate import random_mlp, write_category


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
    write_category(folder, f"wide_{depth}x{width}", network, (inputs,), radius, timeout)


if __name__ == "__main__":
    typer.run(main)
