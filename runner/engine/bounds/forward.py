"""The forward pass: forms of nodes, from the box's free inputs on, as far as they are asked for.

One pass over a node carries as many columns as there are free inputs and symbols. A backward pass
has two rows for each neuron, back to the input. So forms are worth it where inputs are few, or
where they leave few neurons to the backward pass (`ForwardPass.columns` compares).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.affine import ConvMap
from runner.engine.bounds.bands import relaxed
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.form import Form, through
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.patches import convolution
from runner.engine.bounds.tagging import NoTagger, Tagger
from runner.engine.network.graph import Node, Op

# Copies of a node's columns that live at the same time: its inputs', its own, and an image's.
LIVE_COPIES = 3
# What calling operators takes for each node, in multiply-adds of its products: of rows
# and of forms, which call more of them.
ROW_CALLS, FORM_CALLS = 50_000, 300_000
# Of a node's rows, what its form may leave for the pass to go on.
MOST_LEFT = 0.9


def budget_for_forms(budget: Budget, without: AbstractSet[EnginePart]) -> Budget:
    """No room for any where they are left out."""
    return Budget(0) if EnginePart.FORWARD in without else budget


class ForwardPass:
    """Forms over boxes [B, *input]. `share`: of the work of a backward pass at a node, what a
    forward pass may take there; 0: none is worth it. `free`: as many columns as a box has free
    inputs, at least one. `patches`: whether errors of images may become some.
    """

    def __init__(
        self,
        network: BoundNetwork,
        box: Interval,
        share: float,
        tag: Tagger | None = None,
        budget: Budget = CORE,
        *,
        patches: bool = True,
    ) -> None:
        self._network = network
        self._share = share
        self._tag = tag or NoTagger()
        self._budget = budget
        self._boxes = len(box.lower)
        free = box.varying.flatten(1).sum(1)
        self.free = max(1, int(free.max())) if len(free) else 1
        self._forms: dict[str, Form] = {}
        self._made: set[str] = set()
        self._symbols = self._inputs = 0
        self._paid = 0.0  # multiply-adds that patches may take
        self._users: dict[str, list[str]] = {}
        for node in network.graph.nodes:
            for name in node.inputs:
                self._users.setdefault(name, []).append(node.name)
        # On a GPU their sums would be in no order that ranks share.
        alone = patches and self._boxes == 1 and not box.lower.is_cuda
        self._local = self._windows() if alone else {}

    @property
    def has_patches(self) -> bool:
        """Whether some errors may become patches."""
        return bool(self._local)

    def columns(self, name: str, rows: int, dtype: torch.dtype) -> int:
        """How many columns of a dtype pay at a node where a backward pass has so many rows for each
        box; 0 where they are not enough for the free inputs.
        """
        if not self._share or not rows:
            return 0
        missing, behind = self._missing(name), self._network.ancestors(name)
        backward = rows * self._boxes * self._network.work(behind) + ROW_CALLS * len(behind)
        left = self._share * backward - FORM_CALLS * len(missing)
        pays = left / max(1, self._boxes * self._network.work(missing))
        most = int(min(self.room(name, dtype), pays))
        self._paid = left - self.free * self._network.work(missing)
        return most if most >= self.free else 0

    def room(self, name: str, dtype: torch.dtype) -> int:
        """How many columns of a dtype the budget has room for on the way to a node."""
        widest = max(node.size for node in (self._network.graph.input, *self._missing(name)))
        return self._budget.bytes // (LIVE_COPIES * max(1, self._boxes) * dtype.itemsize * widest)

    @torch.no_grad()
    def interval(self, name: str, intervals: Mapping[str, Interval], columns: int) -> Interval:
        """Bounds of a node by its form, with so many columns on the way, from bounds of the nodes
        before and of itself.
        """
        dtype = intervals[name].lower.dtype
        with self._tag.kind(Memory.A):
            for node in self._missing(name):
                form = self._form(node, intervals, columns, dtype)
                self._forms[node.name] = form
                self._made.add(node.name)
                self._drop(node)
            form = self._forms[name]
        with self._tag.kind(Memory.BOUNDS):
            return form.to(dtype).interval

    def _form(
        self, node: Node, intervals: Mapping[str, Interval], columns: int, dtype: torch.dtype
    ) -> Form:
        network = self._network
        if not node.inputs:
            form = self._with_symbols(Form.of(intervals[node.name]), columns)
            self._inputs = self._symbols
            return form
        before = [self._forms[name].to(dtype) for name in node.inputs]
        if node.name in network.linear:
            rule = network.linear[node.name]
            conv = convolution(rule)
            if conv is not None:
                before = [before[0].limited(conv, self._most_values(conv, dtype))]
            return through(rule, before)
        ends = intervals[node.inputs[0]].to(dtype), intervals[node.name].to(dtype)
        form = relaxed(node, network.relaxed[node.name], before[0], *ends)
        if node.name in self._local and self._paid > 0:
            conv = self._local[node.name]
            most = self._most_values(conv, dtype)
            return form.with_patches(conv, most, network.features)
        form = form.with_whole(columns, self._symbols)
        self._symbols = max(self._symbols, *(symbol + 1 for symbol in form.symbols), 0)
        return self._with_symbols(form, columns)

    def _most_values(self, conv: ConvMap, dtype: torch.dtype) -> int:
        """That patches may have after a convolution."""
        return int(min(self._budget.bytes // dtype.itemsize, self._paid / conv.terms.forward))

    def _windows(self) -> dict[str, ConvMap]:
        """ReLUs of an image from which nothing but a convolution and another ReLU goes on, and
        that convolution: what their errors reach is a window.
        """
        network, found = self._network, {}
        for node in network.graph.nodes:
            users = self._users.get(node.name, [])
            if node.op is Op.RELU and len(users) == 1:
                conv = convolution(network.linear.get(users[0]))
                after = [network.graph.node(name).op for name in self._users.get(users[0], ())]
                if conv is not None and after == [Op.RELU]:
                    found[node.name] = conv
        return found

    def report(self, rows: int, left: int) -> None:
        """How many of the rows at a node its form leaves. Where that is most of them, forms of
        later nodes are not worth it either: they are looser, unless patches keep what cancels.
        """
        if left > MOST_LEFT * rows and not self._local:
            self._share = 0.0

    def slack(self, name: str) -> Tensor:
        """Of the width that a node's form gives, the share that a backward pass might take away, if
        nothing but the free inputs made it: [B, *shape].
        """
        form = self._forms[name]
        inputs = form.reach(sum(symbol < self._inputs for symbol in form.symbols))
        return 1 - inputs / (form.whole_reach + form.error)

    def _with_symbols(self, form: Form, columns: int) -> Form:
        found = form.with_symbols(columns, self._symbols)
        self._symbols = max(self._symbols, *(symbol + 1 for symbol in found.symbols), 0)
        return found

    def _missing(self, name: str) -> list[Node]:
        """The node and those before it that have no form yet, in order."""
        wanted, found = {name} - self._made, []
        for node in reversed(self._network.graph.nodes):
            if node.name in wanted:
                found.append(node)
                wanted.update(set(node.inputs) - self._made)
        return found[::-1]

    def _drop(self, node: Node) -> None:
        """Forms whose users all have theirs."""
        for name in set(node.inputs):
            if all(user in self._made for user in self._users[name]):
                self._forms.pop(name, None)
