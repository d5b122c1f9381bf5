"""Which rank this process is, and of how many: what torchrun or the rank server told it.

No torch.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause

_REMEDY = "start ranks with torchrun, which sets both"


class World(NamedTuple):
    """Rank `rank` of `size`, counted from 0."""

    rank: int
    size: int


def world() -> World:
    """Of RANK and WORLD_SIZE; one rank alone where neither is set.

    Raises InstanceError GANG_MISMATCH for what cannot be a rank of a gang.
    """
    told = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE")}
    if told == dict.fromkeys(told):
        return World(0, 1)
    written = ", ".join(f"{name} is {value or 'not set'}" for name, value in told.items())
    try:
        rank, size = (int(value or "") for value in told.values())
    except ValueError:
        message = f"{written}: both must be numbers; {_REMEDY}"
        raise InstanceError(Cause.GANG_MISMATCH, message) from None
    if not 0 <= rank < size:
        message = f"{written}: ranks count from 0 to WORLD_SIZE - 1; {_REMEDY}"
        raise InstanceError(Cause.GANG_MISMATCH, message)
    return World(rank, size)
