"""What ranks run in the soundness suite: many questions, one after the other, in one gang."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from device import TORCH_DEVICE

from runner.contract.errors import InstanceError
from runner.contract.question import Question
from runner.contract.vocabulary import EnginePart, Verdict
from runner.engine import verification
from runner.engine.agreement import Agreement, Nearest
from runner.engine.bounds import deep_boxes, folded, nested_boxes
from runner.engine.bounds.refinement import Depth
from runner.engine.bounds.split import bends_otherwise
from runner.engine.clock import Deadline
from runner.engine.finding import Confirmation
from runner.engine.layout.group import Group, joined_group
from runner.engine.measure.probe import Probe
from runner.engine.programs.rank import Rank
from runner.engine.programs.verify import verified
from runner.engine.search import complete
from runner.engine.search.deepening import Deepening
from runner.engine.search.input_split import InputSplit
from runner.engine.search.relu_split import ReluSplit
from runner.engine.search.search import Search, SearchContext
from runner.engine.targets import targets_of
from runner.problem.property.model import Property
from runner.verifiers.strategies import strategy_named


def deepening(context: SearchContext) -> Search:
    """Trees of neurons at once, where a network is one of ReLUs."""
    if bends_otherwise(context.network):
        return ReluSplit(context)
    return Deepening(context, (Depth(4, trial=0), Depth(16, trial=0)), trial=0)


OPEN_FORMS = "open-forms"
SEARCHES: dict[str, Callable[[SearchContext], Search]] = {
    "input-split": InputSplit,
    "beta-crown": ReluSplit,
    "neuron-trees": deepening,
    OPEN_FORMS: InputSplit,
}
TIMEOUT_S = 3.0
# Where no attack ends a question, many take all of their time.
ALONE_S = 1.0


@contextmanager
def only(search: str) -> Iterator[None]:
    """The one search that may run, or any that fits."""
    makers = [SEARCHES[search]] if search in SEARCHES else None
    forms = always_folded() if search == OPEN_FORMS else nullcontext()
    alone = mock.patch.object(complete, "fitting", return_value=makers) if makers else nullcontext()
    with alone, forms:
        yield


@contextmanager
def always_folded() -> Iterator[None]:
    """Every box alone, over the forms of what is open in it; attacks would leave few questions."""
    with (
        bounds_alone(),
        mock.patch.object(deep_boxes, "TRIAL_WORK", 0),
        mock.patch.object(folded, "WORTH", math.inf),
        mock.patch.object(folded, "MOST_OPEN", 1.0),
        mock.patch.object(nested_boxes, "NARROWER", 1.0),
    ):
        yield


@contextmanager
def bounds_alone() -> Iterator[None]:
    """No attack, and no point that is confirmed or shows that there is nothing to prove: what ends
    a question is bounds, or its time.
    """

    def agreed(engine: Any, instance: Property, *_: Any) -> Agreement:
        targets = targets_of(instance)
        nearest = {target: Nearest(math.inf, 0.0, decides=True) for target in targets}
        return Agreement(torch.zeros(1, instance.outputs, dtype=torch.float64), nearest, [])

    with (
        mock.patch.object(verification, "compare", agreed),
        mock.patch.object(verification.Verification, "_attacked", return_value=False),
        mock.patch.object(verification.Verification, "_enumerated", return_value=False),
        mock.patch.object(Confirmation, "_holds", return_value=False),
    ):
        yield


def answer(
    paths: list[str],
    strategy: str,
    group: Group,
    search: str = "",
    *,
    timeout_s: float | None = None,
    without: frozenset[EnginePart] = frozenset(),
) -> list[str]:
    """Verdict, cause and method. `paths`: network, prepared network, property, counterexample."""
    network, prepared, instance, found = paths
    if timeout_s is None:
        timeout_s = ALONE_S if search == OPEN_FORMS else TIMEOUT_S
    job = Question(
        network=network,
        prepared=prepared,
        property=instance,
        strategy=strategy_named(strategy),
        ranks=group.size,
        timeout_s=timeout_s,
        counterexample=found,
        without=without,
    )
    with Probe(TORCH_DEVICE) as probe, only(search):
        try:
            deadline = Deadline(group, timeout_s)
            finding = verified(job, Rank(TORCH_DEVICE, probe, group, deadline))
        except InstanceError as error:
            return [str(Verdict.ERROR), str(error.cause), ""]
    return [str(finding.verdict), str(finding.cause), finding.method]


def answers(payload: dict[str, Any]) -> dict[str, Any]:
    """Of all questions, as this rank of the gang has them."""
    with joined_group(TORCH_DEVICE) as group:
        strategy, search = payload["strategy"], payload.get("search", "")
        return {"answers": [answer(q, strategy, group, search) for q in payload["questions"]]}
