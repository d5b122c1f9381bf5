"""The library that counts in torch's allocator: built once at set-up, for this torch; then found.

It is made of allocator.cpp alone and needs torch's own headers and a compiler, no Python headers.
A library is named by all that it was made of, so that one of another torch is never loaded.
"""

from __future__ import annotations

import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import torch

from runner.contract.vocabulary import Memory
from runner.engine.measure.allocator import AllocatorMeter
from runner.engine.measure.dispatch import DispatchMeter
from runner.engine.measure.tensors import TensorMeter

_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", f"-DKINDS={len(Memory)}")
_BUILT_WITHIN_S = 300.0  # 3 s where the machine is idle

_log = logging.getLogger(__name__)


class BuildError(Exception):
    """There is no library, and why."""


def library_path() -> Path:
    """Where the library of this torch and this version of allocator.cpp lies, once it is built."""
    made_of = (_source(), *_FLAGS, torch.__version__, str(torch.version.git_version))
    digest = sha256("\n".join((*made_of, platform.machine())).encode()).hexdigest()[:16]
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches, "vnncomp-runner", f"allocator-{digest}.so")


def tensor_meter() -> TensorMeter:
    """Of a CPU: the allocator where its library was built, else the dispatch mode."""
    library = library_path()
    if os.access(library, os.R_OK):
        try:
            return AllocatorMeter(library)
        except OSError as error:
            _log.warning("%s; memory is measured by a dispatch mode", error)
    return DispatchMeter()


def build() -> Path:
    """The library, built unless it is there. Raises BuildError where that cannot be done.

    Several may build at once: each makes its own, and a library appears whole or not at all.
    """
    path = library_path()
    if path.exists():
        return path
    compiler = _compiler()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".allocator.", dir=path.parent) as folder:
            draft = Path(folder, path.name)
            _compile(compiler, draft)
            _check(draft)
            os.replace(draft, path)
    except OSError as error:
        raise BuildError(str(error)) from error
    return path


def _compiler() -> list[str]:
    chosen = os.environ.get("CXX")
    if chosen:
        return shlex.split(chosen)
    for name in _COMPILERS:
        found = shutil.which(name)
        if found:
            return [found]
    raise BuildError(f"there is no C++ compiler ({', '.join(_COMPILERS)}) on the PATH")


def _compile(compiler: list[str], library: Path) -> None:
    root, source = Path(torch.__file__).parent, library.with_suffix(".cpp")
    source.write_text(_source(), encoding="utf-8")
    # Not torch.utils.cpp_extension: it needs ninja and Python's headers, and takes far longer.
    command = [*compiler, *_FLAGS, str(source), "-o", str(library)]
    command += ["-I", str(root / "include"), "-L", str(root / "lib"), "-lc10"]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILT_WITHIN_S)
    except subprocess.TimeoutExpired as expired:
        raise BuildError(f"{compiler[0]} has not ended after {_BUILT_WITHIN_S:.0f} s") from expired
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise BuildError(f"{compiler[0]} fails: {(lines or [f'exit code {done.returncode}'])[0]}")


def _check(library: Path) -> None:
    """That it counts: headers of another torch than this one may compile, too."""
    with AllocatorMeter(library) as meter:
        block = torch.zeros(1024)
        live = meter.total.live
        del block
    if (live, meter.total.live) != (4096, 0):
        raise BuildError(f"it counts wrongly: {live} bytes of 4096, {meter.total.live} of none")


def _source() -> str:
    return files(__package__).joinpath("allocator.cpp").read_text(encoding="utf-8")
