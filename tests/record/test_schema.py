"""Rows as lines of CSV."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from runner.contract.vocabulary import Cause, Meter, Verdict
from runner.problem.names import one_line
from runner.record.schema import Outcome, columns, format_row, header, parse_row

OUTCOMES_HEADER = (
    "category,network,property,strategy,ranks,timeout_s,repeat,verdict,cause,late_answer,message,"
    "method,lower_bound,prepare_time_s,run_time_s,device,wall_s,"
)

text = st.text(max_size=12).map(one_line)
real = st.none() | st.floats(allow_nan=False)
count = st.none() | st.integers(min_value=0, max_value=2**62)
outcomes = st.builds(
    Outcome, category=text, network=text, property=text, strategy=text, ranks=st.integers(1, 99),
    timeout_s=real, verdict=st.sampled_from(Verdict), cause=st.sampled_from(Cause),
    late_answer=text,
    prepare_time_s=real, run_time_s=real, method=text, lower_bound=real, peak_tensor_bytes=count,
    peak_rss_bytes=count, weight_bytes=count, meter=st.sampled_from(Meter), message=text,
)  # fmt: skip


@given(outcomes)
def test_a_row_comes_back_from_its_line_unrounded(outcome: Outcome) -> None:
    line = format_row(outcome)
    (cells,) = csv.reader(io.StringIO(line, newline=""))

    assert parse_row(Outcome, columns(Outcome), cells) == outcome


@given(outcomes, st.text())
def test_a_row_is_one_line_of_utf8_whatever_its_texts_hold(outcome: Outcome, message: str) -> None:
    values = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    line = format_row(Outcome(**values | {"message": message}))

    assert line.encode().count(b"\n") == 1
    assert line.endswith("\n")
    assert "\r" not in line


def test_file_names_that_are_not_utf8_can_be_recorded() -> None:
    assert one_line("net\udcff.onnx\n") == "net?.onnx"


def test_the_columns_of_the_outcomes_come_in_their_documented_order() -> None:
    assert header(Outcome).startswith(OUTCOMES_HEADER)


def test_an_empty_cell_is_not_zero() -> None:
    by_name = {column.name: column for column in columns(Outcome)}

    assert by_name["lower_bound"].parse("") is None
    assert by_name["lower_bound"].parse("-inf") == -math.inf
    assert by_name["weight_bytes"].dtype() == "Int64"
    assert by_name["verdict"].parse("sat") is Verdict.SAT
