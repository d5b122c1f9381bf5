"""Reading input files, which may lie gzip-compressed under either name."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from pathlib import Path

from zlib_ng import zlib_ng  # Unpacks two to three times as fast as Python's own.

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause

GZIP_MAGIC = b"\x1f\x8b"

# deflate packs zeros a thousandfold, and weights and text no more than a hundredfold; between them
# are lattices, mostly zeros: the largest of tllverifybench, 257 MiB, is packed 180-fold.
_UNPACKED_PER_PACKED = 100
_UNPACKED_ALWAYS = 1024 * 1024 * 1024
_WITH_GZIP_HEADER = 16 + zlib_ng.MAX_WBITS
# Of the packed file; what it unpacks to, up to 4 MiB, lies in memory beside the whole.
_PIECE_BYTES = 4096


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
    except (EOFError, zlib_ng.error, gzip.BadGzipFile) as error:  # type: ignore[misc]  # of the stub
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
    """None for more than `limit` bytes. Raises EOFError, zlib_ng.error and gzip.BadGzipFile."""
    unpacked = io.BytesIO()  # grows in place; parts that are joined take twice the room
    position = 0
    while position < len(content):  # a file may be several, one after the other
        if not content.startswith(GZIP_MAGIC, position):
            start = content[position : position + 2]
            raise gzip.BadGzipFile(f"Not a gzipped file ({start!r})")
        member = zlib_ng.decompressobj(_WITH_GZIP_HEADER)
        while position < len(content) and not member.eof:
            unpacked.write(member.decompress(content[position : position + _PIECE_BYTES]))
            position += _PIECE_BYTES
            if unpacked.tell() > limit:
                return None
        if not member.eof:
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        position = min(position, len(content)) - len(member.unused_data)
        if content.startswith(b"\0", position):  # and end with zeros
            position = len(content) - len(content[position:].lstrip(b"\0"))
    return unpacked.getvalue()
