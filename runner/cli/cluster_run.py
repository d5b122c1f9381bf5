"""`vnncomp-runner run --on …`: the part of the command that deals with a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import typer
from rich.console import Console
from rich.text import Text

from runner.cli.cluster_progress import ClusterProgress
from runner.contract.errors import UsageError
from runner.execute.cluster.cluster_kinds import CLUSTERS
from runner.execute.cluster.placement import Placement, placement_of
from runner.record.folder import RunFolder
from runner.record.manifest import Command
from runner.record.shards import SHARDS
from runner.run.cut import asked_of
from runner.run.install import install_verifiers
from runner.run.plan import Task
from runner.run.spread import prepare_shards, spread

SHARD = (sys.executable, "-m", "runner.cli", "shard")
DEFAULT_SHARDS = 4


def cut_command(command: Command, tasks: Sequence[Task]) -> Command:
    """With no more shards than there are instances. Raises UsageError for options that clash."""
    if command.on is None:
        if command.shards or command.placement:
            raise UsageError("--shards and --cluster need --on slurm, --on ray or --on local")
        return command
    if command.machines:
        raise UsageError(
            "--machine spreads each gang, --on the run: give one of them; a shard runs its gangs "
            "on one node"
        )
    placement_of(command.placement)
    instances = len({asked_of(task) for task in tasks})
    return replace(command, shards=min(command.shards or DEFAULT_SHARDS, instances))


def run_on_cluster(tasks: Sequence[Task], folder: RunFolder, out: Console) -> None:
    """Every shard, until it is finished; see `runner.run.spread.spread`."""
    command = folder.manifest.command
    if command.on is None:
        raise UsageError(f"{folder.path} is no run over a cluster")
    placement = _with_cores(placement_of(command.placement), tasks)
    cluster = CLUSTERS[command.on](folder.path.absolute() / SHARDS / "jobs", placement)

    def say(line: str) -> None:
        out.print(Text(line), soft_wrap=True)

    install_verifiers(tasks, folder, say, command.device)
    prepare_shards(tasks, folder)
    say(f"{command.shards} shards of {len(tasks)} questions on {command.on}: {folder.path}")
    try:
        with ClusterProgress(out, len(tasks)) as progress:
            spread(folder, cluster, SHARD, progress)
    except KeyboardInterrupt:
        typer.echo(
            "\nInterrupted: shards that waited or ran are cancelled, what they recorded is kept. "
            f"To go on: {folder.resume_command}",
            err=True,
        )
        raise


def _with_cores(placement: Placement, tasks: Sequence[Task]) -> Placement:
    """A core for every rank, where nothing else was asked."""
    return placement if placement.cpus else replace(placement, cpus=max(t.ranks for t in tasks))
