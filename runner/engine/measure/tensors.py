"""What a meter of live tensor bytes on a CPU tells, whichever way it counts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

import torch

from runner.contract.vocabulary import Memory, Meter


@dataclass(slots=True)
class Tally:
    """Bytes that are live now, and the most that were."""

    live: int = 0
    peak: int = 0


class TensorMeter(Protocol):
    """Counts the bytes of tensors that are made while it is entered, until they are gone."""

    name: Meter

    @property
    def total(self) -> Tally:
        """Of all kinds together."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...

    def kind(self, kind: Memory) -> AbstractContextManager[None]:
        """Tensors made inside are `kind`; the innermost counts."""

    def adopt(self, tensor: torch.Tensor, kind: Memory) -> None:
        """Count `tensor` as `kind` from now on, wherever it was made."""

    def live_by_kind(self) -> dict[Memory, int]:
        """Bytes that are live now, of every kind."""

    def peak_by_kind(self) -> dict[Memory, int]:
        """Bytes of every kind at that kind's own peak."""

    def at_peak_by_kind(self) -> dict[Memory, int]:
        """Bytes of every kind when the total was at its peak, which is their sum."""
