"""Every operator of ONNX that is translated, in all its forms: it computes what ONNX Runtime does,
and its bounds hold. An operator without a form in one of `forms_*.py` fails the suite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from examples import rest
from forms_of_values import OF_VALUES
from forms_that_add_up import ADDING_UP
from forms_that_move import MOVING
from onnx_forms import ROWS, Form, ints
from onnx_models import constant, node, save
from small_networks import SmallNetwork, box_of
from sound_bounds import assert_sound

from runner.engine.network.graph import Op
from runner.engine.network.load import load_graph, prepare
from runner.engine.network.translation import TRANSLATIONS

FORMS = [*MOVING, *ADDING_UP, *OF_VALUES]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_it_computes_what_onnx_runtime_does(form: Form, tmp_path: Path) -> None:
    path = save(tmp_path, form.nodes, form.before, form.after, form.opset, **form.constants)
    prepare(path, tmp_path / "prepared")  # replays


def representatives() -> list[Any]:
    """All forms, of which only --exhaustive tries those without an operator that is new."""
    seen: set[str] = set()
    chosen: list[Any] = []
    for form in FORMS:
        kinds = {each.op_type for each in form.nodes}
        chosen += rest(form) if kinds <= seen else [form]
        seen |= kinds
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("form", representatives(), ids=str)
def test_its_bounds_hold(form: Form, tmp_path: Path) -> None:
    path = save(tmp_path, form.nodes, form.before, form.after, form.opset, **form.constants)
    loaded = load_graph(path)
    network = SmallNetwork(loaded.graph, loaded.tensors)
    for radius in (0.3, 0.0, 100.0):
        assert_sound(network, box_of(network, radius, batch=2), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("form", representatives(), ids=str)
def test_it_stands_between_layers(form: Form, tmp_path: Path) -> None:
    """So that coefficients which were never one-hot pass it backward."""
    size = int(np.prod(form.before))
    into = [
        node("Gemm", "x0 w0 b0", "h0", transB=1),
        node("Relu", "h0", "r0"),
        node("Reshape", "r0 s0", "x1"),
    ]
    moved = [onnx.NodeProto.FromString(one.SerializeToString()) for one in form.nodes]
    for each in moved:
        for names in (each.input, each.output):
            names[:] = [{"x": "x1", "y": "y1"}.get(name, name) for name in names]
    out = [node("Reshape", "y1 s1", "f1"), node("Relu", "f1", "q1"), node("Gemm", "q1 w1 b1")]
    model = [*into, *moved, *out]
    for number, each in enumerate(model):
        each.name = f"node{number}"
        each.input[:] = [{"x0": "x"}.get(name, name) for name in each.input]
    constants = {
        "w0": constant((size, 3), 5),
        "b0": constant((size,), 7),
        "b1": constant((2,), 8),
        "s0": ints(*form.before),
        "s1": ints(1, int(np.prod(form.after))),
        "w1": constant((int(np.prod(form.after)), 2), 6) / 3,
    }
    opset = max(form.opset, 7)
    path = save(tmp_path, model, (1, 3), (1, 2), opset, **form.constants, **constants)
    prepare(path, tmp_path / "prepared")
    loaded = load_graph(path)
    network = SmallNetwork(loaded.graph, loaded.tensors)
    assert_sound(network, box_of(network, 0.4, batch=2), torch.float32)


def test_every_operator_has_a_form() -> None:
    assert {each.op_type for form in FORMS for each in form.nodes} == TRANSLATIONS.keys()


def test_what_moves_values_is_one_operator_of_the_bound_graph(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Transpose", "x", perm=[0, 2, 1])], ROWS, (1, 4, 3))
    (moved,) = load_graph(path).graph.nodes[1:]
    assert (moved.op, moved.name.partition("_")[0]) == (Op.SELECT, "select")


def test_values_that_keep_their_order_are_not_moved(tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 1]), node("Relu", "t")]
    path = save(tmp_path, nodes, (1, 1, 4), (1, 4, 1))
    assert Op.SELECT not in {each.op for each in load_graph(path).graph.nodes}
