"""Networks and properties as other verifiers can read them: unpacked, under their own names."""

from __future__ import annotations

from pathlib import Path

from runner.contract.vocabulary import Cause
from runner.problem.files import GZIP_MAGIC, read_bytes


class PlainFiles:
    """Unpacks a network once for as long as `scratch` lasts; files that are plain stay where they
    are.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._networks: dict[Path, Path] = {}

    def network(self, path: Path) -> Path:
        """Raises InstanceError as `read_bytes` does."""
        if path not in self._networks:
            folder = self._scratch / f"plain{len(self._networks)}"
            self._networks[path] = _unpacked(path, folder, Cause.MALFORMED_NETWORK)
        return self._networks[path]

    def property(self, path: Path, folder: Path) -> Path:
        """In `folder`, where it was packed. Raises InstanceError as `read_bytes` does."""
        return _unpacked(path, folder, Cause.MALFORMED_PROPERTY)


def _unpacked(path: Path, folder: Path, cause: Cause) -> Path:
    if path.suffix != ".gz" and not _is_packed(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / path.name.removesuffix(".gz")
    plain.write_bytes(read_bytes(path, cause))
    return plain


def _is_packed(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    except OSError:
        return True  # reading it whole says what is wrong with it
