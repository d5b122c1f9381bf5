"""A VNN-LIB file of either version, compressed or not, as a Property."""

from __future__ import annotations

import re
from pathlib import Path

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.files import read_bytes
from runner.problem.property import vnnlib1, vnnlib2
from runner.problem.property.declared import Network
from runner.problem.property.model import Property

_COMMENT = re.compile(r";[^\n]*")
_VERSION = re.compile(r"\(\s*vnnlib-version\s*<?\s*(\d+)", re.ASCII)
# What only one of the versions has.
_BODIES = {
    "1": re.compile(r"\(\s*(declare-const|declare-fun)\b"),
    "2": re.compile(r"\(\s*(declare-network)\b"),
}


def read_property(path: Path) -> Property:
    """Reads `path`; its `(vnnlib-version <…>)` line chooses the parser, and none means 1.0.

    Raises InstanceError (MISSING_FILE, MALFORMED_PROPERTY, UNSUPPORTED_PROPERTY).
    """
    text, major = _read(path)
    parse = vnnlib1.parse if major == "1" else vnnlib2.parse
    return parse(text, str(path))


def read_networks(path: Path) -> tuple[Network, ...]:
    """The networks that `path` declares; none in VNN-LIB 1.0. Raises as `read_property` does."""
    text, major = _read(path)
    return () if major == "1" else vnnlib2.networks(text, str(path))


def _read(path: Path) -> tuple[str, str]:
    """Its text, and the major version of VNN-LIB that it is written in."""
    content = read_bytes(path, Cause.MALFORMED_PROPERTY)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _malformed(f"{path}: not a text file ({error}); is it really VNN-LIB?") from error
    # Positions stay what they are.
    code = _COMMENT.sub(lambda comment: " " * len(comment[0]), text)
    if not code.strip():
        raise _malformed(f"{path}: the file is empty; download it again")
    version = _VERSION.search(code)
    major = version[1] if version else "1"
    if major not in _BODIES:
        message = f"{_at(path, code, version)}: VNN-LIB {major} is not supported; use 1.0 or 2.0"
        raise InstanceError(Cause.UNSUPPORTED_PROPERTY, message)
    _check_version(path, code, version, major)
    return text, major


def _check_version(path: Path, code: str, version: re.Match[str] | None, major: str) -> None:
    """Raises InstanceError where the version line and what follows it are of two versions."""
    other = "2" if major == "1" else "1"
    foreign = _BODIES[other].search(code)
    if foreign is None or _BODIES[major].search(code):
        return
    if version is None:
        message = f"{foreign[1]} is VNN-LIB {other}.0, but no line says so; begin the file with "
        raise _malformed(f"{_at(path, code, foreign)}: {message}(vnnlib-version <{other}.0>)")
    message = f"the version line says VNN-LIB {major}.0, but line {_line(code, foreign)} "
    message += f"({foreign[1]}) is VNN-LIB {other}.0; correct it to (vnnlib-version <{other}.0>)"
    raise _malformed(f"{_at(path, code, version)}: {message}")


def _at(path: Path, code: str, found: re.Match[str] | None) -> str:
    return f"{path}:{_line(code, found)}" if found else str(path)


def _line(code: str, found: re.Match[str]) -> int:
    return code.count("\n", 0, found.start()) + 1


def _malformed(message: str) -> InstanceError:
    return InstanceError(Cause.MALFORMED_PROPERTY, message)
