"""Linear forms of neurons over boxes, which the forward pass carries.

A neuron lies around a line of the box's free inputs; lower and upper line are parallel. What it may
be away from that line is its error. Where errors are large and few they become variables of their
own (*symbols*), so that later layers see them cancel, as those of zonotopes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import mul

import torch
from torch import Tensor

from runner.engine.bounds.affine import ConvMap
from runner.engine.bounds.features import Features
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.patches import Patches, convolution
from runner.engine.bounds.rounding import absolute_sum, grown, outwards
from runner.engine.bounds.rule_kinds import LinearRule

# Of the largest error of a node, one that is worth a patch: rounding's are not.
LEAST_PATCH = 0.01


@dataclass(frozen=True)
class Form:
    """z in centre + sum_k t_k columns_k ± error for every point of the box, with the same t_k in
    [-1, 1] for all nodes; holds in real arithmetic.

    symbols: which t each column goes with, ascending; columns: [K, B, *shape]; centre, error:
    [B, *shape], the error infinite where nothing is known. patches: further columns, of a single
    box, each with a t that no other form has unless it comes from this one alone.
    """

    symbols: tuple[int, ...]
    columns: Tensor
    centre: Tensor
    error: Tensor
    patches: tuple[Patches, ...] = ()

    @staticmethod
    def of(interval: Interval) -> Form:
        """All of it error."""
        centre, radius = interval.ball
        return Form((), centre.new_zeros((0, *centre.shape)), centre, radius).settled()

    def reach(self, count: int) -> Tensor:
        """How far the first columns move the line either way, as computed: [B, *shape]."""
        if not count:
            return torch.zeros_like(self.centre)
        return absolute_sum(self.columns[:count], 0)

    @property
    def count(self) -> int:
        """Of all columns."""
        return len(self.symbols) + sum(map(len, self.patches))

    @cached_property
    def whole_reach(self) -> Tensor:
        """How far all columns move the line either way, as computed: [B, *shape]."""
        reach = self.reach(len(self.symbols))
        for patches in self.patches:
            reach = reach + patches.reach()
        return reach

    @cached_property
    def size(self) -> Tensor:
        """No less than the absolute values of centre and columns, added up: [B, *shape]."""
        return grown(self.whole_reach + self.centre.abs(), self.count + 2, 1)

    @property
    def interval(self) -> Interval:
        reach = grown(self.whole_reach + self.error, self.count + 2, 1)
        return Interval(*outwards(self.centre - reach, self.centre + reach))

    def to(self, dtype: torch.dtype) -> Form:
        """In the same or a higher precision."""
        if self.centre.dtype is dtype:
            return self
        return Form(
            self.symbols,
            self.columns.to(dtype),
            self.centre.to(dtype),
            self.error.to(dtype),
            tuple(patches.to(dtype) for patches in self.patches),
        )

    def settled(self) -> Form:
        """What has overflowed says nothing, and does so as an infinite error."""
        bad = ~(self.size + self.error).isfinite()
        if not bool(bad.any()):
            return self
        return Form(
            self.symbols,
            self.columns.masked_fill(bad, 0.0),
            self.centre.masked_fill(bad, 0.0),
            self.error.masked_fill(bad, torch.inf),
            tuple(patches.masked(bad[0]) for patches in self.patches),
        )

    def with_symbols(self, most: int, first: int) -> Form:
        """The largest errors of each box as columns, with numbers from `first` on; columns that
        move less than those are errors again, so that there are at most so many.
        """
        flat, largest, index = self._largest(most)
        count = index.shape[1]
        old, new = self._kept(largest.amax(0) if count else flat.new_zeros(0), most)
        index = index[:, :new]
        values = flat.gather(1, index)
        columns = flat.new_zeros((new, *flat.shape))
        columns.scatter_(2, index.T.unsqueeze(2), values.T.unsqueeze(2))
        error = self.error.flatten(1).scatter(1, index, 0.0).reshape(self.error.shape)
        # An infinite error is in no column, and stays.
        error = torch.where(self.error.isfinite(), error, self.error)
        form = replace(self, error=error)._only(old)
        return replace(
            form,
            symbols=form.symbols + tuple(range(first, first + new)),
            columns=torch.cat((form.columns, columns.reshape(new, *self.error.shape))),
        )

    def with_patches(self, conv: ConvMap, most: int, features: Features) -> Form:
        """The largest errors of a single box's image as patches, as long as all have no more values
        after the convolution that is next; ranks that cut features deal them out.
        """
        left = most - sum(len(patches) * patches.values_after(conv) for patches in self.patches)
        flat, size, index = self._largest(max(0, left // Patches.values_of_one(conv)))
        index = index[:, : int((size > LEAST_PATCH * size.amax()).sum())] if size.numel() else index
        if not index.shape[1]:
            return self
        shape = tuple(self.error.shape[1:])
        new = Patches.of_neurons(index[0], flat[0, index[0]], shape, features)
        error = self.error.flatten(1).scatter(1, index, 0.0).reshape(self.error.shape)
        return replace(self, error=error, patches=(*self.patches, new))

    def _largest(self, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Errors [B, n], 0 where they are infinite; how large the largest are, roughly, and which
        neurons have them [B, count].
        """
        flat = self.error.flatten(1)
        flat = torch.where(flat.isfinite(), flat, 0.0)
        # Few digits: ranks that sum in another order choose the same ones.
        rank = flat.to(torch.bfloat16).float()
        count = min(most, int((rank > 0).sum(1).max())) if flat.numel() else 0
        ranked = rank.sort(dim=1, descending=True, stable=True)
        return flat, ranked.values[:, :count], ranked.indices[:, :count]

    def with_whole(self, most: int, first: int) -> Form:
        """The patches that move most as columns, with numbers from `first` on, at most so many;
        the others as errors.
        """
        if not self.patches:
            return self
        pairs = self._heaviest([1] * len(self.patches), most)
        columns = [patches.select(mask).whole().unsqueeze(1) for patches, mask in pairs]
        rest = tuple(patches.select(~mask) for patches, mask in pairs)
        form = replace(self, patches=rest).without_patches()
        return replace(
            form,
            symbols=form.symbols + tuple(range(first, first + sum(map(len, columns)))),
            columns=torch.cat((form.columns, *columns)),
        )

    def limited(self, conv: ConvMap, most: int) -> Form:
        """With as many patches as have so many values after a convolution, the rest as errors."""
        each = [patches.values_after(conv) for patches in self.patches]
        if sum(map(mul, each, map(len, self.patches))) <= most:
            return self
        pairs = self._heaviest(each, most)
        rest = tuple(patches.select(~mask) for patches, mask in pairs)
        kept = tuple(patches.select(mask) for patches, mask in pairs)
        return replace(replace(self, patches=rest).without_patches(), patches=kept)

    def _heaviest(self, costs: list[int], most: int) -> list[tuple[Patches, Tensor]]:
        """The patches, and which of them [K] move most, as many as cost no more together."""
        counts = [len(patches) for patches in self.patches]
        mass = torch.cat([patches.mass for patches in self.patches]).to(torch.bfloat16)
        cost = torch.tensor(costs).repeat_interleave(torch.tensor(counts)).to(mass.device)
        order = mass.sort(descending=True, stable=True).indices
        chosen = torch.zeros_like(mass, dtype=torch.bool)
        chosen[order[cost[order].cumsum(0) <= most]] = True
        return list(zip(self.patches, chosen.split(counts), strict=True))

    def without_patches(self) -> Form:
        """All of them as errors."""
        if not self.patches:
            return self
        lost = sum((patches.reach() for patches in self.patches), torch.zeros_like(self.error))
        terms = sum(map(len, self.patches)) + 1
        return replace(self, error=grown(self.error + lost, terms, 1), patches=())

    def _kept(self, errors: Tensor, most: int) -> tuple[list[int], int]:
        """Columns that stay, and how many of the errors, largest first, come: the larger ones."""
        count = len(self.symbols)
        if count + len(errors) <= most:
            return list(range(count)), len(errors)
        moved = absolute_sum(self.columns.flatten(2), 2).amax(1)
        rank = torch.cat((moved.to(torch.bfloat16).float(), errors))
        chosen = rank.sort(descending=True, stable=True).indices[:most]
        old = sorted(chosen[chosen < count].tolist())
        return old, len(chosen) - len(old)

    def _only(self, kept: list[int]) -> Form:
        """With some of the columns; the others become errors."""
        if len(kept) == len(self.symbols):
            return self
        gone = [k for k in range(len(self.symbols)) if k not in set(kept)]
        lost = absolute_sum(self.columns[gone], 0)
        return replace(
            self,
            symbols=tuple(self.symbols[k] for k in kept),
            columns=self.columns[kept],
            error=grown(self.error + lost, len(gone) + 1, 1),
        )


def through(rule: LinearRule, forms: Sequence[Form]) -> Form:
    """Of a linear node, from those of its inputs."""
    conv = convolution(rule)
    patches: tuple[Patches, ...] = ()
    if conv is None:
        forms = [form.without_patches() for form in forms]
    elif forms[0].patches:
        fetched = conv.fetched()
        patches = tuple(some.through(fetched) for some in forms[0].patches)
    symbols, columns = _aligned(forms)
    batch = forms[0].centre.shape[0]
    centre = rule.forward(*(form.centre for form in forms))
    if symbols:
        moved = rule.directions(*(each.flatten(0, 1) for each in columns))
        moved = moved.unflatten(0, (len(symbols), batch))
    else:
        moved = centre.new_zeros((0, *centre.shape))
    count = max(len(symbols), *(form.count for form in forms))
    error = rule.spread([f.error for f in forms], [f.size for f in forms], count)
    return Form(symbols, moved, centre, error, patches).settled()


def _aligned(forms: Sequence[Form]) -> tuple[tuple[int, ...], list[Tensor]]:
    """The symbols of all, and columns of each for all of them."""
    if len({form.symbols for form in forms}) == 1:
        return forms[0].symbols, [form.columns for form in forms]
    symbols = tuple(sorted({symbol for form in forms for symbol in form.symbols}))
    place = {symbol: index for index, symbol in enumerate(symbols)}
    found = []
    for form in forms:
        whole = form.columns.new_zeros((len(symbols), *form.centre.shape))
        whole[[place[symbol] for symbol in form.symbols]] = form.columns
        found.append(whole)
    return symbols, found
