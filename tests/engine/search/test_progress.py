"""The record of a search, and the file it is written to."""

from __future__ import annotations

import csv
from pathlib import Path

from runner.engine.search.search import MOST_LINES, Progress


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rounds_add_up_over_searches() -> None:
    progress = Progress()
    progress.start("input-split")
    progress.round(8, 3, 16, -1.0)
    progress.start("beta-crown")
    progress.round(4, 2, 0, 0.5)
    assert (progress.method, progress.domains, progress.rounds) == ("beta-crown", 12, 2)
    assert progress.depth == 3
    assert progress.seconds == progress.history[-1].seconds
    assert progress.domains_per_s == 12 / progress.seconds


def test_without_a_search_there_is_no_speed() -> None:
    assert Progress().domains_per_s == 0


def test_a_written_history_is_short_and_ends_with_the_last_round(tmp_path: Path) -> None:
    progress = Progress()
    progress.start("input-split")
    for number in range(5 * MOST_LINES):
        progress.round(1, number, 7, number / 3)
    path = tmp_path / "logs" / "progress.csv"
    progress.write(path)
    lines = read(path)
    assert MOST_LINES <= len(lines) <= MOST_LINES + 1
    assert list(lines[-1]) == ["seconds", "domains", "open", "bound"]
    assert int(lines[-1]["domains"]) == 5 * MOST_LINES
    assert float(lines[-1]["bound"]) == progress.history[-1].bound
    assert [float(line["seconds"]) for line in lines] == sorted(
        float(line["seconds"]) for line in lines
    )
