"""What each strategy bought and cost, in a sentence that follows from the rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import MadeRun

from runner.contract.vocabulary import Meter, Verdict
from runner.report.sentences import sentences


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path)


def test_memory_is_told_where_baseline_needs_the_most_and_in_the_median(run: MadeRun) -> None:
    for number, (theirs, ours) in enumerate([(100, 95), (1000, 530), (10, 10)]):
        run.add("baseline", number, Verdict.UNSAT, 1.0, (theirs,), lower_bound=0.5)
        run.add("fsdp", number, Verdict.UNSAT, 1.9, (ours, 1), lower_bound=0.5)

    assert sentences(run.evidence()) == [
        "fsdp: 0.53× of baseline's peak memory per rank on net, which needs the most "
        "(0.95× in the median), 1.90× its time; bounds equal to the last bit."
    ]


def test_every_strategy_but_baseline_has_one_in_the_order_of_the_tables(run: MadeRun) -> None:
    for strategy, bound in (("tp", 0.5 + 2**-20), ("fsdp", 0.5), ("baseline", 0.5)):
        run.add(strategy, 1, Verdict.UNSAT, 2.0, (10,), lower_bound=bound)

    fsdp, tp = sentences(run.evidence())
    assert fsdp.startswith("fsdp: 1.00× of baseline's peak memory per rank, 1.00× its time; ")
    assert tp.endswith("; bounds within 9.5e-07.")


def test_without_baseline_there_is_none(run: MadeRun) -> None:
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (10, 10))
    run.add("tp", 1, Verdict.UNSAT, 1.0, (10,))

    assert sentences(run.evidence()) == []


def test_of_baseline_alone_there_is_none(run: MadeRun) -> None:
    run.add("baseline", 1, Verdict.UNSAT, 1.0, (10,))

    assert sentences(run.evidence()) == []


def test_a_strategy_that_only_broke_says_so(run: MadeRun) -> None:
    for number in (1, 2):
        run.add("baseline", number, Verdict.UNSAT, 1.0, (10,))
        run.add("fsdp", number, Verdict.ERROR, None)

    assert sentences(run.evidence()) == [
        "fsdp: nothing to compare, as no instance was run to an end by every strategy; "
        "0 of 2 solved, baseline 2 of 2, 2 errors."
    ]


def test_what_it_lost_is_told_beside_what_it_bought(run: MadeRun) -> None:
    run.add("baseline", 1, Verdict.SAT, 1.0, (10,))
    run.add("fsdp", 1, Verdict.SAT, 2.0, (5, 5))
    run.add("baseline", 2, Verdict.UNSAT, 1.0, (10,))
    run.add("fsdp", 2, Verdict.TIMEOUT, 11.0, (5, 5))

    assert sentences(run.evidence()) == [
        "fsdp: 0.50× of baseline's peak memory per rank, 2.00× its time; "
        "1 of 2 solved, baseline 2 of 2."
    ]


def test_peaks_of_different_meters_are_not_told(run: MadeRun) -> None:
    run.add("baseline", 1, Verdict.UNSAT, 1.0, (10,), lower_bound=1.0)
    run.add("fsdp", 1, Verdict.UNSAT, 0.5, (5, 5), meter=Meter.CUDA, lower_bound=1.0)

    assert sentences(run.evidence()) == [
        "fsdp: 0.50× of baseline's time; bounds equal to the last bit."
    ]
