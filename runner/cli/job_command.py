"""`vnncomp-runner job`: one instance made ready for ranks that torchrun starts."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
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
from runner.contract.vocabulary import Cause, Device, Method
from runner.contract.whole import replace_file
from runner.contract.wire import question_to_json
from runner.execute.gang import RankServer
from runner.problem.files import read_bytes
from runner.problem.instances import Instance
from runner.run.prepare import Preparer
from runner.run.single import Posed, posed
from runner.verifiers.strategies import AUTO

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

    def posed(self) -> Posed:
        """Raises UsageError as `verify` does, and for a strategy that fits only this machine."""
        if self.strategy == AUTO:
            raise UsageError(f"strategy {AUTO} chooses for one machine; name one for all of them")
        return posed(
            self.network,
            self.property_file,
            timeout=self.timeout,
            strategy=self.strategy,
            ranks=self.ranks,
            method=self.method,
            device=self.device,
            seed=self.seed,
            work_memory_mib=self.work_memory,
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
        wanted, folder = asked.posed(), asked.folder
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder)
        with RankServer(folder / "server.log") as server:
            preparer = Preparer(server, folder.absolute(), None)
            done = preparer.prepare(wanted.instance, folder / "prepare")
        if done.failure:
            raise UsageError(f"{done.failure.cause}: {done.failure.message}")
        made = replace(
            wanted.question,
            prepared=str(done.prepared),
            fitted=str(done.fitted or ""),
            counterexample=str(folder.absolute() / _COUNTEREXAMPLE),
            files=_digest(wanted.instance),
        )
        replace_file(folder / _JOB, json.dumps(question_to_json(made), indent=2) + "\n")
        typer.echo(f"{folder / _JOB} is ready for {made.ranks} rank(s): -m runner.engine.torchrun")


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
