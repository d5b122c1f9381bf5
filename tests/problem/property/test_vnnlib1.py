"""VNN-LIB 1.0: what each form means, what is refused and where, and all real files."""

from __future__ import annotations

import cProfile
import gzip
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import rest

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property import vnnlib1
from runner.problem.property.logic import Formula, compare
from runner.problem.property.model import Property
from runner.problem.property.read_property import read_property

# Ends on line 2, so that what a test appends starts on line 3.
BOX = (
    "(declare-const X_0 Real)(declare-const X_1 Real)"
    "(declare-const Y_0 Real)(declare-const Y_1 Real)\n"
    "(assert (<= X_0 1))(assert (>= X_0 -1))(assert (<= 0 X_1))(assert (>= 2 X_1))\n"
)


def parse(text: str) -> Property:
    return vnnlib1.parse(text, "prop.vnnlib")


def regions(found: Property) -> list[tuple[list[float], list[float], list[list[list[float]]]]]:
    """Per case: lower, upper, and per disjunct its rows [coefficients…, bound, strict]."""
    return [
        (
            case.lower.tolist(),
            case.upper.tolist(),
            [
                np.column_stack([region.matrix, region.rhs, region.strict]).tolist()
                for region in case.unsafe
            ],
        )
        for case in found.cases
    ]


def unsafe(assertions: str) -> list[list[list[float]]]:
    """The output region beside the box of `BOX`."""
    ((lower, upper, found),) = regions(parse(BOX + assertions))
    assert (lower, upper) == ([-1.0, 0.0], [1.0, 2.0])
    return found


def refusal(text: str) -> tuple[Cause, str]:
    with pytest.raises(InstanceError) as raised:
        parse(text)
    return raised.value.cause, str(raised.value)


@pytest.mark.parametrize(
    ("assertion", "row"),
    [
        ("(<= Y_0 3)", [1, 0, 3, 0]),
        ("(>= Y_0 3)", [-1, 0, -3, 0]),
        ("(<= 3 Y_0)", [-1, 0, -3, 0]),
        ("(>= 3.0 Y_0)", [1, 0, 3, 0]),
        ("(< Y_0 -1.25e-1)", [1, 0, -0.125, 1]),
        ("(> Y_0 +.5)", [-1, 0, -0.5, 1]),
        ("(<= Y_0 Y_1)", [1, -1, 0, 0]),
        ("(>= Y_0 Y_1)", [-1, 1, 0, 0]),
        ("(<= (+ Y_0 (* 2 Y_1)) 3)", [1, 2, 3, 0]),
        ("(<= (+ Y_0 Y_0 1 Y_1) (- Y_1 4 Y_0))", [3, 0, -5, 0]),
        ("(<= (* -1 (* (+ Y_0 1) 2)) (- 6))", [-2, 0, -4, 0]),
        ("(<= (/ Y_0 4 2) (/ 1 8))", [0.125, 0, 0.125, 0]),
        ("(not (<= Y_0 3))", [-1, 0, -3, 1]),
        ("(not (> Y_0 3))", [1, 0, 3, 0]),
    ],
)
def test_a_comparison_of_outputs_is_one_row(assertion: str, row: list[float]) -> None:
    assert unsafe(f"(assert {assertion})") == [[row]]


def test_a_chain_compares_each_operand_with_the_next() -> None:
    assert unsafe("(assert (<= 1 Y_0 Y_1 4))") == [[[-1, 0, -1, 0], [1, -1, 0, 0], [0, 1, 4, 0]]]
    assert unsafe("(assert (= Y_0 1 1))") == [[[1, 0, 1, 0], [-1, 0, -1, 0]]]


def test_not_turns_and_into_or() -> None:
    both = "(and (<= Y_0 1) (or (< Y_1 2) (= Y_0 3)))"
    assert unsafe(f"(assert (not {both}))") == [
        [[-1, 0, -1, 1]],
        [[0, -1, -2, 0], [-1, 0, -3, 1]],
        [[0, -1, -2, 0], [1, 0, 3, 1]],
    ]
    assert unsafe(f"(assert (not (not {both})))") == unsafe(f"(assert {both})")


@pytest.mark.parametrize(
    "bound", ["0.1", "-0.1", "0.3", "-1.5e-3", "16777217", "1e-400", "(/ 1 3)"]
)
def test_a_threshold_loses_nothing_by_rounding(bound: str) -> None:
    (case,) = parse(BOX + f"(assert (<= Y_0 {bound}))").cases
    (region,) = case.unsafe
    (exactly,) = region.bounds
    rounded = float(region.rhs[0])
    assert np.nextafter(rounded, -np.inf) < exactly <= Fraction(rounded)


def test_a_row_is_scaled_where_float64_cannot_hold_its_coefficients() -> None:
    assert unsafe("(assert (<= (+ (* 0.1 Y_0) (* 0.25 Y_1)) 0.5))") == [[[2, 5, 10, 0]]]
    assert unsafe("(assert (<= (* 0.25 Y_0) 0.5))") == [[[0.25, 0, 0.5, 0]]]


def test_a_row_that_no_factor_makes_exact_has_the_nearest_coefficients() -> None:
    digits = "0.12345678901234567891"
    assert unsafe(f"(assert (<= (* {digits} Y_0) 1))") == [[[float(digits), 0, 1, 0]]]


def test_several_asserts_are_one_conjunction() -> None:
    assert unsafe("(assert (<= Y_0 1))(assert (<= Y_1 2))") == [[[1, 0, 1, 0], [0, 1, 2, 0]]]


def test_an_equality_is_two_rows_and_a_difference_two_disjuncts() -> None:
    assert unsafe("(assert (= Y_0 1))") == [[[1, 0, 1, 0], [-1, 0, -1, 0]]]
    assert unsafe("(assert (!= Y_0 1))") == [[[1, 0, 1, 1]], [[-1, 0, -1, 1]]]


def test_or_gives_disjuncts_and_several_or_multiply() -> None:
    a, b, c, d = [1, 0, 1, 0], [1, 0, 2, 0], [0, 1, 3, 0], [0, 1, 4, 0]
    first, second = (
        "(assert (or (<= Y_0 1) (and (<= Y_0 2))))",
        "(assert (or (<= Y_1 3) (<= Y_1 4)))",
    )
    assert unsafe(first) == [[a], [b]]
    assert unsafe(first + second) == [[a, c], [a, d], [b, c], [b, d]]


def test_disjuncts_that_say_the_same_are_one() -> None:
    assert unsafe("(assert (or (<= Y_0 1) (<= Y_0 1) (>= 1 Y_0)))") == [[[1, 0, 1, 0]]]


def test_no_constraint_on_outputs_makes_all_of_them_unsafe() -> None:
    (case,) = parse(BOX).cases
    (region,) = case.unsafe
    assert region.matrix.shape == (0, 2)
    assert region.holds(np.array([1.0, 2.0]))


def test_comparisons_of_constants_are_true_or_false() -> None:
    assert unsafe("(assert (or (<= 1 0) (<= Y_0 1)))") == [[[1, 0, 1, 0]]]
    assert unsafe("(assert (and (<= Y_1 Y_1) (<= Y_0 1)))") == [[[1, 0, 1, 0]]]
    assert unsafe("(assert (< Y_1 Y_1))") == []


def test_comments_and_odd_spacing_change_nothing() -> None:
    odd = "; (assert (<= Y_0 0))\n(assert\t(or;)\n\n( <=\r\nY_0 1)(<= Y_1 2) ) ) ; end"
    assert unsafe(odd) == [[[1, 0, 1, 0]], [[0, 1, 2, 0]]]


def test_a_union_of_boxes_is_one_case_each_with_the_common_outputs() -> None:
    union = "(assert (or (and (<= X_0 0) (<= X_1 1)) (>= X_0 0.5)))(assert (<= Y_0 Y_1))"
    rows = [[[1, -1, 0, 0]]]
    assert regions(parse(BOX + union)) == [
        ([-1, 0], [0, 1], rows),
        ([0.5, 0], [1, 2], rows),
    ]


def test_inputs_and_outputs_may_mix_under_one_or() -> None:
    mixed = "(assert (or (and (<= X_0 0) (<= Y_0 1)) (and (<= Y_1 2) (<= X_0 0)) (<= Y_0 3)))"
    whole, half = ([-1, 0], [1, 2], [[[1, 0, 3, 0]]]), ([-1, 0], [0, 2])
    assert sorted(regions(parse(BOX + mixed))) == sorted(
        [whole, (*half, [[[1, 0, 1, 0]], [[0, 1, 2, 0]]])]
    )


def test_boxes_that_are_equal_share_a_case_however_they_are_written() -> None:
    text = BOX + (
        "(assert (or (and (<= X_0 0) (<= Y_0 1)) (and (<= (* 2 X_0) 0) (<= X_1 2) (<= Y_0 2))))"
    )
    assert regions(parse(text)) == [([-1, 0], [0, 2], [[[1, 0, 1, 0]], [[1, 0, 2, 0]]])]


def test_combinations_of_boxes_that_do_not_meet_are_dropped() -> None:
    text = "(assert (or (<= X_0 0) (>= X_0 0.5)))(assert (or (<= X_0 0.25) (>= X_0 0.75)))"
    found = regions(parse(BOX + text))
    assert [(lower[0], upper[0]) for lower, upper, _ in found] == [(-1, 0), (0.75, 1)]


def test_the_tightest_of_several_bounds_holds() -> None:
    ((lower, upper, _),) = regions(parse(BOX + "(assert (<= X_0 0.5))(assert (<= X_0 7))"))
    assert (lower, upper) == ([-1.0, 0.0], [0.5, 2.0])


def test_a_strict_input_bound_excludes_its_value_alone() -> None:
    (case,) = parse(BOX + "(assert (< X_0 0.5))(assert (> X_0 -0.5))").cases
    assert (case.lower[0], case.upper[0]) == (-0.5, 0.5)
    least, greatest = case.within
    assert (least[0], greatest[0]) == (np.nextafter(-0.5, 0), np.nextafter(0.5, 0))


def test_an_input_may_be_pinned_by_an_equality() -> None:
    ((lower, upper, _),) = regions(parse(BOX + "(assert (= 0.5 X_0))"))
    assert lower[0] == upper[0] == 0.5


@pytest.mark.parametrize("digits", ["0.1", "0.7", "16777217", "101325.0031", "0.30000001192092896"])
def test_limits_are_exact_and_rounded_outwards(digits: str) -> None:
    pinned = f"(assert (<= X_0 {digits}))(assert (>= X_0 {digits}))"
    (case,) = parse(BOX.replace("(<= X_0 1)", "(<= X_0 1e9)") + pinned).cases
    lower, upper = case.limits_of(0)
    assert lower.exact == upper.exact == Fraction(digits)
    assert case.lower[0] <= Fraction(digits) <= case.upper[0]
    assert case.upper[0] <= np.nextafter(case.lower[0], np.inf)
    assert case.nearest[0][0] == case.nearest[1][0] == float(digits)


def test_declare_fun_declares_too() -> None:
    text = BOX.replace("(declare-const Y_1 Real)", "(declare-fun Y_1 () Real)")
    assert regions(parse(text)) == regions(parse(BOX))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(assert (<= X_2 1))", ":3: 'X_2' is neither"),
        ("(assert (<= Y_0 nan))", ":3: 'nan' is not a finite number"),
        ("(assert (<= X_0 -inf))", ":3: '-inf' is not a finite number"),
        ("(assert (<= Y_0 ٣))", ":3: '٣' is neither"),
        ("(assert (<= Y_0 1_0))", ":3: '1_0' is neither"),
        ("(assert (<= Y_0 1e999))", ":3: 1e999 is too large"),
        ("(assert (<= Y_0 1e-999999999))", ":3: 1e-999999999 is too close to 0"),
        ("(assert (<= (* 1e200 (* 1e200 3)) Y_0))", ":3: a number is too large"),
        ("(assert (<= (* 1e200 (* 1e200 3)) X_0))", ":3: a number is too large"),
        ("(assert (<= (* 1e200 1e200 Y_0) 1))", ":3: a number is too large"),
        ("(assert (<= (/ Y_0 0) 1))", ":3: a division by 0"),
        ("(assert (<= (/ 2) Y_0))", ":3: / takes at least 2 operands, not 1"),
        ("(assert (not (<= Y_0 1) (<= Y_1 1)))", ":3: not takes 1 operand, not 2"),
        ("(assert (<= Y_0))", ":3: <= takes at least 2 operands, not 1"),
        ("(assert (!= 0 Y_0 1))", ":3: != takes 2 operands, not 3"),
        ("(assert (<= Y_0 (or)))", ":3: or takes comparisons"),
        ("(assert (<= Y_0 (<= Y_1 0)))", ":3: a number or a variable is expected"),
        ("(assert (or (<= Y_0 1) 3))", ":3: or takes comparisons"),
        ("(assert)", ":3: assert takes one formula"),
        ("(assert (<= Y_0 1) (<= Y_1 1))", ":3: assert takes one formula"),
        ("(declare-const X_2 Int)", ":3: expected (declare-const X_0 Real)"),
        ("(declare-const input_0 Real)", ":3: variable 'input_0' is not named"),
        ("(declare-const X_3 Real)", ": X_2 is not declared"),
        ("\n(assert (<= Y_0 1)\n; and\n", ":4: the file ends inside this command: it is cut off"),
        ("(assert (<= Y_0 1)\n(assert (<= Y_1 1))", ":4: assert inside a command"),
        ("(check-sat)(assert (<= Y_0 1))", ":3: assert behind check-sat; a property asks one"),
        ("(assert (<= Y_0 1))\n)", ":4: unbalanced ); remove it"),
        ("Y_0", ":3: 'Y_0' stands outside of any command; is it really VNN-LIB?"),
        ("()", ":3: an operator or a command is expected"),
        ("(assert ((<= Y_0 1)))", ":3: an operator or a command is expected after (; remove"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(text: str, message: str) -> None:
    cause, said = refusal(BOX + text)
    assert cause is Cause.MALFORMED_PROPERTY
    assert said.startswith("prop.vnnlib" + message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n(assert (<= X_0 -1.5))",
            ":4: no input satisfies it: X_0 is to be at least -1.0 and at most -1.5; correct one",
        ),
        (
            "(assert (< X_1 0))",
            ":3: no input satisfies it: X_1 is to be at least 0.0 and below 0.0",
        ),
        ("(assert (> X_0 1))", ":3: no input satisfies it: X_0 is to be above 1.0 and at most 1.0"),
        ("(assert (or (<= X_0 -2) (>= X_0 2)))", ": no input satisfies all assertions together"),
    ],
)
def test_bounds_that_contradict_each_other_leave_no_case_and_say_so(
    text: str, message: str
) -> None:
    found = parse(BOX + text)
    assert found.cases == ()
    assert found.empty.startswith("prop.vnnlib" + message)


def test_a_disjunct_whose_box_is_empty_leaves_the_others() -> None:
    one = "(and (>= X_0 0.5) (<= X_0 0.4) (<= Y_0 1))"
    found = parse(BOX + f"(assert (or {one} (and (>= X_0 0.5) (<= Y_0 2))))")
    assert regions(found) == [([0.5, 0], [1, 2], [[[1, 0, 2, 0]]])]
    assert found.empty == ""


def test_what_smt_lib_wants_around_a_question_changes_nothing() -> None:
    text = "(set-logic QF_LRA)(set-info :status sat)" + BOX + "(check-sat)(get-model)(exit)"
    assert regions(parse(text)) == regions(parse(BOX))


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("(assert (<= X_0 1))", "X_0: it has no upper"),
        ("(assert (<= 0 X_1))", "X_1: it has no lower"),
    ],
)
def test_an_unbounded_input_is_refused_by_name(bound: str, message: str) -> None:
    cause, said = refusal(BOX.replace(bound, ""))
    assert cause is Cause.MALFORMED_PROPERTY
    assert said.startswith(f"prop.vnnlib: unbounded input {message} bound")


def test_an_empty_file_is_malformed() -> None:
    assert refusal("; nothing\n") == (
        Cause.MALFORMED_PROPERTY,
        "prop.vnnlib: X_0 is not declared; declare it, or download the whole file",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "(assert (<= (+ X_0 X_1) 1))",
            ":3: not supported: a constraint that relates X_0 and X_1; of inputs, only bounds by",
        ),
        ("\n(assert (<= X_0 Y_0))", ":4: not supported: a constraint that relates X_0 and Y_0"),
        ("(assert (<= (* Y_0 Y_1) 1))", ":3: not supported: a product of variables"),
        ("(assert (<= (/ 1 Y_1) 1))", ":3: not supported: a division by a variable"),
        ("(assert (ite (<= Y_0 1)))", ":3: not supported: operator 'ite'; only and, or, not, <="),
        ("(push 1)", ":3: not supported: command 'push'; only declare-const"),
    ],
)
def test_what_goes_beyond_boxes_and_linear_outputs_is_unsupported(text: str, message: str) -> None:
    cause, said = refusal(BOX + text)
    assert cause is Cause.UNSUPPORTED_PROPERTY
    assert said.startswith("prop.vnnlib" + message)


def test_a_blow_up_of_or_is_refused() -> None:
    cause, said = refusal(BOX + "(assert (or (<= Y_0 1) (<= Y_1 1)))\n" * 60)
    assert cause is Cause.UNSUPPORTED_PROPERTY
    assert "131,072 conjunctions" in said


def nested(depth: int) -> str:
    return "(or (<= Y_0 1) (and (<= Y_1 1) " * depth + "(<= Y_0 0)" + "))" * depth


def test_nesting_is_read_to_a_stated_depth() -> None:
    assert len(unsafe(f"(assert {nested(95)})")) == 96
    cause, said = refusal(BOX + f"(assert {nested(100_000)})")
    assert cause is Cause.UNSUPPORTED_PROPERTY
    assert said == "prop.vnnlib:3: not supported: nested deeper than 200"


@pytest.mark.slow
def test_reading_takes_as_many_steps_as_there_are_inputs() -> None:
    def steps(size: int) -> int:
        text = "(declare-const Y_0 Real)\n" + "".join(
            f"(declare-const X_{i} Real)\n(assert (<= X_{i} 1.{i}))\n(assert (>= X_{i} 0.{i}))\n"
            for i in range(size)
        )
        profile = cProfile.Profile()
        assert profile.runcall(parse, text).inputs == size
        return sum(entry.callcount for entry in profile.getstats())

    assert steps(4 * 768) < 4.2 * steps(768)


def test_what_a_file_repeats_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of boxes differ in a few of their bounds."""
    read = []

    def counted(*arguments: Any) -> Formula:
        read.append(arguments)
        return compare(*arguments)

    monkeypatch.setattr(vnnlib1, "compare", counted)
    box = "(and (<= X_0 0.75) (>= X_0 -1) (<= X_1 1) (>= X_1 {}))"
    boxes = [box.format(0.001 * number) for number in range(500)]
    assert len(parse(BOX + f"(assert (or {' '.join(boxes)}))").cases) == 500
    assert len(read) == 4 + 2 + 500


def test_a_group_that_is_read_again_means_the_same_and_is_refused_the_same() -> None:
    once = parse(BOX + "(assert (<= Y_0 1.5))")
    again = parse(BOX + "(assert (or (and (<= Y_0 1.5) (<= X_0 1)) (and (<= Y_0 1.5) (<= X_0 1))))")
    assert regions(once) == regions(again)
    deep = "(or (<= Y_0 1) (and (<= Y_1 1) " * 100 + "(<= Y_0 1)" + "))" * 100
    cause, said = refusal(BOX + f"(assert {deep})")
    assert cause is Cause.UNSUPPORTED_PROPERTY
    assert said == "prop.vnnlib:3: not supported: nested deeper than 200"
    assert refusal(BOX + "(<= Y_0 1)")[0] is Cause.UNSUPPORTED_PROPERTY


@pytest.mark.parametrize("every", [20, *rest(1)])
def test_shared_properties_parse_with_the_boxes_of_their_networks(
    every: int, vnncomp2022: Path
) -> None:
    """All of them, or the first of each category and one in so many of the others."""
    sizes = {
        "acasxu": {(5, 5)},
        "mnist_fc": {(784, 10)},
        "oval21": {(3072, 10)},
        "reach_prob_density": {(3, 3), (5, 5), (14, 14)},
        "rl_benchmarks": {(4, 2), (8, 4), (8, 8)},
        "sri_resnet_a": {(3072, 10)},
        "test": {(1, 1), (5, 5)},
    }
    for category, expected in sizes.items():
        files = sorted((vnncomp2022 / "benchmarks" / category).rglob("*.vnnlib*"))
        assert files
        found = set()
        for file in files[::every]:
            read = read_property(file)
            found.add((read.inputs, read.outputs))
            for case in read.cases:
                assert case.lower.shape == case.upper.shape == (read.inputs,)
                assert np.all(case.lower <= case.upper)
                assert case.unsafe
                assert all(region.matrix.shape[1] == read.outputs for region in case.unsafe)
        assert found == expected if every == 1 else found <= expected


def test_a_real_union_of_boxes(vnncomp2022: Path) -> None:
    read = read_property(vnncomp2022 / "benchmarks/acasxu/vnnlib/prop_6.vnnlib.gz")
    assert [case.nearest[0][1] for case in read.cases] == [0.11140846, -0.499999896]
    assert [len(case.unsafe) for case in read.cases] == [4, 4]


def test_a_file_is_read_compressed_or_not(tmp_path: Path) -> None:
    for name, content in (("p.vnnlib", BOX.encode()), ("q.vnnlib", gzip.compress(BOX.encode()))):
        (tmp_path / name).write_bytes(content)
        assert regions(read_property(tmp_path / name)) == regions(parse(BOX))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(BOX.encode(), mtime=0)[:60], "damaged gzip file"),
        (b"\x08\x07\xff\xfe", "not a text file"),
        (BOX.encode()[:-3], "prop.vnnlib:2: the file ends inside this command: it is cut off"),
        (b"; nothing\n\n", "the file is empty"),
    ],
)
def test_a_damaged_file_is_malformed(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "prop.vnnlib"
    file.write_bytes(content)
    with pytest.raises(InstanceError, match=message) as raised:
        read_property(file)
    assert raised.value.cause is Cause.MALFORMED_PROPERTY
    assert str(raised.value).startswith(f"{file}:")
