"""All there is to know of one instance of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause, Verdict
from runner.problem.files import read_bytes
from runner.problem.instances import Instance
from runner.problem.property.model import Property
from runner.problem.property.read_property import read_property
from runner.problem.replay import Replay, replay
from runner.record.read import Run
from runner.report.artefacts import Artefacts
from runner.report.bound_progress import curve, history, history_table
from runner.report.columns import number, of_kinds, short_name
from runner.report.gather import QUESTION, Evidence
from runner.report.grid import Grid
from runner.report.sources import Sources, common_name, sources_of
from runner.report.table import Column, Table, grid
from runner.report.text import seconds, size

_LOG_TAIL = 8  # lines
_VALUES = 10  # of an output vector


@dataclass(frozen=True)
class Story:
    """`facts` and `texts` are pairs of a name and what is said of it."""

    title: str
    facts: tuple[tuple[str, str], ...]
    grids: tuple[Grid, ...]
    texts: tuple[tuple[str, str], ...]


def stories(run: Run, evidence: Evidence) -> list[Story]:
    """One for each instance of the evidence, which is about `run` alone."""
    files = sources_of(run.manifest.command)
    artefacts = Artefacts(run)
    return [
        _story(rows, evidence.ranks, artefacts, files)
        for _, rows in evidence.outcomes.groupby(QUESTION, sort=False, dropna=False)
    ]


def describe_property(instance: Property) -> str:
    """A property in words."""
    ends = [case.nearest for case in instance.cases]
    widths = np.concatenate([upper - lower for lower, upper in ends] or [np.zeros(0)])
    disjuncts = [region for case in instance.cases for region in case.unsafe]
    sizes = sorted({len(region.rhs) for region in disjuncts})
    boxes = "1 box" if len(instance.cases) == 1 else f"{len(instance.cases)} boxes"
    box = f"{instance.inputs} inputs in {boxes}"
    if len(widths):
        box += f" of widths {widths.min():.4g} to {widths.max():.4g}"
    fixed = int((widths == 0).sum())
    if fixed:
        box += f" ({fixed} fixed)"
    between = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else "".join(map(str, sizes)) or "no"
    return (
        f"{box}; unsafe: {len(disjuncts)} disjuncts of {between} constraints "
        f"on {instance.outputs} outputs"
    )


def describe_network(path: Path) -> str:
    """A network in words. Raises InstanceError when the file is not ONNX."""
    content = read_bytes(path, Cause.MALFORMED_NETWORK)
    try:
        graph = onnx.load_model_from_string(content).graph
    except DecodeError as error:
        raise InstanceError(Cause.MALFORMED_NETWORK, f"{path}: not ONNX: {error}") from error
    parameters = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
    operators = ", ".join(
        f"{number} {name}"
        for name, number in Counter(node.op_type for node in graph.node).most_common()
    )
    return f"{parameters:,} parameters, {size(path.stat().st_size)} file; {operators}"


def _story(rows: pd.DataFrame, ranks: pd.DataFrame, artefacts: Artefacts, files: Sources) -> Story:
    first = rows.iloc[0]
    names = (str(first["category"]), str(first["network"]), str(first["property"]))
    source = files.get(common_name(*names))
    here = ranks.merge(rows[["label", *QUESTION, "repeat"]], on=["label", *QUESTION, "repeat"])
    facts = [
        ("property", _told(source, _property_fact)),
        ("network", _told(source, _network_fact)),
    ]
    texts, histories = [], []
    for row in rows.to_dict("records"):
        label = str(row["label"])
        if row["message"]:
            facts.append((label, str(row["message"])))
        path = artefacts.counterexample(row)
        if row["verdict"] == Verdict.SAT and source and path:
            facts.append((f"{label}, counterexample", _replayed(source, path)))
        progress = artefacts.progress(row)
        rounds = history(progress) if progress else None
        if rounds is not None and len(rounds):
            facts.append((f"{label}, bound over time", curve(rounds)))
            histories.append(grid(history_table(label, rounds)))
        for log in artefacts.logs(row).values():
            texts.append((f"{label}, end of {log.name}", _tail(log)))
    timeout = f", {first['timeout_s']:g} s" if first["timeout_s"] > 0 else ""
    of_ranks = [grid(table) for table in (_phases(here), *_memory(here)) if len(here)]
    return Story(
        title=" ".join(map(short_name, names)) + timeout,
        facts=tuple(facts),
        grids=(grid(_answers(rows)), *histories, *of_ranks),
        texts=tuple(texts),
    )


def _told(source: Instance | None, describe: Callable[[Instance], str]) -> str:
    if source is None:
        return "its file is not where the run found it"
    try:
        return describe(source)
    except InstanceError as error:
        return str(error)


def _property_fact(source: Instance) -> str:
    return f"{source.property}: {describe_property(read_property(source.property))}"


def _network_fact(source: Instance) -> str:
    return f"{source.network}: {describe_network(source.network)}"


def _replayed(source: Instance, path: Path) -> str:
    found: Replay = replay(source.network, source.property, path)
    if found.outputs is None:
        return f"{path}: {found.validity} {found.detail}".strip()
    shown = " ".join(f"{value:.6g}" for value in found.outputs[:_VALUES])
    more = f" … ({len(found.outputs)} in all)" if len(found.outputs) > _VALUES else ""
    said = f"{path}: {found.validity}; ONNX Runtime's outputs: {shown}{more}"
    if found.stated is not None and len(found.stated) == len(found.outputs):
        difference = float(np.abs(found.stated - found.outputs).max())
        said += f"; greatest difference to the file's: {difference:.2g}"
    if found.rounding:
        said += f"; only as rounded: {found.rounding}"
    return said


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LOG_TAIL:])


def _answers(rows: pd.DataFrame) -> Table:
    return Table(
        "answers",
        "Answers",
        (
            Column("strategy", "label"),
            Column("verdict", "verdict"),
            Column("cause", "cause"),
            Column("late answer", "late_answer"),
            Column("method", "method"),
            number("lower bound", "lower_bound", "{:.6g}".format),
            number("prepared in", "prepare_time_s", seconds),
            number("run time", "run_time_s", seconds),
            Column("memory read with", "meter"),
        ),
        rows,
    )


def _phases(ranks: pd.DataFrame) -> Table:
    phases = ("load", "attack", "incomplete", "complete")
    return Table(
        "phases",
        "Time of each rank",
        (
            Column("strategy", "label"),
            number("rank", "rank"),
            *(number(name, f"{name}_s", seconds) for name in phases),
            number("in all", "wall_s", seconds),
            number("CPU", "cpu_s", seconds),
            number("in collectives", "comm_s", seconds),
            number("sent", "comm_bytes", size),
        ),
        ranks,
    )


def _memory(ranks: pd.DataFrame) -> list[Table]:
    """Each kind at its own peak; then all at one moment, where that was recorded."""
    rank = (Column("strategy", "label"), number("rank", "rank"))
    resting = number("resting weights", "weight_bytes", size)
    whole = number("all tensors", "peak_tensor_bytes", size)
    resident = number("RSS above start", "peak_rss_bytes", size)
    peaks = (*rank, resting, *of_kinds("peak"), whole, resident)
    tables = [Table("memory", "Peak memory of each rank", peaks, ranks)]
    if ranks["at_peak_weight_bytes"].notna().any():
        moment = (*rank, *of_kinds("at_peak"), whole)
        tables.append(Table("at_peak", "Memory when all tensors were at their peak", moment, ranks))
    return tables
