"""What ranks compute in the tests of agreement: every strategy on one network, side by side."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import TORCH_DEVICE
from safetensors.torch import load_file, save_file
from torch import Tensor

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Method
from runner.engine.bounds.alpha import AlphaSettings
from runner.engine.bounds.beta import BetaSettings, SplitBounds
from runner.engine.bounds.clips import Forms, HalfSpaces
from runner.engine.bounds.confined import ConfinedBounds, Questions
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.refinement import Depth, Refinement
from runner.engine.bounds.rounding import plain_products
from runner.engine.bounds.split import SplitSpace
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import Deadline, DeadlineReached
from runner.engine.driver_engine import DriverEngine
from runner.engine.layout.group import Group, joined_group
from runner.engine.layout.mesh import Mesh
from runner.engine.layout.shared_rows import SharedRows
from runner.engine.network.graph import Graph
from runner.engine.network.prepared import read_graph
from runner.engine.programs.measured_bounds import bounds_target
from runner.engine.search.branching import inspected
from runner.engine.search.cases import CaseProgress
from runner.engine.search.neuron_trees import NeuronTrees
from runner.engine.search.search import Progress, SearchContext
from runner.engine.search.sharing import Alike
from runner.engine.search.split_root import FIRST_SHARE, SplitRoot
from runner.engine.specs import Specs, box_around
from runner.problem.property.model import Case, Conjunction
from runner.problem.property.read_property import read_property
from runner.verifiers.strategies import strategy_named

SAMPLES = 32
TREE_SPLITS = 9
ATTACK_STEPS = 5
Payload = dict[str, Any]


def agreement(payload: Payload) -> Payload:
    """By method and strategy: how far its bounds are from baseline's, in units of
    1e-5 relative or 1e-4; and how far a sampled or attacked output lies outside, in the same.
    """
    found = {}
    prepared = Path(payload["prepared"])
    with joined_group(TORCH_DEVICE) as group:
        box, specs = _question(read_graph(prepared), payload["radius"], payload.get("free"))
        reached = _least_reached(prepared, box, specs)
        for method in (Method.IBP, Method.CROWN, Method.ALPHA_CROWN):
            one = _bounds(prepared, "baseline", Group(), box, specs, method)
            for name in payload["strategies" if method is not Method.ALPHA_CROWN else "by_alpha"]:
                many = _bounds(prepared, name, group, box, specs, method)
                beyond = torch.maximum(many["specs"], reached)
                found[f"{method} {name}"] = {
                    "same_bits": all(torch.equal(many[key], one[key]) for key in one),
                    "apart": max(_apart(many[key], one[key]) for key in one),
                    "outside": _apart(beyond, reached),
                }
        apart = payload.get("trees", ())
        for name in ("baseline", *apart) if apart else ():
            alone = Group() if name == "baseline" else group
            many = {
                key: found
                for adds in (_by_trees, _by_clips, _by_planes, _by_confining)
                for key, found in adds(prepared, name, alone, box).items()
            }
            if name == "baseline":
                one = many
            else:
                found[f"trees {name}"] = {
                    "same_bits": all(torch.equal(many[key], one[key]) for key in one),
                    "apart": max(_apart(many[key], one[key]) for key in one),
                    "outside": 0.0,
                }
    return found


def _by_trees(prepared: Path, name: str, group: Group, box: Interval) -> dict[str, Tensor]:
    """What trees of neurons add to CROWN's bounds."""
    engine = DriverEngine(prepared, strategy_named(name), group, TORCH_DEVICE, NoTagger())
    clock, depth = Deadline(group, 100.0), Depth(TREE_SPLITS, trial=2)
    known = engine.propagator(Method.CROWN, clock, lambda rows: rows).bound(box)
    plain = engine.propagator(Method.CROWN, clock, lambda rows: rows)

    def nothing() -> None:
        """Ranks with rows of their own have no moment at which all look at the clock."""

    trees = NeuronTrees(plain.network, NoTagger(), nothing, lambda: False, engine.budget, depth)
    propagator = plain.with_refinement(Refinement(trees=trees))
    tensors: dict[str, Tensor] = {}
    for node, interval in propagator.bound(box, known).intervals.items():
        tensors |= {f"{node}.lower": interval.lower, f"{node}.upper": interval.upper}
    return tensors


def _by_clips(prepared: Path, name: str, group: Group, box: Interval) -> dict[str, Tensor]:
    """What half spaces of some directions add to CROWN's bounds."""
    engine = DriverEngine(prepared, strategy_named(name), group, TORCH_DEVICE, NoTagger())
    clock = Deadline(group, 100.0)
    propagator = engine.propagator(Method.CROWN, clock, lambda rows: rows)
    network, intervals = propagator.network, propagator.bound(box).intervals
    space = SplitSpace.of(network, intervals)
    forms = Forms(network, space, intervals, NoTagger(), clock.check, 10**9)
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(4, box.lower[0].numel(), generator=generator).to(box.lower)
    limits = slopes @ box.centre.flatten() - 0.9 * (slopes.abs() @ box.radius.flatten())
    lower = space.columns_of({n: i.lower for n, i in intervals.items()}).expand(4, -1)
    upper = space.columns_of({n: i.upper for n, i in intervals.items()}).expand(4, -1)
    found = forms.clipped(
        HalfSpaces(slopes, limits.double()), Interval(lower, upper), torch.ones_like(lower), 10**6
    )
    if not bool((found.lower > lower).any()):
        raise ValueError("half spaces that add nothing compare nothing")
    return {"clips.lower": found.lower, "clips.upper": found.upper}


def _by_planes(prepared: Path, name: str, group: Group, box: Interval) -> dict[str, Tensor]:
    """Planes for two outputs, and bounds of the whole box with them: as they are, and proved."""
    root = _root(prepared, name, group, box)
    whole, _, _ = root.domains(torch.arange(2, device=TORCH_DEVICE), BetaSettings(iterations=1))
    bounds, plain = root.bounds, root.subdomains(whole)
    thresholds = root.rows.goal(whole.disjunct, root.dtype)
    roots = inspected(bounds, plain, bounds.inspect(plain), thresholds)
    if root.planes is None:
        raise ValueError("a network of other functions than ReLUs has no planes")
    root.planes.make(roots, whole.disjunct)
    shares = torch.full_like(plain.multipliers, FIRST_SHARE)
    shared = replace(root.subdomains(whole), multipliers=shares)
    proved = bounds.bound(shared, proven=True)
    if torch.equal(proved, bounds.bound(replace(shared, sets=None), proven=True)):
        raise ValueError("planes that change nothing compare nothing")
    tensors = {"planes.bounds": bounds.bound(shared), "planes.proved": proved}
    # Each set for the other's output.
    seen = inspected(bounds, shared, bounds.inspect(shared), thresholds)
    root.planes.fit(seen, whole.disjunct.flip(0))
    again = bounds.bound(shared, proven=True)
    if torch.equal(again, proved):
        raise ValueError("planes that are the same again compare nothing")
    return tensors | {"planes.again": again}


def _by_confining(prepared: Path, name: str, group: Group, box: Interval) -> dict[str, Tensor]:
    """Bounds of neurons of the last node, where those with the widest limits are split."""
    root = _root(prepared, name, group, box)
    bounds = root.bounds
    if not isinstance(bounds, SplitBounds):
        raise ValueError("a network of other functions than ReLUs is not confined")
    node = [node for node in bounds.space.nodes if len(node.neurons)][-1]
    confined = ConfinedBounds(
        bounds._network, bounds.space, bounds.intervals, bounds.scale, NoTagger(), lambda: None
    )
    count = node.stop - node.start
    lower, upper = (end.repeat(2 * count, 1) for end in (root.before.lower, root.before.upper))
    widest = (upper - lower)[0].argsort()[-2:]
    phases = torch.zeros(lower.shape, dtype=torch.int8, device=lower.device)
    phases[:, widest[0]], phases[:, widest[1]] = 1, -1
    lower[:, widest[0]], upper[:, widest[1]] = 0.0, 0.0
    disjunct = torch.arange(2 * count, device=lower.device) % 2
    questions = confined.asked(
        Questions(
            rows=root.rows.of_domains(disjunct, root.dtype),
            phases=phases,
            before=Interval(lower, upper),
            multipliers=lower.new_zeros((1, 2 * count, 0)),
            node=node,
            columns=torch.arange(count, device=lower.device).repeat(2),
            signs=torch.where(torch.arange(2 * count, device=lower.device) < count, 1, -1),
            limits=root.rows.thresholds[:, disjunct] - 1e3,
            units=lower.new_ones(2 * count),
        )
    )
    some = replace(questions, multipliers=torch.full_like(questions.multipliers, 0.3))
    goal = lower.new_full((1, 2 * count), torch.inf)
    found, _ = confined.optimized(questions, goal, BetaSettings(iterations=4))
    plain = confined.bound(questions, proven=True)
    if not bool((found > plain).any()):
        raise ValueError("constraints that add nothing compare nothing")
    return {
        "confined.bounds": confined.bound(some),
        "confined.proved": confined.bound(some, proven=True),
        "confined.found": found,
    }


def _root(prepared: Path, name: str, group: Group, box: Interval) -> SplitRoot:
    """Of a search for what outputs are, by CROWN's bounds."""
    engine = DriverEngine(prepared, strategy_named(name), group, TORCH_DEVICE, NoTagger())
    clock = Deadline(group, 100.0)
    propagator = engine.propagator(Method.CROWN, clock, lambda rows: rows)
    never = torch.full((2,), -torch.inf, dtype=torch.float64)
    specs = Specs.of(_outputs_above(engine.graph, box), TORCH_DEVICE)
    context = SearchContext(
        network=propagator.network,
        case=CaseProgress(box, specs, never, never < 0, propagator.bound(box)),
        number=0,
        within=box,
        settings=Settings(),
        device=TORCH_DEVICE,
        seed=0,
        tag=NoTagger(),
        sharing=Alike(clock.check, lambda candidate: False, group.decide),
        progress=Progress(),
    )
    return SplitRoot.of(context)


def _outputs_above(graph: Graph, box: Interval) -> Case:
    """Unsafe is where the first output, or the second, is at most what no bound exceeds."""
    lower, upper = (end.flatten().double().cpu().numpy() for end in (box.lower, box.upper))
    rows = np.eye(2, graph.node(graph.output).size)
    unsafe = (Conjunction(row[None], np.array([1e3]), np.array([False])) for row in rows)
    return Case(lower, upper, tuple(unsafe))


def _question(graph: Graph, radius: float, free: int | None = None) -> tuple[Interval, Tensor]:
    """`free`: how many inputs vary, all of them where it is None."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(1, *graph.input.shape, generator=generator)
    outputs = graph.node(graph.output).size
    specs = torch.cat((torch.eye(outputs), -torch.eye(outputs)))
    width = torch.full_like(centre, radius)
    width.view(-1)[len(width.view(-1)) if free is None else free :] = 0.0
    box = Interval((centre - width).to(TORCH_DEVICE), (centre + width).to(TORCH_DEVICE))
    return box, specs.to(TORCH_DEVICE)


def in_few_steps(payload: Payload) -> Payload:
    """As `agreement`, of a property and by the methods named, without what is reached.

    The networks may be large, so rank 0 alone compares, and says so, with what baseline found
    once: it is kept beside the prepared network. `share`: of the box's radius.
    """
    found: Payload = {}
    prepared, asked = Path(payload["prepared"]), Path(payload["property"])
    with joined_group(TORCH_DEVICE) as group:
        case = read_property(asked).cases[0]
        whole = box_around(case, read_graph(prepared).input.shape, TORCH_DEVICE)
        reach = payload.get("share", 1.0) * whole.radius
        box = Interval(whole.centre - reach, whole.centre + reach)
        specs, steps = Specs.of(case, TORCH_DEVICE).rows.float(), payload["steps"]
        for method in map(Method, payload["methods"]):
            kept = prepared.with_name(f"{prepared.name}.{asked.name}.{method}.{steps}")
            if group.rank == 0 and not kept.exists():
                one = _bounds(prepared, "baseline", Group(), box, specs, method, steps)
                save_file({name: bound.clone() for name, bound in one.items()}, kept)
            for name in payload["strategies"]:
                many = _bounds(prepared, name, group, box, specs, method, steps)
                if group.rank > 0:
                    continue
                one = load_file(kept, device=str(TORCH_DEVICE))
                found[f"{method} {name}"] = {
                    "differ": [key for key in one if not torch.equal(many[key], one[key])],
                    "apart": max(_apart(many[key], one[key]) for key in one),
                    "beyond": sum(_beyond(many[key], one[key]) for key in one),
                    "tighter": _apart(torch.maximum(many["specs"], one["specs"]), one["specs"]),
                }
    return found


def _bounds(
    prepared: Path,
    name: str,
    group: Group,
    box: Interval,
    specs: Tensor,
    method: Method,
    steps: int = AlphaSettings.iterations,
    deadline: Deadline | None = None,
) -> dict[str, Tensor]:
    plain_products()
    engine = DriverEngine(prepared, strategy_named(name), group, TORCH_DEVICE, NoTagger())
    clock = deadline or Deadline(group, 100.0)
    propagator = engine.propagator(method, clock, lambda rows: rows)
    propagator.settings = replace(propagator.settings, alpha=AlphaSettings(steps))
    bounds = propagator.bound(box)
    tensors = {"specs": propagator.spec_bounds(bounds, specs)[:, 0]}
    for node, interval in bounds.intervals.items():
        tensors |= {f"{node}.lower": interval.lower, f"{node}.upper": interval.upper}
    return tensors


def _least_reached(prepared: Path, box: Interval, specs: Tensor) -> Tensor:
    """The least value of each spec over samples of the box and signed gradient steps from them."""
    engine = DriverEngine(prepared, strategy_named("baseline"), Group(), TORCH_DEVICE, NoTagger())
    generator = torch.Generator().manual_seed(0)
    width = box.upper - box.lower
    x = box.lower + width * torch.rand(SAMPLES, *box.lower.shape[1:], generator=generator).to(width)
    least = (engine.forward(x) @ specs.T).amin(0)
    for index, spec in enumerate(specs):
        here = x.clone()
        for _ in range(ATTACK_STEPS):
            here.requires_grad_()
            (gradient,) = torch.autograd.grad((engine.forward(here) @ spec).sum(), here)
            stepped = here.detach() - gradient.sign() * width / 4
            here = torch.minimum(torch.maximum(stepped, box.lower), box.upper)
        reached = (engine.forward(here) @ spec).detach().min()
        least[index] = torch.minimum(least[index], reached)
    return least.detach()


def _apart(one: Tensor, other: Tensor) -> float:
    return float(((one - other).abs() / _allowed(other)).max())


def _beyond(one: Tensor, other: Tensor) -> int:
    return int(((one - other).abs() > _allowed(other)).sum())


def _allowed(values: Tensor) -> Tensor:
    return (values.abs() * 1e-5).clamp(min=1e-4)


class _OverOnOneRank(Deadline):
    """Whose clock on rank `late` alone says that the time is over, from its second look on."""

    def __init__(self, group: Group, late: int) -> None:
        super().__init__(group, 100.0)
        self._late = group.rank == late
        self._looks = 0
        self.ends = False

    @property
    def over(self) -> bool:
        self._looks += 1
        return self._late and self._looks > 1

    def passed(self, fraction: float = 1.0, group: Group | None = None) -> bool:
        """All hear of it only where this clock `ends`."""
        decides = self._group if group is None else group
        return decides.decide(self.ends and self._late and self._looks > 1)


def late_on_one_rank(payload: Payload) -> Payload:
    """A digest of this rank's bounds, and by how much they are looser than baseline's."""
    prepared = Path(payload["prepared"])
    with joined_group(TORCH_DEVICE) as group:
        box, specs = _question(read_graph(prepared), 0.3)
        one = _bounds(prepared, "baseline", Group(), box, specs, Method.CROWN)
        clock = _OverOnOneRank(group, payload["late"])
        name = payload["strategy"]
        many = _bounds(prepared, name, group, box, specs, Method.CROWN, deadline=clock)
    digest = sha256(b"".join(many[key].cpu().numpy().tobytes() for key in one))
    tighter = torch.maximum(many["specs"], one["specs"])
    return {
        "digest": digest.hexdigest(),
        "looser": max(_apart(many[key], one[key]) for key in one),
        "tighter": _apart(tighter, one["specs"]),
    }


def deadline_while_rows_are_shared(payload: Payload) -> Payload:
    """Whether the deadline was reached, of which one rank knows from its second look on."""
    prepared = Path(payload["prepared"])
    with joined_group(TORCH_DEVICE) as group:
        box, specs = _question(read_graph(prepared), 0.3)
        clock, name = _OverOnOneRank(group, payload["late"]), payload["strategy"]
        clock.ends = True
        try:
            _bounds(prepared, name, group, box, specs, Method.CROWN, deadline=clock)
        except DeadlineReached:
            return {"reached": True}
        return {"reached": False}


def other_neurons_on_one_rank(payload: Payload) -> Payload:
    """Why bounds failed, of a box that is narrower on one rank: fewer neurons are unstable."""
    prepared = Path(payload["prepared"])
    with joined_group(TORCH_DEVICE) as group:
        radius = 0.1 if group.rank == payload["other"] else 0.3
        box, _ = _question(read_graph(prepared), radius)
        mesh = Mesh(group, strategy_named(payload["strategy"]))
        engine = DriverEngine(
            prepared, strategy_named("baseline"), Group(), TORCH_DEVICE, NoTagger()
        )
        rows = SharedRows(mesh.sharers, lockstep=False)
        clock = Deadline(Group(), 100.0)
        try:
            engine.propagator(Method.CROWN, clock, lambda _: rows).bound(box)
        except InstanceError as error:
            return {"cause": str(error.cause)}
        return {"cause": ""}


def killed_in_a_collective(payload: Payload) -> Payload:
    """Bounds, in which rank 1 is killed while it does its collective number `after`."""
    plain, done = Group._counted, 0

    @contextmanager
    def counted(self: Group, tensor: Tensor, sends: int) -> Iterator[None]:
        nonlocal done
        done += 1
        if done > payload["after"] and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        with plain(self, tensor, sends):
            yield

    Group._counted = counted  # type: ignore[method-assign]
    return bounds_target(payload["job"])
