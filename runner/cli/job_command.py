"""`vnncomp-runner job`: one instance made ready for ranks that torchrun starts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.options import (
    ChosenDevice,
    ChosenMethod,
    Network,
    Ranks,
    Seed,
    WorkMemory,
    taking,
)
from runner.cli.terminal import exit_codes
from runner.contract.errors import UsageError
from runner.contract.question import Question
from runner.contract.vocabulary import Cause, Device, Method
from runner.contract.whole import replace_file
from runner.contract.wire import question_to_json
from runner.execute.gang import RankServer
from runner.problem.files import read_bytes
from runner.problem.instances import Instance
from runner.run.prepare import Preparer
from runner.verifiers.strategies import strategy_named

_JOB, _COUNTEREXAMPLE = "job.json", "counterexample.gz"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What `job` is asked; the help of an option says what it is."""

    network: Network
    property_file: Annotated[Path, typer.Argument(metavar="PROPERTY", help="VNN-LIB file.")]
    folder: Annotated[Path, typer.Argument(help="Where job.json and the network are written.")]
    strategy: Annotated[str, typer.Option(help="One strategy, or a layout such as tp=2,sp=2.")] = (
        "fsdp"
    )
    ranks: Ranks = 2
    timeout: Annotated[float, typer.Option(metavar="SECONDS")] = 300.0
    method: ChosenMethod = Method.COMPLETE
    device: ChosenDevice = Device.AUTO
    seed: Seed = 0
    work_memory: WorkMemory = None

    def instance(self) -> Instance:
        """As a row of an instances.csv that has no category."""
        return Instance(
            category="",
            network=self.network.absolute(),
            property=self.property_file.absolute(),
            timeout_s=self.timeout,
            network_name=self.network.name,
            property_name=self.property_file.name,
            source=self.folder,
            line=1,
        )


@taking(JobOptions)
def job(asked: JobOptions) -> None:
    """Write one instance as a job for torchrun, on every machine that takes part.

    \b
    Example, on each of two machines:
      vnncomp-runner job net.onnx prop.vnnlib job --strategy fsdp --ranks 4
      torchrun --nnodes 2 --node-rank 0 --nproc-per-node 2 \\
        --master-addr first.example --master-port 29500 -m runner.engine.torchrun job/job.json
    """
    with exit_codes():
        strategy, folder, row = strategy_named(asked.strategy), asked.folder, asked.instance()
        count = strategy.ranks_of(asked.ranks)
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder)
        with RankServer(folder / "server.log") as server:
            done = Preparer(server, folder.absolute(), None).prepare(row, folder / "prepare")
        if done.failure:
            raise UsageError(f"{done.failure.cause}: {done.failure.message}")
        made = Question(
            network=str(row.network),
            prepared=str(done.prepared),
            property=str(row.property),
            strategy=strategy,
            ranks=count,
            timeout_s=asked.timeout,
            method=asked.method,
            device=asked.device,
            seed=asked.seed,
            work_bytes=None if asked.work_memory is None else int(asked.work_memory * 2**20),
            counterexample=str(folder.absolute() / _COUNTEREXAMPLE),
            files=_digest(row),
        )
        replace_file(folder / _JOB, json.dumps(question_to_json(made), indent=2) + "\n")
        typer.echo(f"{folder / _JOB} is ready for {count} rank(s): -m runner.engine.torchrun")


def _clear(folder: Path) -> None:
    """What ranks said of an earlier job is no answer to this one."""
    for path in (folder / _JOB, folder / _COUNTEREXAMPLE, *folder.glob("rank*.json")):
        path.unlink(missing_ok=True)


def _digest(row: Instance) -> str:
    """Of what the files hold, whatever they are called and however packed."""
    digest = sha256()
    for path, cause in (
        (row.network, Cause.MALFORMED_NETWORK),
        (row.property, Cause.MALFORMED_PROPERTY),
    ):
        digest.update(sha256(read_bytes(path, cause)).digest())
    return digest.hexdigest()
