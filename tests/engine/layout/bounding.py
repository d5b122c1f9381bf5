"""Bounds of one instance on real rank processes, through the target of the experiments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from device import DEVICE
from numpy.typing import NDArray
from safetensors.numpy import load_file

from runner.contract.question import Question, Report
from runner.contract.vocabulary import Method
from runner.contract.wire import question_to_json, report_from_json
from runner.execute.gang import Ending, RankServer
from runner.experiments.experiment import TARGET
from runner.verifiers.strategies import strategy_named

Bounds = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Fitted:
    """A prepared network and a property."""

    network: Path
    prepared: Path
    property: Path


@dataclass(frozen=True)
class Bounded:
    """What a gang found and what its ranks reported."""

    bounds: Bounds
    reports: list[Report]


@dataclass
class Bounder:
    """Runs gangs one after the other, and each reference only once."""

    server: RankServer
    folder: Path
    _numbers: Iterator[int] = field(default_factory=count)
    _known: dict[tuple[Path, Path, str, Method], Bounded] = field(default_factory=dict)

    def run(self, question: Fitted, strategy: str, ranks: int, method: Method) -> Bounded:
        gang = self.folder / f"gang{next(self._numbers)}"
        job = Question(
            network=str(question.network),
            prepared=str(question.prepared),
            property=str(question.property),
            strategy=strategy_named(strategy),
            ranks=ranks,
            timeout_s=100.0,
            method=method,
            device=DEVICE,
            bounds=str(gang / "bounds.safetensors"),
        )
        result = self.server.run(TARGET, question_to_json(job), ranks, gang, timeout_s=100.0)
        assert result.ended is Ending.FINISHED, result
        assert result.dead_rank is None, result.reports
        reports = [report_from_json(report) for report in result.reports if report]
        return Bounded(load_file(job.bounds), reports)

    def targets(self, target: str, payload: dict[str, Any], ranks: int) -> list[dict[str, Any]]:
        """What every rank of a gang answers that runs another target."""
        gang = self.folder / f"gang{next(self._numbers)}"
        result = self.server.run(target, payload, ranks, gang, timeout_s=100.0)
        assert result.ended is Ending.FINISHED, result
        assert result.dead_rank is None, result.reports
        return [report for report in result.reports if report is not None]

    def baseline(self, question: Fitted, method: Method) -> Bounded:
        key = (question.prepared, question.property, "baseline", method)
        if key not in self._known:
            self._known[key] = self.run(question, "baseline", 1, method)
        return self._known[key]


def same_bits(one: Bounds, other: Bounds) -> bool:
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )


def far_apart(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Differences in units of what is allowed: 1e-5 of the value, 1e-4 below 10."""
    apart: NDArray[np.float32] = np.abs(one - other) / np.maximum(np.abs(other) * 1e-5, 1e-4)
    return apart


def farthest(one: Bounds, other: Bounds) -> float:
    """The greatest of all nodes."""
    assert one.keys() == other.keys()
    return max(float(far_apart(one[name], other[name]).max()) for name in one)


def farthest_by_magnitude(one: Bounds, other: Bounds) -> float:
    """The greatest difference, as a share of the greater of a neuron's two bounds, at least 1."""
    assert one.keys() == other.keys()
    found = 0.0
    for name in other:
        node, dot, _ = name.rpartition(".")
        sides = [other[f"{node}.{end}"] for end in ("lower", "upper")] if dot else [other[name]]
        scale = np.maximum(np.abs(sides).max(0), 1.0)
        found = max(found, float((np.abs(one[name] - other[name]) / scale).max()))
    return found
