"""Whether the networks of a category can be read, and whether their properties fit them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.contract.vocabulary import Cause
from runner.execute.executor import Executor, Gang
from runner.problem.instances import Instance, MalformedRow, Row
from runner.run.judge import preparation_failure
from runner.run.prepare import prepare_memory_bytes, prepare_timeout_s
from runner.run.programs import FIT, PREPARE


@dataclass(frozen=True)
class Loaded:
    """What became of one row of `instances.csv`.

    `cause` and `message`: why it cannot be run; empty where it can. `of_network`: whether that is
    so of every row of the network. `load_s`: until the network was converted and held against ONNX
    Runtime. `difference`: the greatest from ONNX Runtime in the property's boxes, as a share of the
    greatest value of the output. What is not known is None.
    """

    category: str
    network: str
    property: str
    cause: Cause = Cause.NONE
    message: str = ""
    of_network: bool = False
    load_s: float | None = None
    inputs: int | None = None
    outputs: int | None = None
    difference: float | None = None


def load_rows(
    rows: Iterable[Row], executor: Executor, folder: Path, begins: Callable[[str], None]
) -> Iterator[Loaded]:
    """Each row, network by network. `folder`: for what is converted, and for logs; `begins` is told
    of each network.

    Each network has the time and the memory that it has in a run, and its properties together have
    that again. Where those do not end well, each is asked alone: a bad file costs its own row.
    """
    by_network: dict[Path, list[Instance]] = {}
    for row in rows:
        if isinstance(row, MalformedRow):
            yield Loaded(*_names(row), row.cause, row.message)
        else:
            by_network.setdefault(row.network, []).append(row)
    for instances in by_network.values():
        begins(f"{instances[0].category} {instances[0].network_name}")
        yield from _Network(instances, executor, folder).rows()


def _names(row: Row) -> tuple[str, str, str]:
    return row.category, row.network_name, row.property_name


class _Network:
    """The instances of one network."""

    def __init__(self, instances: Sequence[Instance], executor: Executor, folder: Path) -> None:
        self._instances = instances
        self._network = instances[0].network
        self._timeout_s = max(prepare_timeout_s(instance.timeout_s) for instance in instances)
        self._executor = executor
        self._folder = folder
        self._prepared = folder / "network.safetensors"

    def rows(self) -> Iterator[Loaded]:
        load_s, report, failure = self._ask(PREPARE, {"property": ""})
        if failure:
            for instance in self._instances:
                yield Loaded(*_names(instance), *failure, of_network=True, load_s=load_s)
            return
        known = {key: report[key] for key in ("inputs", "outputs")}
        for loaded in self._fitting(self._instances):
            yield replace(loaded, load_s=load_s, **known)

    def _fitting(self, instances: Sequence[Instance]) -> Iterator[Loaded]:
        properties = [str(instance.property) for instance in instances]
        _, report, failure = self._ask(FIT, {"properties": properties})
        if failure and len(instances) > 1:
            for instance in instances:
                yield from self._fitting([instance])
        elif failure:
            cause, message = failure
            yield Loaded(*_names(instances[0]), cause, f"{properties[0]}: {message}")
        else:
            for instance, told in zip(instances, report["properties"], strict=True):
                cause = Cause(told.get("cause", Cause.NONE))
                said = {"message": told.get("message", ""), "difference": told.get("difference")}
                yield Loaded(*_names(instance), cause, **said)

    def _ask(
        self, target: str, more: dict[str, Any]
    ) -> tuple[float, dict[str, Any], tuple[Cause, str] | None]:
        """Seconds, what the rank reports, and why it reports nothing."""
        payload = {"network": str(self._network), "prepared": str(self._prepared), **more}
        gang = Gang(
            target,
            payload,
            ranks=1,
            folder=self._folder / "gang",
            timeout_s=self._timeout_s,
            memory_limit_bytes=prepare_memory_bytes(self._network),
        )
        result = self._executor.submit(gang).result()
        failure = preparation_failure(result)
        why = (failure.cause, failure.message) if failure else None
        return result.run_time_s, result.reports[0] or {}, why
