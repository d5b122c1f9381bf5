"""A verdict in the words of VNN-COMP or VNN-LIB on the first line, and a counterexample below."""

from __future__ import annotations

from pathlib import Path

from runner.contract.verifier import Said
from runner.contract.vocabulary import Verdict

LARGEST_ANSWER = 64 * 2**20  # bytes; no counterexample of VNN-COMP comes near
_SHOWN = 80

_WORDS = {
    "sat": Verdict.SAT,
    "violated": Verdict.SAT,
    "unsat": Verdict.UNSAT,
    "holds": Verdict.UNSAT,
    "unknown": Verdict.UNKNOWN,
    "timeout": Verdict.TIMEOUT,
    "timed-out": Verdict.TIMEOUT,
    "error": Verdict.ERROR,
}


def read_answer(path: Path, what: str) -> Said:
    """The answer in a file, which `what` names in messages."""
    if not path.is_file():
        return Said(None, message=f"{what} was not written")
    with path.open("rb") as file:
        content = file.read(LARGEST_ANSWER + 1)
    if len(content) > LARGEST_ANSWER:
        return Said(None, message=f"{what} has more than {LARGEST_ANSWER:,} bytes")
    text = content.decode("utf-8-sig", errors="replace").strip()
    if not text:
        return Said(None, message=f"{what} is empty")
    first, _, rest = text.partition("\n")
    verdict = _WORDS.get(first.strip().lower())
    if verdict is None:
        known = ", ".join(_WORDS)
        shown = first.strip()[:_SHOWN]
        return Said(None, message=f"{what} begins with {shown!r}, none of {known}")
    return Said(verdict, rest.strip())
