"""The attack from open boxes finds what lies behind a plateau, and confirms it as any other."""

from __future__ import annotations

import torch
from questions import case, incomplete, question, region
from small_networks import Builder, SmallNetwork
from test_input_split import context, holds

from runner.engine.network.graph import Op
from runner.engine.search.box_attack import RANDOM, SHARE, STARTS, STEPS, BoxAttack
from runner.engine.search.box_store import Boxes
from runner.engine.search.cuts import NO_WAY
from runner.engine.search.input_split import InputSplit
from runner.engine.search.search import SearchContext, SearchEnd
from runner.engine.search.sharing import Alike
from runner.engine.targets import Candidate

# y is PLATEAU everywhere but in a well of this width around PLACE, where it falls below 0.
PLATEAU, PLACE, WIDTH = 0.001, 0.3, 2e-3


def well() -> SmallNetwork:
    builder = Builder((1,))
    ends = torch.tensor([PLACE - WIDTH / 2, PLACE, PLACE + WIDTH / 2])
    x = builder.linear_of("x", torch.ones(3, 1), -ends)
    x = builder.pointwise(Op.RELU, x)
    slopes = torch.tensor([[-4.0, 8.0, -4.0]])
    return builder.network(builder.linear_of(x, slopes, torch.tensor([PLATEAU])))


ASKED = question(case([-1.0], [1.0], region([[1.0]], [0.0])))


def asked(confirmed: list[Candidate]) -> SearchContext:
    network = well()
    confirm = holds(network, ASKED)

    def told(candidate: Candidate) -> bool:
        confirmed.append(candidate)
        return confirm(candidate)

    progress = incomplete(network, ASKED)
    return context(network, ASKED, progress, sharing=Alike(lambda: None, told))


def boxes(*limits: tuple[float, float]) -> tuple[Boxes, torch.Tensor]:
    """Open ones, and their lower corners."""
    ends = torch.tensor(limits)
    count = len(limits)
    lower, upper = ends[:, :1], ends[:, 1:]
    made = Boxes(
        lower,
        upper,
        torch.full((count, 1), -1.0, dtype=torch.float64),
        torch.zeros(count, dtype=torch.long),
        torch.zeros(count, 0),
        torch.zeros(count, 0),
        torch.full((count,), NO_WAY, dtype=torch.int8),
    )
    return made, lower


def attack(chosen: SearchContext) -> BoxAttack:
    return BoxAttack(chosen, chosen.case.specs, torch.zeros(1, dtype=torch.long))


def test_a_well_is_found_from_the_box_that_it_is_in() -> None:
    confirmed: list[Candidate] = []
    some, corners = boxes(*((-1 + k / 10, -0.9 + k / 10) for k in range(12)), (0.299, 0.3015))
    assert attack(asked(confirmed)).found(some, corners)
    point, target = confirmed[-1]
    assert abs(float(point[0]) - PLACE) < WIDTH / 2
    assert (target.case, target.disjunct) == (0, 0)


def test_on_the_plateau_nothing_is_found_and_nothing_asked() -> None:
    confirmed: list[Candidate] = []
    some, corners = boxes((-1.0, -0.5), (0.5, 1.0))
    assert not attack(asked(confirmed)).found(some, corners)
    assert not confirmed


def test_it_is_due_when_bounding_has_taken_several_times_as_long() -> None:
    some = attack(asked([]))
    points = 10 * (RANDOM + 2) + STARTS * STEPS
    price = 2 * points * len(well().graph.nodes)
    enough = int(price / SHARE) + 1
    assert not some.due(10, enough // 2)
    assert some.due(10, enough // 2 + 1)
    assert not some.due(10, enough // 2)


def test_the_whole_search_finds_it() -> None:
    assert InputSplit(asked([])).run() is SearchEnd.COUNTEREXAMPLE
