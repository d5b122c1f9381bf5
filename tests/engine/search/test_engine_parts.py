"""Parts of the engine that can be left out: each has a switch that changes what runs, and without
any of them no verdict contradicts the whole engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import test_clipping
import test_deep_boxes
import test_plane_split
import torch
from questions import DriverStub, bounded, case, identity, incomplete, question, region, save_onnx
from small_networks import CPU, SmallNetwork, box_of, lattice, mlp
from test_bent_split import bent
from test_box_attack import ASKED, well
from test_exact import zero
from test_input_split import asked, context, wave
from test_plane_sets import wide
from test_relu_split import WEAK, hard

from runner.contract.vocabulary import EnginePart, Method, Verdict
from runner.engine import incomplete as incomplete_module
from runner.engine.attack.pgd import Attack
from runner.engine.bounds import deep_boxes, nested_boxes
from runner.engine.bounds.beta import SplitBounds
from runner.engine.bounds.boxes import BoxPropagator
from runner.engine.bounds.clips import Forms
from runner.engine.bounds.corner_planes import CornerPlanes
from runner.engine.bounds.forward import ForwardPass
from runner.engine.bounds.mixed import MixedRelaxation
from runner.engine.bounds.network_bounds import Settings
from runner.engine.bounds.propagate import Propagator
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import Deadline
from runner.engine.finding import Confirmation, Finding
from runner.engine.layout.group import Group
from runner.engine.measure.probe import Probe
from runner.engine.search import confining, disjuncts, input_split, leaves
from runner.engine.search.box_attack import BoxAttack
from runner.engine.search.complete import fitting, tightest_bounds
from runner.engine.search.confining import Confining
from runner.engine.search.cuts import Cuts
from runner.engine.search.deepening import Deepening
from runner.engine.search.input_split import InputSplit
from runner.engine.search.near import Near
from runner.engine.search.plane_sets import PlaneSets
from runner.engine.search.plane_split import PlaneSplit
from runner.engine.search.relu_split import ReluSplit
from runner.engine.search.search import Progress, SearchEnd
from runner.engine.verification import Verification
from runner.problem.property.model import Property

Without = frozenset[EnginePart]

WHOLE: Without = frozenset()
EVERYTHING: Without = frozenset(EnginePart)
# Of `asked`: neuron splits with few iterations come to leaves that they do not prove.
NEEDS_A_PROGRAM = 1019


@dataclass(frozen=True)
class Watched:
    """What a test may change, and where it may write."""

    patch: pytest.MonkeyPatch
    folder: Path

    def calls(self, owner: Any, name: str) -> list[int]:
        """Grows by one with each call of `owner.name`."""
        plain, made = getattr(owner, name), list[int]()

        def called(*arguments: Any, **named: Any) -> Any:
            made.append(1)
            return plain(*arguments, **named)

        self.patch.setattr(owner, name, called)
        return made


def never(network: SmallNetwork, radius: float = 1.0) -> Property:
    """Whether the first output is at most 1000: no bound says that it is more."""
    inputs = network.graph.input.size
    outputs = network.graph.node(network.graph.output).size
    unsafe = region([[1.0] + [0.0] * (outputs - 1)], [1e3])
    return question(case([-radius] * inputs, [radius] * inputs, unsafe), outputs=outputs)


def verified(network: SmallNetwork, instance: Property, without: Without, folder: Path) -> Finding:
    path = save_onnx(folder / "network.onnx", network)
    confirmation = Confirmation(instance, path, folder / "counterexample.gz", Group())
    with Probe(CPU) as probe:
        return Verification(
            DriverStub(network, without=without),
            instance,
            Method.COMPLETE,
            0,
            CPU,
            Deadline(Group(), 60),
            confirmation,
            probe,
            Progress(),
            without=without,
        ).run()


def halved(network: SmallNetwork, instance: Property, without: Without) -> SearchEnd:
    """By an input split, without any bounds before."""
    progress = incomplete(network, instance, without=without)
    return InputSplit(context(network, instance, progress, without=without)).run()


def prove_by_splits(network: SmallNetwork, instance: Property, without: Without) -> None:
    """Of neurons, after CROWN's bounds."""
    progress = bounded(network, instance, Method.CROWN, without=without)
    search = ReluSplit(context(network, instance, progress, without=without))
    assert search.run() is SearchEnd.PROVED


def forms(without: Without, watched: Watched) -> int:
    made = watched.calls(ForwardPass, "interval")
    network = mlp(2, 12, 12, 12, 1, seed=2)
    settings = Settings(Method.CROWN, forward_share=torch.inf, without=without)
    Propagator(network.bound(), settings).bound(box_of(network, 0.3))
    of_a_box = len(made)
    wide = lattice(128)
    boxes = BoxPropagator(wide.bound(), NoTagger(), without=without)
    boxes.bound(box_of(wide, 2.0), {})
    assert (of_a_box > 0) is (len(made) > of_a_box)
    return len(made)


def specs_before_rows(without: Without, watched: Watched) -> int:
    watched.patch.setattr(incomplete_module, "EARLY_WORK", 0)
    made = watched.calls(incomplete_module, "reach")
    network = mlp(3, 8, 8, 1)
    bounded(network, never(network), Method.CROWN, without=without)
    return len(made)


def alpha_before_searches(without: Without, watched: Watched) -> int:
    network = mlp(24, 8, 1)
    cases = bounded(network, never(network), Method.CROWN, without=without).open_cases
    return int(tightest_bounds(cases) is Method.ALPHA_CROWN)


def lines_with_parameters(without: Without, watched: Watched) -> int:
    made = watched.calls(MixedRelaxation, "initial")
    network = bent("sigmoid", 0)
    bounded(network, never(network), without=without)
    return len(made)


def splits_of_what_bends(without: Without, watched: Watched) -> int:
    relus = mlp(4, 6, 1)
    (plain,) = bounded(relus, never(relus), without=without).open_cases
    assert Deepening in fitting(plain), "of a network of ReLUs it is not left out"
    network = bent("mixed", 0)
    (found,) = bounded(network, never(network), without=without).open_cases
    return fitting(found).count(ReluSplit)


def other_cuts(without: Without, watched: Watched) -> int:
    ways: list[int] = []
    learn = Cuts.learn

    def learned(self: Cuts, way: torch.Tensor, *margins: torch.Tensor) -> None:
        ways.extend(way[way > 0].tolist())
        learn(self, way, *margins)

    watched.patch.setattr(Cuts, "learn", learned)
    assert halved(*wave(), without) is SearchEnd.PROVED
    return len(ways)


def alpha_on_boxes(without: Without, watched: Watched) -> int:
    made = watched.calls(Near, "chosen")
    assert halved(*wave(), without) is SearchEnd.PROVED
    return len(made)


def attacks_from_boxes(without: Without, watched: Watched) -> int:
    made = watched.calls(BoxAttack, "due")
    halved(well(), ASKED, without)
    return len(made)


def enumerations(without: Without, watched: Watched) -> int:
    made = watched.calls(Attack, "search_whole")
    instance = question(case([0.0], [1.0], region([[1]], [-0.5])))
    assert verified(identity(), instance, without, watched.folder).verdict is Verdict.UNSAT
    return len(made)


def linear_programs(without: Without, watched: Watched) -> int:
    made = watched.calls(leaves, "_least_maximum")
    network, instance = asked(NEEDS_A_PROGRAM)
    found = bounded(network, instance, Method.IBP, without=without)
    end = ReluSplit(context(network, instance, found, without=without), WEAK).run()
    # What no program was asked about is not closed.
    assert end is (SearchEnd.PROVED if made else SearchEnd.GAVE_UP)
    return len(made)


def fractions(without: Without, watched: Watched) -> int:
    made = watched.calls(DriverStub, "excluded_exactly")
    above_itself = question(case([-1.0], [1.0], region([[1]], [0], strict=True)))
    found = verified(zero(), above_itself, without, watched.folder)
    assert found.verdict is (Verdict.UNSAT if made else Verdict.UNKNOWN)
    return len(made)


def mixed_rows(without: Without, watched: Watched) -> int:
    made = watched.calls(disjuncts, "_ascended")
    network = mlp(2, 6, 2)
    band = region([[1.0, 0.5], [-1.0, 0.5]], [-3.0, -3.0])
    halved(network, question(case([-1.0] * 2, [1.0] * 2, band), outputs=2), without)
    return len(made)


def boxes_shrunk(without: Without, watched: Watched) -> int:
    made = watched.calls(input_split, "shrunk")
    assert halved(*wave(), without) is SearchEnd.PROVED
    return len(made)


def open_neurons_alone(without: Without, watched: Watched) -> int:
    return deep_boxes_with(watched.calls(nested_boxes, "folded"), without, watched)


def planes_at_corners(without: Without, watched: Watched) -> int:
    return deep_boxes_with(watched.calls(CornerPlanes, "passed"), without, watched)


def deep_boxes_with(made: list[int], without: Without, watched: Watched) -> int:
    """How often something was `made` in a search of few boxes of a network."""
    watched.patch.setattr(deep_boxes, "TRIAL_WORK", 0)
    network = test_deep_boxes.image()
    instance = test_deep_boxes.nearly_unsafe(network, 0.5, 0.1)
    progress = bounded(network, instance, Method.CROWN, without=without)
    found = InputSplit(context(network, instance, progress, without=without))
    assert found.run() is SearchEnd.PROVED
    return len(made)


def boxes_together(without: Without, watched: Watched) -> int:
    made = watched.calls(incomplete_module, "bound_together")
    above = region([[1]], [-1.0])
    many = question(*(case([n], [n + 0.5], above) for n in range(10)))
    assert bounded(identity(), many, without=without).open_targets == []
    return len(made)


def half_spaces(without: Without, watched: Watched) -> int:
    clipped = watched.calls(Forms, "clipped")
    prove_by_splits(*hard(), without)
    return len(clipped)


def planes_above_relus(without: Without, watched: Watched) -> int:
    made = watched.calls(PlaneSets, "make")
    prove_by_splits(*wide(3), without)
    return len(made)


def neurons_confined(without: Without, watched: Watched) -> int:
    made = watched.calls(Confining, "confined")
    watched.patch.setattr(confining, "LEVELS", 1)
    watched.patch.setattr(confining, "NEEDED", 0)
    network, instance, _ = test_clipping.asked(1, -0.05)
    prove_by_splits(network, instance, without)
    return len(made)


def promises(without: Without, watched: Watched) -> int:
    made = watched.calls(SplitBounds, "attained")
    prove_by_splits(*hard(), without)
    return len(made)


def trees_of_neurons(without: Without, watched: Watched) -> int:
    network = mlp(4, 6, 6, 1)
    (found,) = bounded(network, never(network), without=without).open_cases
    return fitting(found).count(Deepening)


def boxes_under_planes(without: Without, watched: Watched) -> int:
    made = watched.calls(PlaneSplit, "begin")
    found = verified(*test_plane_split.wide(), without, watched.folder)
    assert found.verdict is Verdict.UNSAT
    assert (found.method == PlaneSplit.name) is bool(made)
    return len(made)


RAN: dict[EnginePart, Callable[[Without, Watched], int]] = {
    EnginePart.FORWARD: forms,
    EnginePart.EARLY: specs_before_rows,
    EnginePart.ALPHA: alpha_before_searches,
    EnginePart.PARAMETERS: lines_with_parameters,
    EnginePart.BENT: splits_of_what_bends,
    EnginePart.CUTS: other_cuts,
    EnginePart.NEAR: alpha_on_boxes,
    EnginePart.BOX_ATTACK: attacks_from_boxes,
    EnginePart.WHOLE: enumerations,
    EnginePart.PLANE_SPLITS: boxes_under_planes,
    EnginePart.CLIPS: half_spaces,
    EnginePart.PROMISES: promises,
    EnginePart.PLANES: planes_above_relus,
    EnginePart.CONFINED: neurons_confined,
    EnginePart.TREES: trees_of_neurons,
    EnginePart.LEAVES: linear_programs,
    EnginePart.EXACT: fractions,
    EnginePart.MIXES: mixed_rows,
    EnginePart.SHRUNK: boxes_shrunk,
    EnginePart.FOLDED: open_neurons_alone,
    EnginePart.CORNERS: planes_at_corners,
    EnginePart.TOGETHER: boxes_together,
}


@pytest.mark.parametrize("part", EnginePart)
def test_a_part_runs_in_the_whole_engine_and_not_where_it_is_left_out(
    part: EnginePart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    watched = Watched(monkeypatch, tmp_path)
    assert RAN[part](WHOLE, watched) > 0
    monkeypatch.undo()
    assert RAN[part](frozenset({part}), watched) == 0


@pytest.mark.parametrize("part", EnginePart)
def test_a_part_says_what_it_is(part: EnginePart) -> None:
    assert part.__doc__ != EnginePart.__doc__
    assert part.__doc__


@pytest.mark.parametrize("left_out", [*({part} for part in EnginePart), EVERYTHING])
@pytest.mark.parametrize("room", [0.05, -0.05])
def test_no_verdict_contradicts_the_whole_engines(
    left_out: set[EnginePart], room: float, tmp_path: Path
) -> None:
    """`room`: how far below its least sample an output is asked for."""
    network = mlp(3, 10, 10, 2, seed=5)
    x = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = network.outputs(x)
    sums = (y[:, 0] + y[:, 1]).amin(), y[:, 0].amax()
    unsafe = region([[1, 1], [1, 0]], [float(sums[0]) - room, float(sums[1])])
    instance = question(case([-1.0] * 3, [1.0] * 3, unsafe), outputs=2)
    found = verified(network, instance, frozenset(left_out), tmp_path)
    assert found.verdict is (Verdict.SAT if room < 0 else Verdict.UNSAT)
