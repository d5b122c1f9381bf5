"""What ranks compute in the tests of the ReLU split under strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device import TORCH_DEVICE

from runner.contract.vocabulary import Method
from runner.engine.bounds.rounding import plain_products
from runner.engine.bounds.tagging import NoTagger
from runner.engine.clock import Deadline
from runner.engine.driver_engine import DriverEngine
from runner.engine.layout.group import joined_group
from runner.engine.network.prepared import read_graph
from runner.engine.search.relu_split import ReluSplit, ReluSplitSettings
from runner.engine.search.search import Progress, SearchContext
from runner.engine.search.sharing import Alike
from runner.engine.specs import box_within
from runner.engine.targets import Candidate
from runner.problem.property.read_property import read_property
from runner.verifiers.strategies import strategy_named


def search(payload: dict[str, Any]) -> dict[str, Any]:
    """The outcome over the only case, and the record of each rank."""
    plain_products()
    prepared = Path(payload["prepared"])
    instance = read_property(Path(payload["property"]))
    with joined_group(TORCH_DEVICE) as group:
        engine = DriverEngine(
            prepared, strategy_named(payload["strategy"]), group, TORCH_DEVICE, NoTagger()
        )
        deadline = Deadline(group, 1e6)
        bounding = engine.bounding(instance, deadline)
        bounding.run(Method.CROWN)
        (case,) = bounding.open_cases
        progress = Progress()
        context = SearchContext(
            network=case.network,
            case=case.progress,
            number=0,
            within=box_within(instance.cases[0], read_graph(prepared).input.shape, TORCH_DEVICE),
            settings=case.settings,
            device=TORCH_DEVICE,
            seed=0,
            tag=NoTagger(),
            sharing=Alike(deadline.check, _never, group.decide),
            progress=progress,
        )
        settings = ReluSplitSettings(batch=32, trial=payload["trial"])
        outcome = ReluSplit(context, settings).run()
        history = [(point.domains, point.open, point.bound) for point in progress.history]
        return {"outcome": str(outcome), "depth": progress.depth, "history": history}


def _never(candidate: Candidate) -> bool:
    return False
