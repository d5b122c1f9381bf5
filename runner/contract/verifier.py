"""What answers questions beside our own strategies: a program of somebody else's, as data and as a
protocol. The harness starts it, holds it to its limits and checks every counterexample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from runner.contract.vocabulary import Verdict

Arguments = tuple[str, ...]  # of a process, the program first


@dataclass(frozen=True)
class Tool:
    """Another verifier, as the command names it.

    `name`: what the column `strategy` holds. `path`: absolute, the folder of VNN-COMP's three
    scripts or an executable with the VNN-LIB command line. `arguments` follow those of the
    interface, `environment` is added to that of the harness. `source`: the verifiers.toml that
    says so, empty for --verifier.
    """

    name: str
    path: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Asked:
    """One instance as a program gets it.

    `network`, `property`: plain files, never compressed. `folder`: of this instance alone, where
    the program runs; what it leaves there is thrown away once its answer is read.
    """

    category: str
    network: Path
    property: Path
    timeout_s: float
    folder: Path


class Said(NamedTuple):
    """What a program said, before anything of it was checked.

    `verdict`: None where its answer cannot be read; `message` says why. `counterexample`: the text
    after the verdict.
    """

    verdict: Verdict | None
    counterexample: str = ""
    message: str = ""


class Verifier(Protocol):
    """A kind of programs: how they are called, and how their answers are read."""

    @property
    def tool(self) -> Tool:
        """Which of these programs."""

    def check(self) -> None:
        """Raises UsageError where something of it is missing, with the remedy."""

    def installation(self) -> Arguments:
        """What to run once before anything else; it must be done with exit code 0."""

    def version(self, printed: str) -> str:
        """Which version it is; `printed`: what `installation` wrote to its output."""

    def preparation(self, asked: Asked) -> Arguments | None:
        """What to run before the clock starts, with exit code 0; None where there is nothing."""

    def program(self, asked: Asked) -> Arguments:
        """What answers. Raises InstanceError for a question that it cannot be asked."""

    def read(self, asked: Asked, printed: Path) -> Said:
        """What it answered; `printed`: what `program` wrote to its output."""
