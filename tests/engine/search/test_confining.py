"""Confined sub-domains: every unsafe point of one keeps its neurons within the new limits, and a
search that has them decides what it decides without.
"""

from __future__ import annotations

import pytest
import torch
from examples import seeds
from questions import bounded
from test_clipping import asked, split
from test_input_split import context

from runner.contract.vocabulary import EnginePart, Method
from runner.engine.search import confining
from runner.engine.search.branching import inspected
from runner.engine.search.confining import Confining, _Kept
from runner.engine.search.domains import Domains
from runner.engine.search.relu_split import ReluSplit
from runner.engine.search.search import Progress, SearchEnd
from runner.engine.search.split_root import SplitRoot


@pytest.mark.parametrize("seed", seeds(1, 3))
@pytest.mark.parametrize("depth", [0.1, 0.3])
def test_what_is_unsafe_in_a_sub_domain_is_within_its_new_limits(seed: int, depth: float) -> None:
    network, instance, points = asked(seed, depth)
    assert len(points) > 100
    searched = context(network, instance, bounded(network, instance, Method.CROWN))
    root = SplitRoot.of(searched)
    confining = Confining(searched, root)
    assert confining.possible
    inputs = root.bounds.space.columns_of(network.values(points))
    before, after, checked = 0.0, 0.0, 0
    for domains in split(root):
        parents = root.subdomains(domains)
        thresholds = root.rows.goal(domains.disjunct, root.dtype)
        seen = inspected(root.bounds, parents, root.bounds.inspect(parents), thresholds)
        due = torch.arange(len(domains))[::2]
        found = confining.confined(domains, due, seen)
        for index in range(len(domains)):
            inside = (inputs * domains.phases[index] >= 0).all(1)
            assert (inputs[inside] >= found.lower[index] - 1e-6).all()
            assert (inputs[inside] <= found.upper[index] + 1e-6).all()
            checked += int(inside.sum())
        others = torch.arange(len(domains))[1::2]
        assert torch.equal(found.lower[others], domains.lower[others])
        assert (found.ceiling[due] == 0).all()
        assert (found.ceiling[others] == torch.inf).all()
        assert torch.equal(found.anew[due], domains.depth[due])
        before += float((domains.upper - domains.lower)[due].sum())
        after += float((found.upper - found.lower)[due].clamp(min=0).sum())
    assert checked > 100
    assert after < 0.97 * before


def ended(seed: int, without: frozenset[EnginePart]) -> tuple[SearchEnd, list[bool], Progress]:
    network, instance, _ = asked(seed, -0.05)
    incomplete = bounded(network, instance, Method.CROWN, without=without)
    chosen = context(network, instance, incomplete, without=without)
    end = ReluSplit(chosen).run()
    return end, chosen.case.open.tolist(), chosen.progress


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confining, "LEVELS", 1)
    monkeypatch.setattr(confining, "NEEDED", 0)


@pytest.mark.usefixtures("often")
def test_a_search_decides_the_same_with_fewer_domains() -> None:
    counts, ends = [], []
    for without in ({EnginePart.CLIPS}, {EnginePart.CLIPS, EnginePart.CONFINED}):
        found = [ended(seed, frozenset(without)) for seed in range(4)]
        counts.append(sum(progress.domains for *_, progress in found))
        ends.append([(end, open_) for end, open_, _ in found])
    assert ends[0] == ends[1]
    assert counts[0] < 0.8 * counts[1]


def domains_of(margins: list[float], stood: list[float], levels: list[int]) -> Domains:
    count = len(margins)
    some = torch.zeros((count, 1))
    depth = torch.tensor(levels)
    wide = torch.tensor(margins, dtype=torch.float64)
    return Domains(
        disjunct=depth * 0,
        phases=some.to(torch.int8),
        lower=some,
        upper=some,
        multipliers=some[:, None],
        margins=wide,
        depth=depth + 3,
        urgency=wide,
        ceiling=wide,
        anew=depth * 0 + 3,
        stood=torch.tensor(stood, dtype=torch.float64),
    )


def test_a_sub_domain_is_due_where_as_many_splits_more_would_not_close_it() -> None:
    network, instance, _ = asked(1, 0.1)
    searched = context(network, instance, bounded(network, instance, Method.CROWN))
    confining = Confining(searched, SplitRoot.of(searched))
    enough = domains_of(
        [-7.0, -5.0, -7.0, -1.0], stood=[-11.0, -9.0, -11.0, -1.0], levels=[4, 4, 3, 9]
    )
    assert confining.due(enough).tolist() == [0, 3], "four levels, and needs over six"


def test_few_are_tried_at_first_and_again_now_and_then_where_it_gains_little() -> None:
    network, instance, _ = asked(1, 0.1)
    searched = context(network, instance, bounded(network, instance, Method.CROWN))
    confining = Confining(searched, SplitRoot.of(searched))
    stuck = domains_of([-1.0] * 9, stood=[-1.0] * 9, levels=[9] * 9)
    missed = torch.ones(9, dtype=torch.float64)
    assert len(confining.due(stuck)) == 4
    confining.gained(missed, 0.95 * missed)
    assert sorted(len(confining.due(stuck)) for _ in range(32)) == [0] * 30 + [4, 4]
    confining.gained(missed, torch.zeros_like(missed))
    assert len(confining.due(stuck)) == 9


def test_what_was_found_for_a_neuron_is_kept_for_the_next_but_its_betas() -> None:
    kept = _Kept(torch.zeros(1), neurons=5, width=3, room=2)
    where = torch.tensor([0, 1, 0]), torch.tensor([4, 2, 4])
    lasting = torch.tensor([[True, False, True]]).expand(3, 3)
    found = torch.tensor([[0.5, 9.0, 1.0], [0.25, 9.0, 2.0], [0.75, 9.0, 3.0]])
    nothing = torch.full((3, 3), -1.0)
    assert kept.of(where, lasting, nothing) == (nothing, False)
    kept.keep(where, lasting, found)
    first, known = kept.of(where, lasting, nothing)
    assert known
    assert first.tolist() == [[0.75, -1.0, 3.0], [0.25, -1.0, 2.0], [0.75, -1.0, 3.0]]
    other = torch.tensor([1]), torch.tensor([4])
    kept.keep(other, lasting[:1], found[:1])
    _, known = kept.of(other, lasting[:1], nothing[:1])
    assert not known, "there is no room"
