"""Only what ONNX Runtime computes on the original file is a counterexample."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from questions import anything, case, identity, question, region, save_onnx

from runner.parallel.group import Group
from runner.property.counterexample import parse_counterexample
from runner.property.model import Property
from runner.verify.attack import Target
from runner.verify.finding import Confirmation


def confirmation(
    tmp_path: Path, instance: Property, group: Group | None = None, change: float = 0.0
) -> Confirmation:
    network = save_onnx(tmp_path / "network.onnx", identity(), change)
    return Confirmation(instance, network, tmp_path / "counterexample.gz", group or Group())


def point(values: ArrayLike) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_one_that_holds_is_written_with_onnx_runtimes_own_output(tmp_path: Path) -> None:
    confirm = confirmation(tmp_path, question(case([0], [1], region([[1]], [0.5]))))
    assert confirm((point([0.25]), Target(0, 0)))
    assert (confirm.confirmed, confirm.rejected) == (True, 0)
    text = gzip.decompress((tmp_path / "counterexample.gz").read_bytes()).decode()
    inputs, outputs = parse_counterexample(text)
    assert (inputs.tolist(), outputs.tolist()) == ([0.25], [0.25])


def test_one_that_does_not_hold_is_counted_and_not_written(tmp_path: Path) -> None:
    confirm = confirmation(tmp_path, question(case([0], [1], region([[1]], [0.5]))))
    assert not confirm((point([0.75]), Target(0, 0)))
    assert (confirm.confirmed, confirm.rejected) == (False, 1)
    assert not (tmp_path / "counterexample.gz").exists()


def test_the_original_file_decides_and_not_the_network_that_was_attacked(tmp_path: Path) -> None:
    """The file says y = x + 0.01."""
    instance = question(case([0], [1], region([[1]], [0.5])))
    confirm = confirmation(tmp_path, instance, change=0.01)
    assert not confirm((point([0.495]), Target(0, 0)))
    assert confirm((point([0.485]), Target(0, 0)))


def test_output_tolerance_is_zero_and_strictness_counts(tmp_path: Path) -> None:
    half, strictly = region([[1]], [0.5]), region([[1]], [0.5], strict=True)
    confirm = confirmation(tmp_path, question(case([0], [1], half, strictly)))
    above = np.nextafter(np.float32(0.5), np.float32(1)) + np.float32(1e-6)
    assert not confirm((point([above]), Target(0, 0)))
    assert not confirm((point([0.5]), Target(0, 1)))
    assert confirm((point([0.5]), Target(0, 0)))


def test_only_the_disjunct_that_was_aimed_at_counts(tmp_path: Path) -> None:
    one, other = region([[1]], [0.1]), region([[-1]], [-0.9])
    confirm = confirmation(tmp_path, question(case([0], [1], one), case([0], [1], one, other)))
    assert not confirm((point([0.95]), Target(1, 0)))
    assert confirm((point([0.95]), Target(1, 1)))


def test_any_output_is_one_where_there_are_no_constraints(tmp_path: Path) -> None:
    confirm = confirmation(tmp_path, question(case([0], [1], anything())))
    assert confirm((point([0.5]), Target(0, 0)))


def test_other_ranks_neither_replay_nor_write_but_hear_rank_0(tmp_path: Path) -> None:
    class Other(Group):
        def decide(self, flag: bool) -> bool:
            assert not flag
            return True

    confirm = confirmation(tmp_path, question(case([0], [1], region([[1]], [0.5]))), Other(1, 2))
    (tmp_path / "network.onnx").unlink()
    assert confirm((point([0.25]), Target(0, 0)))
    assert confirm.confirmed
    assert not (tmp_path / "counterexample.gz").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_judged_by_its_value(value: float, tmp_path: Path) -> None:
    confirm = confirmation(tmp_path, question(case([0], [1], region([[1]], [0.5]))))
    assert not confirm((point([value]), Target(0, 0)))
