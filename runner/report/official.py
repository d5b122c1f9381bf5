"""Results in VNN-COMP's own files, of a strategy of a run or of any other tool.

`results.csv`: category,network,property,prepare_time,result,run_time, without a header; in one
file for a tool or in one for each category. Counterexamples lie beside it or in a folder called
like the category, with or without the year. The warm-up that starts each category is no question.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Verdict
from runner.problem.names import full_name, instance_name
from runner.record.folder import OFFICIAL, file_name
from runner.report.sources import CommonName, common_name

_COLUMNS = 6
# What results.csv has said in some year, by how the word starts. `unsat` comes before `sat`.
_WORDS = {
    "unsat": Verdict.UNSAT,
    "holds": Verdict.UNSAT,
    "sat": Verdict.SAT,
    "violated": Verdict.SAT,
    "timeout": Verdict.TIMEOUT,
    "timed-out": Verdict.TIMEOUT,
    "run_instance_timeout": Verdict.TIMEOUT,
    "prepare_instance_timeout": Verdict.TIMEOUT,
    "unknown": Verdict.UNKNOWN,
    "no_result_in_file": Verdict.UNKNOWN,
    "prepare_instance_error": Verdict.UNKNOWN,
    "error_nonmaximal": Verdict.UNKNOWN,
    "error": Verdict.ERROR,
}
_WARM_UP = re.compile(r"test_(nano|tiny)")
_NETWORK = re.compile(r"\(\s*['\"]([^'\"]*)['\"]\s*,")  # a name in `[('name','path'), …]`


@dataclass(frozen=True)
class GivenAnswer:
    """One row. `folder`: where its results.csv lies; the names are as the row writes them."""

    question: CommonName
    category: str
    network: str
    property: str
    verdict: Verdict
    prepare_s: float
    run_s: float
    folder: Path

    def counterexample(self) -> Path | None:
        """The file that belongs to the row, compressed or not; None when there is none.

        Where names are alike but for folders, a run puts the folders in front. Where a category
        has folders in `vnnlib`, VNN-COMP puts the folder's name there; of several networks it
        puts their names together.
        """
        network = "_".join(_NETWORK.findall(self.network)) or self.network
        name = instance_name(network, self.property)
        inside = Path(self.question.property).parent.name
        names = [full_name(network, self.property), f"{inside}_{name}" if inside else name, name]
        category = self.question.category
        folders = [self.folder, self.folder / self.category, self.folder / category]
        folders += sorted(self.folder.glob(f"20??_{category}"))
        for folder in folders:
            for name in names:
                for suffix in (".counterexample.gz", ".counterexample"):
                    if (path := folder / f"{file_name(name)}{suffix}").is_file():
                        return path
        return None


@dataclass(frozen=True)
class Contestant:
    """All answers of one tool. `problems` name rows that could not be used as they are."""

    name: str
    answers: tuple[GivenAnswer, ...]
    problems: tuple[str, ...]


def read_tools(folder: Path) -> list[Contestant]:
    """The tool whose results are in `folder`, or all tools in the folders below.

    Raises UsageError when there are no results.
    """
    if (folder / OFFICIAL).is_file():
        return [_read_tool(folder.resolve().name, [folder / OFFICIAL])]
    files = sorted(folder.glob(f"*/{OFFICIAL}"))
    if files and all(_is_of_one_category(file) for file in files):
        return [_read_tool(folder.resolve().name, files)]
    tools = [_read_tool(file.parent.name, [file]) for file in files]
    for inner in sorted(path for path in folder.glob("*/") if not (path / OFFICIAL).is_file()):
        nested = sorted(inner.glob(f"*/{OFFICIAL}"))
        if nested:
            tools.append(_read_tool(inner.name, nested))
    if not tools:
        raise UsageError(f"{folder}: no {OFFICIAL} in it or in the folders below")
    return tools


def _is_of_one_category(file: Path) -> bool:
    """Whether the file is one category of a tool, and not all of another tool's."""
    answers = _read_tool("", [file]).answers
    here = common_name(file.parent.name, "", "").category
    return {answer.question.category for answer in answers} <= {here}


def _read_tool(name: str, files: list[Path]) -> Contestant:
    answers: dict[CommonName, GivenAnswer] = {}
    problems: list[str] = []
    for file in files:
        for found in _rows(file):
            if isinstance(found, str):
                problems.append(found)
            elif found.question in answers:
                problems.append(
                    f"{file}: {' '.join(found.question)} is there twice; the first counts"
                )
            else:
                answers[found.question] = found
    problems += [
        f"{answer.folder / OFFICIAL}: {' '.join(answer.question)}: no run time; counted as 0 s"
        for answer in answers.values()
        if math.isnan(answer.run_s)
    ]
    return Contestant(name, tuple(answers.values()), tuple(problems))


def _rows(file: Path) -> Iterator[GivenAnswer | str]:
    """Answers, and what is wrong with a row that is none."""
    text = file.read_bytes().decode("utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        place = f"{file}:{number}"
        try:
            # Line by line: a quotation mark that is never closed costs its own row alone.
            cells = [cell.strip() for cell in next(csv.reader([line]), ())]
        except csv.Error as error:
            yield f"{place}: {error}; left out"
            continue
        if not any(cells) or cells[0].lower() == "category":
            continue
        if len(cells) < _COLUMNS:
            yield f"{place}: {len(cells)} columns where {_COLUMNS} are needed; left out"
            continue
        category, network, property_name, prepare, word, run = cells[:_COLUMNS]
        asked = common_name(category, network, property_name)
        if _WARM_UP.search(network) and asked.category != "test":
            continue
        verdict = _verdict(word)
        if verdict is None:
            yield f"{place}: unknown result {word!r}; counted as unknown"
        yield GivenAnswer(
            question=asked,
            category=category,
            network=network,
            property=property_name,
            verdict=verdict or Verdict.UNKNOWN,
            prepare_s=_seconds(prepare),
            run_s=_seconds(run),
            folder=file.parent,
        )


def _verdict(word: str) -> Verdict | None:
    if not word:
        return Verdict.UNKNOWN
    found = (verdict for start, verdict in _WORDS.items() if word.lower().startswith(start))
    return next(found, None)


def _seconds(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
