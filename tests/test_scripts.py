"""The two commands set up .venv once and safely; the pins are complete; scripts do their work."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from runner.problem.instances import Instance, read_category
from runner.problem.property.read_property import read_property
from runner.training.categories.random_wide import NAME

pytestmark = pytest.mark.alone

REPOSITORY = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
INSTALLED = "Set up .venv"
RAY_PINS = "requirements-ray.lock"
METER = "runner/engine/measure/allocator.cpp"

# Stands for every Python: makes a virtual environment of itself, notes what pip is asked, and makes
# the wide network.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
    */random_wide.py*)
        network=$(dirname "$1")/../benchmarks/random_wide/onnx/random_4x2048.onnx
        mkdir -p "$(dirname "$network")"
        echo made >>"$network" ;;
    "-c "*) exit "${SUITABLE:-0}" ;;
    "-m venv")
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        for name in ruff mypy pytest vnncomp-runner; do
            cp "$(dirname "$0")/tool" "$3/bin/$name"
        done ;;
    "-m pip")
        echo "$@" >>"$PIP_LOG"
        sleep "${PIP_SECONDS:-0}"
        exit "${PIP_STATUS:-0}" ;;
esac
"""
# Stands for Debian's: notes what it is asked, and "installs" SLURM unless it has a word that fails.
FAKE_APT = """#!/usr/bin/env bash
echo "$@" >>"$APT_LOG"
[[ " $* " != *" ${APT_FAILS:-nothing} "* ]] || exit 100
if [[ " $* " == *" install "* && " $* " != *" --download-only "* ]]; then
    for name in slurmctld slurmd sbatch munged mungekey; do
        printf '#!/bin/sh\\n' >"$(dirname "$0")/$name"
        chmod +x "$(dirname "$0")/$name"
    done
fi
"""
FAKE_TOOL = """#!/usr/bin/env bash
echo "${0##*/} $* default=${VNNCOMP_RUNNER_DEFAULT:-}"
[[ "${0##*/} $*" != *"${FAILING:-nothing fails}"* ]]
"""


@dataclass(frozen=True)
class Clone:
    """A copy of the commands, with Pythons that only pretend."""

    folder: Path
    tools: Path

    @property
    def environment(self) -> Path:
        return self.folder / ".venv"

    def start(self, *command: str, **settings: str) -> subprocess.Popen[str]:
        path = f"{self.tools}:{os.environ['PATH']}"
        return subprocess.Popen(
            [self.folder / command[0], *command[1:]],
            env={**os.environ, "PATH": path, "PIP_LOG": str(self.pip_log), **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, **settings: str) -> tuple[int, str]:
        process = self.start(*command, **settings)
        output, _ = process.communicate(timeout=30)
        return process.returncode, output

    @property
    def pip_log(self) -> Path:
        return self.tools / "pip.log"

    @property
    def wide_network(self) -> Path:
        return self.folder / "benchmarks" / "random_wide" / "onnx" / f"{NAME}.onnx"

    def pip_calls(self) -> int:
        return len(self.pip_log.read_text().splitlines()) if self.pip_log.exists() else 0


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    folder, tools = tmp_path / "a clone", tmp_path / "tools"
    (folder / "scripts").mkdir(parents=True)
    tools.mkdir()
    for name in ("run_benchmark.sh", "run_tests.sh", "pyproject.toml", "requirements.lock"):
        shutil.copy(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "scripts" / "environment.sh", folder / "scripts")
    (folder / METER).parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / METER, folder / METER)
    names = ("python3.13", "python3.12", "python3.11", "python3")
    for name, text in {**dict.fromkeys(names, FAKE_PYTHON), "tool": FAKE_TOOL}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return Clone(folder, tools)


def test_the_first_start_sets_up_and_the_next_does_not(clone: Clone) -> None:
    status, output = clone.run("run_tests.sh", "-k", "name")
    assert status == 0
    assert INSTALLED in output
    assert "pytest --durations=10 -k name" in output
    calls = clone.pip_calls()
    status, output = clone.run("run_benchmark.sh")
    assert (status, clone.pip_calls()) == (0, calls)
    assert INSTALLED not in output


def test_the_wide_network_is_made_once_and_again_where_it_is_gone(clone: Clone) -> None:
    clone.run("run_benchmark.sh")
    clone.run("run_benchmark.sh")
    assert clone.wide_network.read_text() == "made\n"
    clone.wide_network.unlink()
    calls = clone.pip_calls()
    assert clone.run("run_tests.sh", "-k", "name")[0] == 0
    assert clone.wide_network.is_file()
    assert clone.pip_calls() == calls, "and nothing is installed for it"


def steps(output: str) -> list[str]:
    """What was called, without figures that hang on the machine."""
    tools = ("ruff", "mypy", "pytest")
    return [
        re.sub(r" (-n \d+|--durations=\d+|default=)(?= |$)", "", line).strip()
        for line in output.splitlines()
        if line.startswith(tools)
    ]


BESIDE = "pytest -m not alone --dist loadscope --no-loadscope-reorder"
ALONE = "pytest -m alone"


def test_run_tests_checks_style_and_types_and_runs_what_measures_time_alone(clone: Clone) -> None:
    status, output = clone.run("run_tests.sh")
    assert status == 0
    assert steps(output) == ["ruff check .", "ruff format --check .", "mypy", BESIDE, ALONE]


def test_quick_leaves_style_types_and_what_runs_alone_out(clone: Clone) -> None:
    _, output = clone.run("run_tests.sh", "--quick")
    assert steps(output) == [f"{BESIDE} --quick"]


def test_exhaustive_checks_all_that_the_plain_command_does(clone: Clone) -> None:
    _, output = clone.run("run_tests.sh", "--exhaustive")
    style = ["ruff check .", "ruff format --check .", "mypy"]
    assert steps(output) == [*style, f"{BESIDE} --exhaustive", f"{ALONE} --exhaustive"]


def test_soundness_asks_many_questions_and_nothing_else(clone: Clone) -> None:
    _, output = clone.run("run_tests.sh", "--soundness", "-x")
    assert steps(output) == [f"{BESIDE} tests/soundness --exhaustive -x"]


@pytest.mark.parametrize("failing", ["ruff check", "mypy", "not alone", "-m alone"])
def test_whatever_fails_fails_the_command(failing: str, clone: Clone) -> None:
    status, _ = clone.run("run_tests.sh", FAILING=failing)
    assert status != 0


def test_run_benchmark_passes_its_arguments_on_and_offers_the_embedded_instances(
    clone: Clone,
) -> None:
    status, output = clone.run("run_benchmark.sh", "a category", "--ranks", "2")
    assert status == 0
    expected = f"vnncomp-runner run a category --ranks 2 default={clone.folder}/instances.csv\n"
    assert output.endswith(expected)


def test_a_failed_installation_fails_the_command_and_is_started_over(clone: Clone) -> None:
    status, output = clone.run("run_tests.sh", "-k", "name", PIP_STATUS="3")
    assert status != 0
    assert "pytest" not in output
    leftover = clone.environment / "half_a_package"
    leftover.touch()
    assert clone.run("run_tests.sh", "-k", "name")[0] == 0
    assert not leftover.exists()


def test_an_installation_that_was_killed_is_started_over(clone: Clone) -> None:
    process = clone.start("run_tests.sh", "-k", "name", PIP_SECONDS="60")
    deadline = time.monotonic() + 20
    while not clone.pip_calls() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    leftover = clone.environment / "half_a_package"
    leftover.touch()
    status, output = clone.run("run_tests.sh", "-k", "name")
    assert status == 0
    assert INSTALLED in output
    assert not leftover.exists()


def test_an_environment_whose_python_is_gone_is_made_anew(clone: Clone) -> None:
    clone.run("run_tests.sh", "-k", "name")
    (clone.environment / "bin" / "python").unlink()
    (clone.environment / "bin" / "python").symlink_to("/no/such/python")
    leftover = clone.environment / "package_of_the_old_python"
    leftover.touch()
    status, output = clone.run("run_tests.sh", "-k", "name")
    assert status == 0
    assert INSTALLED in output
    assert not leftover.exists()


def test_an_environment_without_the_command_is_repaired(clone: Clone) -> None:
    clone.run("run_benchmark.sh", "a category")
    (clone.environment / "bin" / "vnncomp-runner").unlink()
    status, output = clone.run("run_benchmark.sh", "a category")
    assert status == 0
    assert "vnncomp-runner run a category" in output


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_two_first_starts_at_once_install_once(clone: Clone) -> None:
    both = [clone.start("run_tests.sh", "-k", name, PIP_SECONDS="0.3") for name in ("a", "b")]
    outputs = [process.communicate(timeout=30)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(INSTALLED in output for output in outputs) == 1
    assert all("pytest" in output for output in outputs)


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml", METER])
def test_a_changed_pin_updates_the_environment_in_place(clone: Clone, name: str) -> None:
    clone.run("run_tests.sh", "-k", "name")
    kept = clone.environment / "package"
    kept.touch()
    with (clone.folder / name).open("a") as file:
        file.write("# changed\n")
    assert INSTALLED in clone.run("run_tests.sh", "-k", "name")[1]
    assert kept.exists()


def test_a_clone_that_was_moved_is_set_up_again(clone: Clone, tmp_path: Path) -> None:
    clone.run("run_tests.sh", "-k", "name")
    moved = Clone(clone.folder.rename(tmp_path / "moved"), clone.tools)
    assert INSTALLED in moved.run("run_tests.sh", "-k", "name")[1]


def test_without_a_suitable_python_the_message_names_what_was_tried(clone: Clone) -> None:
    status, output = clone.run("run_tests.sh", SUITABLE="1")
    assert status != 0
    assert "3.11, 3.12 or 3.13" in output
    for name in ("python3.13", "python3"):
        assert f"{clone.tools / name}:" in output
    assert not clone.environment.exists()


@dataclass(frozen=True)
class Ci:
    """A clone on a machine without SLURM, whose apt-get only pretends."""

    clone: Clone

    def run(self, **settings: str) -> tuple[str, list[str]]:
        """`.ci/run`: its output, and what apt-get was asked."""
        log = self.clone.tools / "apt.log"
        log.unlink(missing_ok=True)
        path = f"{self.clone.tools}:{self.clone.tools.parent / 'machine'}"
        process = self.clone.start(".ci/run", PATH=path, APT_LOG=str(log), **settings)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output
        assert steps(output)[-2:] == [BESIDE, ALONE]
        return output, log.read_text().splitlines() if log.exists() else []

    def asks_for_ray(self) -> int:
        return self.clone.pip_log.read_text().count("requirements-ray.lock")


@pytest.fixture
def ci(clone: Clone, tmp_path: Path) -> Ci:
    (clone.folder / ".ci").mkdir()
    for name in (".ci/run", "scripts/clusters.sh", "requirements-ray.lock"):
        shutil.copy(REPOSITORY / name, clone.folder / name)
    for name, text in (("apt-get", FAKE_APT), ("id", "#!/bin/sh\necho ${USER_ID:-0}\n")):
        (clone.tools / name).write_text(text)
        (clone.tools / name).chmod(0o755)
    machine = tmp_path / "machine"
    machine.mkdir()
    for program in (file for folder in ("/usr/bin", "/bin") for file in Path(folder).iterdir()):
        absent = program.name.startswith(("sbatch", "munge", "apt", "python"))
        if not absent and not (machine / program.name).exists():
            (machine / program.name).symlink_to(program)
    return Ci(clone)


def test_ci_installs_slurm_and_ray_once_and_then_tests(ci: Ci) -> None:
    output, asked = ci.run()
    assert [line.split(" ", 5)[5] for line in asked] == [
        "update",
        "install --download-only --yes --no-install-recommends slurm-wlm munge",
        "install --yes --no-install-recommends slurm-wlm munge",
    ]
    assert "skipped" not in output
    assert ci.asks_for_ray() == 1
    output, asked = ci.run()
    assert asked == []
    assert "installing" not in output
    assert ci.asks_for_ray() == 1


@pytest.mark.parametrize("failing", ["update", "--download-only"])
def test_ci_tests_without_slurm_where_it_cannot_be_installed(failing: str, ci: Ci) -> None:
    output, _ = ci.run(APT_FAILS=failing)
    assert "clusters: SLURM cannot be installed, see above; its tests are skipped" in output


def test_ci_installs_no_slurm_where_it_is_not_root(ci: Ci) -> None:
    output, asked = ci.run(USER_ID="1000")
    assert asked == []
    assert "clusters: no SLURM here, and only root can install slurm-wlm and munge" in output


def test_ci_tests_without_ray_where_it_cannot_be_installed(ci: Ci) -> None:
    ci.run()
    (ci.clone.folder / "requirements-ray.lock").write_text("ray==0\n")
    output, _ = ci.run(PIP_STATUS="1")
    assert "clusters: Ray cannot be installed, see above; its tests are skipped" in output
    asked = ci.asks_for_ray()
    ci.run()
    assert ci.asks_for_ray() == asked + 1, "and tries again"


def test_the_users_command_installs_neither_slurm_nor_ray(ci: Ci) -> None:
    log = ci.clone.tools / "apt.log"
    assert ci.clone.run("run_tests.sh", APT_LOG=str(log))[0] == 0
    assert not log.exists()
    assert ci.asks_for_ray() == 0


def pins(environment: Mapping[str, str], *files: str) -> dict[str, str]:
    """The versions in requirements.lock, and in `files` beside it, that apply, by package."""
    found: dict[str, str] = {}
    texts = [(REPOSITORY / name).read_text("ascii") for name in ("requirements.lock", *files)]
    for line in "".join(texts).splitlines():
        if line.startswith("#"):
            continue
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(dict(environment)):
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert canonicalize_name(pin.name) not in found, f"{pin.name} is pinned twice"
            found[canonicalize_name(pin.name)] = specifier.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_pins_satisfy_pyproject_on_every_supported_python(python: str, machine: str) -> None:
    there = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_machine": machine,
        "sys_platform": "linux",
    }
    pinned = pins(there, RAY_PINS)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
        *project["project"]["optional-dependencies"]["ray"],
        *project["build-system"]["requires"],
        "auto_LiRPA==0.3",
    ]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in requirements.lock"
        assert requirement.specifier.contains(pinned[name]), requirement


def test_pins_are_complete_because_pip_is_told_not_to_look_for_more() -> None:
    pinned = pins({}, RAY_PINS)
    ours = pinned if find_spec("ray") else pins({})
    for name in ours.keys() - {"auto-lirpa"}:
        for requirement in map(Requirement, requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed = canonicalize_name(requirement.name)
                assert needed in pinned, f"{name} needs {needed}"
                assert requirement.specifier.contains(pinned[needed]), f"{name} needs {requirement}"


def test_wide_mlp_writes_a_category_with_an_image_in_the_middle_of_its_box(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "wide_mlp.py"
    options = ("--width", "32", "--depth", "3", "--inputs", "12", "--radius", "0.01")
    subprocess.run([sys.executable, script, tmp_path, *options], check=True)
    (row,) = read_category(tmp_path)
    assert isinstance(row, Instance)
    assert row.network.is_file()
    problem = read_property(row.property)
    (case,) = problem.cases
    assert (problem.inputs, problem.outputs, len(case.unsafe)) == (12, 10, 9)
    assert (case.upper - case.lower).max() == pytest.approx(0.02)
