"""What a rank runs to say which properties fit a network that is prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner.contract.errors import InstanceError
from runner.engine.network.graph import Graph
from runner.engine.network.graph_replay import box_points, replay
from runner.engine.network.prepared import PreparedWeights, read_graph
from runner.engine.programs.properties import check_fit, fit_property
from runner.problem.onnx_runtime import OnnxRuntime
from runner.problem.property.read_property import read_property


def fit_target(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Holds `network`, `prepared`, against ONNX Runtime in the boxes of each of `properties`.

    For each: `cause` and `message` where it does not fit, else `difference` (of `replay`).
    """
    network, prepared = Path(payload["network"]), Path(payload["prepared"])
    graph, weights = read_graph(prepared), PreparedWeights(prepared)
    names = {name for node in graph.nodes for name in node.parameters.values()}
    tensors = {name: weights.tensor(name) for name in names}
    reference = OnnxRuntime(network, optimize=False)

    def difference(source: Path) -> float:
        instance = read_property(source)
        check_fit(instance, graph, str(source), network)
        return replay(reference, graph, tensors, box_points(instance))

    return {
        "inputs": graph.input.size,
        "outputs": _outputs(graph),
        "properties": [_told(difference, Path(source)) for source in payload["properties"]],
    }


def prepare_property_target(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves `property` in the file `fitted`, for ranks that ask of `network`, which is `prepared`.

    Raises InstanceError for a property that cannot be read, or does not fit.
    """
    graph, network = read_graph(Path(payload["prepared"])), Path(payload["network"])
    fit_property(Path(payload["property"]), payload["fitted"], graph, network)
    return {}


def _outputs(graph: Graph) -> int:
    return graph.node(graph.output).size


def _told(difference: Callable[[Path], float], source: Path) -> dict[str, Any]:
    try:
        return {"difference": difference(source)}
    except InstanceError as error:
        return {"cause": error.cause, "message": str(error)}
