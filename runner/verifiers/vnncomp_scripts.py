"""Any tool with VNN-COMP's three scripts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from runner.contract.errors import UsageError
from runner.contract.verifier import Arguments, Asked, Said, Tool
from runner.verifiers.answer import read_answer

INSTALL, PREPARE, RUN = "install_tool.sh", "prepare_instance.sh", "run_instance.sh"
SCRIPTS = (INSTALL, PREPARE, RUN)

_PROTOCOL = "v1"
_RESULTS = "results.txt"
_DIGITS = 12


@dataclass(frozen=True)
class VnncompScripts:
    """`tool.path` is the folder of the scripts."""

    tool: Tool

    def check(self) -> None:
        folder = Path(self.tool.path)
        if not folder.is_dir():
            raise UsageError(
                f"verifier {self.tool.name}: {folder} does not exist; name a folder with "
                f"{', '.join(SCRIPTS)}, or an executable with the VNN-LIB command line"
            )
        for script in SCRIPTS:
            if not (folder / script).is_file():
                raise UsageError(
                    f"verifier {self.tool.name}: {folder} has no {script}; it needs the three "
                    f"scripts of VNN-COMP: {', '.join(SCRIPTS)}"
                )
            if not os.access(folder / script, os.X_OK):
                raise UsageError(
                    f"verifier {self.tool.name}: {folder / script} is not executable; "
                    f"run: chmod +x {folder / script}"
                )

    def installation(self) -> Arguments:
        return (self._script(INSTALL), _PROTOCOL)

    def version(self, printed: str) -> str:
        """The scripts say none: a digest of them, which pins whatever they pin."""
        digest = hashlib.sha256()
        for script in SCRIPTS:
            digest.update(Path(self._script(script)).read_bytes())
        return f"scripts {digest.hexdigest()[:_DIGITS]}"

    def preparation(self, asked: Asked) -> Arguments | None:
        return (self._script(PREPARE), _PROTOCOL, *_question(asked), *self.tool.arguments)

    def program(self, asked: Asked) -> Arguments:
        results, timeout = str(asked.folder / _RESULTS), _seconds(asked.timeout_s)
        call = (self._script(RUN), _PROTOCOL, *_question(asked), results, timeout)
        return (*call, *self.tool.arguments)

    def read(self, asked: Asked, printed: Path) -> Said:
        return read_answer(asked.folder / _RESULTS, "the results file")

    def _script(self, name: str) -> str:
        return str(Path(self.tool.path) / name)


def _question(asked: Asked) -> Arguments:
    return (asked.category, str(asked.network), str(asked.property))


def _seconds(timeout_s: float) -> str:
    """As instances.csv writes them: whole where they are."""
    return str(int(timeout_s)) if timeout_s == int(timeout_s) else str(timeout_s)
