"""The steps of a pass through what varies of a network: a form goes one way, rows go back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from runner.engine.bounds.bands import relaxed
from runner.engine.bounds.form import Form, through
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.live_operands import Fixed, Operand, flat, some
from runner.engine.bounds.live_rows import RowBill, most
from runner.engine.bounds.mixed import MixedRelaxation
from runner.engine.bounds.relaxation import ElementwiseRelaxation
from runner.engine.bounds.relaxed import BentRule
from runner.engine.bounds.relu import ReluLines
from runner.engine.bounds.rounding import LEDGER, grown, lost, rounded, smallest, unit
from runner.engine.bounds.rule_kinds import LinearRule, RelaxedRule, RuleRelaxation
from runner.engine.network.graph import Node, Op

# Of a coefficient times a value, and of what is added to it.
_ROUNDINGS = 8

# Rows [R, n] of a step's values to those of its operands [R, *shape].
Back = Callable[[Tensor, RowBill], list[Tensor]]


class LiveStep(Protocol):
    """One node. `back`: whether rows can go back through it."""

    @property
    def name(self) -> str: ...

    @property
    def operands(self) -> tuple[Operand, ...]: ...

    @property
    def back(self) -> bool: ...

    def forward(self, before: list[Form], fixed: Fixed) -> tuple[Form, Back]:
        """Flat values that vary, of operands over boxes whose fixed values are given; and how rows
        over the same boxes go back.
        """
        ...


@dataclass(frozen=True)
class Matrix:
    """The same product for each of some pixels: transposed, [in, out]; `sums` [out]: no less than
    what a column's absolute values add up to.
    """

    values: Tensor
    magnitude: Tensor
    sums: Tensor

    @staticmethod
    def of(values: Tensor) -> Matrix:
        magnitude = values.abs()
        return Matrix(values, magnitude, grown(magnitude.sum(0), len(values), len(values)))


class Matrices:
    """Those of all sets of free inputs, which share them, while they take no more than `room`
    bytes.
    """

    def __init__(self, room: int) -> None:
        self._left = room
        self._known: dict[tuple[object, ...], Matrix] = {}

    def of(
        self, key: tuple[object, ...], entries: int, make: Callable[[], Tensor]
    ) -> Matrix | None:
        """With so many entries; None where there is no room. `make` gives its values."""
        if key not in self._known:
            # Values and magnitude.
            size = 2 * entries * LEDGER.itemsize
            if size > self._left:
                return None
            self._left -= size
            self._known[key] = Matrix.of(make())
        return self._known[key]


@dataclass(frozen=True)
class MatrixStep:
    """A linear node as a matrix of what varies. What is fixed of its inputs gives a constant, which
    is kept under its name. The operand is [pixels, in]; of the results [pixels, out]
    those `taken` vary, all as they come where that is None.
    """

    name: str
    operand: Operand
    matrix: Matrix
    taken: Tensor | None
    back = True

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.operand,)

    def forward(self, before: list[Form], fixed: Fixed) -> tuple[Form, Back]:
        x, matrix = before[0], self.matrix
        constant = fixed.bases[self.name]
        base, off = (part.expand(len(x.centre), -1) for part in (constant.centre, constant.error))
        terms = len(matrix.values) + 1
        columns = self._varying((x.columns @ matrix.values).flatten(2))
        centre = self._varying((x.centre @ matrix.values).flatten(1)) + base
        error = self._varying((lost(x.error, x.size, terms) @ matrix.magnitude).flatten(1))
        error = grown(error + lost(off, base.abs(), terms), terms + 2, x.count + 3)
        form = Form(x.symbols, columns, centre, error).settled()

        def back(rows: Tensor, bill: RowBill) -> list[Tensor]:
            return [self._back(rows, bill, x, base, off)]

        return form, back

    def _varying(self, values: Tensor) -> Tensor:
        return values if self.taken is None else values.index_select(-1, self.taken)

    def _back(self, rows: Tensor, bill: RowBill, x: Form, base: Tensor, off: Tensor) -> Tensor:
        bill.fixed(rows, bill.at(base), bill.at(off))
        pixels, count = self.operand.shape[0], self.matrix.values.shape[1]
        whole = rows
        if self.taken is not None:
            whole = rows.new_zeros((len(rows), pixels * count)).index_copy(1, self.taken, rows)
        whole = whole.unflatten(1, (pixels, count))
        greatest = bill.at(most(x).flatten(1).amax(1))
        weight = (whole.abs() @ self.matrix.sums).sum(1) * greatest
        share = rounded(count, rows)
        # An entry that underflows is off by the smallest number at each product.
        least = (1 + greatest) * (2 * self.operand.size * count * smallest(rows.dtype))
        bill.charge(weight * share + least, 2 * pixels * count)
        found: Tensor = whole @ self.matrix.values.T
        return found


@dataclass(frozen=True)
class ScaledStep:
    """A product with values that are fixed: `factors` of those kept [n]."""

    name: str
    operand: Operand
    factors: Tensor
    back = True

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.operand,)

    def forward(self, before: list[Form], fixed: Fixed) -> tuple[Form, Back]:
        x = before[0]
        factor, off = (
            part.index_select(1, self.factors) for part in (fixed.values.centre, fixed.values.error)
        )
        lose = off + factor.abs() * (_ROUNDINGS * unit(factor.dtype))
        error = x.error * (factor.abs() + off) + x.size * lose
        error = grown(error, 4, x.count + 4)
        form = Form(x.symbols, x.columns * factor, x.centre * factor, error).settled()

        def back(rows: Tensor, bill: RowBill) -> list[Tensor]:
            bill.charge((rows.abs() * bill.at(lose * most(x))).sum(1), rows.shape[1] + 4)
            found = rows * bill.at(factor)
            bill.coefficients(found, bill.at(most(x)))
            return [found]

        return form, back


@dataclass(frozen=True)
class BentStep:
    """A relaxed node of each value, or a product of two that vary."""

    node: Node
    rule: RelaxedRule
    operand: Operand
    back = True

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (self.operand,)

    def forward(self, before: list[Form], fixed: Fixed) -> tuple[Form, Back]:
        x = before[0]
        ends = x.interval
        known = _Known.over(self.node, self.rule, ends)
        form = flat(relaxed(self.node, known, x, ends, known.interval(ends)))

        def back(rows: Tensor, bill: RowBill) -> list[Tensor]:
            found, constant = known.backward(rows, bill)
            bill.constant(constant)
            bill.coefficients(found.flatten(1), bill.at(most(x).flatten(1)))
            return [found]

        return form, back


@dataclass(frozen=True)
class _Known:
    """A relaxed rule whose lines over some boxes are there already."""

    node: Node
    rule: RelaxedRule
    ends: Interval
    lines: ElementwiseRelaxation | None

    @staticmethod
    def over(node: Node, rule: RelaxedRule, ends: Interval) -> _Known:
        if node.op in (Op.RELU, Op.PRODUCT):
            return _Known(node, rule, ends, None)
        lines = rule.relax(ends)
        plain = lines.plain if isinstance(lines, MixedRelaxation) else lines
        if not isinstance(plain, ElementwiseRelaxation):
            raise TypeError(f"{node.op} of {node.name} has no lines of each value")
        return _Known(node, rule, ends, plain)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.rule.forward(*inputs)

    def interval(self, *inputs: Interval) -> Interval:
        return self.rule.interval(*inputs)

    def relax(self, before: Interval) -> RuleRelaxation:
        return self.rule.relax(before) if self.lines is None else self.lines  # type: ignore[return-value]

    def backward(self, rows: Tensor, bill: RowBill) -> tuple[Tensor, Tensor]:
        """[R, n] to coefficients [R, *input] and constants [R]."""
        ends = Interval(bill.at(self.ends.lower), bill.at(self.ends.upper))
        lines: RuleRelaxation
        if self.lines is not None:
            lines = ElementwiseRelaxation(
                bill.at(self.lines.lower_slope),
                bill.at(self.lines.lower_offset),
                bill.at(self.lines.upper_slope),
                bill.at(self.lines.upper_offset),
            )
        elif self.node.op is Op.RELU:
            lines = ReluLines.over(ends)
        else:
            lines = self.rule.relax(ends)  # type: ignore[assignment]
        found, constant = lines.backward(rows.reshape(1, len(rows), *self.node.shape))
        return found[0], constant[0]


@dataclass(frozen=True)
class WholeStep:
    """Any other node as it is, of whose flat results those `taken` vary."""

    node: Node
    rule: LinearRule | RelaxedRule
    operands: tuple[Operand, ...]
    taken: Tensor
    back = False

    @property
    def name(self) -> str:
        return self.node.name

    def forward(self, before: list[Form], fixed: Fixed) -> tuple[Form, Back]:
        rule, node = self.rule, self.node
        if node.op is Op.RELU or isinstance(rule, BentRule):
            ends = before[0].interval
            form = relaxed(node, rule, before[0], ends, rule.interval(ends))  # type: ignore[arg-type]
        else:
            form = through(rule, before)  # type: ignore[arg-type]
        return some(flat(form), self.taken), _no_way


def _no_way(rows: Tensor, bill: RowBill) -> list[Tensor]:
    raise ValueError("rows do not go back through this node")
