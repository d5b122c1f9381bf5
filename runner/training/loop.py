"""The training of one network: the same seed gives the same weights, whatever interrupts it.

All that is random in an epoch comes from a generator of the seed and the epoch, so that a
training that goes on from a checkpoint draws what it would have drawn.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from time import monotonic, process_time

import torch
from torch import nn

from runner.contract.errors import UsageError
from runner.contract.rss import RssMeter
from runner.training.data import DataSet
from runner.training.recipe import Training, Wanted
from runner.training.saved import EpochProgress, load, save
from runner.training.stage import Batch, Stage

HELD_OUT = 500  # images that a method looks at before an epoch


def train_for(wanted: Wanted, data: DataSet, checkpoint: Path, seconds: float) -> EpochProgress:
    """Goes on from the checkpoint, if there is one, until `seconds` have passed or all is done.

    Whole epochs are trained, at least one. Raises UsageError for a loss that is not finite, and
    for the checkpoint of another recipe.
    """
    start, spent, meter = monotonic(), process_time(), RssMeter()
    asked = wanted.training
    side = data.images.shape[-1]
    network = wanted.architecture.network(side, wanted.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=asked.learning_rate)
    before = EpochProgress(epochs=asked.epochs)
    if checkpoint.exists():
        before = load(checkpoint, wanted.digest, network, optimizer)
    now, shape = before, wanted.architecture.shape(side)
    training = data.batch(data.training[: wanted.data.most or None], shape)
    held_out = data.batch(data.validation, shape)
    while not now.done and (now is before or monotonic() - start < seconds):
        loss = _epoch(wanted, network, optimizer, training, held_out, now.epoch)
        now = replace(now, epoch=now.epoch + 1, loss=loss)
    if now is not before:
        now = replace(
            now,
            accuracy=accuracy(network, held_out),
            seconds=before.seconds + process_time() - spent,
            peak_bytes=max(before.peak_bytes, meter.peak_bytes),
        )
        save(checkpoint, wanted.digest, now, network, optimizer)
    return now


def accuracy(network: nn.Module, batch: Batch) -> float:
    """Share of images that are classified right."""
    parts = zip(batch.images.split(1000), batch.labels.split(1000), strict=True)
    with torch.no_grad():
        right = [(network(images).argmax(1) == labels).sum() for images, labels in parts]
    return int(torch.stack(right).sum()) / len(batch.labels)


def generator(seed: int, *of: int) -> torch.Generator:
    """One for each purpose, told by numbers."""
    mixed = seed
    for number in of:
        mixed = (mixed * 1_000_003 + number + 1) % 2**63
    return torch.Generator().manual_seed(mixed)


def _epoch(
    wanted: Wanted,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: Batch,
    held_out: Batch,
    epoch: int,
) -> float:
    """The mean loss."""
    asked, random = wanted.training, generator(wanted.seed, epoch)
    few = Batch(held_out.images[:HELD_OUT], held_out.labels[:HELD_OUT])
    stage = Stage(epoch, asked.radius, _ramp(asked, epoch), asked.steps, random)
    stage = wanted.method.begin_epoch(network, few, stage)
    total, order = 0.0, torch.randperm(len(training.labels), generator=random)
    for start in range(0, len(order), asked.batch):
        chosen = order[start : start + asked.batch]
        position = epoch + start / len(order)
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(asked, position)
        batch = Batch(training.images[chosen], training.labels[chosen])
        loss = wanted.method.loss(network, batch, replace(stage, ramp=_ramp(asked, position)))
        if not math.isfinite(value := loss.item()):
            raise UsageError(
                f"{wanted.name}: the loss is {value} in epoch {epoch + 1}; lower "
                f"training.learning_rate or the weights of [methods.{wanted.label}]"
            )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += value * len(chosen)
    return total / len(order)


def _learning_rate(asked: Training, position: float) -> float:
    return asked.learning_rate * (1 + math.cos(math.pi * position / asked.epochs)) / 2


def _ramp(asked: Training, position: float) -> float:
    """From 0 to 1 over the first epochs; `position` in epochs."""
    length = asked.ramp * asked.epochs
    return min(1.0, position / length) if length else 1.0
