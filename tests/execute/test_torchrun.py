"""`run --machine`: a gang over two machines has rows, a deadline and causes like any other."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import targets
from test_several_machines import namespaces

from runner.contract.errors import UsageError
from runner.execute.by_torchrun import Machine, Torchrun
from runner.execute.executor import Ending, Gang, GangResult
from runner.execute.gang import RankServer
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
def over_two(rank_server: RankServer, monkeypatch: pytest.MonkeyPatch) -> Torchrun:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}:{Path(__file__).parent}")
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


@pytest.mark.exhaustive
def test_what_does_not_end_is_killed_at_the_deadline(over_two: Torchrun, tmp_path: Path) -> None:
    with over_two:
        result = over_two.submit(gang(tmp_path, "ignore_term", 0.5, seconds=600)).result()
    assert result.ended is Ending.KILLED_AT_DEADLINE
    assert result.reports == (None, None)
    assert not _ranks(tmp_path)


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
