"""A VNN-LIB file of either version, compressed or not, as a Property."""

from __future__ import annotations

import re
from pathlib import Path

from runner.errors import InstanceError
from runner.files import read_bytes
from runner.property import vnnlib1, vnnlib2
from runner.property.model import Property
from runner.vocabulary import Cause

_VERSION = re.compile(r"^[^;\n]*\(\s*vnnlib-version\s*<\s*(\d+)", re.MULTILINE)


def read_property(path: Path) -> Property:
    """Reads `path`; its `(vnnlib-version <…>)` line chooses the parser, and none means 1.0.

    Raises InstanceError (MISSING_FILE, MALFORMED_PROPERTY, UNSUPPORTED_PROPERTY).
    """
    content = read_bytes(path, Cause.MALFORMED_PROPERTY)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{path}: not a text file ({error}); is it really VNN-LIB?"
        raise InstanceError(Cause.MALFORMED_PROPERTY, message) from error
    version = _VERSION.search(text)
    match version and version[1]:
        case None | "1":
            return vnnlib1.parse(text, str(path))
        case "2":
            return vnnlib2.parse(text, str(path))
        case other:
            message = f"{path}: VNN-LIB {other} is not supported; use version 1.0 or 2.0"
            raise InstanceError(Cause.UNSUPPORTED_PROPERTY, message)
