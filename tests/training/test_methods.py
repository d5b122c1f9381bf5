"""Every registered method has a loss that training can use; its value is the one worked by hand."""

from __future__ import annotations

import ast
import math
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from runner.contract.errors import UsageError
from runner.training.differentiable import Box
from runner.training.methods import METHODS, method_named, nbc
from runner.training.methods.method import TrainingMethod
from runner.training.methods.mixtrain import MixTrain, lost_to_proofs
from runner.training.methods.nbc import Nbc, inconsistency, scales
from runner.training.methods.rs import instability
from runner.training.methods.trades import divergence
from runner.training.neurons import pre_activations
from runner.training.stage import Batch, Stage

FOLDER = Path(__file__).resolve().parents[2] / "runner" / "training" / "methods"
NOT_METHODS = {"__init__", "method"}
each_method = pytest.mark.parametrize("name", METHODS)


def stage(ramp: float = 0.5, radius: float = 0.1, mixing: float = 0.4, steps: int = 3) -> Stage:
    generator = torch.Generator().manual_seed(3)
    return Stage(2, radius, ramp, steps, generator, mixing)


def small() -> tuple[nn.Sequential, Batch]:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
    ).double()
    images = torch.rand(6, 4, dtype=torch.float64)
    return network, Batch(images, torch.arange(6) % 3)


@each_method
def test_a_method_is_frozen_data_with_defaults_and_documented_options(name: str) -> None:
    made = METHODS[name]()
    assert is_dataclass(made)
    with pytest.raises(FrozenInstanceError):
        made.nothing = 1
    for field in fields(made):
        assert field.name in str(type(made).__doc__), "its docstring names each option"


@each_method
def test_a_loss_is_finite_and_moves_every_layer(name: str) -> None:
    network, batch = small()
    made = METHODS[name]()
    loss = made.loss(network, batch, made.begin_epoch(network, batch, stage()))
    loss.backward()
    assert loss.shape == ()
    assert math.isfinite(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@each_method
def test_the_gradient_is_that_of_finite_differences(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = small()
    made = METHODS[name]()
    # The scale of a layer counts as a constant.
    sizes = nbc.scales(pre_activations(network, batch.images)[0])
    monkeypatch.setattr(nbc, "scales", lambda here: sizes)

    def loss() -> Tensor:
        return made.loss(network, batch, stage())

    gradients = torch.autograd.grad(loss(), list(network.parameters()))
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        flat = parameter.data.view(-1)
        for index in (0, len(flat) // 2, len(flat) - 1):
            kept, step = flat[index].item(), 1e-7
            values = []
            for shift in (step, -step):
                flat[index] = kept + shift
                values.append(loss().item())
            flat[index] = kept
            slope = (values[0] - values[1]) / (2 * step)
            assert slope == pytest.approx(gradient.view(-1)[index].item(), rel=1e-4, abs=1e-6)


@each_method
def test_the_same_stage_gives_the_same_loss(name: str) -> None:
    network, batch = small()
    made = METHODS[name]()
    assert torch.equal(made.loss(network, batch, stage()), made.loss(network, batch, stage()))


def test_every_method_has_a_file_of_its_own() -> None:
    modules = [kind.__module__.rsplit(".", 1)[-1] for kind in METHODS.values()]
    assert sorted(modules) == sorted({p.stem for p in FOLDER.glob("*.py")} - NOT_METHODS)
    assert all(ast.get_docstring(ast.parse(p.read_text())) for p in FOLDER.glob("*.py"))


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown method 'nbcx'; known: standard, .*verified"):
        method_named("nbcx")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nbc", {"weight": -1.0}),
        ("nbc+trades", {"beta": math.nan}),
        ("ibp", {"clean": 1.5}),
        ("mixtrain", {"k": 0}),
        ("mixtrain", {"least": 0.9, "most": 0.1}),
        ("verified", {"mixing": math.inf}),
    ],
)
def test_options_out_of_range_are_refused_by_name(name: str, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=rf"{list(options)[-1]} = .*: a number from"):
        METHODS[name](**options)


# One input x, two hidden neurons x and 1 - x, outputs (2 a, b): all is done by hand.


def by_hand() -> nn.Sequential:
    first, last = nn.Linear(1, 2), nn.Linear(2, 2)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        first.bias.copy_(torch.tensor([0.0, 1.0]))
        last.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        last.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), last)


HALF = Batch(torch.tensor([[0.5]]), torch.tensor([0]))  # outputs (1, 0.5)


def value(made: TrainingMethod, **said: float) -> float:
    return made.loss(by_hand(), HALF, stage(**said)).item()  # type: ignore[arg-type]


def cross_entropy(margin: float) -> float:
    """Of two classes."""
    return math.log1p(math.exp(-margin))


def test_standard_is_the_cross_entropy() -> None:
    assert value(METHODS["standard"]()) == pytest.approx(cross_entropy(0.5))


def test_adversarial_is_the_cross_entropy_at_the_worst_end_of_the_interval() -> None:
    # At x = 0.4 the outputs are (0.8, 0.6).
    assert value(METHODS["adversarial"]()) == pytest.approx(cross_entropy(0.2))


def test_a_robust_cross_entropy_is_that_of_the_worst_margin() -> None:
    # Radius 0.05: the margin 3x - 1 is linear there, so the bound is exact: 0.35 at x = 0.45.
    verified = METHODS["verified"](mixing=0.5)  # type: ignore[call-arg]
    assert value(verified) == pytest.approx((cross_entropy(0.5) + cross_entropy(0.35)) / 2)


def test_ibp_bounds_both_outputs_apart() -> None:
    # Hidden in [0.45, 0.55] each: margin at least 0.9 - 0.55. Half the ramp: clean weighs 0.75.
    expected = 0.75 * cross_entropy(0.5) + 0.25 * cross_entropy(0.35)
    assert value(METHODS["ibp"]()) == pytest.approx(expected)


def test_mixtrain_weighs_by_the_mixing_of_the_epoch() -> None:
    expected = 0.6 * cross_entropy(0.5) + 0.4 * cross_entropy(0.35)
    assert value(METHODS["mixtrain"]()) == pytest.approx(expected)


def test_mixtrain_mixes_by_how_much_of_what_lacks_is_proofs() -> None:
    # Margins 3x - 1: wrong at 0.2; right and open at 0.35 (0.3 is in its ball); proved at 0.5, 0.9.
    images = torch.tensor([[0.2], [0.35], [0.5], [0.9]])
    batch = Batch(images, torch.zeros(4, dtype=torch.long))
    assert lost_to_proofs(by_hand(), batch, 0.05) == 0.5
    begun = MixTrain(most=0.3).begin_epoch(by_hand(), batch, stage())
    assert begun.mixing == 0.3
    assert MixTrain(fixed=0.7).begin_epoch(by_hand(), batch, stage()).mixing == 0.7


def test_instability_is_the_mean_over_layers_of_the_means_over_neurons() -> None:
    one = Box(torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
    other = Box(torch.tensor([[-3.0]]), torch.tensor([[2.0]]))
    expected = -((math.tanh(0) + math.tanh(3)) / 2 + math.tanh(-5)) / 2
    assert instability([one, other]).item() == pytest.approx(expected)


def test_inconsistency_is_the_logistic_loss_of_the_product() -> None:
    # Mean squares: 1 and 4. Products by them: 2, -1; and 0.5.
    here = [torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0]])]
    there = [torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0]])]

    def logistic(p: float) -> float:
        return math.log1p(math.exp(-p)) / math.log(2)

    expected = ((logistic(2) + logistic(-1)) / 2 + logistic(0.5)) / 2
    assert inconsistency(here, there, scales(here)).item() == pytest.approx(expected)
    nothing = [torch.zeros(1, 3)]
    assert inconsistency(nothing, nothing, scales(nothing)).item() == pytest.approx(1)


def test_nbc_adds_its_weight_of_the_inconsistency_as_far_as_the_ramp_has_come() -> None:
    # Scale 0.25; both ends of [0.4, 0.6] give products 0.2 and 0.3.
    def logistic(p: float) -> float:
        return math.log1p(math.exp(-p)) / math.log(2)

    alone = (logistic(0.2 / 0.25) + logistic(0.3 / 0.25)) / 2
    assert value(Nbc(weight=4.0)) == pytest.approx(cross_entropy(0.5) + 4 * 0.5 * alone, rel=1e-3)


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    answers = torch.tensor([[math.log(3.0), 0.0]])
    others = torch.zeros(1, 2)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert divergence(answers, others).item() == pytest.approx(expected)
