"""What tests of this verifier as a competitor share: small instances with known answers, and the
ways to ask.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import NodeProto, TensorProto, helper, numpy_helper

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = REPOSITORY / "vnncomp_scripts"

# Of `save_network` over the box of `save_property`, whose outputs go from -2 to 2.
SAT, UNSAT = "(>= Y_0 1.5)", "(>= Y_0 2.5)"
SAT_QUERY, UNSAT_QUERY = "(>= B[0,0] 1.5)", "(>= B[0,0] 2.5)"


def save_network(path: Path, activation: str = "Relu", element: int = TensorProto.FLOAT) -> Path:
    """y0 = x0 + x1 and y1 = x0 - x1 with ReLUs: of each sum less its negative part."""
    dtype = helper.tensor_dtype_to_np_dtype(element)
    first = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]], dtype=dtype)
    second = np.array([[1, -1, 0, 0], [0, 0, 1, -1]], dtype=dtype)
    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["sums"], transB=1),
        helper.make_node(activation, ["sums"], ["parts"]),
        helper.make_node("Gemm", ["parts", "second"], ["y"], transB=1),
    ]
    return _save(path, nodes, {"first": first, "second": second}, (2, 2), element)


def save_property(path: Path, unsafe: str) -> Path:
    """VNN-LIB 1.0: inputs between -1 and 1."""
    return _property(path, 2, 2, unsafe)


def save_query(path: Path, unsafe: str, element: str = "float32") -> Path:
    """The same in VNN-LIB 2.0, of a network f with input A and output B."""
    lines = [
        "(vnnlib-version <2.0>)",
        f"(declare-network f (declare-input A {element} [1,2]) (declare-output B {element} [1,2]))",
        *(f"(assert (and (>= A[0,{index}] -1.0) (<= A[0,{index}] 1.0)))" for index in range(2)),
        f"(assert {unsafe})",
    ]
    path.write_text("\n".join([*lines, ""]))
    return path


def save_hard(folder: Path) -> tuple[Path, Path]:
    """A network and a property that nobody decides in minutes: bounds of a deep network explode."""
    generator = np.random.default_rng(0)
    width, depth, inputs = 200, 8, 40
    widths = [inputs, *[width] * depth, 1]
    arrays = {
        f"w{layer}": (generator.normal(size=pair[::-1]) * (2 / pair[0]) ** 0.5).astype("float32")
        for layer, pair in enumerate(pairwise(widths))
    }
    nodes, value = [], "x"
    for layer in range(depth):
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}"], [f"s{layer}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"s{layer}"], [f"r{layer}"]))
        value = f"r{layer}"
    nodes.append(helper.make_node("Gemm", [value, f"w{depth}"], ["y"], transB=1))
    network = _save(folder / "hard.onnx", nodes, arrays, (inputs, 1), TensorProto.FLOAT)
    return network, _property(folder / "hard.vnnlib", inputs, 1, "(>= Y_0 100.0)")


def instances(folder: Path) -> list[tuple[Path, Path, str]]:
    """Network, property and verdict of small instances of either version of VNN-LIB."""
    network = save_network(folder / "net.onnx")
    return [
        (network, save_property(folder / "sat.vnnlib", SAT), "sat"),
        (network, save_property(folder / "unsat.vnnlib", UNSAT), "unsat"),
        (network, save_query(folder / "sat2.vnnlib", SAT_QUERY), "sat"),
        (network, save_query(folder / "unsat2.vnnlib", UNSAT_QUERY), "unsat"),
        (network, save_property(folder / "or.vnnlib", f"(or (and {UNSAT}) (and {SAT}))"), "sat"),
    ]


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Of a command whose private folder is `folder`, and which imports this checkout."""
    return {
        **os.environ,
        "VNNCOMP_RUNNER_PYTHON": sys.executable,
        "VNNCOMP_RUNNER_FOLDER": str(folder),
        "PYTHONPATH": str(REPOSITORY),
        **settings,
    }


def warm_servers(folder: Path) -> list[psutil.Process]:
    """Those that listen in a private folder, with what they forked."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(part.startswith(f"{folder}/") for part in process.cmdline())
            warm = "runner.execute.warm" in process.cmdline()
            if named and warm and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@contextmanager
def private_folder() -> Iterator[Path]:
    """Whose warm servers end with it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # a socket's name must be short
        private = Path(name) / "kept"
        yield private
        for process in warm_servers(private):
            process.kill()
        wait_for(lambda: not warm_servers(private))


def wait_for(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def command(*arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`vnncomp-runner` with these arguments."""
    program = "import sys; from runner.cli import main; main()"
    words = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)


def _property(path: Path, inputs: int, outputs: int, unsafe: str) -> Path:
    lines = [f"(declare-const X_{index} Real)" for index in range(inputs)]
    lines += [f"(declare-const Y_{index} Real)" for index in range(outputs)]
    lines += [f"(assert (>= X_{index} -1.0))(assert (<= X_{index} 1.0))" for index in range(inputs)]
    path.write_text("\n".join([*lines, f"(assert {unsafe})", ""]))
    return path


def _save(
    path: Path,
    nodes: list[NodeProto],
    arrays: dict[str, np.ndarray],
    sizes: tuple[int, int],
    element: int,
) -> Path:
    ends = [
        helper.make_tensor_value_info(name, element, [1, size])
        for name, size in zip(("x", "y"), sizes, strict=True)
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path
