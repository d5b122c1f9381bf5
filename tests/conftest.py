"""What all tests share: one warm rank server, the data of VNN-COMP, and which tests run: --quick
leaves some out, and --exhaustive adds what only it runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from examples import EXHAUSTIVE, QUICK
from hypothesis import settings
from said import print_decided

from runner.execute.gang import RankServer

REPOSITORY = Path(__file__).resolve().parent.parent
PRELOAD = (
    "runner.engine.programs.attacks",
    "runner.engine.programs.measured_bounds",
    "runner.training.categories.generate",
    "runner.training.training_programs",
    "runner.engine.programs.verify",
    "small_networks",
)

# Their tests run one after the other: what begins last would keep one worker busy alone.
LONGEST = (
    "test_end_to_end.py",
    "test_soundness.py",
    "test_vnncomp_scripts.py",
    "test_strategies_on_real_networks.py",
    "test_every_onnx_operator.py",
    "test_training_experiment.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    what = (
        "Leave out what starts a Python process, reads data of VNN-COMP or is marked slow or alone."
    )
    parser.addoption("--quick", action="store_true", help=what)
    what = "Also what is marked exhaustive, and of random tests all examples."
    parser.addoption("--exhaustive", action="store_true", help=what)


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores it for what it starts behind it, and so would every process of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # xdist's workers have it of the terminal, and tests look at what a pipe gets.
    os.environ.pop("COLUMNS", None)
    if config.getoption("--quick"):
        settings.load_profile(QUICK)
    elif config.getoption("--exhaustive"):
        settings.load_profile(EXHAUSTIVE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    print_decided(terminalreporter)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = set() if config.getoption("--exhaustive") else {"exhaustive"}
    if config.getoption("--quick"):
        left_out |= {"slow", "alone"}
    gone = {item for item in items if any(map(item.get_closest_marker, left_out))}
    if gone:
        config.hook.pytest_deselected(items=[*gone])
        items[:] = [item for item in items if item not in gone]
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def no_process_when_quick(request: pytest.FixtureRequest) -> Iterator[None]:
    """Told where a process is started: no test needs a mark for it, so none can lack one."""
    plain = subprocess.Popen.__init__

    def start(process: subprocess.Popen[Any], command: Any, *more: Any, **options: Any) -> None:
        if not isinstance(command, str) and sys.executable in map(str, command):
            pytest.skip("starts a Python process")
        plain(process, command, *more, **options)

    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--quick"):
            patch.setattr(subprocess.Popen, "__init__", start)
        yield


@pytest.fixture(scope="session")
def rank_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankServer]:
    """For all gangs of all tests: starting one takes seconds. Ranks import what tests can."""
    with RankServer(tmp_path_factory.mktemp("server") / "server.log", PRELOAD) as server:
        yield server


@pytest.fixture(scope="module")
def warm(rank_server: RankServer) -> Iterator[None]:
    """Commands that would start a rank server of their own use the one that runs."""
    with pytest.MonkeyPatch.context() as patch:
        modules = ("ablation", "attacks", "job", "plan", "train", "training")
        for module in (*(f"cli.{name}_command" for name in modules), "experiments.experiment"):
            name = f"runner.{module}.RankServer"
            patch.setattr(name, lambda log, preload=(): nullcontext(rank_server))
        yield


@pytest.fixture(scope="session")
def vnncomp2022(request: pytest.FixtureRequest) -> Path:
    """Folder of the VNN-COMP 2022 data (`benchmarks/`, `truth.csv`); skips where it is absent."""
    return _vnncomp(request, "vnncomp2022")


@pytest.fixture(scope="session")
def vnncomp_later(request: pytest.FixtureRequest) -> Path:
    """Folder of later years' categories (`vnncomp2023/`, `truth.csv`); skips where it is absent."""
    return _vnncomp(request, "vnncomp_later")


def _vnncomp(request: pytest.FixtureRequest, name: str) -> Path:
    if request.config.getoption("--quick"):
        pytest.skip("reads data of VNN-COMP")
    variable = name.upper()
    folder = Path(os.environ.get(variable, REPOSITORY.parent / "shared" / name))
    if not (folder / "truth.csv").is_file():
        pytest.skip(f"data of VNN-COMP are absent (set {variable} to their folder)")
    return folder


@pytest.fixture(scope="session")
def random_wide() -> Path:
    """The category whose network is not stored: made where set-up has not made it."""
    folder = REPOSITORY / "benchmarks" / "random_wide"
    if not any(folder.glob("onnx/*.onnx")):
        from runner.training.categories.random_wide import write_random_wide

        write_random_wide(folder)
    return folder
