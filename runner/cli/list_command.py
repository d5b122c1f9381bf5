"""`vnncomp-runner list`: the instances of categories, without running them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.cli.load_bar import load_with_bar, print_loaded, write_loaded
from runner.cli.terminal import console, exit_codes
from runner.contract.errors import UsageError
from runner.execute.gang import PRELOAD, RankServer
from runner.problem.instances import Instance, MalformedRow, Row, read_categories
from runner.run.plan import choose
from runner.run.programs import FIT


def list_instances(
    categories: Annotated[
        list[Path],
        typer.Argument(metavar="CATEGORY", help="Folders with instances.csv, or such files."),
    ],
    filter_glob: Annotated[
        str | None, typer.Option("--filter", metavar="GLOB", help="As in `run`.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="As in `run`.")] = None,
    load: Annotated[
        bool,
        typer.Option(
            "--load",
            help="Read every network, hold it against ONNX Runtime, fit every property to it, and "
            "say by category what works, and what does not and why.",
        ),
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What --load finds, a line for each row.")
    ] = None,
) -> None:
    """List the instances of categories, and the rows and categories that cannot be run.

    \b
    Examples:
      vnncomp-runner list benchmarks/mlp
      vnncomp-runner list vnncomp2022_benchmarks/benchmarks/* --filter '*256x4*'
      vnncomp-runner list vnncomp2022_benchmarks/benchmarks/* --load --csv loaded.csv
    """
    with exit_codes():
        if csv and not load:
            raise UsageError("--csv writes what --load finds; add --load")
        out = console()
        left_out: list[str] = []
        rows = [
            row
            for category in read_categories(categories, left_out=left_out.append)
            for row in choose(category, filter_glob, limit)
        ]
        if load:
            _load(rows, csv, out)
            for problem in left_out:
                out.print(Text(problem, style="red"), soft_wrap=True)
            return
        good = [row for row in rows if isinstance(row, Instance)]
        bad = [row for row in rows if isinstance(row, MalformedRow)]
        if good:
            out.print(_table(good))
        for problem in (*left_out, *(f"{row.cause}: {row.message}" for row in bad)):
            out.print(Text(problem, style="red"), soft_wrap=True)
        problems = f", {len(bad)} rows that cannot be run" if bad else ""
        problems += f", {len(left_out)} categories left out" if left_out else ""
        out.print(f"{len(good)} instances{problems}")


def _load(rows: list[Row], csv: Path | None, out: Console) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        preload = (*PRELOAD, FIT.partition(":")[0])
        with RankServer(folder / "server.log", preload) as server:
            loaded = load_with_bar(rows, server, folder, out)
    if csv:
        write_loaded(csv, loaded)
    print_loaded(loaded, out)


def _table(instances: list[Instance]) -> Table:
    table = Table("category")
    table.add_column("network", overflow="fold")
    table.add_column("property", overflow="fold")
    table.add_column("timeout", justify="right")
    for instance in instances:
        names = (instance.category, instance.network_name, instance.property_name)
        table.add_row(*map(Text, names), f"{instance.timeout_s:g} s")
    return table
