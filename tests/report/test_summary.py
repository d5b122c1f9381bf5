"""What the summary says of outcomes whose figures can be worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from runner.record import read
from runner.record.folder import open_run
from runner.record.manifest import Command
from runner.record.schema import Outcome, RankRow
from runner.report.console import instance_table, markdown, summary_table
from runner.report.summary import contradictions, summary
from runner.report.text import seconds, size
from runner.vocabulary import Cause, Meter, Verdict

COMMAND = Command(("/digits",), ("baseline", "fsdp"), 2)


class Run:
    """Rows under construction; `frames` sends them through a run folder and back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[tuple[Outcome, list[RankRow]]] = []

    def add(self, strategy: str, number: int, verdict: Verdict, run_s: float | None,
            peaks: tuple[int, ...] = (), category: str = "digits", comm_s: float = 0.0,
            meter: Meter = Meter.DISPATCH, timeout_s: float | None = 10.0) -> None:  # fmt: skip
        key: dict[str, Any] = {
            "category": category, "network": "net.onnx", "property": f"p{number}",
            "strategy": strategy, "ranks": len(peaks) or 1, "timeout_s": timeout_s,
        }  # fmt: skip
        peak = max(peaks, default=None)
        cause = Cause.RANK_DIED if verdict is Verdict.ERROR else Cause.NONE
        outcome = Outcome(
            **key,
            verdict=verdict,
            cause=cause,
            run_time_s=run_s,
            peak_tensor_bytes=peak,
            weight_bytes=peak and peak // 10,
            meter=meter,
        )
        ranks = [
            RankRow(**key, rank=rank, wall_s=run_s, peak_tensor_bytes=value,
                    weight_bytes=value // 10, comm_s=comm_s, meter=meter)
            for rank, value in enumerate(peaks)
        ]  # fmt: skip
        self._rows.append((outcome, ranks))

    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        with open_run(self._folder, COMMAND, len(self._rows)) as folder:
            for outcome, ranks in self._rows:
                folder.record(outcome, ranks)
        return read.outcomes(folder.path), read.ranks(folder.path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def compared(run: Run) -> Run:
    run.add("baseline", 1, Verdict.UNSAT, 2.0, (1000,))
    run.add("fsdp", 1, Verdict.UNSAT, 4.0, (500, 400), comm_s=1.0)
    run.add("baseline", 2, Verdict.SAT, 1.0, (4000,))
    run.add("fsdp", 2, Verdict.UNKNOWN, 8.0, (500, 500), comm_s=2.0)
    run.add("baseline", 3, Verdict.TIMEOUT, 11.0, (9000,))
    run.add("fsdp", 3, Verdict.UNSAT, 3.0, (100, 100))
    run.add("baseline", 4, Verdict.UNSAT, 1.0, (7000,))
    run.add("fsdp", 4, Verdict.ERROR, 0.5)
    return run


def by_strategy(table: pd.DataFrame, strategy: str) -> dict[str, Any]:
    (row,) = table[table["strategy"] == strategy].to_dict("records")
    return row


def test_verdicts_and_times(compared: Run) -> None:
    fsdp = by_strategy(summary(*compared.frames()), "fsdp")

    assert [fsdp[str(verdict)] for verdict in Verdict] == [0, 2, 1, 0, 1]
    assert fsdp["instances"] == 4
    assert fsdp["par2_s"] == (4.0 + 20.0 + 3.0 + 20.0) / 4
    assert fsdp["median_run_s"] == 3.5


def test_memory_of_a_rank(compared: Run) -> None:
    fsdp = by_strategy(summary(*compared.frames()), "fsdp")

    assert fsdp["peak_tensor_max_bytes"] == 500
    assert fsdp["peak_tensor_median_bytes"] == 450
    assert fsdp["weight_max_bytes"] == 50
    assert fsdp["meter"] == "dispatch"


def test_ratios_count_only_what_both_ran_to_an_end(compared: Run) -> None:
    table = summary(*compared.frames())
    fsdp, baseline = by_strategy(table, "fsdp"), by_strategy(table, "baseline")

    assert fsdp["compared"] == 2, "instance 3 was cut short, instance 4 broke"
    assert fsdp["speed_ratio"] == pytest.approx(math.sqrt((2 / 4) * (1 / 8)))
    assert fsdp["memory_ratio"] == pytest.approx(math.sqrt((500 / 1000) * (500 / 4000)))
    assert (baseline["speed_ratio"], baseline["memory_ratio"]) == (1.0, 1.0)


def test_time_in_collectives(compared: Run) -> None:
    fsdp = by_strategy(summary(*compared.frames()), "fsdp")

    assert fsdp["comm_s"] == 3.0
    assert fsdp["comm_share"] == pytest.approx(6.0 / (2 * (4 + 8 + 3)))


def test_peaks_of_different_meters_are_not_compared(run: Run) -> None:
    run.add("baseline", 1, Verdict.UNSAT, 1.0, (1000,), meter=Meter.DISPATCH)
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (500, 500), meter=Meter.CUDA)
    fsdp = by_strategy(summary(*run.frames()), "fsdp")

    assert math.isnan(fsdp["memory_ratio"])
    assert fsdp["compared"] == 1
    assert fsdp["meter"] == "cuda"


def test_without_baseline_there_is_nothing_to_compare_with(run: Run) -> None:
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (500, 500))
    fsdp = by_strategy(summary(*run.frames()), "fsdp")

    assert fsdp["compared"] == 0
    assert math.isnan(fsdp["speed_ratio"])


def test_rows_without_a_timeout_do_not_count_in_par2(run: Run) -> None:
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (500,))
    run.add("fsdp", 2, Verdict.ERROR, None, timeout_s=None)

    assert by_strategy(summary(*run.frames()), "fsdp")["par2_s"] == 1.0


def test_a_summary_by_category(run: Run) -> None:
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (500,), category="a")
    run.add("fsdp", 1, Verdict.SAT, 2.0, (700,), category="b")
    table = summary(*run.frames(), by_category=True)

    assert list(table["category"]) == ["a", "b"]
    assert list(table["peak_tensor_max_bytes"]) == [500, 700]


def test_contradicting_verdicts_are_found(compared: Run) -> None:
    assert contradictions(compared.frames()[0]).empty
    compared.add("lirpa", 2, Verdict.UNSAT, 1.0, (10,))

    found = contradictions(compared.frames()[0])
    assert sorted(zip(found["strategy"], found["verdict"], strict=True)) == [
        ("baseline", "sat"),
        ("lirpa", "unsat"),
    ]


MARKDOWN = """\
|  | baseline | fsdp |
| --- | ---: | ---: |
| instances | 1 | 1 |
| sat | 0 | 0 |
| unsat | 1 | 1 |
| unknown | 0 | 0 |
| timeout | 0 | 0 |
| error | 0 | 0 |
| PAR-2 | 2.000 s | 12.0 s |
| median run time | 2.000 s | 12.0 s |
| peak memory per rank, median | 976 KiB | 488 KiB |
| peak memory per rank, greatest | 976 KiB | 488 KiB |
| resting weights per rank, greatest | 97.6 KiB | 48.8 KiB |
| meter | dispatch | dispatch |
| speed / baseline | 1.00× | 0.17× |
| peak memory / baseline | 1.00× | 0.50× |
| resting weights / baseline | 1.00× | 0.50× |
| instances compared | 1 | 1 |
| time in collectives | 0.000 s | 3.000 s |
| share of time in collectives | 0.0 % | 25.0 % |
"""


@pytest.fixture
def two(run: Run) -> Run:
    run.add("baseline", 1, Verdict.UNSAT, 2.0, (999_000,))
    run.add("fsdp", 1, Verdict.UNSAT, 12.0, (499_500, 499_500), comm_s=3.0)
    return run


def test_markdown_is_the_table_in_units_for_people(two: Run) -> None:
    assert markdown(summary(*two.frames())) == MARKDOWN


def printed(table: object) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_table_fits_a_terminal_and_names_the_meter(two: Run) -> None:
    text = printed(summary_table(summary(*two.frames()), "digits"))

    assert "dispatch" in text
    assert "0.50×" in text
    assert "…" not in text


def test_an_instance_is_one_line_for_all_strategies(compared: Run) -> None:
    text = printed(instance_table(compared.frames()[0]))
    (line,) = (line for line in text.splitlines() if "p4" in line)

    assert "unsat 1.000 s" in line
    assert "rank_died" in line


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (10**9, "954 MiB"),
     (5 * 2**40, "5 TiB"), (float("nan"), "–")],
)  # fmt: skip
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0312, "0.031 s"), (12.34, "12.3 s"), (3600, "3,600.0 s")]
)
def test_times(value: float, text: str) -> None:
    assert seconds(value) == text
