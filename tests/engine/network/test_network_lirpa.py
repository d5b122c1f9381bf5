"""auto_LiRPA runs on today's torch, leaves the process alone, and its failures have a name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_models import constant, node, save

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import BOUNDS, Cause, Method
from runner.engine.network.lirpa import lirpa_bounds
from runner.engine.network.load import load_module
from runner.problem.onnx_runtime import OnnxRuntime

POOL: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}


@pytest.fixture
def network(tmp_path: Path) -> torch.nn.Module:
    nodes = [
        node("Conv", "x k", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f w"),
    ]
    weights: dict[str, Any] = {"k": constant((2, 1, 3, 3)), "w": constant((32, 3), 1)}
    return load_module(save(tmp_path, nodes, (1, 1, 4, 4), (1, 3), **weights)).module


C = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 0.0]])


@pytest.mark.slow
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


def test_a_network_that_auto_lirpa_fails_on_is_unsupported_with_the_remedy(tmp_path: Path) -> None:
    """It takes the sum of two vectors before a ReLU for an image."""
    nodes = [
        node("Gemm", "x w", "h"),
        node("Relu", "h", "r"),
        node("Add", "r h", "s"),
        node("Relu", "s"),
    ]
    module = load_module(save(tmp_path, nodes, (1, 3), (1, 8), w=constant((3, 8)))).module
    box = torch.zeros(3)
    with pytest.raises(InstanceError) as caught:
        lirpa_bounds(module, box - 1, box + 1, torch.eye(8), Method.CROWN, "network.onnx")
    assert caught.value.cause is Cause.UNSUPPORTED_OPERATOR
    assert str(caught.value) == (
        "network.onnx: auto_LiRPA cannot bound this network by crown; use another strategy: "
        "IndexError: tuple index out of range"
    )


def test_bounds_that_do_not_hold_are_none(
    network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto_LiRPA drops attributes of operators that it knows not, and bounds another network."""
    from auto_LiRPA import BoundedModule

    faithful = BoundedModule.compute_bounds

    def too_high(*arguments: object, **options: object) -> tuple[torch.Tensor, None]:
        return faithful(*arguments, **options)[0] + 1000, None

    monkeypatch.setattr(BoundedModule, "compute_bounds", too_high)
    box = torch.zeros(1, 4, 4)
    with pytest.raises(InstanceError, match="its bounds do not hold") as caught:
        lirpa_bounds(network, box - 1, box + 1, C, Method.IBP)
    assert caught.value.cause is Cause.UNSUPPORTED_OPERATOR


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (1, 2)])
def test_batch_normalisation_is_bounded(shape: tuple[int, ...], tmp_path: Path) -> None:
    nodes = [
        node("BatchNormalization", "x s b m v", "n"),
        node("Relu", "n", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f w"),
    ]
    size = int(np.prod(shape))
    statistics: dict[str, Any] = {name: constant((2,), seed) for seed, name in enumerate("sbm")}
    path = save(
        tmp_path, nodes, shape, (1, 3), **statistics, v=np.array([0.5, 2.0]), w=constant((size, 3))
    )
    loaded = load_module(path)
    lower, upper = torch.zeros(shape[1:]) - 0.5, torch.zeros(shape[1:]) + 0.5
    bounds = lirpa_bounds(loaded.module, lower, upper, torch.eye(3), Method.CROWN)
    points = lower + torch.rand(2000, *shape[1:]) * (upper - lower)
    values = loaded.module(points).detach()
    assert (values >= bounds - 1e-5).all()
    expected = OnnxRuntime(path).run(points[0].numpy().reshape(-1))
    np.testing.assert_allclose(values[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_out_of_memory_keeps_its_own_type() -> None:
    class Greedy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.empty(1 << 50).sum()

    with pytest.raises(RuntimeError, match="allocate memory"):
        lirpa_bounds(Greedy(), torch.zeros(3), torch.ones(3), torch.eye(3), Method.IBP)


def test_importing_leaves_warnings_and_logging_alone_and_prints_nothing() -> None:
    code = (
        "import logging, warnings, torch, torch.onnx; before = list(warnings.filters); "
        "import runner.engine.network.lirpa; "
        "assert logging.root.handlers == []; assert warnings.filters == before"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
