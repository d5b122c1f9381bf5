"""What an engine adds to a run, and that a killed shard changes nothing: prints a table.

The same categories are run here, and on each engine twice: undisturbed, and with a shard killed by
SIGKILL once it has recorded a row. Engines have to be there (SLURM: where `sbatch` works; Ray:
`--cluster address=HOST:PORT`).

    python scripts/cluster_cost.py --engines local,slurm --out results/cluster_cost
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import typer

from runner.record.read import read_run
from runner.record.shards import SHARDS

QUESTION = ["category", "network", "property", "strategy"]
HEAD = "| engine | shard killed | wall-clock | added | rows | lost | verdicts | bounds |"


@dataclass(frozen=True)
class Ran:
    """One run. `wall_s`: of the whole command; `killed`: the rows that the shard had then."""

    engine: str
    folder: Path
    wall_s: float
    killed: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("categories", nargs="*", default=["instances.csv"])
    parser.add_argument("--engines", default="local", help="of local, slurm, ray")
    parser.add_argument("--strategies", default="baseline,fsdp,tp")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--cluster", action="append", default=[], help="as of `run`")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the runs")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "runner.cli", "run", *asked.categories]
    command += ["--strategies", asked.strategies, "--results", str(asked.out)]
    here = run(command, asked.out, "here")
    typer.echo(f"{HEAD}\n| --- | --- | ---: | ---: | ---: | ---: | --- | --- |")
    tell(here, here)
    for engine in asked.engines.split(","):
        on = ["--on", engine, "--shards", str(asked.shards)]
        on += [word for option in asked.cluster for word in ("--cluster", option)]
        for kill in (False, True):
            tell(here, run([*command, *on], asked.out, engine, kill=kill))


def run(command: Sequence[str], out: Path, engine: str, *, kill: bool = False) -> Ran:
    """Raises SystemExit for a command that fails."""
    name = f"{engine}-killed" if kill else engine
    out.mkdir(parents=True, exist_ok=True)
    began, killed = time.monotonic(), None
    with (out / f"{name}.log").open("w") as log:
        process = subprocess.Popen([*command, "--run", name], stdout=log, stderr=log)
        while process.poll() is None:
            if kill and killed is None:
                killed = killed_shard(out / name)
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args)}: exit code {process.returncode}, see {out}")  # type: ignore[arg-type]
    return Ran(engine, out / name, time.monotonic() - began, killed)


def killed_shard(run_folder: Path) -> int | None:
    """Kills the program of the first shard that has recorded a row, and gives how many it had."""
    for table in sorted(run_folder.glob(f"{SHARDS}/*/outcomes.csv")):
        rows = table.read_bytes().count(b"\n") - 1
        words = ["shard", str(run_folder.absolute()), str(int(table.parent.name))]
        for process in psutil.process_iter(["cmdline", "name"]):
            mine = (process.info["cmdline"] or [])[-3:] == words
            if rows > 0 and mine and process.info["name"] != "bash":
                process.kill()
                return rows
    return None


def tell(here: Ran, ran: Ran) -> None:
    """A row of the table."""
    reference, found = (read_run(one.folder).outcomes for one in (here, ran))
    pairs = reference.merge(found, on=QUESTION, how="outer", suffixes=("", "_there"))
    once = len(found) == len(found[QUESTION].drop_duplicates()) == len(pairs)
    lost = sum(max(0, count - 1) for count in starts(ran.folder).values())
    cells = (
        ran.engine,
        "" if ran.killed is None else f"after {ran.killed} rows",
        f"{ran.wall_s:.1f} s",
        f"{ran.wall_s - here.wall_s:+.1f} s",
        f"{len(found)}, each once" if once else f"{len(found)}, NOT each once",
        str(lost),
        same(pairs, "verdict"),
        same(pairs, "lower_bound"),
    )
    typer.echo(f"| {' | '.join(cells)} |")


def starts(run_folder: Path) -> dict[int | None, int]:
    """How often each shard began on a node."""
    counted: dict[int | None, int] = {}
    for node in read_run(run_folder).manifest.nodes:
        counted[node.shard] = counted.get(node.shard, 0) + 1
    return counted


def same(pairs: pd.DataFrame, column: str) -> str:
    one, other = pairs[column], pairs[f"{column}_there"]
    differ = int((~((one == other) | (one.isna() & other.isna())).fillna(False)).sum())
    return "equal" if not differ else f"{differ} differ"


if __name__ == "__main__":
    main()
