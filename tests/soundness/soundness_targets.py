"""What ranks run in the soundness suite: many questions, one after the other, in one gang."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from device import TORCH_DEVICE

from runner.contract.errors import InstanceError
from runner.contract.question import Question
from runner.contract.vocabulary import Verdict
from runner.engine.clock import Deadline
from runner.engine.layout.group import Group, joined_group
from runner.engine.measure.probe import Probe
from runner.engine.programs.rank import Rank
from runner.engine.programs.verify import verified
from runner.engine.search import complete
from runner.engine.search.input_split import InputSplit
from runner.engine.search.relu_split import ReluSplit
from runner.verifiers.strategies import strategy_named

SEARCHES = {"input-split": InputSplit, "beta-crown": ReluSplit}
TIMEOUT_S = 3.0


@contextmanager
def only(search: str) -> Iterator[None]:
    """The one search that may run, or any that fits."""
    fitting = complete.fitting
    if search in SEARCHES:
        complete.fitting = lambda case: [SEARCHES[search]]
    try:
        yield
    finally:
        complete.fitting = fitting


def answer(paths: list[str], strategy: str, group: Group, search: str = "") -> list[str]:
    """Verdict, cause and method. `paths`: network, prepared network, property, counterexample."""
    network, prepared, instance, found = paths
    job = Question(
        network=network,
        prepared=prepared,
        property=instance,
        strategy=strategy_named(strategy),
        ranks=group.size,
        timeout_s=TIMEOUT_S,
        counterexample=found,
    )
    with Probe(TORCH_DEVICE) as probe, only(search):
        try:
            deadline = Deadline(group, TIMEOUT_S)
            finding = verified(job, Rank(TORCH_DEVICE, probe, group, deadline))
        except InstanceError as error:
            return [str(Verdict.ERROR), str(error.cause), ""]
    return [str(finding.verdict), str(finding.cause), finding.method]


def answers(payload: dict[str, Any]) -> dict[str, Any]:
    """Of all questions, as this rank of the gang has them."""
    with joined_group(TORCH_DEVICE) as group:
        return {"answers": [answer(q, payload["strategy"], group) for q in payload["questions"]]}
