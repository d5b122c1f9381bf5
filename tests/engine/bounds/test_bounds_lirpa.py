"""Against auto_LiRPA's own bounds: as tight with IBP and CROWN, tighter with α-CROWN."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import SmallNetwork, box_of, cnn, mlp, specs_of
from torch import Tensor, nn

from runner.contract.vocabulary import Method
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.tagging import NoTagger
from runner.engine.layout.block_owners import plan_blocks
from runner.engine.layout.blocked_weights import BlockedWeights
from runner.engine.layout.group import Group
from runner.engine.network.blocks import weights_of
from runner.engine.network.graph import Op
from runner.engine.network.lirpa import lirpa_bounds
from runner.engine.network.load import load_module, prepare
from runner.engine.network.prepared import PreparedWeights
from runner.engine.specs import Specs, box_around
from runner.problem.property.read_property import read_property

CPU = torch.device("cpu")


def layer(network: SmallNetwork, name: str) -> nn.Module:
    """A Linear or Conv node as torch's module."""
    node = network.graph.node(name)
    weight, bias = (network.tensors[node.parameters[role]] for role in ("weight", "bias"))
    if node.op is Op.LINEAR:
        module: nn.Module = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        stride, padding = node.attributes["stride"], node.attributes["padding"]
        shape = (weight.shape[1], weight.shape[0], tuple(weight.shape[2:]))
        module = nn.Conv2d(*shape, stride, padding)  # type: ignore[arg-type]
    module.load_state_dict({"weight": weight, "bias": bias})
    return module


class Residual(nn.Module):
    """What `small_networks.cnn` builds."""

    def __init__(self, network: SmallNetwork) -> None:
        super().__init__()
        names = [n.name for n in network.graph.nodes if n.op in (Op.LINEAR, Op.CONV)]
        self.first, self.inner, self.outer, self.last = (layer(network, name) for name in names)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = (self.outer(self.inner(x).relu()) + x).relu()
        return self.last(x.flatten(1))  # type: ignore[no-any-return]


def module_of(network: SmallNetwork) -> nn.Module:
    if network.graph.node(network.graph.nodes[1].name).op is Op.CONV:
        return Residual(network).requires_grad_(False)
    layers = [
        nn.ReLU() if node.op is Op.RELU else layer(network, node.name)
        for node in network.graph.nodes[1:]
    ]
    return nn.Sequential(*layers).requires_grad_(False)


def ours(network: BoundNetwork, box: Interval, specs: Tensor, method: Method) -> Tensor:
    propagator = Propagator(network, Settings(method))
    return propagator.spec_bounds(propagator.bound(box), specs)[:, 0]


@pytest.mark.parametrize("radius", [0.05, 0.5])
@pytest.mark.parametrize("make", [cnn, lambda: mlp(6, 16, 16, 4)], ids=["cnn", "mlp"])
def test_ibp_is_equal_and_crown_as_tight(make: object, radius: float) -> None:
    """CROWN's intermediate bounds are intersected with IBP's here, and not in auto_LiRPA."""
    network: SmallNetwork = make()  # type: ignore[operator]
    module, box, specs = module_of(network), box_of(network, radius), specs_of(network, 6)
    torch.testing.assert_close(module(box.centre), network.outputs(box.centre))
    for method in (Method.IBP, Method.CROWN):
        found = ours(network.bound(), box, specs, method)
        theirs = lirpa_bounds(module, box.lower[0], box.upper[0], specs, method)
        assert (found >= theirs - 1e-3 * (1 + theirs.abs())).all()
        rounding = 1e-4 if method is Method.IBP else 0.1
        torch.testing.assert_close(found, theirs, rtol=rounding, atol=rounding)


# Worst lower bound of prop_1_0.03 by auto_LiRPA 0.7.1's joint α-CROWN.
JOINT_ALPHA_CROWN = {"256x2": -1.689, "256x4": -2.348, "256x6": -391.3}


@pytest.mark.parametrize("size", JOINT_ALPHA_CROWN)
def test_alpha_crown_is_tighter_on_mnist_fc(size: str, vnncomp2022: Path, tmp_path: Path) -> None:
    category = vnncomp2022 / "benchmarks" / "mnist_fc"
    path = category / "onnx" / f"mnist-net_{size}.onnx.gz"
    (properties,) = list((category / "vnnlib").glob("prop_1_0.03.vnnlib*"))
    graph = prepare(path, tmp_path / "prepared")
    source = PreparedWeights(tmp_path / "prepared")
    plan = plan_blocks(weights_of(graph, source.shape), 1)
    network = BoundNetwork(graph, BlockedWeights(graph, source, plan, Group(), CPU, NoTagger()))
    case = read_property(properties).cases[0]
    box, specs = box_around(case, graph.input.shape, CPU), Specs.of(case, CPU)
    found = ours(network, box, specs.rows.float(), Method.ALPHA_CROWN) - specs.thresholds
    assert found.min() >= JOINT_ALPHA_CROWN[size]
    if size == "256x2":
        module = load_module(path).module
        for method in (Method.IBP, Method.CROWN):
            mine = ours(network, box, specs.rows.float(), method)
            theirs = lirpa_bounds(module, box.lower[0], box.upper[0], specs.rows.float(), method)
            assert (mine >= theirs - 1e-3 * (1 + theirs.abs())).all()
