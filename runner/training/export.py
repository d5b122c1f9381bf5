"""The networks of a recipe as one VNN-COMP category, and what is told of each of them."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import nn

from runner.contract.errors import UsageError
from runner.problem.onnx_runtime import OnnxRuntime
from runner.training.attack import misled
from runner.training.categories.category import (
    robustness_property,
    write_instances,
    write_network,
)
from runner.training.data import CLASSES, DataSet
from runner.training.loop import accuracy, generator
from runner.training.recipe import Recipe, Wanted
from runner.training.saved import EpochProgress, load
from runner.training.stage import Batch

ATTACKED = 1000  # test images whose robustness to PGD is told
STEPS, RESTARTS = 40, 2


@dataclass(frozen=True)
class Figures:
    """A row of networks.csv. `images`: of the category, right or not. Accuracies are shares of the
    test part; PGD's is at `radius`.
    """

    network: str
    method: str
    seed: int
    radius: float
    images: int
    clean_accuracy: float
    pgd_accuracy: float
    training_s: float
    training_peak_bytes: int
    epochs: int


@dataclass(frozen=True)
class Trained:
    """A network with its weights, and what its training took."""

    wanted: Wanted
    network: nn.Sequential
    progress: EpochProgress
    shape: tuple[int, ...]


def trained(wanted: Wanted, data: DataSet, checkpoint: Path) -> Trained:
    """Raises UsageError for a training that has not come to its end."""
    side = data.images.shape[-1]
    network = wanted.architecture.network(side, wanted.seed)
    progress = load(checkpoint, wanted.digest, network)
    if not progress.done:
        raise UsageError(f"{checkpoint} is not finished; run `train` again, which goes on")
    return Trained(wanted, network.eval(), progress, wanted.architecture.shape(side))


def write_category(
    recipe: Recipe, networks: Sequence[Trained], data: DataSet, folder: Path
) -> None:
    """An instance for each network, radius and chosen image that the network classifies right.

    Nothing of an earlier one stays. The same recipe gives the same bytes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    chosen = images_of_every_class(data, recipe.category.images)
    (folder / "vnnlib").mkdir(parents=True)
    rows, used = [], set()
    for made in networks:
        file = folder / "onnx" / f"{made.wanted.name}.onnx"
        write_network(file, made.network, (1, *made.shape), CLASSES)
        runtime = OnnxRuntime(file)
        for image in chosen:
            answers = runtime.run(data.images[image].numpy())
            if int(answers.argmax()) == int(data.labels[image]):
                names = [property_name(image, radius) for radius in recipe.category.radii]
                used.update(names)
                timeout = recipe.category.timeout
                rows += [(f"onnx/{file.name}", f"vnnlib/{name}", timeout) for name in names]
    for image in chosen:
        for radius in recipe.category.radii:
            name = property_name(image, radius)
            if name in used:
                pixels, label = data.images[image].double().numpy(), int(data.labels[image])
                text = robustness_property(pixels, label, radius, CLASSES)
                (folder / "vnnlib" / name).write_text(text, encoding="ascii")
    write_instances(folder, rows)


def property_name(image: int, radius: float) -> str:
    return f"image_{image}_radius_{radius:g}.vnnlib"


def images_of_every_class(data: DataSet, count: int) -> list[int]:
    """The first `count` test images of each class, in the order of the data.

    Raises UsageError if there are not so many.
    """
    chosen: list[int] = []
    for label in range(CLASSES):
        of_class = data.test[data.labels[data.test] == label]
        if len(of_class) < count:
            raise UsageError(f"category.images = {count}: class {label} has {len(of_class)}")
        chosen += of_class[:count].tolist()
    return sorted(chosen)


def figures(recipe: Recipe, networks: Sequence[Trained], data: DataSet) -> str:
    """CSV, a row for each network and radius: its training, and its answers on the test part."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Figures)], lineterminator="\n")
    table.writeheader()
    for made in networks:
        table.writerows(asdict(row) for row in _figures(recipe, made, data))
    return text.getvalue()


def _figures(recipe: Recipe, made: Trained, data: DataSet) -> Iterator[Figures]:
    test = data.batch(data.test, made.shape)
    clean = accuracy(made.network, test)
    few = Batch(test.images[:ATTACKED], test.labels[:ATTACKED])
    for radius in recipe.category.radii:
        found, _ = misled(
            made.network,
            few.images,
            few.labels,
            radius,
            steps=STEPS,
            restarts=RESTARTS,
            generator=generator(made.wanted.seed, 1),
        )
        yield Figures(
            network=made.wanted.name,
            method=made.wanted.label,
            seed=made.wanted.seed,
            radius=radius,
            images=recipe.category.images * CLASSES,
            clean_accuracy=clean,
            pgd_accuracy=1 - float(found.float().mean()),
            training_s=made.progress.seconds,
            training_peak_bytes=made.progress.peak_bytes,
            epochs=made.progress.epoch,
        )


def attacked(
    recipe: Recipe, made: Trained, data: DataSet, *, steps: int, restarts: int
) -> list[str]:
    """Names of the properties that PGD, apart from the verifier's, finds a violation of."""
    chosen = torch.tensor(images_of_every_class(data, recipe.category.images))
    images = data.batch(chosen, made.shape)
    broken = []
    for radius in recipe.category.radii:
        found, _ = misled(
            made.network,
            images.images,
            images.labels,
            radius,
            steps=steps,
            restarts=restarts,
            generator=generator(made.wanted.seed, 2),
        )
        broken += [property_name(int(image), radius) for image in chosen[found]]
    return broken
