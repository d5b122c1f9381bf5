"""What plots show, whatever the evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_runs import MadeRun, compared
from matplotlib.colors import to_rgb

from runner.contract.vocabulary import Meter, Verdict
from runner.report.gather import Evidence, gather
from runner.report.plots import PLOTS
from runner.report.plots.style import house_style, looks
from runner.verifiers.strategies import STRATEGIES


def draw(evidence: Evidence, name: str):  # type: ignore[no-untyped-def]
    with house_style():
        return next(plot for plot in PLOTS if plot.name == name).draw(evidence)


def legend(figure) -> list[str]:  # type: ignore[no-untyped-def]
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_strategies_look_the_same_in_every_plot_and_differ_without_colour() -> None:
    names = tuple(STRATEGIES)
    styles = looks(names)

    assert {name: styles[name] for name in names[:3]} == looks(names[:3])
    assert len({look.marker for look in styles.values()}) == len(names)
    assert to_rgb(styles["baseline"].colour) == (0, 0, 0)


def test_the_cactus_counts_what_was_solved_and_names_all_in_one_order(tmp_path: Path) -> None:
    figure = draw(compared(tmp_path).evidence(), "cactus")
    lines = figure.axes[0].get_lines()

    assert legend(figure) == ["baseline (3)", "fsdp (2)"]
    assert list(lines[1].get_xdata()) == [3.0, 4.0, 11.0]
    assert list(lines[1].get_ydata()) == [1, 2, 2]


@pytest.mark.slow
def test_a_legend_is_read_row_by_row_in_the_one_order(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    for strategy in ("dp", "sp", "tp", "fsdp", "baseline"):
        run.add(strategy, 1, Verdict.UNSAT, 1.0)
    figure = draw(run.evidence(), "cactus")
    figure.draw_without_rendering()
    texts = sorted(
        (-round(text.get_window_extent().y0), text.get_window_extent().x0, text.get_text())
        for text in figure.legends[0].get_texts()
    )

    assert [name for *_, name in texts] == [
        f"{label} (1)" for label in ("baseline", "fsdp", "tp", "sp", "dp")
    ]


@pytest.mark.slow
def test_no_strategy_and_no_category_is_left_out(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    for strategy in STRATEGIES:
        for number in range(7):
            run.add(strategy, number, Verdict.UNSAT, 1.0, (100,), category=f"c{number}")
    evidence = run.evidence()

    assert [panel.get_title() for panel in draw(evidence, "time").axes] == list(STRATEGIES)[1:]
    assert [panel.get_title() for panel in draw(evidence, "memory_by_kind").axes] == [
        f"c{number}" for number in range(7)
    ]


def test_a_timeout_lies_on_the_line_of_the_timeout(tmp_path: Path) -> None:
    figure = draw(compared(tmp_path).evidence(), "time")
    (panel,) = figure.axes
    solved, missed = (part.get_offsets().tolist() for part in panel.collections)

    assert solved == [[2.0, 4.0]]
    assert sorted(missed) == [[1.0, 10.0], [1.0, 10.0], [10.0, 3.0]]
    assert panel.get_title() == "fsdp"


def test_memory_read_with_different_meters_is_not_drawn(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.add("baseline", 1, Verdict.UNSAT, 1.0, (1000,), meter=Meter.DISPATCH)
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (500, 500), meter=Meter.CUDA)

    assert draw(run.evidence(), "memory") is None


def test_memory_by_kind_has_a_bar_for_every_rank_as_long_as_its_mean_peak(tmp_path: Path) -> None:
    figure = draw(compared(tmp_path).evidence(), "memory_by_kind")
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    widths = [[bar.get_width() for bar in kind.patches] for kind in figure.axes[0].containers]

    assert names == ["baseline, rank 0", "fsdp, rank 0", "fsdp, rank 1"]
    assert legend(figure) == ["weights", "A", "α", "β", "bounds", "other"]
    assert widths[3] == pytest.approx([21000 / 4 / 4, 1100 / 4 / 3, 1000 / 4 / 3]), "β"
    assert [sum(bars) for bars in zip(*widths, strict=True)] == pytest.approx(
        [21000 / 4, 1100 / 3, 1000 / 3]
    )


def test_a_run_that_did_not_record_what_made_up_a_peak_has_no_such_plot(tmp_path: Path) -> None:
    evidence = compared(tmp_path).evidence()
    unknown = evidence.ranks.assign(at_peak_beta_bytes=lambda ranks: pd.array([pd.NA] * len(ranks)))

    assert draw(replace(evidence, ranks=unknown), "memory_by_kind") is None


def test_a_phase_that_few_instances_came_to_is_a_mean_over_all(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.add("baseline", 1, Verdict.SAT, 2.0, (100,))
    run.add("baseline", 2, Verdict.UNSAT, 4.0, (100,), complete_s=3.0)
    bars = draw(run.evidence(), "phases").axes[0].containers
    widths = {bar.get_label(): bar.patches[0].get_width() for bar in bars}

    assert widths["complete"] == 1.5
    stacked = ("load", "attack", "incomplete", "complete", "other")
    assert sum(widths[name] for name in stacked) == pytest.approx(3.0), "the mean wall-clock time"


def test_speed_up_is_a_line_over_the_numbers_of_ranks_of_several_runs(tmp_path: Path) -> None:
    runs = []
    for ranks in (2, 4):
        run = MadeRun(tmp_path, f"p{ranks}")
        run.add("baseline", 1, Verdict.UNSAT, 6.0, (100,))
        run.add("fsdp", 1, Verdict.UNSAT, 6.0 / (ranks - 1), (50,) * ranks)
        runs.append(run.read())
    figure = draw(gather(runs), "speed_up")
    line = figure.axes[0].get_lines()[-1]

    assert legend(figure) == ["ideal", "baseline", "fsdp"]
    assert list(zip(line.get_xdata(), line.get_ydata(), strict=True)) == [
        (2, pytest.approx(1.0)),
        (4, pytest.approx(3.0)),
    ]


@pytest.mark.slow
def test_evidence_with_nothing_to_plot_gives_no_plots_and_no_error(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.add("fsdp", 1, Verdict.ERROR, None, timeout_s=None)

    assert [plot.name for plot in PLOTS if draw(run.evidence(), plot.name)] == []
