"""Branch and bound over the inputs: for networks of few inputs, where CROWN of a box is quick."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from runner.contract.vocabulary import EnginePart, Memory
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.boxes import BoxBounds, BoxPropagator, batch_boxes
from runner.engine.bounds.deep_boxes import few_boxes
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.nested_boxes import NestedBoxes
from runner.engine.search.beside import Beside
from runner.engine.search.box_attack import BoxAttack
from runner.engine.search.box_store import SORTED_BOXES, Boxes, BoxStore, divisible, halves
from runner.engine.search.clipped import share
from runner.engine.search.curved_boxes import CurvedBoxes
from runner.engine.search.cuts import NO_WAY, Cuts
from runner.engine.search.disjuncts import Disjuncts
from runner.engine.search.foresight import Foresight
from runner.engine.search.margins import Margins, Planes
from runner.engine.search.near import CANCELLING, SEVERAL, SINGLE, Near, Reach, Trials
from runner.engine.search.rounds import run_rounds
from runner.engine.search.search import SearchContext, SearchEnd
from runner.engine.search.sharing import Meeting
from runner.engine.search.shrunk import shrunk
from runner.engine.targets import Target

# Fewer boxes than this take a core about as long as one: few are cut several times at once.
FULL_BATCH = 64
MOST_CUTS = 3
# Few boxes of a large network close much, or nothing for long. They lead on where each cut leaves
# less than this of what was missed.
GOOD_LEFT = 0.5
# In batches of so many boxes, each is dear.
DEAR_BATCH = 4
NEAR_ALPHA = AlphaSettings(iterations=5, step=0.4, decay=0.9)
# Beside all rows of a box that is bounded alone, those of its specs cost little.
DEEP_ALPHA = AlphaSettings(iterations=10, step=0.4, decay=0.95)
# What a trial of α costs, in rows that are passed back: there and back, and the proof.
NEAR_PASSES = 3 * NEAR_ALPHA.iterations + 2
# And what a batch costs however small it is, in as many rows: its operators cost their number.
NEAR_CALLS = 1000
# Of a box of which no more than this is left, its bounds are not those that it was halved by.
AGAIN = 0.5


class InputSplit:
    """Bounds batches of boxes and halves those that stay open at their most sensitive input."""

    name = "input-split"

    def __init__(self, context: SearchContext) -> None:
        self._context = context
        budget, skipped = context.settings.budget, context.settings.interval_only
        self._without = context.settings.without
        network, tag, check = context.network, context.tag, context.checkpoint
        free = int(context.case.box.varying.sum())
        self._deep, workload = few_boxes(network, free), context.workload
        self._propagator = (
            NestedBoxes(network, context.settings, context.case.known, tag, check)
            if self._deep
            else BoxPropagator(network, tag, check, skipped, budget, self._without)
        )
        if workload is not None:
            self.batch = workload.batch // context.sharing.ranks
        else:
            self.batch = 1 if self._deep else batch_boxes(network.graph, budget)
        # What is inside the last box comes first, where networks are of what is open in it.
        self.store = BoxStore[Boxes](0 if self._deep and workload is None else SORTED_BOXES)
        opening = not self._deep and bool(self._propagator.start_nodes & network.only_unstable)
        self._cuts = Cuts(several=EnginePart.CUTS not in self._without, opening=opening)
        self.begun, self.complete, self.open_share, self.gains = False, True, 1.0, False
        self.stalled = False
        self._numbers = context.case.open.nonzero()[:, 0]
        self._specs = context.case.specs.counted_anew(context.case.open)
        self._disjuncts = Disjuncts(self._specs, mixes=EnginePart.MIXES not in self._without)
        several = SEVERAL if self._disjuncts.several else SINGLE
        near = Near(CANCELLING if self._disjuncts.cancel else several)
        self._near: Trials = Reach() if self._deep else near
        self._curves = (
            CurvedBoxes.of(context.network, self._specs, self._disjuncts, context.tag, budget)
            if workload is None and not self._deep
            else None
        )
        self._shrinks = (
            workload is None and not self._deep and EnginePart.SHRUNK not in self._without
        )
        self._beside, self._foresight = Beside(), Foresight()
        self._attack = BoxAttack(context, self._specs, self._numbers)
        self._closed = self._specs.thresholds.new_full((len(self._numbers),), torch.inf)
        self._start_nodes = [
            node
            for node in context.network.graph.nodes
            if node.name in self._propagator.start_nodes
        ]

    @property
    def waits(self) -> bool:
        return not len(self.store)

    @property
    def blank(self) -> Boxes:
        return self._root().select(torch.zeros(1, dtype=torch.bool))

    def run(self) -> SearchEnd:
        return run_rounds(self, self._context)

    def begin(self) -> None:
        self.begun = True
        if self._context.sharing.rank == 0:
            self.store.put(self._root())

    def round(self) -> None:
        if not len(self.store):
            return
        self._context.checkpoint()
        with self._context.tag.kind(Memory.BOUNDS):
            batch = self.store.take(self.batch)
            boxes, sensitivity, corners, again, planes = self._bounded(batch)
        points, excess = self._excess(boxes, corners)
        if self._found(points, excess) or self._attacked(boxes, corners):
            return
        with self._context.tag.kind(Memory.BOUNDS):
            possible = divisible(boxes).any(1)
            self.complete &= bool(possible.all())
            most = MOST_CUTS if self.batch > DEAR_BATCH else self._foreseen(boxes, excess)
            cut = possible & ~again
            parts = _cut(boxes.select(cut), sensitivity[cut], most)
            if planes is not None and len(parts):
                of = cut.nonzero()[:, 0].repeat(len(parts) // int(cut.sum()))
                parts = self._shrunk(parts, planes.select(of))
                parts = parts.select(parts.open.any(1))
            self.store.put(parts)
            self.store.put(boxes.select(possible & again))
            if isinstance(self._propagator, NestedBoxes) and len(parts):
                self._propagator.enter()
        bound = float(self.store.least_margins(self._closed).min())
        self._context.progress.round(len(batch), int(batch.depth.max()), len(self.store), bound)

    def standing(self) -> Tensor:
        rest = torch.tensor(
            [*self._cuts.missing, self.store.share, not self.complete], dtype=torch.float64
        )
        return torch.cat([self.store.least_margins(self._closed).cpu(), rest])

    def conclude(self, meeting: Meeting) -> None:
        case, least = self._context.case, meeting.standings[:, :-4].amin(0)
        missing, boxes = meeting.standings[:, -4:-2].sum(0).tolist()
        self.gains = self._deep and missing < GOOD_LEFT * boxes
        self.open_share = float(meeting.standings[:, -2].sum())
        self.complete = not bool(meeting.standings[:, -1].any())
        case.margins[self._numbers] = torch.maximum(
            case.margins[self._numbers], least.to(case.margins)
        )
        if self.complete and not meeting.waiting:
            case.open[self._numbers] = False

    def _root(self) -> Boxes:
        box, known = self._context.case.box, self._context.case.known
        size = sum(node.size for node in self._start_nodes)
        lower = box.lower.new_full((1, size), -torch.inf)
        upper = box.lower.new_full((1, size), torch.inf)
        if known is not None and size:
            intervals = [known.intervals[node.name] for node in self._start_nodes]
            lower = torch.cat([interval.lower.flatten(1) for interval in intervals], 1)
            upper = torch.cat([interval.upper.flatten(1) for interval in intervals], 1)
        margins = self._closed.new_full((1, len(self._numbers)), -torch.inf)
        depth = torch.zeros(1, dtype=torch.long, device=box.lower.device)
        way = torch.full((1,), NO_WAY, dtype=torch.int8, device=box.lower.device)
        return Boxes(box.lower.flatten(1), box.upper.flatten(1), margins, depth, lower, upper, way)

    def _bounded(self, boxes: Boxes) -> tuple[Boxes, Tensor, Tensor, Tensor, Planes | None]:
        """What stays open of a batch, its sensitivity [N, inputs], its corners [N, inputs] that are
        nearest to the unsafe region if the bounds were exact, and whether so little is left of a
        box that it had better be bounded again than halved [N].
        """
        boxes, found = self._bounds(boxes)
        closed = boxes.open & (found.margins > 0)
        if self._context.workload is not None:
            closed = torch.zeros_like(closed)
        margins = torch.maximum(found.margins, boxes.margins)
        self._closed = torch.where(closed, margins, self._closed).amin(0).minimum(self._closed)
        whole, boxes = boxes, replace(boxes, margins=torch.where(closed, torch.inf, margins))
        if found.planes is not None:
            boxes = self._shrunk(boxes, found.planes)
        self._cuts.learn(whole.way, whole.worst, boxes.worst)
        still = boxes.open.any(1).nonzero()[:, 0]
        again = (share(boxes, whole) < AGAIN)[still]
        boxes = boxes.select(still)
        worst = boxes.margins.argmin(1)
        slope = found.slopes[still, worst]
        way = self._cuts.ways(len(boxes)).to(boxes.way.device)
        boxes = replace(boxes, way=torch.where(again, NO_WAY, way))
        if found.opened is not None:
            gain = found.opened[still]
        else:
            opening = None if found.opening is None else found.opening[still]
            steep, width = found.steep[still, worst], boxes.upper - boxes.lower
            gain = self._cuts.worth(boxes.way.clamp(min=0), steep, opening, width)
        gain = torch.where(divisible(boxes), gain, -1.0)
        planes = None if found.planes is None else found.planes.select(still)
        return boxes, gain, torch.where(slope > 0, boxes.lower, boxes.upper), again, planes

    def _shrunk(self, boxes: Boxes, planes: Planes) -> Boxes:
        """To where counterexamples can be; with what is closed so."""
        found = shrunk(boxes, planes)
        self._closed = torch.minimum(self._closed, found.margins.amin(0))
        margins = torch.where(found.closed, torch.inf, boxes.margins)
        return replace(boxes, lower=found.lower, upper=found.upper, margins=margins)

    def _bounds(self, boxes: Boxes) -> tuple[Boxes, Margins]:
        """By curves where the network has them; then by rows, of what those leave open, where that
        pays.
        """
        self._propagator.work = 0
        if self._curves is None:
            return self._by_rows(boxes)
        self._context.checkpoint()
        found = self._curves.margins(boxes)
        margins = torch.where(boxes.open, torch.maximum(found.margins, boxes.margins), torch.inf)
        rest = self._beside.chosen(margins)
        if not len(rest):
            return boxes, found
        some, more = self._by_rows(boxes.select(rest))
        found = found.tightened(rest, more)
        still = (some.open & ~(found.margins[rest] > 0)).any(1)
        self._beside.learn(len(rest), len(rest) - int(still.sum()))
        known = boxes.known_lower.clone(), boxes.known_upper.clone()
        known[0][rest], known[1][rest] = some.known_lower, some.known_upper
        return replace(boxes, known_lower=known[0], known_upper=known[1]), found

    def _by_rows(self, boxes: Boxes) -> tuple[Boxes, Margins]:
        """With what is known of the start nodes then."""
        where = self._interval(boxes), self._known(boxes)
        if isinstance(self._propagator, NestedBoxes) and self._context.workload is None:
            specs = [self._specs.select(open_) for open_ in boxes.open]
            bounds = self._propagator.bound_for(*where, specs)
        else:
            bounds = self._propagator.bound(*where)
        found = self._margins(bounds, boxes)
        if self._context.workload is None:
            found = self._optimized(bounds, boxes, found)
        if isinstance(self._propagator, NestedBoxes):
            found = replace(found, opened=self._propagator.opened())
            after = self._propagator.known(where[1])
        else:
            found, after = replace(found, opening=bounds.opening), bounds.intervals
        known = [after[node.name] for node in self._start_nodes]
        if known:
            lower = torch.cat([interval.lower.flatten(1) for interval in known], 1)
            upper = torch.cat([interval.upper.flatten(1) for interval in known], 1)
            boxes = replace(boxes, known_lower=lower, known_upper=upper)
        return boxes, found

    def _price(self, boxes: int, trials: int) -> float:
        """Of a trial of α, in boxes of the batch that was just bounded."""
        if not trials:
            return torch.inf
        rows = self._propagator.work / len(self._context.network.graph.nodes)
        of_trial = NEAR_PASSES + NEAR_CALLS / trials
        return of_trial * boxes / (rows + NEAR_CALLS)

    def _interval(self, boxes: Boxes) -> Interval:
        return boxes.interval(self._context.network.graph.input.shape)

    def _known(self, boxes: Boxes) -> dict[str, Interval]:
        sizes = [node.size for node in self._start_nodes]
        lower, upper = boxes.known_lower.split(sizes, 1), boxes.known_upper.split(sizes, 1)
        return {
            node.name: Interval(low, high).reshape(-1, *node.shape)
            for node, low, high in zip(self._start_nodes, lower, upper, strict=True)
        }

    def _margins(self, bounds: BoxBounds, boxes: Boxes) -> Margins:
        specs = self._specs
        count = (len(boxes), len(specs.rows))
        open_ = boxes.open[:, specs.disjunct]
        # In float64: there are few rows of specs, and many of neurons.
        if bool(open_.all()):
            found = self._propagator.same_rows(bounds, specs.rows)
            margins = (found.lower.T - specs.thresholds).nan_to_num(-torch.inf)
            coefficients = found.coefficients.transpose(0, 1)
        else:
            of, row = open_.nonzero().unbind(1)
            found = self._propagator.rows(bounds, specs.rows[row], of)
            margins = specs.thresholds.new_full(count, -torch.inf)
            margins[of, row] = (found.lower - specs.thresholds[row]).nan_to_num(-torch.inf)
            coefficients = found.coefficients.new_zeros((*count, boxes.lower.shape[1]))
            coefficients[of, row] = found.coefficients
        box = Interval(boxes.lower.double(), boxes.upper.double())
        radius = (box.upper - box.lower) / 2
        mixed, weights = self._disjuncts.mixed(margins, coefficients, radius)
        mine = Margins(mixed, weights @ coefficients, weights @ coefficients.abs(), weights)
        if found.planes is None or not self._shrinks:
            return mine
        return replace(mine, planes=self._disjuncts.planes(box, margins, coefficients, mine))

    def _optimized(self, bounds: BoxBounds, boxes: Boxes, found: Margins) -> Margins:
        """With α where that may close a box, and the weights of its rows chosen with it."""
        if EnginePart.NEAR in self._without:
            return found
        margins = torch.where(boxes.open, torch.maximum(found.margins, boxes.margins), torch.inf)
        box, disjunct = self._near.chosen(margins).nonzero().unbind(1)
        price = self._price(len(boxes), len(box))
        if not self._near.pays(price):
            self._near.skipped()
            return found
        mixes = self._disjuncts.mixes(box, disjunct, found.weights)
        alpha = DEEP_ALPHA if self._deep else NEAR_ALPHA
        more, _ = self._propagator.mixed_rows(bounds, mixes, alpha)
        tried, gained = margins[box, disjunct], more.lower > found.margins[box, disjunct]
        self._near.learn(tried, more.lower, price)
        box, disjunct = box[gained], disjunct[gained]
        found.margins[box, disjunct] = more.lower[gained]
        found.slopes[box, disjunct] = more.coefficients[gained]
        if found.planes is not None:
            found.planes.of_mix(box, disjunct, more.lower[gained], more.coefficients[gained])
        return found

    def _attacked(self, boxes: Boxes, corners: Tensor) -> bool:
        """From time to time, from what is open of a batch."""
        left_out = EnginePart.BOX_ATTACK in self._without
        if not len(boxes) or self._context.workload is not None or left_out:
            return False
        columns = 0 if self._curves is None else self._curves.work_done()
        due = self._attack.due(len(boxes), self._propagator.work + columns)
        return due and self._attack.found(boxes, corners)

    def _excess(self, boxes: Boxes, corners: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and corners [2 N, inputs], and how far each is from what is unsafe, by disjunct
        [2 N, disjuncts], inf where it is closed; none where nothing is to be decided.
        """
        if self._context.workload is not None:
            return corners[:0], boxes.margins[:0]
        with self._context.tag.kind(Memory.OTHER), torch.no_grad():
            within = self._context.within.reshape(1, -1)
            centres = boxes.lower + (boxes.upper - boxes.lower) / 2
            points = torch.cat([centres, corners]).to(within.lower)
            points = points.maximum(within.lower).minimum(within.upper)
            shape = self._context.network.graph.input.shape
            outputs = self._context.network.forward(points.reshape(-1, *shape)).double()
            excess = self._disjuncts.best(outputs @ self._specs.rows.T - self._specs.limits)
            return points, torch.where(boxes.open.repeat(2, 1), excess, torch.inf)

    def _found(self, points: Tensor, excess: Tensor) -> bool:
        """Tries, of all points, the candidate deepest inside its region."""
        if not len(points):
            return False
        least, disjunct = excess.nan_to_num(torch.inf).min(1)
        index = int(least.argmin())
        if float(least[index]) > 0:
            return False
        target = Target(self._context.number, int(self._numbers[disjunct[index]]))
        return self._context.confirm((points[index].cpu().numpy(), target))

    def _foreseen(self, boxes: Boxes, excess: Tensor) -> int:
        """How often a single box is cut at once: where it is dear, one too many costs as much."""
        if not self._deep or len(boxes) != 1 or len(excess) != 2:
            return 1
        return self._foresight.cuts(int(boxes.depth), boxes.margins[0], excess.amin(0))


def _cut(boxes: Boxes, sensitivity: Tensor, most: int) -> Boxes:
    """Halves every box at its most sensitive input; few boxes several times at once, at most so
    often.
    """
    for cuts in range(most):
        if not len(boxes) or (cuts and 2 * len(boxes) > FULL_BATCH):
            break
        at = sensitivity.argmax(1)
        boxes = halves(boxes, at)
        halved = sensitivity.scatter(1, at[:, None], sensitivity.gather(1, at[:, None]) / 2)
        sensitivity = torch.cat((halved, halved))
    return boxes
