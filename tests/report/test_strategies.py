"""What is said of each strategy."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_runs import MadeRun, compared

from runner.contract.vocabulary import Meter, Verdict
from runner.report.balance import balance
from runner.report.causes import causes
from runner.report.gather import gather
from runner.report.instance_rows import instances
from runner.report.strategy_rows import contradictions, strategies
from runner.report.tables import instances_table, strategies_table


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path)


def row(table: pd.DataFrame, strategy: str, category: str = "digits") -> dict[str, Any]:
    chosen = (table["strategy"] == strategy) & (table["category"] == category)
    (found,) = table[chosen].to_dict("records")
    return {str(name): value for name, value in found.items()}


def test_verdicts_times_and_score(tmp_path: Path) -> None:
    fsdp = row(strategies(compared(tmp_path).evidence()), "fsdp")

    assert [fsdp[str(verdict)] for verdict in Verdict] == [0, 2, 1, 0, 1]
    assert (fsdp["instances"], fsdp["solved"], fsdp["score"]) == (4, 2, 20)
    assert fsdp["par2_s"] == (4.0 + 20.0 + 3.0 + 20.0) / 4
    assert (fsdp["median_run_s"], fsdp["total_run_s"]) == (3.5, 15.5)


def test_memory_of_a_rank(tmp_path: Path) -> None:
    fsdp = row(strategies(compared(tmp_path).evidence()), "fsdp")

    assert fsdp["peak_tensor_max_bytes"] == 500
    assert fsdp["peak_tensor_median_bytes"] == 450
    assert fsdp["weight_max_bytes"] == 50
    assert fsdp["meter"] == "dispatch"


def test_domains_are_of_the_instances_that_were_searched(run: MadeRun) -> None:
    for number, (domains, per_s) in enumerate([(100, 5.0), (30, 15.0), (20, 400.0)]):
        run.add("fsdp", number, Verdict.UNSAT, 1.0, (10,), domains=domains, domains_per_s=per_s)
    run.add("fsdp", 3, Verdict.SAT, 0.1, (10,))
    run.add("baseline", 3, Verdict.SAT, 0.1, (10,))
    evidence = run.evidence()
    fsdp, baseline = (row(strategies(evidence), name) for name in ("fsdp", "baseline"))

    assert (fsdp["domains_per_s_median"], fsdp["domains_total"]) == (15.0, 150)
    assert math.isnan(baseline["domains_total"])
    shown = [column.title for column in strategies_table(evidence).columns]
    assert "domains/s, median" in shown
    assert "domains in all" in shown


def test_domains_are_not_shown_where_nothing_was_searched(tmp_path: Path) -> None:
    titles = [column.title for column in strategies_table(compared(tmp_path).evidence()).columns]
    assert not any("domains" in title for title in titles)


def test_ratios_count_only_what_all_ran_to_an_end(tmp_path: Path) -> None:
    table = strategies(compared(tmp_path).evidence())
    fsdp, baseline = row(table, "fsdp"), row(table, "baseline")

    assert fsdp["compared"] == 2, "instance 3 was cut short, instance 4 broke"
    assert fsdp["speed_ratio"] == pytest.approx(math.sqrt((2 / 4) * (1 / 8)))
    assert fsdp["memory_ratio"] == pytest.approx(math.sqrt((500 / 1000) * (500 / 4000)))
    assert fsdp["bound_difference"] == 0.25
    assert (baseline["speed_ratio"], baseline["memory_ratio"]) == (1.0, 1.0)


def test_a_third_strategy_narrows_what_is_compared_unless_it_ended_nothing(
    tmp_path: Path,
) -> None:
    made = compared(tmp_path)
    made.add("lirpa", 1, Verdict.UNSAT, 2.0, (10,))
    made.add("lirpa", 2, Verdict.ERROR, 2.0)
    made.add("null", 1, Verdict.ERROR, 0.0)
    table = strategies(made.evidence())

    assert row(table, "fsdp")["compared"] == 1
    assert row(table, "fsdp")["speed_ratio"] == pytest.approx(0.5)
    assert row(table, "null")["compared"] == 0


def test_time_in_collectives(tmp_path: Path) -> None:
    fsdp = row(strategies(compared(tmp_path).evidence()), "fsdp")

    assert fsdp["comm_s"] == 3.0
    assert fsdp["comm_share"] == pytest.approx(6.0 / (2 * (4 + 8 + 3)))


def test_peaks_of_different_meters_are_not_compared(run: MadeRun) -> None:
    run.add("baseline", 1, Verdict.UNSAT, 1.0, (1000,), meter=Meter.DISPATCH)
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (500, 500), meter=Meter.CUDA)
    fsdp = row(strategies(run.evidence()), "fsdp")

    assert math.isnan(fsdp["memory_ratio"])
    assert (fsdp["compared"], fsdp["meter"]) == (1, "cuda")


def test_without_baseline_there_is_nothing_to_compare_with(run: MadeRun) -> None:
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (500, 500))
    fsdp = row(strategies(run.evidence()), "fsdp")

    assert fsdp["compared"] == 0
    assert math.isnan(fsdp["speed_ratio"])


def test_rows_without_a_timeout_do_not_count_in_par2(run: MadeRun) -> None:
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (500,))
    run.add("fsdp", 2, Verdict.ERROR, None, (500,), timeout_s=None)

    assert row(strategies(run.evidence()), "fsdp")["par2_s"] == 1.0


def test_categories_have_their_own_rows_and_a_sum(run: MadeRun) -> None:
    for category, seconds in (("a", 1.0), ("b", 4.0)):
        run.add("baseline", 1, Verdict.UNSAT, 2.0, (1000,), category=category)
        run.add("fsdp", 1, Verdict.UNSAT, seconds, (700, 700), category=category)
    table = strategies(run.evidence())

    assert list(table["category"]) == ["a", "a", "b", "b", "all", "all"]
    speeds = [row(table, "fsdp", category)["speed_ratio"] for category in ("a", "b", "all")]
    assert speeds == pytest.approx([2.0, 0.5, 1.0])
    assert list(strategies(run.evidence(), by_category=False)["category"]) == ["all", "all"]


def test_a_refuted_unsat_is_a_contradiction_and_costs_points(tmp_path: Path) -> None:
    made = compared(tmp_path)
    assert contradictions(made.evidence()).empty
    made = compared(tmp_path / "second")
    made.add("lirpa", 2, Verdict.UNSAT, 1.0, (10,))
    evidence = made.evidence()

    found = contradictions(evidence)
    assert sorted(zip(found["label"], found["verdict"], strict=True)) == [
        ("baseline", "sat"),
        ("lirpa", "unsat"),
    ]
    assert row(strategies(evidence), "lirpa")["score"] == -150
    table = instances(evidence)
    assert list(table["disagree"]) == [True, False, False, False]
    assert table["property"].iloc[0] == "vnnlib/p2.vnnlib", "what disagrees comes first"


def test_answers_contradict_each_other_whatever_their_timeouts(run: MadeRun) -> None:
    run.add("baseline", 0, Verdict.UNSAT, 1.0)
    run.add("baseline", 1, Verdict.SAT, 1.0, timeout_s=10.0)
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, timeout_s=60.0)
    evidence = run.evidence()

    assert list(contradictions(evidence)["label"]) == ["baseline", "fsdp"]
    assert row(strategies(evidence), "fsdp")["score"] == -150
    assert list(instances(evidence)["disagree"]) == [True, True, False]


def test_instances_have_a_line_each_and_gaps_where_a_strategy_did_not_run(run: MadeRun) -> None:
    run.add("baseline", 1, Verdict.UNSAT, 1.0)
    run.add("fsdp", 2, Verdict.TIMEOUT, 11.0)
    table = instances(run.evidence())

    assert list(table["baseline: verdict"].fillna("none")) == ["unsat", "none"]
    assert list(table["fsdp: verdict"].fillna("none")) == ["none", "timeout"]


def test_balance_is_the_greatest_over_the_mean(run: MadeRun) -> None:
    run.add("baseline", 1, Verdict.UNSAT, 1.0, (1000,))
    run.add("fsdp", 1, Verdict.UNSAT, 1.0, (300, 100))
    run.add("fsdp", 2, Verdict.UNSAT, 1.0, (200, 200))
    (fsdp,) = balance(run.evidence()).to_dict("records")

    assert (fsdp["strategy"], fsdp["ranks"], fsdp["instances"]) == ("fsdp", 2, 2)
    assert fsdp["memory_worst"] == pytest.approx(300 / 200)
    assert fsdp["memory_median"] == pytest.approx((1.5 + 1.0) / 2)
    assert fsdp["busy_worst"] == 1.0
    assert (fsdp["comm_bytes"], fsdp["collectives"]) == (1024, 4)


def test_causes_count_what_was_not_decided_and_give_an_example(run: MadeRun) -> None:
    for number in (1, 2, 3):
        run.add("fsdp", number, Verdict.ERROR, 1.0, message=f"rank {number} died")
    run.add("fsdp", 4, Verdict.TIMEOUT, 10.0)
    run.add("fsdp", 5, Verdict.SAT, 1.0)
    table = causes(run.evidence())

    assert list(table["cause"]) == ["rank_died", "deadline"]
    assert list(table["instances"]) == [3, 1]
    assert table["message"].iloc[0] == "rank 1 died"


def test_times_of_two_kinds_of_nodes_are_marked_and_make_no_ratio(tmp_path: Path) -> None:
    run = compared(tmp_path).read()
    alike = strategies(gather([run]), by_category=False).set_index("strategy")
    kinds = ["slow"] * len(run.outcomes)
    kinds[1] = "fast"  # of the first instance, fsdp
    evidence = gather([replace(run, outcomes=run.outcomes.assign(node=kinds))])
    apart = strategies(evidence, by_category=False).set_index("strategy")
    assert (alike["compared"]["fsdp"], apart["compared"]["fsdp"]) == (2, 1)
    said = "Times are of 2 kinds of nodes: 7 outcomes on slow; 1 outcomes on fast."
    assert said in evidence.notes
    assert any("1 instances moved to another kind of node" in note for note in evidence.notes)
    table = instances_table(evidence)
    assert [column.title for column in table.columns][4] == "node"
    assert list(table.frame["node"]) == ["fast / slow", "slow", "slow", "slow"]
