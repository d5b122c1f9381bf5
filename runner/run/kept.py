"""What one command leaves for the next, in a private folder: a warm server, converted networks and
properties that were read.

Everything in it is named by a digest of the code, the Python and the settings that it comes from,
or of the files too: another version or checkout finds nothing, and so cannot be given it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from shutil import rmtree

from runner.contract.errors import InstanceError, UsageError
from runner.contract.vocabulary import Cause
from runner.problem.files import find_maybe_gz, read_bytes, source_digest
from runner.run.prepare import Preparation

KEPT_NETWORKS = 4
LEFT_S = 3600.0
FOLDER = "VNNCOMP_RUNNER_FOLDER"

# Variables of the environment that change what a process does, which the ranks of a warm server
# have of whoever started it.
_SETTINGS = ("CUDA", "NVIDIA", "PYTHON", "LD_", "TORCH", "PYTORCH", "OMP_", "MKL_", "GLOO", "NCCL")
_LONGEST_DOOR = 100  # bytes; the kernel takes 107
_CODE = Path(__file__).resolve().parent.parent
# Where a network has weights in files beside it, their key in ONNX.
_EXTERNAL = b"location"


class Kept:
    """The private folder: by default one of this user under the folder for temporary files."""

    def __init__(self) -> None:
        default = Path(tempfile.gettempdir()) / f"vnncomp-runner-{os.getuid()}"
        self._folder = Path(os.environ.get(FOLDER) or default).absolute()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._folder.lstat()
        # Else another user could answer in a server's place.
        if found.st_uid != os.getuid() or found.st_mode & 0o077 or self._folder.is_symlink():
            raise UsageError(
                f"{self._folder}: not a folder of this user alone; `chmod 700` it, or let "
                f"{FOLDER} name another"
            )
        self._version = _version()

    @property
    def door(self) -> Path | None:
        """Where a warm server of this version listens; None where its name is too long for one."""
        path = self._folder / f"{self._version[:16]}.sock"
        return path if len(os.fsencode(path)) <= _LONGEST_DOOR else None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder of this process, which later commands remove if this one is killed."""
        path = Path(tempfile.mkdtemp(prefix=f"run-{os.getpid()}-", dir=self._folder))
        try:
            yield path
        finally:
            rmtree(path, ignore_errors=True)

    def keep(self, done: Preparation, network: Path, property: Path) -> None:
        """What `network` was converted to, and `property` as it was read, for whoever asks next.

        A network with weights in files beside it is not kept: its own content does not tell when
        those change.
        """
        if done.fitted is None or _EXTERNAL in read_bytes(network, Cause.MALFORMED_NETWORK):
            return
        name = self._named(network, property)
        done.fitted.replace(self._folder / f"{name}.property")
        # Last, as its presence says that all is there.
        done.prepared.replace(self._folder / f"{name}-{done.inputs}.network")
        newest = sorted(self._folder.glob("*.network"), key=lambda path: -path.stat().st_mtime)
        for old in newest[KEPT_NETWORKS:]:
            old.unlink(missing_ok=True)
            old.with_name(f"{_pair(old)}.property").unlink(missing_ok=True)

    def take(self, network: Path, property: Path, into: Path) -> Preparation | None:
        """What was kept, in the folder `into` too from now on, which is one of `scratch`."""
        try:
            found = next(self._folder.glob(f"{self._named(network, property)}-*.network"), None)
            if found is None:
                return None
            prepared = into / "taken.safetensors"
            fitted = into / f"{source_digest(property)}.property"
            os.link(found, prepared)
            os.link(found.with_name(f"{_pair(found)}.property"), fitted)
        except (OSError, InstanceError):
            return None
        inputs = int(found.stem.rpartition("-")[2])
        return Preparation(prepared, 0.0, None, inputs, fitted)

    def tidy(self) -> None:
        """Remove what killed commands left, an hour ago or more."""
        for path in self._folder.glob("run-*-*"):
            gone = not Path(f"/proc/{path.name.split('-')[1]}").exists()
            if gone and path.stat().st_mtime < time.time() - LEFT_S:
                rmtree(path, ignore_errors=True)

    def _named(self, network: Path, property: Path) -> str:
        digest = sha256(self._version.encode())
        for path in (network, property):
            digest.update(sha256(_content(path)).digest())
        return digest.hexdigest()[:32]


def _pair(network: Path) -> str:
    """What both files of a question are named after."""
    return network.stem.rpartition("-")[0]


def _content(path: Path) -> bytes:
    """As it lies on disk: packed files need not be unpacked to tell them apart."""
    try:
        return (find_maybe_gz(path) or path).read_bytes()
    except OSError as error:
        raise InstanceError(Cause.MISSING_FILE, f"{path}: cannot be read ({error})") from error


def _version() -> str:
    """A digest of the code by its files' sizes and times, of Python, and of the settings."""
    parts = [sys.executable, sys.version]
    for path in sorted(_CODE.rglob("*.py")):
        found = path.stat()
        parts.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    parts += sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(_SETTINGS))
    return sha256("\n".join(parts).encode()).hexdigest()
