"""Whether this machine can run verifications, and what to do if not. Imports no torch."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import Any

import psutil
from packaging.specifiers import SpecifierSet

from runner.contract.vocabulary import Meter

PYTHON = ">=3.11,<3.14"

_PROBE = "runner.engine.programs.doctor_probe"
_PROBE_TIMEOUT_S = 180.0  # torch from a cold disk
_BUILD_TIMEOUT_S = 500.0
_BUILD = "vnncomp-runner doctor --build"


class State(StrEnum):
    """What a check found; only a problem keeps verifications from running."""

    GOOD = "good"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table."""

    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Requirement:
    """A distribution, the versions of it that work, and the module that shows that it does."""

    distribution: str
    module: str
    versions: str = ""
    pip_options: str = ""

    @property
    def remedy(self) -> str:
        options = f"{self.pip_options} " if self.pip_options else ""
        return f'pip install {options}"{self.distribution}{self.versions}"'


REQUIREMENTS = (
    Requirement("numpy", "numpy"),
    Requirement("scipy", "scipy"),
    Requirement("pandas", "pandas"),
    Requirement("matplotlib", "matplotlib"),
    Requirement("jinja2", "jinja2"),
    Requirement("itables", "itables", ">=2.5"),
    Requirement("psutil", "psutil"),
    Requirement("nvidia-ml-py", "pynvml"),
    Requirement("typer", "typer"),
    Requirement("rich", "rich"),
    Requirement("appdirs", "appdirs"),
    Requirement("tqdm", "tqdm"),
    Requirement("pyyaml", "yaml"),
    Requirement("packaging", "packaging"),
    Requirement("cattrs", "cattrs"),
    Requirement("vnnlib", "vnnlib", ">=1.0.2"),
    Requirement("zlib-ng", "zlib_ng"),
    Requirement("onnx", "onnx"),
    Requirement("onnxruntime", "onnxruntime"),
    Requirement("onnxsim", "onnxsim"),
    Requirement("safetensors", "safetensors"),
    Requirement("torch", "torch", ">=2.8,<2.15"),
    Requirement("torchvision", "torchvision"),
    Requirement("onnx2torch", "onnx2torch"),
    # Its own pins are from 2022. The module makes it run on today's torch and numpy.
    Requirement("auto_LiRPA", "runner.engine.network.lirpa", "==0.3", "--no-deps"),
)


def examine(build: bool = False) -> Iterator[Check]:
    """Every check, one after the other; importing torch takes some seconds.

    `build`: first build what counts memory on a CPU cheaply, unless it is there.
    """
    yield _python()
    failed = _build_meter() if build else ""
    answers = _probe([requirement.module for requirement in REQUIREMENTS])
    for requirement in REQUIREMENTS:
        yield check_requirement(
            requirement, _version(requirement), answers.errors[requirement.module]
        )
    yield from _devices(answers.torch)
    if answers.torch is not None:
        yield check_meter(Meter(answers.torch["meter"]), failed)
    memory_gib = psutil.virtual_memory().available / 2**30
    cores = len(os.sched_getaffinity(0))
    yield Check("machine", State.GOOD, f"{cores} cores, {memory_gib:.1f} GiB of memory free")


def check_requirement(requirement: Requirement, version: str | None, error: str) -> Check:
    """`version` None: not installed; `error` empty: it was imported."""
    name = requirement.distribution
    if version is None:
        return Check(name, State.PROBLEM, "not installed", requirement.remedy)
    if not SpecifierSet(requirement.versions).contains(version, prereleases=True):
        found = f"{version}, but {requirement.versions} is needed"
        return Check(name, State.PROBLEM, found, requirement.remedy)
    if error:
        found = f"{version} cannot be imported: {error}"
        return Check(name, State.PROBLEM, found, f"{requirement.remedy} --force-reinstall")
    return Check(name, State.GOOD, version)


def check_meter(meter: Meter, failed: str) -> Check:
    """`failed`: why the better one could not be built; empty where that was not tried."""
    if meter is Meter.ALLOCATOR:
        return Check("meter", State.GOOD, f"{meter}: torch's allocator counts memory on a CPU")
    found = f"{meter}: memory on a CPU is counted at every operator, which takes time"
    if failed:
        found += f"; the allocator's meter cannot be built: {failed}"
        return Check("meter", State.NOTE, found, f"install g++, then {_BUILD}")
    return Check("meter", State.NOTE, found, _BUILD)


def _build_meter() -> str:
    """Why it could not be done; empty where it could."""
    try:
        done = _python_module("runner.engine.programs.meter", timeout_s=_BUILD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no end after {_BUILD_TIMEOUT_S:.0f} s"
    if not done.returncode:
        return ""
    return (done.stdout.splitlines() or done.stderr.splitlines() or ["it said nothing"])[-1]


def _python() -> Check:
    version = platform.python_version()
    if SpecifierSet(PYTHON).contains(version, prereleases=True):
        return Check("python", State.GOOD, f"{version} ({sys.executable})")
    return Check("python", State.PROBLEM, version, f"make a virtual environment of Python {PYTHON}")


def _version(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices(torch: dict[str, Any] | None) -> Iterator[Check]:
    if torch is None:
        yield Check("devices", State.PROBLEM, "unknown: torch cannot be imported", "see torch")
        return
    yield _device(torch)
    if torch["gloo"]:
        yield Check("gloo", State.GOOD, "there")
    else:
        remedy = "install a torch that is built with gloo"
        yield Check("gloo", State.PROBLEM, "absent: no parallel strategy can run", remedy)
    if torch["nccl"] or not torch["devices"]:
        yield Check("nccl", State.GOOD if torch["nccl"] else State.NOTE, _there(torch["nccl"]))
    else:
        yield Check(
            "nccl", State.NOTE, "absent: gloo will be used", "install a CUDA build of torch"
        )


def _device(torch: dict[str, Any]) -> Check:
    if torch["devices"]:
        return Check("devices", State.GOOD, f"cpu, {', '.join(torch['devices'])}")
    if torch["cuda_build"]:
        found = f"cpu only; torch is built for CUDA {torch['cuda_build']} and sees no GPU"
        return Check("devices", State.NOTE, found)
    return Check("devices", State.NOTE, "cpu only; torch is built without CUDA")


def _there(present: bool) -> str:
    return "there" if present else "absent; not needed without a GPU"


@dataclass(frozen=True)
class _Answers:
    """The import error of each module, empty where it was imported; `torch` as the probe tells."""

    errors: dict[str, str]
    torch: dict[str, Any] | None


def _probe(modules: Sequence[str]) -> _Answers:
    """Imports in another process; a module that kills it is named, and the rest goes on."""
    errors: dict[str, str] = {}
    torch: dict[str, Any] | None = None
    while True:
        rest = [module for module in modules if module not in errors]
        lines, ending = _probe_once(rest)
        errors |= {line["module"]: line["error"] for line in lines if "module" in line}
        torch = next((line["torch"] for line in lines if "torch" in line), torch)
        rest = [module for module in modules if module not in errors]
        if not rest:
            return _Answers(errors, torch)
        errors[rest[0]] = f"the import ended the process ({ending})"


def _probe_once(modules: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """What the probe told until it ended, and how it ended."""
    try:
        done = _python_module(_PROBE, *modules, timeout_s=_PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired as expired:
        told = expired.stdout.decode() if isinstance(expired.stdout, bytes) else ""
        return _lines(told), f"no end after {_PROBE_TIMEOUT_S:.0f} s"
    return _lines(done.stdout), f"exit code {done.returncode}"


def _python_module(name: str, *words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", name, *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout_s
    )


def _lines(output: str) -> list[dict[str, Any]]:
    """Libraries may print while they are imported: only lines of JSON objects count."""
    return [json.loads(line) for line in output.splitlines() if line.startswith('{"')]
