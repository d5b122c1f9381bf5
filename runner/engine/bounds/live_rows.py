"""Rows that go back through what varies of a network, over the boxes of one pass, and their bill.

A row has the signs of its coefficients, so that it takes of each relaxed value the line that is
on the right side, and errors do not add up layer by layer as those of forms do. All is in float64.
What rounding costs is charged step by step, for every box with bounds of its own values
(runner.engine.bounds.rounding): nothing is left to the next step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.engine.bounds.form import Form
from runner.engine.bounds.live_operands import Operand
from runner.engine.bounds.rounding import grown, lost, rounded, smallest


def most(form: Form) -> Tensor:
    """No less than the absolute values, at every point of the box: [B, *shape]."""
    return grown(form.size + form.error, 2, 1)


class RowBill:
    """Of R rows, each over its box `of` [R] of B: constants and charges [R], summed at the end."""

    def __init__(self, of: Tensor, boxes: int) -> None:
        numbers = torch.arange(boxes, device=of.device)
        self._of = None if torch.equal(of, numbers) else of
        self._terms: list[Tensor] = []
        self._charges: list[Tensor] = []

    def at(self, values: Tensor) -> Tensor:
        """Of each row's own box: [B, ...] to [R, ...]."""
        return values if self._of is None else values.index_select(0, self._of)

    def fixed(self, rows: Tensor, centre: Tensor, error: Tensor) -> None:
        """Coefficients [R, n] of values in centre ± error [R, n] of the row's own box."""
        self._terms.append((rows * centre).sum(1))
        off = lost(error, centre.abs(), rows.shape[1])
        self.charge((rows.abs() * off).sum(1), rows.shape[1])

    def constant(self, term: Tensor) -> None:
        """[R], with room for its own rounding."""
        self._terms.append(term)

    def charge(self, computed: Tensor, terms: int) -> None:
        """A sum [R] of so many products, all of them positive."""
        self._charges.append(grown(computed, terms, terms))

    def coefficients(self, rows: Tensor, sizes: Tensor) -> None:
        """Coefficients [R, n], each rounded a few times, of values of at most these sizes."""
        weight = (rows.abs() * sizes).sum(1) * rounded(0, rows)
        # What underflows is a coefficient that is off by the smallest number.
        least = sizes.sum(1) * (8 * smallest(rows.dtype))
        self.charge(weight + least, rows.shape[1] + 2)

    def lower(self) -> Tensor:
        """What all constants come to at least, less all charges: [R]; -inf where that is no
        number.
        """
        terms, charges = torch.stack(self._terms), torch.stack(self._charges)
        count = len(terms) + len(charges)
        off = charges.sum(0) + terms.abs().sum(0) * rounded(count, terms)
        off = grown(off, count, count)
        least = terms.sum(0) - off
        # The last difference is rounded as well.
        least = least - lost(torch.zeros_like(least), least.abs() + off, 1)
        return torch.where(least.isfinite(), least, -torch.inf)


class PendingRows:
    """Coefficients of the values that vary of each node, until the pass comes to it."""

    def __init__(self, forms: Mapping[str, Form], fixed: Form, bill: RowBill) -> None:
        self._forms, self._fixed, self._bill = forms, fixed, bill
        self._parts: dict[str, list[tuple[Tensor | None, Tensor, bool]]] = {}

    def give(self, operand: Operand, rows: Tensor) -> None:
        """Coefficients [R, *shape] of an operand, to where its values come from."""
        rows = rows.flatten(1)
        if len(operand.at):
            centre, error = (
                self._bill.at(part.index_select(1, operand.fixed))
                for part in (self._fixed.centre, self._fixed.error)
            )
            self._bill.fixed(rows.index_select(1, operand.at), centre, error)
        for source in operand.sources:
            part = rows if operand.alone is source else rows.index_select(1, source.at)
            whole = source.in_order and part.shape[1] == self._count(source.name)
            parts = self._parts.setdefault(source.name, [])
            parts.append((None if whole else source.taken, part, source.unique))

    def take(self, name: str) -> Tensor | None:
        """Of all values that vary of a node [R, n]; None: no row depends on it."""
        parts = self._parts.pop(name, [])
        if not parts:
            return None
        first, *others = parts
        if not others and first[0] is None:
            return first[1]
        total = first[1].new_zeros((len(first[1]), self._count(name)))
        for taken, part, _ in parts:
            if taken is None:
                total += part
            else:
                total.index_add_(1, taken, part)
        if others or not first[2]:
            self._charge_meeting(name, parts)
        return total

    def _charge_meeting(self, name: str, parts: list[tuple[Tensor | None, Tensor, bool]]) -> None:
        """Where coefficients are added, before what they come to is multiplied."""
        sizes = self._bill.at(most(self._forms[name]))
        for taken, part, _ in parts:
            mine = sizes if taken is None else sizes.index_select(1, taken)
            weight = (part.abs() * mine).sum(1)
            count = sum(some.shape[1] for _, some, _ in parts)
            self._bill.charge(weight * rounded(count, weight), part.shape[1] + 2)

    def _count(self, name: str) -> int:
        return self._forms[name].centre.shape[1]
