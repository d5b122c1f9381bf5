"""Runs read back as DataFrames."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rows import COMMAND, outcome, record

from runner.contract.errors import UsageError
from runner.record import read
from runner.record.folder import open_run
from runner.record.schema import Outcome, RankRow, columns


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with open_run(tmp_path, COMMAND, 9) as folder:
        record(folder, range(3))
    return folder.path


def damage(run: Path, name: str, old: str, new: str) -> None:
    content = (run / name).read_text()
    assert old in content
    (run / name).write_text(content.replace(old, new, 1))


def types(table: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in table.dtypes.items()}


def declared(row_type: type) -> dict[str, str]:
    return {column.name: column.dtype() for column in columns(row_type)}


def test_columns_have_their_declared_types(run: Path) -> None:
    assert types(read.outcomes(run)) == declared(Outcome)
    assert types(read.ranks(run)) == declared(RankRow)


def test_columns_have_the_same_types_where_a_row_was_left_out_and_where_there_is_none(
    run: Path,
) -> None:
    damage(run, "outcomes.csv", ",unsat,", ",perhaps,")
    assert types(read.outcomes(run)) == declared(Outcome)
    (run / "outcomes.csv").unlink()
    assert types(read.outcomes(run)) == declared(Outcome)
    assert types(read.ranks(run)) == declared(RankRow)


def test_numbers_come_back_to_the_last_bit(run: Path) -> None:
    table = read.outcomes(run)

    assert list(table["run_time_s"]) == [0.0, 1 / 3, 2 / 3]
    assert list(table["peak_tensor_bytes"]) == [2**40, 2**40 + 1, 2**40 + 2]


def test_not_measured_is_missing_and_no_text_is_empty(run: Path) -> None:
    table = read.outcomes(run)

    assert table["weight_bytes"].isna().all()
    assert pd.isna(read.ranks(run)["comm_s"]).all()
    assert (table["cause"] == "").all()


@pytest.mark.parametrize("name", ["NA", "null", 'a "quoted", name', " spaced "])
def test_names_that_look_like_something_else_are_names(tmp_path: Path, name: str) -> None:
    named = replace(outcome(0), network=name, property="nan")
    with open_run(tmp_path, COMMAND, 9) as folder:
        folder.record(named, [])

    found = list(read.outcomes(folder.path)[["network", "property"]].iloc[0])
    assert found == [name.strip(), "nan"]


def test_a_last_row_that_is_cut_off_is_left_out_and_named(run: Path) -> None:
    content = (run / "outcomes.csv").read_bytes()
    (run / "outcomes.csv").write_bytes(content[:-5])
    found = read.read_run(run)

    assert list(found.outcomes["property"]) == ["vnnlib/prop_0.vnnlib", "vnnlib/prop_1.vnnlib"]
    assert len(found.ranks) == 4, "the rank rows of a question without outcome do not count"
    assert [(row.file.name, row.line) for row in found.left_out] == [
        ("outcomes.csv", 4),
        ("ranks.csv", 6),
    ]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (",unsat,", ",perhaps,", "perhaps"),
        (",10.0,", ",ten,", "ten"),
        (",2,10.0", ",,10.0", "int"),
        ("digits,onnx/net.onnx,", "digits,", "expected"),
        ("digits,", 'digits,"', ""),
    ],
    ids=["word", "number", "empty", "cells", "quote"],
)
def test_a_damaged_row_costs_that_row_alone(run: Path, old: str, new: str, reason: str) -> None:
    damage(run, "outcomes.csv", old, new)
    found = read.read_run(run)

    assert list(found.outcomes["property"]) == ["vnnlib/prop_1.vnnlib", "vnnlib/prop_2.vnnlib"]
    assert found.left_out[0].line == 2
    assert reason in found.left_out[0].reason


def test_what_is_left_out_is_warned_of(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(run, "outcomes.csv", ",unsat,", ",perhaps,")
    with caplog.at_level(logging.WARNING):
        read.outcomes(run)

    assert "outcomes.csv:2: left out: 'perhaps'" in caplog.text


def test_a_run_without_rows_is_empty(tmp_path: Path) -> None:
    tmp_path.joinpath("outcomes.csv").write_text("catego")

    assert read.outcomes(tmp_path).empty
    assert read.ranks(tmp_path).empty


def test_a_table_of_another_kind_is_refused(run: Path) -> None:
    (run / "outcomes.csv").write_text("a,b\n1,2\n")

    with pytest.raises(UsageError, match=r"outcomes\.csv"):
        read.outcomes(run)


def test_a_run_of_an_older_version_has_fewer_columns_in_another_order(run: Path) -> None:
    old = {"peak_gpu_reserved_bytes": "peak_gpu_bytes"}
    for name in ("outcomes.csv", "ranks.csv"):
        table = pd.read_csv(run / name, dtype=str, keep_default_na=False)
        if name == "outcomes.csv":
            table = table.rename(columns=old)
        table = table.drop(columns=["repeat", "comm_s"])
        table[sorted(table.columns)].to_csv(run / name, index=False)
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | {"schema": read.OLDEST_SCHEMA}))
    found = read.read_run(run)

    assert types(found.outcomes) == declared(Outcome)
    assert types(found.ranks) == declared(RankRow)
    assert list(found.outcomes["repeat"]) == [1, 1, 1]
    assert found.outcomes["comm_s"].isna().all()
    assert "peak_gpu_bytes" not in found.outcomes
    damage(run, "outcomes.csv", ",unsat,", ",perhaps,")
    assert list(read.outcomes(run)["repeat"]) == [1, 1]


def test_repeats_are_rows_of_their_own(tmp_path: Path) -> None:
    with open_run(tmp_path, replace(COMMAND, repeat=2), 2) as folder:
        for repeat in (1, 2):
            folder.record(replace(outcome(0), repeat=repeat), [])

    assert list(read.outcomes(folder.path)["repeat"]) == [1, 2]


def test_runs_lists_the_runs_of_a_folder_and_warns_of_what_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("later", "earlier"):
        with open_run(tmp_path, COMMAND, 9, name) as folder:
            record(folder, range(2))
    manifest = json.loads((tmp_path / "earlier" / "run.json").read_text())
    manifest |= {"started": "2020-01-01T00:00:00+00:00"}
    (tmp_path / "earlier" / "run.json").write_text(json.dumps(manifest))
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "run.json").write_text(json.dumps(manifest | {"schema": 99}))
    table = read.runs(tmp_path)

    assert list(table["run"]) == ["earlier", "later"]
    assert list(table["recorded"]) == [2, 2]
    assert list(table["status"]) == ["finished", "finished"]
    assert "schema version 99" in caplog.text


def test_a_folder_without_runs_is_an_empty_list_of_runs(tmp_path: Path) -> None:
    assert read.runs(tmp_path).empty
