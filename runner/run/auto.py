"""`--strategies auto`: a layout for one machine and one network. The same two, the same choice."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace

import psutil

from runner.contract.layout import Layout
from runner.contract.strategy import Strategy
from runner.contract.vocabulary import Device
from runner.record.manifest import describe_gpus
from runner.record.schema import Outcome
from runner.verifiers.strategies import AUTO, STRATEGIES, of_layout, strategy_named

_log = logging.getLogger(__name__)

# What stands in tables: `auto` is one strategy there, whatever it chooses for each network.
UNSETTLED = Strategy(AUTO)

# More ranks than this were never measured.
MOST_RANKS = 8
# Of a rank's memory: what weights may take, as A and α want most of it.
WEIGHTS_SHARE = 0.25


@dataclass(frozen=True)
class ThisMachine:
    """`ranks`: one for each of its `workers` ("cores" or "GPUs"), at most MOST_RANKS;
    `rank_bytes`: the memory of each of them.
    """

    ranks: int
    workers: str
    rank_bytes: int


@dataclass(frozen=True)
class Choice:
    """`strategy`: called `auto`, laid out as was chosen; `why`: that, in a sentence. Of a strategy
    that was named: itself.
    """

    strategy: Strategy
    why: str = ""


def strategy_or_auto(name: str) -> Strategy:
    """Raises UsageError for a name that is neither."""
    return UNSETTLED if name == AUTO else strategy_named(name)


def this_machine(device: Device) -> ThisMachine:
    """GPUs where there are some and the device may be one, else the cores of this process."""
    gpus = [] if device is Device.CPU else describe_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = gpus[: len([number for number in visible.split(",") if number])]
    if gpus:
        least = min(int(gpu["memory_bytes"]) for gpu in gpus)
        return ThisMachine(min(len(gpus), MOST_RANKS), "GPUs", least)
    ranks = min(len(psutil.Process().cpu_affinity() or [0]), MOST_RANKS)
    return ThisMachine(ranks, "cores", psutil.virtual_memory().total // ranks)


def choose(machine: ThisMachine, weight_bytes: int) -> Choice:
    """Weights are spread no further than memory asks for; ranks that are left search apart."""
    ranks, room = machine.ranks, WEIGHTS_SHARE * machine.rank_bytes
    here = f"{ranks} {machine.workers}"
    if ranks == 1:
        return _chosen(STRATEGIES["baseline"], f"there is 1 of {machine.workers}")
    if weight_bytes > room:
        parts = [part for part in range(2, ranks + 1) if ranks % part == 0]
        fsdp = next((part for part in parts if weight_bytes / part <= room), ranks)
        grid = Layout(fsdp=fsdp, dp=ranks // fsdp)
        spread = STRATEGIES["fsdp"] if fsdp == ranks else of_layout(grid)
        return _chosen(
            spread,
            f"weights of {weight_bytes} bytes take more than {WEIGHTS_SHARE:g} of the memory of "
            f"one of {here}",
        )
    return _chosen(
        STRATEGIES["dp"],
        f"{here} share the starts of attacks, the rows of bounds, then the sub-problems",
    )


def settled(strategy: Strategy, weight_bytes: int, device: Device) -> Choice:
    """What `strategy` is for a network that was converted; only UNSETTLED is not known before."""
    if strategy != UNSETTLED:
        return Choice(strategy)
    choice = choose(this_machine(device), weight_bytes)
    _log.info("%s", choice.why)
    return choice


def told(outcome: Outcome, choice: Choice) -> Outcome:
    """With what was chosen, if anything was, before whatever else there is to say."""
    message = "; ".join(filter(None, (choice.why, outcome.message)))
    return replace(outcome, message=message)


def _chosen(strategy: Strategy, reason: str) -> Choice:
    return Choice(replace(strategy, name=AUTO), f"auto chose {strategy.name}: {reason}")
