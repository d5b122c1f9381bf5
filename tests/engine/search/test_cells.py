"""Boxes that step functions cut into finitely many cells: a case is excluded when it is in all of
them, and never where a single point is unsafe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from device import DEVICE
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from questions import anything, case, incomplete, question, region
from small_networks import CPU, Builder, SmallNetwork
from small_onnx import save_small
from torch import Tensor

from runner.contract.question import Question, Report
from runner.contract.vocabulary import EnginePart, Verdict
from runner.contract.wire import question_to_json, report_from_json
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.cell_pass import CellPass
from runner.engine.bounds.cells import MOST_CELLS, Cells, StepInputs
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.tagging import NoTagger
from runner.engine.bounds.whole_values import whole_values
from runner.engine.clock import DeadlineReached
from runner.engine.functions import ALL
from runner.engine.incomplete import Incomplete, TimeShares
from runner.engine.network.graph import Op
from runner.engine.network.prepared import write_prepared
from runner.engine.programs.verify import verify_question
from runner.execute.gang import Ending, RankServer
from runner.problem.property.model import Property
from runner.run.programs import VERIFY
from runner.verifiers.strategies import strategy_named

MADE = {name: family.make(**family.defaults) for name, family in ALL.items()}
STEPS = sorted(name for name, f in MADE.items() if f.steps is not None)
# Of every number; Truncated is one of a type's range.
EVERYWHERE = sorted({*STEPS} - {"Truncated"})
GIVEN = 0.3


def step(builder: Builder, x: str, name: str) -> str:
    more = {"low": -1e6, "high": 1e6} if name == "Truncated" else {}
    return builder.add(Op.FUNCTION, (x,), builder.shape(x), {"function": name, **more})


def stepped(names: Sequence[str], seed: int = 0) -> SmallNetwork:
    """Of inputs that one step function each reads, the first also a second one, and one that all
    else reads: ReLUs and products of them.
    """
    builder = Builder((len(names),), seed)
    parts = [
        step(builder, builder.select("x", torch.tensor([number])), name)
        for number, name in enumerate(names[:-1])
    ]
    parts.append(step(builder, builder.select("x", torch.tensor([0])), names[-1]))
    parts.append(builder.select("x", torch.tensor([len(names) - 1])))
    hidden = builder.pointwise(Op.RELU, builder.linear(builder.concat(0, *parts), 8))
    pairs = builder.reshape(builder.linear(hidden, 8), 2, 4)
    return builder.network(builder.linear(builder.add(Op.PRODUCT, (pairs,), (4,)), 1))


def near(low: float, high: float) -> Tensor:
    """Points of [low, high]: its ends, multiples of 1/4, and the numbers beside all of them."""
    places = np.array([low, high, *np.arange(np.floor(low), np.ceil(high) + 0.1, 0.25)])
    beside = [np.nextafter(places, way) for way in (-np.inf, np.inf)]
    found = np.concatenate((places, *beside))
    return torch.from_numpy(np.unique(found[(found >= low) & (found <= high)]))


def reached(network: SmallNetwork, low: Sequence[float], high: Sequence[float]) -> float:
    """The least output at all of these points, together."""
    grid = torch.cartesian_prod(*(near(*ends) for ends in zip(low, high, strict=True)))
    return float(network.outputs(grid.reshape(len(grid), -1)).min())


def asked(low: Sequence[float], high: Sequence[float], *limits: float) -> Property:
    """Whether the output can be at most a limit."""
    return question(case(low, high, *(region([[1.0]], [limit]) for limit in limits)))


def excluded(network: SmallNetwork, instance: Property) -> list[bool]:
    """By cells alone, of every disjunct of the first case."""
    found = incomplete(network, instance)
    found.enumerate_cells()
    return [not still for still in found.cases[0].open.tolist()]


def box_of(low: Sequence[float], high: Sequence[float]) -> Interval:
    ends = (torch.tensor([end], dtype=torch.float64) for end in (low, high))
    return Interval(*ends)


def cells_of(network: SmallNetwork, box: Interval, most: int = MOST_CELLS) -> Cells | None:
    return StepInputs.of(network.bound(), CPU).cells(box, most)


def alone(name: str, low: float, high: float, most: int = MOST_CELLS) -> list[float] | None:
    """The points of the cells of one input that this function alone reads."""
    builder = Builder((1,))
    network = builder.network(builder.linear(step(builder, "x", name), 1))
    cells = cells_of(network, box_of([low], [high]), most)
    return None if cells is None else cells.points[0].tolist()


ends = st.tuples(
    st.integers(-6, 6), st.sampled_from([0.0, 0.25, 0.5, 0.75]), st.sampled_from([-1, 0, 1])
).map(lambda x: float(np.nextafter(x[0] + x[1], x[2] * np.inf)) if x[2] else x[0] + x[1])


@examples(90)
@given(
    st.lists(st.sampled_from(STEPS), min_size=2, max_size=3),
    st.data(),
    st.integers(0, 1000),
)
def test_cells_prove_what_holds_and_nothing_that_a_point_refutes(
    names: list[str], data: st.DataObject, seed: int
) -> None:
    network = stepped(names, seed)
    pairs = [sorted((data.draw(ends), data.draw(ends))) for _ in names[:-1]]
    low, high = [x for x, _ in pairs] + [GIVEN], [y for _, y in pairs] + [GIVEN]
    # What varies by rounding alone is an interval, and no matter of cells.
    high = [x + 1 if 0 < y - x < 1e-6 else y for x, y in zip(low, high, strict=True)]
    high[0] += low == high
    least = reached(network, low, high)
    # In this order: just below what is reached, the very value, and above it.
    limits = [least - 1e-9 * (1 + abs(least)), least, least + 1e-6]
    assert excluded(network, asked(low, high, *limits)) == [True, False, False]


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("place", [-1.0, -0.5, 0.0, 0.5, 1.0, 2.5])
def test_all_values_at_and_beside_a_jump_are_covered(name: str, place: float) -> None:
    f = MADE[name]
    before, after = np.nextafter(place, -np.inf), np.nextafter(place, np.inf)
    narrow = (before, after), (place, after), (before, place), (place, place + 0.25)
    for low, high in (*narrow, (place - 2.25, place + 2.25)):
        points = near(low, high)
        if (high - low) < 1e-9:  # it does not vary beyond rounding: nothing to enumerate
            assert alone(name, low, high) is None
            low, high = low - 0.25, high + 0.25
            points = near(low, high)
        found = alone(name, low, high)
        assert found is not None
        assert all(low <= point <= high for point in found)
        values = f.value(torch.tensor(found, dtype=torch.float64)).tolist()
        assert sorted(values) == sorted(set(f.value(points).tolist()))
        assert all(value == round(value) for value in values)


@pytest.mark.parametrize(
    ("name", "low", "high", "count"),
    [
        ("Floor", 0.0, 62.0, 63),
        ("Floor", 0.5, 1.5, 2),
        ("Ceil", 0.0, 62.0, 63),
        ("Truncated", -2.5, 2.5, 5),
        ("Round", 0.0, 4.0, 5),
        ("Sign", -1.0, 1.0, 3),
        ("Sign", 0.0, 1.0, 2),
        ("Sign", 0.5, 1.0, 1),
        ("WholeZero", -3.0, 3.0, 2),
    ],
)
def test_pieces_with_the_same_values_are_one(
    name: str, low: float, high: float, count: int
) -> None:
    found = alone(name, low, high)
    assert found is not None
    assert len(found) == count


def test_what_has_too_many_cells_or_no_end_or_another_reader_has_none() -> None:
    assert alone("Floor", 0.0, 100.0, most=100) is None
    assert alone("Floor", 0.0, 99.0, most=100) is not None
    assert alone("Floor", 0.0, float("inf")) is None
    assert alone("Floor", 2.0**60, 2.0**60 + 4096) is None
    assert alone("Truncated", -2e6, 2e6, most=10**7) is None
    assert alone("HardSwish", 0.0, 4.0) is None
    builder = Builder((2,))
    both = step(builder, "x", "Floor")
    used = builder.pointwise(Op.ADD, both, "x")
    assert cells_of(builder.network(used), box_of([0, 0], [3, 3])) is None
    moved = builder.concat(0, both, builder.select("x", torch.tensor([1])))
    assert cells_of(builder.network(moved), box_of([0, 0], [3, 3])) is None
    # What leaves the network as it is, but does not vary.
    assert cells_of(builder.network(moved), box_of([0, 1], [3, 1])) is not None


def needle(row: float, column: float, test: str = "Zero") -> SmallNetwork:
    """0 where the first two of three inputs are in this row and column of an image, else more."""
    builder = Builder((3,))
    whole = step(builder, "x", "Truncated")
    place = builder.linear_of(whole, torch.eye(2, 3), -torch.tensor([float(row), float(column)]))
    hits = step(builder, place, test)
    return builder.network(builder.linear_of(hits, -torch.ones(1, 2), torch.tensor([2.0])))


@pytest.mark.parametrize("budget", [CORE, Budget(1)])
def test_whole_numbers_are_compared_exactly(budget: Budget) -> None:
    low, high = [0.0, 0.0, 0.5], [62.0, 62.0, 0.5]
    assert excluded(needle(17, 42), asked(low, high, 0.5, 1.5)) == [False, False]
    assert excluded(needle(17, 70), asked(low, high, 0.5, 1.5)) == [True, False]
    network, root = needle(17, 42), box_of(low, high)
    cells = cells_of(network, root)
    assert cells is not None
    passes = CellPass(network.bound(), root, cells, NoTagger(), budget)
    rows = torch.ones((1, 1), dtype=torch.float64)
    for first in (0, 17 * 63 + 42 - 3):
        numbers = torch.arange(first, first + 7)
        for some in numbers.split(passes.batch):
            at = cells.at(some)
            points = torch.cat((at, torch.full((len(at), 1), 0.5, dtype=torch.float64)), 1)
            exact = network.outputs(points)
            assert torch.allclose(passes.least(some, rows), exact, rtol=0, atol=1e-12)


def test_only_what_whole_parameters_make_of_whole_values_is_whole() -> None:
    builder = Builder((2,))
    whole = step(builder, "x", "Floor")
    sums = builder.linear_of(whole, torch.tensor([[1.0, -3.0]]), torch.tensor([2.0]))
    halves = builder.linear_of(whole, torch.tensor([[0.5, 1.0]]), torch.tensor([0.0]))
    shifted = builder.linear_of(whole, torch.tensor([[1.0, 0.0]]), torch.tensor([0.5]))
    seen = builder.linear_of("x", torch.eye(2), torch.zeros(2))
    parts = builder.concat(0, sums, halves, shifted, seen)
    network = builder.network(builder.pointwise(Op.RELU, parts))
    found = whole_values(network.bound(), box_of([0.0, 2.0], [0.5, 2.0]))
    assert found[network.graph.output].tolist() == [[True, False, False, False, True]]


def test_a_cell_beside_an_inner_jump_is_bounded_by_itself() -> None:
    """3 x / 10 of whole x is compared with 3/10 as float32 has it: in one cell rounding decides."""
    builder = Builder((1,))
    whole = step(builder, "x", "Floor")
    tenth = builder.linear_of(whole, torch.tensor([[0.3]]), torch.tensor([-0.3]))
    above = step(builder, tenth, "Positive")
    network = builder.network(builder.linear_of(above, torch.ones(1, 1), torch.ones(1)))
    assert excluded(network, asked([0.0], [40.0], 0.9)) == [True]
    assert excluded(network, asked([0.0], [40.0], 1.0)) == [False]


def test_an_input_that_varies_by_rounding_stays_an_interval() -> None:
    network = stepped(["Floor", "Floor"])
    low, high = [0.0, GIVEN - 1e-10], [5.0, GIVEN + 1e-10]
    least = reached(network, low, high)
    assert excluded(network, asked(low, high, least - 1e-8, least)) == [True, False]


def test_a_region_without_rows_stays_open_and_so_does_what_has_no_cells() -> None:
    network = stepped(["Floor", "Floor"])
    low, high = [0.0, GIVEN], [5.0, GIVEN]
    assert excluded(network, question(case(low, high, anything()))) == [False]
    assert excluded(network, asked([0.0, 0.0], [5.0, 1.0], -1e6)) == [False]


def bounded_by(without: frozenset[EnginePart], shares: TimeShares | None = None) -> Incomplete:
    instance = asked([0.0, GIVEN], [5.0, GIVEN], -1e6)
    found = incomplete(stepped(["Floor", "Floor"]), instance, shares=shares, without=without)
    found.enumerate_cells()
    return found


def test_nothing_is_done_where_it_is_left_out_or_its_time_is_over() -> None:
    whole = bounded_by(frozenset())
    assert not whole.open_targets
    assert whole.progress == "6 of 6 cells"
    assert len(bounded_by(frozenset({EnginePart.WHOLE})).open_targets) == 1
    late = TimeShares(passed=lambda share: True)
    assert len(bounded_by(frozenset(), late).open_targets) == 1


def test_the_deadline_is_asked_before_every_batch() -> None:
    asked_for: list[None] = []

    def checkpoint() -> None:
        asked_for.append(None)
        if len(asked_for) > 3:
            raise DeadlineReached

    instance = asked([0.0, 0.0, 0.5], [62.0, 62.0, 0.5], -1.0)
    found = incomplete(needle(17, 42), instance, checkpoint=checkpoint)
    found._settings = replace(found._settings, budget=Budget(CORE.bytes // 512))
    with pytest.raises(DeadlineReached):
        found.enumerate_cells()
    assert found.open_targets


LOW, HIGH = [-2.0, -1.5, GIVEN], [9.0, 4.5, GIVEN]


def job(folder: Path) -> Question:
    """An output that no cell reaches, under `baseline`."""
    network = stepped(["Floor", "Round", "Sign"])
    least = reached(network, LOW, HIGH)
    write_prepared(folder / "prepared", network.graph, network.tensors)
    lines = [f"(declare-const X_{index} Real)" for index in range(len(LOW))]
    lines.append("(declare-const Y_0 Real)")
    for index, (low, high) in enumerate(zip(LOW, HIGH, strict=True)):
        lines.append(f"(assert (>= X_{index} {low}))(assert (<= X_{index} {high}))")
    (folder / "p.vnnlib").write_text("\n".join([*lines, f"(assert (<= Y_0 {least - 0.01:.6f}))"]))
    return Question(
        network=str(save_small(folder / "network.onnx", network)),
        prepared=str(folder / "prepared"),
        property=str(folder / "p.vnnlib"),
        strategy=strategy_named("baseline"),
        ranks=1,
        timeout_s=300.0,
        device=DEVICE,
        counterexample=str(folder / "counterexample.gz"),
        bounds=str(folder / "bounds"),
    )


def verified(asked: Question, name: str, server: RankServer, folder: Path) -> list[Report]:
    two = replace(asked, strategy=strategy_named(name), ranks=2)
    result = server.run(VERIFY, question_to_json(two), 2, folder / name, timeout_s=300)
    assert result.ended is Ending.FINISHED, result
    return [report_from_json(report) for report in result.reports if report is not None]


@pytest.mark.parametrize("name", ["fsdp", "sp", "dp", "tp"])
def test_two_ranks_prove_what_one_does(name: str, rank_server: RankServer, tmp_path: Path) -> None:
    question = job(tmp_path)
    one = verify_question(question)
    assert (one.verdict, one.method) == (Verdict.UNSAT, "ibp")
    reports = verified(question, name, rank_server, tmp_path)
    assert [report.verdict for report in reports] == [Verdict.UNSAT] * 2
    bounds = [report.lower_bound for report in reports]
    assert bounds == pytest.approx([one.lower_bound] * 2, rel=1e-9)
    if name != "tp":
        assert bounds == [one.lower_bound] * 2
