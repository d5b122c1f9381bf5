"""Files that are written whole or not at all, whatever kills the writer."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = "draft"
# After which a draft of another machine, of whose processes nothing is known, is left over.
_LEFT_S = 24 * 3600.0


@contextmanager
def replaced(path: Path, *, durable: bool) -> Iterator[Path]:
    """A name beside `path` to write to; at the end it becomes `path`.

    `durable`: also after the machine has lost its power. Other processes may do the same, on other
    machines too that see the folder.
    """
    draft = path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{_SUFFIX}")
    try:
        yield draft
        if durable:
            _sync(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    if durable:
        _sync(path.parent)


def replace_file(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Writes a whole file: text as UTF-8 with its own line ends."""
    data = content.encode() if isinstance(content, str) else content
    with replaced(path, durable=durable) as draft:
        draft.write_bytes(data)


def remove_drafts(folder: Path) -> None:
    """Removes what killed writers left in it: whatever no process of this machine writes now, and
    of other machines what is a day old.
    """
    for draft in folder.glob(f".*.*.*.{_SUFFIX}"):
        machine, process = draft.name.split(".")[-3:-1]
        try:
            if machine == _machine():
                os.kill(int(process), 0)
            elif draft.stat().st_mtime < time.time() - _LEFT_S:
                draft.unlink()
        except ProcessLookupError:
            draft.unlink(missing_ok=True)
        except (PermissionError, FileNotFoundError, ValueError):
            continue  # of a living process, gone by now, or no draft of ours


def _machine() -> str:
    """Its name as a part of a file's, which dots divide."""
    return platform.node().replace(".", "-")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
