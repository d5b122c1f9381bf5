"""`vnncomp-runner shard`: what a cluster runs on a node. Not for people."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from runner.cli.progress import RunProgress
from runner.cli.terminal import console, exit_codes
from runner.contract.limits import die_with_parent
from runner.execute.gang import RankServer
from runner.run.schedule import schedule
from runner.run.shard import open_shard
from runner.run.spread import shared_networks

PARENT = "VNNCOMP_RUNNER_PARENT"


def shard(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    number: Annotated[int, typer.Argument(help="Of the shard.")],
) -> None:
    """Run one shard of a run on this node; the command that submitted it reads along."""
    parent = os.environ.get(PARENT)
    if parent:
        die_with_parent(int(parent))
    out = console()
    with exit_codes(), open_shard(run, number) as (folder, tasks):
        known = [folder.done[task.key()] for task in tasks if task.key() in folder.done]
        server = RankServer(folder.path / "logs" / "server.log")
        of_ours = any(task.verifier is None for task in tasks)
        with (
            server if of_ours else nullcontext(),
            RunProgress(out, len(tasks), known) as progress,
        ):
            command = folder.manifest.command
            schedule(tasks, command, folder, server, progress, networks=shared_networks(run))
