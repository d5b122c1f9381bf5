"""The loop of a run over a cluster: submit its shards, watch them, submit what was lost again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from runner.contract.errors import UsageError
from runner.contract.vocabulary import Verdict
from runner.execute.cluster.cluster import Cluster, ShardProgram, ShardStage, ShardState
from runner.record.folder import RunFolder
from runner.record.shards import (
    SHARDS,
    Shard,
    Tail,
    merge,
    nodes_of,
    note_jobs,
    noted_jobs,
    shards_of,
)
from runner.run.cut import cut
from runner.run.plan import Task

# Exit codes of a shard's program.
DONE, WRONG, DISK_FULL, IN_USE = 0, 2, 3, 4
ATTEMPTS = 3  # in a row that record nothing
POLL_S = 1.0
# A file that a node wrote may be seen later than that its job is gone.
SEEN_WITHIN_S = 5.0


class LostShardsError(UsageError):
    """Shards that were lost again and again; what others recorded is there."""


@dataclass
class Course:
    """How one shard goes: its job if it has one, and what came of earlier ones.

    `recorded`: outcomes when the job was submitted. `gone`: when the job was first found ended.
    `in_vain`: submissions in a row that recorded nothing. `problem`: why it was given up.
    """

    shard: Shard
    tail: Tail
    job: str = ""
    recorded: int = 0
    gone: float | None = None
    in_vain: int = 0
    lost: int = 0
    problem: str = ""
    finished: bool = False

    @property
    def open(self) -> bool:
        return not self.finished and not self.problem


@dataclass(frozen=True)
class Standing:
    """What an observer is told: verdicts so far, of how many; shards by where they are; how often
    shards were lost; and what waiting shards wait for, where that is out of the ordinary.
    """

    verdicts: Mapping[Verdict, int]
    rows: int
    shards: Mapping[str, int]
    lost: int
    waits: tuple[str, ...] = field(default=())


class SpreadObserver(Protocol):
    """Who wants to know how a run over a cluster goes."""

    def stands(self, standing: Standing) -> None:
        """Told every now and then, whether or not anything changed."""

    def happened(self, what: str) -> None:
        """Something that happens seldom, in a sentence."""


def prepare_shards(tasks: Sequence[Task], folder: RunFolder) -> None:
    """Writes which instances each shard is for, once: resumed, a run is not cut again."""
    shards = shards_of(folder.path, folder.manifest)
    parts = cut(tasks, len(shards))
    if not (folder.path / SHARDS / "0000.csv").exists():
        # The first one last: it says that all are there.
        for shard, part in reversed(list(zip(shards, parts, strict=True))):
            shard.write(part)


def spread(
    folder: RunFolder,
    cluster: Cluster,
    program: tuple[str, ...],
    observer: SpreadObserver,
    poll_s: float = POLL_S,
) -> None:
    """Until every shard is finished. `program`: what runs a shard, before its folder and number.

    Raises UsageError for what would be wrong on every node, and LostShardsError at the end.
    """
    head = _Head(folder, cluster, program, observer)
    try:
        head.adopt()
        while any(course.open for course in head.courses):
            head.step()
            time.sleep(poll_s)
    finally:
        head.leave()
    problems = [course.problem for course in head.courses if course.problem]
    if problems:
        raise LostShardsError(
            "\n".join([*problems, f"to go on with what is left: {folder.resume_command}"])
        )
    merge(folder.path, [course.shard for course in head.courses])


class _Head:
    def __init__(
        self,
        folder: RunFolder,
        cluster: Cluster,
        program: tuple[str, ...],
        observer: SpreadObserver,
    ) -> None:
        self._folder = folder
        self._cluster = cluster
        self._program = program
        self._observer = observer
        shards = shards_of(folder.path, folder.manifest)
        self.courses = [Course(shard, Tail(shard)) for shard in shards]

    def adopt(self) -> None:
        """What an earlier command left: finished shards, and jobs that still wait or run."""
        jobs = noted_jobs(self._folder.path)
        states = self._cluster.states(list(jobs.values()))
        for course in self.courses:
            course.finished = course.shard.finished()
            job = jobs.get(course.shard.number, "")
            if not course.finished and job and states[job].stage is not ShardStage.ENDED:
                course.job = job

    def step(self) -> None:
        """Once over all shards."""
        jobs = [course.job for course in self.courses if course.open and course.job]
        states = self._cluster.states(jobs)
        for course in self.courses:
            course.tail.follow()
            if course.open and course.job and states[course.job].stage is ShardStage.ENDED:
                self._ended(course)
        self._submit([course for course in self.courses if course.open and not course.job])
        self._observer.stands(self._standing(states))

    def leave(self) -> None:
        """No job of ours waits or runs any more, and run.json names every node."""
        self._cluster.cancel([course.job for course in self.courses if course.open and course.job])
        nodes = nodes_of(course.shard for course in self.courses)
        self._folder.manifest = replace(self._folder.manifest, nodes=nodes)

    def _submit(self, courses: Sequence[Course]) -> None:
        if not courses:
            return
        for course in courses:
            course.shard.ended.unlink(missing_ok=True)
            course.recorded = course.tail.verdicts.total()
        jobs = self._cluster.submit([self._program_of(course.shard) for course in courses])
        for course, job in zip(courses, jobs, strict=True):
            course.job, course.gone = job, None
        running = {course.shard.number: course.job for course in self.courses if course.open}
        note_jobs(self._folder.path, running)

    def _program_of(self, shard: Shard) -> ShardProgram:
        arguments = (*self._program, str(self._folder.path.absolute()), str(shard.number))
        return ShardProgram(arguments, shard.log.absolute(), shard.ended.absolute())

    def _ended(self, course: Course) -> None:
        shard, now = course.shard, time.monotonic()
        code = self._program_of(shard).exit_code()
        if code is None:
            course.gone = course.gone or now
            if now < course.gone + SEEN_WITHIN_S:
                return
        course.job = ""
        if code == DONE and shard.finished():
            course.finished = True
            return
        if code == WRONG:
            raise UsageError(f"shard {shard.number}: {shard.last_words()} (all of it: {shard.log})")
        if code == IN_USE:  # by what an earlier command started, which is to be waited for
            time.sleep(POLL_S)
            return
        course.lost += 1
        course.in_vain = 0 if course.tail.verdicts.total() > course.recorded else course.in_vain + 1
        how = "was lost" if code is None else f"ended with exit code {code}"
        said = shard.last_words() or (
            f"it wrote nothing, not even {shard.log}; do nodes see {self._folder.path.absolute()}? "
            "--results must name a folder that they share"
        )
        if code == DISK_FULL or course.in_vain >= ATTEMPTS:
            course.problem = f"shard {shard.number} {how} and is given up: {said} ({shard.log})"
            self._observer.happened(course.problem)
        else:
            self._observer.happened(f"shard {shard.number} {how}; it is submitted again ({said})")

    def _standing(self, states: Mapping[str, ShardState]) -> Standing:
        verdicts, shards = Counter[Verdict](), Counter[str]()
        waits = []
        for course in self.courses:
            verdicts.update(course.tail.verdicts)
            state = states.get(course.job, ShardState(ShardStage.WAITING))
            if course.open:
                shards["running" if state.stage is not ShardStage.WAITING else "waiting"] += 1
            else:
                shards["finished" if course.finished else "given up"] += 1
            if course.open and state.why:
                waits.append(f"shard {course.shard.number} waits: {state.why}")
        return Standing(
            verdicts=verdicts,
            rows=self._folder.manifest.rows,
            shards=shards,
            lost=sum(course.lost for course in self.courses),
            waits=tuple(waits),
        )


def shared_networks(run: Path) -> Path:
    """Where shards leave converted networks for each other."""
    return run / SHARDS / "networks"
