"""One instance through attack, bounds and attack: what is said, why, and by what."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from given import given
from questions import DriverStub, anything, bounded, case, identity, question, region, save_onnx
from small_networks import CPU, SmallNetwork, mlp

from runner.contract.vocabulary import BOUNDS, Cause, Method, Verdict
from runner.contract.workload import Workload
from runner.engine import verification
from runner.engine.clock import Deadline, DeadlineReached
from runner.engine.finding import Confirmation, Finding
from runner.engine.layout.group import Group
from runner.engine.measure.probe import Probe
from runner.engine.search import input_split
from runner.engine.search.search import Progress
from runner.engine.verification import Verification
from runner.problem.property.model import Property

Verify = Callable[..., Finding]


class Expiring(Deadline):
    """Reached when `over` says so, for it to happen at a chosen point."""

    def __init__(self, over: Callable[[], bool]) -> None:
        super().__init__(Group(), 1e6)
        self._is_over = over

    def check(self) -> None:
        if self._is_over():
            raise DeadlineReached


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    def verify(
        network: SmallNetwork,
        instance: Property,
        method: Method = Method.ALPHA_CROWN,
        deadline: Deadline | None = None,
        change: float = 0.0,
        engine: DriverStub | None = None,
        workload: Workload | None = None,
    ) -> Finding:
        path = save_onnx(tmp_path / "network.onnx", network, change)
        group = Group()
        confirmation = Confirmation(instance, path, tmp_path / "counterexample.gz", group)
        chosen = deadline or Deadline(group, 60)
        with Probe(CPU) as probe:
            used = engine or DriverStub(network)
            return Verification(
                used, instance, method, 0, CPU, chosen, confirmation, probe, Progress(), workload
            ).run()

    return verify


def hard() -> tuple[SmallNetwork, Property]:
    """Neither attack nor bounds decide it."""
    network = mlp(4, 16, 16, 16, 1)
    return network, question(case([-1.5] * 4, [1.5] * 4, region([[1]], [-2.5])))


def test_sat_by_the_attack(verify: Verify, tmp_path: Path) -> None:
    found = verify(identity(), question(case([0], [1], region([[1]], [0.5]))))
    assert found == Finding(Verdict.SAT, Cause.NONE, "attack")
    assert (tmp_path / "counterexample.gz").exists()


def test_unsat_by_the_cheapest_method_that_proves_it(verify: Verify, tmp_path: Path) -> None:
    found = verify(identity(), question(case([0], [1], region([[1]], [-0.5]))))
    assert (found.verdict, found.cause, found.method) == (Verdict.UNSAT, Cause.NONE, "ibp")
    assert found.lower_bound == pytest.approx(0.5, abs=1e-4)
    assert not (tmp_path / "counterexample.gz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", BOUNDS)
def test_unknown_is_the_end_of_the_ladder(verify: Verify, method: Method) -> None:
    found = verify(*hard(), method=method)
    assert (found.verdict, found.cause) == (Verdict.UNKNOWN, Cause.INCOMPLETE)
    assert found.method == method
    assert found.lower_bound is not None
    assert found.lower_bound < 0


def test_everything_unsafe_is_sat_and_nothing_unsafe_is_unsat(verify: Verify) -> None:
    assert verify(identity(), question(case([0], [1], anything()))).verdict is Verdict.SAT
    assert verify(identity(), question(case([0], [1]))).verdict is Verdict.UNSAT


def test_what_no_input_satisfies_is_unsat_and_says_why(verify: Verify) -> None:
    found = verify(identity(), Property(1, 1, (), empty="no input"))
    assert (found.verdict, found.cause, found.message) == (Verdict.UNSAT, Cause.NONE, "no input")


def test_a_case_among_many_is_enough_for_sat_and_all_are_needed_for_unsat(verify: Verify) -> None:
    low = region([[1]], [0.5])
    safe = [case([n], [n + 0.5], low) for n in range(1, 4)]
    assert verify(identity(), question(*safe)).verdict is Verdict.UNSAT
    assert verify(identity(), question(*safe, case([0], [1], low))).verdict is Verdict.SAT


def test_equality_under_a_strict_constraint_is_not_sat(verify: Verify) -> None:
    strict = verify(identity(), question(case([1], [2], region([[1]], [1], strict=True))))
    assert strict.verdict is not Verdict.SAT
    loose = verify(identity(), question(case([1], [2], region([[1]], [1]))))
    assert loose.verdict is Verdict.SAT


def test_a_candidate_that_onnx_runtime_rejects_is_told_of(verify: Verify) -> None:
    """The file says y = x + 0.01: what the attacked network reaches is none of it."""
    instance = question(case([0.495], [1], region([[1]], [0.5])))
    found = verify(identity(), instance, change=0.01)
    assert (found.verdict, found.cause) == (Verdict.UNKNOWN, Cause.WITHIN_ROUNDING)
    assert "ONNX Runtime differs from exact arithmetic by up to 0.01" in found.message
    assert "ONNX Runtime rejected" in found.message


def test_the_deadline_inside_alpha_leaves_what_crown_proved(verify: Verify) -> None:
    network, instance = hard()
    crown = verify(network, instance, Method.CROWN)
    engine = DriverStub(network)
    checks = itertools.count()

    def over() -> bool:
        climbed = engine.bounded is not None and engine.bounded.method is Method.ALPHA_CROWN
        return climbed and next(checks) == 5

    found = verify(network, instance, deadline=Expiring(over), engine=engine)
    assert (found.verdict, found.cause) == (Verdict.TIMEOUT, Cause.DEADLINE)
    assert (found.method, found.lower_bound) == ("alpha-crown", crown.lower_bound)


def test_a_deadline_that_is_over_at_once_leaves_what_ibp_says(verify: Verify) -> None:
    found = verify(*hard(), deadline=Deadline(Group(), 0.0))
    assert (found.verdict, found.cause) == (Verdict.TIMEOUT, Cause.DEADLINE)
    assert found.lower_bound == verify(*hard(), Method.IBP).lower_bound


def test_a_deadline_is_kept_in_any_phase(verify: Verify) -> None:
    network = mlp(20, 200, 200, 200, 1)
    instance = question(case([-1] * 20, [1] * 20, region([[1]], [-40])))
    start = time.perf_counter()
    found = verify(network, instance, deadline=Deadline(Group(), 0.5))
    assert found.verdict is Verdict.TIMEOUT
    assert time.perf_counter() - start < 3


def test_phases_are_measured_apart(tmp_path: Path) -> None:
    network, instance = hard()
    path = save_onnx(tmp_path / "network.onnx", network)
    confirmation = Confirmation(instance, path, tmp_path / "counterexample.gz", Group())
    with Probe(CPU) as probe:
        deadline = Deadline(Group(), 60)
        engine = DriverStub(network)
        Verification(
            engine, instance, Method.CROWN, 0, CPU, deadline, confirmation, probe, Progress()
        ).run()
        measured = probe.measurements()
    assert given(measured.attack_s) > 0
    assert given(measured.incomplete_s) > 0


@pytest.mark.slow
def test_complete_decides_what_bounds_leave_open(verify: Verify, tmp_path: Path) -> None:
    """By halving boxes where few inputs vary, else by splitting ReLUs."""
    few = verify(*hard(), method=Method.COMPLETE)
    assert (few.verdict, few.cause, few.method) == (Verdict.UNSAT, Cause.NONE, "input-split")
    assert few.lower_bound is not None
    assert few.lower_bound > 0
    many = mlp(24, 12, 12, 1)
    least = bounded(many, far_from(many, 0), Method.ALPHA_CROWN).lower_bound
    found = verify(many, far_from(many, 0.02 - least), method=Method.COMPLETE)
    assert (found.verdict, found.method) == (Verdict.UNSAT, "alpha-crown")
    found = verify(many, far_from(many, -0.02 - least), method=Method.COMPLETE)
    assert (found.verdict, found.method) == (Verdict.UNSAT, "beta-crown")


def far_from(network: SmallNetwork, distance: float) -> Property:
    """y <= -distance is unsafe."""
    inputs = network.graph.input.size
    return question(case([-1.0] * inputs, [1.0] * inputs, region([[1]], [-distance])))


def test_the_deadline_inside_a_search_is_a_timeout_with_the_bound_so_far(
    verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_split, "MOST_CUTS", 1)  # in more rounds
    network, instance = hard()
    crown = verify(network, instance, Method.CROWN)
    engine = DriverStub(network)
    checks = itertools.count()

    def over() -> bool:
        climbed = engine.bounded is not None and engine.bounded.method is Method.CROWN
        return climbed and next(checks) == 14

    deadline = Expiring(over)
    found = verify(network, instance, Method.COMPLETE, deadline=deadline, engine=engine)
    assert (found.verdict, found.cause) == (Verdict.TIMEOUT, Cause.DEADLINE)
    assert found.method == "input-split"
    assert found.lower_bound is not None
    assert crown.lower_bound is not None
    assert found.lower_bound > crown.lower_bound


@pytest.mark.parametrize(("inputs", "method"), [(4, "input-split"), (24, "beta-crown")])
def test_a_fixed_workload_is_not_cut_short_by_a_counterexample(
    verify: Verify, tmp_path: Path, inputs: int, method: str
) -> None:
    network = mlp(inputs, 12, 12, 1)
    unsafe = far_from(network, -1e3)
    assert verify(network, unsafe, Method.COMPLETE).verdict is Verdict.SAT
    (tmp_path / "counterexample.gz").unlink()
    found = verify(network, unsafe, Method.COMPLETE, workload=Workload(2, 4))
    assert (found.verdict, found.cause) == (Verdict.UNKNOWN, Cause.FIXED_WORKLOAD)
    assert found.method == method
    assert not (tmp_path / "counterexample.gz").exists()


def test_a_fixed_workload_searches_what_bounds_would_have_closed(verify: Verify) -> None:
    network = mlp(24, 12, 12, 1)
    proved = far_from(network, 1e3)
    assert verify(network, proved, Method.COMPLETE).method == "ibp"
    found = verify(network, proved, Method.COMPLETE, workload=Workload(2, 4))
    assert (found.verdict, found.cause) == (Verdict.UNKNOWN, Cause.FIXED_WORKLOAD)
    assert found.method == "beta-crown"


def test_a_margin_that_onnx_runtime_may_overturn_is_unknown_with_both_figures(
    verify: Verify,
) -> None:
    """The file says y = x + 1e-3, which is what it differs by, and the margin is 3e-3."""
    instance = question(case([0.5], [1], region([[1]], [0.497])))
    assert verify(identity(), instance).verdict is Verdict.UNSAT
    found = verify(identity(), instance, change=1e-3)
    assert (found.verdict, found.cause) == (Verdict.UNKNOWN, Cause.WITHIN_ROUNDING)
    assert "0.003" in found.message
    assert "0.001" in found.message
    clear = question(case([0.5], [1], region([[1]], [0.49])))
    assert verify(identity(), clear, change=1e-3).verdict is Verdict.UNSAT


def test_what_is_undecided_says_how_far_it_came(verify: Verify) -> None:
    found = verify(*hard(), Method.CROWN)
    assert found.verdict is Verdict.UNKNOWN
    assert "came to: last attack" in found.message
    assert "least margin" in found.message


@pytest.mark.parametrize("place", [1, 700])
def test_of_thousands_of_targets_one_that_is_not_attacked_at_first_is_found(
    verify: Verify, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(verification, "FIRST_TARGETS", 10)
    cases = [case([0.0], [1.0], region([[1.0]], [-1.0])) for _ in range(1000)]
    cases[place] = case([0.0], [1.0], region([[-1.0]], [-0.5]))
    finding = verify(identity(), question(*cases), Method.COMPLETE)
    assert finding.verdict is Verdict.SAT
    cases[place] = case([0.0], [1.0], region([[-1.0]], [-1.5]))
    assert verify(identity(), question(*cases), Method.COMPLETE).verdict is Verdict.UNSAT
