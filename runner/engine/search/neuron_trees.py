"""Bounds of single neurons by branch and bound over the ReLUs before them.

Every row, a neuron or its negative, has a small tree of its own: in each round its weakest leaf is
split, at the ReLU whose relaxation costs that leaf most; as other rows end, its next weakest ones
as well, so that a round stays worth its calls. What all leaves of a row prove holds over
the whole box, so every layer behind gains, and every disjunct. α,β-CROWN asks a MILP solver for the
same; here it is β-CROWN (Wang et al. 2021), of all rows of a block at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.beta import BetaSettings, SplitBounds
from runner.engine.bounds.budget import Budget
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network import BoundNetwork
from runner.engine.bounds.refinement import Depth, Finished
from runner.engine.bounds.rounding import LEDGER
from runner.engine.bounds.split import SplitSpace
from runner.engine.bounds.subdomains import Subdomains
from runner.engine.bounds.tagging import Tagger
from runner.engine.bounds.tiles import cached_rows, row_block
from runner.engine.search.branching import NOTHING, Inspected

# Of a row's first bound: how far above its goal a leaf must be, so that its proof is above it, too.
CLEARLY = 1e-3
# Splits until that is looked at first.
FIRST_LOOK = 4
# Of an iteration, which goes forth again for its gradient, in passes.
STEP_COST = 3
# Of a leaf in memory, for each ReLU: its phase and its multiplier.
LEAF_BYTES = 3


@dataclass(frozen=True)
class TreeSettings:
    """Few iterations of a leaf: another split gains more.

    `gain`: when the splits of a row have doubled, what of its bound they must have taken away for
    it to go on.
    """

    root: BetaSettings = field(default_factory=lambda: BetaSettings(iterations=10))
    child: BetaSettings = field(default_factory=lambda: BetaSettings(iterations=2))
    gain: float = 0.01


@dataclass(frozen=True)
class NeuronTrees:
    """`Trees` of one network over one box. `over`: whether no more splits begin."""

    network: BoundNetwork
    tag: Tagger
    checkpoint: Callable[[], None]
    over: Callable[[], bool]
    budget: Budget
    depth: Depth
    settings: TreeSettings = field(default_factory=TreeSettings)
    grown: set[str] = field(default_factory=set)

    @property
    def passes(self) -> int:
        """For each split, one to choose it, one to prove it, and those of its two children."""
        return self.depth.splits * (2 + 2 * STEP_COST * self.settings.child.iterations)

    def most_neurons(self, name: str, intervals: dict[str, Interval]) -> int:
        """How many the budget has room for at once: the leaves of their trees. None where nothing
        can be split.
        """
        relus = SplitSpace.of(self.network, intervals, name).size
        each = 2 * (self.depth.splits + 1) * LEAF_BYTES * relus
        return max(1, self.budget.bytes // each) if each else 0

    def lower(
        self,
        name: str,
        neurons: Tensor,
        intervals: dict[str, Interval],
        finished: Finished,
        splits: int | None = None,
    ) -> Tensor:
        """As of `Trees`, by branch and bound."""
        network = self.network
        before = {network.graph.input.name, *(node.name for node in network.ancestors(name))}
        # Trees grow in the network's precision, over limits that hold those that are proved.
        wide = {at: intervals[at].outer(network.dtype) for at in before}
        splits = self.depth.splits if splits is None else splits
        block = _Block(self, name, neurons, wide, finished, splits)
        for _ in range(splits):
            open_ = block.open
            done = self.over() or not bool(open_.any())
            if finished(done):
                break
            block.split(open_, keep=not done)
        return block.proved()[:, None]


class _Block:
    """The trees of R = 2 N rows: of N neurons, and of their negatives.

    Of up to L leaves of each, in slots: a bound [R, L] that is not proved, inf where there is no
    leaf; phases [R, L, ReLUs] int8; multipliers [R, L, own ReLUs] float16.
    """

    def __init__(
        self,
        trees: NeuronTrees,
        name: str,
        neurons: Tensor,
        intervals: dict[str, Interval],
        finished: Finished,
        splits: int,
    ) -> None:
        network, tag, settings = trees.network, trees.tag, trees.settings
        self._settings, self._finished = settings, finished
        space = SplitSpace.of(network, intervals, name)
        any_ = intervals[name].lower
        ones = any_.new_ones(sum(space.slots))
        self._bounds = SplitBounds(
            network, space, intervals, ones, tag, trees.checkpoint, start=name
        )
        with tag.kind(Memory.A):
            rows = any_.new_zeros((2 * len(neurons), any_[0].numel()))
            at = torch.arange(len(rows), device=rows.device)
            rows[at, neurons.repeat(2)] = torch.where(at < len(neurons), 1.0, -1.0).to(rows)
            self._rows = rows[None]
        self._before = Interval(
            space.columns_of({n: i.lower for n, i in intervals.items()}),
            space.columns_of({n: i.upper for n, i in intervals.items()}),
        )
        leaves = (len(rows), splits + 1)
        with tag.kind(Memory.ALPHA):
            self._found = rows.new_full(leaves, torch.inf)
            self._there = torch.zeros(leaves, dtype=torch.bool, device=rows.device)
            self._phases = rows.new_zeros((*leaves, space.size), dtype=torch.int8)
            self._multipliers = rows.new_zeros((*leaves, len(ones)), dtype=torch.float16)
        self._slots, self._most_slots = 1, splits + 1
        # Leaves that are split at once, at most: of fewer, calls are what takes the time.
        room = min(row_block(network.graph, trees.budget), cached_rows(network.graph, trees.budget))
        self._wide = max(len(rows), room)
        self._ended = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        self._goal = rows.new_full((len(rows),), torch.inf)
        self._plant()
        self._look, self._looked_at = FIRST_LOOK, self._found[:, 0].clone()
        if name in network.only_unstable:
            # A ReLU's input has no need of more than its sign.
            self._goal = CLEARLY * self._found[:, 0].abs()

    @property
    def open(self) -> Tensor:
        """Rows [R] that are not decided, and whose weakest leaf can be split."""
        decided = (self._found.amin(1) > self._goal).reshape(2, -1).any(0).repeat(2)
        return ~decided & ~self._ended & (self._slots < self._most_slots)

    def _plant(self) -> None:
        """The trees' roots, and the scale of β."""
        count = self._rows.shape[1]
        lower, upper = (end.expand(count, -1) for end in (self._before.lower, self._before.upper))
        first = self._bounds.initial(Interval(lower, upper), 1)
        roots = Subdomains(self._rows, self._phases[:, 0].clone(), Interval(lower, upper), first)
        everything = torch.arange(count, device=lower.device)
        slots = torch.zeros_like(everything)
        self._put(everything, slots, *self._optimized(roots, self._goal, self._settings.root))
        seen = self._bounds.inspect(self._leaves(everything, slots))
        self._bounds.scale = self._bounds.scaled(seen)

    def split(self, rows: Tensor, *, keep: bool) -> None:
        """The weakest leaves of each of some rows [R]; their second children take new slots.
        Without `keep`, what is found is dropped: passes alone are wanted, beside those of other
        ranks.
        """
        chosen, slots, new = self._weakest(_some(rows), 1 if not keep else self._at_once(rows))
        parents = self._leaves(chosen, slots)
        seen = self._bounds.inspect(parents)
        inspected = Inspected(self._bounds, parents, seen, torch.zeros_like(seen.bounds))
        scores, columns = inspected.scores().max(1)
        splittable = scores > NOTHING
        for sign, at in ((1, slots), (-1, new)):
            child = inspected.child(columns, sign)
            child, found = self._optimized(child, self._goal[chosen], self._settings.child)
            if keep:
                child, found = child.select(splittable), found[splittable]
                self._put(chosen[splittable], at[splittable], child, found)
        if not keep:
            return
        # A row ends at its weakest leaf, whatever the others are.
        self._ended[chosen[~splittable & (new == self._slots)]] = True
        self._slots = int(new.max()) + 1
        if self._slots > self._look:
            self._end_idle()

    def _at_once(self, rows: Tensor) -> int:
        """How many leaves of each row are split in one round."""
        room = self._wide // max(1, int(rows.sum()))
        return max(1, min(room, self._slots, self._most_slots - self._slots))

    def _weakest(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each of some rows up to so many leaves, the weakest first: row, slot and the slot of a
        second child. The first of a row is always there, others where they are not proved yet.
        """
        found, slots = self._found[rows].topk(count, 1, largest=False)
        wanted = found <= self._goal[rows, None]
        wanted &= found.isfinite()
        wanted[:, 0] = True
        new = self._slots + torch.arange(count, device=rows.device).expand_as(slots)
        return rows[:, None].expand_as(slots)[wanted], slots[wanted], new[wanted]

    def _end_idle(self) -> None:
        """Rows that the last splits gained too little, as many as all before them."""
        now = self._found.amin(1)
        least = self._settings.gain * self._looked_at.abs()
        self._ended |= now - self._looked_at < least
        self._look, self._looked_at = 2 * self._look, now

    def proved(self) -> Tensor:
        """Of each row [R], what the weakest of its leaves proves in real arithmetic, in float64."""
        fine = self._bounds.to(LEDGER)
        least = torch.full_like(self._goal, torch.inf, dtype=LEDGER)
        parts = self._there.nonzero().split(self._wide)
        number = 0
        while not self._finished(number >= len(parts)):
            # Beside those of other ranks, the last one again.
            rows, slots = parts[min(number, len(parts) - 1)].T
            leaves = self._leaves(rows, slots)
            found = fine.bound(leaves.to(LEDGER), proven=True)[0]
            found = found.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            least.scatter_reduce_(0, rows, found, "amin")
            number += 1
        return least

    def _leaves(self, rows: Tensor, slots: Tensor) -> Subdomains:
        phases = self._phases[rows, slots]
        lower, upper = self._before.lower, self._before.upper
        limits = Interval(
            torch.where(phases > 0, lower.clamp(min=0), lower),
            torch.where(phases < 0, upper.clamp(max=0), upper),
        )
        multipliers = self._multipliers[rows, slots].to(lower.dtype)
        return Subdomains(self._rows[:, rows], phases, limits, multipliers[None])

    def _optimized(
        self, leaves: Subdomains, goal: Tensor, settings: BetaSettings
    ) -> tuple[Subdomains, Tensor]:
        """With better multipliers, and their bounds [B]."""
        bounds, found = self._bounds.optimized(
            leaves, goal[None], settings, finished=self._finished
        )
        return Subdomains(leaves.rows, leaves.phases, leaves.before, found), bounds[0]

    def _put(self, rows: Tensor, slots: Tensor, leaves: Subdomains, found: Tensor) -> None:
        self._there[rows, slots] = True
        self._found[rows, slots] = found
        self._phases[rows, slots] = leaves.phases
        self._multipliers[rows, slots] = leaves.multipliers[0].to(torch.float16)


def _some(rows: Tensor) -> Tensor:
    """Which of them [R] are true; the first, where none is: a pass is of one row at least."""
    found = rows.nonzero()[:, 0]
    return found if len(found) else found.new_zeros(1)
