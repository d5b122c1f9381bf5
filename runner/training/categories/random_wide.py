"""The wide network of the default run: drawn from a seed, the same bytes on every machine.

Its weights are most of what a rank holds, so it shows what sharding them is for. 48 MiB are not
worth storing: scripts/random_wide.py writes it in a second.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from runner.training.categories.category import (
    robustness_property,
    write_instances,
    write_network,
)
from runner.training.categories.generate import clear_image
from runner.training.categories.networks import mlp

SEED = 1
INPUTS, WIDTH, HIDDEN, OUTPUTS = 64, 2048, 4, 2
# Of He's scale. Layers of less spread a box less: bounds of few neurons need rows of A.
GAIN = 0.25
RADIUS = 2e-5
TIMEOUT_S = 60
NAME = f"random_{HIDDEN}x{WIDTH}"


def random_wide() -> nn.Sequential:
    """Weights and biases are uniform, biases in [-1, 1)."""
    network = mlp(INPUTS, *[WIDTH] * HIDDEN, OUTPUTS)
    bits = np.random.PCG64(SEED)
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Linear):
                limit = GAIN * math.sqrt(6 / layer.in_features)
                layer.weight.copy_(_uniform(bits, layer.weight) * limit)
                layer.bias.copy_(_uniform(bits, layer.bias))
    return network


def _uniform(bits: np.random.PCG64, like: torch.Tensor) -> torch.Tensor:
    """In [-1, 1), of 16 bits each: raw words, which no version of NumPy changes and no processor
    rounds.
    """
    words = bits.random_raw(-(-like.numel() // 4)).astype("<u8")
    values = words.view("<i2")[: like.numel()].astype(np.float32) / 2**15
    return torch.from_numpy(values).reshape(like.shape)


def write_random_wide(folder: Path) -> None:
    """The network, one property and instances.csv. The network gets its name when it is whole."""
    network = random_wide()
    torch.manual_seed(SEED)
    image, label = clear_image(network, (INPUTS,))
    text = robustness_property(image.double().numpy(), label, RADIUS, OUTPUTS)
    (folder / "vnnlib").mkdir(parents=True, exist_ok=True)
    (folder / "vnnlib" / f"{NAME}.vnnlib").write_text(text, encoding="ascii")
    write_instances(folder, [(f"onnx/{NAME}.onnx", f"vnnlib/{NAME}.vnnlib", TIMEOUT_S)])
    unfinished = folder / "onnx" / f"{NAME}.{os.getpid()}.part"
    write_network(unfinished, network, (1, INPUTS), OUTPUTS)
    unfinished.replace(unfinished.with_name(f"{NAME}.onnx"))
