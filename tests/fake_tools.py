"""Verifiers that do one thing each, often a bad one, and a small category to ask them about."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper

# Of the identity on [0, 1]²: the first output is unsafe from 0.5 on.
POINT = "((X_0 0.75)\n(X_1 0.25)\n(Y_0 0.75)\n(Y_1 0.25))"
SAFE_POINT = POINT.replace("0.75", "0.375")
OUTSIDE_POINT = POINT.replace("0.75", "1.5")

_LIMITS = "".join(f"(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(2))
_NAMES = "".join(f"(declare-const {letter}_{i} Real)" for letter in "XY" for i in range(2))
PROPERTY = f"{_NAMES}{_LIMITS}(assert (>= Y_0 0.5))\n"
QUERY = """(vnnlib-version <2.0>)
(declare-network N
    (declare-input X float32 [1, 2])
    (declare-output Y float32 [1, 2]))
(assert (and (>= X[0, 0] 0.0) (<= X[0, 0] 1.0) (>= X[0, 1] 0.0) (<= X[0, 1] 1.0)))
(assert (>= Y[0, 0] 0.5))
"""


def write_script(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


def scripts(folder: Path, run: str, prepare: str = "exit 0", install: str = "exit 0") -> Path:
    """The three scripts of VNN-COMP, with these bodies."""
    for name, body in (("install_tool", install), ("prepare_instance", prepare)):
        write_script(folder / f"{name}.sh", body)
    write_script(folder / "run_instance.sh", run)
    return folder


def says(answer: str) -> str:
    """The body of a run_instance.sh that writes this to its results file."""
    return f"cat > \"$5\" <<'END'\n{answer}\nEND"


def python(code: str) -> str:
    """The body of a script that runs this code, with the script's own arguments."""
    return f"{sys.executable} - \"$@\" <<'END'\n{code}\nEND"


def small_category(
    folder: Path,
    *,
    timeout_s: float = 30,
    packed: bool = False,
    query: str = PROPERTY,
    rows: int = 1,
) -> Path:
    """The identity on two inputs, asked `rows` times the same under other names."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    onnx.checker.check_model(model)
    lines = []
    for number in range(rows):
        files = {"onnx/identity.onnx": model, f"vnnlib/prop{number}.vnnlib": query.encode()}
        for name, content in files.items():
            path = folder / (f"{name}.gz" if packed else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content) if packed else content)
        lines.append(f"{','.join(files)},{timeout_s}\n")
    (folder / "instances.csv").write_text("".join(lines))
    return folder
