"""A network of forms over a part of its box, where fewer neurons are open.

What is active there is put into the forms behind it, layer by layer, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.engine.bounds.form_network import BLOCK_VALUES, FormNetwork, OpenForm
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.rounding import LEDGER, grown, lost


def narrowed(whole: FormNetwork, box: Interval, intervals: Mapping[str, Interval]) -> FormNetwork:
    """Over a part of its box [1, *input], with bounds of its nodes there."""
    passed = _Passed(box.size.to(LEDGER).flatten())
    forms, relus = {}, []
    for relu in whole.relus:
        lower, upper = (end.flatten() for end in intervals[relu.before].ends)
        active = lower >= 0
        # What is no number is open.
        still = ~(active | (upper <= 0))
        form = whole.forms[relu.before]
        if bool(still.any()):
            relus.append(replace(relu, at=relu.at[still]))
            found = passed.through(form, still)
            forms[relu.before] = OpenForm.rounded(*found, passed.sizes, form.weight.dtype)
        passed.add(form, active, still, upper[still].to(LEDGER))
    form = whole.forms[whole.output]
    found = passed.through(form, torch.ones_like(form.bias, dtype=torch.bool))
    forms[whole.output] = OpenForm.rounded(*found, passed.sizes, form.weight.dtype)
    return replace(whole, box=box, relus=tuple(relus), forms=forms)


def count_values(whole: FormNetwork, intervals: Mapping[str, Interval]) -> int:
    """Of the weights that `narrowed` would have."""
    columns = whole.input.size
    values = 0
    for relu in whole.relus:
        lower, upper = intervals[relu.before].ends
        count = int((~((lower >= 0) | (upper <= 0))).sum())
        values += count * columns
        columns += count
    return values + len(whole.forms[whole.output].bias) * columns


@dataclass(frozen=True)
class _Active:
    """Active neurons [a] of a ReLU. `columns`: those of the whole that they stand at; `weight`
    [a, K], `bias` and `error`, in float64: what they are over what is kept before them; `size`: no
    less than all of that comes to.
    """

    columns: Tensor
    weight: Tensor
    bias: Tensor
    error: Tensor
    size: Tensor


class _Passed:
    """The layers so far: which columns of the whole are kept, and what stands for the others.
    `sizes`: of the values of those that are kept.
    """

    def __init__(self, inputs: Tensor) -> None:
        self.sizes = inputs
        self._kept = torch.arange(len(inputs), device=inputs.device)
        self._columns = len(inputs)
        self._active: list[_Active] = []

    def through(self, form: OpenForm, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, bias and error of some neurons of a form [n], over what is kept."""
        rows = max(1, BLOCK_VALUES // form.weight.shape[1])
        parts = [self._of_rows(form, some) for some in chosen.nonzero()[:, 0].split(rows)]
        weight, bias, error = map(torch.cat, zip(*parts, strict=True))
        return weight, bias, error

    def _of_rows(self, form: OpenForm, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        whole = form.weight[rows]
        # Columns are chosen before they are float64, which has twice as much to move.
        weight, bias = whole.index_select(1, self._kept).to(LEDGER), form.bias[rows].to(LEDGER)
        error, size = form.error[rows], weight.abs() @ self.sizes + bias.abs()
        for active in self._active:
            part = whole.index_select(1, active.columns).to(LEDGER)
            weight[:, : active.weight.shape[1]] += part @ active.weight
            bias = bias + part @ active.bias
            part = part.abs()
            error, size = error + part @ active.error, size + part @ active.size
        terms = whole.shape[1] + len(self._active) + 2
        # What is added up here is rounded itself.
        return weight, bias, grown(lost(error, size, terms), terms, 2)

    def add(self, form: OpenForm, active: Tensor, still: Tensor, upper: Tensor) -> None:
        """A ReLU of this form's neurons [n], of which some are active, and some are still open and
        at most at `upper`.
        """
        if bool(active.any()):
            weight, bias, error = self.through(form, active)
            size = weight.abs() @ self.sizes + bias.abs()
            size = grown(size, weight.shape[1] + 1, 1)
            columns = self._columns + active.nonzero()[:, 0]
            self._active.append(_Active(columns, weight, bias, error, size))
        self._kept = torch.cat((self._kept, self._columns + still.nonzero()[:, 0]))
        self.sizes = torch.cat((self.sizes, upper))
        self._columns += len(active)
