"""Reading input files, which may lie gzip-compressed under either name."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from runner.errors import InstanceError
from runner.vocabulary import Cause

_GZIP_MAGIC = b"\x1f\x8b"


def find_maybe_gz(path: Path) -> Path | None:
    """The file itself, or the one with `.gz` added or dropped; None when there is neither."""
    twin = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return next((candidate for candidate in (path, twin) if os.path.isfile(candidate)), None)


def read_bytes(path: Path, cause: Cause) -> bytes:
    """The content of a file, unzipped when it is gzip whatever its name says.

    Raises InstanceError: MISSING_FILE when there is no such file, `cause` when it is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InstanceError(Cause.MISSING_FILE, f"{path}: no such file; check its name") from error
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); check the file and its permissions"
        raise InstanceError(cause, message) from error
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"{path}: damaged gzip file ({error}); download it again"
        raise InstanceError(cause, message) from error
