"""Only what ONNX Runtime computes on the original file is a counterexample."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import ArrayLike
from onnx import TensorProto, helper
from questions import anything, case, identity, question, region, save_onnx

from runner.engine.finding import Confirmation
from runner.engine.layout.group import Group
from runner.engine.targets import Target
from runner.problem.property import vnnlib1
from runner.problem.property.counterexample import parse_counterexample
from runner.problem.property.model import Property


def confirmation(
    tmp_path: Path, instance: Property, group: Group | None = None, change: float = 0.0
) -> Confirmation:
    network = save_onnx(tmp_path / "network.onnx", identity(), change)
    return Confirmation(instance, network, tmp_path / "counterexample.gz", group or Group())


def point(values: ArrayLike) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def boxed(lower: str, upper: str) -> Property:
    """Every output of a box of one input is unsafe; its limits are decimals."""
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)"
    return vnnlib1.parse(text + f"(assert (>= X_0 {lower}))(assert (<= X_0 {upper}))", "p")


def scaled(path: Path, dtype: int, factor: float) -> Path:
    """y = factor x in a float type of ONNX."""
    x, y = (helper.make_tensor_value_info(name, dtype, [1, 1]) for name in "xy")
    constant = helper.make_tensor("factor", dtype, [], [factor])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "scaled", [x], [y], [constant]
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def written(folder: Path) -> tuple[list[float], list[float]]:
    text = gzip.decompress((folder / "counterexample.gz").read_bytes()).decode()
    inputs, outputs = parse_counterexample(text)
    return inputs.tolist(), outputs.tolist()


def test_one_that_holds_is_written_with_onnx_runtimes_own_output(tmp_path: Path) -> None:
    confirm = confirmation(tmp_path, question(case([0], [1], region([[1]], [0.5]))))
    assert confirm((point([0.25]), Target(0, 0)))
    assert (confirm.confirmed, confirm.rejected) == (True, 0)
    assert written(tmp_path) == ([0.25], [0.25])


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
def test_a_point_that_is_not_finite_is_none(value: float, tmp_path: Path) -> None:
    confirm = confirmation(tmp_path, question(case([0], [1], anything())))
    assert not confirm((point([value]), Target(0, 0)))
    assert confirm.outside == ""


def test_an_output_that_is_not_finite_is_none(tmp_path: Path) -> None:
    """Of x = 3e38, y = 2 x is infinite in float32, and each constraint would hold."""
    network = scaled(tmp_path / "network.onnx", TensorProto.FLOAT, 2.0)
    for unsafe in (region([[-1]], [-1e38]), anything()):
        instance = question(case([0], [3.1e38], unsafe))
        confirm = Confirmation(instance, network, tmp_path / "counterexample.gz", Group())
        assert not confirm((point([3e38]), Target(0, 0)))
        assert confirm((point([1.2e38]), Target(0, 0)))


def test_a_float64_network_gets_float64_values(tmp_path: Path) -> None:
    """y = x, and the box lies between two float32 values."""
    network = scaled(tmp_path / "network.onnx", TensorProto.DOUBLE, 1.0)
    instance = boxed("1700000010.1", "1700000010.2")
    confirm = Confirmation(instance, network, tmp_path / "counterexample.gz", Group())
    assert not confirm((point([1700000010.15]), Target(0, 0)))
    assert confirm.outside == ""
    assert confirm((np.array([1700000010.15]), Target(0, 0)))
    assert written(tmp_path) == ([1700000010.15], [1700000010.15])


def test_a_float32_network_gets_float32_values_and_they_are_what_is_printed(tmp_path: Path) -> None:
    confirm = confirmation(tmp_path, boxed("0.7", "0.8"))
    assert confirm((np.array([0.75 + 1e-12]), Target(0, 0)))
    assert written(tmp_path) == ([0.75], [0.75])


@pytest.mark.parametrize(
    ("lower", "upper", "value", "confirmed"),
    [
        ("0.7", "0.7", 0.7, True),  # no float32 value; its neighbours are near enough
        ("0.5", "1", 0.49995, True),
        ("0.5", "1", 0.49985, False),
        ("1000.00002", "1000.00004", 1000.0, True),
        ("16777217", "16777217", 16777216.0, False),
        ("101325.003", "101325.0031", 101325.0, False),
    ],
)
def test_a_point_may_lie_outside_by_the_tolerance_and_no_more(
    tmp_path: Path, lower: str, upper: str, value: float, confirmed: bool
) -> None:
    network = scaled(tmp_path / "network.onnx", TensorProto.FLOAT, 1.0)
    confirm = Confirmation(boxed(lower, upper), network, tmp_path / "counterexample.gz", Group())
    assert confirm((point([value]), Target(0, 0))) is confirmed
    assert (tmp_path / "counterexample.gz").exists() is confirmed


def test_a_point_that_rounding_alone_lets_in_is_told_and_not_confirmed(tmp_path: Path) -> None:
    network = scaled(tmp_path / "network.onnx", TensorProto.FLOAT, 1.0)
    instance = boxed("101325.003", "101325.0031")
    confirm = Confirmation(instance, network, tmp_path / "counterexample.gz", Group())
    assert not confirm((point([101324.0]), Target(0, 0)))
    assert confirm.outside == ""
    assert not confirm.alone((point([101325.0]), Target(0, 0)))
    assert (confirm.confirmed, confirm.rejected) == (False, 2)
    assert confirm.outside == confirm.share_outside()
    assert confirm.outside == (
        "X_0 = 101325.0 lies 0.003 outside its limits 101325.003 and 101325.0031, "
        "and in the box only as float32 rounds"
    )


def test_all_ranks_hear_of_such_a_point_from_the_one_that_has_it(tmp_path: Path) -> None:
    class Third(Group):
        """Rank 0 has nothing to tell, rank 1 has."""

        def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
            told = torch.zeros_like(tensor)
            told[:3] = torch.tensor(list(b"far"), dtype=torch.uint8)
            return torch.stack([torch.zeros_like(tensor), told, tensor])

    confirm = confirmation(tmp_path, boxed("0", "1"), Third(2, 3))
    confirm.outside = "of this rank"
    assert confirm.share_outside() == confirm.outside == "far"


def test_outputs_are_compared_exactly(tmp_path: Path) -> None:
    """The float64 called 0.1 is greater than a tenth."""
    network = scaled(tmp_path / "network.onnx", TensorProto.DOUBLE, 1.0)
    below_a_tenth = vnnlib1.parse(
        "(declare-const X_0 Real)(declare-const Y_0 Real)"
        "(assert (>= X_0 0))(assert (<= X_0 1))(assert (<= Y_0 0.1))",
        "p",
    )
    confirm = Confirmation(below_a_tenth, network, tmp_path / "counterexample.gz", Group())
    assert not confirm((np.array([0.1]), Target(0, 0)))
    assert confirm((np.nextafter([0.1], 0), Target(0, 0)))
