"""Other verifiers as they are named: `--verifier NAME=PATH`, and a verifiers.toml."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from runner.contract.errors import UsageError
from runner.contract.verifier import Tool
from runner.verifiers.strategies import AUTO, CHECKPOINT, NO_STRATEGY, STRATEGIES

# The name is that of a folder in the run folder, beside these.
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_TAKEN = frozenset({"logs", "scratch", "report"})
_FIELDS = ("folder", "command", "arguments", "environment")


def named_tools(options: Iterable[str], file: Path | None) -> tuple[Tool, ...]:
    """The tools of all --verifier and of --verifiers, in this order.

    Raises UsageError for what names none, and for a name that is taken.
    """
    tools = [_from_option(option) for option in options]
    if file is not None:
        tools += _from_file(file)
    for index, tool in enumerate(tools):
        _check_name(tool, tools[:index])
    return tuple(tools)


def _from_option(option: str) -> Tool:
    name, equals, path = option.partition("=")
    if not (name and equals and path):
        raise UsageError(
            f"--verifier {option!r}: NAME=FOLDER is expected, of the folder with VNN-COMP's three "
            "scripts, or NAME=FILE, of an executable with the VNN-LIB command line"
        )
    return Tool(name, _absolute(path, Path()))


def _from_file(file: Path) -> list[Tool]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--verifiers {file}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--verifiers {file}: not TOML: {error}") from error
    if not content:
        raise UsageError(f"--verifiers {file}: names no verifier; add a table [NAME] for each")
    return [_from_table(file, name, table) for name, table in content.items()]


def _from_table(file: Path, name: str, table: Any) -> Tool:
    place = f"--verifiers {file}: [{name}]"
    if not isinstance(table, dict):
        raise UsageError(f"{place}: a table of {', '.join(_FIELDS)} is expected")
    unknown = [field for field in table if field not in _FIELDS]
    if unknown:
        raise UsageError(f"{place}: unknown {', '.join(unknown)}; known: {', '.join(_FIELDS)}")
    paths = [table[field] for field in ("folder", "command") if field in table]
    if len(paths) != 1 or not isinstance(paths[0], str):
        raise UsageError(
            f"{place}: one of folder (of VNN-COMP's three scripts) and command (an executable "
            "with the VNN-LIB command line) is needed, as a string"
        )
    arguments, environment = table.get("arguments", []), table.get("environment", {})
    if not (isinstance(arguments, list) and all(isinstance(word, str) for word in arguments)):
        raise UsageError(f"{place}: arguments must be a list of strings")
    if not (
        isinstance(environment, dict) and all(isinstance(v, str) for v in environment.values())
    ):
        raise UsageError(f"{place}: environment must be a table of strings")
    absolute = os.path.abspath(file)
    path = _absolute(paths[0], Path(absolute).parent)
    return Tool(name, path, tuple(arguments), environment, source=absolute)


def _absolute(path: str, folder: Path) -> str:
    return os.path.abspath(folder / os.path.expanduser(path))


def _check_name(tool: Tool, before: Sequence[Tool]) -> None:
    name = tool.name
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise UsageError(
            f"verifier {name!r}: its results lie in a folder of this name, so it must be of "
            f"letters, digits, '.', '-' and '_', and none of {', '.join(sorted(_TAKEN))}"
        )
    if name in (AUTO, NO_STRATEGY) or name.removesuffix(CHECKPOINT) in STRATEGIES:
        raise UsageError(f"verifier {name!r}: a strategy has this name; choose another")
    if any(name == other.name for other in before):
        raise UsageError(f"verifier {name!r} is named twice; choose another name for one of them")
