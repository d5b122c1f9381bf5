"""`list --load`: which networks can be read, which properties fit them, and why not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from fake_server import FakeServer
from onnx import TensorProto, helper, numpy_helper
from onnx import save as save_model
from typer.testing import CliRunner

from runner.cli.app import app
from runner.contract.vocabulary import Cause
from runner.execute.executor import Ending, Gang, GangResult
from runner.problem.instances import Instance
from runner.run.loading import load_rows

KILLED = GangResult(Ending.KILLED_AT_DEADLINE, 30.0, (None,))


class Server(FakeServer):
    """A stand-in: properties called `endless` are never done, and take those beside them along."""

    def _answer(self, gang: Gang) -> GangResult:
        payload = gang.payload
        self.prepared.append(gang.target.rpartition(":")[2])
        properties = payload.get("properties", ())
        if any("endless" in name for name in (payload["network"], *properties)):
            return KILLED
        told = {"inputs": 2, "outputs": 1, "properties": [{"difference": 0.0}] * len(properties)}
        return GangResult(Ending.FINISHED, 0.5, (told,))


def rows(folder: Path, *names: tuple[str, str]) -> list[Instance]:
    made = []
    for line, (network, prop) in enumerate(names, start=1):
        paths = folder / network, folder / prop
        made.append(Instance("c", *paths, 1.0, network, prop, folder / "instances.csv", line))
    return made


def test_a_property_that_hangs_costs_its_own_row(tmp_path: Path) -> None:
    asked = rows(tmp_path, ("net", "good"), ("net", "endless"), ("net", "fine"))
    server = Server()
    loaded = list(load_rows(asked, server, tmp_path, lambda name: None))
    assert [row.cause for row in loaded] == ["", Cause.KILLED_AT_DEADLINE, ""]
    assert f"{tmp_path / 'endless'}: " in loaded[1].message
    assert server.prepared == ["prepare_target", *4 * ["fit_target"]]


def test_a_network_that_hangs_costs_its_own_rows_once(tmp_path: Path) -> None:
    asked = rows(tmp_path, ("endless", "a"), ("net", "a"), ("endless", "b"))
    server = Server()
    begun: list[str] = []
    loaded = list(load_rows(asked, server, tmp_path, begun.append))
    assert begun == ["c endless", "c net"]
    causes = {(row.network, row.property): row.cause for row in loaded}
    assert causes[("net", "a")] == Cause.NONE
    assert causes[("endless", "a")] == causes[("endless", "b")] == Cause.KILLED_AT_DEADLINE
    assert server.prepared.count("prepare_target") == 2


@pytest.fixture
def category(tmp_path: Path) -> Path:
    """A good network with a property that fits, one that does not and one that is none; a network
    of an unknown operator; a damaged one; a row without files.
    """
    folder = tmp_path / "small"
    folder.mkdir()
    for name, operator in (("good", "Relu"), ("odd", "Hardmax")):
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node(operator, ["h"], ["y"]),
        ]
        ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, (1, 2)) for end in "xy"]
        weights = [numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")]
        graph = helper.make_graph(nodes, "made", ends[:1], ends[1:], weights)
        opset = [helper.make_opsetid("", 13)]
        save_model(
            helper.make_model(graph, opset_imports=opset, ir_version=8), folder / f"{name}.onnx"
        )
    (folder / "damaged.onnx").write_bytes(b"\x08\x07junk")
    for name, inputs in (("fits", 2), ("wide", 3)):
        lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
        lines += ["(declare-const Y_0 Real)", "(declare-const Y_1 Real)"]
        lines += [f"(assert (>= X_{i} 0.0))(assert (<= X_{i} 1.0))" for i in range(inputs)]
        (folder / f"{name}.vnnlib").write_text("\n".join([*lines, "(assert (>= Y_0 2.0))", ""]))
    (folder / "none.vnnlib").write_text("(assert (")
    pairs = ["good,fits", "good,wide", "good,none", "odd,fits", "damaged,fits", "absent,fits"]
    text = "".join("{}.onnx,{}.vnnlib,5\n".format(*pair.split(",")) for pair in pairs)
    (folder / "instances.csv").write_text(text)
    return folder


@pytest.mark.slow
def test_list_load_says_what_works_and_what_does_not_and_why(category: Path) -> None:
    table = category / "loaded.csv"
    result = CliRunner().invoke(app, ["list", "--load", "--csv", str(table), str(category)])
    assert result.exit_code == 0, result.output
    (counts,) = (
        line.split() for line in result.output.splitlines() if line.strip().startswith("small")
    )
    assert counts[1:5] == ["4", "1", "6", "1"]
    with table.open(newline="") as file:
        found = {(row["network"], row["property"]): row for row in csv.DictReader(file)}
    causes = {names: row["cause"] for names, row in found.items()}
    assert causes == {
        ("good.onnx", "fits.vnnlib"): "",
        ("good.onnx", "wide.vnnlib"): Cause.SHAPE_MISMATCH,
        ("good.onnx", "none.vnnlib"): Cause.MALFORMED_PROPERTY,
        ("odd.onnx", "fits.vnnlib"): Cause.UNSUPPORTED_OPERATOR,
        ("damaged.onnx", "fits.vnnlib"): Cause.MALFORMED_NETWORK,
        ("absent.onnx", "fits.vnnlib"): Cause.MISSING_FILE,
    }
    assert float(found["good.onnx", "fits.vnnlib"]["difference"]) <= 1e-6
    assert "operator Hardmax" in result.output
    for cause in filter(None, causes.values()):
        assert f"{cause}: " in result.output


def test_a_table_of_what_is_not_loaded_is_a_wrong_use(category: Path) -> None:
    result = CliRunner().invoke(app, ["list", "--csv", "t.csv", str(category)])
    assert result.exit_code == 2
    assert "add --load" in result.output
