"""Asks Marabou through its Python interface: its command prints six digits of a counterexample.

usage: answer.py ONNX VNNLIB RESULTS TIMEOUT
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from maraboupy import Marabou

_WORDS = {"sat": "sat", "unsat": "unsat", "TIMEOUT": "timeout", "UNKNOWN": "unknown"}


def main(network: str, query: str, results: str, timeout: str) -> None:
    asked = Marabou.read_onnx(network).getInputQuery()
    options = Marabou.createOptions(timeoutInSeconds=math.ceil(float(timeout)), verbosity=0)
    code, values, _ = Marabou.solve_query(
        asked, verbose=False, options=options, propertyFilename=query
    )
    lines = [_WORDS.get(code, "error")]
    if code == "sat":
        inputs = [asked.inputVariableByIndex(i) for i in range(asked.getNumInputVariables())]
        outputs = [asked.outputVariableByIndex(i) for i in range(asked.getNumOutputVariables())]
        pairs = [
            f"({letter}_{index} {values[variable]!r})"
            for letter, variables in (("X", inputs), ("Y", outputs))
            for index, variable in enumerate(variables)
        ]
        lines.append("(" + "\n".join(pairs) + ")")
    Path(results).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
