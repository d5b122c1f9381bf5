"""The whole program on real files: the command line in a process of its own, with real ranks."""

from __future__ import annotations

import csv
import gzip
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.counterexample import parse_counterexample
from runner.problem.property.read_property import read_property

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
MLP = BENCHMARKS / "digits_mlp"
UNSAT = "onnx/mlp_2x64.onnx,vnnlib/image_0_radius_0.04.vnnlib,60"
SAT = "onnx/mlp_2x64.onnx,vnnlib/image_0_radius_0.15.vnnlib,60"
# Decided by α-CROWN and by branch and bound.
HARDER = "onnx/mlp_2x64.onnx,vnnlib/image_0_radius_0.1025.vnnlib,60"
OPEN = "onnx/mlp_2x64.onnx,vnnlib/image_0_radius_0.11.vnnlib,60"

Row = dict[str, str]
Arguments = list[object]


def command(*arguments: object) -> list[str]:
    program = "import sys; from runner.cli import main; sys.exit(main())"
    return [sys.executable, "-c", program, *map(str, arguments)]


def run(category: Path, results: Path, *options: object, exit_code: int = 0) -> str:
    """`vnncomp-runner run`; gives what it printed."""
    done = subprocess.run(
        command("run", category, "--results", results, "--run", "run", *options),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout


def rows(results: Path, table: str = "outcomes.csv") -> list[Row]:
    with (results / "run" / table).open(newline="") as file:
        return list(csv.DictReader(file))


def category(folder: Path, *lines: str) -> Path:
    """The networks and properties of digits_mlp, one more of these, and these rows."""
    for name in ("onnx", "vnnlib"):
        shutil.copytree(MLP / name, folder / name)
    known = (folder / "vnnlib" / "image_0_radius_0.08.vnnlib").read_text()
    (folder / HARDER.split(",")[1]).write_text(widened(known, 0.0225))
    (folder / "instances.csv").write_text("\n".join(lines))
    return folder


def widened(robustness: str, by: float) -> str:
    """The same property of pixels over a greater radius."""

    def limit(found: re.Match[str]) -> str:
        sign, pixel, value = found.groups()
        moved = float(value) + (by if sign == "<=" else -by)
        return f"({sign} {pixel} {min(1.0, max(0.0, moved)):.9f})"

    return re.sub(r"\((<=|>=) (X_\d+) ([\d.]+)\)", limit, robustness)


def convolutions(path: Path) -> None:
    """Of few weights, whose bounds need a matrix of 512 x 65536 all the same."""
    random = np.random.default_rng(0)
    shapes = {"w1": (1024, 1, 1, 1), "w2": (64, 1024, 1, 1), "w3": (10, 4096)}
    weights = [
        onnx.numpy_helper.from_array(
            (random.normal(size=shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]
    sizes = [np.array([1, 1, 8, 8]), np.array([1, 4096])]
    weights += [onnx.numpy_helper.from_array(size, f"s{i}") for i, size in enumerate(sizes)]
    nodes = [
        helper.make_node("Reshape", ["x", "s0"], ["image"]),
        helper.make_node("Conv", ["image", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Reshape", ["d", "s1"], ["e"]),
        helper.make_node("Gemm", ["e", "w3"], ["y"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("x", 64), ("y", 10))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def unsupported_network(path: Path) -> None:
    node = helper.make_node("Tan", ["x"], ["y"])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 64]) for n in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


@pytest.fixture(scope="module")
def strategies_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three instances under every strategy at P=3: the category and the results folder."""
    folder = tmp_path_factory.mktemp("strategies")
    chosen = category(folder / "digits", UNSAT, SAT, HARDER)
    options = ("--strategies", "baseline,fsdp,tp,sp,fsdp+sp,offload,lirpa,null", "--ranks", 3)
    run(chosen, folder, *options, "--method", "alpha-crown")
    return chosen, folder


def test_every_strategy_says_the_same_of_every_instance(strategies_run: tuple[Path, Path]) -> None:
    verdicts: dict[str, set[str]] = {}
    for row in rows(strategies_run[1]):
        if row["strategy"] not in ("null", "lirpa"):
            verdicts.setdefault(row["property"], set()).add(row["verdict"])
    assert [*verdicts.values()] == [{"unsat"}, {"sat"}, {"unsat"}]


def test_sharded_weights_and_rows_change_no_bit_of_a_bound(
    strategies_run: tuple[Path, Path],
) -> None:
    found = {(row["property"], row["strategy"]): row for row in rows(strategies_run[1])}
    for line in (UNSAT, HARDER):
        name = line.split(",")[1]
        bound = found[name, "baseline"]["lower_bound"]
        for strategy in ("fsdp", "sp", "fsdp+sp", "offload"):
            assert found[name, strategy]["lower_bound"] == bound
        assert float(found[name, "tp"]["lower_bound"]) == pytest.approx(float(bound), rel=1e-4)


def test_each_rank_has_a_row_with_what_it_cost(strategies_run: tuple[Path, Path]) -> None:
    ranks = [row for row in rows(strategies_run[1], "ranks.csv") if row["property"] in HARDER]
    by_strategy: dict[str, list[Row]] = {}
    for row in ranks:
        by_strategy.setdefault(row["strategy"], []).append(row)
    assert [len(by_strategy[name]) for name in ("baseline", "fsdp", "tp", "sp")] == [1, 3, 3, 3]
    (alone,) = by_strategy["baseline"]
    assert alone["comm_bytes"] == "0"
    for row in by_strategy["fsdp"] + by_strategy["tp"]:
        assert float(row["wall_s"]) > 0
        assert float(row["comm_s"]) > 0
        assert int(row["collectives"]) > 0
        assert int(row["weight_bytes"]) < 0.5 * int(alone["weight_bytes"])
        assert 0 < int(row["peak_a_bytes"]) <= int(row["peak_tensor_bytes"])


def test_ranks_that_share_domains_decide_what_one_rank_decides(tmp_path: Path) -> None:
    chosen = category(tmp_path / "digits", UNSAT, SAT, OPEN)
    run(chosen, tmp_path, "--strategies", "baseline,dp,fsdp+dp", "--ranks", 2)
    outcomes = rows(tmp_path)
    for line in (UNSAT, SAT, OPEN):
        same = [row for row in outcomes if row["property"] in line]
        assert len({(row["verdict"], row["method"]) for row in same}) == 1, same
    ranks = [row for row in rows(tmp_path, "ranks.csv") if row["property"] in OPEN]
    for row in outcomes:
        if row["property"] in OPEN:
            shares = [int(r["domains"] or 0) for r in ranks if r["strategy"] == row["strategy"]]
            assert row["method"] == "beta-crown"
            assert int(row["domains"]) == sum(shares) > 0


def test_a_counterexample_file_holds_on_the_original_network(
    strategies_run: tuple[Path, Path],
) -> None:
    chosen, results = strategies_run
    network, name = SAT.split(",")[:2]
    files = sorted((results / "run").glob("*/*/*.counterexample.gz"))
    assert len(files) == 7  # one a strategy, but not of `null`
    (case,) = read_property(chosen / name).cases
    for file in files:
        inputs, outputs = parse_counterexample(gzip.decompress(file.read_bytes()).decode())
        assert np.all((case.lower <= inputs) & (inputs <= case.upper))
        replayed = OnnxRuntime(chosen / network).run(inputs)
        assert np.array_equal(replayed, outputs.astype(np.float32))
        assert any(disjunct.holds(replayed) for disjunct in case.unsafe)


def test_bad_rows_become_errors_with_a_cause_and_the_rest_runs(tmp_path: Path) -> None:
    bad = category(
        tmp_path / "bad",
        UNSAT,
        "onnx/truncated.onnx,vnnlib/image_0_radius_0.04.vnnlib,60",
        "onnx/softplus.onnx,vnnlib/image_0_radius_0.04.vnnlib,60",
        "onnx/absent.onnx,vnnlib/image_0_radius_0.04.vnnlib,60",
        "onnx/mlp_2x64.onnx,vnnlib/garbage.vnnlib,60",
        "onnx/mlp_2x64.onnx,vnnlib/empty_box.vnnlib,60",
        "onnx/mlp_2x64.onnx,vnnlib/two_inputs.vnnlib,60",
        "onnx/mlp_2x64.onnx,vnnlib/image_0_radius_0.04.vnnlib,soon",
        "\"[('f','onnx/a.onnx'),('g','onnx/b.onnx')]\",vnnlib/image_0_radius_0.04.vnnlib,60",
        SAT,
    )
    (bad / "onnx/truncated.onnx").write_bytes((bad / "onnx/mlp_2x64.onnx").read_bytes()[:-1000])
    unsupported_network(bad / "onnx/softplus.onnx")
    text = (bad / "vnnlib/image_0_radius_0.04.vnnlib").read_text()
    (bad / "vnnlib/garbage.vnnlib").write_text(text[: len(text) // 2])
    (bad / "vnnlib/empty_box.vnnlib").write_text(text + "\n(assert (>= X_3 7.5))\n")
    (bad / "vnnlib/two_inputs.vnnlib").write_text(
        "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n"
        "(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))\n"
        "(assert (>= Y_0 0))\n"
    )
    run(bad, tmp_path, "--strategies", "baseline", "--method", "crown")
    found = rows(tmp_path)
    empty = found.pop(5)
    assert (empty["verdict"], empty["cause"]) == ("unsat", "")
    assert "no input satisfies it: X_3 is to be at least 7.5" in empty["message"]
    assert [row["verdict"] for row in found] == ["unsat", *["error"] * 7, "sat"]
    assert [row["cause"] for row in found[1:-1]] == [
        "malformed_network",
        "unsupported_operator",
        "missing_file",
        "malformed_property",
        "shape_mismatch",
        "malformed_instance",
        "unsupported_instance",
    ]
    for row, words in zip(
        found[1:-1],
        ("truncated.onnx", "Tan", "absent.onnx", "garbage.vnnlib:", "two_inputs.vnnlib",
         "instances.csv:8", "instances.csv:9"),
        strict=True,
    ):  # fmt: skip
        assert words in row["message"]


def test_too_little_memory_has_its_own_cause_and_what_was_measured_is_kept(tmp_path: Path) -> None:
    chosen = category(tmp_path / "digits", "onnx/conv.onnx,vnnlib/never.vnnlib,60", UNSAT)
    convolutions(chosen / "onnx" / "conv.onnx")
    lines = [
        f"(declare-const {name}_{i} Real)" for name, n in (("X", 64), ("Y", 10)) for i in range(n)
    ]
    lines += [
        f"(assert ({sign} X_{i} {end}))" for i in range(64) for sign, end in ((">=", 0), ("<=", 1))
    ]
    (chosen / "vnnlib" / "never.vnnlib").write_text("\n".join([*lines, "(assert (>= Y_0 8))"]))
    strategies = ("baseline", "fsdp", "tp", "sp", "dp")
    options = ("--strategies", ",".join(strategies), "--ranks", 2, "--method", "crown")
    # More of A at once than there is memory for.
    run(chosen, tmp_path, "--memory-limit", 0.045, "--work-memory", 1024, *options)
    outcomes = rows(tmp_path)
    starved, after = outcomes[:5], outcomes[5:]
    assert [(row["verdict"], row["cause"]) for row in after] == [("unsat", "")] * 5
    for row in starved:
        assert (row["verdict"], row["cause"]) == ("error", "out_of_memory")
        assert "preparing" not in row["message"]
        assert int(row["peak_tensor_bytes"]) > int(row["weight_bytes"]) > 0
    ranks = [row for row in rows(tmp_path, "ranks.csv") if "conv" in row["network"]]
    for strategy in strategies:
        told = [row for row in ranks if row["strategy"] == strategy and row["wall_s"]]
        assert told, f"no rank of {strategy} says what it measured"
        assert all(float(row["load_s"]) > 0 for row in told)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `vnncomp-runner run` in the background; no process of it is left afterwards."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command("run", *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The rank processes: children of the rank server."""
    try:
        servers = psutil.Process(process.pid).children()
        return [rank for server in servers for rank in server.children()]
    except psutil.NoSuchProcess:  # a child that ended between two looks
        return []


def hard_category(folder: Path) -> Path:
    """An instance that takes some seconds, then a quick one."""
    chosen = folder / "hard"
    shutil.copytree(BENCHMARKS / "digits_resnet", chosen)
    shutil.copytree(MLP, chosen, dirs_exist_ok=True)
    slow = "onnx/resnet.onnx,vnnlib/image_30_radius_0.035.vnnlib,60"
    (chosen / "instances.csv").write_text(f"{slow}\n{UNSAT}\n")
    return chosen


@pytest.mark.alone
def test_a_killed_rank_ends_its_gang_and_is_named(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """Under three strategies, one after the other; what comes after them runs as ever."""
    process = started(hard_category(tmp_path), "--results", tmp_path, "--run", "run",
                      "--strategies", "fsdp,tp,sp", "--method", "alpha-crown")  # fmt: skip
    victims: list[int] = []
    while len(victims) < 3:
        ranks = [rank.pid for rank in ranks_of(process)]
        assert process.poll() is None, "the run ended before two ranks of each gang were seen"
        if len(ranks) < 2 or ranks[1] in victims:  # preparing takes one
            time.sleep(0.01)
            continue
        time.sleep(0.5)
        os.kill(ranks[1], signal.SIGKILL)
        victims.append(ranks[1])
    assert process.wait(120) == 0
    *killed, quick_fsdp, quick_tp, quick_sp = rows(tmp_path)
    assert [row["strategy"] for row in killed] == ["fsdp", "tp", "sp"]
    for row in killed:
        assert (row["verdict"], row["cause"]) == ("error", "rank_died")
        assert "rank 1" in row["message"]
        assert "SIGKILL" in row["message"]
    assert {row["verdict"] for row in (quick_fsdp, quick_tp, quick_sp)} == {"unsat"}


@pytest.mark.alone
def test_a_scheduler_killed_at_any_moment_resumes_to_the_same_rows(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    quick = (UNSAT, SAT, UNSAT.replace("image_0", "image_10"))
    chosen = category(tmp_path / "digits", *quick)
    asked = ("--strategies", "baseline,fsdp", "--method", "crown")
    options = ("--results", tmp_path, "--run", "run", *asked)
    moments = random.Random(0)
    for _ in range(2):
        process = started(chosen, *options)
        children: list[psutil.Process] = []
        finish = time.monotonic() + moments.uniform(3, 7)
        while time.monotonic() < finish and process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True) or children
            time.sleep(0.05)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
    run(chosen, tmp_path, *asked)
    found = [(row["property"], row["strategy"]) for row in rows(tmp_path)]
    names = [line.split(",")[1] for line in quick]
    assert found == [(name, strategy) for name in names for strategy in ("baseline", "fsdp")]
    assert len(rows(tmp_path, "ranks.csv")) == 3 * (1 + 2)


def names(row: dict[str, str]) -> tuple[str, str]:
    """Of network and property, wherever they lie."""
    return Path(row["network"]).name, Path(row["property"]).name


@pytest.mark.exhaustive
@pytest.mark.usefixtures("random_wide")
def test_no_embedded_instance_contradicts_what_is_known(tmp_path: Path) -> None:
    top = BENCHMARKS.parent / "instances.csv"
    run(top, tmp_path, "--strategies", "baseline")
    with (BENCHMARKS / "expected.csv").open(newline="") as file:
        expected = {(row["category"], *names(row)): row["verdict"] for row in csv.DictReader(file)}
    decided = 0
    for row in rows(tmp_path):
        known = expected[row["category"], *names(row)]
        assert {row["verdict"], known} != {"sat", "unsat"}
        assert row["verdict"] != "error", row["message"]
        decided += row["verdict"] in ("sat", "unsat")
    assert decided >= 12  # of 15: all, given time
