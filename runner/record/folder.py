"""One run's folder: created once, appended to by one process, resumed by the same command.

The row in outcomes.csv is the commit record of a question: the official row and the rank rows
are written before it. What a kill leaves without a commit is removed when the run is resumed.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Meter, Verdict
from runner.contract.whole import remove_drafts, replace_file
from runner.record.append import (
    append_line,
    disk_full_named,
    is_disk_full,
    whole_lines,
)
from runner.record.lock import exclusive
from runner.record.manifest import (
    FILE_NAME,
    ClusterNode,
    Command,
    Manifest,
    Status,
    describe,
    read_manifest,
)
from runner.record.schema import (
    Key,
    Outcome,
    RankRow,
    Row,
    columns,
    csv_line,
    format_row,
    header,
    parse_row,
)

OUTCOMES = "outcomes.csv"
RANKS = "ranks.csv"
OFFICIAL = "results.csv"

_LEAST_ROOM = 2**20  # bytes; less than a rank's log and report may need
_LONGEST_NAME = 200  # bytes; a file name may have 255, and suffixes are added


class RunInUseError(UsageError):
    """Another process appends to the run folder."""


class RunFolder:
    """An open run: `done` says what need not be run again, `record` adds a row to the tables."""

    def __init__(self, path: Path, manifest: Manifest, resume: str) -> None:
        self.path = path
        self.manifest = manifest
        self.resume_command = resume
        self._done: dict[Key, Verdict] = {}
        self._meters: set[Meter] = set()
        with self.disk_full_named():
            self._recover()

    @property
    def done(self) -> Mapping[Key, Verdict]:
        """What need not be run again, and what was said of it."""
        return self._done

    def record(self, outcome: Outcome, ranks: Sequence[RankRow]) -> None:
        """Appends one question's rows to every table; the question is done when this returns.

        Raises DiskFullError, after which the folder can be resumed.
        """
        official = self._official(outcome.strategy, outcome.category)
        with self.disk_full_named():
            official.parent.mkdir(parents=True, exist_ok=True)
            if outcome.repeat == 1:
                append_line(official, official_row(outcome))
            if ranks:
                append_line(self.path / RANKS, "".join(map(format_row, ranks)))
            append_line(self.path / OUTCOMES, format_row(outcome))
        self._done[outcome.key()] = outcome.verdict
        self._meters.add(outcome.meter)

    def counterexample(self, strategy: str, category: str, name: str) -> Path:
        """Where the counterexample of the instance called `name` belongs."""
        return self.path / strategy / category / f"{file_name(name)}.counterexample.gz"

    def bounds(self, strategy: str, category: str, name: str) -> Path:
        """Where an experiment's bounds of the instance called `name` belong."""
        return bounds_path(self.path, strategy, category, name)

    def log(self, strategy: str, category: str, name: str, rank: int) -> Path:
        """Where what one rank of the instance called `name` said belongs."""
        return self.path / "logs" / strategy / category / f"{file_name(name)}.rank{rank}.log"

    def preparation_log(self, strategy: str, category: str, name: str) -> Path:
        """Where what preparing the instance called `name` for another verifier said belongs."""
        return self.path / "logs" / strategy / category / f"{file_name(name)}.prepare.log"

    def claim(self, strategy: str, category: str, name: str) -> Path:
        """Where a counterexample that another verifier claims and that does not hold belongs."""
        return self.path / "logs" / strategy / category / f"{file_name(name)}.claimed.txt"

    def installation(self, name: str) -> Path:
        """The folder that tells how the verifier called `name` was installed."""
        return self.path / "logs" / name

    def note_version(self, name: str, version: str) -> None:
        """Says in run.json which version of another verifier runs."""
        self.manifest = self.manifest.with_version(name, version)
        with self.disk_full_named():
            self.manifest.write(self.path)

    def take_options(self, command: Command) -> None:
        """Of the same command, those that may differ from time to time."""
        self.manifest = replace(self.manifest, command=command)
        with self.disk_full_named():
            self.manifest.write(self.path)

    def note_node(self, node: ClusterNode) -> None:
        """Says in run.json that this machine runs the shard from here on."""
        self.manifest = replace(self.manifest, nodes=(*self.manifest.nodes, node))
        with self.disk_full_named():
            self.manifest.write(self.path)

    def progress(self, strategy: str, category: str, name: str) -> Path:
        """Where the history of the branch and bound on the instance called `name` belongs."""
        return self.path / "logs" / strategy / category / f"{file_name(name)}.progress.csv"

    def disk_full_named(self) -> AbstractContextManager[None]:
        """Turns "no space left" into a DiskFullError that says how to go on."""
        return disk_full_named(self.path, f"free some, then resume with: {self.resume_command}")

    def check_room(self) -> None:
        """Raises DiskFullError when the disk has no room for anything that matters."""
        with self.disk_full_named():
            if shutil.disk_usage(self.path).free < _LEAST_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def end(self, status: Status) -> None:
        """Says in run.json how the run ended."""
        self.manifest = self.manifest.ended(status, self._meters)
        with self.disk_full_named():
            self.manifest.write(self.path)

    def _official(self, strategy: str, category: str) -> Path:
        return self.path / strategy / category / OFFICIAL

    def _recover(self) -> None:
        """Brings every table to what the commit records in outcomes.csv say."""
        official = dict.fromkeys(self.path.glob(f"*/*/{OFFICIAL}"), "")
        for folder in {self.path, *(path.parent for path in official)}:
            remove_drafts(folder)
        outcomes = read_rows(self.path / OUTCOMES, Outcome)
        self._done = {outcome.key(): outcome.verdict for outcome in outcomes}
        self._meters = {outcome.meter for outcome in outcomes}
        ranks = read_rows(self.path / RANKS, RankRow)
        committed = [row for row in ranks if row.key() in self._done]
        settle(self.path / OUTCOMES, header(Outcome) + "".join(map(format_row, outcomes)))
        settle(self.path / RANKS, header(RankRow) + "".join(map(format_row, committed)))
        for outcome in (outcome for outcome in outcomes if outcome.repeat == 1):
            path = self._official(outcome.strategy, outcome.category)
            official[path] = official.get(path, "") + official_row(outcome)
        for path, text in official.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            settle(path, text)


@contextmanager
def open_run(
    results: Path, command: Command, rows: int, name: str | None = None
) -> Iterator[RunFolder]:
    """The unfinished run of the same command under `results`, or else a new one, locked.

    A run called `name` is continued whatever its status. run.json says `finished` when the block
    ends, `interrupted` on KeyboardInterrupt, and stays `running` on anything else. Raises
    UsageError for a name that belongs to another command, RunInUseError when another process
    has the folder, DiskFullError when there is no room.
    """
    resume = command.shell(results, name)
    with ExitStack() as stack:
        with disk_full_named(results, f"free some, then run again: {resume}"):
            found = _named(results, command, name) if name else _unfinished(results, command)
            path = found or _create(results, describe(command, rows), name)
            stack.enter_context(_locked(path))
        manifest = read_manifest(path)
        folder = RunFolder(path, manifest, resume)
        if found:
            folder.manifest = manifest.resumed_now()
            with folder.disk_full_named():
                folder.manifest.write(path)
        try:
            yield folder
        except KeyboardInterrupt:
            folder.end(Status.INTERRUPTED)
            raise
        folder.end(Status.FINISHED)


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """The whole rows of a table, none if it is absent; a last row that is cut off is left out.

    Raises UsageError that names the line which is no row of this version.
    """
    reader = csv.reader(io.StringIO(whole_lines(path), newline=""))
    names = next(reader, None)
    if names is None:
        return []
    if csv_line(names) != header(row_type):
        raise UsageError(f"{path}:1: these are not the columns of this version; start a new run")
    table, rows = columns(row_type), []
    for cells in reader:
        try:
            rows.append(parse_row(row_type, table, cells))
        except ValueError as error:
            raise UsageError(f"{path}:{reader.line_num}: {error}; start a new run") from error
    return rows


def bounds_path(run: Path, strategy: str, category: str, name: str) -> Path:
    """Bounds that one instance called `name` has in an experiment's run folder."""
    return run / strategy / category / f"{file_name(name)}.bounds.safetensors"


def official_row(outcome: Outcome) -> str:
    """category,network,property,prepare_time,result,run_time as VNN-COMP's scoring reads it.

    That format has one row for a question: only the first repeat has one.
    """
    prepare_s, run_s = outcome.prepare_time_s or 0.0, outcome.run_time_s or 0.0
    cells = (outcome.category, outcome.network, outcome.property, prepare_s, outcome.verdict, run_s)
    return csv_line(cells)


def file_name(name: str) -> str:
    """`name` if a file can be called so; else its start and a digest."""
    plain = name.replace("/", "_")
    if len(plain.encode()) <= _LONGEST_NAME:
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return plain.encode()[: _LONGEST_NAME - 13].decode(errors="ignore") + "-" + digest


def settle(path: Path, text: str) -> None:
    """Makes `text` all that is in the file."""
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
        replace_file(path, text)


def _unfinished(results: Path, command: Command) -> Path | None:
    """The newest run of this very command that has not finished."""
    candidates = []
    for file in results.glob(f"[!.]*/{FILE_NAME}"):
        try:
            manifest = read_manifest(file.parent)
        except UsageError:
            continue  # of another version, or damaged: not ours to continue
        if manifest.command == command and manifest.status is not Status.FINISHED:
            candidates.append((manifest.started, file.parent))
    return max(candidates)[1] if candidates else None


def _named(results: Path, command: Command, name: str) -> Path | None:
    if name in {"", ".", ".."} or "/" in name:
        raise UsageError(f"{name!r} cannot be the name of a run: it must be a plain folder name")
    path = results / name
    if not path.exists():
        return None
    if read_manifest(path).command != command:
        raise UsageError(f"{path} belongs to another command; choose another --run name")
    return path


def _create(results: Path, manifest: Manifest, name: str | None) -> Path:
    """A new folder with its run.json: it appears whole, under its final name."""
    path = results / (name or _default_name(manifest.command))
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.mkdir(parents=True, exist_ok=True)
        manifest.write(draft)
        return draft.rename(path)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise UsageError(f"cannot create the run folder {path}: {error.strerror}") from error


def _default_name(command: Command) -> str:
    """UTC time to the millisecond and the categories, so that names sort by age."""
    now = datetime.now(UTC)
    names = [Path(category).with_suffix("").name for category in command.categories]
    categories = re.sub(r"[^\w.+-]", "_", "+".join(names))
    return file_name(f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{categories}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(path))
        except UsageError as error:
            raise RunInUseError(str(error)) from error
        yield
