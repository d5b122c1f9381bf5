"""In which precision passes go where float32's rounding would cost much of what they find.

Most of what a pass is charged often comes from the last nodes before the input: their values are
large beside how far a small box lets them vary. There it goes on in float64, and nothing before is
computed in it. Only where that is not enough is all of a network bounded in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from runner.contract.vocabulary import Memory
from runner.engine.bounds.backward import (
    WholeCharges,
    advance,
    concretize,
    local_interval,
    start_frontier,
)
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import PLAIN, BoundNetwork
from runner.engine.bounds.network_bounds import NetworkBounds
from runner.engine.bounds.rounding import LEDGER, gamma, sums_in, unit
from runner.engine.bounds.tagging import Tagger
from runner.engine.network.graph import Graph, Node

# Of a node's width: if rounding has a larger share, float32 is too coarse.
COARSE_SHARE = 0.01


@dataclass(frozen=True)
class RoundingShares:
    """Of a node's width, what rounding may make up: before some nodes are passed in float64
    (`mixed`), and before all is bounded in it (`all`).
    """

    mixed: float
    all: float


CHEAP = RoundingShares(COARSE_SHARE, COARSE_SHARE)
# Where rows take long: in float64 they take several times as long.
DEAR = RoundingShares(2 * COARSE_SHARE, 10 * COARSE_SHARE)
# Neurons of a start node, to see what rounding costs them.
SAMPLE = 8
# Of the work of a row from the output, what may be done in float64 for the rest to be in float32.
MOST_FINE = 0.25


def fine_enough(
    network: BoundNetwork,
    name: str,
    interval: Interval,
    bounds: NetworkBounds,
    most: float,
    tag: Tagger,
) -> tuple[NetworkBounds, float]:
    """The same bounds with as few `fine` nodes, no fewer than it has, as leave rounding at most
    that share of a start node's width, or else with as many as there may be; and that share.
    """
    share = rounding_share(network, name, interval, bounds, tag)
    for fine in _ends(network):
        if share <= most or name in fine:
            break
        if fine > bounds.fine:
            bounds = _raised(network, bounds, fine)
            share = rounding_share(network, name, interval, bounds, tag)
    return bounds, share


def rounding_share(
    network: BoundNetwork, name: str, interval: Interval, bounds: NetworkBounds, tag: Tagger
) -> float:
    """What share of the width that CROWN finds at a start node rounding makes up, but no less than
    one rounding of the precision it is in. Of a few of its neurons, which every rank bounds.
    """
    ends = interval.lower.flatten(1), interval.upper.flatten(1)
    wanted = (ends[0] < ends[1]).any(0).nonzero()[:, 0]
    some = wanted[:: max(1, len(wanted) // SAMPLE)][:SAMPLE]
    least = unit(bounds.dtype)
    if not len(some):
        return least
    with torch.no_grad(), tag.kind(Memory.A):
        start = start_frontier(network, name, some, len(ends[0]), bounds.dtype)
        charges = WholeCharges(network, bounds.intervals)
        done = advance(network, start, bounds.lines, {}, charges, fine=bounds.fine)
        plain = concretize(network, done, bounds.box)
        charged = concretize(network, done, bounds.box, charge=True)
    share = float((plain - charged).sum()) / max(float(-plain.sum()), 1e-300)
    return share if share > least or math.isnan(share) else least


def are_coarse(network: BoundNetwork, bounds: NetworkBounds) -> bool:
    """Whether rounding makes up much of the width of a node's interval bounds."""
    shares = []
    for name, interval in bounds.intervals.items():
        if interval.sums is None:
            continue
        terms = network.terms(name, bounds.dtype)
        sums = sums_in(interval.sums, interval.off, bounds.dtype, terms)
        cost = 2 * sums.sum() * gamma(terms, bounds.dtype)
        cost = network.features.total(network.features.counted(name, cost))
        shares.append(float(cost) / max(float((interval.upper - interval.lower).sum()), 1e-300))
    # Not below: where values have overflowed, shares are no numbers.
    return not all(share <= COARSE_SHARE for share in shares)


def _raised(network: BoundNetwork, bounds: NetworkBounds, fine: frozenset[str]) -> NetworkBounds:
    raised = {}
    for node in network.graph.nodes:
        if node.name in fine and node.name in network.relaxed:
            before = bounds.intervals[node.inputs[0]]
            mine = local_interval(network, node.inputs[0], before).to(LEDGER)
            raised[node.name] = network.relaxed[node.name].relax(mine)
    return replace(bounds, fine=fine, raised=raised)


def _ends(network: BoundNetwork) -> Iterator[frozenset[str]]:
    """The nodes next to the input, more and more of them, that passes may cross in float64."""
    nodes, users = network.graph.nodes, _users(network.graph)
    most = MOST_FINE * network.work(nodes[1:])
    for count in range(2, len(nodes)):
        fine = frozenset(node.name for node in nodes[:count])
        if network.work(nodes[1:count]) > most:
            return
        if all(_charged(network, fine, users[node.name]) for node in nodes[:count]):
            yield fine


def _users(graph: Graph) -> dict[str, list[Node]]:
    users: dict[str, list[Node]] = {node.name: [] for node in graph.nodes}
    for node in graph.nodes:
        for name in set(node.inputs):
            users[name].append(node)
    return users


def _charged(network: BoundNetwork, fine: frozenset[str], users: list[Node]) -> bool:
    """Whether all that float32 rounds before coefficients of a fine node is charged in float32: the
    coefficients of a relaxed node are only charged by the next one that sums.
    """
    coarse = [node for node in users if node.name not in fine]
    return all(node.name in network.linear and node.op not in PLAIN for node in coarse)
