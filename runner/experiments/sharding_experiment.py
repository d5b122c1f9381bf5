"""What sharding buys on trained networks: the same bounds under every strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from runner.contract.vocabulary import Method
from runner.experiments.experiment import (
    REFERENCE,
    Experiment,
    Progress,
    parts_over,
    run_experiment,
)
from runner.experiments.measured_rows import measurements
from runner.experiments.train import CheckedRecipe

_BYTES = ("peak_tensor_bytes", "peak_a_bytes", "peak_alpha_bytes", "weight_bytes", "comm_bytes")
_NEEDED = ("peak_tensor_bytes", "peak_a_bytes")  # told against baseline as well
_KEYS = ("bounds_method", "method", "radius", "strategy", "ranks")


@dataclass(frozen=True)
class ShardedBounds:
    """What is bounded. `filter`: a glob of questions, None for all; `timeout_s`: of one of them."""

    methods: tuple[Method, ...]
    strategies: tuple[str, ...]
    ranks: tuple[int, ...]
    filter: str | None = None
    timeout_s: float = 600.0

    def experiment(self, category: Path) -> Experiment:
        parts = parts_over(self.methods, self.ranks, self.strategies, [category])
        return Experiment("memory", tuple(parts), self.timeout_s, filter=self.filter)


def bound_sharded(
    checked: CheckedRecipe, asked: ShardedBounds, folder: Path, progress: Progress
) -> pd.DataFrame:
    """A row for each question, method of bounds, strategy and number of ranks, in `folder`, of
    networks that are trained. Does what is not done yet. Columns: see `with_training`.

    Raises UsageError, as where `folder` holds something else.
    """
    experiment = asked.experiment(checked.category)
    run_experiment(experiment, folder, progress)
    return with_training(measurements(experiment, folder), pd.read_csv(checked.figures))


def with_training(measured: pd.DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """Measurements (runner.experiments.measured_rows) beside how each network was trained.

    `bounds_method` is what bounded, `method` what trained. `rows`: of A, over all start nodes.
    """
    told = measured.rename(columns={"method": "bounds_method"}).assign(
        network=[Path(str(name)).stem for name in measured["network"]],
        radius=[float(Path(str(name)).stem.rsplit("_", 1)[-1]) for name in measured["property"]],
    )
    return told.merge(figures[["network", "radius", "method", "seed"]], on=["network", "radius"])


def sharding_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each method of bounds, training method, radius, strategy and number of ranks.

    Bytes and rows are means over questions; `*_of_baseline`: against the same networks on one rank.
    Only questions that were bounded under each strategy count, so that all have the same.
    """
    complete = _bounded_everywhere(rows).sort_values(
        "bounds_method", key=lambda names: names.map(list(Method).index), kind="stable"
    )
    frame = pd.DataFrame(
        [
            {**dict(zip(_KEYS, key, strict=True)), **_mean(part)}
            for key, part in complete.groupby(list(_KEYS), sort=False)
        ]
    )
    whole = frame[frame["strategy"] == REFERENCE].set_index(["bounds_method", "method", "radius"])
    for name in _NEEDED:
        against = [
            whole[name].get((row["bounds_method"], row["method"], row["radius"]), np.nan)
            for row in frame.to_dict("records")
        ]
        frame[f"{name}_of_baseline"] = frame[name] / pd.Series(against, index=frame.index)
    return frame


def _bounded_everywhere(rows: pd.DataFrame) -> pd.DataFrame:
    question: Sequence[str] = ["bounds_method", "network", "property"]
    open_ = rows["peak_tensor_bytes"].isna() | rows["rows"].isna()
    left_out = open_.groupby([rows[name] for name in question]).transform("any")
    kept: pd.DataFrame = rows[~left_out]
    return kept


def _mean(part: pd.DataFrame) -> dict[str, float]:
    return {
        "questions": len(part),
        "rows": part["rows"].mean(),
        **{name: part[name].mean() for name in _BYTES},
        "greatest_relative": part["greatest_relative"].max(),
        "cpu_s": part["cpu_s"].mean(),
    }
