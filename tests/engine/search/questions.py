"""Properties and engines for tests of verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from small_networks import CPU, Builder, SmallNetwork
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Method
from runner.engine.attack.interval_steps import IntervalSteps
from runner.engine.bounds.boxes import BoxPropagator
from runner.engine.bounds.budget import CORE
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import Deadline
from runner.engine.exact import excluded_exactly
from runner.engine.finding import Confirmation
from runner.engine.incomplete import Incomplete, TimeShares
from runner.engine.network.graph import Op
from runner.engine.search.sharing import Alike, Sharing
from runner.engine.specs import Room, no_room
from runner.engine.targets import Target
from runner.problem.property.model import Case, Conjunction, Property


def region(matrix: ArrayLike, rhs: ArrayLike, strict: bool = False) -> Conjunction:
    rows = np.array(matrix, dtype=np.float64)
    limits = np.array(rhs, dtype=np.float64)
    return Conjunction(rows, limits, np.full(len(limits), strict))


def anything(outputs: int = 1) -> Conjunction:
    """Without constraints: every output is unsafe."""
    return region(np.zeros((0, outputs)), [])


def case(lower: Sequence[float], upper: Sequence[float], *unsafe: Conjunction) -> Case:
    return Case(np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64), unsafe)


def question(*cases: Case, outputs: int = 1) -> Property:
    return Property(len(cases[0].lower), outputs, cases)


def near_reached(network: SmallNetwork, random: np.random.Generator) -> Property:
    """Disjuncts of one to three rows over a random box, with thresholds near what samples reach."""
    graph = network.graph
    inputs, outputs = graph.input.size, graph.node(graph.output).size
    # In float32, so that a coordinate that cannot vary has a value in its box.
    lower = random.normal(size=inputs).astype(np.float32).astype(np.float64)
    upper = lower + random.uniform(0, 3, size=inputs) * (random.random(inputs) < 0.9)
    x = torch.from_numpy(random.uniform(lower, upper, size=(200, inputs)))
    reached = network.outputs(x).numpy()
    disjuncts = []
    for _ in range(int(random.integers(1, 4))):
        matrix = random.normal(size=(int(random.integers(1, 4)), outputs))
        values = reached @ matrix.T
        nearest = values[values.max(1).argmin()]
        disjuncts.append(region(matrix, nearest + random.normal(size=len(matrix)) * 0.1 - 0.05))
    return question(case(list(lower), list(upper), *disjuncts), outputs=outputs)


def bounded(
    network: SmallNetwork,
    instance: Property,
    method: Method = Method.ALPHA_CROWN,
    row_block: int = 16,
    checkpoint: Callable[[], None] = lambda: None,
    without: frozenset[EnginePart] = frozenset(),
) -> Incomplete:
    """After all methods up to `method`."""
    found = incomplete(network, instance, row_block, checkpoint, without=without)
    found.run(method)
    return found


def incomplete(
    network: SmallNetwork,
    instance: Property,
    row_block: int = 16,
    checkpoint: Callable[[], None] = lambda: None,
    room: Room = no_room,
    shares: TimeShares | None = None,
    without: frozenset[EnginePart] = frozenset(),
) -> Incomplete:
    settings = Settings(row_block=row_block, without=without)
    return Incomplete(
        network.bound(),
        instance,
        CPU,
        settings,
        NoTagger(),
        checkpoint,
        room=room,
        shares=shares,
    )


def identity() -> SmallNetwork:
    """y = x, through a ReLU of x + 10 for x > -10."""
    builder = Builder((1,))
    x = builder.linear_of("x", torch.eye(1), torch.tensor([10.0]))
    x = builder.pointwise(Op.RELU, x)
    return builder.network(builder.linear_of(x, torch.eye(1), torch.tensor([-10.0])))


@dataclass
class DriverStub:
    """The engine of a small network that was never on disk."""

    network: SmallNetwork
    row_block: int = 16
    without: frozenset[EnginePart] = frozenset()

    def __post_init__(self) -> None:
        self._bound: BoundNetwork = self.network.bound()
        self.input_shape = self.network.graph.input.shape
        self.neurons = sum(node.size for node in self.network.graph.nodes)
        self.weight_bytes = 0
        self.budget = CORE
        self.dtype = torch.float32
        self.points: list[Tensor] = []
        self.bounded: Incomplete | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.points.append(x.detach().flatten(1))
        return self._bound.forward(x)

    def exact(self, x: Tensor) -> Tensor:
        return self._bound.forward(x.double())

    def bounding(self, instance: Property, deadline: Deadline, room: Room = no_room) -> Incomplete:
        self.bounded = incomplete(
            self.network, instance, self.row_block, deadline.check, room, without=self.without
        )
        return self.bounded

    def excluded_exactly(self, instance: Property, target: Target) -> bool:
        graph, case = self.network.graph, instance.cases[target.case]
        return excluded_exactly(graph, self.network.source, case, target.disjunct)

    def guide(self, checkpoint: Callable[[], None]) -> IntervalSteps:
        boxes = BoxPropagator(self._bound, NoTagger(), checkpoint)
        return IntervalSteps(boxes, 16, NoTagger())

    def attacking(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        return self.sharing(deadline, confirmation)

    def sharing(self, deadline: Deadline, confirmation: Confirmation) -> Sharing:
        return Alike(deadline.check, confirmation, passed=deadline.passed)


def save_onnx(path: Path, network: SmallNetwork, change: float = 0.0) -> Path:
    """A chain of Linear and ReLU as an ONNX file; `change` is added to its last bias."""
    nodes, constants = [], []
    last = network.graph.node(network.graph.output)
    for node in network.graph.nodes[1:]:
        if node.op is Op.RELU:
            nodes.append(helper.make_node("Relu", node.inputs, [node.name]))
            continue
        names = [node.parameters[role] for role in ("weight", "bias")]
        values = [network.tensors[name].numpy() for name in names]
        values[1] = values[1] + np.float32(change if node is last else 0)
        constants += [numpy_helper.from_array(v, n) for n, v in zip(names, values, strict=True)]
        nodes.append(helper.make_node("Gemm", [*node.inputs, *names], [node.name], transB=1))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, *network.graph.input.shape))],
        [helper.make_tensor_value_info(last.name, TensorProto.FLOAT, (1, *last.shape))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path
