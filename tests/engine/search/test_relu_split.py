"""ReLU split: no verdict contradicts a MILP, whatever the batch and the attempt; doubt is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples import rest, seeds
from questions import bounded, case, identity, question, region
from small_networks import CPU, SmallNetwork, mlp
from test_input_split import TOLERANCE, asked, deepest, direct, holds

from runner.contract.vocabulary import EnginePart, Method
from runner.engine.bounds.beta import BetaSettings
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import DeadlineReached
from runner.engine.incomplete import Incomplete
from runner.engine.search import clipping, relu_split
from runner.engine.search.relu_split import ReluSplit, ReluSplitSettings
from runner.engine.search.search import Progress, SearchContext, SearchEnd
from runner.engine.search.seeds import Seeds
from runner.engine.search.sharing import Alike
from runner.engine.specs import box_within
from runner.problem.property.model import Property

# Few iterations leave more to the branching and to the LP.
WEAK = ReluSplitSettings(
    batch=16, root=BetaSettings(iterations=2), child=BetaSettings(iterations=2), seeds=1
)
ATTEMPTS = {
    "one domain at a time": replace(WEAK, batch=2),
    "first attempt": replace(WEAK, most_rows=0),
    "the hopeless given up": replace(
        WEAK, most_rows=0, child=BetaSettings(iterations=4, patience=2, gain=0.0)
    ),
    "second attempt": replace(WEAK, trial=0),
    "one after the other": replace(WEAK, trial=4),
}


def search(
    network: SmallNetwork,
    instance: Property,
    settings: ReluSplitSettings,
    checkpoint: Callable[[], None] = lambda: None,
    method: Method = Method.CROWN,
    without: frozenset[EnginePart] = frozenset(),
) -> tuple[SearchEnd, Incomplete, Progress]:
    """Over the only case, after the bounds of `method`."""
    incomplete, progress = bounded(network, instance, method, without=without), Progress()
    if not bool(incomplete.cases[0].open.any()):
        return SearchEnd.PROVED, incomplete, progress
    context = SearchContext(
        network=network.bound(),
        case=incomplete.cases[0],
        number=0,
        within=box_within(instance.cases[0], network.graph.input.shape, CPU),
        settings=Settings(without=without),
        device=CPU,
        seed=0,
        tag=NoTagger(),
        sharing=Alike(checkpoint, holds(network, instance)),
        progress=progress,
    )
    return ReluSplit(context, settings).run(), incomplete, progress


@pytest.mark.slow
@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("easy", [relu_split.EASY, *rest(0)])
def test_no_verdict_contradicts_a_milp(
    attempt: str, easy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`easy`: after so many domains planes are made, for these small networks hardly ever."""
    monkeypatch.setattr(relu_split, "EASY", easy)
    decided = []
    for seed in seeds(1000, 80):
        network, instance = asked(seed)
        distance = deepest(network, instance.cases[0])
        if abs(distance) < TOLERANCE:
            continue
        outcome, incomplete, _ = search(network, instance, ATTEMPTS[attempt], method=Method.IBP)
        sat = distance < 0
        assert outcome is (SearchEnd.COUNTEREXAMPLE if sat else SearchEnd.PROVED), (seed, distance)
        if not sat:
            assert not incomplete.open_targets
        decided.append(sat)
    assert {True, False} == set(decided)


PLAIN = replace(WEAK, child=BetaSettings(iterations=8))


def hard(seed: int = 2) -> tuple[SmallNetwork, Property]:
    """Needs dozens of domains."""
    network = mlp(4, 16, 16, 2, seed=seed)
    x = torch.rand(20000, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    least = float(network.outputs(x)[:, 0].min())
    unsafe = region([[1, 0]], [least - 0.2])
    return network, question(case([-1] * 4, [1] * 4, unsafe), outputs=2)


@pytest.mark.slow
@pytest.mark.parametrize("trial", [0, 10**6])
def test_the_batch_changes_no_verdict(trial: int) -> None:
    for batch in (6, 64):
        settings = replace(PLAIN, batch=batch, trial=trial)
        outcome, incomplete, progress = search(*hard(), settings)
        assert outcome is SearchEnd.PROVED
        # Where nothing is unsafe in what a half space leaves, no more is claimed of the rest.
        assert incomplete.lower_bound >= 0
        assert progress.domains > 10


def near(seed: int, room: float) -> tuple[SmallNetwork, Property, float]:
    """Of many inputs, an output is to stay above what a descent found, by so much of its size; with
    that value.
    """
    network, inputs, radius = mlp(100, 24, 16, 2, seed=seed), 100, 0.2
    x = torch.rand(2000, inputs, generator=torch.Generator().manual_seed(0)) * 2 * radius - radius
    for _ in range(60):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network.outputs(x)[:, 0].sum(), x)
        x = (x - radius / 15 * slope.sign()).clamp(-radius, radius)
    values = network.outputs(x.detach())[:, 0]
    least = float(values.min())
    unsafe = region([[1, 0]], [least - room * float(values.abs().max())])
    asked = case([-radius] * inputs, [radius] * inputs, unsafe)
    return network, question(asked, outputs=2), least


def test_half_spaces_take_domains_away_and_no_more_is_claimed_than_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of domains that no plane takes away before."""
    clipped = plain = 0
    of_triangles = frozenset({EnginePart.PLANES})
    for seed in (1, 2):
        network, instance, least = near(seed, 0.05)
        outcome, incomplete, progress = search(network, instance, PLAIN, without=of_triangles)
        assert outcome is SearchEnd.PROVED
        assert incomplete.lower_bound <= least - float(instance.cases[0].unsafe[0].rhs[0])
        with monkeypatch.context() as patch:
            patch.setattr(clipping, "MOST_NEURONS", 0)
            outcome, _, unclipped = search(network, instance, PLAIN, without=of_triangles)
        assert outcome is SearchEnd.PROVED
        clipped, plain = clipped + progress.domains, plain + unclipped.domains
    assert clipped < 0.85 * plain


def test_half_spaces_hide_no_counterexample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relu_split, "search", lambda context, seeds: False)
    for seed in (1, 2):
        network, instance, _ = near(seed, -0.01)
        outcome, incomplete, _ = search(network, instance, PLAIN, lambda: None)
        assert outcome is not SearchEnd.PROVED
        assert incomplete.open_targets


def test_the_record_tells_what_was_done() -> None:
    outcome, incomplete, progress = search(*hard(), PLAIN)
    assert outcome is SearchEnd.PROVED
    assert not incomplete.open_targets
    assert progress.rounds == len(progress.history) > 3
    assert progress.depth > 2
    assert progress.history[-1].open == 0
    bounds = [point.bound for point in progress.history]
    assert bounds == sorted(bounds)
    # Half spaces had a part in it: no margin above 0 is claimed.
    assert bounds[-1] == incomplete.lower_bound == 0


@pytest.mark.slow
def test_an_attack_leads_every_fourth_round(monkeypatch: pytest.MonkeyPatch) -> None:
    attacks: list[int] = []

    def attack(context: SearchContext, seeds: Seeds) -> bool:
        attacks.append(context.progress.rounds)
        return False

    monkeypatch.setattr("runner.engine.search.relu_split.search", attack)
    _, _, progress = search(*hard(), replace(PLAIN, batch=4, most_rows=0))
    assert progress.rounds > 8
    assert attacks == list(range(1, progress.rounds, 4))


@pytest.mark.slow
def test_the_deadline_leaves_a_bound_that_holds() -> None:
    network, instance = hard()
    calls = itertools.count()

    def checkpoint() -> None:
        if next(calls) == 40:
            raise DeadlineReached

    incomplete = bounded(network, instance, Method.CROWN)
    before = incomplete.lower_bound
    context = SearchContext(
        network.bound(),
        incomplete.cases[0],
        0,
        box_within(instance.cases[0], network.graph.input.shape, CPU),
        Settings(),
        CPU,
        0,
        NoTagger(),
        Alike(checkpoint, holds(network, instance)),
        Progress(),
    )
    with pytest.raises(DeadlineReached):
        ReluSplit(context, WEAK).run()
    assert incomplete.open_targets
    assert before <= incomplete.lower_bound <= deepest(network, instance.cases[0]) + TOLERANCE


def test_a_threshold_that_is_reached_is_given_up_and_never_proved() -> None:
    """y >= 1 on the box, and y < 1 is unsafe: no counterexample, and no bound above 1."""
    touching = question(case([1], [2], region([[1]], [1], strict=True)))
    outcome, incomplete, _ = search(direct(), touching, WEAK)
    assert outcome is SearchEnd.GAVE_UP
    assert incomplete.open_targets


def test_a_counterexample_that_is_not_confirmed_does_not_end_the_search() -> None:
    """The region is missed by less than float32 can tell."""
    instance = question(case([0], [1], region([[1]], [-1e-7], strict=True)))
    outcome, _, _ = search(identity(), instance, WEAK)
    assert outcome is not SearchEnd.COUNTEREXAMPLE


def test_a_disjunct_without_constraints_is_never_proved() -> None:
    network, instance = hard()
    (only,) = instance.cases
    nothing = region(np.zeros((0, 2)), [])
    with_nothing = question(
        case(list(only.lower), list(only.upper), *only.unsafe, nothing), outputs=2
    )
    outcome, _, _ = search(network, with_nothing, replace(PLAIN, seeds=16))
    assert outcome is SearchEnd.COUNTEREXAMPLE
