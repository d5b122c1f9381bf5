"""A run read back as DataFrames."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rows import COMMAND, outcome, record

from runner.errors import UsageError
from runner.record import read
from runner.record.folder import open_run
from runner.record.schema import Outcome, RankRow, columns


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with open_run(tmp_path, COMMAND, 9) as folder:
        record(folder, range(3))
    return folder.path


def test_columns_have_their_declared_types(run: Path) -> None:
    for table, row_type in ((read.outcomes(run), Outcome), (read.ranks(run), RankRow)):
        expected = {column.name: column.dtype() for column in columns(row_type)}
        assert {name: str(dtype) for name, dtype in table.dtypes.items()} == expected


def test_numbers_come_back_to_the_last_bit(run: Path) -> None:
    table = read.outcomes(run)

    assert list(table["run_time_s"]) == [0.0, 1 / 3, 2 / 3]
    assert list(table["peak_tensor_bytes"]) == [2**40, 2**40 + 1, 2**40 + 2]


def test_not_measured_is_missing_and_no_text_is_empty(run: Path) -> None:
    table = read.outcomes(run)

    assert table["weight_bytes"].isna().all()
    assert pd.isna(read.ranks(run)["comm_s"]).all()
    assert (table["cause"] == "").all()


def test_a_network_called_na_is_a_name(tmp_path: Path) -> None:
    named = Outcome(**{**vars(outcome(0)), "network": "NA", "property": "nan"})
    with open_run(tmp_path, COMMAND, 9) as folder:
        folder.record(named, [])

    assert list(read.outcomes(folder.path)[["network", "property"]].iloc[0]) == ["NA", "nan"]


def test_a_last_row_that_is_cut_off_is_left_out(run: Path) -> None:
    content = (run / "outcomes.csv").read_bytes()
    (run / "outcomes.csv").write_bytes(content[:-5])

    assert list(read.outcomes(run)["property"]) == ["vnnlib/prop_0.vnnlib", "vnnlib/prop_1.vnnlib"]
    assert len(read.ranks(run)) == 4, "the rank rows of a question without outcome do not count"


def test_a_run_without_rows_is_empty(tmp_path: Path) -> None:
    tmp_path.joinpath("outcomes.csv").write_text("catego")

    assert read.outcomes(tmp_path).empty
    assert read.ranks(tmp_path).empty


def test_a_table_of_another_kind_is_refused(run: Path) -> None:
    (run / "outcomes.csv").write_text("a,b\n1,2\n")

    with pytest.raises(UsageError, match=r"outcomes\.csv"):
        read.outcomes(run)
