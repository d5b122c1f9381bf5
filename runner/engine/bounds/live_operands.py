"""Operands of what varies of a network: values that vary, gathered from where they were made, and
values that are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from runner.engine.bounds.form import Form


@dataclass(frozen=True)
class Origin:
    """Where an operand's values that vary come from: those `taken` of the ones that vary of a node,
    to places `at` of the operand.
    """

    name: str
    taken: Tensor
    at: Tensor

    @cached_property
    def unique(self) -> bool:
        """Whether no value is taken twice."""
        return len(self.taken.unique()) == len(self.taken)

    @cached_property
    def in_order(self) -> bool:
        """Whether the first values are taken as they come."""
        return bool((self.taken == torch.arange(len(self.taken), device=self.taken.device)).all())


@dataclass(frozen=True)
class Operand:
    """`shape`: without the batch; `sources` of what varies; the fixed values at the other places
    `at`, which are these numbers `fixed` of those that are kept.
    """

    shape: tuple[int, ...]
    sources: tuple[Origin, ...]
    at: Tensor
    fixed: Tensor

    @cached_property
    def size(self) -> int:
        return prod(self.shape)

    @cached_property
    def alone(self) -> Origin | None:
        """The only source, where it fills the operand from its first place to the last."""
        if len(self.sources) != 1 or len(self.sources[0].at) != self.size:
            return None
        at = self.sources[0].at
        in_order = bool((at == torch.arange(len(at), device=at.device)).all())
        return self.sources[0] if in_order else None

    def assembled(self, forms: Mapping[str, Form], fixed: Form) -> Form:
        """What varies, and what is fixed, in one place; fixed values are centre and error alone."""
        if self.alone is not None:
            return shaped(_taken(forms, self.alone), self.shape)
        parts = [(source.at, _taken(forms, source)) for source in self.sources]
        batch = len(fixed.centre)
        symbols = tuple(sorted({symbol for _, part in parts for symbol in part.symbols}))
        centre = fixed.centre.new_zeros((batch, self.size))
        error, columns = torch.zeros_like(centre), centre.new_zeros((len(symbols), *centre.shape))
        if len(self.at):
            centre[:, self.at] = fixed.centre.index_select(1, self.fixed)
            error[:, self.at] = fixed.error.index_select(1, self.fixed)
        for at, part in parts:
            centre[:, at], error[:, at] = part.centre, part.error
            for place, symbol in enumerate(part.symbols):
                columns[symbols.index(symbol)][:, at] = part.columns[place]
        return shaped(Form(symbols, columns, centre, error), self.shape)


def _taken(forms: Mapping[str, Form], source: Origin) -> Form:
    form = forms[source.name]
    if source.in_order and len(source.taken) == form.centre.shape[1]:
        return form
    return some(form, source.taken)


def flat(form: Form) -> Form:
    return Form(
        form.symbols, form.columns.flatten(2), form.centre.flatten(1), form.error.flatten(1)
    )


def some(form: Form, at: Tensor) -> Form:
    """Flat values at some places."""
    return Form(
        form.symbols,
        form.columns.index_select(2, at),
        form.centre.index_select(1, at),
        form.error.index_select(1, at),
    )


def shaped(form: Form, shape: tuple[int, ...]) -> Form:
    if tuple(form.centre.shape[1:]) == shape:
        return form
    return Form(
        form.symbols,
        form.columns.reshape(*form.columns.shape[:2], *shape),
        form.centre.reshape(-1, *shape),
        form.error.reshape(-1, *shape),
    )


@dataclass(frozen=True)
class Fixed:
    """Over C boxes the `values` [C, kept] that are fixed; and of linear nodes, by name, what they
    are [C, n] where everything is zero that varies, or [1, n] where that is the same in all. All
    are centre and error.
    """

    values: Form
    bases: Mapping[str, Form]

    @staticmethod
    def joined(parts: Sequence[Fixed]) -> Fixed:
        bases = {name: _joined([part.bases[name] for part in parts]) for name in parts[0].bases}
        return Fixed(_joined([part.values for part in parts]), bases)

    def of(self, boxes: Tensor) -> Fixed:
        bases = {
            name: form if len(form.centre) == 1 else _of(form, boxes)
            for name, form in self.bases.items()
        }
        return Fixed(_of(self.values, boxes), bases)


def _joined(parts: Sequence[Form]) -> Form:
    return Form(
        (),
        torch.cat([part.columns for part in parts], 1),
        torch.cat([part.centre for part in parts]),
        torch.cat([part.error for part in parts]),
    )


def _of(form: Form, boxes: Tensor) -> Form:
    return Form(
        (),
        form.columns.index_select(1, boxes),
        form.centre.index_select(0, boxes),
        form.error.index_select(0, boxes),
    )
