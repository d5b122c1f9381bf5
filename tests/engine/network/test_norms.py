"""Values over their own deviation: how large they can be is known from their number alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_models import node, save
from small_networks import SmallNetwork, box_of
from sound_bounds import bounded

from runner.contract.vocabulary import BOUNDS, Method
from runner.engine.network.load import load_graph


@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize(
    ("kind", "scales"), [("LayerNormalization", 4), ("InstanceNormalization", 3)]
)
def test_a_norm_is_bounded_by_the_number_of_its_values(
    kind: str, scales: int, method: Method, tmp_path: Path
) -> None:
    """However near to each other they are, which would divide by next to nothing."""
    path = save(
        tmp_path,
        [node(kind, "x s b")],
        (1, 3, 4),
        (1, 3, 4),
        opset=17,
        s=np.ones(scales),
        b=np.zeros(scales),
    )
    loaded = load_graph(path)
    network = SmallNetwork(loaded.graph, loaded.tensors)
    box = box_of(network, 1.0).to(torch.float64)
    rows = torch.cat((torch.eye(12), -torch.eye(12))).double()
    _, found = bounded(network, box, rows, method)
    assert (found >= -(3**0.5) * (1 + 1e-6)).all()
