"""Input split: no verdict contradicts a MILP, halves cover the whole, and doubt closes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from questions import bounded, case, identity, incomplete, near_reached, question, region
from scipy.optimize import Bounds, LinearConstraint, milp
from small_networks import CPU, Builder, SmallNetwork, mlp

from runner.contract.vocabulary import EnginePart, Method
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import DeadlineReached
from runner.engine.incomplete import Incomplete
from runner.engine.network.graph import Op
from runner.engine.search.box_store import Boxes, BoxStore, divisible, halves
from runner.engine.search.cuts import NO_WAY, POWERS, Cuts
from runner.engine.search.input_split import InputSplit
from runner.engine.search.near import Near
from runner.engine.search.search import Progress, SearchContext, SearchEnd
from runner.engine.search.sharing import Alike, Sharing
from runner.engine.specs import box_within
from runner.engine.targets import Candidate
from runner.problem.property.model import Case, Property

# A MILP's own tolerance: closer to its threshold than this, a question is not asked.
TOLERANCE = 1e-3


def holds(network: SmallNetwork, instance: Property) -> Callable[[Candidate], bool]:
    """Whether a candidate is inside its box and, in float64, inside its region."""

    def confirm(candidate: Candidate) -> bool:
        point, target = candidate
        asked = instance.cases[target.case]
        assert (asked.lower <= point).all()
        assert (point <= asked.upper).all()
        outputs = network.outputs(torch.from_numpy(point)[None].double())[0].numpy()
        return asked.unsafe[target.disjunct].holds(outputs)

    return confirm


def context(
    network: SmallNetwork,
    instance: Property,
    progress: Incomplete,
    checkpoint: Callable[[], None] = lambda: None,
    sharing: Sharing | None = None,
    without: frozenset[EnginePart] = frozenset(),
) -> SearchContext:
    """Of the only case; on one rank unless `sharing` says otherwise."""
    return SearchContext(
        network=network.bound(),
        case=progress.cases[0],
        number=0,
        within=box_within(instance.cases[0], network.graph.input.shape, CPU),
        settings=Settings(without=without),
        device=CPU,
        seed=0,
        tag=NoTagger(),
        sharing=sharing or Alike(checkpoint, holds(network, instance)),
        progress=Progress(),
    )


def search(network: SmallNetwork, instance: Property) -> tuple[SearchEnd, Incomplete, Progress]:
    """Without any bounds before."""
    nothing = incomplete(network, instance)
    chosen = context(network, instance, nothing)
    return InputSplit(chosen).run(), nothing, chosen.progress


def deepest(network: SmallNetwork, asked: Case) -> float:
    """How far the nearest point is outside all regions: min over x of the worst constraint, by a
    MILP with a binary for each ReLU; <= 0 means sat.
    """
    return min(_deepest(network, asked, part.matrix, part.rhs) for part in asked.unsafe)


def _deepest(network: SmallNetwork, asked: Case, matrix: np.ndarray, rhs: np.ndarray) -> float:
    sizes = [node.size for node in network.graph.nodes]
    starts = dict(zip([n.name for n in network.graph.nodes], np.cumsum([0, *sizes]), strict=False))
    values = sum(sizes)
    relus = [node for node in network.graph.nodes if node.op is Op.RELU]
    total = values + sum(node.size for node in relus) + 1
    rows: list[np.ndarray] = []
    low: list[float] = []
    high: list[float] = []

    def constrain(lower: float, upper: float, *terms: tuple[int, float]) -> None:
        row = np.zeros(total)
        for index, weight in terms:
            row[index] += weight
        rows.append(row)
        low.append(lower)
        high.append(upper)

    box_lower, box_upper = np.full(total, -np.inf), np.full(total, np.inf)
    box_lower[: sizes[0]], box_upper[: sizes[0]] = asked.lower, asked.upper
    box_lower[values:-1], box_upper[values:-1] = 0, 1
    limit, binary = 100.0, values
    for node in network.graph.nodes[1:]:
        at, before = starts[node.name], starts[node.inputs[0]]
        if node.op is Op.RELU:
            for k in range(node.size):
                y, x, z = at + k, before + k, binary + k
                constrain(0, np.inf, (y, 1))
                constrain(0, np.inf, (y, 1), (x, -1))
                constrain(-np.inf, limit, (y, 1), (x, -1), (z, limit))
                constrain(-np.inf, 0, (y, 1), (z, -limit))
            binary += node.size
        else:
            weight = network.tensors[node.parameters["weight"]].double().numpy()
            bias = network.tensors[node.parameters["bias"]].double().numpy()
            for k in range(node.size):
                terms = [(before + i, -float(w)) for i, w in enumerate(weight[k])]
                constrain(bias[k], bias[k], (at + k, 1.0), *terms)
    output = starts[network.graph.output]
    for row, threshold in zip(matrix, rhs, strict=True):
        terms = [(output + i, float(w)) for i, w in enumerate(row)]
        constrain(-np.inf, threshold, *terms, (total - 1, -1.0))
    goal = np.zeros(total)
    goal[-1] = 1
    integral = np.zeros(total)
    integral[values:-1] = 1
    solved = milp(
        goal,
        constraints=LinearConstraint(np.array(rows), low, high),
        bounds=Bounds(box_lower, box_upper),
        integrality=integral,
    )
    assert solved.success, solved.message
    return float(solved.fun)


def asked(seed: int) -> tuple[SmallNetwork, Property]:
    """Of a random network."""
    random = np.random.default_rng(seed)
    inputs, outputs = int(random.integers(1, 4)), int(random.integers(1, 4))
    hidden = [int(random.integers(2, 5)) for _ in range(int(random.integers(1, 4)))]
    network = mlp(inputs, *hidden, outputs, seed=seed)
    return network, near_reached(network, random)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 240, 40))
def test_no_verdict_contradicts_a_milp(first: int) -> None:
    decided = []
    for seed in range(first, first + 40):
        network, instance = asked(seed)
        distance = deepest(network, instance.cases[0])
        if abs(distance) < TOLERANCE:
            continue
        outcome, found, _ = search(network, instance)
        sat = distance < 0
        assert outcome is (SearchEnd.COUNTEREXAMPLE if sat else SearchEnd.PROVED), (seed, distance)
        if not sat:
            assert 0 < found.lower_bound <= distance + TOLERANCE
        decided.append(sat)
    assert {True, False} == set(decided)


@given(st.integers(0, 2**16), st.integers(1, 4))
def test_halves_are_the_whole(seed: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    whole = boxes(5, inputs, generator)
    at = torch.randint(inputs, (5,), generator=generator)
    both = halves(whole, at)
    left, right = both.select(torch.arange(5)), both.select(torch.arange(5, 10))
    index = at[:, None]
    assert torch.equal(left.upper.gather(1, index), right.lower.gather(1, index))
    assert torch.equal(left.lower, whole.lower)
    assert torch.equal(right.upper, whole.upper)
    others = torch.ones_like(whole.lower, dtype=torch.bool).scatter_(1, index, False)
    assert torch.equal(left.upper[others], whole.upper[others])
    assert torch.equal(right.lower[others], whole.lower[others])
    assert (left.lower <= left.upper).all()
    assert (right.lower <= right.upper).all()
    assert torch.equal(both.margins, whole.margins.repeat(2, 1))
    assert (both.depth == whole.depth.repeat(2) + 1).all()


def boxes(count: int, inputs: int, generator: torch.Generator) -> Boxes:
    """Points, neighbouring floats, thin and wide boxes."""
    lower = torch.randn(count, inputs, generator=generator)
    width = torch.randn(count, inputs, generator=generator).exp() * 10.0 ** torch.randint(
        -9, 9, (count, inputs), generator=generator
    )
    margins = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    known = torch.randn(count, 3, generator=generator)
    depth = torch.arange(count)
    way = torch.full((count,), NO_WAY, dtype=torch.int8)
    return Boxes(lower, lower + width, margins, depth, known, known + 1, way)


def test_neighbouring_floats_are_not_divisible() -> None:
    one = torch.tensor(1.0)
    after = torch.nextafter(one, torch.tensor(2.0))
    generator = torch.Generator().manual_seed(0)
    some = boxes(1, 3, generator)
    lower = torch.stack((one, one, one))[None]
    upper = torch.stack((one, after, torch.nextafter(after, torch.tensor(2.0))))[None]
    thin = replace(some, lower=lower, upper=upper)
    assert divisible(thin).tolist() == [[False, False, True]]


def test_a_store_gives_every_box_once_and_the_worst_first() -> None:
    generator = torch.Generator().manual_seed(0)
    store: BoxStore[Boxes] = BoxStore()
    parts = [boxes(20, 2, generator) for _ in range(4)]
    for part in parts:
        store.put(part)
    taken = []
    while len(store):
        taken.append(store.take(7))
    worst = torch.cat([part.worst.sort().values for part in taken])
    assert torch.equal(worst, torch.cat([part.worst for part in parts]).sort().values)
    found = torch.cat([part.lower for part in taken])
    assert sorted(map(tuple, found.tolist())) == sorted(
        tuple(row) for part in parts for row in part.lower.tolist()
    )


def test_a_full_store_gives_full_batches_of_the_newest() -> None:
    generator = torch.Generator().manual_seed(0)
    store: BoxStore[Boxes] = BoxStore(sorted_boxes=30)
    parts = [boxes(count, 2, generator) for count in (40, 3, 5, 2)]
    for part in parts:
        store.put(part)
    taken = store.take(8)
    assert len(taken) == 8
    newest = torch.cat([part.lower for part in parts[1:]]).tolist()
    assert all(lower in newest for lower in taken.lower.tolist())
    assert len(store) == 42


def wave() -> tuple[SmallNetwork, Property]:
    """Needs dozens of boxes."""
    network = mlp(3, 24, 24, 1, seed=2)
    x = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2
    least = float(network.outputs(x).min())
    return network, question(case([-2] * 3, [2] * 3, region([[1]], [least - 0.1])))


def test_the_record_tells_what_was_done() -> None:
    outcome, found, progress = search(*wave())
    assert outcome is SearchEnd.PROVED
    assert not found.open_targets
    assert progress.rounds == len(progress.history) > 3
    assert progress.domains == progress.history[-1].domains > 20
    assert progress.depth >= np.log2(progress.domains / 2) - 1
    assert progress.history[-1].open == 0
    bounds = [point.bound for point in progress.history]
    assert bounds == sorted(bounds)
    assert bounds[-1] == found.lower_bound > 0


def test_the_deadline_leaves_a_bound_that_holds() -> None:
    network, instance = wave()
    calls = itertools.count()

    def checkpoint() -> None:
        if next(calls) == 10:
            raise DeadlineReached

    progress = bounded(network, instance, Method.CROWN)
    before = progress.lower_bound
    with pytest.raises(DeadlineReached):
        InputSplit(context(network, instance, progress, checkpoint)).run()
    assert progress.open_targets
    assert before < progress.lower_bound <= 0.1


def test_what_float32_cannot_tell_is_told_in_float64() -> None:
    near = question(case([1], [2], region([[1]], [1 - 1e-9])))
    outcome, _, progress = search(direct(), near)
    assert outcome is SearchEnd.PROVED
    assert progress.domains == 1


def test_a_threshold_that_is_reached_is_given_up_and_never_proved() -> None:
    """y >= 1 on the box, and y < 1 is unsafe: no counterexample, and no bound above 1."""
    touching = question(case([1], [2], region([[1]], [1], strict=True)))
    outcome, found, _ = search(direct(), touching)
    assert outcome is SearchEnd.GAVE_UP
    assert found.open_targets


def direct() -> SmallNetwork:
    """y = x without rounding in float64."""
    builder = Builder((1,))
    x = builder.pointwise(Op.RELU, "x")
    return builder.network(builder.linear_of(x, torch.eye(1), torch.zeros(1)))


def test_a_counterexample_that_is_not_confirmed_does_not_end_the_search() -> None:
    """The region is missed by less than float32 can tell."""
    instance = question(case([0], [1], region([[1]], [-1e-7], strict=True)))
    outcome, _, _ = search(identity(), instance)
    assert outcome is not SearchEnd.COUNTEREXAMPLE


def test_disjuncts_that_are_closed_stay_closed() -> None:
    network, instance = wave()
    (only,) = instance.cases
    far = region([[1]], [-1000])
    both = question(case(list(only.lower), list(only.upper), far, *only.unsafe))
    progress = bounded(network, both, Method.CROWN)
    assert progress.cases[0].open.tolist() == [False, True]
    assert InputSplit(context(network, both, progress)).run() is SearchEnd.PROVED
    assert not progress.open_targets
    assert progress.cases[0].margins[0] > 900


def test_known_bounds_close_no_less() -> None:
    network, instance = wave()
    progress = bounded(network, instance, Method.ALPHA_CROWN)
    chosen = context(network, instance, progress)
    assert InputSplit(chosen).run() is SearchEnd.PROVED
    _, _, alone = search(network, instance)
    assert chosen.progress.domains <= alone.domains


def test_a_conjunction_that_no_row_refutes_is_refuted_by_a_mix_in_one_box(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """y <= -c and -y <= -c, where y has both signs: half of each is 0 > -c."""
    network = mlp(3, 16, 16, 1, seed=0)
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    values = network.outputs(points)[:, 0]
    limit = 0.2 * float(torch.minimum(values.max(), -values.min()))
    assert limit > 0
    both = region([[1.0], [-1.0]], [-limit, -limit])
    instance = question(case([-1.0] * 3, [1.0] * 3, both))
    end, _, progress = search(network, instance)
    assert end is SearchEnd.PROVED
    assert progress.domains == 1
    # Mixes of linear bounds, which were relaxed row by row, need more boxes.
    monkeypatch.setattr(Near, "pays", lambda self, price: False)
    end, _, progress = search(network, instance)
    assert end is SearchEnd.PROVED
    assert progress.domains > 1


@pytest.mark.slow
@pytest.mark.parametrize("way", range(len(POWERS)))
def test_every_way_of_cutting_has_the_verdict_of_an_exact_search(
    monkeypatch: pytest.MonkeyPatch, way: int
) -> None:
    monkeypatch.setattr(Cuts, "ways", lambda self, count: torch.full((count,), way))
    outcomes = set()
    for seed in range(30):
        network, instance = asked(seed)
        exact = deepest(network, instance.cases[0])
        if abs(exact) < TOLERANCE:
            continue
        end, _, _ = search(network, instance)
        assert end is (SearchEnd.COUNTEREXAMPLE if exact < 0 else SearchEnd.PROVED), seed
        outcomes.add(end)
    assert len(outcomes) == 2
