"""Runs put together: labels, baselines, repeats, and what a reader must be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import COMMAND, MadeRun, compared

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Cause, Verdict
from runner.contract.workload import Workload
from runner.problem.names import matches
from runner.record.folder import open_run
from runner.record.read import read_run
from runner.report.gather import gather
from runner.report.report_files import write_report
from runner.report.story import stories
from runner.report.strategy_rows import against_baseline


def one_answer(results: Path, name: str, strategy: str, ranks: int, **manifest: Any) -> MadeRun:
    run = MadeRun(results, name, **manifest)
    run.add("baseline", 1, Verdict.UNSAT, 4.0, (100,))
    run.add(strategy, 1, Verdict.UNSAT, 4.0 / ranks, (50,) * ranks)
    return run


def test_strategies_have_one_order_whatever_the_run_had(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    for strategy in ("unheard-of", "null", "lirpa", "fsdp", "baseline"):
        run.add(strategy, 1, Verdict.UNSAT, 1.0)

    assert run.evidence().labels == ("baseline", "fsdp", "lirpa", "null", "unheard-of")


def test_runs_with_several_numbers_of_ranks_are_told_apart(tmp_path: Path) -> None:
    runs = [one_answer(tmp_path, f"p{ranks}", "fsdp", ranks).read() for ranks in (2, 4)]
    evidence = gather(runs)

    assert evidence.labels == ("baseline", "fsdp P=2", "fsdp P=4")
    assert set(evidence.baselines.values()) == {"baseline"}
    assert len(evidence.outcomes) == 3, "the two baselines are repeats of one thing"


def test_runs_on_several_machines_are_compared_with_their_own_baseline(tmp_path: Path) -> None:
    runs = [
        one_answer(tmp_path, host, "fsdp", 2, host={"name": host}).read() for host in ("a", "b")
    ]
    evidence = gather(runs)

    assert evidence.labels == ("baseline @a", "baseline @b", "fsdp @a", "fsdp @b")
    assert evidence.baselines["fsdp @b"] == "baseline @b"
    pairs = against_baseline(evidence)
    assert set(pairs[pairs["label"] == "fsdp @b"]["baseline"]) == {"baseline @b"}


def test_a_fixed_workload_is_not_compared_with_a_verification(tmp_path: Path) -> None:
    fixed = replace(COMMAND, workload=Workload(10, 512))
    decided = one_answer(tmp_path, "decided", "fsdp", 2).read()
    evidence = gather([decided, one_answer(tmp_path, "fixed", "fsdp", 2, command=fixed).read()])

    assert set(evidence.labels) == {
        "baseline complete", "baseline complete 10x512", "fsdp complete", "fsdp complete 10x512"
    }  # fmt: skip
    assert evidence.baselines["fsdp complete 10x512"] == "baseline complete 10x512"


def test_runs_with_other_memory_for_work_are_no_repeats_of_each_other(tmp_path: Path) -> None:
    runs = [
        one_answer(tmp_path, str(mib), "fsdp", 2, command=replace(COMMAND, work_memory_mib=mib))
        for mib in (None, 32.0)
    ]
    evidence = gather([run.read() for run in runs])

    assert set(evidence.labels) == {
        "baseline complete", "baseline complete 32 MiB", "fsdp complete", "fsdp complete 32 MiB"
    }  # fmt: skip


def test_the_repeat_with_the_median_time_stands_for_all(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    for repeat, (seconds, peak) in enumerate([(3.0, 30), (9.0, 90), (5.0, 50)], start=1):
        run.add("baseline", 1, Verdict.UNSAT, seconds, (peak,), repeat=repeat)
    evidence = run.evidence()

    assert list(evidence.outcomes["run_time_s"]) == [5.0]
    assert list(evidence.ranks["peak_tensor_bytes"]) == [50]
    assert len(evidence.repeats) == 3


def test_an_answer_that_changes_from_repeat_to_repeat_is_told(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.add("baseline", 1, Verdict.UNSAT, 1.0, repeat=1)
    run.add("baseline", 1, Verdict.UNKNOWN, 1.0, repeat=2)

    assert "1 answers differ from repeat to repeat." in run.evidence().notes


def test_a_run_cut_off_in_the_middle_of_a_row_is_read_and_told(tmp_path: Path) -> None:
    path = compared(tmp_path).read().path
    content = (path / "outcomes.csv").read_bytes()
    (path / "outcomes.csv").write_bytes(content[:-20])
    evidence = gather([read_run(path)])

    assert len(evidence.outcomes) == 7
    assert "made is finished: 7 of 8 outcomes." in evidence.notes
    assert any("outcomes.csv:9: left out" in note for note in evidence.notes)


@pytest.mark.parametrize(
    ("answers", "note"),
    [
        ([("fsdp", 1)], "Only one strategy was run: there is nothing to compare."),
        ([("fsdp", 1), ("null", 1)], "No baseline to compare with: fsdp, null."),
        (
            [("baseline", 1), ("fsdp", 2)],
            "No instance was run by all strategies: there are no ratios.",
        ),
    ],
)
def test_what_cannot_be_compared_is_told(
    tmp_path: Path, answers: list[tuple[str, int]], note: str
) -> None:
    run = MadeRun(tmp_path)
    for strategy, number in answers:
        run.add(strategy, number, Verdict.UNSAT, 1.0)

    assert note in run.evidence().notes


def test_a_finished_run_that_all_can_be_compared_in_needs_no_note(tmp_path: Path) -> None:
    assert compared(tmp_path).evidence().notes == ()


def test_runs_without_any_outcome_are_refused(tmp_path: Path) -> None:
    with open_run(tmp_path, COMMAND, 9) as folder:
        pass

    with pytest.raises(UsageError, match="no outcome was recorded yet"):
        gather([read_run(folder.path)])


def test_a_part_is_about_the_chosen_instances_alone(tmp_path: Path) -> None:
    evidence = compared(tmp_path).evidence()
    part = evidence.only(lambda network, name: matches(network, name, "*_p1"))

    assert set(part.outcomes["property"]) == {"vnnlib/p1.vnnlib"}
    assert len(part.ranks) == 3
    assert len(evidence.outcomes) == 8


def test_a_part_of_a_run_without_rank_rows_is_shown(tmp_path: Path) -> None:
    run = MadeRun(tmp_path)
    run.add("baseline", 1, Verdict.ERROR, None, cause=Cause.OUT_OF_MEMORY, message="too large")
    read = run.read()
    part = gather([read]).only(lambda network, name: matches(network, name, "*_p1"))
    (story,) = stories(read, part)

    assert list(part.ranks.columns) == list(gather([read]).ranks.columns)
    assert dict(story.facts)["baseline"] == "too large"
    assert [table.title for table in story.grids] == ["Answers"]
    assert write_report(part, tmp_path / "report").is_file()
