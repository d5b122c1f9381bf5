"""VNN-LIB 2.0, and the law that both versions mean what the and/or tree of a file says."""

from __future__ import annotations

import itertools
import operator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause
from runner.problem.property import vnnlib1, vnnlib2
from runner.problem.property.model import Case, Property
from runner.problem.property.numbers import Limit
from runner.problem.property.read_property import read_property

# Ends on line 5, so that what a test appends starts on line 6.
HEAD = """(vnnlib-version <2.0>)
(declare-network f
  (declare-input X float32 [1,2])
  (declare-output Y float32 [2]))
(assert (and (<= X[0,0] 1.0) (>= X[0,0] -1.0) (<= 0.0 X[0,1]) (>= 2.0 X[0,1])))
"""


def parse(text: str) -> Property:
    return vnnlib2.parse(text, "prop.vnnlib")


def unsafe(assertions: str) -> list[list[list[float]]]:
    """Per disjunct, its rows [coefficients…, bound, strict], beside the box of `HEAD`."""
    (case,) = parse(HEAD + assertions).cases
    assert (case.lower.tolist(), case.upper.tolist()) == ([-1.0, 0.0], [1.0, 2.0])
    return [
        np.column_stack([region.matrix, region.rhs, region.strict]).tolist()
        for region in case.unsafe
    ]


def refusal(text: str) -> tuple[Cause, str]:
    with pytest.raises(InstanceError) as raised:
        parse(text)
    return raised.value.cause, str(raised.value)


@pytest.mark.parametrize(
    ("assertion", "rows"),
    [
        ("(<= Y[0] 3.0)", [[[1, 0, 3, 0]]]),
        ("(< 3.0 Y[0])", [[[-1, 0, -3, 1]]]),
        ("(>= Y[0] Y[1])", [[[-1, 1, 0, 0]]]),
        ("(== Y[0] 1.0)", [[[1, 0, 1, 0], [-1, 0, -1, 0]]]),
        ("(!= Y[0] 1.0)", [[[1, 0, 1, 1]], [[-1, 0, -1, 1]]]),
        ("(<= (+ Y[0] (* 2.0 Y[1]) (- Y[0] 4.0 Y[1]) (- Y[1])) 3.0)", [[[2, 0, 7, 0]]]),
        ("(or (<= Y[0] 1.0) (and (<= Y[1] 2.0)))", [[[1, 0, 1, 0]], [[0, 1, 2, 0]]]),
    ],
)
def test_assertions_over_outputs_are_rows(assertion: str, rows: list[list[list[float]]]) -> None:
    assert unsafe(f"(assert {assertion})") == rows


def test_two_or_assertions_multiply() -> None:
    both = "(assert (or (<= Y[0] 1.0) (<= Y[0] 2.0)))(assert (or (<= Y[1] 3.0) (<= Y[1] 4.0)))"
    assert [[row[2] for row in rows] for rows in unsafe(both)] == [[1, 3], [1, 4], [2, 3], [2, 4]]


@pytest.mark.parametrize(
    "number",
    [
        "1e-3",
        "1.5E+5",
        "-2.5e-7",
        "2.3e-308",
        "-1.7976931348623157e308",
        "0.12345678901234567890e-9",
    ],
)
def test_exponents_lose_no_digit(number: str) -> None:
    (case,) = parse(HEAD + f"; not 1e999\n(assert (<= Y[0] {number}))").cases
    assert case.unsafe[0].bounds == (Fraction(number),)


def test_tensors_are_flat_in_row_major_order() -> None:
    text = "(vnnlib-version <2.0>)(declare-network f (declare-input X real [2,2,3])"
    text += "(declare-output Y real [2,3]))(assert (<= Y[1,0] Y[0,2]))"
    for flat, (i, j, k) in enumerate(itertools.product(range(2), range(2), range(3))):
        text += f"(assert (and (>= X[{i},{j},{k}] {flat}.0) (<= X[{i},{j},{k}] {flat}.5)))"
    read = parse(text)
    assert (read.inputs, read.outputs) == (12, 6)
    assert read.cases[0].lower.tolist() == list(range(12))
    assert read.cases[0].unsafe[0].matrix.tolist() == [[0, 0, -1, 1, 0, 0]]


def test_a_scalar_has_no_index() -> None:
    text = HEAD.replace("[1,2]", "[]").replace("X[0,0]", "X").replace("X[0,1]", "X")
    assert parse(text).cases[0].upper.tolist() == [1.0]
    assert (
        "unbounded input X: "
        in refusal(text.replace("(<= X 1.0)", "").replace("(>= 2.0 X)", ""))[1]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(assert (<= X[0,2] 1.0))", ":6: Index out of bounds for variable: X[0,2]. "),
        ("(assert (<= X[0] 1.0))", ":6: Not enough indices for variable: X[0]. "),
        ("(assert (<= Z[0] 1.0))", ":6: Undeclared variable: Z. "),
        ("(assert (<= Y[0] 1))", ":6: Type mismatch in arithmetic expression: 1. Only a real "
         "number fits here: write 1.0"),
        ("(assert (<= Y[0] 1e999))", ":6: 1e999 is too large for float64"),
        ("\n(assert (<= Y[0] 1e-9999))", ":7: 1e-9999 is too close to 0"),
        ("(assert (<= Y[0] nan))", ":6: Undeclared variable: nan. "),
        ("(assert (not (<= Y[0] 1.0)))", ":6: 'not' (column 9) is not expected here"),
        ("\n(assert (<= Y[0]\n", ":7: the file ends inside this command: it is cut off"),
        ("(assert (<= Y[99999999999999999999] 1.0))", ":6: 99999999999999999999 is outside"),
        ("\n(assert (<= Y[0] 5e-324))", ":7: 5e-324 is outside"),
        ("\0(assert (<= Y[0] 1.0))", ": not a text file"),
    ],
)  # fmt: skip
def test_a_malformed_query_is_refused(text: str, message: str) -> None:
    cause, said = refusal(HEAD + text)
    assert cause is Cause.MALFORMED_PROPERTY
    assert said.startswith("prop.vnnlib" + message)


def test_bounds_that_contradict_each_other_are_named_by_their_index() -> None:
    found = parse(HEAD + "\n(assert (>= X[0,1] 3.0))")
    assert found.cases == ()
    assert found.empty.startswith("prop.vnnlib:7: no input satisfies it: X[0,1] is to be at least ")


def test_shapes_are_what_the_file_declares() -> None:
    found = parse(HEAD)
    assert (found.input_shape, found.output_shape) == ((1, 2), (2,))


def test_an_unbounded_input_is_named_by_its_index() -> None:
    cause, said = refusal(HEAD.replace("(>= 2.0 X[0,1])", ""))
    assert cause is Cause.MALFORMED_PROPERTY
    assert said == "prop.vnnlib: unbounded input X[0,1]: it has no upper bound; assert one"


SECOND = "(declare-network g (declare-input A real [1]) (declare-output B real [1]))"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD.replace("[2]))", "[2]))" + SECOND), "2 networks (f, g)"),
        (HEAD.replace("Y float32", "Y int8"), ":4: not supported: output Y of type int8; only"),
        (HEAD.replace("X float32", "X Real"), ":3: not supported: input X of type Real; only real"),
        (
            HEAD.replace("(declare-output", '(declare-hidden H real [1] "relu")(declare-output'),
            "hidden variable H",
        ),
        (HEAD + "(assert (<= (* Y[0] Y[1]) 1.0))", "a product of variables"),
        (HEAD + "(assert (<= X[0,0] Y[0]))", ":6: not supported: a constraint that relates X[0,0]"),
        (HEAD.replace("[2]", "[100000,10000]") + "(assert (<= Y[0,0] 1.0))", "coefficients"),
        (HEAD + "(assert " + "(and " * 100_000 + "(<= Y[0] 1.0)" + ")" * 100_001, "nested deeper"),
    ],
)  # fmt: skip
def test_what_goes_beyond_one_real_network_is_unsupported(text: str, message: str) -> None:
    cause, said = refusal(text)
    assert cause is Cause.UNSUPPORTED_PROPERTY
    assert said.startswith("prop.vnnlib:")
    assert message in said


V1 = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= 0 X_0))(assert (<= X_0 1))\n"


@pytest.mark.parametrize(
    ("name", "text", "inputs"),
    [
        ("1.0/p.vnnlib", HEAD, 2),
        ("2.0/p.vnnlib", V1, 1),
        ("2.0/q.vnnlib", "; not (vnnlib-version <2.0>)\n" + V1, 1),
        ("1.0/q.vnnlib", "; a comment\n  (vnnlib-version <2.0> )" + HEAD.partition("\n")[2], 2),
        ("1.0/r.vnnlib", "(vnnlib-version <1.0>)\n" + V1, 1),
        ("1.0/s.vnnlib", "\ufeff" + V1, 1),
        ("2.0/s.vnnlib", "\ufeff" + HEAD, 2),
    ],
)
def test_the_version_line_chooses_the_parser_and_not_the_folder(
    tmp_path: Path, name: str, text: str, inputs: int
) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(text)
    assert read_property(tmp_path / name).inputs == inputs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "; a comment\n(vnnlib-version <2.0>)\n\n" + V1,
            ":2: the version line says VNN-LIB 2.0, but line 4 (declare-const) is VNN-LIB 1.0; "
            "correct it to (vnnlib-version <1.0>)",
        ),
        (
            HEAD.replace("<2.0>", "<1.0>"),
            ":1: the version line says VNN-LIB 1.0, but line 2 (declare-network) is VNN-LIB 2.0; "
            "correct it to (vnnlib-version <2.0>)",
        ),
        (
            HEAD.replace("(vnnlib-version <2.0>)", "; (vnnlib-version <2.0>)"),
            ":2: declare-network is VNN-LIB 2.0, but no line says so; begin the file with "
            "(vnnlib-version <2.0>)",
        ),
    ],
)
def test_a_version_line_above_a_body_of_the_other_version_is_named(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "p.vnnlib"
    path.write_text(text)
    with pytest.raises(InstanceError) as raised:
        read_property(path)
    assert raised.value.cause is Cause.MALFORMED_PROPERTY
    assert str(raised.value) == f"{path}{message}"


def test_an_unknown_version_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "p.vnnlib").write_text(HEAD.replace("<2.0>", "<3.0>"))
    with pytest.raises(InstanceError, match=r"p\.vnnlib:1: VNN-LIB 3 is not supported") as raised:
        read_property(tmp_path / "p.vnnlib")
    assert raised.value.cause is Cause.UNSUPPORTED_PROPERTY


# A tree is ("and" | "or", parts…) or (relation, linear form, linear form); a linear form is a list
# of (coefficient, variable or None). All numbers are multiples of 1/4, so that sums are exact.
RELATIONS = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
INPUTS, OUTPUTS = ("X_0", "X_1", "X_2", "X_3"), ("Y_0", "Y_1", "Y_2")
# Coefficients with their variables, None for the constant.
Form = tuple[tuple[float, str | None], ...]
# A relation and its two forms, or `and` or `or` and its trees.
Tree = tuple[Any, ...]
quarters = st.integers(-12, 12).map(lambda n: n / 4)
relations = st.sampled_from(sorted(RELATIONS))


def forms(variables: tuple[str, ...]) -> st.SearchStrategy[Form]:
    term = st.tuples(quarters, st.sampled_from((*variables, None)))
    return st.lists(term, min_size=1, max_size=4).map(tuple)


input_terms = st.tuples(st.sampled_from((1.0, -1.0, 2.0, -0.5)), st.sampled_from(INPUTS))
constants = st.tuples(quarters, st.none())
input_sides = st.tuples(input_terms.map(lambda term: (term,)), constants.map(lambda term: (term,)))
input_bounds = st.builds(
    lambda relation, sides, swapped: (relation, *(sides[::-1] if swapped else sides)),
    st.sampled_from(sorted(RELATIONS.keys() - {"=="})),
    input_sides,
    st.booleans(),
)
output_rows = st.tuples(relations, forms(OUTPUTS), forms(OUTPUTS))
trees = st.recursive(
    input_bounds | output_rows,
    lambda inner: st.builds(
        lambda name, parts: (name, *parts),
        st.sampled_from(("and", "or")),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=10,
)
points = st.tuples(
    st.lists(quarters, min_size=4, max_size=4), st.lists(quarters, min_size=3, max_size=3)
)
BOUNDS = [(">=" if low else "<=", ((1.0, x),), ((-2.0 if low else 2.0, None),))
          for x in INPUTS for low in (True, False)]  # fmt: skip


def value(form: Form, point: dict[str, float]) -> float:
    return sum((c * (1.0 if v is None else point[v]) for c, v in form), 0.0)


def holds(tree: Tree, point: dict[str, float]) -> bool:
    name, *parts = tree
    if name in RELATIONS:
        return bool(RELATIONS[name](value(parts[0], point), value(parts[1], point)))
    return (all if name == "and" else any)(holds(part, point) for part in parts)


def spelled(tree: Tree, names: dict[str, str]) -> str:
    def form(terms: Form) -> str:
        words = [str(c) if v is None else f"(* {c} {names[v]})" for c, v in terms]
        return words[0] if len(words) == 1 else f"(+ {' '.join(words)})"

    name, *parts = tree
    say = form if name in RELATIONS else lambda part: spelled(part, names)
    return f"({name} {' '.join(say(part) for part in parts)})"


def both_versions(assertions: list[Tree]) -> tuple[str, str]:
    first = "".join(f"(declare-const {name} Real)\n" for name in INPUTS + OUTPUTS)
    second = "(vnnlib-version <2.0>)(declare-network f (declare-input X real [2,2])"
    second += "(declare-output Y real [1,3]))"
    names = {f"X_{i}": f"X[{i // 2},{i % 2}]" for i in range(4)}
    names |= {f"Y_{i}": f"Y[0,{i}]" for i in range(3)}
    for tree in assertions:
        first += f"(assert {spelled(tree, {name: name for name in names})})\n"
        second += f"(assert {spelled(tree, names)})\n"
    return first, second


def contains(cases: tuple[Case, ...], inputs: list[float], outputs: list[float]) -> bool:
    points = [Limit.of(Fraction(value)) for value in inputs]
    return any(
        all(
            case.limits_of(index).lower <= point <= case.limits_of(index).upper
            for index, point in enumerate(points)
        )
        and any(region.holds(np.array(outputs)) for region in case.unsafe)
        for case in cases
    )


def plain(read: Property) -> object:
    cases = []
    for case in read.cases:
        rows = [(r.matrix.tolist(), r.rhs.tolist(), r.strict.tolist()) for r in case.unsafe]
        cases.append((case.limits, rows))
    return read.inputs, read.outputs, cases


@examples(300)
@given(
    assertions=st.lists(trees, max_size=3),
    samples=st.lists(points, min_size=20, max_size=20),
    order=st.randoms(),
)
def test_both_versions_mean_what_the_tree_says(assertions, samples, order) -> None:  # type: ignore[no-untyped-def]
    whole = BOUNDS + assertions
    order.shuffle(whole)
    first, second = both_versions(whole)
    read, read_again = vnnlib1.parse(first, "p"), vnnlib2.parse(second, "p")
    assert plain(read) == plain(read_again)
    assert bool(read.empty) == (not read.cases)
    for inputs, outputs in samples:
        point = dict(zip(INPUTS + OUTPUTS, inputs + outputs, strict=True))
        assert contains(read.cases, inputs, outputs) == all(holds(tree, point) for tree in whole)
