"""What `vnncomp-runner verify` does with its query: has it answered, and tells the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import typer

from runner.cli.results import FAILED, RESULTS, print_result
from runner.contract.errors import UsageError
from runner.contract.vocabulary import Verdict
from runner.problem.assignment import format_assignment, serialise_assignment
from runner.problem.files import find_maybe_gz
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.counterexample import read_assignment
from runner.problem.property.declared import ELEMENT_TYPES, REAL, Network, Variable
from runner.problem.property.read_property import read_networks
from runner.run.competitor import Options, Reply, ask
from runner.run.kept import Kept
from runner.run.single import Posed


def answered(
    query: Path, models: Sequence[str], options: Options, until: float
) -> tuple[Posed, Sequence[Network], Reply]:
    """With the networks that the query declares."""
    query = find_maybe_gz(query) or query
    declared = read_networks(query)
    model = _model(models, declared)
    asked = options.question(model, query, max(1e-3, until - time.monotonic()))
    if declared:
        _check_types(declared[0], asked.instance.network)
    return asked, declared, ask(asked, until, options, Kept())


def tell(asked: Posed, declared: Sequence[Network], said: Reply, folder: Path | None) -> int:
    """Print the verdict and the assignment, which goes to `folder` where there is one."""
    if said.message:
        typer.echo(f"{said.cause}: {said.message}", err=True)
    if said.verdict is Verdict.ERROR:
        return FAILED
    assignment = ""
    if said.verdict is Verdict.SAT:
        inputs, outputs = _variables(declared, asked.instance.network, said)
        assigned = read_assignment(said.counterexample)
        if folder is None:
            assignment = format_assignment(inputs, outputs, assigned)
        else:
            serialise_assignment(folder, inputs, outputs, assigned)
    print_result(RESULTS[said.verdict], assignment)
    return 0


def _model(models: Sequence[str], declared: Sequence[Network]) -> Path:
    """The only network's file. Raises UsageError for one too few or too many, or of another name.

    What VNN-LIB 1.0 calls its network is nowhere said, so that any name will do.
    """
    found: dict[str, Path] = {}
    for text in models:
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise UsageError(f"--network {text}: NAME=MODEL is needed")
        if name in found:
            raise UsageError(f"--network {text}: {name} has a model already, {found[name]}")
        found[name] = Path(path)
    wanted = [network.name for network in declared if network.own_model]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UsageError(f"network {missing[0]} has no model; add --network {missing[0]}=MODEL")
    if declared and (unknown := [name for name in found if name not in wanted]):
        raise UsageError(f"--network {unknown[0]}: the query needs models for {', '.join(wanted)}")
    if len(found) != 1:
        raise UsageError(f"{len(found)} networks; one is needed: --network NAME=MODEL")
    return next(iter(found.values())).absolute()


def _check_types(network: Network, model: Path) -> None:
    """Raises UsageError for types that are not the model's, or that nothing is proved about."""
    variables = (*network.inputs, *network.outputs)
    for variable in variables:
        if variable.type not in ELEMENT_TYPES:
            raise UsageError(
                f"{variable.name} is {variable.type}, of which nothing is proved; declare it "
                f"{REAL} to have it answered in real arithmetic"
            )
    if all(variable.type == REAL for variable in variables):
        return
    of_inputs, of_outputs = _types(OnnxRuntime(model))
    actuals = [of_inputs] * len(network.inputs) + [of_outputs] * len(network.outputs)
    for variable, actual in zip(variables, actuals, strict=True):
        if variable.type not in (REAL, actual):
            raise UsageError(
                f"{variable.name} is declared {variable.type}, but {model} has {actual}"
            )


def _variables(
    declared: Sequence[Network], model: Path, said: Reply
) -> tuple[Sequence[Variable], Sequence[Variable]]:
    """Inputs and outputs: as declared, or of VNN-LIB 1.0, where X and Y are flat."""
    if declared:
        return declared[0].inputs, declared[0].outputs
    assigned = read_assignment(said.counterexample)
    types = _types(OnnxRuntime(model))
    return (
        [Variable("X", types[0], (len(assigned.inputs),))],
        [Variable("Y", types[1], (len(assigned.outputs),))],
    )


def _types(runtime: OnnxRuntime) -> tuple[str, str]:
    return runtime.dtype.__name__, runtime.output_type
