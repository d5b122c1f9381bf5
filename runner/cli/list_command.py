"""`vnncomp-runner list`: the instances of categories, without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from runner.cli.terminal import console, exit_codes
from runner.problem.instances import Instance, MalformedRow, read_categories
from runner.run.plan import choose


def list_instances(
    categories: Annotated[
        list[Path],
        typer.Argument(metavar="CATEGORY", help="Folders with instances.csv, or such files."),
    ],
    filter_glob: Annotated[
        str | None, typer.Option("--filter", metavar="GLOB", help="As in `run`.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="As in `run`.")] = None,
) -> None:
    """List the instances of categories, and the rows and categories that cannot be run.

    \b
    Examples:
      vnncomp-runner list benchmarks/mlp
      vnncomp-runner list vnncomp2022_benchmarks/benchmarks/* --filter '*256x4*'
    """
    with exit_codes():
        out = console()
        left_out: list[str] = []
        rows = [
            row
            for category in read_categories(categories, left_out=left_out.append)
            for row in choose(category, filter_glob, limit)
        ]
        good = [row for row in rows if isinstance(row, Instance)]
        bad = [row for row in rows if isinstance(row, MalformedRow)]
        if good:
            out.print(_table(good))
        for problem in (*left_out, *(f"{row.cause}: {row.message}" for row in bad)):
            out.print(Text(problem, style="red"), soft_wrap=True)
        problems = f", {len(bad)} rows that cannot be run" if bad else ""
        problems += f", {len(left_out)} categories left out" if left_out else ""
        out.print(f"{len(good)} instances{problems}")


def _table(instances: list[Instance]) -> Table:
    table = Table("category")
    table.add_column("network", overflow="fold")
    table.add_column("property", overflow="fold")
    table.add_column("timeout", justify="right")
    for instance in instances:
        names = (instance.category, instance.network_name, instance.property_name)
        table.add_row(*map(Text, names), f"{instance.timeout_s:g} s")
    return table
