"""The doctor: what it finds missing or broken, and the remedy it names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from runner.run.doctor import REQUIREMENTS, Check, State, check_requirement, examine

REPOSITORY = Path(__file__).resolve().parents[2]
TORCH = next(requirement for requirement in REQUIREMENTS if requirement.distribution == "torch")
LIRPA = next(requirement for requirement in REQUIREMENTS if "LiRPA" in requirement.distribution)


@pytest.mark.parametrize(
    ("requirement", "version", "error", "state", "remedy"),
    [
        (TORCH, "2.14.1+cu130", "", State.GOOD, ""),
        (TORCH, None, "No module", State.PROBLEM, 'pip install "torch>=2.8,<2.15"'),
        (TORCH, "1.12.1", "", State.PROBLEM, 'pip install "torch>=2.8,<2.15"'),
        (LIRPA, "0.3", "boom", State.PROBLEM,
         'pip install --no-deps "auto_LiRPA==0.3" --force-reinstall'),
    ],
)  # fmt: skip
def test_the_doctor_names_the_remedy(
    requirement: Any, version: str | None, error: str, state: State, remedy: str
) -> None:
    check = check_requirement(requirement, version, error)

    assert (check.state, check.remedy) == (state, remedy)


@pytest.mark.parametrize(
    ("missing", "command", "words"),
    [
        ("pynvml", "doctor", 'pip install "nvidia-ml-py"'),
        ("numpy", "doctor", 'pip install "numpy"'),
        ("pynvml", "list", "No module named 'pynvml'; `vnncomp-runner doctor` names"),
        ("psutil", "doctor", "No module named 'psutil'; the remedy: pip install"),
    ],
)
def test_where_a_dependency_is_missing_the_doctor_is_the_way_on(
    missing: str, command: str, words: str, tmp_path: Path
) -> None:
    for module in ("torch", "torchvision", "onnx2torch", "onnx", "onnxruntime"):  # quick stand-ins
        (tmp_path / f"{module}.py").write_text("raise ImportError('left out')")
    (tmp_path / f"{missing}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{missing}'\")"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from runner.cli import main; main()", command],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_survives_a_module_that_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A native library that aborts while it is imported, and one that prints."""
    (tmp_path / "onnxsim.py").write_text("import os; os.abort()")
    (tmp_path / "safetensors.py").write_text("print('{hello'); raise RuntimeError('no')")
    for module in ("torch", "torchvision", "onnx2torch"):  # quick stand-ins
        (tmp_path / f"{module}.py").write_text("raise ImportError('left out')")
    monkeypatch.syspath_prepend(str(tmp_path))
    checks = {check.name: check for check in examine()}

    assert "ended the process" in checks["onnxsim"].found
    assert "RuntimeError: no" in checks["safetensors"].found
    assert checks["onnx"].state is State.GOOD
    assert checks["devices"].state is State.PROBLEM


def test_the_doctor_says_which_meter_measures_and_builds_the_better_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All others take half a minute to import, three times.
    needed = [each for each in REQUIREMENTS if each.module == "torch"]
    monkeypatch.setattr("runner.run.doctor.REQUIREMENTS", needed)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    failed = meter_check(build=True)
    assert failed.state is State.NOTE
    assert "dispatch" in failed.found
    assert "no-such-compiler" in failed.found
    assert "doctor --build" in failed.remedy
    if shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    monkeypatch.delenv("CXX")
    assert "allocator" in meter_check(build=True).found
    assert meter_check(build=False).state is State.GOOD


def meter_check(build: bool) -> Check:
    return next(check for check in examine(build) if check.name == "meter")


def test_the_doctor_asks_for_what_the_package_does() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = {requirement.distribution + requirement.versions for requirement in REQUIREMENTS}

    assert asked == {*project["dependencies"], "auto_LiRPA==0.3"}
