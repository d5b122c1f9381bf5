"""A training under way, in one file: whole or not at all."""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.contract.errors import UsageError


@dataclass(frozen=True)
class EpochProgress:
    """How far a training has come. `loss`: mean of the last epoch. `accuracy`: on the validation
    part. `seconds`: of the CPU. `peak_bytes`: of resident memory above the start.
    """

    epoch: int = 0
    epochs: int = 0
    loss: float = float("inf")
    accuracy: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def done(self) -> bool:
        return 0 < self.epochs <= self.epoch


def save(
    path: Path,
    digest: str,
    progress: EpochProgress,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """`digest`: of the recipe's network that this is of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "digest": digest,
        "progress": asdict(progress),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    # Not into the file itself: torch has no word of its own for a disk that is full.
    content = io.BytesIO()
    torch.save(state, content)
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # else it would take the room that its report needs


def load(
    path: Path, digest: str, network: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> EpochProgress:
    """Fills network and optimizer. Raises UsageError for a file that is of another recipe, or that
    cannot be read.
    """
    try:
        # Nothing but tensors and plain values is read: a file cannot run code.
        state: dict[str, Any] = torch.load(path, weights_only=True)
        digest_found, progress = state["digest"], EpochProgress(**state["progress"])
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"{path} cannot be read ({type(error).__name__}); delete it to train anew"
        ) from error
    if digest_found != digest:
        raise UsageError(
            f"{path} is of another recipe: data, architecture, training, method or seed have "
            "changed; choose another --out, or delete it to train anew"
        )
    network.load_state_dict(state["network"])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
    return progress
