"""`vnncomp-runner supports`: what this verifier can do, asked as chapter 5 of VNN-LIB 2.0 says."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.cli.terminal import exit_codes
from runner.contract.errors import UsageError
from runner.execute.executor import Gang
from runner.execute.gang import RankServer
from runner.problem.property.declared import ELEMENT_TYPES
from runner.run.judge import preparation_failure
from runner.run.prepare import PREPARE_TIMEOUT_S
from runner.run.programs import SUPPORTS

_log = logging.getLogger(__name__)


class Capability(StrEnum):
    """What can be asked, as VNN-LIB 2.0 spells it."""

    OPSETS = "--onnx-opset-versions"
    ELEMENT_TYPES = "--onnx-element-types"
    OPERATORS = "--onnx-operators"
    VERSIONS = "--vnnlib-versions"
    HIDDEN_NODES = "--hidden-node-theories"
    INPUTS_OUTPUTS = "--multiple-input-output-theories"
    NETWORKS = "--multiple-network-theories"
    COMPARISONS = "--multiple-node-comparison-theories"
    ARITHMETIC = "--arithmetic-complexity-theories"
    DISJUNCTIONS = "--optimised-disjunctive-reasoning"
    SERIALISED = "--serialise-assignments"


# LIN is not among the theories of arithmetic: it relates inputs with one another too.
_ANSWERS: Mapping[Capability, tuple[str, ...]] = {
    Capability.ELEMENT_TYPES: ELEMENT_TYPES,
    Capability.VERSIONS: ("1.0", "2.0"),
    Capability.HIDDEN_NODES: ("NH",),
    Capability.INPUTS_OUTPUTS: ("SIO", "MIO"),
    Capability.NETWORKS: ("SNET",),
    Capability.COMPARISONS: ("SNC",),
    Capability.ARITHMETIC: ("BND", "OUTC"),
    Capability.DISJUNCTIONS: ("false",),
    Capability.SERIALISED: ("true",),
}
# What the verifier itself is asked, by a rank.
_ASKED: Mapping[Capability, Callable[[Mapping[str, Any]], list[str]]] = {
    Capability.OPSETS: lambda told: list(map(str, told["opsets"])),
    Capability.OPERATORS: lambda told: list(told["operators"]),
}
_NOTES: Mapping[Capability, str] = {
    Capability.ELEMENT_TYPES: "unsat is proved in real arithmetic, and said of float32 and float64 "
    "where ONNX Runtime differs from it by less than a quarter of the margin at sampled points",
    Capability.ARITHMETIC: "linear sums of outputs may be compared too; sums of inputs may not",
}


def supports(
    capability: Annotated[
        str, typer.Argument(help="As VNN-LIB 2.0 spells it: " + ", ".join(Capability) + ".")
    ],
) -> None:
    """Print what this verifier can do, as tools ask any verifier that conforms to VNN-LIB 2.0.

    \b
    Example:
      vnncomp-runner supports --onnx-operators
    """
    with exit_codes():
        if capability not in list(Capability):
            known = ", ".join(Capability)
            raise UsageError(f"unknown capability {capability}; known: {known}")
        asked = Capability(capability)
        if asked in _NOTES:
            typer.echo(f"note: {_NOTES[asked]}", err=True)
        lines = _ASKED[asked](_told()) if asked in _ASKED else _ANSWERS[asked]
        typer.echo("\n".join(lines))


def _told() -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RankServer(folder / "log", (SUPPORTS.partition(":")[0],)) as server:
            gang = Gang(SUPPORTS, {}, 1, folder / "gang", PREPARE_TIMEOUT_S)
            result = server.submit(gang).result()
    failure = preparation_failure(result)
    if failure:
        raise UsageError(f"{failure.cause}: {failure.message}")
    (told,) = filter(None, result.reports)
    return told
