"""onnx2torch, which reads ONNX in a way of its own, computes what the bound graph does."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from runner.engine.network.evaluate import evaluate
from runner.engine.network.load import load_graph

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
NETWORKS = sorted(path for path in BENCHMARKS.glob("*/onnx/*.onnx*"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: f"{path.parts[-3]} {path.stem}")
def test_both_compute_the_same(path: Path) -> None:
    import onnx2torch  # takes seconds, of all tests that are collected

    loaded = load_graph(path)
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    module = onnx2torch.convert(onnx.load_model_from_string(content)).eval()
    generator = np.random.default_rng(0)
    for _ in range(3):
        x = torch.from_numpy(generator.uniform(size=(1, *loaded.graph.input.shape)))
        ours = evaluate(loaded.graph, loaded.tensors, x.float())
        with torch.no_grad():
            theirs = module(x.float()).reshape(1, -1)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
