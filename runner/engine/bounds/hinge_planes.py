"""Lower bounds of hinged rows over boxes, each hinge by a plane of its own in all inputs.

The line above a ReLU that CROWN takes is one in its input z = w · x + b alone. Over a box, planes
in x reach further down (Anderson et al. 2020; Tjandraatmadja et al. 2020): of any shares θ in
[0, 1] of w, one for each input, max(0, z) <= sum θ_i w_i x_i + t for the least t that keeps the
plane above 0 and above z over the box, and all of these together are the tightest that there are.
In the box's own measure, where |y_i| <= 1 and z = z(c) + v · y, that is

    t = max(sum θ_i |v_i|, z(c) + sum (1 - θ_i) |v_i|).

A row is bounded by its hinges' lines: below those that rise by α z, α in [0, 1], and above those
that fall by their planes. Which α and θ are best is a linear program. Its primal and dual are
followed together (Chambolle and Pock 2011, steps of Pock and Chambolle 2011), all boxes at once;
nothing of that is trusted, as whatever α and θ it ends with, what they prove is computed from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from runner.engine.bounds.hinges import HingedRows, Hinges
from runner.engine.bounds.interval import Interval

# What is searched in; what is proved is in float64.
SEARCHED = torch.float32
# Of the steps of α and θ to those of the point: what is gained most with on networks of one layer.
BALANCE = 0.2


class Multipliers(NamedTuple):
    """Of B boxes: α of rising hinges [B, P], θ of falling ones [B, M, inputs]; and where the bound
    they give is least: a point y [B, inputs] in [-1, 1], and of each falling hinge by how much its
    plane rests on 0, rather than on z, [B, M].
    """

    slopes: Tensor
    shares: Tensor
    point: Tensor
    rests: Tensor

    def packed(self) -> Tensor:
        """[B, V]."""
        return torch.cat([part.flatten(1) for part in self], 1)


class _Measured(NamedTuple):
    """A row over each of B boxes, in the box's own measure: slopes [B, inputs]; of hinges their
    slopes [B, J, inputs], values in the middle [B, J] and weights [B, J].
    """

    constant: Tensor
    slopes: Tensor
    rising: Tensor
    rising_at: Tensor
    up: Tensor
    falling: Tensor
    falling_at: Tensor
    down: Tensor

    def to(self, dtype: torch.dtype) -> _Measured:
        return _Measured(*(part.to(dtype) for part in self))


@dataclass(frozen=True)
class HingePlanes:
    """Of rows over parts of their box."""

    rows: HingedRows

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many hinges rise and fall, and how many inputs there are."""
        rows = self.rows
        return rows.rising.weights.shape[1], rows.falling.weights.shape[1], len(rows.lower)

    @property
    def length(self) -> int:
        """V: of packed multipliers."""
        rising, falling, inputs = self.sizes
        return rising + falling * inputs + inputs + falling

    def unpacked(self, packed: Tensor) -> Multipliers:
        """To search on from."""
        rising, falling, inputs = self.sizes
        parts = packed.to(SEARCHED).split([rising, falling * inputs, inputs, falling], 1)
        shares = parts[1].reshape(len(packed), falling, inputs)
        return Multipliers(parts[0], shares, parts[2], parts[3])

    def first(self, box: Interval, row: Tensor) -> Multipliers:
        """CROWN's lines, of rows [B] over boxes [B, inputs]."""
        measured = self._measured(box, row)
        upper = measured.falling_at + measured.falling.abs().sum(2)
        span = 2 * measured.falling.abs().sum(2)
        secant = (upper / span).nan_to_num(0.0).clamp(0, 1)
        slopes = torch.full_like(measured.rising_at, 0.5, dtype=SEARCHED)
        shares = secant.to(SEARCHED)[:, :, None].expand(measured.falling.shape)
        point = torch.zeros_like(measured.slopes, dtype=SEARCHED)
        return Multipliers(slopes, shares, point, torch.full_like(secant, 0.5, dtype=SEARCHED))

    def bound(
        self, box: Interval, row: Tensor, start: Multipliers, iterations: int
    ) -> tuple[Tensor, Multipliers]:
        """Of rows [B], each over its box [B, inputs] (float64, parts of the rows' own): by how much
        it lies above its threshold in real arithmetic [B], and the multipliers that prove it.
        """
        measured = self._measured(box, row)
        last, mean = _followed(measured.to(SEARCHED), start, iterations)
        error = self.rows.error[row]
        ends = [self._proved(measured, found) - error for found in (last, mean)]
        better = ends[1] > ends[0]
        chosen = Multipliers(
            torch.where(better[:, None], mean.slopes, last.slopes),
            torch.where(better[:, None, None], mean.shares, last.shares),
            last.point,
            last.rests,
        )
        found = torch.fmax(*ends)
        # What is no number, or an overflow, proves nothing.
        return torch.where(found.isfinite(), found, -torch.inf), chosen

    def swings(self, box: Interval, row: Tensor) -> tuple[Tensor, Tensor]:
        """By how much each input [B, inputs] moves the row at most: through falling hinges that
        bend in the box, which is what planes may lose, and through all that it has.
        """
        measured = self._measured(box, row)
        sizes = measured.falling.abs()
        bends = measured.falling_at.abs() < sizes.sum(2)
        lost = torch.einsum("bm,bmn->bn", measured.down * bends, sizes)
        moved = torch.einsum("bm,bmn->bn", measured.down, sizes) + measured.slopes.abs()
        return lost, moved + torch.einsum("bp,bpn->bn", measured.up, measured.rising.abs())

    def _measured(self, box: Interval, row: Tensor) -> _Measured:
        centre, radius = box.ball
        slopes = self.rows.slopes[row]
        constant = self.rows.constant[row] + (slopes * centre).sum(1)
        rising, falling = (
            (*_around(part, centre, radius), part.weights[row])
            for part in (self.rows.rising, self.rows.falling)
        )
        return _Measured(constant, slopes * radius, *rising, *falling)

    def _proved(self, measured: _Measured, found: Multipliers) -> Tensor:
        """[B], in float64; `HingedRows.error` is what it may have lost."""
        sizes = measured.falling.abs()
        span = sizes.sum(2)
        slopes = _stable(found.slopes.to(span), measured.rising_at, measured.rising.abs().sum(2))
        shares = found.shares.to(span)
        shares = _stable(shares, measured.falling_at[:, :, None], span[:, :, None])
        offsets = _offsets(shares, sizes, measured.falling_at)
        weights = measured.up * slopes
        total = measured.slopes + torch.einsum("bp,bpn->bn", weights, measured.rising)
        total = total - torch.einsum("bm,bmn->bn", measured.down, shares * measured.falling)
        constant = measured.constant + (weights * measured.rising_at).sum(1)
        return constant - (measured.down * offsets).sum(1) - total.abs().sum(1)


def _around(hinges: Hinges, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    slopes = hinges.slopes * radius[:, None]
    return slopes, hinges.offsets + centre @ hinges.slopes.T


def _offsets(shares: Tensor, sizes: Tensor, middle: Tensor) -> Tensor:
    """The least t [B, M] with which planes are above 0 and above z."""
    on_zero = (shares * sizes).sum(2)
    on_value = middle + ((1 - shares) * sizes).sum(2)
    return torch.maximum(on_zero, on_value)


def _stable(multipliers: Tensor, middle: Tensor, span: Tensor) -> Tensor:
    """Those of hinges that do not bend in the box are what makes them exact."""
    kept = torch.where(middle >= span, 1.0, multipliers)
    return torch.where(middle <= -span, 0.0, kept)


def _followed(
    rows: _Measured, start: Multipliers, iterations: int
) -> tuple[Multipliers, Multipliers]:
    """The last iterate, and the mean of the second half of all.

    Each step is one over the sum of the absolute values of its row, or column, of the program.
    """
    slopes, shares, point, rests = start
    signs, sizes = rows.falling.sign(), rows.falling.abs() * rows.down[:, :, None]
    rising, at = rows.rising * rows.up[:, :, None], rows.up * rows.rising_at
    span = sizes.sum(2)
    whole = rows.down * rows.falling_at + span
    tiny = torch.finfo(SEARCHED).tiny ** 0.5
    of_slopes = BALANCE / rising.abs().sum(2).clamp(min=tiny)
    of_shares = BALANCE / 3
    of_point = 1 / (BALANCE * (rising.abs().sum(1) + sizes.sum(1)).clamp(min=tiny))
    of_rests = 1 / (2 * BALANCE * span.clamp(min=tiny))
    total = torch.zeros_like(slopes), torch.zeros_like(shares)
    counted = range(iterations // 2, iterations)
    for iteration in range(iterations):
        before = slopes, shares
        gain = at + torch.bmm(rising, point[:, :, None])[:, :, 0]
        slopes = torch.addcmul(slopes, of_slopes, gain).clamp_(0, 1)
        shares = shares - of_shares * (2 * rests - 1)[:, :, None]
        shares = shares.addcmul_(signs, point[:, None], value=-of_shares).clamp_(0, 1)
        ahead = sizes * (2 * shares - before[1])
        pull = rows.slopes + torch.bmm((2 * slopes - before[0])[:, None], rising)[:, 0]
        point = torch.addcmul(point, of_point, (ahead * signs).sum(1) - pull).clamp_(-1, 1)
        rests = torch.addcmul(rests, of_rests, 2 * ahead.sum(2) - whole).clamp_(0, 1)
        if iteration in counted:
            total[0].add_(slopes)
            total[1].add_(shares)
    count = max(1, len(counted))
    last = Multipliers(slopes, shares, point, rests)
    # A mean of numbers in [0, 1] may be rounded to more than 1.
    mean = last._replace(
        slopes=(total[0] / count).clamp_(0, 1), shares=(total[1] / count).clamp_(0, 1)
    )
    return last, mean
