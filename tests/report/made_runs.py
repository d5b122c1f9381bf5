"""Run folders whose figures can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from runner.contract.vocabulary import Cause, Meter, Verdict
from runner.record.manifest import Command, Manifest, Status, describe
from runner.record.read import Run, read_run
from runner.record.schema import Outcome, RankRow, format_row, header
from runner.report.gather import Evidence, gather

COMMAND = Command(("/digits",), ("baseline", "fsdp"), 2)


@cache
def machine() -> Manifest:
    return describe(COMMAND, 0)


class MadeRun:
    """Rows under construction; `read` sends them through a run folder and back.

    `manifest`: fields of run.json that differ from those of a run here and now.
    """

    def __init__(self, results: Path, name: str = "made", **manifest: Any) -> None:
        self.path = results / name
        self._manifest = manifest
        self._rows: list[tuple[Outcome, list[RankRow]]] = []

    def add(self, strategy: str, number: int, verdict: Verdict, run_s: float | None,
            peaks: tuple[int, ...] = (), category: str = "digits", comm_s: float = 0.0,
            meter: Meter = Meter.DISPATCH, timeout_s: float | None = 10.0, repeat: int = 1,
            lower_bound: float | None = None, message: str = "",
            cause: Cause | None = None, domains: int | None = None,
            domains_per_s: float | None = None,
            complete_s: float | None = None) -> None:  # fmt: skip
        """One outcome, and a rank for each of `peaks`: resting weights are a tenth of the peak."""
        key: dict[str, Any] = {
            "category": category, "network": "onnx/net.onnx",
            "property": f"vnnlib/p{number}.vnnlib", "strategy": strategy,
            "ranks": len(peaks) or (2 if strategy == "fsdp" else 1), "timeout_s": timeout_s,
            "repeat": repeat,
        }  # fmt: skip
        if cause is None:
            cause = {Verdict.ERROR: Cause.RANK_DIED, Verdict.TIMEOUT: Cause.DEADLINE,
                     Verdict.UNKNOWN: Cause.INCOMPLETE}.get(verdict, Cause.NONE)  # fmt: skip
        peak = max(peaks, default=None)
        outcome = Outcome(
            **key, verdict=verdict, cause=cause, run_time_s=run_s, lower_bound=lower_bound,
            peak_tensor_bytes=peak, weight_bytes=peak and peak // 10, meter=meter, message=message,
            domains=domains, domains_per_s=domains_per_s, rounds=domains,
        )  # fmt: skip
        ranks = [
            RankRow(**key, rank=rank, wall_s=run_s, load_s=0.1, attack_s=0.2, complete_s=complete_s,
                    peak_tensor_bytes=value, weight_bytes=value // 10, peak_a_bytes=value // 2,
                    peak_weight_bytes=value // 10, comm_s=comm_s, comm_bytes=1024, collectives=4,
                    meter=meter, at_peak_weight_bytes=value // 10, at_peak_a_bytes=value // 2,
                    at_peak_alpha_bytes=0, at_peak_beta_bytes=value // 4, at_peak_bounds_bytes=0,
                    at_peak_other_bytes=value - value // 10 - value // 2 - value // 4)
            for rank, value in enumerate(peaks)
        ]  # fmt: skip
        self._rows.append((outcome, ranks))

    def read(self) -> Run:
        self.path.mkdir(parents=True, exist_ok=True)
        outcomes = "".join(format_row(outcome) for outcome, _ in self._rows)
        ranks = "".join(format_row(row) for _, rows in self._rows for row in rows)
        (self.path / "outcomes.csv").write_text(header(Outcome) + outcomes)
        (self.path / "ranks.csv").write_text(header(RankRow) + ranks)
        manifest = replace(machine(), status=Status.FINISHED, rows=len(self._rows))
        replace(manifest, **self._manifest).write(self.path)
        return read_run(self.path)

    def evidence(self) -> Evidence:
        return gather([self.read()])


def compared(results: Path) -> MadeRun:
    """Four instances under two strategies, of which both ran the first two to an end."""
    run = MadeRun(results, started="2026-01-02T03:04:05+00:00")
    run.add("baseline", 1, Verdict.UNSAT, 2.0, (1000,), lower_bound=0.5)
    run.add("fsdp", 1, Verdict.UNSAT, 4.0, (500, 400), comm_s=1.0, lower_bound=0.25)
    run.add("baseline", 2, Verdict.SAT, 1.0, (4000,), lower_bound=-1.0)
    run.add("fsdp", 2, Verdict.UNKNOWN, 8.0, (500, 500), comm_s=2.0, lower_bound=-1.125)
    run.add("baseline", 3, Verdict.TIMEOUT, 11.0, (9000,), lower_bound=-5.0)
    run.add("fsdp", 3, Verdict.UNSAT, 3.0, (100, 100), lower_bound=9.0)
    run.add("baseline", 4, Verdict.UNSAT, 1.0, (7000,))
    run.add("fsdp", 4, Verdict.ERROR, 0.5, message="rank 1 died: 50 % _done_ & gone")
    return run
