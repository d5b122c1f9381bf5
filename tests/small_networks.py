"""Small bound graphs with random weights, for tests of bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.tagging import NoTagger
from runner.engine.layout.block_owners import plan_blocks
from runner.engine.layout.blocked_weights import BlockedWeights
from runner.engine.layout.group import Group
from runner.engine.network.blocks import weights_of
from runner.engine.network.evaluate import apply, in_dtype
from runner.engine.network.graph import Attribute, Graph, Node, Op
from runner.engine.network.moved import with_pieces

CPU = torch.device("cpu")
Pair = tuple[int, int]


@dataclass(frozen=True)
class MemorySource:
    """The tensors of a network, held in memory."""

    tensors: Mapping[str, Tensor]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        return self.tensors[name][:, start:stop]


@dataclass(frozen=True, repr=False)
class SmallNetwork:
    """A graph and its parameters in float32."""

    graph: Graph
    tensors: Mapping[str, Tensor]

    def __repr__(self) -> str:
        lines = [
            f"{n.name}{n.shape} <- {', '.join(n.inputs)} {n.attributes}" for n in self.graph.nodes
        ]
        return "\n".join(lines)

    def bound(self, group: Group | None = None) -> BoundNetwork:
        return BoundNetwork(self.graph, self.weights(group or Group()))

    @property
    def source(self) -> MemorySource:
        return MemorySource(self.tensors)

    def weights(self, group: Group) -> BlockedWeights:
        plan = plan_blocks(weights_of(self.graph, self.source.shape), group.size)
        return BlockedWeights(self.graph, self.source, plan, group, CPU, NoTagger())

    def values(self, x: Tensor) -> dict[str, Tensor]:
        """Of every node, [B, *shape], in the dtype of x: the plain forward computation."""
        values = {self.graph.input.name: x}
        for node in self.graph.nodes[1:]:
            parameters = {
                role: in_dtype(self.tensors[name], x.dtype)
                for role, name in node.parameters.items()
            }
            values[node.name] = apply(node, parameters, *(values[name] for name in node.inputs))
        return values

    def outputs(self, x: Tensor) -> Tensor:
        return self.values(x)[self.graph.output].flatten(1)


@dataclass
class Builder:
    """Adds nodes one by one; each method gives the name of the node it made."""

    input_shape: tuple[int, ...]
    seed: int = 0
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self.nodes.append(Node("x", Op.INPUT, (), self.input_shape))

    def shape(self, name: str) -> tuple[int, ...]:
        return next(node.shape for node in self.nodes if node.name == name)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def add(
        self,
        op: Op,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        attributes: Mapping[str, Attribute] | None = None,
        **parameters: Tensor,
    ) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.tensors.update({f"{name}.{role}": value for role, value in parameters.items()})
        roles = {role: f"{name}.{role}" for role in parameters}
        self.nodes.append(Node(name, op, inputs, shape, attributes or {}, roles))
        return name

    def linear(self, x: str, outputs: int) -> str:
        (inputs,) = self.shape(x)
        weight = self.random(outputs, inputs) / inputs**0.5
        return self.linear_of(x, weight, self.random(outputs) / 2)

    def linear_of(self, x: str, weight: Tensor, bias: Tensor) -> str:
        return self.add(Op.LINEAR, (x,), (len(weight),), weight=weight, bias=bias)

    def conv(
        self,
        x: str,
        outputs: int,
        kernel: Pair = (3, 3),
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> str:
        channels, *size = self.shape(x)
        reach = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
        shape = (outputs, *_windows(size, reach, stride, padding))
        attributes: dict[str, Attribute] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
        }
        weight = self.random(outputs, channels // groups, *kernel)
        weight = weight / (channels // groups * kernel[0] * kernel[1]) ** 0.5
        bias = self.random(outputs) / 2
        return self.add(Op.CONV, (x,), shape, attributes, weight=weight, bias=bias)

    def pool(self, op: Op, x: str, kernel: Pair, stride: Pair, padding: Pair) -> str:
        channels, *size = self.shape(x)
        attributes: dict[str, Attribute] = {"kernel": kernel, "stride": stride, "padding": padding}
        shape = (channels, *_windows(size, list(kernel), stride, padding))
        return self.add(op, (x,), shape, attributes)

    def affine(self, x: str, *shape: int) -> str:
        """scale * x + shift with parameters of a shape that broadcasts."""
        return self.add(
            Op.AFFINE, (x,), self.shape(x), scale=self.random(*shape), shift=self.random(*shape)
        )

    def pointwise(self, op: Op, *inputs: str) -> str:
        return self.add(op, inputs, self.shape(inputs[0]))

    def reshape(self, x: str, *shape: int) -> str:
        return self.add(Op.RESHAPE, (x,), shape)

    def flatten(self, x: str) -> str:
        return self.reshape(x, torch.Size(self.shape(x)).numel())

    def concat(self, axis: int, *inputs: str) -> str:
        shape = list(self.shape(inputs[0]))
        shape[axis] = sum(self.shape(name)[axis] for name in inputs)
        return self.add(Op.CONCAT, inputs, tuple(shape), {"axis": axis})

    def select(self, x: str, index: Tensor) -> str:
        """The values at flat positions of x, zero at -1."""
        used = index[index >= 0]
        once = len(used.unique()) == len(used)
        attributes = {"once": once, "zeros": len(used) < index.numel()}
        return self.add(Op.SELECT, (x,), tuple(index.shape), attributes, index=index)

    def shuffled(self, x: str, *shape: int) -> str:
        """Values of x anywhere, some of them several times or never, and zeros."""
        size = torch.Size(self.shape(x)).numel()
        return self.select(x, torch.randint(-1, size, shape, generator=self._generator))

    def matmul(self, x: str, y: str) -> str:
        """Of two nodes [batch, rows, length] and [batch, length, columns]."""
        (batch, rows, length), columns = self.shape(x), self.shape(y)[2]
        flat = self.reshape(x, batch, rows * length), self.reshape(y, batch, length * columns)
        both = self.concat(1, *flat)
        attributes = {"batch": batch, "rows": rows, "length": length, "columns": columns}
        return self.add(Op.MATMUL, (both,), (batch, rows, columns), attributes)

    def exp_sums(self, x: str, count: int) -> str:
        """Of groups of so many values that follow each other."""
        size = torch.Size(self.shape(x)).numel()
        groups = self.select(x, torch.arange(size).reshape(-1, count))
        return self.pointwise(Op.EXP_SUMS, groups)

    def network(self, output: str | None = None) -> SmallNetwork:
        """Only what the output needs: a node that nobody uses is in no prepared network."""
        output = output or self.nodes[-1].name
        needed = {output, "x"}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        nodes = tuple(node for node in self.nodes if node.name in needed)
        indices = {name: value.numpy() for name, value in self.tensors.items()}
        return SmallNetwork(with_pieces(Graph(nodes, output), indices), dict(self.tensors))


def _windows(size: list[int], reach: list[int], stride: Pair, padding: Pair) -> tuple[int, ...]:
    return tuple(
        (size[axis] + 2 * padding[axis] - reach[axis]) // stride[axis] + 1 for axis in (0, 1)
    )


def mlp(*widths: int, seed: int = 0) -> SmallNetwork:
    """Linear layers with ReLU between them; `widths` from inputs to outputs."""
    builder = Builder((widths[0],), seed)
    x = "x"
    for width in widths[1:-1]:
        x = builder.pointwise(Op.RELU, builder.linear(x, width))
    builder.linear(x, widths[-1])
    return builder.network()


def lattice(values: int, seed: int = 0) -> SmallNetwork:
    """The least of linear functions of two inputs, pair by pair; nearly all weights are 0."""
    builder = Builder((2,), seed)
    x = builder.linear("x", values)
    while values > 1:
        values //= 2
        eye = torch.eye(values)
        pairs, apart = (torch.kron(eye, torch.tensor([[1.0, sign]])) for sign in (1.0, -1.0))
        signs = torch.cat((pairs, -pairs, apart, -apart))
        x = builder.pointwise(Op.RELU, builder.linear_of(x, signs, torch.zeros(4 * values)))
        half = torch.cat((eye, -eye, -eye, -eye), 1) / 2
        x = builder.linear_of(x, half, torch.zeros(values))
    return builder.network(x)


def cnn(seed: int = 0, channels: int = 4, size: int = 8, outputs: int = 5) -> SmallNetwork:
    """A strided convolution, a residual block and a linear layer."""
    builder = Builder((2, size, size), seed)
    first = builder.conv("x", channels, stride=(2, 2), padding=(1, 1))
    x = builder.pointwise(Op.RELU, first)
    inner = builder.pointwise(Op.RELU, builder.conv(x, channels, padding=(1, 1)))
    both = builder.pointwise(Op.ADD, builder.conv(inner, channels, padding=(1, 1)), x)
    builder.linear(builder.flatten(builder.pointwise(Op.RELU, both)), outputs)
    return builder.network()


def attention(tokens: int = 3, heads: int = 2, length: int = 2, seed: int = 0) -> SmallNetwork:
    """One block of a Transformer: queries, keys and values of each token, softmax, and a layer."""
    width = heads * length
    builder = Builder((tokens, width), seed)
    columns = builder.select("x", torch.arange(tokens * width).reshape(tokens, width).T[..., None])
    index = torch.arange(tokens * width).reshape(heads, length, tokens)
    parts = []
    for order in ((0, 2, 1), (0, 1, 2), (0, 2, 1)):
        product = builder.conv(columns, width, (1, 1))
        parts.append(builder.select(product, index.permute(order)))
    queries, keys, values = parts
    sums = builder.exp_sums(builder.matmul(queries, keys), tokens)
    shares = builder.reshape(builder.pointwise(Op.RECIPROCAL, sums), heads, tokens, tokens)
    met = builder.flatten(builder.matmul(shares, values))
    met = builder.pointwise(Op.ADD, met, builder.flatten("x"))
    builder.linear(builder.pointwise(Op.RELU, builder.linear(met, 5)), 3)
    return builder.network()


def multiplied(seed: int, inputs: int = 3) -> SmallNetwork:
    """ReLUs and a sine, their products with each other and with inputs, and squares of those."""
    builder = Builder((inputs,), seed)
    bent = builder.pointwise(Op.RELU, builder.linear("x", 3))
    wave = builder.pointwise(Op.SIN, builder.linear("x", 2))
    x = product(builder, builder.linear(builder.concat(0, bent, wave, "x"), 6), 3)
    whole = builder.concat(0, x, bent, "x")
    square = builder.pointwise(Op.SQUARE, builder.linear(whole, 2))
    builder.linear(builder.concat(0, whole, square), 3)
    return builder.network()


def shares_of_products(seed: int, inputs: int = 2) -> SmallNetwork:
    """A softmax of products or squares, which hides them from the outputs, beside the input."""
    builder = Builder((inputs,), seed)
    if seed % 2:
        x = product(builder, builder.linear("x", 6), 3)
    else:
        x = builder.pointwise(Op.SQUARE, builder.linear("x", 1))
    powers = builder.exp_sums(builder.linear(x, 6), 2)
    shares = builder.flatten(builder.pointwise(Op.RECIPROCAL, powers))
    builder.linear(builder.concat(0, shares, "x"), 3)
    return builder.network()


def product(builder: Builder, x: str, width: int) -> str:
    """Of the first half of flat values with the second."""
    return builder.add(Op.PRODUCT, (builder.reshape(x, 2, width),), (width,))


def lyapunov(*curvature: float) -> SmallNetwork:
    """x · (P x) by products of its entries, P with these eigenvalues."""
    size = len(curvature)
    builder = Builder((size,), seed=3)
    basis, _ = torch.linalg.qr(builder.random(size, size))
    matrix = basis @ torch.diag(torch.tensor(curvature)) @ basis.T
    x = builder.concat(0, "x", builder.linear_of("x", matrix, torch.zeros(size)))
    x = product(builder, x, size)
    builder.linear_of(x, torch.ones(1, size), torch.zeros(1))
    return builder.network()


def box_of(network: SmallNetwork, radius: float, batch: int = 1, seed: int = 0) -> Interval:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(batch, *network.graph.input.shape, generator=generator)
    return Interval(centre - radius, centre + radius)


def specs_of(network: SmallNetwork, count: int, seed: int = 0) -> Tensor:
    """Random rows, then plus and minus each output."""
    outputs = network.graph.node(network.graph.output).size
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, outputs, generator=generator)
    return torch.cat((rows, torch.eye(outputs), -torch.eye(outputs)))


def points_in(box: Interval, count: int, seed: int = 0) -> Tensor:
    """Centre, corners and points between, [count, B, *shape], in the box's dtype."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(count, *box.lower.shape, generator=generator, dtype=box.lower.dtype)
    shares[: count // 2] = shares[: count // 2].round()
    shares[0] = 0.5
    points = box.lower + shares * (box.upper - box.lower)
    return torch.minimum(torch.maximum(points, box.lower), box.upper)


RELAXED = (Op.RELU, Op.RELU, Op.RELU, Op.RELU, Op.SIGMOID, Op.TANH, Op.SIN, Op.COS)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def networks(draw: st.DrawFn, most_nodes: int = 7) -> SmallNetwork:
    """DAGs of all operators: residuals, concatenations, images first and then flat values."""
    image = draw(st.booleans())
    sizes = st.integers(3, 5)
    shape = (2, draw(sizes), draw(sizes)) if image else (draw(st.integers(1, 4)),)
    builder = Builder(shape, draw(st.integers(0, 2**16)))
    for _ in range(draw(st.integers(2, most_nodes))):
        _draw_node(draw, builder)
    x = builder.nodes[-1].name
    x = x if len(builder.shape(x)) == 1 else builder.flatten(x)
    x = builder.pointwise(draw(st.sampled_from(RELAXED)), builder.linear(x, draw(sizes)))
    return builder.network(builder.linear(x, 3))


def _draw_node(draw: st.DrawFn, builder: Builder) -> None:
    recent = [node.name for node in builder.nodes[-3:]]
    x = draw(st.sampled_from(recent))
    shape = builder.shape(x)
    others = [n.name for n in builder.nodes if n.shape == shape]
    choices = ["relaxed", "relaxed", "affine", "sum", "concat", "select", "weights", "weights"]
    match draw(st.sampled_from([*choices, *(["pool", "flatten"] if len(shape) == 3 else [])])):
        case "relaxed":
            builder.pointwise(draw(st.sampled_from(RELAXED)), x)
        case "affine":
            builder.affine(x, *draw(st.sampled_from([shape, (shape[0], *(1 for _ in shape[1:]))])))
        case "sum":
            op = draw(st.sampled_from([Op.ADD, Op.SUB]))
            builder.pointwise(op, x, draw(st.sampled_from(others)))
        case "concat":
            axis = draw(st.integers(0, len(shape) - 1))
            builder.concat(axis, x, draw(st.sampled_from(others)))
        case "select":
            builder.shuffled(x, *shape[:-1], draw(st.integers(1, 5)))
        case "flatten":
            builder.flatten(x)
        case "pool":
            _draw_pool(draw, builder, x)
        case _ if len(shape) == 1:
            builder.linear(x, draw(st.integers(1, 5)))
        case _:
            _draw_conv(draw, builder, x)


def _draw_conv(draw: st.DrawFn, builder: Builder, x: str) -> None:
    channels, *size = builder.shape(x)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    room = [size[axis] + 2 * padding[axis] for axis in (0, 1)]
    kernel = tuple(min(draw(st.integers(1, 3)), room[axis]) for axis in (0, 1))
    dilation = tuple(
        2 if kernel[axis] == 2 and room[axis] >= 3 and draw(st.booleans()) else 1 for axis in (0, 1)
    )
    groups = draw(st.sampled_from([1, channels]))
    outputs = draw(st.integers(1, 2)) * groups
    if outputs > 8:
        groups, outputs = 1, 2
    builder.conv(x, outputs, kernel, draw(pairs), padding, dilation, groups)  # type: ignore[arg-type]


def _draw_pool(draw: st.DrawFn, builder: Builder, x: str) -> None:
    _, *size = builder.shape(x)
    kernel = tuple(min(draw(st.integers(1, 3)), size[axis]) for axis in (0, 1))
    padding = tuple(draw(st.integers(0, kernel[axis] // 2)) for axis in (0, 1))
    op = draw(st.sampled_from([Op.MAXPOOL, Op.AVGPOOL]))
    builder.pool(op, x, kernel, draw(pairs), padding)  # type: ignore[arg-type]


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Interval:
    """One to three boxes in float32: points, thin, wide and huge, each coordinate its own."""
    batch = draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    size = draw(st.sampled_from([0.0, 1e-6, 0.1, 1.0, 10.0, 1e4]))
    lower = torch.randn(batch, *shape, generator=generator)
    width = size * torch.rand(batch, *shape, generator=generator)
    if draw(st.booleans()):
        width *= torch.rand(batch, *shape, generator=generator).round()
    return Interval(lower, lower + width)


def scaled(network: SmallNetwork, factor: float) -> SmallNetwork:
    """All parameters times a factor."""
    return replace(network, tensors={n: t * factor for n, t in network.tensors.items()})
