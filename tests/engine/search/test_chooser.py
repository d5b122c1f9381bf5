"""Which search an open case gets: the one with less to split, unless trials say otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from questions import DriverStub, bounded, case, question, region
from small_networks import CPU, Builder, SmallNetwork, mlp

from runner.contract.vocabulary import Method
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import Deadline
from runner.engine.layout.group import Group
from runner.engine.network.graph import Op
from runner.engine.search import complete
from runner.engine.search.cases import OpenCase
from runner.engine.search.complete import Complete, fitting
from runner.engine.search.search import Progress, Search, SearchContext, SearchEnd
from runner.engine.search.sharing import Alike

pytestmark = pytest.mark.alone


def open_case(network: SmallNetwork, free: int | None = None) -> OpenCase:
    """All inputs in [-1, 1], or only the first `free`, and a margin that no bound can have."""
    inputs = network.graph.input.size
    radii = [1.0] * (inputs if free is None else free) + [0.0] * (inputs - (free or inputs))
    unsafe = region([[1] + [0] * (network.graph.node(network.graph.output).size - 1)], [1e3])
    asked = question(case([-r for r in radii], radii, unsafe), outputs=unsafe.matrix.shape[1])
    (found,) = bounded(network, asked, Method.CROWN).open_cases
    return found


@pytest.mark.parametrize(
    ("network", "free", "names"),
    [
        (mlp(3, 40, 40, 1), None, ["input-split", "beta-crown"]),
        (mlp(20, 4, 1), None, ["beta-crown", "input-split"]),
        (mlp(50, 30, 1), None, ["beta-crown", "input-split"]),
        (mlp(120, 30, 1), None, ["beta-crown"]),
        (mlp(120, 40, 40, 1), 3, ["input-split", "beta-crown"]),
    ],
)
def test_the_search_with_less_to_split_comes_first(
    network: SmallNetwork, free: int | None, names: list[str]
) -> None:
    makers = fitting(open_case(network, free))
    assert [getattr(maker, "name", "") for maker in makers] == names


def test_inputs_that_vary_by_rounding_alone_are_not_split() -> None:
    """A decimal that is no float32 lies between two of them."""
    network = mlp(130, 40, 40, 1)
    lower, upper = [-1.0] * 3 + [0.1] * 127, [1.0] * 3 + [0.1] * 127
    unsafe = region([[1]], [1e3])
    asked = question(case(lower, upper, unsafe))
    (found,) = bounded(network, asked, Method.CROWN).open_cases
    box = found.progress.box
    assert bool((box.lower < box.upper).all())
    assert found.free_inputs == 3
    names = [getattr(maker, "name", "") for maker in fitting(found)]
    assert names == ["input-split", "beta-crown"]


@pytest.mark.parametrize(
    ("inputs", "names"),
    [(3, ["input-split", "beta-crown"]), (8, ["beta-crown", "input-split"])],
)
def test_without_relus_either_may_go_on(inputs: int, names: list[str]) -> None:
    builder = Builder((inputs,))
    hidden = builder.pointwise(Op.SIGMOID, builder.linear("x", 5))
    builder.linear(hidden, 1)
    makers = fitting(open_case(builder.network()))
    assert [getattr(maker, "name", "") for maker in makers] == names


@pytest.mark.parametrize("before", [[], [Op.RELU]])
def test_functions_of_nothing_but_inputs_have_no_neurons_to_split(before: list[Op]) -> None:
    builder = Builder((2,))
    x = "x"
    for op in (*before, Op.TANH):
        x = builder.pointwise(op, x)
    builder.linear(x, 1)
    (maker,) = fitting(open_case(builder.network()))
    assert getattr(maker, "name", "") == "input-split"


@dataclass
class Scripted:
    """A search that ends each `run` as it was told, and tells in `log` that it ran."""

    name: str
    outcomes: list[SearchEnd]
    open_share: float
    log: list[str] = field(default_factory=list)
    gains: bool = False

    def run(self) -> SearchEnd:
        self.log.append(self.name)
        return self.outcomes.pop(0)


def decided(
    monkeypatch: pytest.MonkeyPatch, first: Scripted, second: Scripted
) -> tuple[SearchEnd, list[str]]:
    log: list[str] = []
    first.log = second.log = log

    def maker(search: Scripted) -> Callable[[SearchContext], Search]:
        return lambda context: search

    monkeypatch.setattr(complete, "fitting", lambda case: [maker(first), maker(second)])
    # What boxes are halved by once more, in float64.
    last = Scripted("C", [GAVE_UP], 0.0, log)
    monkeypatch.setattr(complete, "InputSplit", maker(last))
    network = mlp(3, 8, 1)
    asked = question(case([-1.0] * 3, [1.0] * 3, region([[1]], [1e3])))
    engine, deadline = DriverStub(network), Deadline(Group(), 60)
    bounding = engine.bounding(asked, deadline)
    bounding.run(Method.CROWN)
    sharing = Alike(deadline.check, lambda candidate: False)
    chosen = Complete(asked, CPU, 0, NoTagger(), deadline, sharing, Progress())
    return chosen.run(bounding.open_cases), log


PROVED, PAUSED, GAVE_UP = SearchEnd.PROVED, SearchEnd.PAUSED, SearchEnd.GAVE_UP


@pytest.mark.parametrize(
    ("first", "first_open", "second", "second_open", "outcome", "log"),
    [
        ([PROVED], 0.0, [], 1.0, PROVED, "A"),
        ([PAUSED, PROVED], 0.1, [], 1.0, PROVED, "AA"),
        ([PAUSED, PROVED], 0.8, [PAUSED], 0.9, PROVED, "ABA"),
        ([PAUSED], 0.8, [PAUSED, PROVED], 0.3, PROVED, "ABB"),
        ([PAUSED], 0.8, [PROVED], 0.0, PROVED, "AB"),
        ([GAVE_UP], 0.0, [PROVED], 0.0, PROVED, "AB"),
        ([GAVE_UP], 0.0, [GAVE_UP], 0.0, GAVE_UP, "ABC"),
        ([PAUSED, PROVED], 0.8, [GAVE_UP], 0.1, PROVED, "ABA"),
        ([PAUSED], 0.8, [SearchEnd.COUNTEREXAMPLE], 0.9, SearchEnd.COUNTEREXAMPLE, "AB"),
    ],
)
def test_trials_decide_which_search_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    first: list[SearchEnd],
    first_open: float,
    second: list[SearchEnd],
    second_open: float,
    outcome: SearchEnd,
    log: str,
) -> None:
    scripts = Scripted("A", list(first), first_open), Scripted("B", list(second), second_open)
    found, ran = decided(monkeypatch, *scripts)
    assert (found, "".join(ran)) == (outcome, log)
    assert not scripts[0].outcomes
    assert not scripts[1].outcomes


def test_a_search_that_gains_goes_on_without_a_look_at_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Scripted("A", [PAUSED, PROVED], 1.0, gains=True)
    found, ran = decided(monkeypatch, first, Scripted("B", [], 1.0))
    assert (found, "".join(ran)) == (PROVED, "AA")
