"""`vnncomp-runner plan`: how a strategy lays one network over ranks, and what moves."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from runner.cli.options import Network, Ranks
from runner.cli.terminal import console, exit_codes
from runner.contract.errors import UsageError
from runner.contract.layout import Axis
from runner.contract.node_plan import NodePlan
from runner.contract.strategy import Engine, Strategy
from runner.contract.vocabulary import Device
from runner.contract.wire import from_json, to_json
from runner.execute.executor import Gang, GangResult
from runner.execute.gang import RankServer
from runner.problem.files import find_maybe_gz
from runner.report.grid import Grid
from runner.report.render import rich_table
from runner.report.text import size
from runner.run.auto import UNSETTLED, Choice, settled, strategy_or_auto
from runner.run.judge import preparation_failure
from runner.run.plan import ranks_of
from runner.run.prepare import PREPARE_TIMEOUT_S
from runner.run.programs import PLAN
from runner.verifiers.strategies import STRATEGIES


def plan(
    network: Network,
    strategy: Annotated[
        str, typer.Option(help="One strategy, a layout such as tp=2,sp=2, or auto.")
    ] = "tp",
    ranks: Ranks = 2,
) -> None:
    """Print where each node's weights and features lie under a strategy, and what moves.

    \b
    Example:
      vnncomp-runner plan mnist-net_256x2.onnx --strategy tp --ranks 2
    """
    out = console()
    with exit_codes(), tempfile.TemporaryDirectory() as folder:
        wanted = strategy_or_auto(strategy)
        if wanted.engine is not Engine.DRIVER:
            raise UsageError(f"strategy {strategy} lays nothing out: it is not the driver's")
        count = ranks_of(wanted, ranks, Device.AUTO)
        found = find_maybe_gz(network.absolute()) or network.absolute()
        choice, nodes = _planned(found, wanted, count, Path(folder))
        _print(nodes, f"{network.name} under {wanted.name} on {count} rank(s)", out)
        _print_groups(choice.strategy, count, out)
        if choice.why:
            out.print(f"{choice.why}.")


def _print_groups(strategy: Strategy, ranks: int, out: Console) -> None:
    """What has no place at a node: who bounds which rows, and who searches what."""
    of_rows, of_domains = strategy.beside_sharers(ranks), strategy.beside(Axis.DOMAINS, ranks)
    for groups, what in ((of_rows, "Blocks of rows"), (of_domains, "Sub-problems")):
        if len(groups) > 1:
            out.print(f"{what}: each on one of {len(groups)} groups of {len(groups[0])} rank(s).")
    moved = 4 * (len(of_rows) - 1)
    if moved:
        out.print(f"A row's bound goes to every other group: {moved} bytes from each rank.")


def _planned(
    network: Path, strategy: Strategy, ranks: int, folder: Path
) -> tuple[Choice, list[NodePlan]]:
    """Raises UsageError for a network that cannot be converted, or not be laid out so."""
    server_log = folder / "server.log"
    with RankServer(server_log, preload=(PLAN.partition(":")[0],)) as server:

        def planned(under: Strategy) -> dict[str, Any]:
            payload = {"network": str(network), "strategy": to_json(under), "ranks": ranks}
            gang = Gang(PLAN, payload, 1, folder / "plan", PREPARE_TIMEOUT_S)
            return _report(server.submit(gang).result())

        choice = Choice(strategy)
        if strategy == UNSETTLED:
            facts = planned(STRATEGIES["baseline"])
            choice = settled(strategy, facts["weight_bytes"], Device.AUTO)
        found = planned(choice.strategy)
    return choice, [from_json(node, NodePlan) for node in found["nodes"]]


def _report(result: GangResult) -> dict[str, Any]:
    failure = preparation_failure(result)
    if failure:
        raise UsageError(f"{failure.cause}: {failure.message}")
    (report,) = filter(None, result.reports)
    return report


def _print(nodes: list[NodePlan], title: str, out: Console) -> None:
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


def _cells(node: NodePlan) -> tuple[str, ...]:
    name = f"{node.name} ({node.op})" + (", interval bounds only" if node.interval_only else "")
    weights = " ".join(map(size, node.weight_bytes)) if any(node.weight_bytes) else ""
    features = "all on every rank"
    if node.features is not None:
        features = " ".join(map(str, node.features))
    per_row = size(node.row_bytes) if node.row_bytes else ""
    per_weight = size(node.weight_moved_bytes) if node.weight_moved_bytes else ""
    return name, "x".join(map(str, node.shape)), weights, features, node.moves, per_row, per_weight
