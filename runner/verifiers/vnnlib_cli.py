"""Any tool with the command line of the VNN-LIB standard, version 2.0."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from runner.contract.errors import InstanceError, UsageError
from runner.contract.verifier import Arguments, Asked, Said, Tool
from runner.contract.vocabulary import Cause
from runner.verifiers.answer import read_answer

_COMMENT = re.compile(r";[^\n]*")
_NETWORK = re.compile(r"\(\s*declare-network\s+([^\s()]+)")


@dataclass(frozen=True)
class VnnlibCli:
    """`tool.path` is the executable; its arguments come before the command."""

    tool: Tool

    def check(self) -> None:
        path = Path(self.tool.path)
        if not path.is_file():
            raise UsageError(f"verifier {self.tool.name}: no file {path}; name an executable")
        if not os.access(path, os.X_OK):
            raise UsageError(
                f"verifier {self.tool.name}: {path} is not executable; run: chmod +x {path}"
            )

    def installation(self) -> Arguments:
        """Nothing is left to install: that it can say its version shows that it starts."""
        return (*self._start(), "--version")

    def version(self, printed: str) -> str:
        lines = printed.strip().splitlines()
        return lines[0].strip() if lines else "unknown"

    def preparation(self, asked: Asked) -> Arguments | None:
        return None

    def program(self, asked: Asked) -> Arguments:
        """The standard has whole seconds; the harness holds the program to the exact ones."""
        network = f"{_network_name(asked.property)}={asked.network}"
        call = ("verify", str(asked.property), "--network", network)
        return (*self._start(), *call, "--timeout", str(math.ceil(asked.timeout_s)))

    def read(self, asked: Asked, printed: Path) -> Said:
        return read_answer(printed, "its standard output")

    def _start(self) -> Arguments:
        return (self.tool.path, *self.tool.arguments)


def _network_name(query: Path) -> str:
    """What the query calls its network.

    Raises InstanceError UNSUPPORTED_PROPERTY for a query of VNN-LIB 1.0, which has no name for it
    and is nothing that this command line takes.
    """
    declared = _NETWORK.search(_COMMENT.sub("", query.read_text(errors="replace")))
    if declared is None:
        raise InstanceError(
            Cause.UNSUPPORTED_PROPERTY,
            f"{query.name}: declares no network, so it is no query of VNN-LIB 2.0, which alone "
            "this verifier's command line takes; use a category of version 2.0",
        )
    return declared[1]
