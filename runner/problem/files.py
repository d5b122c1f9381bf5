"""Reading input files, which may lie gzip-compressed under either name."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause

GZIP_MAGIC = b"\x1f\x8b"

# deflate packs zeros a thousandfold, and weights and text no more than a hundredfold; between them
# are lattices, mostly zeros: the largest of tllverifybench, 257 MiB, is packed 180-fold.
_UNPACKED_PER_PACKED = 100
_UNPACKED_ALWAYS = 1024 * 1024 * 1024
_WITH_GZIP_HEADER = 16 + zlib.MAX_WBITS


def find_maybe_gz(path: Path) -> Path | None:
    """The file itself, or the one with `.gz` added or dropped; None when there is neither."""
    twin = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return next((candidate for candidate in (path, twin) if os.path.isfile(candidate)), None)


def source_digest(path: Path) -> str:
    """Of the file as it lies on disk, packed or not; empty where it cannot be read."""
    try:
        with (find_maybe_gz(path) or path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def read_bytes(path: Path, cause: Cause) -> bytes:
    """The content of a file, unzipped when it is gzip whatever its name says.

    Raises InstanceError: MISSING_FILE when there is no such file, `cause` when it is damaged or
    unpacks to more than a hundred times its size and 1 GiB.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InstanceError(Cause.MISSING_FILE, f"{path}: no such file; check its name") from error
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror}); check the file and its permissions"
        raise InstanceError(cause, message) from error
    if not content.startswith(GZIP_MAGIC):
        return content
    limit = _UNPACKED_PER_PACKED * len(content) + _UNPACKED_ALWAYS
    try:
        unpacked = _unpacked(content, limit)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"{path}: damaged gzip file ({error}); download it again"
        raise InstanceError(cause, message) from error
    if unpacked is None:
        message = (
            f"{path}: {len(content):,} bytes of gzip unpack to more than {limit:,}, the most that "
            f"is read ({_UNPACKED_PER_PACKED} times the packed size and 1 GiB); unpack it yourself"
        )
        raise InstanceError(cause, message)
    return unpacked


def _unpacked(content: bytes, limit: int) -> bytes | None:
    """None for more than `limit` bytes. Raises EOFError, zlib.error and gzip.BadGzipFile."""
    parts: list[bytes] = []
    while content:  # a file may be several, one after the other, and end with zeros
        if not content.startswith(GZIP_MAGIC):
            raise gzip.BadGzipFile(f"Not a gzipped file ({content[:2]!r})")
        member = zlib.decompressobj(_WITH_GZIP_HEADER)
        parts.append(member.decompress(content, limit + 1))
        limit -= len(parts[-1])
        if limit < 0:
            return None
        if not member.eof:
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        content = member.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)
