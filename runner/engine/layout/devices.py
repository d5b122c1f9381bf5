"""Which device a rank computes on, and over what ranks on it talk."""

from __future__ import annotations

import logging
import os

import torch

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause, Device

GLOO = "gloo"

_log = logging.getLogger(__name__)


def rank_device(device: Device) -> torch.device:
    """The GPU of this rank (by LOCAL_RANK) or the CPU; makes the GPU torch's current one.

    `auto` takes GPUs when every rank of the host has one of its own. With `cuda` ranks beyond that
    share them in turn. Raises InstanceError for `cuda` where torch sees no GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is Device.CPU or (device is Device.AUTO and gpus < _local_world()):
        return torch.device("cpu")
    if gpus == 0:
        raise InstanceError(
            Cause.INTERNAL_ERROR,
            "--device cuda: torch sees no GPU; use --device cpu, or see `vnncomp-runner doctor`",
        )
    if gpus < _local_world():
        _log.warning(
            "%d ranks share %d GPU(s): what each takes of memory is exact, times are of ranks that "
            "wait for each other",
            _local_world(),
            gpus,
        )
    chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % gpus)
    torch.cuda.set_device(chosen)
    return chosen


def backends_for(device: torch.device) -> str:
    """torch.distributed's for tensors on `device`, and for those on the CPU, which are sent too.

    NCCL refuses two ranks on one GPU; gloo takes their tensors through host memory.
    """
    if device.type == "cuda" and _local_world() <= torch.cuda.device_count():
        return "cpu:gloo,cuda:nccl"
    return GLOO


def _local_world() -> int:
    """Ranks on this host, at least 1."""
    size = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or "1"
    return max(1, int(size))
