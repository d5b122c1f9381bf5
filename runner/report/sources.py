"""Where the network and the property of a question lie, whoever wrote the question's name."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from runner.contract.errors import UsageError
from runner.problem.instances import Instance, read_categories
from runner.record.manifest import Command

_log = logging.getLogger(__name__)

_YEAR = re.compile(r"^20\d\d_")
_VERSION = re.compile(r"\d+\.\d+")
_ABOVE = re.compile(r"[^'\"]*/onnx/")  # the folders above a network in `[('name','path'), …]`


class CommonName(NamedTuple):
    """An instance by the names that every tool gives it: without year, folders above `onnx` and
    `vnnlib` or else above the category's own files, and compression.
    """

    category: str
    network: str
    property: str


Sources = dict[CommonName, Instance]


def common_name(category: str, network: str, property_name: str) -> CommonName:
    """From names as a results.csv or instances.csv writes them."""
    home = _YEAR.sub("", category.strip())
    several = network.startswith("[")
    name = _ABOVE.sub("", network) if several else _inside(network, "onnx", home)
    return CommonName(home, name, _inside(property_name, "vnnlib", home))


def sources(categories: Iterable[Path], timeout_s: float | None = None) -> Sources:
    """The instances of category folders whose files exist; those without any are warned of.

    Raises UsageError when a folder is no category, and when none has files.
    """
    return {
        common_name(row.category, row.network_name, row.property_name): row
        for category in read_categories(categories, timeout_s)
        for row in category
        if isinstance(row, Instance)
    }


def sources_of(command: Command) -> Sources:
    """The instances of a run; categories that are no longer where it found them are warned of."""
    found: Sources = {}
    for category in command.categories:
        try:
            found |= sources([Path(category)], command.timeout_s)
        except UsageError as error:
            _log.warning("%s", error)
    return found


def category_folders(folder: Path) -> list[Path]:
    """The folder itself if it is a category, else those in it. Raises UsageError for neither."""
    for pattern in ("instances.csv", "*/instances.csv", "*/1.0/instances.csv"):
        found = sorted(file.parent for file in folder.glob(pattern))
        if found:
            return found
    raise UsageError(f"{folder}: no instances.csv in it or in the folders below; name benchmarks")


def _inside(name: str, folder: str, category: str) -> str:
    """A file's name below `folder`, else below the category's folder, else as it is written."""
    parts = PurePosixPath(name.strip().removesuffix(".gz")).parts
    below = [index for index, part in enumerate(parts[:-1]) if part == folder]
    if below:
        return "/".join(parts[below[-1] + 1 :])
    for index, part in enumerate(parts[:-1]):
        elsewhere = parts[0] == "/" or "benchmarks" in parts[:index]
        if elsewhere and _YEAR.sub("", part) == category:
            versioned = len(parts) > index + 2 and _VERSION.fullmatch(parts[index + 1])
            return "/".join(parts[index + (2 if versioned else 1) :])
    return "/".join(parts)
