"""All commands in one program."""

from __future__ import annotations

from typing import Annotated

import typer

import runner
from runner.cli.ablation_command import PARTS, ablation
from runner.cli.attacks_command import attacks
from runner.cli.compare_command import EXIT_CODES as COMPARE_EXIT_CODES
from runner.cli.compare_command import compare
from runner.cli.doctor_command import doctor
from runner.cli.experiment_command import experiments
from runner.cli.job_command import job
from runner.cli.list_command import list_instances
from runner.cli.plan_command import plan
from runner.cli.report_command import report
from runner.cli.run_command import EXIT_CODES, run
from runner.cli.score_command import score
from runner.cli.shard_command import shard
from runner.cli.sharding_command import sharding
from runner.cli.show_command import show
from runner.cli.supports_command import supports
from runner.cli.train_command import train
from runner.cli.training_command import training
from runner.cli.verify_command import EXIT_CODES as VERIFY_EXIT_CODES
from runner.cli.verify_command import verify

_HELP = """Runs VNN-COMP benchmarks under parallel strategies and records what each rank cost.

A category is a folder that holds an instances.csv, or an instances.csv itself.

\b
Examples:
  vnncomp-runner doctor
  vnncomp-runner list vnncomp2022_benchmarks/benchmarks/mnist_fc
  vnncomp-runner run vnncomp2022_benchmarks/benchmarks/mnist_fc --limit 5
  vnncomp-runner run mnist_fc oval21 --strategies baseline,fsdp --ranks 4 --timeout 60
  vnncomp-runner show results/20260101T120000.000Z-mnist_fc 'mnist-net_256x4*'
  vnncomp-runner report results/two_ranks results/four_ranks --out comparison
  vnncomp-runner score results/nightly vnncomp2025_results/alpha_beta_crown
  vnncomp-runner compare results/before results/after --fail-on verdict,time:1.3
"""

NAME = "vnncomp-runner"

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,  # keeps the line breaks of the examples
    pretty_exceptions_enable=False,
)
app.command("run", epilog=EXIT_CODES)(run)
app.command("list")(list_instances)
app.command("show")(show)
app.command("report")(report)
app.command("score")(score)
app.command("compare", epilog=COMPARE_EXIT_CODES)(compare)
app.command("plan")(plan)
app.command("job")(job)
app.add_typer(experiments, name="experiment")
experiments.command("training")(training)
experiments.command("sharding")(sharding)
experiments.command("attacks")(attacks)
experiments.command("ablation", epilog=PARTS)(ablation)
app.command("train")(train)
app.command("shard", hidden=True)(shard)
app.command("doctor")(doctor)
app.command("verify", epilog=VERIFY_EXIT_CODES)(verify)
app.command("supports", context_settings={"ignore_unknown_options": True})(supports)


@app.callback()
def options(
    name: Annotated[bool, typer.Option("--name", help="Print the name.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """What VNN-LIB 2.0 wants of any verifier."""
    if name or version:
        typer.echo(NAME if name else runner.__version__)
        raise typer.Exit
