"""The strategies by name: combinations of axes, our verifier's and others."""

from __future__ import annotations

from dataclasses import replace

from runner.contract.errors import UsageError
from runner.contract.strategy import Axis, Engine, Strategy

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("baseline", parallel=False),
        Strategy("fsdp", frozenset({Axis.WEIGHTS})),
        Strategy("tp", frozenset({Axis.FEATURES})),
        Strategy("sp", frozenset({Axis.SPECS})),
        Strategy("fsdp+sp", frozenset({Axis.WEIGHTS, Axis.SPECS})),
        Strategy("dp", frozenset({Axis.DOMAINS})),
        Strategy("sp+dp", frozenset({Axis.SPECS, Axis.DOMAINS})),
        Strategy("fsdp+dp", frozenset({Axis.WEIGHTS, Axis.DOMAINS})),
        Strategy("tp-ibp", frozenset({Axis.FEATURES}), interval_zones=True),
        Strategy("offload", parallel=False, offload=True),
        Strategy("lirpa", engine=Engine.LIRPA, parallel=False),
        Strategy("null", engine=Engine.NULL),
    )
}


# After the name of any strategy of the driver.
CHECKPOINT = "+checkpoint"


def strategy_named(name: str) -> Strategy:
    """A strategy of STRATEGIES, or one with CHECKPOINT after its name.

    Raises UsageError that lists the known names.
    """
    known = STRATEGIES.get(name.removesuffix(CHECKPOINT))
    if known is None:
        names = ", ".join(STRATEGIES)
        raise UsageError(
            f"unknown strategy {name!r}; known: {names}, each also with {CHECKPOINT} after it"
        )
    return replace(known, name=name, checkpoint=True) if name.endswith(CHECKPOINT) else known
