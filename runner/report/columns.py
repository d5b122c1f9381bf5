"""Columns that several tables have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from runner.report.table import Column
from runner.report.text import count, size

# How a kind of memory is called, and what its columns in ranks.csv are called after.
KINDS = {
    "weights": "weight",
    "A": "a",
    "α": "alpha",
    "β": "beta",
    "bounds": "bounds",
    "other": "other",
}


_AROUND = re.compile(r"^(?:.*/)?(?:onnx|vnnlib)/|\.(?:onnx|vnnlib)(?:\.gz)?$")


def short_name(name: str) -> str:
    """A network or property without suffix and without the folders down to `onnx` or `vnnlib`."""
    return _AROUND.sub("", name)


CATEGORY = Column("category", "category")
NETWORK = Column("network", "network", short_name)
PROPERTY = Column("property", "property", short_name)


def number(title: str, source: str, text: Callable[[Any], str] = count) -> Column:
    return Column(title, source, text, number=True)


def of_kinds(prefix: str, title: str = "{}", names: Iterable[str] = KINDS) -> list[Column]:
    """Bytes of kinds of memory; `prefix` is `peak` or `at_peak`."""
    return [number(title.format(name), f"{prefix}_{KINDS[name]}_bytes", size) for name in names]
