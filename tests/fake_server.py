"""A stand-in for the rank server that answers at once, and a category to run."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path
from typing import Any

from runner.contract.measurements import Measurements
from runner.contract.question import Report
from runner.contract.vocabulary import Meter, Verdict
from runner.contract.wire import report_to_json
from runner.execute.executor import Ending, Gang, GangResult

PREPARE = "runner.engine.programs.verify:prepare_target"
PREPARE_PROPERTY = "runner.engine.programs.fit:prepare_property_target"


def answer(payload: dict[str, Any], ranks: int) -> GangResult:
    """Depends on nothing but the job: two runs of one job cannot be told apart."""
    job = json.dumps([Path(payload[name]).name for name in ("network", "property")])
    digest = sha256(f"{job} {payload['strategy']}".encode()).digest()
    verdict = (Verdict.UNSAT, Verdict.UNKNOWN, Verdict.SAT)[digest[0] % 3]
    if verdict is Verdict.SAT:
        Path(payload["counterexample"]).write_bytes(digest)
    reports = tuple(
        report_to_json(
            Report(
                rank,
                verdict,
                counterexample=verdict is Verdict.SAT,
                measured=Measurements(
                    wall_s=digest[1] / 7,
                    meter=Meter.DISPATCH,
                    peak_tensor_bytes=1000 * digest[2] // ranks + 1,
                    weight_bytes=1000 // ranks,
                ),
            )
        )
        for rank in range(ranks)
    )
    return GangResult(Ending.FINISHED, digest[1] / 7, reports)


class FakeServer:
    """Remembers what it was asked; `verify` and `prepare` may be replaced."""

    def __init__(
        self, verify: Callable[[dict[str, Any], int], GangResult] = answer, log: str = ""
    ) -> None:
        self.prepared: list[str] = []
        self.verified: list[tuple[str, str]] = []
        self.limits: set[int | None] = set()
        self.preparing = GangResult(Ending.FINISHED, 0.125, ({"inputs": 2, "outputs": 1},))
        self._verify = verify
        self._log = log

    def submit(self, gang: Gang) -> Future[GangResult]:
        """Answered before it returns."""
        done = Future[GangResult]()
        done.set_result(self._answer(gang))
        return done

    def _answer(self, gang: Gang) -> GangResult:
        payload = gang.payload
        assert gang.folder.is_dir()
        assert not list(gang.folder.iterdir())
        # A rank that verifies caps itself, once it has joined its gang.
        self.limits.add(gang.memory_limit_bytes or payload.get("memory_limit_bytes"))
        for rank in range(gang.ranks):
            (gang.folder / f"rank{rank}.log").write_text(self._log)
        if gang.target == PREPARE:
            self.prepared.append(Path(payload["network"]).name)
            Path(payload["prepared"]).touch()
            return self.preparing
        if gang.target == PREPARE_PROPERTY:
            return GangResult(Ending.FINISHED, 0.0625, ({},))
        self.verified.append((Path(payload["property"]).name, payload["strategy"]["name"]))
        return self._verify(payload, gang.ranks)


class Silent:
    """An observer that remembers what was recorded."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def started(self, task: Any) -> None:
        pass

    def recorded(self, outcome: Any) -> None:
        self.outcomes.append(outcome)


def make_category(folder: Path, instances: int, networks: int = 3, extra: str = "") -> Path:
    """A category whose files are empty; `extra` is appended to instances.csv."""
    folder.mkdir(parents=True)
    rows = [f"net{number % networks}.onnx,prop{number}.vnnlib,60" for number in range(instances)]
    for row in rows:
        for name in row.split(",")[:2]:
            (folder / name).touch()
    (folder / "instances.csv").write_text("\n".join(rows) + "\n" + extra)
    return folder
