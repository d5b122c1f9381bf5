"""auto_LiRPA runs on today's torch, leaves the process alone, and its failures have a name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from onnx_models import constant, node, save

from runner.errors import InstanceError
from runner.network.lirpa import bounded_module, lirpa_bounds
from runner.network.load import load_module
from runner.vocabulary import BOUNDS, Cause, Method

POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}


@pytest.fixture
def network(tmp_path: Path) -> torch.nn.Module:
    nodes = [
        node("Conv", "x k", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f w"),
    ]
    weights = {"k": constant((2, 1, 3, 3)), "w": constant((32, 3), 1)}
    return load_module(save(tmp_path, nodes, (1, 1, 4, 4), (1, 3), **weights)).module


C = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 0.0]])


@pytest.mark.parametrize("method", BOUNDS)
def test_bounds_hold_and_tighter_methods_are_tighter(
    method: Method, network: torch.nn.Module
) -> None:
    center = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3))
    lower, upper = center - 0.1, center + 0.1
    bounds = lirpa_bounds(network, lower, upper, C, method)
    assert bounds.shape == (3,)
    points = lower + torch.rand(2000, 1, 4, 4) * (upper - lower)
    assert ((network(points) @ C.T).amin(0) >= bounds - 1e-5).all()
    if method is not Method.IBP:
        assert (bounds >= lirpa_bounds(network, lower, upper, C, Method.IBP) - 1e-5).all()


def test_a_failure_of_auto_lirpa_is_an_internal_error_that_names_it(tmp_path: Path) -> None:
    """Its max pool knows no overlapping windows."""
    nodes = [
        node("Conv", "x k", "c"),
        node("MaxPool", "c", "p", kernel_shape=[3, 3], strides=[1, 1]),
        node("Flatten", "p"),
    ]
    module = load_module(
        save(tmp_path, nodes, (1, 1, 5, 5), (1, 2), k=constant((2, 1, 3, 3)))
    ).module
    box = torch.zeros(1, 5, 5)
    with pytest.raises(InstanceError, match=r"^auto_LiRPA: .*stride") as caught:
        lirpa_bounds(module, box - 1, box + 1, torch.eye(2), Method.CROWN)
    assert caught.value.cause is Cause.INTERNAL_ERROR


def test_an_operator_that_auto_lirpa_does_not_know_is_unsupported() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Hardshrink())
    with pytest.raises(InstanceError, match=r"network\.onnx") as caught:
        bounded_module(module.eval(), torch.zeros(2, 3), "network.onnx")
    assert caught.value.cause is Cause.UNSUPPORTED_OPERATOR


def test_out_of_memory_keeps_its_own_type() -> None:
    class Greedy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.empty(1 << 50).sum()

    with pytest.raises(RuntimeError, match="allocate memory"):
        lirpa_bounds(Greedy(), torch.zeros(3), torch.ones(3), torch.eye(3), Method.IBP)


def test_importing_leaves_warnings_and_logging_alone_and_prints_nothing() -> None:
    code = (
        "import logging, warnings, torch, torch.onnx; before = list(warnings.filters); "
        "import runner.network.lirpa; "
        "assert logging.root.handlers == []; assert warnings.filters == before"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
