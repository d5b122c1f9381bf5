"""The shards of a run: where they lie, which instances each is for, and how far they are.

RUN/run.json               of the whole, with every node
RUN/shards/0003.csv        the instances of a shard
RUN/shards/0003/           its run folder
RUN/shards/0003.log        what its program says
RUN/shards/0003.ended      the exit code of that
RUN/shards/jobs.json       what was submitted last
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Verdict
from runner.contract.whole import replace_file, replaced
from runner.record.append import whole_lines
from runner.record.folder import OFFICIAL, OUTCOMES, RANKS
from runner.record.manifest import FILE_NAME, ClusterNode, Manifest, Status, read_manifest
from runner.record.schema import Outcome, RankRow, columns, csv_line, header

SHARDS = "shards"
_JOBS = "jobs.json"
_VERDICTS = frozenset(map(str, Verdict))


class ShardQuestion(NamedTuple):
    """An instance under its timeout, which every strategy and repeat is asked in one shard.

    `source`, `line`: the row of instances.csv. `name`: what its files are called; other shards
    have instances that it must differ from.
    """

    category: str
    network: str
    property: str
    timeout_s: float | None
    source: str
    line: int
    name: str


class Shard:
    """One of them, of the run folder `run`."""

    def __init__(self, run: Path, number: int) -> None:
        self.run = run
        self.number = number
        self.name = f"{number:04d}"
        self.folder = run / SHARDS / self.name
        self.log = run / SHARDS / f"{self.name}.log"
        self.ended = run / SHARDS / f"{self.name}.ended"
        self._list = run / SHARDS / f"{self.name}.csv"

    def write(self, asked: Iterable[ShardQuestion]) -> None:
        self._list.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._list, csv_line(ShardQuestion._fields) + "".join(map(csv_line, asked)))

    def asked(self) -> list[ShardQuestion]:
        """Raises UsageError where the list is not there, or damaged."""
        rows = csv.reader(io.StringIO(whole_lines(self._list), newline=""))
        try:
            if tuple(next(rows)) != ShardQuestion._fields:
                raise ValueError("another head")
            return [
                ShardQuestion(
                    category, network, asked, float(time) if time else None, source, int(line), name
                )
                for category, network, asked, time, source, line, name in rows
            ]
        except (StopIteration, TypeError, ValueError) as error:
            raise UsageError(
                f"{self._list} is damaged or not there ({error}); start a new run with --run NAME"
            ) from error

    def finished(self) -> bool:
        """Whether its run.json says so. Raises UsageError where that cannot be read."""
        if not (self.folder / FILE_NAME).exists():
            return False
        try:
            return read_manifest(self.folder).status is Status.FINISHED
        except UsageError as error:
            raise UsageError(
                f"shard {self.number} is damaged: {error}; remove {self.folder} and run the same "
                "command again, which runs its instances once more"
            ) from error

    def last_words(self) -> str:
        """The last line of its log that says anything."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""


class Tail:
    """Verdicts of a shard, read as they come."""

    def __init__(self, shard: Shard) -> None:
        self._file = shard.folder / OUTCOMES
        self._verdict = [column.name for column in columns(Outcome)].index("verdict")
        self._read = 0
        self.verdicts = Counter[Verdict]()

    def follow(self) -> None:
        """Takes in the whole lines that were appended since. One that is damaged counts nothing:
        the shard, or who reads its rows, names it.
        """
        size = self._file.stat().st_size if self._file.exists() else 0
        if size < self._read:  # what a kill left without its end was removed
            self._read, self.verdicts = 0, Counter()
        if size == self._read:
            return
        with self._file.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        rows = csv.reader(io.StringIO(whole.decode(errors="replace"), newline=""))
        if not self._read:
            next(rows, None)
        said = (row[self._verdict] for row in rows if len(row) > self._verdict)
        self.verdicts.update(Verdict(word) for word in said if word in _VERDICTS)
        self._read += len(whole)


def shards_of(run: Path, manifest: Manifest) -> list[Shard]:
    return [Shard(run, number) for number in range(manifest.command.shards)]


def nodes_of(shards: Iterable[Shard]) -> tuple[ClusterNode, ...]:
    """What the shards say of the machines that ran them; a damaged shard says nothing."""
    nodes: list[ClusterNode] = []
    for shard in shards:
        try:
            nodes += read_manifest(shard.folder).nodes
        except UsageError:
            continue  # not begun, or told of where its rows are read
    return tuple(nodes)


def note_jobs(run: Path, jobs: dict[int, str]) -> None:
    """Remembers what was submitted for each shard."""
    replace_file(run / SHARDS / _JOBS, json.dumps(jobs) + "\n")


def noted_jobs(run: Path) -> dict[int, str]:
    """What was, none of it where nothing was. Raises UsageError where that cannot be read."""
    path = run / SHARDS / _JOBS
    if not path.exists():
        return {}
    try:
        return {int(number): str(job) for number, job in json.loads(path.read_bytes()).items()}
    except (AttributeError, ValueError) as error:
        raise UsageError(
            f"{path} is damaged ({error}); cancel the jobs of this run that may still wait or run, "
            "remove it and run the same command again"
        ) from error


def merge(run: Path, shards: Sequence[Shard]) -> None:
    """Writes the tables of all shards as the run's own, and results.csv of every category."""
    for table, row_type in ((OUTCOMES, Outcome), (RANKS, RankRow)):
        with replaced(run / table, durable=True) as draft, draft.open("wb") as whole:
            whole.write(header(row_type).encode())
            for shard in shards:
                with (shard.folder / table).open("rb") as part:
                    part.readline()
                    shutil.copyfileobj(part, whole)
    parts = [part for shard in shards for part in sorted(shard.folder.glob(f"*/*/{OFFICIAL}"))]
    for place in dict.fromkeys(Path(*part.parts[-3:]) for part in parts):
        texts = (shard.folder / place for shard in shards)
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        replace_file(run / place, "".join(text.read_text() for text in texts if text.exists()))
