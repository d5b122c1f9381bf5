"""The least values of rows that end at a node, by the forms that are known there."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from runner.engine.bounds.ends import WIDE, EndForms
from runner.engine.bounds.form import Form
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.rounding import gamma, grown, smallest

# Of what a row's products and sums are computed with, beside their number.
_ROUNDINGS = 8


@dataclass(frozen=True)
class EndLines:
    """The least values of rows on a node with forms, and how they grow in the input.

    before: names of the node and all before it; widest: node behind it, or it.
    """

    network: BoundNetwork
    forms: EndForms
    radius: Tensor
    before: frozenset[str]
    widest: int
    _columns: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    @staticmethod
    def of(network: BoundNetwork, forms: EndForms, box: Interval) -> EndLines:
        nodes = network.graph.nodes
        before = frozenset(node.name for node in network.ancestors(forms.node.name))
        behind = [node.size for node in nodes[1:] if node.name not in before]
        radius = box.to(WIDE).ball[1].flatten(1)
        return EndLines(network, forms, radius, before, max(forms.node.size, *behind))

    @property
    def name(self) -> str:
        return self.forms.node.name

    @property
    def interval(self) -> Interval:
        """Of the node over all boxes, in float64."""
        each = [form.interval for form in self.forms.forms]
        lower, upper = torch.cat([i.lower for i in each]), torch.cat([i.upper for i in each])
        return Interval(*(self.network.whole(self.name, ends, 1) for ends in (lower, upper)))

    def least(self, rows: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows [S, R, *own shape], each over its box: the least values [S, R] and coefficients
        of the input [S, R, inputs], in float64. Of all neurons: what each rank adds up is summed.
        """
        flat, inputs = rows.flatten(2), self.forms.inputs
        least = flat.new_zeros(flat.shape[:2], dtype=WIDE)
        slopes = flat.new_zeros((*flat.shape[:2], inputs), dtype=WIDE)
        for number in box.unique().tolist():
            mine = (box == number).nonzero()[:, 0]
            form, some = self.forms.forms[number], flat[:, mine]
            moved = self._sum(some @ self._in_precision(number, some.dtype).T).to(WIDE)
            least[:, mine] = self._least(form, some, moved)
            radius = self.radius[number].clamp(min=1e-300)
            slopes[:, mine] = moved[:, :, :inputs] / radius
        return least, slopes

    def _in_precision(self, number: int, dtype: torch.dtype) -> Tensor:
        """Columns [K, n] of a box, made once."""
        if (number, dtype) not in self._columns:
            columns = self.forms.forms[number].columns.flatten(1).to(dtype)
            self._columns[number, dtype] = columns
        return self._columns[number, dtype]

    def _sum(self, own: Tensor) -> Tensor:
        """Over ranks, of what each has of its own neurons; what all have of all, once."""
        features = self.network.features
        return features.total(features.counted(self.name, own))

    def _least(self, form: Form, rows: Tensor, moved: Tensor) -> Tensor:
        """Of rows [S, R, own n] and the variables of a form that all come to [S, R, K]."""
        count, ranks = moved.shape[2], self.network.features.ranks
        terms = count + self.forms.node.size + ranks + _ROUNDINGS
        error, weight = form.error.flatten().nan_to_num(torch.inf), rows.abs().to(WIDE)
        # Products are rounded in the precision of the rows, and so are columns before them.
        share = gamma(terms, rows.dtype)
        off = torch.where(weight == 0, 0.0, weight * (error + share * form.size.flatten())).sum(2)
        centre = rows.to(WIDE) @ form.centre.flatten()
        centre, off = self._sum(torch.stack((centre, off))).unbind()
        off = grown(off + smallest(rows.dtype) * terms * count, terms, 1)
        reach = grown(moved.abs().sum(2), terms, 1)
        least: Tensor = centre - reach - off
        return least
