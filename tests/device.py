"""Where tests that can run anywhere run: TEST_DEVICE=cuda takes them to a GPU."""

from __future__ import annotations

import os

import torch

from runner.contract.vocabulary import Device

DEVICE = Device(os.environ.get("TEST_DEVICE", "cpu"))
# All ranks of a gang share the first GPU, as on the machines that have one.
TORCH_DEVICE = torch.device("cuda", 0) if DEVICE is Device.CUDA else torch.device("cpu")
