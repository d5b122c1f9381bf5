"""The property of a question: read and fitted to its network once, and left for all ranks."""

from __future__ import annotations

from pathlib import Path

from runner.contract.errors import InstanceError
from runner.contract.question import Question
from runner.contract.vocabulary import Cause
from runner.engine.network.graph import Graph
from runner.problem.files import source_digest
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.fitted import read_fitted, write_fitted
from runner.problem.property.model import Property
from runner.problem.property.read_property import read_property
from runner.problem.property.shapes import check_shapes, check_tensors


def property_of(question: Question) -> Property:
    """As preparation left it, else from its file. Raises InstanceError as these readers do."""
    if question.fitted:
        return read_fitted(Path(question.fitted))
    return read_property(Path(question.property))


def fit_property(source: Path, fitted: str, graph: Graph, network: Path) -> Property:
    """The property of `source`, which fits the network; it is in the file `fitted` from then on,
    unless that is empty. Raises InstanceError.
    """
    digest = source_digest(source)
    instance = read_property(source)
    check_fit(instance, graph, str(source), network)
    if fitted:
        write_fitted(Path(fitted), instance, digest)
    return instance


def check_fit(instance: Property, graph: Graph, source: str, network: Path) -> None:
    """Raises InstanceError SHAPE_MISMATCH unless the property speaks of this network's sizes."""
    outputs = graph.node(graph.output).size
    for name, declared, actual in (
        ("inputs", instance.inputs, graph.input.size),
        ("outputs", instance.outputs, outputs),
    ):
        if declared != actual:
            raise InstanceError(
                Cause.SHAPE_MISMATCH,
                f"{source}: declares {declared} {name}, {network} has {actual}; "
                "check that the row of instances.csv pairs the right files",
            )
    if instance.input_tensors or instance.output_tensors:
        check_tensors(instance, source, OnnxRuntime(network))
    check_shapes(instance, source, network, graph.input.shape, graph.node(graph.output).shape)
