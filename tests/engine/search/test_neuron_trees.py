"""Trees of neurons: what they prove holds over the whole box and comes to what is reached in the
end; they stay in their budget, and end when there is no more to gain or no more time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from examples import examples, seeds
from hypothesis import given
from hypothesis import strategies as st
from questions import bounded, case, region
from small_networks import Builder, SmallNetwork, box_of, cnn, mlp, points_in, specs_of
from sound_bounds import attacked
from test_input_split import TOLERANCE, asked, context, deepest
from test_relu_split import hard
from torch import Tensor

from runner.contract.vocabulary import Method
from runner.engine.bounds import propagate
from runner.engine.bounds.beta import BetaSettings
from runner.engine.bounds.budget import CORE, Budget
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import NetworkBounds, Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.refinement import Depth, Finished, Refinement
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op
from runner.engine.search.deepening import Deepening
from runner.engine.search.neuron_trees import NeuronTrees, TreeSettings, _Block
from runner.engine.search.search import SearchContext, SearchEnd
from runner.problem.property.model import Property

# A tree of the exact minimum ends when nothing can be split, with multipliers that have converged.
TO_THE_END = TreeSettings(child=BetaSettings(iterations=80, decay=0.95), gain=0.0)
DEEP, NO_TRIAL = 64, 0


@dataclass(frozen=True)
class Watched(NeuronTrees):
    """Tells which trees it was asked for: node, neurons, splits."""

    asked: list[tuple[str, int, int | None]] = field(default_factory=list)

    def lower(
        self,
        name: str,
        neurons: Tensor,
        intervals: dict[str, Interval],
        finished: Finished,
        splits: int | None = None,
    ) -> Tensor:
        self.asked.append((name, len(neurons), splits))
        return super().lower(name, neurons, intervals, finished, splits)


def never() -> bool:
    return False


def trees_of(
    network: SmallNetwork,
    splits: int = DEEP,
    trial: int = NO_TRIAL,
    over: Callable[[], bool] = never,
    budget: Budget = CORE,
    settings: TreeSettings | None = None,
) -> Watched:
    depth, settings = Depth(splits, trial), settings or TreeSettings()
    return Watched(network.bound(), NoTagger(), lambda: None, over, budget, depth, settings)


def crown(network: SmallNetwork, box: Interval) -> NetworkBounds:
    return Propagator(network.bound(), Settings(Method.CROWN)).bound(box)


def deepened(trees: NeuronTrees, known: NetworkBounds) -> NetworkBounds:
    """All start nodes, by trees, from bounds that are known."""
    refinement = Refinement(over=trees.over, trees=trees)
    settings = Settings(Method.ALPHA_CROWN, budget=trees.budget)
    return Propagator(trees.network, settings, refinement=refinement).bound(known.box, known)


def assert_holds(network: SmallNetwork, bounds: NetworkBounds) -> None:
    box = bounds.box.to(torch.float64)
    x = torch.cat((points_in(box, 400), attacked(network, box, specs_of(network, 2)))).flatten(0, 1)
    values = network.values(x)
    for name, interval in bounds.intervals.items():
        room = 1e-12 * (1 + values[name].abs().max())
        assert (values[name] >= interval.lower - room).all(), name
        assert (values[name] <= interval.upper + room).all(), name


def assert_no_looser(found: NetworkBounds, known: NetworkBounds) -> None:
    for name, before in known.intervals.items():
        assert (found.intervals[name].lower >= before.lower).all(), name
        assert (found.intervals[name].upper <= before.upper).all(), name


def width(bounds: NetworkBounds) -> float:
    return sum(float((i.upper - i.lower).sum()) for i in bounds.intervals.values())


@examples(30)
@given(
    st.integers(0, 2**16),
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.sampled_from([0.05, 0.5, 2.0]),
    st.sampled_from([1, 3, 20]),
)
def test_bounds_of_random_networks_hold_and_are_never_looser(
    seed: int, hidden: list[int], radius: float, splits: int
) -> None:
    network = mlp(3, *hidden, 2, seed=seed)
    known = crown(network, box_of(network, radius, seed=seed))
    found = deepened(trees_of(network, splits), known)
    assert_holds(network, found)
    assert_no_looser(found, known)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("trial", [NO_TRIAL, 2])
def test_bounds_behind_convolutions_and_a_residual_block_hold_and_gain(
    dtype: torch.dtype, trial: int
) -> None:
    network = cnn(size=4, channels=3)
    known = crown(network, box_of(network, 0.5).to(dtype))
    found = deepened(trees_of(network, splits=8, trial=trial), known)
    assert_holds(network, found)
    assert_no_looser(found, known)
    assert width(found) < 0.95 * width(known)


def outputs_alone(*hidden: int, seed: int) -> SmallNetwork:
    """Whose output's own bounds are wanted, not their sign alone."""
    return mlp(3, *hidden, 2, seed=seed)


def least(network: SmallNetwork, box: Interval) -> Tensor:
    """Of every output, then of the negative of every output."""
    (outputs,) = network.graph.node(network.graph.output).shape
    lower, upper = (end[0].tolist() for end in (box.lower, box.upper))
    rows = np.concatenate((np.eye(outputs), -np.eye(outputs)))
    found = [deepest(network, case(lower, upper, region([row], [0.0]))) for row in rows]
    return torch.tensor(found, dtype=torch.float64)


def lower_of_outputs(trees: NeuronTrees, known: NetworkBounds) -> Tensor:
    output = trees.network.graph.output
    neurons = torch.arange(trees.network.graph.node(output).size)
    return trees.lower(output, neurons, known.intervals, bool)[:, 0]


@pytest.mark.parametrize("seed", seeds(0, 8))
def test_a_tree_comes_to_the_exact_minimum_and_never_above(seed: int) -> None:
    network = outputs_alone(8, seed=seed)
    box = box_of(network, 1.0, seed=seed)
    found = lower_of_outputs(trees_of(network, 200, settings=TO_THE_END), crown(network, box))
    missed = least(network, box) - found
    assert (missed > -1e-6).all()
    # Leaves keep their multipliers in float16.
    assert (missed < 2e-3).all()


def test_a_tree_that_has_no_time_left_proves_what_its_root_does() -> None:
    network = outputs_alone(8, 8, seed=1)
    known = crown(network, box_of(network, 1.0))
    trees = trees_of(network)
    early = lower_of_outputs(replace(trees, over=lambda: True), known)
    late = lower_of_outputs(trees, known)
    assert early.isfinite().all()
    assert (early <= late + 1e-6).all()
    assert (early < late - 1e-3).any()


def test_trees_find_neurons_stable_that_were_not() -> None:
    settled = 0
    for seed in range(8):
        network = mlp(3, 12, 12, 12, 2, seed=seed)
        known = crown(network, box_of(network, 0.5, seed=seed))
        found = deepened(trees_of(network, splits=16), known)
        assert_holds(network, found)
        for name in network.bound().only_unstable:
            before, after = known.intervals[name], found.intervals[name]
            unstable = (before.lower < 0) & (before.upper > 0)
            settled += int((unstable & ((after.lower >= 0) | (after.upper <= 0))).sum())
    assert settled


def negative(plain: SmallNetwork, box: Interval, room: float, *, relu: bool) -> SmallNetwork:
    """Whose outputs are moved to be at most `-room`; `relu`: with one behind them."""
    last = plain.graph.node(plain.graph.output)
    bias = last.parameters["bias"]
    greatest = -least(plain, box)[last.size :]
    builder = Builder(plain.graph.input.shape)
    builder.nodes = list(plain.graph.nodes)
    builder.tensors = {**plain.tensors, bias: plain.tensors[bias] - (greatest + room).float()}
    if relu:
        builder.linear(builder.pointwise(Op.RELU, last.name), 1)
    return builder.network()


def test_a_neuron_that_is_found_stable_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = mlp(3, 8, 8, 2, seed=3)
    box, name = box_of(plain, 1.0), plain.graph.output
    splits: list[int] = []
    weakest = _Block._weakest

    def counted(self: _Block, rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        found = weakest(self, rows, count)
        splits[-1] += len(found[0])
        return found

    monkeypatch.setattr(_Block, "_weakest", counted)
    for relu in (False, True):
        network = negative(plain, box, room=0.05, relu=relu)
        known = crown(network, box)
        assert (known.intervals[name].upper > 0).all()
        trees = trees_of(network, splits=100, settings=TreeSettings(gain=0.0))
        splits.append(0)
        found = trees.lower(name, torch.arange(2), known.intervals, bool)[:, 0]
        assert (found[2:] > 0).all()
    # Where its sign is all that is wanted, what shows it ends the neuron's other row as well.
    of_values, of_signs = splits
    assert 0 < of_signs < of_values / 4, splits


@pytest.mark.parametrize("splits", [1, 2, 50])
def test_trees_that_grow_alone_take_few_rounds_and_no_more_splits_than_they_may(
    splits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = outputs_alone(16, 16, seed=1)
    known = crown(network, box_of(network, 1.0))
    shallow = lower_of_outputs(trees_of(network, 0), known)
    rounds: list[int] = []
    split, proved = _Block.split, _Block.proved

    def counted(self: _Block, rows: Tensor, *, keep: bool) -> None:
        split(self, rows, keep=keep)
        rounds.append(int(self._there.sum()))

    def looked_at(self: _Block) -> Tensor:
        assert int(self._there.sum(1).max()) == splits + 1
        return proved(self)

    monkeypatch.setattr(_Block, "split", counted)
    monkeypatch.setattr(_Block, "proved", looked_at)
    trees = trees_of(network, splits, settings=TreeSettings(gain=0.0))
    assert (lower_of_outputs(trees, known) > shallow).any()
    # Four trees, of two outputs and their negatives: leaves double as long as there is room.
    assert rounds[: 2 if splits > 1 else 1] == [8, min(16, 4 * (splits + 1))][: len(rounds)]
    assert len(rounds) <= 1 + splits // 8 + 4


@pytest.mark.parametrize("looks", [0, 2, 8])
def test_layers_that_are_left_in_the_middle_of_their_trees_have_bounds_that_hold(
    looks: int,
) -> None:
    """`looks`: at the clock, before the time is over."""
    network = mlp(3, 8, 8, 6, 2, seed=2)
    known = crown(network, box_of(network, 1.0))
    counted = itertools.count()
    some = deepened(trees_of(network, over=lambda: next(counted) >= looks), known)
    assert_holds(network, some)
    assert_no_looser(some, known)
    assert (width(some) < width(known)) is (looks > 0)
    assert width(deepened(trees_of(network), known)) < width(some)


@pytest.mark.parametrize("bytes_", [1, 2000, 10**9])
def test_leaves_stay_within_the_budget(bytes_: int) -> None:
    network = mlp(3, 12, 12, 2, seed=4)
    known = crown(network, box_of(network, 1.0))
    trees = trees_of(network, splits=4, budget=Budget(bytes_))
    deepened(trees, known)
    for name, neurons, _ in trees.asked:
        assert neurons <= max(1, trees.most_neurons(name, known.intervals))
    assert trees.asked


def test_layers_that_gain_too_little_in_a_trial_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(3, 12, 12, 2, seed=4)
    known = crown(network, box_of(network, 1.0))
    monkeypatch.setattr(propagate, "TREE_GAIN", 1.0)
    trees = trees_of(network, trial=2)
    found = deepened(trees, known)
    assert {splits for _, _, splits in trees.asked} == {2}
    assert_holds(network, found)


def searched(network: SmallNetwork, instance: Property) -> SearchContext:
    """After CROWN's bounds; with trees, as a verification has them."""
    incomplete = bounded(network, instance, Method.CROWN)
    found = context(network, instance, incomplete)
    if not incomplete.open_cases:
        return found
    deepen = incomplete.open_cases[0].deepen
    return replace(found, deepen=lambda depth: deepen(depth, 1.0))


def test_a_search_that_stalls_needs_fewer_domains_with_trees() -> None:
    asked_, domains = hard(), []
    for depths in ((), (Depth(32, 0),)):
        found = searched(*asked_)
        assert Deepening(found, depths, trial=4).run() is SearchEnd.PROVED
        domains.append(found.progress.domains)
    assert domains[1] < domains[0]


@pytest.mark.slow
def test_no_verdict_contradicts_a_milp() -> None:
    decided = []
    for seed in seeds(1000, 60):
        network, instance = asked(seed)
        distance = deepest(network, instance.cases[0])
        if abs(distance) < TOLERANCE:
            continue
        found = searched(network, instance)
        if not bool(found.case.open.any()):
            continue
        outcome = Deepening(found, (Depth(2, 1), Depth(6, 0)), trial=0).run()
        expected = SearchEnd.COUNTEREXAMPLE if distance < 0 else SearchEnd.PROVED
        assert outcome is expected, (seed, distance)
        decided.append(distance < 0)
    assert set(decided) == {True, False}
