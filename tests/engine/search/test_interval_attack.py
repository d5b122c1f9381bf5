"""Steps along bounds of small boxes leave where gradients say nothing, and never leave a box."""

from __future__ import annotations

import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from questions import DriverStub, case, question, region
from small_networks import CPU, Builder, SmallNetwork, mlp

from runner.engine.attack.interval_steps import IntervalSteps
from runner.engine.attack.pgd import Attack, AttackSettings, Goal
from runner.engine.attack.region import Region
from runner.engine.bounds.boxes import BoxPropagator
from runner.engine.bounds.tagging import NoTagger
from runner.engine.network.graph import Op
from runner.engine.targets import Candidate, Target


def steps(network: SmallNetwork) -> IntervalSteps:
    return IntervalSteps(BoxPropagator(network.bound(), NoTagger()), 16, NoTagger())


def plateau() -> SmallNetwork:
    """y = -relu(x - 0.5): 0 and flat up to 0.5, where it begins to fall."""
    builder = Builder((1,))
    before = builder.linear_of("x", torch.eye(1), torch.tensor([-0.5]))
    relu = builder.pointwise(Op.RELU, before)
    return builder.network(builder.linear_of(relu, -torch.eye(1), torch.zeros(1)))


def test_a_step_leaves_a_plateau_that_has_no_gradient() -> None:
    low = region([[1]], [-0.2])
    lower, upper = torch.tensor([[-1.0]]), torch.tensor([[1.0]])
    start = torch.tensor([[[0.1], [-0.2], [0.45]]])
    unsafe = Region.of([low], CPU, torch.float32)
    moved = steps(plateau())(start, lower, upper, unsafe)
    assert (moved > 0.5).all()
    assert (moved <= 1).all()


def test_an_attack_with_it_finds_what_descents_alone_do_not() -> None:
    """From the centre and from the lower corner no gradient leads to where y falls."""
    low = question(case([-3], [1], region([[1]], [-0.2])))
    settings = AttackSettings(restarts=2, steps=10, diversify=0, descents=3)

    def found(guide: IntervalSteps | None) -> bool:
        def confirm(candidate: Candidate) -> bool:
            return bool(candidate[0][0] >= 0.7)

        network = DriverStub(plateau())
        attack = Attack(
            network, low, CPU, 0, NoTagger(), lambda: None, confirm, torch.float32, guide
        )
        return attack.search([Target(0, 0)], settings)

    assert not found(None)
    assert found(steps(plateau()))


@examples(20)
@given(st.integers(0, 1000), st.floats(0.01, 3.0), st.integers(1, 3))
def test_points_stay_in_their_boxes(seed: int, radius: float, targets: int) -> None:
    network = mlp(4, 12, 3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(targets, 4, generator=generator)
    lower, upper = centre - radius, centre + radius
    share = torch.rand(targets, 5, 4, generator=generator)
    x = torch.minimum(lower[:, None] + share * (upper - lower)[:, None], upper[:, None])
    unsafe = [region([[1, -1, 0], [0, 1, 1]], [-1.0, 0.0])] * targets
    moved = steps(network)(x, lower, upper, Region.of(unsafe, CPU, torch.float32))
    assert moved.shape == x.shape
    assert (moved >= lower[:, None]).all()
    assert (moved <= upper[:, None]).all()


def test_each_goal_leads_to_a_counterexample() -> None:
    network = mlp(4, 16, 3, seed=3)
    x = torch.rand(2000, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rare = [float(network.outputs(x)[:, i].quantile(0.02)) for i in range(2)]
    disjuncts = [region([[1, 0, 0]], [rare[0]]), region([[0, 1, 0]], [rare[1]])]
    asked = question(case([-1] * 4, [1] * 4, *disjuncts), outputs=3)
    for goal in Goal:
        settings = AttackSettings(restarts=10, steps=20, diversify=0, goal=goal)
        attack = Attack(
            DriverStub(network), asked, CPU, 0, NoTagger(), lambda: None, lambda _: True
        )
        assert attack.search([Target(0, 0), Target(0, 1)], settings), goal


def test_cross_entropy_is_that_of_a_softmax() -> None:
    """Of a robustness property: y0 is right where y0 - yi > 0 for each other class."""
    outputs = torch.tensor([[[2.0, 1.0, -0.5], [0.0, 3.0, 0.1]]])
    others = [region([[1, -1, 0]], [0.0]), region([[1, 0, -1]], [0.0])]
    unsafe = Region.of(others, CPU, torch.float32)
    expected = torch.log_softmax(outputs[0], 1)[:, 0]
    assert torch.allclose(unsafe.cross_entropy(outputs), expected, atol=1e-6)


def test_rows_of_bounds_are_counted() -> None:
    """One row of the spec for each of two boxes; the hidden neuron is stable, and has none."""
    boxes = BoxPropagator(plateau().bound(), NoTagger())
    unsafe = Region.of([region([[1]], [-0.2])], CPU, torch.float32)
    IntervalSteps(boxes, 16, NoTagger())(
        torch.tensor([[[0.9], [0.95]]]), torch.tensor([[0.8]]), torch.tensor([[1.0]]), unsafe
    )
    assert boxes.work == 2 * 3, "each passes three nodes"
