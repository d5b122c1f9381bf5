"""Other verifiers as the command line and verifiers.toml name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.contract.errors import UsageError
from runner.contract.verifier import Tool
from runner.verifiers.named import named_tools


def test_options_name_folders_from_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tools = named_tools(["one=here", "two=/there"], None)
    assert tools == (Tool("one", str(tmp_path / "here")), Tool("two", "/there"))


def test_a_file_names_them_from_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "verifiers.toml"
    file.write_text(
        '[one]\nfolder = "scripts"\n'
        '[two]\ncommand = "/bin/solver"\narguments = ["--fast"]\nenvironment = { THREADS = "1" }\n'
    )
    one, two = named_tools([], file)

    assert one == Tool("one", str(tmp_path / "scripts"), source=str(file))
    assert two == Tool("two", "/bin/solver", ("--fast",), {"THREADS": "1"}, str(file))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("vibecheck", "NAME=FOLDER is expected"),
        ("=here", "NAME=FOLDER is expected"),
        ("fsdp=here", "a strategy has this name"),
        ("auto=here", "a strategy has this name"),
        ("fsdp+checkpoint=here", "must be of letters"),
        ("logs=here", "none of logs"),
        ("../up=here", "must be of letters"),
    ],
)
def test_a_name_that_cannot_be_is_refused(option: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        named_tools([option], None)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    file = tmp_path / "verifiers.toml"
    file.write_text('[one]\nfolder = "scripts"\n')
    with pytest.raises(UsageError, match="named twice"):
        named_tools(["one=here"], file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "names no verifier"),
        ("[one", "not TOML"),
        ("one = 1", "a table of folder"),
        ("[one]", "one of folder"),
        ('[one]\nfolder = "a"\ncommand = "b"', "one of folder"),
        ("[one]\nfolder = 1", "one of folder"),
        ('[one]\nfolder = "a"\nargs = []', "unknown args; known: folder"),
        ('[one]\nfolder = "a"\narguments = "b"', "a list of strings"),
        ('[one]\nfolder = "a"\nenvironment = { A = 1 }', "a table of strings"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "verifiers.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=words) as refused:
        named_tools([], file)
    assert str(file) in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        named_tools([], tmp_path / "verifiers.toml")
