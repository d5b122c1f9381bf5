"""Numbers as people read them. Rounding happens here and nowhere else."""

from __future__ import annotations

import math

ABSENT = "–"

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes in binary units, three significant digits."""
    if math.isnan(count):
        return ABSENT
    scaled, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if scaled < 1024 or unit == _UNITS[-1]:
            break
        scaled /= 1024
    return f"{scaled:.0f} {unit}" if unit == "B" or scaled >= 100 else f"{scaled:.3g} {unit}"


def seconds(value: float) -> str:
    """Seconds, to the millisecond below 10 s and to a tenth above."""
    if math.isnan(value):
        return ABSENT
    return f"{value:.3f} s" if value < 10 else f"{value:,.1f} s"


def ratio(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.2f}×"


def share(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{100 * value:.1f} %"


def count(value: float) -> str:
    """A number of things; a mean of such numbers is rounded."""
    return ABSENT if math.isnan(value) else f"{value:,.0f}"


def difference(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.2g}"
