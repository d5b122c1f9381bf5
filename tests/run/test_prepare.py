"""Converting a network has limits of its own, and what meets them says so."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from runner.contract.question import Question, Report
from runner.contract.vocabulary import Cause, Verdict
from runner.contract.wire import question_to_json, report_from_json, report_to_json
from runner.execute.executor import Ending, Gang, GangResult
from runner.execute.gang import RankServer
from runner.problem.instances import Instance
from runner.run.judge import Answer
from runner.run.prepare import Preparation, Preparer, prepare_memory_bytes, prepare_timeout_s
from runner.run.programs import VERIFY
from runner.verifiers.strategies import strategy_named

GIB = 2**30


class Server:
    """Remembers the limits that it was asked for, and answers as it is told."""

    def __init__(self, *results: GangResult) -> None:
        self.limits: list[tuple[float, int | None]] = []
        self._results = list(results)

    def submit(self, gang: Gang) -> Future[GangResult]:
        self.limits.append((gang.timeout_s, gang.memory_limit_bytes))
        done = Future[GangResult]()
        done.set_result(self._results.pop(0) if len(self._results) > 1 else self._results[0])
        return done


DONE = GangResult(Ending.FINISHED, 0.1, ({"inputs": 1, "outputs": 1},))
KILLED = GangResult(Ending.KILLED_AT_DEADLINE, 30.1, (None,))


def failed(cause: Cause) -> GangResult:
    report = report_to_json(Report(0, Verdict.ERROR, cause, "broken"))
    return GangResult(Ending.FINISHED, 0.5, (report,), 0, "exit code 1")


def instance(folder: Path, timeout_s: float = 10.0) -> Instance:
    names = "net.onnx", "prop.vnnlib"
    for name in names:
        (folder / name).touch()
    network, prop = (folder / name for name in names)
    return Instance("category", network, prop, timeout_s, *names, folder / "instances.csv", 1)


def failure_of(server: Server, tmp_path: Path, memory: int | None = None) -> Answer:
    failure = Preparer(server, tmp_path, memory).prepare(instance(tmp_path), tmp_path).failure
    assert failure is not None
    return failure


@pytest.mark.parametrize(
    ("row_s", "prepare_s"), [(1, 30), (15, 30), (60, 120), (116.5, 233), (1000, 600)]
)
def test_the_time_follows_the_row_within_limits(row_s: float, prepare_s: float) -> None:
    assert prepare_timeout_s(row_s) == prepare_s


def test_the_memory_is_a_share_of_the_machine_or_what_the_file_needs(tmp_path: Path) -> None:
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    small.touch()
    with large.open("wb") as file:
        file.truncate(100 * GIB)
    share = psutil.virtual_memory().total // 4
    assert prepare_memory_bytes(small) == max(2 * GIB, share)
    assert prepare_memory_bytes(large) == 1600 * GIB


def test_both_limits_reach_the_process_that_converts(tmp_path: Path) -> None:
    server = Server(DONE)
    Preparer(server, tmp_path, None).prepare(instance(tmp_path, 60), tmp_path)
    Preparer(server, tmp_path, 5 * GIB).prepare(instance(tmp_path, 60), tmp_path)
    network = tmp_path / "net.onnx"
    assert server.limits == [(120, prepare_memory_bytes(network)), (120, 5 * GIB)]


def test_a_network_that_ran_out_of_time_names_the_rule(tmp_path: Path) -> None:
    failure = failure_of(Server(KILLED), tmp_path)
    assert (failure.verdict, failure.cause) == (Verdict.TIMEOUT, Cause.KILLED_AT_DEADLINE)
    assert str(tmp_path / "net.onnx") in failure.message
    assert "it may take 30 s, which is twice the time limit of the row" in failure.message


def test_a_network_that_ran_out_of_memory_names_the_option(tmp_path: Path) -> None:
    failure = failure_of(Server(failed(Cause.OUT_OF_MEMORY)), tmp_path, 3 * GIB)
    assert failure.cause is Cause.OUT_OF_MEMORY
    assert "it may take 3 GiB, which --memory-limit changes" in failure.message


def test_a_network_that_ran_out_of_time_is_tried_again_for_a_row_with_more(tmp_path: Path) -> None:
    server = Server(KILLED, DONE)
    preparer = Preparer(server, tmp_path, None)
    short, long = instance(tmp_path, 10), instance(tmp_path, 100)
    assert preparer.prepare(short, tmp_path).failure is not None
    assert preparer.prepare(short, tmp_path).failure is not None
    assert len(server.limits) == 1
    assert preparer.prepare(long, tmp_path).failure is None
    assert preparer.prepare(short, tmp_path).failure is None
    assert len(server.limits) == 2


def test_a_mismatch_in_the_box_of_one_property_does_not_condemn_the_network(tmp_path: Path) -> None:
    server = Server(failed(Cause.REPLAY_MISMATCH), DONE)
    preparer = Preparer(server, tmp_path, None)
    assert preparer.prepare(instance(tmp_path), tmp_path).failure is not None
    assert preparer.prepare(instance(tmp_path), tmp_path).failure is None


def vector_network(path: Path, values: int) -> None:
    """Adds as many ones as it is told to its only input, which a few bytes ask for."""
    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["one", "size"], ["ones"]),
            helper.make_node("Add", ["x", "ones"], ["y"]),
        ],
        "vector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, values])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, values])],
        [
            numpy_helper.from_array(np.ones(1, dtype=np.float32), "one"),
            numpy_helper.from_array(np.array([values]), "size"),
        ],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def identity_property(path: Path) -> None:
    path.write_text(
        "(declare-const X_0 Real)(declare-const Y_0 Real)"
        "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= Y_0 5))"
    )


def test_a_network_that_takes_more_memory_than_it_may_ends_alone(tmp_path: Path) -> None:
    rows = []
    for name, values in (("large", 1 << 25), ("small", 1)):
        (tmp_path / name).mkdir()
        rows.append(instance(tmp_path / name))
        vector_network(rows[-1].network, values)
        identity_property(rows[-1].property)
    with RankServer(tmp_path / "server.log") as server:
        preparer = Preparer(server, tmp_path, 100 * 2**20)
        large, small = (preparer.prepare(row, tmp_path / "gang") for row in rows)
    assert large.failure is not None
    assert large.failure.cause is Cause.OUT_OF_MEMORY
    assert "--memory-limit" in large.failure.message
    assert small.failure is None
    assert small.prepared.is_file()


def test_a_property_is_read_once_and_ranks_need_its_file_no_more(tmp_path: Path) -> None:
    first, second = instance(tmp_path), instance(tmp_path)
    vector_network(first.network, 1)
    identity_property(first.property)
    second = replace(second, property=tmp_path / "other.vnnlib")
    second.property.write_text(first.property.read_text().replace(">= Y_0 5", ">= Y_0 1.5"))
    with RankServer(tmp_path / "server.log") as server:
        preparer = Preparer(server, tmp_path, None)
        done = [preparer.prepare(row, tmp_path / "gang") for row in (first, second)]
        for row in (first, second):
            row.property.unlink()
        again = [preparer.prepare(row, tmp_path / "gang") for row in (first, second)]
        verdicts = [
            verdict_of(server, row, one) for row, one in zip((first, second), done, strict=True)
        ]
        assert done[0].fitted is not None
        done[0].fitted.write_bytes(b"damaged")
        damaged = report_of(server, first, done[0])
    assert again == done
    assert verdicts == [Verdict.UNSAT, Verdict.SAT]
    assert (damaged.verdict, damaged.cause) == (Verdict.ERROR, Cause.MALFORMED_PROPERTY)
    assert "prepare the property again" in damaged.message


def test_a_property_of_a_known_network_that_does_not_fit_is_refused_before_ranks_start(
    tmp_path: Path,
) -> None:
    good = instance(tmp_path)
    vector_network(good.network, 1)
    identity_property(good.property)
    wide = replace(good, property=tmp_path / "wide.vnnlib")
    wide.property.write_text("(declare-const X_1 Real)(assert (>= X_1 0))(assert (<= X_1 1))")
    wide.property.write_text(good.property.read_text() + wide.property.read_text())
    gone = replace(good, property=tmp_path / "gone.vnnlib")
    with RankServer(tmp_path / "server.log") as server:
        preparer = Preparer(server, tmp_path, None)
        done = [preparer.prepare(row, tmp_path / "gang") for row in (good, wide, gone, good)]
    causes = [one.failure.cause if one.failure else Cause.NONE for one in done]
    assert causes == [Cause.NONE, Cause.SHAPE_MISMATCH, Cause.MISSING_FILE, Cause.NONE]


def report_of(server: RankServer, row: Instance, done: Preparation) -> Report:
    question = Question(
        network=str(row.network),
        prepared=str(done.prepared),
        property=str(row.property),
        fitted=str(done.fitted),
        strategy=strategy_named("baseline"),
        ranks=1,
        timeout_s=60.0,
        counterexample=str(row.network.with_name("counterexample.gz")),
    )
    gang = Gang(VERIFY, question_to_json(question), 1, row.network.with_name("gang"), 60.0)
    (report,) = server.submit(gang).result().reports
    assert report is not None
    return report_from_json(report)


def verdict_of(server: RankServer, row: Instance, done: Preparation) -> Verdict:
    report = report_of(server, row, done)
    assert report.cause is Cause.NONE, report.message
    return report.verdict
