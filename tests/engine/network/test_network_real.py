"""Every network of the shared VNN-COMP 2022 categories is prepared and replays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from runner.engine.network.graph import Op
from runner.engine.network.load import prepare

# Networks, and the LINEAR, CONV and RELU nodes of the largest of them.
CATEGORIES = {
    "acasxu": (45, 7, 0, 6),
    "mnist_fc": (3, 7, 0, 6),
    "oval21": (3, 2, 4, 5),
    "reach_prob_density": (3, 4, 0, 3),
    "rl_benchmarks": (3, 3, 0, 2),
    "sri_resnet_a": (1, 2, 10, 8),
    "test": (5, 7, 0, 6),
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_network_prepares(category: str, vnncomp2022: Path, tmp_path: Path) -> None:
    paths = sorted((vnncomp2022 / "benchmarks" / category).rglob("*.onnx*"))
    counts = [
        Counter(node.op for node in prepare(path, tmp_path / "prepared").nodes) for path in paths
    ]
    largest = (max(count[op] for count in counts) for op in (Op.LINEAR, Op.CONV, Op.RELU))
    assert (len(paths), *largest) == CATEGORIES[category]
