"""The report as one HTML page that needs no network: tables, plots and links to the run's files."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import itables
import jinja2
import pandas as pd

from runner.contract.vocabulary import Verdict
from runner.record.read import Run
from runner.report.artefacts import Artefacts
from runner.report.gather import QUESTION, Evidence
from runner.report.plots.style import looks
from runner.report.sentences import sentences
from runner.report.strategy_rows import strategies
from runner.report.table import Column, Table
from runner.report.text import ABSENT, ratio, seconds, size

_VERDICTS = frozenset(map(str, Verdict))
_HERE = Path(__file__).parent / "page"
# DataTables (MIT licence), as the package itables carries it.
_LIBRARY = Path(itables.__file__).parent / "html"

Links = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Image:
    """A plot as base64 of its SVG file."""

    title: str
    note: str
    svg: str


@dataclass(frozen=True)
class _Cell:
    text: str
    sort: str
    number: bool = False
    word: str = ""
    links: Links = ()


@dataclass(frozen=True)
class _Row:
    cells: tuple[_Cell, ...]
    alarm: bool


def report_page(
    evidence: Evidence, tables: Sequence[Table], images: Sequence[Image], folder: Path
) -> str:
    """The page as it is to lie in `folder`, from where it links to the runs' files.

    `tables`: the strategies first; the one called "instances" gets the links.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    names = [run.path.resolve().name for run in evidence.runs]
    links = _links(evidence, folder)
    instances = next(table for table in tables if table.name == "instances")
    return environment.get_template("report.html.j2").render(
        title=names[0] if len(names) == 1 else f"{len(names)} runs compared",
        subtitle=_subtitle(evidence, names),
        notes=evidence.notes,
        alarm=instances.note if any(instances.alarms()) else "",
        cards=_cards(evidence),
        sentences=sentences(evidence),
        tables=[_section(table, links if table is instances else {}) for table in tables],
        plots=images,
        runs=[
            {"name": name, "facts": _facts(run)}
            for name, run in zip(names, evidence.runs, strict=True)
        ],
        style=(_HERE / "report.css").read_text(encoding="utf-8"),
        script=(_HERE / "report.js").read_text(encoding="utf-8"),
        library_style=(_LIBRARY / "dt_bundle.css").read_text(encoding="utf-8"),
        library_script=b64encode((_LIBRARY / "dt_bundle.js").read_bytes()).decode("ascii"),
    )


def _subtitle(evidence: Evidence, names: Sequence[str]) -> str:
    questions = len(evidence.outcomes[QUESTION].drop_duplicates())
    said = [
        f"{questions:,} instances of {', '.join(evidence.categories)}",
        f"{len(evidence.labels)} strategies",
    ]
    if len(names) > 1:
        said.append(", ".join(names))
    return " · ".join([*said, evidence.runs[-1].manifest.started[:16].replace("T", " ") + " UTC"])


def _cards(evidence: Evidence) -> list[dict[str, Any]]:
    styles = looks(evidence.labels)
    return [
        {
            "label": row["strategy"],
            "colour": styles[str(row["strategy"])].colour,
            "solved": row["solved"],
            "instances": row["instances"],
            "figures": [
                ("median time", seconds(row["median_run_s"])),
                ("speed", ratio(row["speed_ratio"])),
                ("peak memory", ratio(row["memory_ratio"])),
                ("resting weights", ratio(row["weight_ratio"])),
            ],
        }
        for row in strategies(evidence, by_category=False).to_dict("records")
    ]


def _section(table: Table, links: Mapping[tuple[str, tuple[Any, ...]], Links]) -> dict[str, Any]:
    alarms = table.alarms() or [False] * len(table.frame)
    rows = [
        _Row(tuple(_cell(column, row, links) for column in table.columns), alarm)
        for row, alarm in zip(table.frame.to_dict("records"), alarms, strict=True)
    ]
    head = [(column.title, column.number) for column in table.columns]
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "head": head,
        "rows": rows,
    }


def _cell(
    column: Column,
    row: Mapping[Hashable, Any],
    links: Mapping[tuple[str, tuple[Any, ...]], Links],
) -> _Cell:
    text = column.written(row[column.source])
    value = row[column.sort or column.source]
    word, _, rest = text.partition(" ")
    if word not in _VERDICTS:
        word, rest = "", text
    found = links.get((column.title, _key(row))) if links else None
    return _Cell(rest, "" if pd.isna(value) else str(value), column.number, word, found or ())


def _links(evidence: Evidence, folder: Path) -> dict[tuple[str, tuple[Any, ...]], Links]:
    """By label and question: the counterexample, the logs of the ranks, and the history."""
    artefacts = {str(run.path): Artefacts(run) for run in evidence.runs}
    found = {}
    for row in evidence.outcomes.to_dict("records"):
        files = artefacts[row["run"]]
        counterexample = files.counterexample(row)
        links = [("counterexample", counterexample)] if counterexample else []
        links += [(f"log {rank}", log) for rank, log in files.logs(row).items()]
        progress = files.progress(row)
        links += [("bound over time", progress)] if progress else []
        if links:
            found[row["label"], _key(row)] = tuple(
                (name, _relative(path, folder)) for name, path in links
            )
    return found


def _key(row: Mapping[Hashable, Any]) -> tuple[Any, ...]:
    return tuple("" if pd.isna(row[name]) else row[name] for name in QUESTION)


def _relative(path: Path, folder: Path) -> str:
    return quote(os.path.relpath(path.resolve(), folder.resolve()))


def _facts(run: Run) -> dict[str, str]:
    manifest = run.manifest
    host = manifest.host
    memory = host.get("memory_bytes")
    gpus = [f"{gpu['name']} ({size(gpu['memory_bytes'])})" for gpu in manifest.gpus]
    facts = {
        "folder": str(run.path),
        "command": manifest.command.shell(run.path.parent, None),
        "status": f"{manifest.status}, {len(run.outcomes)} of {manifest.rows} outcomes",
        "started": manifest.started,
        "finished": manifest.finished or "",
        "resumed": ", ".join(manifest.resumed),
        "host": f"{host.get('name', '')} ({host.get('system', '')})",
        "processor": f"{host.get('cpu', '')}, {host.get('cores', '')} cores",
        "memory": size(memory) if memory else "",
        "GPUs": ", ".join(gpus) or "none",
        "versions": ", ".join(f"{name} {found}" for name, found in manifest.versions.items()),
        "revision": manifest.git_revision or "unknown",
    }
    return {name: fact or ABSENT for name, fact in facts.items()}
