"""A counterexample that another verifier claims, and what its replay says of it.

Apart from the replay (`confirm.py`): who starts that need not wait for ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.contract.vocabulary import Cause


@dataclass(frozen=True)
class Claim:
    """Files: of the question, of the counterexample as it was said, where it is written once it is
    confirmed (gzip), and where what was found is written (JSON, a `Checked`).
    """

    network: str
    property: str
    said: str
    counterexample: str
    checked: str


@dataclass(frozen=True)
class Checked:
    """`cause`: what is wrong with a counterexample, NONE where it is confirmed and written."""

    cause: Cause
    message: str = ""
