"""No wrong verdict on random networks whose right answers are known in rational arithmetic.

100 questions in the full run; SOUNDNESS_QUESTIONS sets another number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundness_targets
from exact_networks import Layer, Network, fractions, greatest, value
from examples import rest_but
from soundness_questions import Question, curved_question, question

from runner.contract.vocabulary import Cause, EnginePart
from runner.engine.layout.group import Group
from runner.engine.network.load import prepare
from runner.execute.gang import Ending, RankServer
from runner.problem.files import read_bytes
from runner.problem.property.counterexample import parse_counterexample
from runner.problem.property.read_property import read_property
from runner.verifiers.strategies import STRATEGIES

QUESTIONS = int(os.environ.get("SOUNDNESS_QUESTIONS", "100"))
CURVED_QUESTIONS = QUESTIONS // 4
# A part of all is asked in each gang, else gangs would take most of the time.
OF_A_GANG = max(6, QUESTIONS // 25)
Tally = Callable[[str, str], None]
SEARCHES = ("any", *soundness_targets.SEARCHES)
ON_RANKS = ("fsdp", "tp", "sp", "dp", "fsdp+sp", "fsdp+dp")
ALONE = ("offload", "lirpa", "tp-ibp")


def paths_of(asked: Question) -> list[str]:
    prepared = asked.network.with_suffix(".prepared")
    if not prepared.exists():
        prepare(asked.network, prepared)
    found = asked.property.with_suffix(".gz")
    found.unlink(missing_ok=True)
    return [str(path) for path in (asked.network, prepared, asked.property, found)]


def assert_right(asked: Question, verdict: str, how: str) -> None:
    """`unsat` only where exact arithmetic knows no counterexample, `sat` only with one that ONNX
    Runtime and the box confirm.
    """
    assert not (verdict == "unsat" and asked.exists), f"{asked.property} by {how}: {asked.about}"
    if verdict == "sat":
        text = read_bytes(asked.property.with_suffix(".gz"), Cause.INVALID_COUNTEREXAMPLE)
        inputs, _ = parse_counterexample(text.decode())
        assert_counterexample(asked, inputs)


def assert_counterexample(asked: Question, inputs: np.ndarray) -> None:
    (case,) = read_property(asked.property).cases
    assert (inputs >= case.lower - 1e-4).all()
    assert (inputs <= case.upper + 1e-4).all()
    session = onnxruntime.InferenceSession(asked.network, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    dtype = np.float64 if given.type == "tensor(double)" else np.float32
    assert (inputs.astype(dtype) == inputs).all()
    (outputs,) = session.run(None, {given.name: inputs.astype(dtype).reshape(given.shape)})
    assert any(region.holds(outputs) for region in case.unsafe)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("questions")


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES)
def test_no_search_is_ever_wrong(search: str, folder: Path, tally: Tally) -> None:
    # In blocks: seeds in turn are questions of one kind and another.
    ends = [QUESTIONS * at // len(SEARCHES) for at in range(len(SEARCHES) + 1)]
    for seed in range(*ends[SEARCHES.index(search) :][:2]):
        asked = question(seed, folder)
        verdict, _, _ = soundness_targets.answer(paths_of(asked), "baseline", Group(), search)
        tally(search, verdict)
        assert_right(asked, verdict, search)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["any", "input-split"])
def test_bounds_of_curved_networks_never_prove_what_a_point_refutes(
    search: str, folder: Path, tally: Tally
) -> None:
    """Of products, softmaxes, quotients and smooth functions, with nothing but bounds to decide."""
    without = frozenset({EnginePart.BOX_ATTACK})
    for seed in range(("any", "input-split").index(search), CURVED_QUESTIONS, 2):
        asked = curved_question(seed, folder)
        with soundness_targets.bounds_alone():
            verdict, cause, _ = soundness_targets.answer(
                paths_of(asked), "baseline", Group(), search, timeout_s=1.0, without=without
            )
        tally(f"bounds of curved networks, {search}", verdict)
        assert verdict in ("unknown", "timeout"), (
            f"{asked.property}: {verdict} {cause} {asked.about}"
        )


ON_A_GRID = ("tp=2+sp=2", "fsdp=2+sp=2", "tp=2+dp=2")
GANGS = [(name, ranks) for name in ON_RANKS for ranks in (2, 3)] + [(name, 1) for name in ALONE]
GANGS += [(name, 4) for name in ON_A_GRID]


@pytest.mark.parametrize(("strategy", "ranks"), rest_but(lambda gang: gang[1] != 3, GANGS))
def test_no_strategy_is_ever_wrong(
    strategy: str,
    ranks: int,
    folder: Path,
    rank_server: RankServer,
    tmp_path: Path,
    tally: Tally,
) -> None:
    first = 10_000 + GANGS.index((strategy, ranks)) * OF_A_GANG
    asked = [question(first + number, folder) for number in range(OF_A_GANG)]
    for one, verdict in zip(
        asked, of_gang(asked, strategy, ranks, rank_server, tmp_path), strict=True
    ):
        tally(f"{strategy} P={ranks}", verdict)
        assert_right(one, verdict, strategy)


@pytest.mark.parametrize("strategy", ["fsdp", "sp", "dp", "tp"])  # `tp` bounds boxes without forms.
def test_boxes_over_open_neurons_are_never_wrong_on_ranks(
    strategy: str, folder: Path, rank_server: RankServer, tmp_path: Path, tally: Tally
) -> None:
    asked = [question(20_000 + number, folder) for number in range(OF_A_GANG)]
    search = soundness_targets.OPEN_FORMS
    answer = soundness_targets.answer
    alone = [answer(paths_of(one), "baseline", Group(), search)[0] for one in asked]
    found = of_gang(asked, strategy, 2, rank_server, tmp_path, search)
    for one, verdict, of_one_rank in zip(asked, found, alone, strict=True):
        tally(f"open-forms, {strategy} P=2", verdict)
        assert_right(one, verdict, strategy)
        if strategy in ("fsdp", "sp"):
            assert verdict == of_one_rank or "timeout" in (verdict, of_one_rank), one.about


def of_gang(
    asked: list[Question],
    strategy: str,
    ranks: int,
    rank_server: RankServer,
    tmp_path: Path,
    search: str = "",
) -> list[str]:
    """Verdicts, which all ranks of a gang come to."""
    questions = [paths_of(one) for one in asked]
    payload = {"strategy": strategy, "questions": questions, "search": search}
    target = f"{soundness_targets.__name__}:answers"
    timeout_s = 60 + 4 * soundness_targets.TIMEOUT_S * len(asked)
    result = rank_server.run(target, payload, ranks, tmp_path, timeout_s=timeout_s)
    assert result.ended is Ending.FINISHED, result
    reports = [report for report in result.reports if report]
    assert len(reports) == ranks, reports
    assert all("answers" in report for report in reports), reports
    found = []
    for said in zip(*(report["answers"] for report in reports), strict=True):
        verdicts = {verdict for verdict, _, _ in said}
        assert len(verdicts) == 1, said
        found.append(verdicts.pop())
    return found


def test_every_strategy_that_bounds_is_asked() -> None:
    asked = {*ON_RANKS, *ALONE, "baseline"}
    left = {"null", "sp+dp"}  # bounds nothing; is `dp`
    assert set(STRATEGIES) - left <= asked


@pytest.mark.parametrize("seed", range(4))
def test_the_exact_maximum_is_the_greatest_of_many_points(seed: int) -> None:
    """The yardstick itself: along one input of a network with every kind of layer."""
    generator = np.random.default_rng(seed)

    def gemm(outputs: int, inputs: int) -> Layer:
        weight = generator.normal(size=(outputs, inputs))
        return Layer("gemm", weight, generator.normal(size=outputs))

    conv = Layer("conv", generator.normal(size=(2, 1, 2, 2)), generator.normal(size=2))
    pool = Layer(("maxpool", "avgpool")[seed % 2])
    inner = Layer("residual", inner=(gemm(2, 2), Layer("relu")))
    layers = (conv, Layer("relu"), pool, Layer("flatten"), inner, Layer("relu"), gemm(2, 2))
    network = Network((1, 3, 3), layers, np.float64)
    low, row = fractions(generator.normal(size=(1, 3, 3))), fractions([1.0, -1.0])
    upper = low[0, 0, 1] + Fraction(3)
    most = greatest(network, low, 1, upper, row)
    reached = []
    for step in range(301):
        x = low.copy()
        x[0, 0, 1] += Fraction(step, 100)
        reached.append(row @ value(network, x))
    assert max(reached) <= most
    assert most - max(reached) < Fraction(1, 2)
