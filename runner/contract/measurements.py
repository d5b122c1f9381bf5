"""What is measured of a rank: declared here, and nowhere else.

Reports of ranks, both tables of a run folder and what is said of a whole gang have these fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated, Any, get_type_hints

from runner.contract.vocabulary import Memory, Meter, Phase


class OfGang(StrEnum):
    """What a gang has where each rank has a figure of its own."""

    FIRST = "first"  # that of the first rank that measured
    GREATEST = "greatest"
    SUM = "sum"
    AT_PEAK = "at_peak"  # that of the rank with the greatest `peak_tensor_bytes`
    SEARCH = "search"  # as ranks shared the search: see runner.run.judge


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Seconds and bytes, unrounded; None where something was not measured, which is not 0."""

    device: Annotated[str, OfGang.FIRST] = ""
    """Where the rank computed, as torch calls it; empty where nothing was measured."""
    wall_s: Annotated[float | None, OfGang.GREATEST] = None
    """From its start to its report."""
    cpu_s: Annotated[float | None, OfGang.SUM] = None
    """Processor time of the process, all threads together."""
    load_s: Annotated[float | None, OfGang.GREATEST] = None
    """In the phase `load`: everything before the attack."""
    attack_s: Annotated[float | None, OfGang.GREATEST] = None
    """In the phase `attack`."""
    incomplete_s: Annotated[float | None, OfGang.GREATEST] = None
    """In the phase `incomplete`: bounds without branch and bound."""
    complete_s: Annotated[float | None, OfGang.GREATEST] = None
    """In the phase `complete`: branch and bound."""
    meter: Annotated[Meter, OfGang.FIRST] = Meter.NONE
    """How tensors were measured."""
    weight_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Weights at rest: after loading, before the attack."""
    peak_tensor_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Live tensors of all kinds together, at their peak."""
    peak_weight_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Weights at their own peak: those at rest, and those that are gathered for a moment."""
    peak_a_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Coefficients A of linear bounds at their own peak."""
    peak_alpha_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Parameters α, and what their gradients need, at their own peak."""
    peak_beta_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Multipliers β, and what their gradients need, at their own peak."""
    peak_bounds_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Intermediate bounds at their own peak."""
    peak_other_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Everything else at its own peak."""
    at_peak_weight_bytes: Annotated[int | None, OfGang.AT_PEAK] = None
    """Weights when all kinds together were at their peak, which the `at_peak` add up to."""
    at_peak_a_bytes: Annotated[int | None, OfGang.AT_PEAK] = None
    """Coefficients A at that moment."""
    at_peak_alpha_bytes: Annotated[int | None, OfGang.AT_PEAK] = None
    """Parameters α at that moment."""
    at_peak_beta_bytes: Annotated[int | None, OfGang.AT_PEAK] = None
    """Multipliers β at that moment."""
    at_peak_bounds_bytes: Annotated[int | None, OfGang.AT_PEAK] = None
    """Intermediate bounds at that moment."""
    at_peak_other_bytes: Annotated[int | None, OfGang.AT_PEAK] = None
    """Everything else at that moment."""
    peak_rss_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """Resident memory of the process above that at its start."""
    peak_gpu_allocated_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """What tensors took of the GPU, by torch's allocator."""
    peak_gpu_reserved_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """What torch's allocator had of the GPU."""
    nvml_peak_bytes: Annotated[int | None, OfGang.GREATEST] = None
    """What the process had of the GPU, the driver's part included, as NVML tells."""
    comm_bytes: Annotated[int | None, OfGang.SUM] = None
    """Sent by the rank to others."""
    comm_s: Annotated[float | None, OfGang.GREATEST] = None
    """In collectives, waiting for other ranks included."""
    collectives: Annotated[int | None, OfGang.GREATEST] = None
    """How many collectives there were."""
    domains: Annotated[int | None, OfGang.SEARCH] = None
    """Sub-problems that branch and bound bounded; None where it never came to that."""
    rounds: Annotated[int | None, OfGang.SEARCH] = None
    """Rounds of branch and bound."""
    domains_per_s: Annotated[float | None, OfGang.SEARCH] = None
    """Sub-problems a second of branch and bound."""
    depth: Annotated[int | None, OfGang.SEARCH] = None
    """Splits above the deepest sub-problem."""


MEASURED = tuple(measurement.name for measurement in fields(Measurements))
_OF_GANG: dict[str, OfGang] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Measurements, include_extras=True).items()
}


def by_kind(prefix: str, sizes: Mapping[Memory, int]) -> dict[str, Any]:
    """Bytes of kinds as fields: `prefix` is `peak` or `at_peak`."""
    return {f"{prefix}_{kind}_bytes": size for kind, size in sizes.items()}


def by_phase(seconds: Mapping[Phase, float]) -> dict[str, Any]:
    """Seconds of phases as fields."""
    return {f"{phase}_s": time for phase, time in seconds.items()}


def of_gang(ranks: Sequence[Measurements], search: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of all ranks together, as fields; `search`: those that are OfGang.SEARCH."""
    worst = max(ranks, key=lambda rank: rank.peak_tensor_bytes or 0, default=Measurements())
    first = next(iter(ranks), Measurements())
    return {
        name: _together(rule, name, ranks, first, worst)
        for name, rule in _OF_GANG.items()
        if rule is not OfGang.SEARCH
    } | dict(search)


def _together(
    rule: OfGang,
    name: str,
    ranks: Sequence[Measurements],
    first: Measurements,
    worst: Measurements,
) -> Any:
    if rule is OfGang.FIRST:
        return getattr(first, name)
    if rule is OfGang.AT_PEAK:
        return getattr(worst, name)
    known = [value for rank in ranks if (value := getattr(rank, name)) is not None]
    if not known:
        return None
    return sum(known) if rule is OfGang.SUM else max(known)
