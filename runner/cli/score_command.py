"""`vnncomp-runner score`: VNN-COMP's score of the strategies of runs, and of other tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from runner.cli.options import Results, taking
from runner.cli.printed_tables import print_table
from runner.cli.runs import find_run, newest_run
from runner.cli.terminal import console, exit_codes
from runner.contract.errors import UsageError
from runner.record.folder import OFFICIAL
from runner.record.manifest import FILE_NAME, read_manifest

if TYPE_CHECKING:
    from runner.report.official import Contestant
    from runner.report.sources import Sources

_MOST_PENALTIES = 20


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What `score` is asked; the help of an option says what it is."""

    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN | FOLDER]...",
            help="Runs, and folders with other tools' results.csv and counterexamples "
            "[default: the newest run].",
        ),
    ] = None
    benchmarks: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Categories, or a folder of them, besides those that the runs name. "
            "Counterexamples are replayed on their networks.",
        ),
    ] = None
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write every table there.")
    ] = None
    results: Results = Path("results")


@taking(ScoreOptions)
def score(asked: ScoreOptions) -> None:
    """Score answers as VNN-COMP 2026 does, and say why points were lost.

    Every counterexample is replayed on ONNX Runtime: its input may lie 1e-4 outside the box, its
    output must be unsafe. As VNN-COMP's checker does, limits are rounded to the network's
    precision; what that alone lets in is listed. Each strategy of a run counts as a tool.

    \b
    Examples:
      vnncomp-runner score results/nightly
      vnncomp-runner score results/nightly vnncomp2025_results/alpha_beta_crown
      vnncomp-runner score vnncomp2025_results --benchmarks vnncomp2025_benchmarks/benchmarks
    """
    with exit_codes():
        from runner.report.report_files import write_table
        from runner.report.score import ANSWERS, answers
        from runner.report.score_tables import score_tables
        from runner.report.sources import category_folders, sources
        from runner.report.table import Column, Table, grid

        terminal = console()
        found: list[tuple[str, Contestant]] = []
        files: Sources = {}
        named = list(dict.fromkeys(asked.paths or [str(newest_run(asked.results))]))
        for path in named:
            here, known = _tools(path, asked.results, several=len(named) > 1)
            found += [(path, tool) for tool in here]
            files |= known
        tools = _told_apart(found)
        for folder in asked.benchmarks or ():
            files |= sources(category_folders(folder))
        for problem in (problem for tool in tools for problem in tool.problems):
            terminal.print(Text(problem, style="yellow"), soft_wrap=True)
        if not any(tool.answers for tool in tools):
            raise UsageError(f"{', '.join(named)}: no row of a {OFFICIAL} that can be scored")
        scored = answers(tools, files)
        tables = score_tables(scored)
        for table in tables:
            print_table(table, terminal, _MOST_PENALTIES if table.name == "penalties" else None)
        if asked.out is not None:
            asked.out.mkdir(parents=True, exist_ok=True)
            every = tuple(Column(name, name) for name in ANSWERS)
            for table in (*tables, Table("answers", "Answers", every, scored)):
                write_table(table, [grid(table)], asked.out)
            terminal.print(f"Tables: {asked.out}/", soft_wrap=True)


def _tools(path: str, results: Path, several: bool) -> tuple[list[Contestant], Sources]:
    """The tools of one argument, and the files of the questions if it is a run."""
    from runner.record.read import OLDEST_SCHEMA
    from runner.report.official import read_tools
    from runner.report.sources import sources_of

    folder = Path(path)
    if folder.is_dir() and not (folder / FILE_NAME).is_file():
        return read_tools(folder), {}
    run = find_run(path, results)
    command = read_manifest(run, OLDEST_SCHEMA).command
    tools = [
        tool
        for strategy in command.contenders
        if any((run / strategy).glob(f"*/{OFFICIAL}"))
        for tool in read_tools(run / strategy)
    ]
    if not tools:
        raise UsageError(f"{run}: no outcome was recorded yet")
    if several:
        tools = [replace(tool, name=f"{run.resolve().name}/{tool.name}") for tool in tools]
    return tools, sources_of(command)


def _told_apart(found: Sequence[tuple[str, Contestant]]) -> list[Contestant]:
    """Tools, of which those with one name get the path that each was found under."""
    times = Counter(tool.name for _, tool in found)
    return [
        replace(tool, name=f"{path}: {tool.name}") if times[tool.name] > 1 else tool
        for path, tool in found
    ]
