"""`run --machine`: a gang over two machines has rows, a deadline and causes like any other."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import targets
from slurm import NODES, missing, slurm
from test_several_machines import namespaces

from runner.contract.errors import UsageError
from runner.execute.by_torchrun import Machine, Torchrun
from runner.execute.executor import Ending, Gang, GangResult
from runner.execute.gang import RankServer
from runner.execute.started_rank import BEGIN_WITHIN_S
from runner.record.folder import open_run
from runner.record.manifest import Command
from runner.record.read import read_run
from runner.run.plan import plan
from runner.run.schedule import schedule

pytestmark = [pytest.mark.alone, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
CATEGORY = REPOSITORY / "benchmarks" / "digits_cnn"
HERE = [Machine("127.0.0.1"), Machine("127.0.0.1")]


class Silent:
    def started(self, task: object) -> None:
        pass

    def recorded(self, outcome: object) -> None:
        pass


def gang(folder: Path, name: str, timeout_s: float, **payload: object) -> Gang:
    return Gang(f"{targets.__name__}:{name}", payload, 2, folder / "gang", timeout_s, grace_s=0.5)


@pytest.fixture
def over_two(rank_server: RankServer) -> Torchrun:
    return Torchrun(HERE, rank_server)


def test_two_network_namespaces_leave_rows_like_one_machine(
    rank_server: RankServer, tmp_path: Path
) -> None:
    command = Command((str(CATEGORY),), ("baseline", "fsdp"), 2, limit=1, timeout_s=60)
    tasks = plan(command)
    with namespaces() as prefixes:
        machines = [
            Machine(f"10.213.77.{number + 1}", tuple(prefix))
            for number, prefix in enumerate(prefixes)
        ]
        with (
            Torchrun(machines, rank_server) as executor,
            open_run(tmp_path, command, len(tasks)) as folder,
        ):
            schedule(tasks, command, folder, executor, Silent())
    run = read_run(folder.path)
    assert run.outcomes["verdict"].nunique() == 1
    assert list(run.outcomes["strategy"]) == ["baseline", "fsdp"]
    assert run.outcomes["lower_bound"].nunique(dropna=False) == 1
    fsdp = run.ranks[run.ranks["strategy"] == "fsdp"]
    assert list(fsdp["rank"]) == [0, 1]
    assert (fsdp["comm_bytes"] > 0).all()


@contextmanager
def by_namespace(folder: Path) -> Iterator[tuple[list[str], list[str]]]:
    with namespaces() as prefixes:
        yield [], [f"10.213.77.{n + 1}={shlex.join(prefix)}" for n, prefix in enumerate(prefixes)]


@contextmanager
def by_srun(folder: Path) -> Iterator[tuple[list[str], list[str]]]:
    if missing():
        pytest.skip(missing())
    there = "srun --nodes 1 --ntasks 1 --overlap --nodelist"
    with slurm(folder):
        yield ["salloc", "--nodes", "2"], [f"127.0.0.1={there} {node}" for node in NODES]


class Saboteur(threading.Thread):
    """Sends rank 1 of each gang below a folder, in turn, one of the signals, or nothing.

    `nodes`: of SLURM, on which ranks were seen.
    """

    def __init__(self, folder: Path, signals: Sequence[int]) -> None:
        super().__init__(daemon=True)
        self.nodes: set[str] = set()
        self.ended = threading.Event()
        self._folder = folder
        self._signals = signals

    def run(self) -> None:
        met: dict[int, float] = {}
        sent: set[int] = set()
        while not self.ended.wait(0.05):
            for rank in _ranks_below(self._folder):
                with suppress(psutil.Error):  # it ended meanwhile
                    self._meet(rank, met, sent)

    def _meet(self, rank: psutil.Process, met: dict[int, float], sent: set[int]) -> None:
        variables = rank.environ()
        self.nodes |= {variables.get("SLURMD_NODENAME", "")} - {""}
        began = Path(rank.cmdline()[-1]).with_name("rank1.began")
        if variables.get("RANK") != "1" or not began.exists():
            return
        since = met.setdefault(rank.pid, time.monotonic())
        if rank.pid not in sent and time.monotonic() > since + 0.5:
            rank.send_signal(self._signals[len(sent)])
            sent.add(rank.pid)


UNHARMED, HANGS, KILLED = 0, signal.SIGSTOP, signal.SIGKILL
CAUSES = {UNHARMED: "deadline", HANGS: "killed_at_deadline", KILLED: "rank_died"}


@pytest.mark.parametrize(
    ("reached", "signals"),
    [
        pytest.param(by_namespace, (HANGS, KILLED), id="namespaces"),
        pytest.param(by_srun, (UNHARMED, HANGS, KILLED), id="srun", marks=pytest.mark.exhaustive),
    ],
)
def test_a_deadline_a_rank_that_hangs_and_one_that_is_killed_are_causes_of_rows(
    reached: Callable[[Path], AbstractContextManager[tuple[list[str], list[str]]]],
    signals: Sequence[int],
    tmp_path: Path,
) -> None:
    """The instance takes longer than its timeout; each repeat of it is a gang."""
    saboteur = Saboteur(tmp_path, signals)
    slurms = tmp_path / "slurm"
    slurms.mkdir()
    words = ["run", str(CATEGORY), "--filter", "*image_15_radius_0.15*", "--strategies", "fsdp"]
    words += [
        "--ranks",
        "2",
        "--repeat",
        str(len(signals)),
        "--timeout",
        "3",
        "--results",
        str(tmp_path),
    ]
    with reached(slurms) as (before, machines):
        saboteur.start()
        options = [word for machine in machines for word in ("--machine", machine)]
        command = [*before, sys.executable, "-m", "runner.cli", *words, "--run", "run", *options]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        saboteur.ended.set()
        saboteur.join()
        left = list(_ranks_below(tmp_path))
    assert (tmp_path / "run" / "outcomes.csv").exists(), ran.stdout + ran.stderr
    run = read_run(tmp_path / "run")
    outcomes = run.outcomes.sort_values("repeat")
    said = list(outcomes["cause"])
    assert said == [CAUSES[sent] for sent in signals], outcomes["message"].tolist()
    assert list(outcomes["verdict"])[-2:] == ["timeout", "error"]
    unharmed = run.ranks[run.ranks["repeat"] <= signals.count(UNHARMED)]
    assert list(unharmed["rank"]) == [0, 1] * signals.count(UNHARMED)
    assert (unharmed["comm_bytes"] > 0).all()
    assert not left
    assert saboteur.nodes == (set(NODES) if before else set())


def _ranks_below(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        whole = words[-1].startswith(str(folder)) and words[-1].endswith("gang.json")
        if whole and "torch.distributed.run" not in words:
            yield process


def test_what_does_not_end_is_killed_at_the_deadline_which_counts_from_the_last_rank(
    over_two: Torchrun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rank 1 begins seconds after rank 0, at whose own deadline the gang's has not come."""
    late = "import os, time\n\ntime.sleep(4 * int(os.environ['RANK']))\nfrom targets import *\n"
    (tmp_path / "late.py").write_text(late)
    monkeypatch.syspath_prepend(tmp_path)
    hung = gang(tmp_path, "ignore_term", 0.5, seconds=600)
    with over_two:
        result = over_two.submit(replace(hung, target="late:ignore_term")).result()
    assert result.ended is Ending.KILLED_AT_DEADLINE
    assert result.reports == (None, None)
    assert not _ranks(tmp_path)


@pytest.mark.exhaustive
def test_a_killed_rank_ends_the_gang_and_is_named(over_two: Torchrun, tmp_path: Path) -> None:
    def kill() -> None:
        give_up = time.monotonic() + 90
        while not (tmp_path / "gang" / "rank1.began").exists():
            assert time.monotonic() < give_up
            time.sleep(0.05)
        time.sleep(0.5)
        for rank in _ranks(tmp_path):
            if rank.environ().get("RANK") == "1":
                os.kill(rank.pid, signal.SIGKILL)

    fault = threading.Thread(target=kill)
    fault.start()
    with over_two:
        result: GangResult = over_two.submit(gang(tmp_path, "sleep", 600, seconds=600)).result()
    fault.join()
    assert result.ended is Ending.RANK_DIED
    assert result.run_time_s < 60
    assert "torchrun ended with exit codes" in result.how
    assert not _ranks(tmp_path)


@pytest.mark.exhaustive
def test_a_rank_that_dies_before_it_begins_keeps_no_other_one_waiting(
    over_two: Torchrun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dies = "import os\n\nassert os.environ['RANK'] == '0'\nfrom targets import *\n"
    (tmp_path / "dies.py").write_text(dies)
    monkeypatch.syspath_prepend(tmp_path)
    asked = replace(gang(tmp_path, "sleep", 600, seconds=600), target="dies:sleep")
    began = time.monotonic()
    with over_two:
        result = over_two.submit(asked).result()
    assert result.ended is Ending.RANK_DIED
    assert result.reports == (None, None)
    assert time.monotonic() - began < BEGIN_WITHIN_S / 2
    assert not _ranks(tmp_path)


def _ranks(folder: Path) -> list[psutil.Process]:
    """Processes of the gang in `folder`, torchrun itself apart."""
    file = str(folder / "gang" / "gang.json")
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[-1:] == [file]
        and "torch.distributed.run" not in process.info["cmdline"]
    ]


def test_ranks_that_machines_cannot_share_equally_are_refused(rank_server: RankServer) -> None:
    with (
        Torchrun(HERE, rank_server) as executor,
        pytest.raises(UsageError, match="3 ranks on 2 machines"),
    ):
        executor.submit(Gang("targets:echo", {}, 3, Path("gang"), 1.0))


def test_a_machine_is_an_address_and_a_command() -> None:
    word = "node2=srun --nodes=1 --nodelist=node2"
    assert Machine.of(word) == Machine("node2", ("srun", "--nodes=1", "--nodelist=node2"))
    with pytest.raises(UsageError, match="ADDRESS=COMMAND is expected"):
        Machine.of("=ssh")
