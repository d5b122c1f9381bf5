"""Converted networks that the shards of one run leave for each other."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from runner.contract.whole import remove_drafts, replace_file, replaced


@dataclass(frozen=True)
class Left:
    """`prepared`: the network; `seconds`: how long converting took; `inputs`: of the network."""

    prepared: Path
    seconds: float
    inputs: int


class Shared:
    """A folder of them. Each is there whole or not at all, and known by the file that it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, network: Path) -> Left | None:
        if not network.exists() or not (note := self._note(network)).exists():
            return None
        said = json.loads(note.read_text())
        return Left(note.with_suffix(".safetensors"), said["seconds"], said["inputs"])

    def leave(self, network: Path, prepared: Path, seconds: float, inputs: int) -> Path:
        """For the others; gives the path that it has then. Of two that leave one, the last does."""
        note = self._note(network)
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_drafts(self._folder)
        place = note.with_suffix(".safetensors")
        with replaced(place, durable=False) as draft:
            shutil.copyfile(prepared, draft)
        said = json.dumps({"seconds": seconds, "inputs": inputs})
        replace_file(note, said, durable=False)
        prepared.unlink()
        return place

    def _note(self, network: Path) -> Path:
        found = network.stat()
        what = f"{network} {found.st_size} {found.st_mtime_ns}"
        return self._folder / f"{sha256(what.encode()).hexdigest()[:32]}.json"
