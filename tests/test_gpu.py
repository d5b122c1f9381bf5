"""On a GPU: answers as on the CPU, its memory measured and limited, ranks that share it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from test_end_to_end import BENCHMARKS, SAT, UNSAT, category, rows, run

from runner.contract.vocabulary import Meter
from runner.problem.instances import Instance, read_category

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

SHARED = ("fsdp", "tp", "sp", "dp", "fsdp+sp", "fsdp+dp", "sp+dp", "tp-ibp")
ALONE = ("baseline", "offload", "lirpa", "baseline+checkpoint")


@pytest.mark.parametrize(("strategies", "ranks"), [(ALONE, 1), (SHARED, 2), (SHARED, 3)])
def test_every_strategy_decides_as_on_the_cpu(
    strategies: tuple[str, ...], ranks: int, tmp_path: Path
) -> None:
    small = category(tmp_path / "small", UNSAT, SAT)
    names = ",".join(strategies)
    run(small, tmp_path / "gpu", "--strategies", names, "--ranks", ranks, "--device", "cuda")
    found = rows(tmp_path / "gpu")
    assert len(found) == 2 * len(strategies)
    for row in found:
        expected = "unsat" if "0.04" in row["property"] else "sat"
        assert row["verdict"] == expected, row
    for row in rows(tmp_path / "gpu", "ranks.csv"):
        assert row["device"] == "cuda:0"
        assert int(row["peak_gpu_allocated_bytes"]) >= int(row["weight_bytes"] or 0) > 0
        assert int(row["peak_gpu_reserved_bytes"]) >= int(row["peak_gpu_allocated_bytes"])
    assert {row["meter"] for row in found} == {Meter.CUDA}


@pytest.mark.parametrize("name", ["digits_cnn", "digits_resnet", "car_following"])
def test_the_embedded_categories_are_decided_as_on_the_cpu(name: str, tmp_path: Path) -> None:
    with (BENCHMARKS / "expected.csv").open(newline="") as file:
        known = {
            (row["network"], row["property"]): row["verdict"]
            for row in csv.DictReader(file)
            if row["category"] == name
        }
    run(BENCHMARKS / name, tmp_path, "--strategies", "baseline", "--device", "cuda")
    found = {(row["network"], row["property"]): row["verdict"] for row in rows(tmp_path)}
    assert len(found) == sum(isinstance(i, Instance) for i in read_category(BENCHMARKS / name))
    for asked, verdict in found.items():
        # `unknown` there: what no tool was asked to decide.
        assert known[asked] in ("unknown", verdict), asked


def test_a_rank_beyond_its_limit_is_out_of_memory_and_the_next_instance_runs(
    tmp_path: Path,
) -> None:
    small = category(tmp_path / "small", UNSAT)
    one = ["--device", "cuda", "--strategies", "baseline"]
    output = run(small, tmp_path / "tight", *one, "--memory-limit", 0.00001)
    (row,) = rows(tmp_path / "tight")
    assert (row["verdict"], row["cause"]) == ("error", "out_of_memory"), output
    run(small, tmp_path / "wide", *one, "--memory-limit", 8)
    (row,) = rows(tmp_path / "wide")
    assert row["verdict"] == "unsat"


def test_the_run_says_which_gpu_it_ran_on(tmp_path: Path) -> None:
    run(category(tmp_path / "small", UNSAT), tmp_path, "--strategies", "null")
    (gpu, *_) = json.loads((tmp_path / "run" / "run.json").read_text())["gpus"]
    assert gpu["name"] == torch.cuda.get_device_name(0)
