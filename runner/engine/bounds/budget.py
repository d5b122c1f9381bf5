"""How much a rank has at work at once: rows of A, domains of a batch, points of an attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# What suits one CPU core and its cache; the sizes that are named beside their use go with it.
CORE_BYTES = 32 * 1024 * 1024
# A GPU has no use for a core's tiles: its products would be over before the next was asked for.
GPU_BYTES = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True)
class Budget:
    """`bytes`: what A, multipliers and what their gradients keep may take at once, roughly.

    More makes fewer and larger products and fewer collectives; less makes lower peaks. It belongs
    to the question, never to P: tiles of another length round otherwise.
    """

    bytes: int = CORE_BYTES

    def scaled(self, of_a_core: int) -> int:
        """As many more, or fewer, as the budget is larger, or smaller, than a core's."""
        return max(1, of_a_core * self.bytes // CORE_BYTES)


CORE = Budget()


def budget_of(device: torch.device, asked_bytes: int | None = None) -> Budget:
    """What was asked for, else what suits the device."""
    if asked_bytes is not None:
        return Budget(asked_bytes)
    return Budget(GPU_BYTES) if device.type == "cuda" else CORE
