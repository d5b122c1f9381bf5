"""One program of somebody else's, and the two files that hold what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runner.contract.verifier import Arguments
from runner.execute.program import Program, ProgramEnd, ProgramResult, run_program

_LONGEST_LINE = 300


class Step:
    """`output` and `errors` lie in `home` and are called like the step; they start empty."""

    def __init__(self, home: Path, name: str) -> None:
        self.output = (home / f"{name}.out").absolute()
        self.errors = (home / f"{name}.err").absolute()
        for file in (self.output, self.errors):
            file.write_bytes(b"")

    def run(
        self,
        arguments: Arguments,
        environment: Mapping[str, str],
        folder: Path,
        timeout_s: float,
        memory_limit_bytes: int | None = None,
    ) -> ProgramResult:
        """In `folder`; see `Program`."""
        return run_program(
            Program(
                arguments=arguments,
                environment=dict(environment),
                folder=str(folder.absolute()),
                output=str(self.output),
                errors=str(self.errors),
                timeout_s=timeout_s,
                memory_limit_bytes=memory_limit_bytes,
            )
        )

    @property
    def last_error(self) -> str:
        """The last line on standard error that says anything, or as much of it as a table holds."""
        lines = [line for line in self.errors.read_text(errors="replace").splitlines() if line]
        return lines[-1].strip()[-_LONGEST_LINE:] if lines else ""

    def keep(self, log: Path) -> None:
        """Writes the output and then the errors to `log`, if there is anything."""
        wrote = self.output.read_bytes() + self.errors.read_bytes()
        if wrote:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(wrote)


def how_it_ended(result: ProgramResult) -> str:
    """In words, of a program that did not end well."""
    match result.ended:
        case ProgramEnd.FINISHED if result.exit_code is not None and result.exit_code < 0:
            return f"ended by signal {-result.exit_code}"
        case ProgramEnd.FINISHED:
            return f"exit code {result.exit_code}"
        case ProgramEnd.KILLED_AT_DEADLINE:
            return f"killed after {result.run_time_s:.1f} s"
        case ProgramEnd.OUT_OF_MEMORY:
            return "killed: its processes took more memory than --memory-limit lets them"
        case _:
            return "the process that watches it died"
