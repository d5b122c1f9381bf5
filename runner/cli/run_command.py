"""`vnncomp-runner run`: categories under strategies, recorded in a run folder."""

from __future__ import annotations

import logging
import os
import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from runner.cli.cluster_run import DEFAULT_SHARDS, cut_command, run_on_cluster
from runner.cli.options import (
    ChosenAttack,
    ChosenDevice,
    ChosenMethod,
    Filter,
    Limit,
    Ranks,
    Repeat,
    Results,
    RunName,
    Seed,
    WorkMemory,
    taking,
)
from runner.cli.progress import RunProgress
from runner.cli.terminal import DISK_FULL, NO_REPORT, console, exit_codes
from runner.contract.errors import UsageError
from runner.contract.vocabulary import AttackKind, Device, Method, On
from runner.contract.workload import workload_of
from runner.execute.by_torchrun import over_machines
from runner.execute.gang import RankServer
from runner.record.append import is_disk_full
from runner.record.folder import RunFolder, open_run
from runner.record.manifest import Command
from runner.run.install import install_verifiers
from runner.run.plan import Task, plan
from runner.run.schedule import schedule
from runner.verifiers.named import named_tools
from runner.verifiers.strategies import NO_STRATEGY, STRATEGIES, strategy_names

if TYPE_CHECKING:
    from runner.report.gather import Evidence

_log = logging.getLogger(__name__)

EXIT_CODES = """\b
Exit codes:
  0    the run finished and has its report, whatever the verdicts
  2    wrong usage: a category, strategy or option that cannot be used
  3    the disk is full; the message says how to resume, or to make the report of a finished run
  4    another process writes to the run folder
  5    the run finished without its report; the message says why, and how to make it
  6    shards were lost again and again; the message says which, and how to go on
  130  interrupted (Ctrl-C or SIGTERM); the message says how to resume
"""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What `run` is asked; the help of an option says what it is."""

    categories: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[CATEGORY]...",
            help="Folders with instances.csv, or such files "
            "[default of run_benchmark.sh: the embedded ones].",
        ),
    ] = None
    strategies: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated: {', '.join(STRATEGIES)}, layouts with a degree for each "
            "axis, joined by +, such as tp=2+sp=2, or auto: chosen for this machine and each "
            "network. none: only other verifiers."
        ),
    ] = "baseline,tp,fsdp"
    verifier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Another verifier beside the strategies: a folder with VNN-COMP's three scripts, "
            "or an executable with the VNN-LIB 2.0 command line. May be given several times.",
        ),
    ] = None
    verifiers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A verifiers.toml: a table [NAME] for each, with folder or command, arguments "
            "and environment.",
        ),
    ] = None
    ranks: Ranks = 2
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Replaces the timeouts of instances.csv. A network is prepared once, which "
            "counts apart: it may take twice as long, at least 30 s and at most 600 s.",
        ),
    ] = None
    filter_glob: Filter = None
    limit: Limit = None
    results: Results = Path("results")
    name: RunName = None
    device: ChosenDevice = Device.AUTO
    seed: Seed = 0
    method: ChosenMethod = Method.COMPLETE
    attack: ChosenAttack = AttackKind.PGD
    memory_limit: Annotated[
        float | None,
        typer.Option(
            metavar="GIB",
            help="Memory that one rank may use: the GPU's on one, else the host's. Also what "
            "preparing a network may take [default for that: a quarter of the host's].",
        ),
    ] = None
    work_memory: WorkMemory = None
    repeat: Repeat = 1
    fixed_workload: Annotated[
        int | None,
        typer.Option(
            metavar="ROUNDS",
            help="The same work under every strategy, to compare its cost: so many rounds of "
            "branch and bound over all disjuncts, of --batch domains, without attack or early "
            "stop. Every verdict is `unknown`.",
        ),
    ] = None
    batch: Annotated[
        int | None,
        typer.Option(metavar="DOMAINS", help="Of a round of --fixed-workload; an even number."),
    ] = None
    on: Annotated[
        On | None,
        typer.Option(
            help="Cut the run into shards and let a cluster run them; local: side by side here. "
            "See docs/clusters.md."
        ),
    ] = None
    shards: Annotated[
        int, typer.Option(min=0, help=f"Of --on [default: {DEFAULT_SHARDS}].", show_default=False)
    ] = 0
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE|FILE",
            help="What each shard asks of its node: partition, account, cpus, gpus, memory (GiB), "
            "time_limit (minutes), at_once, setup, address; or a TOML file with these. May be "
            "given several times.",
        ),
    ] = None
    machine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS=COMMAND",
            help="Spread the ranks of each gang over machines, by torchrun: one option for each, "
            "with the command that runs another one there (srun, ssh). See docs/clusters.md.",
        ),
    ] = None

    def command(self) -> Command:
        """As run.json has it. Raises UsageError for options that say nothing together."""
        return Command(
            categories=tuple(map(os.path.abspath, self.categories or _default())),
            strategies=_strategies(self.strategies),
            ranks=self.ranks,
            timeout_s=self.timeout,
            filter=self.filter_glob,
            limit=self.limit,
            method=self.method,
            attack=self.attack,
            seed=self.seed,
            device=self.device,
            memory_limit_gib=self.memory_limit,
            work_memory_mib=self.work_memory,
            repeat=self.repeat,
            workload=workload_of(self.fixed_workload, self.batch),
            verifiers=named_tools(self.verifier or (), self.verifiers),
            on=self.on,
            shards=self.shards,
            placement=tuple(self.cluster or ()),
            machines=tuple(self.machine or ()),
        )


@taking(RunOptions)
def run(asked: RunOptions) -> None:
    """Run categories under strategies and compare them.

    A category without any of its files is left out, which is said before and after the run. The
    same command again resumes a run that was interrupted or killed, and starts a new one
    once it has finished.

    \b
    Examples:
      vnncomp-runner run benchmarks/mlp
      vnncomp-runner run mnist_fc --filter '*256x4*' --strategies baseline,fsdp,lirpa
      vnncomp-runner run mnist_fc oval21 --ranks 4 --timeout 60 --memory-limit 8
      vnncomp-runner run mnist_fc --filter '*256x6*' --fixed-workload 10 --batch 512
      vnncomp-runner run mnist_fc --strategies baseline --verifier marabou=tools/marabou
    """
    out = console()
    with exit_codes():
        command = asked.command()
        left_out: list[str] = []
        tasks = plan(command, left_out.append)
        _print_left_out(left_out, out)
        folder = _run(cut_command(command, tasks), tasks, asked.results, asked.name, out)
        _print_summary(folder.path, left_out, out)


def _strategies(option: str) -> tuple[str, ...]:
    """Each once; none for `none` or nothing."""
    if option.strip() in ("", NO_STRATEGY):
        return ()
    return strategy_names(option)


def _default() -> list[str]:
    """What run_benchmark.sh runs when it is given no category."""
    embedded = os.environ.get("VNNCOMP_RUNNER_DEFAULT")
    if not embedded:
        raise UsageError(
            "no CATEGORY: name a folder with instances.csv, or use ./run_benchmark.sh, "
            "which runs the embedded categories when it is given none"
        )
    return [embedded]


def _print_left_out(left_out: list[str], out: Console) -> None:
    for message in left_out:
        out.print(Text(message, style="yellow"), soft_wrap=True)


def _run(
    command: Command, tasks: list[Task], results: Path, name: str | None, out: Console
) -> RunFolder:
    with open_run(results, command, len(tasks), name) as folder:
        if command.on is not None:
            folder.take_options(command)
            run_on_cluster(tasks, folder, out)
            return folder
        known = [folder.done[task.key()] for task in tasks if task.key() in folder.done]
        if known:
            out.print(f"Resuming {folder.path}: {len(known)} of {len(tasks)} are done.")
        server = RankServer(folder.path / "logs" / "server.log")
        of_ours = any(task.verifier is None for task in tasks)
        try:
            install_verifiers(tasks, folder, partial(_print_line, out), command.device)
            with (
                server if of_ours else nullcontext(),
                over_machines(server, command.machines) as executor,
                RunProgress(out, len(tasks), known) as progress,
            ):
                schedule(tasks, command, folder, executor, progress)
        except KeyboardInterrupt:
            typer.echo(f"\nInterrupted. To resume: {folder.resume_command}", err=True)
            raise
    return folder


def _print_line(out: Console, line: str) -> None:
    out.print(Text(line), soft_wrap=True)


def _print_summary(run_folder: Path, left_out: list[str], out: Console) -> None:
    # Pandas takes half a second to import.
    from runner.cli.printed_tables import print_strategies
    from runner.cli.show_command import print_files
    from runner.record.read import read_run
    from runner.report.gather import gather

    evidence = gather([read_run(run_folder)])
    print_strategies(evidence, out)
    print_files(run_folder, out)
    _print_left_out(left_out, out)
    out.print(f"Report: {_write_report(evidence, run_folder)}", soft_wrap=True)


def _write_report(evidence: Evidence, run_folder: Path) -> Path:
    """The run is recorded: whatever a report may run into must not make it look lost."""
    folder = run_folder / "report"
    made_by = shlex.join(["vnncomp-runner", "report", str(run_folder), "--out", str(folder)])
    later = f"the run is finished and recorded; to make its report: {made_by}"
    try:
        from runner.report.report_files import write_report

        return write_report(evidence, folder)
    except OSError as error:
        full = is_disk_full(error)
        first = "free some room; " if full else ""
        _log.error("no whole report was written (%s); %s%s", error, first, later)
        raise typer.Exit(DISK_FULL if full else NO_REPORT) from error
    except Exception as error:
        _log.exception("no whole report was written; %s", later)
        raise typer.Exit(NO_REPORT) from error
