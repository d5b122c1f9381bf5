"""Files that are written whole or not at all, whatever kills the writer."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path, *, durable: bool) -> Iterator[Path]:
    """A name beside `path` to write to; at the end it becomes `path`.

    `durable`: also after the machine has lost its power. Other processes may do the same, on other
    machines too that see the folder.
    """
    draft = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.draft")
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
