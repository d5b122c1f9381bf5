"""Appending that a kill or a full disk cannot leave half done."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.contract.errors import UsageError

# EFBIG: the limit of the shell (`ulimit -f`); EDQUOT: the user's quota.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFullError(UsageError):
    """There is no room for the next row; every row written so far is whole."""


def is_disk_full(error: OSError) -> bool:
    """Whether the error says that a disk, a quota or a file size limit is exhausted."""
    return error.errno in _NO_ROOM


@contextmanager
def disk_full_named(folder: Path, remedy: str) -> Iterator[None]:
    """Turns "no space left" inside the block into a DiskFullError that names `folder`."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise DiskFullError(f"no room left for {folder} ({error.strerror}); {remedy}") from error


def append_line(path: Path, text: str) -> None:
    """Appends whole lines with one write and syncs them; all or nothing.

    Raises OSError when there is no room, with the file as it was before.
    """
    data = text.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def whole_lines(path: Path) -> str:
    """The file up to its last newline: a row that was cut off while written is left out.

    Raises UsageError that names the line which is no text.
    """
    data = path.read_bytes() if path.exists() else b""
    try:
        return data[: data.rfind(b"\n") + 1].decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8, the file is damaged; mend the line") from error
