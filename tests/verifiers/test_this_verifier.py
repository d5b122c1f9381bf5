"""This verifier asked through its own scripts and command line, as any other verifier is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from competitor import REPOSITORY, SCRIPTS, instances
from fake_tools import write_script
from typer.testing import CliRunner

from runner.cli.app import app
from runner.record.read import read_run

pytestmark = pytest.mark.slow


def ask(folder: Path, rows: Sequence[tuple[Path, Path, str]], tools: str) -> pd.DataFrame:
    """Verdicts of `baseline` and of the tools of a verifiers.toml, a column for each."""
    lines = [f"{network.name},{prop.name},60\n" for network, prop, _ in rows]
    (folder / "instances.csv").write_text("".join(lines))
    (folder / "verifiers.toml").write_text(tools)
    options = ["--strategies", "baseline", "--verifiers", str(folder / "verifiers.toml")]
    options += ["--results", str(folder / "results"), "--run", "run"]
    done = CliRunner().invoke(app, ["run", str(folder), *options])
    assert done.exit_code == 0, done.output
    outcomes = read_run(folder / "results" / "run").outcomes
    return outcomes.pivot(index="property", columns="strategy", values="verdict")


def test_its_scripts_agree_with_a_direct_run(tmp_path: Path) -> None:
    """A harness ends what outlives a script, so no server is kept warm between them."""
    # One of each version of VNN-LIB and each verdict: a cold start takes seconds.
    rows = [row for row in instances(tmp_path) if row[1].stem in ("sat", "unsat2")]
    tool = tmp_path / "scripts"
    tool.mkdir()
    write_script(tool / "install_tool.sh", "true  # the environment of the tests has it")
    for name in ("prepare_instance.sh", "run_instance.sh"):
        write_script(tool / name, f'exec "{SCRIPTS / name}" "$@"')
    settings = {
        "VNNCOMP_RUNNER_PYTHON": sys.executable,
        "VNNCOMP_RUNNER_FOLDER": str(tmp_path / "kept"),
        "VNNCOMP_RUNNER_WARM": "0",
    }
    listed = "\n".join(f'{name} = "{value}"' for name, value in settings.items())
    tools = f'[ours]\nfolder = "scripts"\n[ours.environment]\n{listed}\n'
    verdicts = ask(tmp_path, rows, tools)

    known = {prop.name: verdict for _, prop, verdict in rows}
    assert dict(verdicts["baseline"]) == known
    assert dict(verdicts["ours"]) == known


def test_its_command_line_agrees_with_a_direct_run(tmp_path: Path) -> None:
    rows = [row for row in instances(tmp_path) if row[1].stem.endswith("2")]
    program = "import sys; from runner.cli import main; sys.exit(main())"
    write_script(tmp_path / "ours", f'exec "{sys.executable}" -c \'{program}\' "$@"')
    tools = f'[ours]\ncommand = "ours"\n[ours.environment]\nPYTHONPATH = "{REPOSITORY}"\n'
    verdicts = ask(tmp_path, rows, tools)

    known = {prop.name: verdict for _, prop, verdict in rows}
    assert dict(verdicts["baseline"]) == known
    assert dict(verdicts["ours"]) == known
