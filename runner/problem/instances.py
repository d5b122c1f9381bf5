"""instances.csv: which networks and properties a category holds, and for how long each may run."""

from __future__ import annotations

import ast
import csv
import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runner.contract.errors import InstanceError, NothingToRunError, UsageError
from runner.contract.vocabulary import Cause
from runner.problem.files import find_maybe_gz

_log = logging.getLogger(__name__)
_FILE = "instances.csv"
_VERSION_FOLDER = re.compile(r"\d+\.\d+")
_DECIMAL = re.compile(r"\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_HEADING = re.compile(r"#?\s*[A-Za-z][\w ()-]*")


@dataclass(frozen=True)
class Instance:
    """One row. `network` and `property` are absolute; the names are as the row writes them."""

    category: str
    network: Path
    property: Path
    timeout_s: float
    network_name: str
    property_name: str
    source: Path
    line: int


@dataclass(frozen=True)
class MalformedRow:
    """A row that names no instance that could run; `message` gives file, line and remedy."""

    category: str
    source: Path
    line: int
    cause: Cause
    message: str
    network_name: str
    property_name: str


Row = Instance | MalformedRow


def read_category(path: Path, timeout_s: float | None = None) -> list[Instance | MalformedRow]:
    """All rows of a category folder, or of an `instances.csv`, in their order, without a header.

    `timeout_s` replaces the rows' own timeouts. Raises UsageError when there is no such category,
    and NothingToRunError when it has no row, or not one row whose files exist.
    """
    source = _find_source(Path(os.path.abspath(path)))
    lines = list(_lines(source))
    if lines and _is_header(lines[0][1]):
        del lines[0]
    rows = [_read_row(source, line, text, timeout_s) for line, text in lines]
    if not rows:
        raise NothingToRunError(f"{source}: no rows; expected lines of network,property,timeout")
    if all(isinstance(row, MalformedRow) and row.cause is Cause.MISSING_FILE for row in rows):
        raise NothingToRunError(
            f"{source}: none of the files it names exists; "
            "download them (some categories have a setup.sh for that)"
        )
    return rows


def read_rows(source: Path, lines: Collection[int], timeout_s: float | None = None) -> list[Row]:
    """Some rows of an `instances.csv` alone, by their `lines`, which count from 1; those that are
    not there are left out. No file of another row is looked for.

    Raises UsageError where the file cannot be read.
    """
    wanted = frozenset(lines)
    return [
        _read_row(source, line, text, timeout_s) for line, text in _lines(source) if line in wanted
    ]


def _find_source(path: Path) -> Path:
    if path.is_file() and path.suffix == ".csv":
        return path
    if path.is_file():
        raise UsageError(f"{path}: no category; name a folder with {_FILE}, or a .csv file like it")
    if not path.is_dir():
        raise UsageError(f"{path}: no such category; name a folder with {_FILE}, or an {_FILE}")
    if (path / _FILE).is_file():
        return path / _FILE
    inside = sorted(str(found.parent) for found in path.glob(f"*/{_FILE}"))
    remedy = "name " + " or ".join(inside) if inside else "name a folder that has one"
    raise UsageError(f"{path}: no {_FILE} in this folder; {remedy}")


def _lines(source: Path) -> Iterator[tuple[int, str]]:
    try:
        text = source.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({error.strerror})") from error
    # Each line is parsed alone, so that an open quote spoils one row and not the rest.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def _is_header(text: str) -> bool:
    """Whether a line names columns: three words, of which none could be a file or a timeout."""
    fields = text.split(",")
    return len(fields) == 3 and all(_HEADING.fullmatch(field.strip(" \t\"'")) for field in fields)


def _read_row(
    source: Path, line: int, text: str, timeout_s: float | None
) -> Instance | MalformedRow:
    names = ("", "")
    try:
        network_field, property_field, timeout_field = _fields(text)
        names = (_clean(network_field), _clean(property_field))
        row_timeout = _timeout(timeout_field)
        names = (_clean(_single_network(network_field)), names[1])
        return Instance(
            category=_category(source.parent, names[0]),
            network=_existing(source.parent, names[0], "network"),
            property=_existing(source.parent, names[1], "property"),
            timeout_s=row_timeout if timeout_s is None else timeout_s,
            network_name=names[0],
            property_name=names[1],
            source=source,
            line=line,
        )
    except InstanceError as error:
        message = f"{source}:{line}: {error}"
        category = _category(source.parent, names[0])
        return MalformedRow(category, source, line, error.cause, message, *names)


def _fields(text: str) -> list[str]:
    try:
        (fields,) = csv.reader([text], strict=True)
    except csv.Error as error:
        message = f"not a CSV row ({error}); expected network,property,timeout"
        raise InstanceError(Cause.MALFORMED_INSTANCE, message) from error
    if len(fields) != 3:
        message = f"{len(fields)} columns instead of 3; expected network,property,timeout"
        raise InstanceError(Cause.MALFORMED_INSTANCE, message)
    return [field.strip() for field in fields]


def _clean(name: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _timeout(field: str) -> float:
    seconds = float(field) if _DECIMAL.fullmatch(field) else math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        message = f"timeout {field!r} is not a positive decimal number; write it in seconds"
        raise InstanceError(Cause.MALFORMED_INSTANCE, message)
    return seconds


def _single_network(field: str) -> str:
    """The one network of a row, which may be written as `[('name','path'), …]`."""
    if not field.startswith("["):
        return field
    try:
        networks = [(str(name), str(path)) for name, path in ast.literal_eval(field)]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        message = f"cannot read the networks {field!r}; expected [('name','path'), …]"
        raise InstanceError(Cause.MALFORMED_INSTANCE, message) from error
    if len(networks) != 1:
        listed = ", ".join(f"{name}={path}" for name, path in networks) or "none"
        message = f"a row of {len(networks)} networks ({listed}) is not supported; only one is"
        raise InstanceError(Cause.UNSUPPORTED_INSTANCE, message)
    return networks[0][1]


def _existing(folder: Path, name: str, what: str) -> Path:
    if not name:
        raise InstanceError(Cause.MALFORMED_INSTANCE, f"the {what} is empty; name a file")
    path = Path(os.path.abspath(folder / name))
    found = find_maybe_gz(path)
    if found is None:
        message = f"{what} {path} does not exist, compressed or not; download it or drop the row"
        raise InstanceError(Cause.MISSING_FILE, message)
    return found


def _category(folder: Path, network_name: str) -> str:
    """The folder that holds `onnx/`, else the one of instances.csv; never a version folder."""
    parts = PurePosixPath(network_name).parts
    inside = parts[: parts.index("onnx")] if "onnx" in parts[:-1] else ()
    home = Path(os.path.abspath(folder.joinpath(*inside)))
    return home.parent.name if _VERSION_FOLDER.fullmatch(home.name) else home.name


def read_categories(
    categories: Iterable[str | Path],
    timeout_s: float | None = None,
    left_out: Callable[[str], None] = _log.warning,
) -> list[list[Row]]:
    """The rows of each category. One that has nothing to run costs no other its turn.

    Large networks are downloaded by a script, so that a checkout of a year has such categories.
    `left_out` is told of each, once. Raises UsageError for what is no category, and when none of
    them has anything to run.
    """
    found, lost = [], []
    for category in dict.fromkeys(map(str, categories)):
        try:
            found.append(read_category(Path(category), timeout_s))
        except NothingToRunError as error:
            lost.append(str(error))
    if lost and not found:
        raise UsageError("\n".join(lost))
    for message in lost:
        left_out(f"left out: {message}")
    return found
