"""An ONNX file as the bound graph of all strategies, with its parameters. No torch."""

from __future__ import annotations

from pathlib import Path

from runner.contract.vocabulary import Cause
from runner.engine.network.convert import converted
from runner.engine.network.draft import Array
from runner.engine.network.fold import folded
from runner.engine.network.graph import Graph
from runner.engine.network.library_errors import foreign
from runner.engine.network.network_file import NetworkFile
from runner.engine.network.translation import TRANSLATIONS, translated


def onnx_graph(path: Path, file: NetworkFile | None = None) -> tuple[Graph, dict[str, Array]]:
    """`file`: what `path` names, where it is read.

    Raises InstanceError as `converted` and `translated` do, MALFORMED_NETWORK for what no check has
    foreseen.
    """
    with foreign(Cause.MALFORMED_NETWORK, unforeseen(path)):
        return folded(*translated(converted(path, TRANSLATIONS.keys(), file)))


def unforeseen(path: Path) -> str:
    """What is said of a file that passes all checks and yet fails."""
    return f"{path}: its tensors do not fit its operators; export it again, or report it"
