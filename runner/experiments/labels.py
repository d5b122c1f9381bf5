"""`expected.csv` of a trained category, apart from training: what verifier and attack agree on."""

from __future__ import annotations

from pathlib import Path

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Verdict
from runner.contract.whole import replace_file
from runner.execute.gang import RankServer
from runner.experiments.train import CheckedRecipe, violated
from runner.experiments.verified_run import verified_run
from runner.record.read import read_run

EXPECTED = "expected.csv"


def write_labels(checked: CheckedRecipe, server: RankServer) -> Path:
    """`sat`: ONNX Runtime confirmed a counterexample. `unsat`: the verifier proved it, and a long
    attack with another loss and other starts found nothing. `unknown`: anything else.

    Raises UsageError where both contradict each other, which is a defect to be reported.
    """
    run = verified_run(checked, server)
    outcomes = read_run(run).outcomes
    broken: dict[str, set[str]] = {}
    lines = ["category,network,property,verdict"]
    for row in outcomes.to_dict("records"):
        network, asked, verdict = (str(row[key]) for key in ("network", "property", "verdict"))
        if network not in broken:
            broken[network] = violated(checked, Path(network).stem, server)
        if verdict == Verdict.UNSAT and Path(asked).name in broken[network]:
            raise UsageError(
                f"{checked.category}: {network} {asked} was proved, and an attack found a "
                f"violation; please report it, with the run {run}"
            )
        known = verdict if verdict in (Verdict.SAT, Verdict.UNSAT) else Verdict.UNKNOWN
        lines.append(f"{row['category']},{network},{asked},{known}")
    file = checked.category / EXPECTED
    replace_file(file, "\n".join(lines) + "\n")
    return file
