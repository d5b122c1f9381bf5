"""`auto`: what it chooses for a machine and a network, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_server import FakeServer, Silent, make_category
from hypothesis import given
from hypothesis import strategies as st

from runner.contract.errors import UsageError
from runner.contract.layout import Axis
from runner.record.folder import open_run
from runner.record.manifest import Command
from runner.run import auto, plan
from runner.run.auto import MOST_RANKS, WEIGHTS_SHARE, ThisMachine, choose
from runner.run.schedule import schedule
from runner.verifiers.strategies import strategy_named

GIB = 2**30
FOUR = ThisMachine(4, "cores", 4 * GIB)


@given(st.integers(1, MOST_RANKS), st.integers(0, 64 * GIB))
def test_every_choice_fits_the_ranks_and_weights_fit_if_they_can(
    ranks: int, weight_bytes: int
) -> None:
    choice = choose(ThisMachine(ranks, "cores", 4 * GIB), weight_bytes)
    strategy = choice.strategy
    assert strategy.name == "auto"
    assert strategy.ranks_of(ranks) == ranks
    spread = strategy.degree(Axis.WEIGHTS, ranks)
    assert weight_bytes / spread <= WEIGHTS_SHARE * 4 * GIB or spread == ranks
    assert choice == choose(ThisMachine(ranks, "cores", 4 * GIB), weight_bytes)


@pytest.mark.parametrize(
    ("machine", "weight_bytes", "chosen"),
    [
        (ThisMachine(1, "cores", GIB), 1, "baseline"),
        (FOUR, 1, "dp"),
        (FOUR, GIB + 1, "fsdp=2+dp=2"),
        (FOUR, 3 * GIB, "fsdp"),
        (ThisMachine(3, "GPUs", 4 * GIB), GIB + 1, "fsdp"),
    ],
)
def test_the_choice_is_a_strategy_that_can_be_named(
    machine: ThisMachine, weight_bytes: int, chosen: str
) -> None:
    choice = choose(machine, weight_bytes)
    named = strategy_named(chosen)
    assert choice.why.startswith(f"auto chose {chosen}: ")
    assert (choice.strategy.sharded, choice.strategy.layout) == (named.sharded, named.layout)


def test_outcomes_are_of_auto_and_tell_what_it_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (auto, plan):
        monkeypatch.setattr(module, "this_machine", lambda device: FOUR)
    command = Command((str(make_category(tmp_path / "digits", 2)),), ("baseline", "auto"), 2)
    tasks, observer, server = plan.plan(command), Silent(), FakeServer()
    with open_run(tmp_path / "r", command, len(tasks)) as folder:
        schedule(tasks, command, folder, server, observer)
        schedule(tasks, command, folder, server, observer)  # nothing is left to do
    found = [(o.strategy, o.ranks, o.message.partition(":")[0]) for o in observer.outcomes]
    assert found == [("baseline", 1, ""), ("auto", 4, "auto chose dp")] * 2


def test_auto_is_refused_where_there_is_no_one_network_to_choose_for() -> None:
    with pytest.raises(UsageError, match="name a strategy here"):
        strategy_named("auto")
