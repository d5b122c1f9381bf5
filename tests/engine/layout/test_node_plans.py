"""The plan that people see: where weights and neurons lie, and what a backward product sends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_networks import Builder, SmallNetwork, cnn, mlp
from typer.testing import CliRunner

from runner.cli.app import app
from runner.contract.node_plan import NodePlan
from runner.engine.layout.node_plans import node_plans
from runner.engine.network.graph import Op
from runner.verifiers.strategies import strategy_named

REPOSITORY = Path(__file__).resolve().parents[3]


def planned(network: SmallNetwork, strategy: str, ranks: int) -> dict[str, NodePlan]:
    nodes = node_plans(network.graph, network.source.shape, strategy_named(strategy), ranks)
    return {node.name: node for node in nodes}


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp+sp", "tp"])
@pytest.mark.parametrize("network", [mlp(20, 64, 50, 6), cnn()], ids=["mlp", "cnn"])
def test_every_weight_lies_somewhere_and_nothing_twice(
    network: SmallNetwork, strategy: str
) -> None:
    for node in planned(network, strategy, 3).values():
        if node.op in (Op.LINEAR, Op.CONV):
            weight = network.tensors[f"{node.name}.weight"]
            assert weight.nbytes - 3 <= sum(node.weight_bytes) <= weight.nbytes


def test_one_rank_moves_nothing_and_sp_keeps_everything_everywhere() -> None:
    network = cnn()
    for strategy, ranks in (("baseline", 1), ("fsdp", 1), ("tp", 1), ("sp", 3)):
        nodes = planned(network, strategy, ranks).values()
        assert {(node.moves, node.row_bytes, node.weight_moved_bytes) for node in nodes} == {
            ("nothing", 0, 0)
        }


def test_tp_sends_the_columns_of_others_and_fsdp_a_weight_to_every_other() -> None:
    network = mlp(20, 64, 50, 6)
    tp, fsdp = planned(network, "tp", 3), planned(network, "fsdp", 3)
    (second,) = [node for node in tp if tp[node].shape == (50,) and tp[node].op == Op.LINEAR]
    assert tp[second].moves == "reduce-scatter A W"
    assert tp[second].row_bytes == 2 * 64 * 4
    assert tp[second].features == (16, 17, 17)
    assert fsdp[second].weight_moved_bytes == 2 * 64 * 50 * 4
    assert fsdp[second].features is None


def test_on_a_grid_a_row_moves_among_those_that_bound_it_together() -> None:
    network = mlp(20, 64, 50, 6)
    grid, tp = planned(network, "tp=2+sp=2", 4), planned(network, "tp", 2)
    assert grid.keys() == tp.keys()
    for name, node in grid.items():
        assert node.weight_bytes == tp[name].weight_bytes * 2
        assert node.features == (tp[name].features or ()) * 2
        assert (node.moves, node.row_bytes) == (tp[name].moves, tp[name].row_bytes)
    fsdp, rows = planned(network, "fsdp=2+sp=2", 4), planned(network, "fsdp", 2)
    for name, node in fsdp.items():
        assert node.weight_bytes == rows[name].weight_bytes * 2
        assert node.weight_moved_bytes == rows[name].weight_moved_bytes


def test_the_plan_says_what_cannot_be_cut() -> None:
    builder = Builder((4, 6, 6))
    grouped = builder.conv("x", 4, groups=2, padding=(1, 1))
    builder.linear(builder.flatten(builder.pointwise(Op.RELU, grouped)), 3)
    node = planned(builder.network(), "tp", 2)[grouped]
    assert node.features is None
    assert node.moves.startswith("whole on every rank")


def test_only_the_papers_tp_has_interval_bounds_inside_its_zones() -> None:
    network = mlp(8, 16, 16, 16, 4)
    inside = [node.interval_only for node in planned(network, "tp-ibp", 2).values()]
    assert any(inside)
    assert not all(inside)
    assert not any(node.interval_only for node in planned(network, "tp", 2).values())


@pytest.mark.usefixtures("warm")
def test_a_plan_is_made_without_torch_which_takes_longer_to_start_than_all_else() -> None:
    look = "import sys, runner.engine.programs.planned; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0


@pytest.mark.parametrize("command", [("plan",), ("show", "--plan")])
def test_the_command_prints_a_line_per_node(command: tuple[str, ...]) -> None:
    network = str(REPOSITORY / "benchmarks" / "digits_cnn" / "onnx" / "cnn.onnx")
    result = CliRunner().invoke(app, [*command, network, "--strategy", "tp", "--ranks", "2"])
    assert result.exit_code == 0, result.output
    assert "reduce-scatter A W" in result.output
    assert "Weights per rank" in result.output


@pytest.mark.usefixtures("warm")
def test_the_command_says_who_bounds_which_rows() -> None:
    network = str(REPOSITORY / "benchmarks" / "digits_mlp" / "onnx" / "mlp_2x64.onnx")
    result = CliRunner().invoke(app, ["plan", network, "--strategy", "tp=2,sp=3"])
    assert result.exit_code == 0, result.output
    assert "under tp=2+sp=3 on 6 rank(s)" in result.output
    assert "Blocks of rows: each on one of 3 groups of 2 rank(s)." in result.output
    assert "A row's bound goes to every other group: 8 bytes from each rank." in result.output


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("network", "strategy", "words"),
    [
        ("absent.onnx", "tp", "missing_file"),
        ("absent.onnx", "lirpa", "not the driver's"),
        ("absent.onnx", "tp=2+fsdp=2", "leave one out"),
    ],
)
def test_what_cannot_be_planned_is_wrong_usage(network: str, strategy: str, words: str) -> None:
    result = CliRunner().invoke(app, ["plan", network, "--strategy", strategy])
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.parametrize("arguments", [[], ["some_run", "--plan", "some.onnx"]])
def test_show_is_of_a_run_or_of_a_plan(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["show", *arguments])
    assert result.exit_code == 2
    assert "show needs a RUN, or a network after --plan" in result.output
