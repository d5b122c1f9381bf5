"""Ranks that share nothing but a TCP address: two folders, or two network namespaces."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from examples import rest
from typer.testing import CliRunner

from runner.cli.app import app
from runner.contract.question import Report
from runner.contract.shell import report_path
from runner.contract.vocabulary import Verdict
from runner.contract.wire import report_from_json, to_json
from runner.verifiers.strategies import strategy_named

REPOSITORY = Path(__file__).resolve().parents[2]
CATEGORY = REPOSITORY / "benchmarks" / "digits_cnn"
NETWORK, PROPERTY = "onnx/cnn.onnx", "vnnlib/image_15_radius_0.05.vnnlib"
MACHINES = 2
RANK = ("-m", "runner.engine.torchrun")


@pytest.fixture(scope="module")
def ready(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command `job` leaves on one machine, beside the instance's own files."""
    folder = tmp_path_factory.mktemp("ready")
    for name in (NETWORK, PROPERTY):
        shutil.copy(CATEGORY / name, folder)
    files = [str(folder / Path(name).name) for name in (NETWORK, PROPERTY)]
    options = ["--ranks", str(MACHINES), "--timeout", "60", "--method", "alpha-crown"]
    made = CliRunner().invoke(app, ["job", *files, str(folder), *options])
    assert made.exit_code == 0, made.output
    return folder


def machines(ready: Path, folder: Path, strategy: str) -> list[Path]:
    """A copy for each machine: they share no file."""
    copies = [folder / f"machine{number}" for number in range(MACHINES)]
    for copy in copies:
        shutil.copytree(ready, copy)
        job = json.loads((copy / "job.json").read_text().replace(str(ready), str(copy)))
        (copy / "job.json").write_text(
            json.dumps({**job, "strategy": to_json(strategy_named(strategy))})
        )
    return copies


def environment(**more: str) -> dict[str, str]:
    """Without the name of an interface: ranks find the one that reaches the others."""
    kept = {name: value for name, value in os.environ.items() if name != "GLOO_SOCKET_IFNAME"}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **more}


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def reports(copies: Sequence[Path], ranks: Sequence[subprocess.Popen[bytes]]) -> list[Report]:
    try:
        assert [rank.wait(timeout=90) for rank in ranks] == [0] * MACHINES
    finally:
        for rank in ranks:
            rank.kill()
    return [
        report_from_json(json.loads(report_path(copy, rank).read_text()))
        for rank, copy in enumerate(copies)
    ]


def assert_verified_together(reports: Sequence[Report], ready: Path) -> None:
    whole_bytes = (ready / "network0.safetensors").stat().st_size
    assert [report.verdict for report in reports] == [Verdict.UNSAT] * MACHINES
    assert len({report.lower_bound for report in reports}) == 1
    assert all((report.measured.comm_bytes or 0) > 0 for report in reports)
    assert all((report.measured.weight_bytes or whole_bytes) < whole_bytes for report in reports)


@pytest.mark.parametrize("strategy", ["tp", *rest("fsdp")])
def test_two_machines_that_share_only_an_address(
    strategy: str, ready: Path, tmp_path: Path
) -> None:
    """Nor the order that a set of names has in a process."""
    copies, free = machines(ready, tmp_path, strategy), port()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(MACHINES)]
    address = ["--master-addr", "127.0.0.1", "--master-port", free, "--nproc-per-node", "1"]
    ranks = [
        subprocess.Popen(
            [*torchrun, "--node-rank", str(rank), *address, *RANK, str(copy / "job.json")],
            env=environment(PYTHONHASHSEED=str(rank + 1)),
        )
        for rank, copy in enumerate(copies)
    ]
    assert_verified_together(reports(copies, ranks), ready)


def test_two_network_namespaces_without_naming_an_interface(ready: Path, tmp_path: Path) -> None:
    copies, free = machines(ready, tmp_path, "tp"), port()
    with namespaces() as prefix:
        ranks = [
            subprocess.Popen(
                [*prefix[rank], sys.executable, *RANK, str(copy / "job.json")],
                env=environment(
                    RANK=str(rank),
                    WORLD_SIZE=str(MACHINES),
                    LOCAL_RANK="0",
                    MASTER_ADDR="10.213.77.1",
                    MASTER_PORT=free,
                ),
            )
            for rank, copy in enumerate(copies)
        ]
        assert_verified_together(reports(copies, ranks), ready)


@contextmanager
def namespaces() -> Iterator[list[list[str]]]:
    """Two, joined by a cable: what to put before a command that runs in each. Needs root."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command `ip`")
    names = [f"vnnr{os.getpid()}m{number}" for number in range(MACHINES)]
    cables = [f"vr{os.getpid() % 10**6}c{number}" for number in range(MACHINES)]
    made: list[str] = []
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
                pytest.skip("network namespaces cannot be made here")
            made.append(name)
        _ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True)):
            _ip("link", "set", cable, "netns", name)
            _ip("-n", name, "addr", "add", f"10.213.77.{number + 1}/24", "dev", cable)
            _ip("-n", name, "link", "set", cable, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in made:
            _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
