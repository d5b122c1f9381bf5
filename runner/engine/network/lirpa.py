"""All that touches auto_LiRPA: made to run on today's torch and numpy, and its errors named."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from runner.contract.vocabulary import Cause, Method
from runner.engine.network.graph import Op
from runner.engine.network.library_errors import foreign


def _install_before_import() -> None:
    """What auto_LiRPA 0.3 (2022) looks for while it is imported."""
    if importlib.util.find_spec("numpy.lib.arraysetops") is None:  # made private by numpy 2
        arraysetops = types.ModuleType("numpy.lib.arraysetops")
        arraysetops.isin = np.isin  # type: ignore[attr-defined]
        sys.modules[arraysetops.__name__] = arraysetops
    # By name: as attributes of torch.onnx these modules may be others.
    helper: Any = importlib.import_module("torch.onnx.symbolic_helper")
    if not hasattr(helper, "_set_opset_version"):  # a property of GLOBALS since torch 2
        helper._set_opset_version = _set_opset_version
    # It looks for a CUDA compiler to build kernels that nothing here uses.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def _set_opset_version(version: int) -> None:
    utils: Any = importlib.import_module("torch.onnx.utils")
    exporter = sys.modules[utils._optimize_graph.__module__]
    exporter.GLOBALS.export_onnx_opset_version = version


def _install_after_import(bounded_module: Any) -> None:
    """What auto_LiRPA 0.3 calls when it runs."""
    if not hasattr(torch._C.Node, "__getitem__"):  # was patched in by torch.onnx until torch 2
        torch._C.Node.__getitem__ = _attribute  # type: ignore[method-assign]
    if not hasattr(torch, "_six"):  # gone in torch 2; `register_parameter` asks it what a str is
        torch._six = types.SimpleNamespace(string_classes=(str,))  # type: ignore[attr-defined]
    bounded_module._named_members = _with_remove_duplicate(bounded_module._named_members)


def _attribute(node: Any, name: str) -> Any:
    return getattr(node, node.kindOf(name))(name)


def _with_remove_duplicate(members: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """torch 2 passes `remove_duplicate`; auto_LiRPA always removes duplicates."""

    def named_members(
        self: Any, get: Any, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[Any]:
        return members(self, get, prefix, recurse)

    return named_members


@contextlib.contextmanager
def _process_left_alone() -> Iterator[None]:
    """auto_LiRPA sets the warning filters and the root logger of whoever imports it."""
    handlers = list(logging.root.handlers)
    with warnings.catch_warnings(record=True):  # recorded, since it would undo a filter
        yield
    logging.root.handlers[:] = handlers
    logging.getLogger("auto_LiRPA.utils").setLevel(logging.CRITICAL)  # its errors are raised too


_install_before_import()
with _process_left_alone():
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
    from auto_LiRPA.operators.activation import BoundSigmoid, BoundTanh
_install_after_import(BoundedModule)

_CHECKED = 32  # points of the box, half of them corners
_CHECK_SLACK = 1e-4

_METHODS = {
    Method.IBP: "IBP",
    Method.CROWN: "CROWN",
    Method.ALPHA_CROWN: "CROWN-Optimized",
}


def lirpa_bounds(
    module: nn.Module,
    lower: Tensor,
    upper: Tensor,
    C: Tensor,
    method: Method,
    source: str = "a network",
) -> Tensor:
    """Lower bounds [S] of C @ f(x) over one box; see `lirpa_run`."""
    return lirpa_run(module, lower, upper, C, method, source).lower


class LirpaRun(NamedTuple):
    """`lower`: [S]; `alpha_bytes`: of the α that auto_LiRPA holds when it is done."""

    lower: Tensor
    alpha_bytes: int


def lirpa_run(
    module: nn.Module,
    lower: Tensor,
    upper: Tensor,
    C: Tensor,
    method: Method,
    source: str = "a network",
) -> LirpaRun:
    """Lower bounds of C @ f(x) over one box, by auto_LiRPA's own `compute_bounds`, untouched.

    lower, upper: [*input_shape]; C: [S, outputs], for the flat output. It is what a user has
    today: under torch 2.14 `clamp` has no gradient at its limits, so an α that starts at 0 or 1
    never moves. Raises InstanceError UNSUPPORTED_OPERATOR when auto_LiRPA fails on the network;
    `source` names its file.
    """
    cannot = f"{source}: auto_LiRPA cannot bound this network by {method}; use another strategy"
    with foreign(Cause.UNSUPPORTED_OPERATOR, cannot):
        center = ((lower + upper) / 2)[None]
        box = PerturbationLpNorm(norm=np.inf, x_L=lower[None], x_U=upper[None])
        # Not while tensors are metered: its graph comes out wrong, its tensors not at all.
        with _disable_current_modes():
            bounded = BoundedModule(nn.Sequential(module, nn.Flatten()), center)
            x = BoundedTensor(center, box)
        bounds, _ = bounded.compute_bounds(
            x=(x,), C=C[None], method=_METHODS[method], bound_upper=False
        )
        run = LirpaRun(bounds[0].detach(), _alpha_bytes(bounded))
        _check_bounds(run.lower, module, lower, upper, C)
    return run


def _check_bounds(
    bounds: Tensor, module: nn.Module, lower: Tensor, upper: Tensor, C: Tensor
) -> None:
    """Raises ValueError where the network goes below: auto_LiRPA drops attributes it knows not."""
    generator = torch.Generator(lower.device).manual_seed(0)
    shares = torch.rand(
        _CHECKED, *lower.shape, generator=generator, dtype=lower.dtype, device=lower.device
    )
    shares[: _CHECKED // 2] = shares[: _CHECKED // 2].round()
    with torch.no_grad():
        values = module(lower + shares * (upper - lower)).flatten(1) @ C.T
    least = values.amin(0)
    if (bounds > least + _CHECK_SLACK * values.abs().amax(0).clamp(min=1)).any():
        raise ValueError("its bounds do not hold at points of the box")


def _alpha_bytes(bounded: Any) -> int:
    """α lies in a dict of each relaxed node: a tensor for each start node."""
    alphas = [getattr(node, "alpha", None) for node in bounded._modules.values()]
    tensors = [t for alpha in alphas if isinstance(alpha, dict) for t in alpha.values()]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


@functools.cache
def _s_shape(op: Op, dtype: torch.dtype, device: torch.device) -> Any:
    """A node outside any network; making it computes a table of tangents, hence the cache."""
    kind = {Op.SIGMOID: BoundSigmoid, Op.TANH: BoundTanh}[op]
    node = kind({"device": device}, [], 0, {})
    node.d_lower = node.d_lower.to(dtype)  # the table comes in float32
    node.d_upper = node.d_upper.to(dtype)
    return node


def s_shape_slopes(op: Op, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes of a line below and of one above SIGMOID or TANH, each of the bounds' shape.

    Good for |bounds| <= 500, where auto_LiRPA's table ends.
    """
    node = _s_shape(op, lower.dtype, lower.device)
    interval = types.SimpleNamespace(lower=lower, upper=upper)
    node.init_linear_relaxation(interval)
    node.bound_relax(interval)
    return node.lw, node.uw
