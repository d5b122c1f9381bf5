"""The kinds of verifiers beside ours, and which of them a tool is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner.contract.verifier import Tool, Verifier
from runner.verifiers.vnncomp_scripts import VnncompScripts
from runner.verifiers.vnnlib_cli import VnnlibCli

KINDS: dict[str, Callable[[Tool], Verifier]] = {
    "vnncomp-scripts": VnncompScripts,
    "vnnlib-cli": VnnlibCli,
}


def verifier_of(tool: Tool) -> Verifier:
    """By what its path is: a file is a program with the VNN-LIB command line, else there are, or
    should be, VNN-COMP's three scripts.
    """
    return KINDS["vnnlib-cli" if Path(tool.path).is_file() else "vnncomp-scripts"](tool)
