"""`expected.csv` of a trained category, apart from training: what verifier and attack agree on."""

from __future__ import annotations

from pathlib import Path

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Verdict
from runner.execute.gang import RankServer
from runner.experiments.train import Checked, violated
from runner.experiments.verify import verified_run
from runner.record.append import replace_file
from runner.record.read import read_run

EXPECTED, RUN = "expected.csv", "labels"


def write_labels(checked: Checked, server: RankServer) -> Path:
    """`sat`: ONNX Runtime confirmed a counterexample. `unsat`: the verifier proved it, and a long
    attack with another loss and other starts found nothing. `unknown`: anything else.

    Raises UsageError where both contradict each other, which is a defect to be reported.
    """
    run = verified_run(checked, RUN, server)
    outcomes = read_run(run).outcomes
    lines = ["category,network,property,verdict"]
    for name in map(str, outcomes["network"].unique()):
        broken = violated(checked, Path(name).stem, server)
        rows = outcomes[outcomes["network"] == name]
        for row in rows.itertuples():
            found = Path(str(row.property)).name in broken
            if found and row.verdict == Verdict.UNSAT:
                raise UsageError(
                    f"{checked.category}: {name} {row.property} was proved, and an attack "
                    f"found a violation; please report it, with the run {run}"
                )
            decided = row.verdict in (Verdict.SAT, Verdict.UNSAT)
            verdict = row.verdict if decided else Verdict.UNKNOWN
            lines.append(f"{row.category},{name},{row.property},{verdict}")
    file = checked.category / EXPECTED
    replace_file(file, "\n".join(lines) + "\n")
    return file
