"""`run --on`: real processes, a real SLURM and a real Ray, which lose shards in the middle."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from examples import rest
from slurm import NODES, missing, slurm
from typer.testing import CliRunner

from runner import __version__
from runner.cli.app import app
from runner.record.manifest import Status, read_manifest
from runner.record.read import read_run
from runner.record.shards import SHARDS
from runner.run import spread

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
            cwd=category.parent,
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


@pytest.mark.exhaustive
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


@contextmanager
def no_room(folder: Path) -> Iterator[None]:
    """As if the folder lay on a disk of its own, which is full; needs root."""
    aside = folder.with_name("aside")
    shutil.copytree(folder, aside)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        with pytest.raises(OSError, match="No space left"):
            (folder / "filler").write_bytes(bytes(2**23))
        yield
        (folder / "filler").unlink()
        shutil.copytree(folder, aside, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    shutil.copytree(aside, folder, dirs_exist_ok=True)
    shutil.rmtree(aside)


@pytest.mark.exhaustive
def test_a_full_disk_ends_one_shard_and_the_same_command_goes_on(category: Path) -> None:
    running = Running(category, "local")
    running.until(lambda: running.recorded(0) > 0 and running.recorded(1) > 0)
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 130
    before = running.recorded(1)
    assert 0 < before < INSTANCES // 2
    with no_room(running.run / SHARDS / "0001"):
        code, output = Running(category, "local").end()
        assert code == 6
        said = r"shard 1 ended with exit code 3 and is given up: .*no room left for .*shards/0001"
        assert re.search(said, output), output
        assert running.recorded(1) == before
        assert running.recorded(0) == INSTANCES // 2, "the other shard is not disturbed"
    code, output = Running(category, "local").end()
    assert code == 0, output
    assert_every_row_is_there_once(running.run)


def test_a_node_with_another_version_is_refused_before_it_runs_anything(category: Path) -> None:
    other = category.parent / "other"
    shutil.copytree(REPOSITORY / "runner", other / "runner")
    version = other / "runner" / "__init__.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', '"9.9.9"'))
    running = Running(category, "local", "--cluster", f"setup=export PYTHONPATH={other}")
    code, output = running.end()
    assert code == 2
    assert f"vnncomp-runner 9.9.9 there, {__version__} in run.json" in output
    assert running.recorded(0) == running.recorded(1) == 0


@pytest.fixture(scope="module")
def slurm_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two, and one that does not see the folder that this gives."""
    if missing():
        pytest.skip(missing())
    with slurm(tmp_path_factory.mktemp("slurm")) as hidden:
        yield hidden


def job_of(running: Running, shard: int) -> str:
    found: dict[str, str] = json.loads((running.run / SHARDS / "jobs.json").read_text())
    return found[str(shard)]


@pytest.mark.slow
def test_slurm_a_killed_shard_a_cancelled_job_and_a_node_that_goes_down(
    category: Path, slurm_nodes: Path
) -> None:
    running = Running(category, "slurm")
    running.until(lambda: running.recorded(0) > 0 and running.recorded(1) > 0)
    running.program(0).kill()
    subprocess.run(["scancel", job_of(running, 1)], check=True)
    running.until(lambda: not job_of(running, 1).endswith("_1"))
    running.until(lambda: running.runs(1))
    job = job_of(running, 1)
    queue = ["squeue", "--noheader", f"--job={job}", "--format=%N"]
    name = subprocess.run(queue, capture_output=True, text=True).stdout.strip()
    assert name in NODES
    node = ["scontrol", "update", f"nodename={name}"]
    subprocess.run([*node, "state=down", "reason=test"], check=True)
    running.until(lambda: job_of(running, 1) != job)
    subprocess.run([*node, "state=resume"])  # it may have come back by itself
    code, output = running.end()
    assert code == 0, output
    assert output.count("shard 0 ended with exit code -9; it is submitted again") == 1, output
    assert output.count("shard 1 ") == 2, output
    assert_every_row_is_there_once(running.run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("partition=nope", "invalid partition.*partitions: main"),
        ("gpus=3", "SLURM refuses the shards: Invalid generic resource"),
        *rest(("memory=9999", "Memory specification can not be satisfied")),
    ],
)
def test_slurm_what_it_refuses_is_said(
    asked: str, said: str, category: Path, slurm_nodes: Path
) -> None:
    code, output = Running(category, "slurm", "--cluster", asked).end()
    assert code == 2
    assert re.search(said, output), output


@pytest.mark.slow
def test_slurm_a_folder_that_nodes_do_not_see_is_said(
    category: Path, slurm_nodes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "SEEN_WITHIN_S", 0.5)
    asked = ("--results", str(slurm_nodes), "--cluster", "partition=blind", "--shards", "1")
    result = CliRunner().invoke(app, command(category, "slurm", *asked)[3:])
    assert result.exit_code == 6
    assert f"do nodes see {slurm_nodes}/run? --results must name a folder" in result.output


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
    # The other shard may begin when this one has ended.
    running.until(lambda: running.recorded(1) > 0)
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


def test_a_ray_that_is_not_there_is_said(category: Path) -> None:
    pytest.importorskip("ray")
    code, output = Running(category, "ray", "--cluster", "address=127.0.0.1:1").end()
    assert code == 2
    assert "no Ray cluster at 127.0.0.1:1" in output
    assert "start one with `ray start --head`, or name it by --cluster address=" in output


def test_a_slurm_that_is_not_there_is_said(category: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, output = Running(category, "slurm").end()
    assert code == 2
    assert "no sbatch and no srun and no squeue on this machine; run this where jobs" in output
