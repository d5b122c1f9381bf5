"""The strategies by name: combinations of axes, layouts with degrees, and others' verifiers."""

from __future__ import annotations

from dataclasses import replace

from runner.contract.errors import UsageError
from runner.contract.layout import Axis, Layout
from runner.contract.strategy import Engine, Strategy

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


# Chosen for a machine and a network (runner.run.auto).
AUTO = "auto"
# Only other verifiers run.
NO_STRATEGY = "none"
# After the name of any strategy of the driver.
CHECKPOINT = "+checkpoint"


def strategy_named(name: str) -> Strategy:
    """A strategy of STRATEGIES or of a layout such as tp=2+sp=2, or one with CHECKPOINT after its
    name.

    Raises UsageError that lists what is known, or says what is wrong with the layout.
    """
    plain = name.removesuffix(CHECKPOINT)
    known = of_layout(Layout.parse(plain)) if "=" in plain else STRATEGIES.get(plain)
    if name == AUTO:
        raise UsageError(
            f"{AUTO} chooses in `run`, `plan` and `verify` alone; name a strategy here"
        )
    if known is None:
        names = ", ".join(STRATEGIES)
        raise UsageError(
            f"unknown strategy {name!r}; known: {names}, layouts such as tp=2+sp=2, each also with "
            f"{CHECKPOINT} after it"
        )
    if plain == name:
        return known
    return replace(known, name=known.name + CHECKPOINT, checkpoint=True)


def strategy_names(listed: str) -> tuple[str, ...]:
    """Of a comma-separated list, each once; a layout as it is spelt in a run's files. Degrees are
    joined by +, as a comma ends a strategy.
    """
    names = map(str.strip, listed.split(","))
    return tuple(dict.fromkeys(strategy_named(n).name if "=" in n else n for n in names))


def of_layout(layout: Layout) -> Strategy:
    """Every axis on ranks of its own; raises UsageError for a layout of one rank."""
    if layout.ranks == 1:
        raise UsageError("a layout of one rank spreads nothing: name strategy baseline instead")
    return Strategy(str(layout), layout.axes, layout)
