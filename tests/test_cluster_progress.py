"""How a run over a cluster tells how far it is, where there is no terminal."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from runner.cli import cluster_progress
from runner.cli.cluster_progress import ClusterProgress
from runner.contract.vocabulary import Verdict
from runner.run.spread import Standing


def test_lines_tell_verdicts_what_is_left_and_where_shards_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(cluster_progress, "time", SimpleNamespace(monotonic=lambda: now))
    said = StringIO()
    progress = ClusterProgress(Console(file=said, width=200), 8)
    waits = ("shard 1 waits: AssocMaxJobsLimit",)
    one = {Verdict.UNSAT: 1}
    three = {Verdict.UNSAT: 2, Verdict.TIMEOUT: 1}
    eight = {Verdict.UNSAT: 7, Verdict.TIMEOUT: 1}
    both = {"running": 1, "waiting": 1}
    standings = [
        (0, Standing({}, 8, {"waiting": 2}, 0)),
        (5, Standing(one, 8, both, 0, waits)),
        (9, Standing(three, 8, both, 0, waits)),  # too soon for another line
        (15, Standing(three, 8, both, 1, waits)),
        (40, Standing(eight, 8, {"finished": 2}, 1)),
    ]
    for after_s, standing in standings:
        now = 100.0 + after_s
        progress.stands(standing)
    assert said.getvalue().splitlines() == [
        "[0/8]; nothing yet; shards: 2 waiting",
        "shard 1 waits: AssocMaxJobsLimit",
        "[1/8]; 1 unsat; shards: 1 running, 1 waiting",
        "[3/8]; 2 unsat, 1 timeout; about 25.0 s left; shards: 1 running, 1 waiting, lost 1 times",
        "[8/8]; 7 unsat, 1 timeout; shards: 2 finished, lost 1 times",
    ]
