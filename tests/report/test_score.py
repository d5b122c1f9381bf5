"""VNN-COMP's score against a table worked out by hand, on real networks and counterexamples."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

from runner.contract.errors import UsageError
from runner.problem.property.counterexample import format_counterexample
from runner.problem.replay import Replay, Validity, replay
from runner.report.official import Contestant, read_tools
from runner.report.score import answers, by_category, losses, penalties, rounded, totals
from runner.report.sources import Sources, category_folders, common_name, sources

TIMEOUT_S = 10
IN_BOX, IN_SLACK, FAR_OUT, HARMLESS = (0.5, 0.5), (0.50005, 0.5), (0.6, 0.5), (0.1, 0.5)


def identity_network(path: Path, dtype: int = TensorProto.FLOAT) -> None:
    """y = x, of two values."""
    x, y = (helper.make_tensor_value_info(name, dtype, [1, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


@dataclass(frozen=True)
class Case:
    """One question: what each of two tools said of it, and the points that it deserves.

    An answer is a word, a counterexample's input (or a file's content) and a run time.
    """

    name: str
    first: tuple[str, tuple[float, ...] | str | None, float]
    second: tuple[str, tuple[float, ...] | str | None, float]
    points: tuple[int, int]
    truth: str


UNKNOWN = ("unknown", None, 1.0)
# As VNN-LIB 2.0 writes them.
ASSIGNMENT = "X float32 [1, 2]\n0.5\n0.5\nY real [2]\n0.5\n0.5\n"
# Every property: both inputs in [0, 0.5], and Y_0 >= 0.3 is unsafe.
CASES = [
    Case("correct_unsat", ("unsat", None, 1.0), UNKNOWN, (10, 0), "unsat"),
    Case("correct_sat", ("sat", IN_BOX, 1.0), UNKNOWN, (10, 0), "sat"),
    Case("both_correct", ("sat", IN_BOX, 1.0), ("sat", (0.3, 0.0), 2.0), (10, 10), "sat"),
    Case("wrong_unsat", ("unsat", None, 1.0), ("sat", IN_BOX, 1.0), (-150, 10), "sat"),
    Case("missing", ("sat", None, 1.0), UNKNOWN, (-150, 0), "-"),
    Case("harmless", ("sat", HARMLESS, 1.0), UNKNOWN, (-150, 0), "-"),
    Case("far_out", ("sat", FAR_OUT, 1.0), ("unsat", None, 1.0), (-150, 10), "unsat"),
    # Within the tolerance: credited, but nobody who said unsat is wrong.
    Case("slack", ("sat", IN_SLACK, 1.0), ("unsat", None, 1.0), (10, 10), "unsat"),
    Case("late_sat", ("sat", IN_BOX, 10.5), ("unsat", None, 1.0), (0, 10), "unsat"),
    Case("late_unsat", ("unsat", None, 10.5), ("sat", IN_BOX, 10.0), (0, 10), "sat"),
    Case("late_alone", ("unsat", None, 10.5), UNKNOWN, (0, 0), "-"),
    Case("wrong_size", ("sat", (0.5,), 1.0), UNKNOWN, (-150, 0), "-"),
    Case("malformed", ("sat", "(X_0 is large)", 1.0), UNKNOWN, (-150, 0), "-"),
    Case("empty", ("sat", "", 1.0), UNKNOWN, (-150, 0), "-"),
    Case("assignment", ("sat", ASSIGNMENT, 1.0), UNKNOWN, (10, 0), "sat"),
    Case("cut_off_assignment", ("sat", ASSIGNMENT[:-4], 1.0), UNKNOWN, (-150, 0), "-"),
    Case("two_networks", ("sat", ASSIGNMENT + ASSIGNMENT, 1.0), UNKNOWN, (0, 0), "-"),
    Case("all_unknown", UNKNOWN, ("timeout", None, 10.0), (0, 0), "-"),
    Case("errors", ("error_exit_code_1", None, 1.0), ("", None, 1.0), (0, 0), "-"),
    Case("old_words", ("holds", None, 1.0), ("run_instance_timeout", None, 9.0), (10, 0), "unsat"),
    Case("new_words", ("unsat", None, 1.0), ("timed-out", None, 9.0), (10, 0), "unsat"),
    Case("not_run", ("unsat", None, 1.0), ("absent", None, 0.0), (10, 0), "unsat"),
]
FIRST_POINTS = 10 * 8 - 150 * 8
SECOND_POINTS = 10 * 6


PROPERTY = """
(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
(assert (>= X_0 0.0))
(assert (<= X_0 0.5))
(assert (>= X_1 0.0))
(assert (<= X_1 0.5))
(assert (>= Y_0 0.3))
"""


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    category = tmp_path_factory.mktemp("benchmarks") / "identity"
    (category / "onnx").mkdir(parents=True)
    (category / "vnnlib").mkdir()
    identity_network(category / "onnx" / "net.onnx")
    for case in CASES:
        (category / "vnnlib" / f"{case.name}.vnnlib").write_text(PROPERTY)
    rows = [f"onnx/net.onnx,vnnlib/{case.name}.vnnlib,{TIMEOUT_S}\n" for case in CASES]
    (category / "instances.csv").write_text("".join(rows))
    return category.parent


def write_tool(folder: Path, given: dict[str, tuple[str, tuple[float, ...] | str | None, float]],
               category_folder: str = "2026_identity") -> None:  # fmt: skip
    """As the competition publishes a tool's results: one file, a folder for each category."""
    (folder / category_folder).mkdir(parents=True)
    rows = []
    for name, (word, found, seconds) in given.items():
        if word == "absent":
            continue
        network = "./vnncomp2026_benchmarks/benchmarks/identity/1.0/onnx/net.onnx"
        property_name = network.replace("onnx/net.onnx", f"vnnlib/{name}.vnnlib")
        rows.append(f"identity,{network},{property_name},0.5,{word},{seconds}\n")
        if found is not None:
            text = found if isinstance(found, str) else format_counterexample(found, found)
            path = folder / category_folder / f"net_{name}.counterexample.gz"
            path.write_bytes(gzip.compress(text.encode()))
    (folder / "results.csv").write_text("".join(rows))


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> list[Contestant]:
    root = tmp_path_factory.mktemp("published")
    write_tool(root / "first", {case.name: case.first for case in CASES})
    write_tool(root / "second", {case.name: case.second for case in CASES})
    return read_tools(root)


@pytest.fixture(scope="module")
def files(benchmarks: Path) -> Sources:
    return sources(category_folders(benchmarks))


@pytest.fixture(scope="module")
def scored(tools: list[Contestant], files: Sources) -> pd.DataFrame:
    return answers(tools, files)


def of(table: pd.DataFrame, case: Case, tool: str) -> pd.Series[Any]:
    chosen = (table["property"] == f"{case.name}.vnnlib") & (table["tool"] == tool)
    (index,) = table.index[chosen]
    found: pd.Series[Any] = table.loc[index]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_points_and_truth_of_every_case(scored: pd.DataFrame, case: Case) -> None:
    rows = [of(scored, case, tool) for tool in ("first", "second")]

    assert tuple(row["points"] for row in rows) == case.points
    assert {row["truth"] for row in rows} == {case.truth}
    assert all((row["reason"] == "") == (row["points"] == 10) for row in rows)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong_unsat", "unsat, but there is a valid counterexample"),
        ("missing", "missing counterexample"),
        ("harmless", "counterexample with a safe output"),
        ("far_out", "counterexample outside the input box"),
        ("late_sat", "answer after the timeout"),
        ("wrong_size", "counterexample of the wrong size"),
        ("malformed", "malformed counterexample"),
        ("empty", "missing counterexample"),
        ("cut_off_assignment", "malformed counterexample"),
        ("two_networks", "counterexample that cannot be checked"),
        ("errors", "error"),
    ],
)
def test_the_reason_of_every_loss(scored: pd.DataFrame, name: str, reason: str) -> None:
    (case,) = (case for case in CASES if case.name == name)

    assert of(scored, case, "first")["reason"] == reason


def test_a_category_gives_100_to_the_best_and_nobody_less_than_0(scored: pd.DataFrame) -> None:
    best, other = by_category(scored).to_dict("records")

    assert (best["tool"], best["points"], best["percent"]) == ("second", SECOND_POINTS, 100.0)
    assert (other["tool"], other["points"], other["percent"]) == ("first", FIRST_POINTS, 0.0)
    assert (best["verified"], best["falsified"]) == (3, 3)
    assert (other["verified"], other["falsified"], other["penalties"]) == (4, 4, 8)


def test_totals_add_percents_of_categories_and_name_the_overhead(
    tools: list[Contestant], files: Sources, tmp_path: Path
) -> None:
    scored = answers(tools, files)
    second = scored[scored["tool"] == "second"].assign(category="other", points=10)
    both = totals(pd.concat([scored, second], ignore_index=True))

    assert list(both["tool"]) == ["second", "first"]
    assert list(both["score"]) == [200.0, 0.0]
    assert both["overhead_s"].iloc[1] == 1.0


def test_losses_and_penalties_add_up(scored: pd.DataFrame) -> None:
    lost = losses(scored)
    first = lost[lost["tool"] == "first"]

    assert first["lost"].sum() == 10 * len(CASES) - FIRST_POINTS
    assert len(penalties(scored)) == 8


def test_a_counterexample_that_is_malformed_is_named_with_its_file(scored: pd.DataFrame) -> None:
    for name in ("malformed", "cut_off_assignment", "two_networks"):
        (case,) = (case for case in CASES if case.name == name)
        assert f"net_{name}.counterexample.gz: " in of(scored, case, "first")["detail"]


def test_without_the_benchmarks_sat_is_neither_credited_nor_punished(
    tools: list[Contestant],
) -> None:
    scored = answers(tools, {})
    (case,) = (case for case in CASES if case.name == "correct_sat")
    row = of(scored, case, "first")

    assert (row["points"], row["reason"]) == (0, "counterexample that cannot be checked")
    assert "--benchmarks" in row["detail"]


def test_a_bound_that_float32_cannot_hold_is_compared_in_float32(
    tmp_path: Path, benchmarks: Path
) -> None:
    network = benchmarks / "identity" / "onnx" / "net.onnx"
    path = tmp_path / "tenth.vnnlib"
    path.write_text(PROPERTY.replace("0.5", "0.1").replace("0.3", "0.05"))
    file = tmp_path / "found.counterexample"
    file.write_text(format_counterexample((0.10000000149, 0.0), ()))

    found = replay(network, path, file)
    assert (found.validity, found.rounding) == (Validity.VALID, "")


NARROW = PROPERTY.replace("(>= X_0 0.0)", "(>= X_0 101325.003)").replace(
    "(<= X_0 0.5)", "(<= X_0 101325.0031)"
)
FAR = "X_0 = 101325.0 lies 0.003 outside its limits 101325.003 and 101325.0031"


@pytest.mark.parametrize(
    ("value", "validity", "rounding"),
    [
        ("101325.0", Validity.VALID, FAR),
        # It lies inside, but a float32 network computes with 101325.0.
        ("101325.00305", Validity.VALID, FAR),
        ("101324.0", Validity.OUTSIDE, ""),
    ],
)
def test_a_point_that_only_rounding_lets_in_is_marked(
    tmp_path: Path, benchmarks: Path, value: str, validity: Validity, rounding: str
) -> None:
    network = benchmarks / "identity" / "onnx" / "net.onnx"
    path, file = tmp_path / "narrow.vnnlib", tmp_path / "found.counterexample"
    path.write_text(NARROW)
    file.write_text(f"((X_0 {value})\n(X_1 0.0))")
    found = replay(network, path, file)
    assert (found.validity, found.rounding) == (validity, rounding)


def test_points_that_depend_on_rounding_are_listed(tmp_path: Path, benchmarks: Path) -> None:
    category = tmp_path / "benchmarks" / "identity"
    category.mkdir(parents=True)
    identity_network(category / "net.onnx")
    (category / "narrow.vnnlib").write_text(NARROW)
    (category / "instances.csv").write_text("net.onnx,narrow.vnnlib,10\n")
    for name, word in (("first", "sat"), ("second", "unsat"), ("third", "unknown")):
        (tmp_path / "tools" / name).mkdir(parents=True)
        row = f"identity,net.onnx,narrow.vnnlib,0.5,{word},1.0\n"
        (tmp_path / "tools" / name / "results.csv").write_text(row)
    file = tmp_path / "tools" / "first" / "net_narrow.counterexample"
    file.write_text("((X_0 101325.0)\n(X_1 0.0))")
    scored = answers(read_tools(tmp_path / "tools"), sources([category]))

    assert list(scored["points"]) == [10, -150, 0]
    assert list(rounded(scored)["tool"]) == ["first", "second"]
    assert set(rounded(scored)["rounding"]) == {FAR}


def test_a_loss_to_a_point_inside_the_box_does_not_depend_on_rounding(
    tools: list[Contestant], files: Sources, tmp_path: Path
) -> None:
    def check(network: Path, property_path: Path, counterexample: Path | None) -> Replay:
        assert counterexample is not None
        inside = counterexample.parent.parent.name == "third"
        return Replay(Validity.VALID, rounding="" if inside else "only by rounding")

    (first, second) = (
        replace(
            tool,
            answers=tuple(answer for answer in tool.answers if "wrong_unsat" in answer.property),
        )
        for tool in tools
    )
    (answer,) = second.answers
    write_tool(tmp_path / "third", {"wrong_unsat": ("sat", IN_BOX, 1.0)})
    third = Contestant("third", (replace(answer, folder=tmp_path / "third"),), ())

    alone = answers([first, second], files, check)
    assert list(alone["rounding"]) == ["only by rounding"] * 2
    both = answers([first, second, third], files, check)
    assert list(both["rounding"]) == ["", "only by rounding", ""]


def test_a_threshold_is_compared_as_the_checker_reads_it(tmp_path: Path) -> None:
    """The float64 that is called 0.1 counts as a tenth, though it is greater."""
    path, file = tmp_path / "tenth.vnnlib", tmp_path / "found.counterexample"
    path.write_text(PROPERTY.replace("(>= Y_0 0.3)", "(<= Y_0 0.1)"))
    file.write_text("((X_0 0.1)\n(X_1 0.0))")
    identity_network(tmp_path / "net.onnx", TensorProto.DOUBLE)
    assert replay(tmp_path / "net.onnx", path, file).validity is Validity.VALID


def test_one_file_for_each_category_is_read_as_one_tool(tmp_path: Path) -> None:
    tool = tmp_path / "fsdp"
    for category in ("a", "b"):
        (tool / category).mkdir(parents=True)
        row = f"{category},onnx/n.onnx,vnnlib/p.vnnlib,0.1,sat,1.0\n"
        (tool / category / "results.csv").write_text(row)
        (tool / category / "n_p.counterexample.gz").touch()
    (read,) = read_tools(tool)

    assert (read.name, len(read.answers)) == ("fsdp", 2)
    assert all(answer.counterexample() for answer in read.answers)
    assert [tool.name for tool in read_tools(tmp_path)] == ["fsdp"]


def test_a_row_that_cannot_be_used_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = [
        "category,network,property,prepare_time,result,run_time",
        "a,n.onnx,p.vnnlib,0.1,unsat,1.0",
        "a,n.onnx,q.vnnlib,0.1,perhaps,1.0",
        "a,n.onnx,r.vnnlib",
        "",
        "a,./n.onnx.gz,p.vnnlib,0.1,sat,1.0",
        "a,n.onnx,s.vnnlib,0.1,unsat,soon",
    ]
    (tmp_path / "results.csv").write_text("\r\n".join(rows))
    (tool,) = read_tools(tmp_path)

    assert [answer.verdict for answer in tool.answers] == ["unsat", "unknown", "unsat"]
    unknown, short, twice, timeless = tool.problems
    assert "results.csv:3: unknown result 'perhaps'" in unknown
    assert "results.csv:4: 3 columns where 6 are needed" in short
    assert "twice" in twice
    assert "no run time" in timeless


def test_a_line_that_is_no_csv_costs_that_line_alone(tmp_path: Path) -> None:
    rows = ['"a,n.onnx,p.vnnlib,0.1,unsat,1.0', "a,n.onnx,q.vnnlib,0.1,unsat,1.0", "x" * 200_000]
    (tmp_path / "results.csv").write_text("\n".join(rows))
    (tool,) = read_tools(tmp_path)

    assert [answer.property for answer in tool.answers] == ["q.vnnlib"]
    assert [problem.split(":")[1] for problem in tool.problems] == ["1", "3"]


def test_the_warm_up_of_a_category_is_no_question_unless_it_was_asked_for(tmp_path: Path) -> None:
    warm_up = (
        "2025/benchmarks/test/onnx/test_nano.onnx,2025/benchmarks/test/vnnlib/test_nano.vnnlib"
    )
    rows = [f"{category},{warm_up},0.1,unsat,1.0" for category in ("acasxu_2023", "test")]
    (tmp_path / "results.csv").write_text("\n".join(rows))
    ((answer,),) = (tool.answers for tool in read_tools(tmp_path))

    assert answer.question == ("test", "test_nano.onnx", "test_nano.vnnlib")


def test_several_networks_name_a_question_and_its_counterexample(tmp_path: Path) -> None:
    networks = "[('f', '{0}/onnx/a.onnx'), ('g', '{0}/onnx/b.onnx')]"
    row = f'pairs,"{networks.format("x/pairs/2.0")}",x/pairs/2.0/vnnlib/p.vnnlib,0.1,sat,1.0\n'
    (tmp_path / "results.csv").write_text(row)
    (tmp_path / "2026_pairs").mkdir()
    (tmp_path / "2026_pairs" / "f_g_p.counterexample.gz").touch()
    ((answer,),) = (tool.answers for tool in read_tools(tmp_path))

    assert answer.question == common_name(
        "2026_pairs", networks.format("elsewhere"), "vnnlib/p.vnnlib"
    )
    assert answer.question != common_name(
        "pairs", "[('f', 'onnx/c.onnx'), ('g', 'onnx/b.onnx')]", "p"
    )
    assert answer.counterexample() is not None


def test_a_category_without_rows_is_no_tool_of_its_own(tmp_path: Path) -> None:
    for category, row in (("a", "a,onnx/n.onnx,vnnlib/p.vnnlib,0.1,unsat,1.0\n"), ("b", "")):
        (tmp_path / category).mkdir()
        (tmp_path / category / "results.csv").write_text(row)

    assert [tool.name for tool in read_tools(tmp_path)] == [tmp_path.name]


def test_folders_inside_a_category_are_part_of_names(tmp_path: Path) -> None:
    names = [common_name("2024_safenlp", f"x/onnx/{inside}/net.onnx", f"x/vnnlib/{inside}/p.vnnlib")
             for inside in ("medical", "ruarobot")]  # fmt: skip
    assert names[0] == ("safenlp", "medical/net.onnx", "medical/p.vnnlib") != names[1]
    row = "safenlp,x/onnx/medical/net.onnx,x/vnnlib/medical/p.vnnlib,0.1,sat,1.0\n"
    (tmp_path / "results.csv").write_text(row)
    (tmp_path / "2026_safenlp").mkdir()
    (tmp_path / "2026_safenlp" / "medical_net_p.counterexample.gz").touch()
    ((answer,),) = (tool.answers for tool in read_tools(tmp_path))

    assert answer.counterexample() is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/net.onnx", "b/net.onnx"),
        ("x/benchmarks/2026_nets/1.0/a/net.onnx", "x/benchmarks/2026_nets/1.0/b/net.onnx"),
        ("/home/nets/a/net.onnx", "/home/nets/b/net.onnx"),
    ],
)
def test_files_of_one_name_in_two_folders_are_two_questions(one: str, other: str) -> None:
    first, second = (common_name("nets", name, "prop/p.vnnlib") for name in (one, other))
    assert first == ("nets", "a/net.onnx", "prop/p.vnnlib")
    assert second == ("nets", "b/net.onnx", "prop/p.vnnlib")
    assert common_name("nets", "./net.onnx.gz", "specs/p.vnnlib") == (
        "nets", "net.onnx", "specs/p.vnnlib"
    )  # fmt: skip


def test_counterexamples_of_alike_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    rows = "".join(f"nets,{inside}/net.onnx,p.vnnlib,0.1,sat,1.0\n" for inside in "ab")
    (tmp_path / "results.csv").write_text(rows)
    for inside in "ab":
        (tmp_path / f"{inside}_net_p.counterexample.gz").touch()
    (tool,) = read_tools(tmp_path)

    assert tool.problems == ()
    found = [path.name for answer in tool.answers if (path := answer.counterexample())]
    assert found == ["a_net_p.counterexample.gz", "b_net_p.counterexample.gz"]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no results\.csv"):
        read_tools(tmp_path)
