"""What training methods buy: the networks of a recipe trained, verified, bounded and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open

from runner.contract.vocabulary import Method, Verdict
from runner.execute.gang import RankServer
from runner.experiments.experiment import TARGET as BOUND
from runner.experiments.train import CheckedRecipe
from runner.experiments.verified_run import Observed, verified_run
from runner.problem.names import instance_name
from runner.record.folder import bounds_path
from runner.record.read import Run, read_run

BASELINE = "baseline"
STANDARD = "standard"  # the method that speed is told against
KEYS = ["method", "radius", "strategy"]
SPREAD = (
    "clean_accuracy",
    "pgd_accuracy",
    "stable",
    "verified_accuracy",
    "unsat",
    "speed_up",
    "cpu_speed_up",
    "proving_speed_up",
    "training_s",
)


@dataclass(frozen=True)
class TrainingComparison:
    """How the networks of a recipe are verified. `timeout_s`: None for the recipe's own."""

    strategies: tuple[str, ...] = (BASELINE,)
    ranks: int = 2
    timeout_s: float | None = None


def compare(
    checked: CheckedRecipe,
    comparison: TrainingComparison,
    server: RankServer,
    observed: Observed,
) -> pd.DataFrame:
    """A row for each question to the networks, which are trained. Does what is not done yet.

    Columns: those of networks.csv (see runner.training.export), `strategy`, `property`, `verdict`,
    `time_s`, `cpu_s` (of all ranks), `proving_s` (each the limit where nothing was decided), and
    `stable`, the share of ReLUs whose sign CROWN proves.
    """
    verified = verified_run(
        checked,
        server,
        observed,
        strategies=comparison.strategies,
        ranks=comparison.ranks,
        timeout_s=comparison.timeout_s,
    )
    bounded = verified_run(checked, server, observed, method=Method.CROWN, target=BOUND)
    return questions(pd.read_csv(checked.figures), verified, bounded)


def questions(figures: pd.DataFrame, verified: Path, bounded: Path) -> pd.DataFrame:
    """See `compare`; of `networks.csv` and two run folders."""
    run = read_run(verified)
    outcomes = run.outcomes
    decided = outcomes["verdict"].isin([Verdict.SAT, Verdict.UNSAT])
    frame = pd.DataFrame(
        {
            "network": [Path(str(name)).stem for name in outcomes["network"]],
            "radius": [_radius(str(name)) for name in outcomes["property"]],
            "property": outcomes["property"].astype(str),
            "strategy": outcomes["strategy"].astype(str),
            "verdict": outcomes["verdict"].astype(str),
            "time_s": outcomes["run_time_s"].where(decided, outcomes["timeout_s"]).astype(float),
            "cpu_s": outcomes["cpu_s"].where(decided, outcomes["timeout_s"]).astype(float),
        }
    )
    frame["proving_s"] = _proving(run).where(decided, outcomes["timeout_s"]).to_numpy(float)
    told = read_run(bounded).outcomes
    stable = pd.DataFrame(
        {
            "network": [Path(str(name)).stem for name in told["network"]],
            "property": told["property"].astype(str),
            "stable": [
                _stable(bounds_path(bounded, BASELINE, home, instance_name(network, name)))
                for home, network, name in zip(
                    *(told[column].astype(str) for column in ("category", "network", "property")),
                    strict=True,
                )
            ],
        }
    )
    with_stable = frame.merge(stable, on=["network", "property"], how="left")
    return figures.merge(with_stable, on=["network", "radius"], how="left")


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, radius and strategy, over the questions of all seeds together.

    `verified_accuracy`: proved images by all images of the category, right or not; `unsat`: by
    its instances. `speed_up`: the total time of `standard` by the method's, over the questions
    that both have; `cpu_speed_up`: likewise of processor time, which other work on the machine
    changes little; `proving_speed_up`: of bounds and branch and bound alone, over those that are
    violated for neither, since what one attack finds at once is no proof. `*_least`, `*_most`: of
    single seeds, for SPREAD.
    """
    told = _over(rows, KEYS)
    seeds = _over(rows, [*KEYS, "seed"]).groupby(KEYS, sort=False, dropna=False)[list(SPREAD)]
    least, most = seeds.min().add_suffix("_least"), seeds.max().add_suffix("_most")
    return told.merge(least.join(most).reset_index(), on=KEYS, how="left")


def _over(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """A row for each group."""
    found = [
        {**dict(zip(keys, key, strict=True)), **_summed(part), **_speed_ups(part, rows)}
        for key, part in rows.groupby(keys, sort=False, dropna=False)
    ]
    return pd.DataFrame(found)


def _summed(part: pd.DataFrame) -> dict[str, float]:
    by_network, asked = part.groupby("network").first(), _asked(part)
    unsat = asked["verdict"] == Verdict.UNSAT
    return {
        "networks": len(by_network),
        "instances": len(asked),
        "clean_accuracy": by_network["clean_accuracy"].mean(),
        "pgd_accuracy": by_network["pgd_accuracy"].mean(),
        "stable": asked["stable"].mean(),
        "verified_accuracy": unsat.sum() / by_network["images"].sum(),
        "unsat": unsat.mean(),
        "sat": (asked["verdict"] == Verdict.SAT).mean(),
        "mean_s": asked["time_s"].mean(),
        "median_s": asked["time_s"].median(),
        "cpu_mean_s": asked["cpu_s"].mean(),
        "proving_mean_s": asked["proving_s"].mean(),
        "training_s": by_network["training_s"].mean(),
        "training_peak_bytes": by_network["training_peak_bytes"].max(),
    }


def _asked(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the row of a network that classifies no chosen image right, and has no question."""
    return rows[rows["property"].notna()]


def _speed_ups(part: pd.DataFrame, rows: pd.DataFrame) -> dict[str, float]:
    question = ["seed", "strategy", "property"]
    standard = _asked(rows[rows["method"] == STANDARD])
    both = _asked(part).merge(standard, on=question, suffixes=("", "_standard"))
    held = both[(both["verdict"] != Verdict.SAT) & (both["verdict_standard"] != Verdict.SAT)]
    return {
        name: _quotient(shared[f"{time}_standard"].sum(), shared[time].sum())
        for name, shared, time in (
            ("speed_up", both, "time_s"),
            ("cpu_speed_up", both, "cpu_s"),
            ("proving_speed_up", held, "proving_s"),
        )
    }


def _quotient(one: float, other: float) -> float:
    return one / other if other else np.nan


def _proving(run: Run) -> pd.Series[float]:
    """Seconds that bounds and branch and bound took the slowest rank, of each outcome."""
    key = ["category", "network", "property", "strategy"]
    phases = run.ranks[[*key, "incomplete_s", "complete_s"]].copy()
    phases["proving_s"] = phases[["incomplete_s", "complete_s"]].astype(float).sum(axis=1)
    slowest = phases.groupby(key, sort=False)["proving_s"].max().reset_index()
    joined = run.outcomes[key].merge(slowest, on=key, how="left")
    return joined["proving_s"].fillna(0.0)


def _radius(name: str) -> float:
    return float(Path(name).stem.rsplit("_", 1)[-1])


def _stable(bounds: Path) -> float:
    """Of all ReLUs, by the bounds of what they give: above 0, or nothing but 0."""
    if not bounds.exists():
        return np.nan
    known: list[np.ndarray] = []
    with safe_open(bounds, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            if name.startswith("relu") and name.endswith(".lower"):
                upper = file.get_tensor(name.replace(".lower", ".upper"))
                known.append(((file.get_tensor(name) > 0) | (upper <= 0)).ravel())
    return float(np.concatenate(known).mean()) if known else np.nan
