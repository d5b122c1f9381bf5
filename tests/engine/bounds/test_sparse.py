"""Weights that are nearly all zeros: products skip the zeros, and say the same."""

from __future__ import annotations

import pytest
import torch
from small_networks import Builder, box_of, lattice
from sound_bounds import assert_sound
from torch import Tensor

from runner.engine.bounds.affine import LinearMap
from runner.engine.bounds.sparse import SparseBlocks
from runner.engine.layout.sharded_affine import HeldWeights
from runner.engine.network.graph import Node

INPUTS, OUTPUTS = 200, 300


def weight_with(values: int) -> Tensor:
    """So many values at random places are not 0."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(OUTPUTS * INPUTS)
    at = torch.randperm(len(weight), generator=generator)[:values]
    weight[at] = torch.randn(values, generator=generator)
    return weight.reshape(OUTPUTS, INPUTS)


def held(weight: Tensor) -> LinearMap:
    builder = Builder((INPUTS,))
    builder.linear_of("x", weight, torch.zeros(OUTPUTS))
    node: Node = builder.network().graph.nodes[1]
    tensors = {node.parameters["weight"]: weight, node.parameters["bias"]: torch.zeros(OUTPUTS)}
    return LinearMap(node, (INPUTS,), HeldWeights(tensors))


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_those_of_the_dense_weight(dtype: torch.dtype, count: int) -> None:
    weight = weight_with(500)
    assert SparseBlocks().of(0, weight) is not None
    affine, dense = held(weight), weight.to(dtype)
    x, rows = torch.randn(count, INPUTS, dtype=dtype), torch.randn(count, OUTPUTS, dtype=dtype)
    some = torch.tensor([3, 3, 150])
    for found, expected in (
        (affine.apply(x), x @ dense.T),
        (affine.transpose(rows), rows @ dense),
        (affine.magnitude(x.abs()), x.abs() @ dense.abs().T),
        (affine.start_rows(some, dtype), dense[some]),
    ):
        assert found.dtype is dtype
        assert found.layout is torch.strided
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_block_is_looked_at_once_and_takes_little_beside_the_dense_one() -> None:
    blocks, weight = SparseBlocks(), weight_with(500)
    sparse = blocks.of(0, weight)
    assert sparse is not None
    assert blocks.of(0, weight) is sparse
    parts = [
        part
        for copy in (sparse.across, sparse.down)
        for part in (copy.crow_indices(), copy.col_indices(), copy.values())
    ]
    assert sum(part.nbytes for part in parts) <= weight.nbytes / 8


def test_what_is_not_nearly_all_zeros_is_multiplied_as_it_is() -> None:
    assert SparseBlocks().of(0, weight_with(3000)) is None
    assert SparseBlocks().of(0, torch.zeros(100, 100)) is None


def test_bounds_through_such_weights_hold() -> None:
    network = lattice(512)
    weights = [tensor for tensor in network.tensors.values() if tensor.dim() == 2]
    assert any(SparseBlocks().of(0, weight) is not None for weight in weights)
    assert_sound(network, box_of(network, 0.3), torch.float32)
