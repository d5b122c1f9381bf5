"""Makes benchmarks/random_wide, whose network is not stored: `python scripts/random_wide.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.training.categories.random_wide import write_random_wide

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write the category.")] = BENCHMARKS
    / "random_wide",
) -> None:
    """Write the category with the wide network, the same bytes every time."""
    write_random_wide(folder)


if __name__ == "__main__":
    typer.run(main)
