"""What an instance is called, in files and tables, and which names a pattern chooses."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePosixPath


def matches(network: str, property_name: str, pattern: str) -> bool:
    """Whether a glob chooses the instance of these names; see `runner.run.plan.choose`."""
    names = (network, property_name)
    candidates = {*names, *map(_stem, names), instance_name(network, property_name)}
    return any(fnmatchcase(candidate, pattern) for candidate in candidates)


def instance_name(network: str, property_name: str) -> str:
    """`<network>_<property>` without folders and suffixes, as VNN-COMP names counterexamples."""
    return one_line(f"{_stem(network)}_{_stem(property_name)}")


def full_name(network: str, property_name: str) -> str:
    """The same with folders, for instances of a category that have one name without them."""
    paths = (PurePosixPath(name.removesuffix(".gz")) for name in (network, property_name))
    return one_line("_".join(part for path in paths for part in (*path.parent.parts, path.stem)))


def one_line(text: str) -> str:
    """Text as a table keeps it: without line breaks, so that a cut-off row can be told, and
    without what UTF-8 cannot hold (file names may be any bytes).
    """
    return text.replace("\r", " ").replace("\n", " ").strip().encode(errors="replace").decode()


def _stem(name: str) -> str:
    return PurePosixPath(name.removesuffix(".gz")).stem
