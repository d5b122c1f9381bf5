"""`vnncomp-runner plan`: how a strategy lays one network over ranks, and what moves."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from runner.cli.terminal import console, exit_codes
from runner.contract.errors import UsageError
from runner.contract.layout import NodeLayout
from runner.contract.strategy import Axis, Engine, Strategy
from runner.contract.wire import from_json, to_json
from runner.execute.gang import RankServer
from runner.report.grid import Grid
from runner.report.render import rich_table
from runner.report.text import size
from runner.run.judge import preparation_failure
from runner.run.prepare import PREPARE_TIMEOUT_S
from runner.verifiers.strategies import strategy_named

PROGRAM = "runner.engine.programs.plan"  # which is all that the server needs


def plan(
    network: Annotated[Path, typer.Argument(help="ONNX file, maybe .gz.")],
    strategy: Annotated[str, typer.Option(help="One strategy.")] = "tp",
    ranks: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Print where each node's weights and features lie under a strategy, and what moves.

    \b
    Example:
      vnncomp-runner plan mnist-net_256x2.onnx --strategy tp --ranks 2
    """
    out = console()
    with exit_codes(), tempfile.TemporaryDirectory() as folder:
        wanted = strategy_named(strategy)
        if wanted.engine is not Engine.DRIVER:
            raise UsageError(f"strategy {strategy} lays nothing out: it is not the driver's")
        count = ranks if wanted.parallel else 1
        nodes = _planned(network.absolute(), wanted, count, Path(folder))
        _print(nodes, f"{network.name} under {strategy} on {count} rank(s)", out)
        if Axis.DOMAINS in wanted.sharded:
            out.print("Sub-problems of branch and bound: each on one rank.")


def _planned(network: Path, strategy: Strategy, ranks: int, folder: Path) -> list[NodeLayout]:
    """Raises UsageError for a network that cannot be converted, or not be laid out so."""
    payload = {
        "network": str(network),
        "strategy": to_json(strategy),
        "ranks": ranks,
    }
    with RankServer(folder / "server.log", preload=(PROGRAM,)) as server:
        target = f"{PROGRAM}:plan_target"
        result = server.run(target, payload, 1, folder / "plan", PREPARE_TIMEOUT_S)
    failure = preparation_failure(result)
    if failure:
        raise UsageError(f"{failure.cause}: {failure.message}")
    (report,) = filter(None, result.reports)
    return [from_json(node, NodeLayout) for node in report["nodes"]]


def _print(nodes: list[NodeLayout], title: str, out: Console) -> None:
    grid = Grid(
        title=title,
        head=("node", "shape", "weights per rank", "neurons per rank", "moves", "per row", "per W"),
        numbers=(False, False, False, False, False, True, True),
        rows=tuple(map(_cells, nodes)),
    )
    out.print(rich_table(grid))
    moved = sum(node.row_bytes for node in nodes)
    held = [sum(parts) for parts in zip(*(node.weight_bytes for node in nodes), strict=True)]
    out.print(f"Weights per rank: {' '.join(map(size, held))}.")
    if moved:
        out.print(f"A row of A from the output to the input moves at most {size(moved)}.")


def _cells(node: NodeLayout) -> tuple[str, ...]:
    name = f"{node.name} ({node.op})" + (", interval bounds only" if node.interval_only else "")
    weights = " ".join(map(size, node.weight_bytes)) if any(node.weight_bytes) else ""
    features = "all on every rank"
    if node.features is not None:
        features = " ".join(map(str, node.features))
    per_row = size(node.row_bytes) if node.row_bytes else ""
    per_weight = size(node.weight_moved_bytes) if node.weight_moved_bytes else ""
    return name, "x".join(map(str, node.shape)), weights, features, node.moves, per_row, per_weight
