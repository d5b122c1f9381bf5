"""All strategies over one network say the same, and what they say is true; none outlives a rank."""

from __future__ import annotations

import tempfile
from pathlib import Path

import agreement_targets
import pytest
import torch
from device import DEVICE
from examples import examples, rest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_networks import Builder, SmallNetwork, attention, lattice, mlp

from runner.contract.question import Question
from runner.contract.vocabulary import Method
from runner.contract.wire import question_to_json
from runner.engine.bounds.crop import tiles_of
from runner.engine.bounds.forward import ForwardPass
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import FORWARD_SHARE
from runner.engine.network.graph import Op
from runner.engine.network.load import prepare
from runner.engine.network.prepared import write_prepared
from runner.execute.gang import Ending, RankServer
from runner.problem.instances import Instance, read_category
from runner.verifiers.strategies import STRATEGIES, strategy_named

REPOSITORY = Path(__file__).resolve().parents[3]
EXACT = ("fsdp", "sp", "fsdp+sp", "dp")
ROWS = ("sp", "fsdp+sp", "dp")
EQUAL = ("tp",)
LOOSER = ("tp-ibp",)
PARALLEL = tuple(name for name in (*EXACT, *EQUAL, *LOOSER) if STRATEGIES[name].parallel)


@st.composite
def networks(draw: st.DrawFn) -> SmallNetwork:
    """Linear, Conv, ReLU and residual Add, of widths that no number of ranks divides."""
    builder = Builder((2, 5, 5), draw(st.integers(0, 2**16)))
    x = builder.pointwise(Op.RELU, builder.conv("x", draw(st.integers(1, 7)), padding=(1, 1)))
    for _ in range(draw(st.integers(0, 1))):
        channels = builder.shape(x)[0]
        inner = builder.pointwise(Op.RELU, builder.conv(x, channels, padding=(1, 1)))
        x = builder.pointwise(Op.RELU, builder.pointwise(Op.ADD, inner, x))
    if draw(st.booleans()):
        x = builder.shuffled(x, draw(st.integers(1, 3)), 4, 4)
    x = builder.flatten(x)
    for _ in range(draw(st.integers(0, 2))):
        x = builder.pointwise(Op.RELU, builder.linear(x, draw(st.integers(1, 13))))
    return builder.network(builder.linear(x, 3))


# Each example starts a gang.
@settings(examples(6, least=2), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(), st.integers(2, 4), st.sampled_from([0.05, 0.5]))
def test_strategies_agree_and_contain_what_is_reached(
    rank_server: RankServer, small: SmallNetwork, ranks: int, radius: float
) -> None:
    check_agreement(rank_server, small, ranks, radius)


def test_strategies_agree_on_functions_of_one_variable(rank_server: RankServer) -> None:
    """Smooth ones and steps, of images and of flat values, which no rank can part evenly."""

    def applied(x: str, name: str) -> str:
        return builder.add(Op.FUNCTION, (x,), builder.shape(x), {"function": name})

    builder = Builder((2, 5, 5), seed=4)
    x = applied(builder.conv("x", 5, padding=(1, 1)), "Mish")
    x = applied(builder.conv(x, 3), "Sign")
    x = applied(builder.linear(builder.flatten(x), 7), "Softplus")
    check_agreement(rank_server, builder.network(builder.linear(x, 3)), ranks=3, radius=0.05)


@pytest.mark.parametrize("ranks", [2, *rest(3)])
def test_strategies_agree_on_trees_of_neurons(rank_server: RankServer, ranks: int) -> None:
    builder = Builder((2, 5, 5), seed=0)
    x = builder.pointwise(Op.RELU, builder.conv("x", 5, padding=(1, 1)))
    inner = builder.pointwise(Op.RELU, builder.conv(x, 5, padding=(1, 1)))
    x = builder.flatten(builder.pointwise(Op.RELU, builder.pointwise(Op.ADD, inner, x)))
    residual = builder.network(builder.linear(builder.pointwise(Op.RELU, builder.linear(x, 10)), 3))
    for network in (residual, mlp(8, 13, 10, 7, 3, seed=0)):
        check_agreement(rank_server, network, ranks, 0.3, strategies=(), trees=(*EXACT, *EQUAL))


def test_strategies_agree_where_ranks_have_all_neurons(rank_server: RankServer) -> None:
    """Of two nodes after each other in one, of which no rank has a part of its own."""
    builder = Builder((8,), seed=1)
    both = builder.concat(0, builder.linear("x", 7), builder.linear("x", 5))
    x = builder.pointwise(Op.RELU, both)
    x = builder.pointwise(Op.RELU, builder.linear(x, 9))
    network = builder.network(builder.linear(x, 3))
    check_agreement(rank_server, network, 2, 0.3, strategies=(), trees=EQUAL)


def test_strategies_agree_on_attention(rank_server: RankServer) -> None:
    check_agreement(rank_server, attention(), ranks=3, radius=0.05)


@pytest.mark.parametrize("ranks", [3, *rest(2)])
def test_strategies_agree_where_forms_are_worth_it(rank_server: RankServer, ranks: int) -> None:
    network = mlp(30, 300, 300, 3, seed=7)
    bound = network.bound()
    upper = torch.zeros(1, 30)
    upper[0, :3] = 1.0
    forward = ForwardPass(bound, Interval(torch.zeros(1, 30), upper), FORWARD_SHARE)
    (name, *_) = [n.name for n in network.graph.nodes if n.name in bound.start_nodes - bound.exact]
    assert forward.columns(name, 100, torch.float32) >= 3
    check_agreement(rank_server, network, ranks, radius=0.2, free=3)


@pytest.mark.parametrize("ranks", [2, *rest(3)])
def test_strategies_agree_where_rows_are_cropped(rank_server: RankServer, ranks: int) -> None:
    builder = Builder((2, 24, 24), seed=8)
    x = builder.pointwise(Op.RELU, builder.conv("x", 3, padding=(1, 1)))
    x = builder.pointwise(Op.RELU, builder.conv(x, 3, padding=(1, 1)))
    network = builder.network(builder.linear(builder.flatten(x), 3))
    (name,) = network.bound().start_nodes - network.bound().exact
    assert tiles_of(network.bound(), name, torch.arange(1000), 128)
    check_agreement(rank_server, network, ranks, radius=0.1)


@pytest.mark.parametrize("ranks", [2, *rest(3)])
def test_strategies_agree_where_errors_are_patches(rank_server: RankServer, ranks: int) -> None:
    builder = Builder((6,), seed=4)
    x = builder.reshape(builder.linear("x", 2 * 16 * 16), 2, 16, 16)
    for _ in range(4):
        x = builder.pointwise(Op.RELU, builder.conv(x, 6, padding=(1, 1)))
    network = builder.network(builder.linear(builder.flatten(x), 3))
    bound = network.bound()
    box = Interval(torch.full((1, 6), -0.1), torch.full((1, 6), 0.1))
    assert ForwardPass(bound, box, FORWARD_SHARE).has_patches
    check_agreement(rank_server, network, ranks, radius=0.1, strategies=(*EXACT, *EQUAL))


def check_agreement(
    rank_server: RankServer,
    small: SmallNetwork,
    ranks: int,
    radius: float,
    free: int | None = None,
    strategies: tuple[str, ...] = PARALLEL,
    trees: tuple[str, ...] = (),
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared"
        write_prepared(prepared, small.graph, small.tensors)
        payload = {
            "prepared": str(prepared),
            "radius": radius,
            "free": free,
            "strategies": strategies,
            "by_alpha": ROWS if strategies else (),
            "trees": trees,
        }
        target = f"{agreement_targets.__name__}:agreement"
        result = rank_server.run(target, payload, ranks, Path(folder) / "gang", timeout_s=100)
    assert result.ended is Ending.FINISHED, result
    assert result.dead_rank is None, result.reports
    for report in result.reports:
        assert report is not None
        for question, answer in report.items():
            _, name = question.split()
            assert answer["outside"] <= 1, question
            if name in EXACT:
                assert answer["same_bits"], question
            elif name in EQUAL:
                assert answer["apart"] <= 1, question


@pytest.mark.parametrize("ranks", [2, *rest(3)])
def test_strategies_agree_where_nearly_all_weights_are_zero(
    rank_server: RankServer, ranks: int
) -> None:
    check_agreement(rank_server, lattice(512), ranks, radius=0.1)


ON_A_GRID = ("tp=2+sp=2", "fsdp=2+sp=2", "fsdp=2+dp=2")


@pytest.mark.parametrize("after", [3, *rest(0)])
@pytest.mark.parametrize("name", [*PARALLEL, *ON_A_GRID])
def test_a_rank_killed_inside_a_collective_ends_the_gang_at_once(
    name: str, after: int, rank_server: RankServer, tmp_path: Path
) -> None:
    row = read_category(REPOSITORY / "benchmarks" / "digits_cnn")[0]
    assert isinstance(row, Instance)
    prepare(row.network, tmp_path / "prepared")
    ranks = strategy_named(name).ranks_of(3)
    job = Question(
        network=str(row.network),
        prepared=str(tmp_path / "prepared"),
        property=str(row.property),
        strategy=strategy_named(name),
        ranks=ranks,
        timeout_s=60.0,
        device=DEVICE,
        method=Method.ALPHA_CROWN,
        bounds=str(tmp_path / "bounds"),
    )
    payload = {"job": question_to_json(job), "after": after}
    target = f"{agreement_targets.__name__}:killed_in_a_collective"
    result = rank_server.run(target, payload, ranks, tmp_path / "gang", timeout_s=60)
    assert (result.ended, result.dead_rank) == (Ending.RANK_DIED, 1)
    assert result.how == "signal 9 (SIGKILL)"
    assert result.run_time_s < 20
