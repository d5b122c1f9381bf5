"""Rows and commands to record."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from runner.contract.vocabulary import Cause, Meter, Verdict
from runner.record.folder import RunFolder
from runner.record.manifest import Command
from runner.record.schema import Outcome, RankRow

COMMAND = Command(categories=("/benchmarks/digits",), strategies=("baseline", "fsdp"), ranks=2)


def outcome(number: int, strategy: str = "fsdp") -> Outcome:
    return Outcome(
        category="digits", network="onnx/net.onnx", property=f"vnnlib/prop_{number}.vnnlib",
        strategy=strategy, ranks=2, timeout_s=10.0, verdict=Verdict.UNSAT, cause=Cause.NONE,
        prepare_time_s=0.1, run_time_s=number / 3, lower_bound=1e-9,
        peak_tensor_bytes=2**40 + number, meter=Meter.DISPATCH,
    )  # fmt: skip


def rank_rows(of: Outcome) -> list[RankRow]:
    return [
        RankRow(**of.key()._asdict(), ranks=of.ranks, rank=rank, wall_s=0.1 + rank)
        for rank in range(of.ranks)
    ]  # fmt: skip


def record(folder: RunFolder, numbers: range) -> None:
    for number in numbers:
        folder.record(outcome(number), rank_rows(outcome(number)))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: what a full disk is to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
