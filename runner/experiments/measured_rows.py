"""An experiment's folder as one DataFrame: what every strategy cost, and how its bounds differ."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from runner.experiments.experiment import REFERENCE, Experiment
from runner.problem.names import instance_name
from runner.record.folder import bounds_path
from runner.record.read import read_run

Bounds = dict[str, NDArray[np.float32]]

QUESTION = ["category", "network", "property", "method"]
_WORST = {
    "weight_bytes": "max",
    "peak_tensor_bytes": "max",
    "peak_weight_bytes": "max",
    "peak_a_bytes": "max",
    "peak_alpha_bytes": "max",
    "peak_beta_bytes": "max",
    "peak_bounds_bytes": "max",
    "peak_other_bytes": "max",
    "peak_rss_bytes": "max",
    "incomplete_s": "max",
    "complete_s": "max",
    "cpu_s": "max",
    "comm_bytes": "mean",
    "comm_s": "mean",
    "device": "first",
}
_SEARCH = ["domains", "rounds", "domains_per_s"]
_TIMES = ["incomplete_s", "complete_s", "cpu_s", "comm_s", "domains_per_s"]
_RATIOS = (
    "peak_tensor_bytes",
    "weight_bytes",
    "incomplete_s",
    "kept_bytes",
    "multiplier_bytes",
    "domains_per_s",
)


def measurements(experiment: Experiment, folder: Path) -> pd.DataFrame:
    """A row per question, strategy and number of ranks; of repeats the median.

    Bytes and seconds of bounding and of searching are the worst rank's, traffic is the mean of
    ranks. `kept_bytes`: A and α; `multiplier_bytes`: α and β. `*_ratio`: against the reference on
    one rank. Differences are of lower and upper bounds of all nodes and
    of the specs (`spec_*`: of those alone), NaN for what a strategy does not give.
    """
    frames = [_part(folder / part.name, str(part.method)) for part in experiment.parts]
    frame = pd.concat(frames, ignore_index=True)
    frame["network"] = pd.Categorical(frame["network"], frame["network"].unique())
    frame = frame.sort_values(["network", "method", "ranks"], kind="stable", ignore_index=True)
    frame["network"] = frame["network"].astype(str)
    reference = frame[frame["strategy"] == REFERENCE].set_index(QUESTION)
    records = cast(list[dict[str, Any]], frame.to_dict("records"))
    rows = [_compared(row, reference) for row in records]
    return pd.DataFrame(rows)


def _part(run_folder: Path, method: str) -> pd.DataFrame:
    run = read_run(run_folder)
    key = ["category", "network", "property", "strategy", "ranks", "repeat"]
    ranks = run.ranks.groupby(key, sort=False).agg(_WORST).reset_index()
    told = run.outcomes[[*key, "verdict", "cause", "message", "lower_bound", *_SEARCH]]
    joined = told.merge(ranks, on=key, how="left")
    first = joined[joined["repeat"] == 1].copy()
    spent = joined.groupby(key[:-1], sort=False)[_TIMES].median()
    first[_TIMES] = spent.loc[pd.MultiIndex.from_frame(first[key[:-1]])].to_numpy()
    first["method"] = method
    # Not measured is NaN from here on: it passes through arithmetic.
    numbers = [*(name for name, how in _WORST.items() if how != "first")]
    numbers += ["lower_bound", *_SEARCH]
    first[numbers] = first[numbers].astype(float)
    first["kept_bytes"] = first["peak_a_bytes"] + first["peak_alpha_bytes"]
    first["multiplier_bytes"] = first["peak_alpha_bytes"] + first["peak_beta_bytes"]
    first["bounds"] = [
        str(
            bounds_path(
                run_folder,
                row["strategy"],
                row["category"],
                instance_name(row["network"], row["property"]),
            )
        )
        for row in first.to_dict("records")
    ]
    return first


def _compared(row: dict[str, Any], reference: pd.DataFrame) -> dict[str, Any]:
    facts = _facts(Path(row["bounds"]))
    question = tuple(row[name] for name in QUESTION)
    compared = {**row, **facts}
    if question in reference.index:
        against = reference.loc[question]
        compared |= bound_differences(row["bounds"], str(against["bounds"]))
        for name in _RATIOS:
            compared[f"{name}_ratio"] = row[name] / against[name] if against[name] else np.nan
        compared["speedup"] = against["incomplete_s"] / row["incomplete_s"]
        compared["efficiency"] = compared["speedup"] / row["ranks"]
    return compared


def _facts(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    with safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
    return {name: json.loads(value) for name, value in metadata.items()}


def bound_differences(one: str, other: str) -> dict[str, float]:
    """How far the bounds of file `one` are from those of `other`, which are the reference.

    Empty where they share none. `greatest_relative`: as a share of the greater of a neuron's two
    bounds in `other`, at least 1; `spec_lost`: by how much a row's bound is lower in `one`.
    """
    ours, theirs = _read(one), _read(other)
    shared = [name for name in ours if name in theirs]
    if not shared:
        return {}
    difference = {name: np.abs(ours[name] - theirs[name]) for name in shared}
    relative = [(gap / _scale(theirs, name)).ravel() for name, gap in difference.items()]
    lost = theirs["specs"] - ours["specs"]
    return {
        "greatest_difference": float(max(gap.max() for gap in difference.values())),
        "greatest_relative": float(np.concatenate(relative).max()),
        "spec_greatest": float(np.abs(lost).max()),
        "spec_lost": float(lost.max()),
        "spec_mean_lost": float(lost.mean()),
        "worst_spec": float(ours["specs"].min()),
    }


def _scale(bounds: Bounds, name: str) -> NDArray[Any]:
    """The magnitude of what a bound is about: the greater of a neuron's two bounds, at least 1.

    A bound near 0 of a neuron that takes values up to 200 is a sum of terms of that size.
    """
    node, dot, _ = name.rpartition(".")
    sides = [bounds[f"{node}.{end}"] for end in ("lower", "upper")] if dot else [bounds[name]]
    scale: NDArray[Any] = np.maximum(1.0, np.max(np.abs(sides), axis=0))
    return scale


@cache
def _read(path: str) -> Bounds:
    if not Path(path).exists():
        return {}
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
