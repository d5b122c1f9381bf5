"""`run --on`: real processes, a real SLURM and a real Ray, which lose shards in the middle."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from examples import rest
from slurm import missing, slurm

from runner.record.manifest import Status, read_manifest
from runner.record.read import read_run
from runner.record.shards import SHARDS

pytestmark = pytest.mark.alone

REPOSITORY = Path(__file__).resolve().parent.parent
NETWORK = REPOSITORY / "benchmarks" / "digits_cnn" / "onnx" / "cnn.onnx"
PROPERTY = REPOSITORY / "benchmarks" / "digits_cnn" / "vnnlib" / "image_15_radius_0.05.vnnlib"
INSTANCES, WITHIN_S = 40, 120.0


@pytest.fixture
def category(tmp_path: Path) -> Path:
    """Instances that `null` answers at once: there is always one that is under way."""
    pytest.importorskip("submitit")
    folder = tmp_path / "nulls"
    folder.mkdir()
    shutil.copy(NETWORK, folder / "net.onnx")
    for number in range(INSTANCES):
        (folder / f"p{number}.vnnlib").symlink_to(PROPERTY)
    rows = (f"net.onnx,p{number}.vnnlib,10\n" for number in range(INSTANCES))
    (folder / "instances.csv").write_text("".join(rows))
    return folder


def command(category: Path, on: str, *more: str) -> list[str]:
    words = [sys.executable, "-m", "runner.cli", "run", str(category), "--strategies", "null"]
    words += ["--on", on, "--shards", "2", "--run", "run"]
    return [*words, "--results", str(category.parent / "results"), *more]


class Running:
    """The command, under way."""

    def __init__(self, category: Path, on: str, *more: str) -> None:
        self.run = category.parent / "results" / "run"
        self.words = command(category, on, *more)
        self.process = subprocess.Popen(
            self.words,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def recorded(self, shard: int) -> int:
        table = self.run / SHARDS / f"{shard:04d}" / "outcomes.csv"
        return max(table.read_bytes().count(b"\n") - 1, 0) if table.exists() else 0

    def until(self, condition: Callable[[], object]) -> None:
        give_up = time.monotonic() + WITHIN_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"it did not come so far: {self.end()[1]}")
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=WITHIN_S)
        return self.process.returncode, output

    def runs(self, shard: int) -> bool:
        try:
            return self.program(shard).is_running()
        except LookupError:
            return False

    def program(self, shard: int) -> psutil.Process:
        """The process that runs a shard on its node, which here is this machine."""
        words = ["shard", str(self.run), str(shard)]
        for process in psutil.process_iter(["cmdline"]):
            if (process.info["cmdline"] or [])[-3:] == words and process.name() != "bash":
                return process
        raise LookupError(f"nothing runs shard {shard}")


def assert_every_row_is_there_once(run: Path) -> None:
    read = read_run(run)
    assert sorted(read.outcomes["property"]) == sorted(f"p{n}.vnnlib" for n in range(INSTANCES))
    assert read_manifest(run).status is Status.FINISHED
    assert {node.shard for node in read.manifest.nodes} == {0, 1}
    whole = (run / "outcomes.csv").read_text().splitlines()
    assert len(whole) == len(set(whole)) == INSTANCES + 1


def test_a_killed_shard_goes_on_and_a_second_command_is_kept_out(category: Path) -> None:
    running = Running(category, "local")
    running.until(lambda: running.recorded(0) > 0)
    running.program(0).kill()
    second = subprocess.run(running.words, capture_output=True, text=True)
    assert second.returncode == 4
    assert "in use by another run" in second.stderr
    code, output = running.end()
    assert code == 0, output
    assert "shard 0 ended with exit code -9; it is submitted again" in output
    assert_every_row_is_there_once(running.run)


def test_an_interrupt_ends_every_shard_and_the_same_command_goes_on(category: Path) -> None:
    running = Running(category, "local", "--cluster", "at_once=1")
    running.until(lambda: running.recorded(0) > 0)
    shard = running.program(0)
    running.process.send_signal(signal.SIGINT)
    code, output = running.end()
    assert code == 130
    assert "To go on: vnncomp-runner run" in output
    assert {"--cluster at_once=1", "--on local", "--shards 2"} <= set(
        re.findall(r"--(?:cluster|on|shards) \S+", output)
    )
    psutil.wait_procs([shard], 30)
    assert not shard.is_running()
    assert running.recorded(1) == 0, "what waited never started"
    again = subprocess.run(running.words, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert_every_row_is_there_once(running.run)


@pytest.fixture(scope="module")
def one_node_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if missing():
        pytest.skip(missing())
    with slurm(tmp_path_factory.mktemp("slurm")):
        yield


def job_of(running: Running, shard: int) -> str:
    found: dict[str, str] = json.loads((running.run / SHARDS / "jobs.json").read_text())
    return found[str(shard)]


@pytest.mark.slow
def test_slurm_a_cancelled_job_and_a_node_that_goes_down(
    category: Path, one_node_slurm: None
) -> None:
    running = Running(category, "slurm")
    running.until(lambda: running.recorded(0) > 0 and running.recorded(1) > 0)
    subprocess.run(["scancel", job_of(running, 1)], check=True)
    running.until(lambda: not job_of(running, 1).endswith("_1"))
    running.until(lambda: running.runs(1))
    host = socket.gethostname().partition(".")[0]
    node = ["scontrol", "update", f"nodename={host}"]
    subprocess.run([*node, "state=down", "reason=test"], check=True)
    time.sleep(2)
    subprocess.run([*node, "state=resume"])  # it may have come back by itself
    code, output = running.end()
    assert code == 0, output
    assert output.count("shard 1 ") == 2, output
    assert output.count("it is submitted again") >= 2
    assert_every_row_is_there_once(running.run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("partition=nope", "invalid partition.*partitions: main"),
        *rest(
            ("memory=9999", "Memory specification can not be satisfied"),
            ("gpus=3", "SLURM refuses the shards: Invalid generic resource"),
        ),
    ],
)
def test_slurm_what_it_refuses_is_said(
    asked: str, said: str, category: Path, one_node_slurm: None
) -> None:
    code, output = Running(category, "slurm", "--cluster", asked).end()
    assert code == 2
    assert re.search(said, output), output


@pytest.fixture(scope="module")
def two_node_ray() -> Iterator[str]:
    # Ray's own patience with a node that starts is 30 s.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 80_000_000}
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **store}
    )
    cluster.add_node(num_cpus=1, **store)
    yield str(cluster.address)
    cluster.shutdown()


@pytest.mark.slow
def test_ray_a_killed_shard_goes_on(category: Path, two_node_ray: str) -> None:
    running = Running(category, "ray", *("--ranks", "1", "--cluster", f"address={two_node_ray}"))
    running.until(lambda: running.recorded(0) > 0 and running.recorded(1) > 0)
    program = running.program(1)
    worker = program.parent()
    assert worker is not None
    worker.kill()
    code, output = running.end()
    assert code == 0, output
    assert "shard 1 was lost; it is submitted again" in output
    assert_every_row_is_there_once(running.run)


@pytest.mark.slow
def test_ray_a_shard_that_fits_no_node_is_refused(category: Path, two_node_ray: str) -> None:
    asked = ("--cluster", f"address={two_node_ray}", "--cluster", "cpus=64")
    code, output = Running(category, "ray", *asked).end()
    assert code == 2
    assert "no node of the Ray cluster has 64 CPU" in output


def test_a_cluster_that_is_not_there_is_said(
    category: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, output = Running(category, "slurm").end()
    assert code == 2
    assert "no sbatch and no srun and no squeue on this machine; run this where jobs" in output
