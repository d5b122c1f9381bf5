"""ReLU split on real processes: `fsdp` takes the very steps of `baseline`, `tp` has its verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import relu_split_targets
import torch
from small_networks import Builder, SmallNetwork, mlp
from small_onnx import save_small

from runner.engine.network.graph import Op
from runner.engine.network.load import prepare
from runner.execute.gang import Ending, RankServer

Reports = list[dict[str, Any]]
Ranks = Callable[[str, int, int], Reports]
INPUTS, ROOM = 4, 0.2


def bent() -> SmallNetwork:
    """Sigmoids, products and sines between linear layers, no ReLU."""
    builder = Builder((INPUTS,), 3)
    x = builder.pointwise(Op.SIGMOID, builder.linear("x", 8))
    pairs = builder.reshape(builder.linear(x, 8), 2, 4)
    x = builder.add(Op.PRODUCT, (pairs,), (4,))
    x = builder.pointwise(Op.SIN, builder.linear(x, 6))
    builder.linear(x, 2)
    return builder.network()


def relus() -> SmallNetwork:
    return mlp(INPUTS, 16, 16, 2, seed=2)


NETWORKS = {"relu": (relus, ROOM), "bent": (bent, 0.05)}


@pytest.fixture(scope="module", params=NETWORKS)
def ranks(
    request: pytest.FixtureRequest,
    rank_server: RankServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Ranks:
    """The reports of all ranks for a strategy, their number and the domains of a first attempt."""
    folder = tmp_path_factory.mktemp("relu_split")
    make, room = NETWORKS[request.param]
    network = make()
    prepare(save_small(folder / "network.onnx", network), folder / "prepared")
    x = torch.rand(20000, INPUTS, generator=torch.Generator().manual_seed(0)) * 2 - 1
    least = float(network.outputs(x)[:, 0].min())
    (folder / "property.vnnlib").write_text(_property(least - room))

    def run(strategy: str, count: int, trial: int) -> Reports:
        payload = {
            "prepared": str(folder / "prepared"),
            "property": str(folder / "property.vnnlib"),
            "strategy": strategy,
            "trial": trial,
        }
        target = f"{relu_split_targets.__name__}:search"
        gang = folder / f"{strategy}-{count}-{trial}"
        result = rank_server.run(target, payload, count, gang, timeout_s=120)
        assert result.ended is Ending.FINISHED, result
        assert result.dead_rank is None, result.reports
        return [report for report in result.reports if report is not None]

    return run


def _property(threshold: float) -> str:
    """Inputs in [-1, 1]; Y_0 below the threshold is unsafe."""
    names = [f"X_{index}" for index in range(INPUTS)]
    lines = [f"(declare-const {name} Real)" for name in (*names, "Y_0", "Y_1")]
    for name in names:
        lines += [f"(assert (>= {name} -1.0))", f"(assert (<= {name} 1.0))"]
    return "\n".join([*lines, f"(assert (<= Y_0 {threshold:.6f}))", ""])


@pytest.mark.parametrize("trial", [0, 10**6])
def test_fsdp_takes_the_steps_of_baseline_and_tp_has_its_verdict(ranks: Ranks, trial: int) -> None:
    (one,) = ranks("baseline", 1, trial)
    assert one["outcome"] == "proved"
    assert one["history"][-1][0] > 2
    assert ranks("fsdp", 2, trial) == [one, one]
    first, second = ranks("tp", 2, trial)
    assert first == second
    assert first["outcome"] == "proved"
    assert np.isclose(first["history"][0][2], one["history"][0][2], rtol=1e-4)
