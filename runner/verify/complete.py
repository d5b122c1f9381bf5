"""Which branch and bound goes on with an open case, and all open cases one after another."""

from __future__ import annotations

from collections.abc import Callable

import torch

from runner.bounds.tagging import Tagger
from runner.network.graph import Op
from runner.property.model import Property
from runner.verify.attack import Candidate
from runner.verify.incomplete import OpenCase
from runner.verify.input_split import InputSplit
from runner.verify.relu_split import ReluSplit
from runner.verify.search import Outcome, Progress, Search, SearchContext
from runner.verify.specs import box_within
from runner.vocabulary import Method

# Up to so many inputs that may vary, halving boxes is quicker than splitting neurons.
FEW_INPUTS = 20


def few_inputs(case: OpenCase) -> bool:
    return case.free_inputs <= FEW_INPUTS


def tightest_bounds(cases: list[OpenCase]) -> Method:
    """The bounds that pay before the searches: a box is halved in less time than α-CROWN takes."""
    return Method.CROWN if all(map(few_inputs, cases)) else Method.ALPHA_CROWN


class Complete:
    """The complete phase of one instance."""

    def __init__(
        self,
        instance: Property,
        device: torch.device,
        seed: int,
        tag: Tagger,
        checkpoint: Callable[[], None],
        confirm: Callable[[Candidate], bool],
        progress: Progress,
    ) -> None:
        self._property = instance
        self._device = device
        self._seed = seed
        self._tag = tag
        self._checkpoint = checkpoint
        self._confirm = confirm
        self._progress = progress

    def run(self, cases: list[OpenCase]) -> Outcome:
        """PROVED when every case is; may raise DeadlineReached."""
        outcomes = []
        for case in cases:
            search = choose(case, self._context(case))
            if search is None:
                return Outcome.GAVE_UP
            self._progress.start(search.name)
            outcomes.append(search.run())
            if outcomes[-1] is Outcome.COUNTEREXAMPLE:
                return Outcome.COUNTEREXAMPLE
        return Outcome.GAVE_UP if Outcome.GAVE_UP in outcomes else Outcome.PROVED

    def _context(self, case: OpenCase) -> SearchContext:
        shape = case.network.graph.input.shape
        return SearchContext(
            network=case.network,
            case=case.progress,
            number=case.number,
            within=box_within(self._property.cases[case.number], shape, self._device),
            settings=case.settings,
            device=self._device,
            seed=self._seed,
            tag=self._tag,
            checkpoint=self._checkpoint,
            confirm=self._confirm,
            progress=self._progress,
        )


def choose(case: OpenCase, context: SearchContext) -> Search | None:
    """None where no branch and bound applies: many inputs, and no ReLU to split."""
    if few_inputs(case):
        return InputSplit(context)
    return (
        ReluSplit(context) if any(node.op is Op.RELU for node in case.network.graph.nodes) else None
    )
