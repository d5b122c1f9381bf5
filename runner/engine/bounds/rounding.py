"""What rounding may do to a bound, and what is taken off for it: the arithmetic of every proof.

All bounds are statements about real arithmetic on the weights of the file. Let u be the unit
roundoff, and γ(n) = n u / (1 - n u). *Lemma* (Higham, Accuracy and Stability of Numerical
Algorithms, 2nd ed., §3.1 and §3.5): a computed sum of n products is, whatever the order and with
or without fused multiply-add, within γ(n) of what the absolute products add up to. It holds for
plain products and convolutions, not for Winograd's, FFT's or TF32's: `plain_products` switches
those off.

*Theorem.* A backward pass holds coefficients A_k, a constant c and an error e with

    row · z(start)  >=  sum_k A_k z_k + c - e    for the exact values z of every point of the box.

1. Linear nodes. Let |z| <= m, and let s = |W| m + |b| be the *sums* of the node. Then
   A (W z + b) >= Â z + fl(A b) - γ(n) |A| s, as |Â - A W| <= γ(n) |A| |W|. One product of a row
   and a vector is *charged*, and no other product of matrices. Constants and charges add up in
   float64 (`LEDGER`), whatever the pass is in. They are at most the sum of all |A_k| s_k, so K
   additions, over nodes and ranks, cost that K times float64's u: to a float32 pass less than one
   of its own roundings, to one in float64 K of them (`additions`). What is left is rounded down
   (`below`).
2. Relaxed nodes. A line is valid for its slope as a float: offsets are rounded outwards
   (`relu_line`). fl(a λ) is within u of a λ, relatively; what that is worth is charged with the
   next product, as sums are at least the values: n grows by a few. That fails where coefficients
   may cancel before they are multiplied: where two ways meet, both are charged before they are
   added (`charged` with the size of the node in place of its sums), and so is a relaxed node behind
   a relaxed node, also across nodes that only move and add. Where a relaxed node's coefficients
   are sums (products of matrices), it is charged as a linear one, with s as large as all that its
   lines can come to over the bounds.
3. The box. With ĉ its centre and r̂ >= max(u - ĉ, ĉ - l) rounded up, A x >= A ĉ - |A| r̂, which is
   off by γ(n) |A| (|ĉ| + r̂) at most.
4. Intervals. W ĉ + b and |W| r̂ are together within γ(n) of s, and the ends move out by that.
5. Forms. A form holds, for every point of the box, z = c + sum_k t_k a_k + d with |d| <= e and
   -1 <= t_k <= 1, the same t for all nodes. With s >= |c| + sum_k |a_k|, a linear node's computed
   centre and columns are together within γ(n) (|W| s + |b|) of W c + b and W a_k, so that
   |W| (e + γ(n) s) + γ(n) |b| is an error of the next form: one product of a vector. A relaxed node
   is a band y in p z + m ± h for its slope p as a float; p c + m and p a_k lose a few u of |p| s.
   An error that becomes a column is moved as it is. Columns may be in a lower precision than the
   centre: γ(n) of that precision is then charged on what their own absolute values add up to.
6. Precisions. n counts the products that can meet in one entry: a stride leaves places of a kernel
   out. A pass may go on in a higher precision, whose γ then counts, from a node on to which
   coefficients come from nodes that sum alone: roundings of a slope (2) are charged there, in the
   lower one.
7. Planes. A coefficient A <= 0 of max(0, z) is shared: A = g + r but for a rounding of A, which is
   worth at most u |A| max(0, z). With max(0, z) <= p x + h over the box and S >= |p| |x| + |h|,
   S bounds that, too, so that γ(n) |A| S pays for the sharing, for the sums g p over n neurons, and
   for g h. The offset h of given slopes p is computed in float64, and rounded up. Where each row
   has slopes of its own, shares of v that add up to the same R whatever the row, h has room for
   what the shares lost: 4 (γ(d + 16) + 1e-6) (|v| + |h|) of d inputs, of which 1e-6 is the least
   that a share is divided by, and γ what sums of ±v lose, and their quotients.
8. Weighted rows. K rows w z <= t, each times a weight g >= 0, are added to what is bounded: sums of
   products g w, charged with the size of z as coefficients are (2), and of g t in float64,
   charged apart.
9. Underflow adds the smallest normal number to each product; `floor` counts that.

Computed sums and charges are rounded themselves: `gamma` has room for three factors of
1 / (1 - γ(n)), in the precision that the sums were computed in; for another one see `sums_in`.
Parameters that were computed when the network was read, and are not the file's own (the scale of a
batch normalisation), come with a bound of their error, which is charged with the sums. A number
that is none (an overflow) proves nothing: intervals become infinite, and comparisons with it are
false.
"""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

# Constants and charges of every pass are added in it.
LEDGER = torch.float64
# Roundings of one coefficient between two products (a slope, a split, two ways that meet).
COEFFICIENT_ROUNDINGS = 8


def unit(dtype: torch.dtype) -> float:
    """u: what rounding to nearest changes at most, relatively."""
    return torch.finfo(dtype).eps / 2


def gamma(terms: int, dtype: torch.dtype) -> float:
    """γ(terms), with room for the rounding of what it is multiplied with; inf: nothing is known."""
    share = terms * unit(dtype)
    return share / (1 - share) ** 4 * (1 + 1e-6) if share < 0.2 else math.inf


def smallest(dtype: torch.dtype) -> float:
    """What underflow changes at most, even where subnormal numbers are flushed to zero."""
    return float(torch.finfo(dtype).tiny)


def additions(count: int, dtype: torch.dtype) -> int:
    """What `count` additions of the constants of a pass cost, in its own roundings."""
    return count if dtype is LEDGER else 1


def rounded(terms: int, like: Tensor) -> float:
    """What sums of so many products lose, relatively to what their absolute values add up to."""
    return gamma(terms + COEFFICIENT_ROUNDINGS, like.dtype)


def lost(error: Tensor, size: Tensor, terms: int) -> Tensor:
    """e + γ(terms) s: what values of `size` are off by that go into sums of so many products."""
    return torch.add(error, size, alpha=rounded(terms, size))


def grown(total: Tensor, terms: int, sums: int) -> Tensor:
    """No less than a sum of so many products, all positive, that was computed to `total`; with room
    for what underflow does to so many `sums`, itself among them.
    """
    return total * (1 + rounded(terms, total)) + smallest(total.dtype) * terms * sums


def below(limit: Tensor, dtype: torch.dtype) -> Tensor:
    """A lower limit in a precision that is not higher, rounded down."""
    if limit.dtype is dtype:
        return limit
    lower = limit - (limit.abs() * (2 * unit(dtype)) + smallest(dtype))
    return lower.clamp(max=torch.finfo(dtype).max).to(dtype)


def outer(lower: Tensor, upper: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Limits in a lower precision, rounded outwards; none comes to lie on the other side of 0."""
    low, high = lower.to(dtype), upper.to(dtype)
    down = torch.nextafter(low, torch.full_like(low, -torch.inf))
    up = torch.nextafter(high, torch.full_like(high, torch.inf))
    return (
        torch.where(low.to(lower.dtype) > lower, down, low),
        torch.where(high.to(upper.dtype) < upper, up, high),
    )


def summed(products: Tensor) -> Tensor:
    """Over the last dimension, in float64: what is lost has nothing to do with their number, and
    is the same on ranks that hold a part of them each.
    """
    return products.sum(-1, dtype=LEDGER).to(products.dtype)


def summands(count: int, dtype: torch.dtype) -> int:
    """What `summed` of that many products costs, in roundings."""
    return count if dtype is LEDGER else 2


def absolute_sum(values: Tensor, dim: int) -> Tensor:
    """What torch's norm of order 1 is, which takes 4 to 300 times as long on a CPU."""
    return values.abs().sum(dim)


def charged(rows: Tensor, sums: Tensor, terms: int, floor: Tensor | None = None) -> Tensor:
    """γ(terms) |A| s, and what underflow adds [B]: A [S, B, *shape], sums [B or 1, n] to [S, B]."""
    weight: Tensor
    if sums.shape[0] == 1:
        flat = rows.flatten(2).abs().flatten(0, 1)
        weight = torch.mv(flat, sums[0]).reshape(rows.shape[:2])
    else:
        weight = (rows.flatten(2).abs() * sums).sum(2)
    share = gamma(terms + COEFFICIENT_ROUNDINGS, rows.dtype)
    return weight * share if floor is None else torch.add(floor, weight, alpha=share)


def sums_in(sums: Tensor, off: Tensor | None, dtype: torch.dtype, terms: int) -> Tensor:
    """Sums for the charges of a pass in another precision, which may be higher: γ of a higher one
    has no room for what sums of a lower one lost themselves, which is less than a third of them
    where γ(terms) is known at all. `off` counts as it is, whatever the precision and the terms.
    """
    found = sums.to(dtype)
    if torch.finfo(sums.dtype).bits < torch.finfo(dtype).bits:
        found = found * (1.5 if gamma(terms, sums.dtype) < math.inf else math.inf)
    share = gamma(terms + COEFFICIENT_ROUNDINGS, dtype)
    return found if off is None else found + off.to(dtype) * (1.01 / share)


def rate(sums: Tensor, terms: int) -> Tensor:
    """What each unit of |A| is charged at the greatest sums of its domain: [B, n] to [B]."""
    most = sums.amax(1) if sums.shape[1] else sums.new_zeros(len(sums))
    return most * gamma(terms + COEFFICIENT_ROUNDINGS, sums.dtype)


def charged_at(rows: Tensor, rates: Tensor, floor: Tensor | None = None) -> Tensor:
    """`charged` by rates [B], which is looser and takes a single pass over A."""
    weight = absolute_sum(rows.flatten(2), 2)
    return weight * rates if floor is None else torch.addcmul(floor, weight, rates)


def floor(size: Tensor, terms: int) -> Tensor:
    """What underflow in a product, and in the constants of relaxed nodes before it, costs any row
    [B], of an input's size [B, *shape].
    """
    flat = size.flatten(1)
    return (flat.sum(1) + flat.shape[1]) * (2 * terms * smallest(size.dtype))


def enclosed(centre: Tensor, radius: Tensor, sums: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """Lower and upper limits centre ± radius, both of them sums of `terms` products."""
    dtype = centre.dtype
    share = gamma(terms + COEFFICIENT_ROUNDINGS, dtype)
    reach = torch.add(radius, sums, alpha=share).add_(smallest(dtype) * terms)
    return known(centre - reach, -torch.inf), known(centre + reach, torch.inf)


def enclosed_between(
    lower: Tensor, upper: Tensor, sums: Tensor, terms: int
) -> tuple[Tensor, Tensor]:
    """Limits that are sums of `terms` products each, moved out by their rounding."""
    dtype = lower.dtype
    reach = sums * gamma(terms + COEFFICIENT_ROUNDINGS, dtype) + smallest(dtype) * terms
    return known(lower - reach, -torch.inf), known(upper + reach, torch.inf)


def known(limit: Tensor, otherwise: float) -> Tensor:
    """A limit that is not a number says nothing."""
    return limit.nan_to_num(nan=otherwise, posinf=torch.inf, neginf=-torch.inf)


def outwards(lower: Tensor, upper: Tensor, roundings: int = 1) -> tuple[Tensor, Tensor]:
    """Limits that were rounded `roundings` times, relatively, moved out by that."""
    share, least = 2 * roundings * unit(lower.dtype), smallest(lower.dtype)
    return (
        known(lower - (lower.abs() * share + least), -torch.inf),
        known(upper + (upper.abs() * share + least), torch.inf),
    )


def half_width(lower: Tensor, upper: Tensor, centre: Tensor) -> Tensor:
    """r̂ with lower and upper in centre ± r̂, whatever the centre lost."""
    return torch.maximum(upper - centre, centre - lower) * (1 + 4 * unit(lower.dtype))


def relu_line(
    lower: Tensor, upper: Tensor, crossing: Tensor, stable: Tensor
) -> tuple[Tensor, Tensor]:
    """Slope and offset of a line above ReLU over [lower, upper]; `stable` and 0 where it does not
    cross 0.

    The slope is at least the secant's, so that the line is lowest at `lower`, where the offset
    keeps it above 0. Offsets have room for the sum (`summed`) that they become part of.
    """
    dtype = lower.dtype
    terms = summands(lower.shape[-1], dtype) + COEFFICIENT_ROUNDINGS
    room = 1 + 8 * unit(dtype) + gamma(terms, dtype)
    width = upper - lower
    secant = (upper / width).mul_(1 + 8 * unit(dtype)).add_(smallest(dtype))
    secant.masked_fill_(width == torch.inf, 1.0)
    offset = (secant * lower).mul_(-room).add_(smallest(dtype))
    return torch.where(crossing, secant, stable), offset.masked_fill_(~crossing, 0.0)


def plain_products() -> None:
    """Switches off whatever computes products and convolutions otherwise than as sums of products
    in their own precision, in this process.
    """
    for emulated in ("CUBLAS_EMULATE_SINGLE_PRECISION", "CUBLAS_EMULATE_DOUBLE_PRECISION"):
        os.environ.pop(emulated, None)  # from tensor cores' products, in no order that is known
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # cuDNN chooses Winograd and FFT as it likes; without it, torch unfolds and multiplies.
    torch.backends.cudnn.enabled = False
    torch.backends.nnpack.set_flags(False)
