"""Remakes the embedded categories: `python scripts/train_benchmarks.py [FOLDER]`.

Trains small networks on scikit-learn's digits, and a controller on a rule for following a car,
and writes networks, properties and `instances.csv` of each category. One seed, one thread: the
same versions on the same kind of processor write the same files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from car_following import PROPERTIES, RANGES, situations
from sklearn.datasets import load_digits
from torch import nn

from runner.training.categories.category import (
    Shape,
    robustness_property,
    write_instances,
    write_network,
)
from runner.training.categories.networks import cnn, mlp, resnet

SEED = 1
CLASSES = 10
BATCH = 128
TIMEOUT_S = 60
WEIGHT_LEVELS = 15  # of each sign

log = logging.getLogger("train_benchmarks")


@dataclass(frozen=True)
class DigitsCategory:
    """Every network against every image and L∞ radius.

    inputs: shape of one input; networks: file name to untrained network; images: indices into
    scikit-learn's digits; rounded: whether weights are rounded, so that gzip makes them small.
    """

    inputs: Shape
    networks: Mapping[str, nn.Module]
    images: tuple[int, ...]
    radii: tuple[float, ...]
    rounded: bool = False


def digits_categories() -> dict[str, DigitsCategory]:
    return {
        "digits_mlp": DigitsCategory(
            (1, 64),
            {
                "mlp_2x64.onnx": mlp(64, 64, 64, CLASSES),
                "mlp_4x48.onnx": mlp(64, 48, 48, 48, 48, CLASSES),
            },
            images=(0, 10, 20),
            radii=(0.04, 0.08, 0.11, 0.15),
        ),
        "digits_cnn": DigitsCategory(
            (1, 1, 8, 8),
            {"cnn.onnx": cnn(CLASSES)},
            images=(15, 20, 25),
            radii=(0.05, 0.11, 0.15),
        ),
        "digits_resnet": DigitsCategory(
            (1, 1, 8, 8),
            {"resnet.onnx": resnet(CLASSES)},
            images=(30, 35),
            radii=(0.02, 0.035, 0.12),
        ),
        "digits_wide": DigitsCategory(
            (1, 64),
            {"wide_2x1024.onnx.gz": mlp(64, 1024, 1024, CLASSES)},
            images=(40, 45),
            radii=(0.04, 0.06, 0.15),
            rounded=True,
        ),
    }


def digits(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [1797, *shape without batch] with pixels in [0, 1], and their digits [1797]."""
    data = load_digits()
    images = torch.tensor(data.data / 16, dtype=torch.float32)
    return images.reshape(-1, *shape[1:]), torch.tensor(data.target)


def is_test(number: int) -> torch.Tensor:
    """Every fifth image is kept for testing."""
    return torch.arange(number) % 5 == 0


def train(
    network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, epochs: int, noise: float
) -> None:
    """Adam with weight decay; `noise` (standard deviation) makes networks robust enough that
    some properties hold."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    network.train()
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(inputs)), BATCH):
            noisy = inputs[batch] + noise * torch.randn_like(inputs[batch])
            loss = nn.functional.cross_entropy(network(noisy), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()
    network.eval()


def round_weights(network: nn.Module) -> None:
    """Rounds each weight to a multiple of a power of two, WEIGHT_LEVELS of each sign at most."""
    with torch.no_grad():
        for parameter in network.parameters():
            step = 2.0 ** torch.ceil(torch.log2(parameter.abs().max() / WEIGHT_LEVELS))
            parameter.copy_(torch.round(parameter / step) * step)


def accuracy(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return float((network(inputs).argmax(1) == labels).float().mean())


def write_category(folder: Path, networks: Iterable[str], properties: Mapping[str, str]) -> None:
    """Writes the properties, and an instance of each with each network."""
    (folder / "vnnlib").mkdir(parents=True, exist_ok=True)
    for name, text in properties.items():
        (folder / "vnnlib" / name).write_text(text, encoding="ascii")
    rows = [(f"onnx/{n}", f"vnnlib/{p}", TIMEOUT_S) for n in networks for p in properties]
    write_instances(folder, rows)


def make_digits(folder: Path, category: DigitsCategory) -> None:
    images, labels = digits(category.inputs)
    test = is_test(len(images))
    for name, network in category.networks.items():
        train(network, images[~test], labels[~test], epochs=80, noise=0.1)
        if category.rounded:
            round_weights(network)
        write_network(folder / "onnx" / name, network, category.inputs, CLASSES)
        right = accuracy(network, images[test], labels[test])
        log.info("%s: %.3f of the test images are classified right", name, right)
    properties = {
        f"image_{i}_radius_{radius}.vnnlib": robustness_property(
            images[i].double().numpy(), int(labels[i]), radius, CLASSES
        )
        for i in category.images
        for radius in category.radii
    }
    write_category(folder, category.networks, properties)


def make_car_following(folder: Path) -> None:
    name = "controller.onnx"
    network = mlp(len(RANGES), 32, 32, 32, 3)
    train(network, *situations(20_000), epochs=40, noise=0.0)
    write_network(folder / "onnx" / name, network, (1, len(RANGES)), 3)
    right = accuracy(network, *situations(5_000))
    log.info("%s: %.3f of new situations are advised right", name, right)
    write_category(folder, [name], {f"{key}.vnnlib": text for key, text in PROPERTIES.items()})


def main(
    folder: Annotated[Path, typer.Argument(help="Where the category folders go.")] = Path(
        __file__
    ).parent.parent
    / "benchmarks",
) -> None:
    """Train the networks of the embedded categories and write the categories."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    for name, category in digits_categories().items():
        make_digits(folder / name, category)
    make_car_following(folder / "car_following")


if __name__ == "__main__":
    typer.run(main)
