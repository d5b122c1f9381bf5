"""One shard of a run, on the node that runs it: a run folder of its own."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runner.contract.errors import UsageError
from runner.record.folder import RunFolder, open_run
from runner.record.manifest import ClusterNode, Manifest, read_manifest, this_node
from runner.record.shards import SHARDS, Shard
from runner.run.cut import tasks_of
from runner.run.plan import Task


@contextmanager
def open_shard(run: Path, number: int) -> Iterator[tuple[RunFolder, list[Task]]]:
    """Its run folder, locked, and all of its tasks, some of which may be done.

    Raises UsageError where this node does not see what the run is about, or is of another version
    of the program; and what `open_run` raises.
    """
    here = f"node {platform.node()}"
    if not run.is_dir():
        raise UsageError(
            f"{here} does not see {run}; let --results name a folder that all nodes share"
        )
    whole, shard = read_manifest(run), Shard(run, number)
    asked = shard.asked()
    try:
        tasks = tasks_of(whole.command, asked)
    except UsageError as error:
        raise UsageError(
            f"{here}: {error}; let all nodes see the categories as they were when the run began, "
            "or start a new run with --run NAME"
        ) from error
    with open_run(run / SHARDS, whole.command, len(tasks), shard.name) as folder:
        node = this_node(number, first=len(folder.done))
        _check_versions(whole, node, here)
        folder.note_node(node)
        for tool in whole.command.verifiers:
            if tool.name in whole.versions:
                folder.note_version(tool.name, whole.versions[tool.name])
        yield folder, tasks


def _check_versions(whole: Manifest, node: ClusterNode, here: str) -> None:
    """Raises UsageError: rows of different versions are no comparison."""
    ours = {**node.versions, "revision": str(node.git_revision)}
    theirs = {**whole.versions, "revision": str(whole.git_revision)}
    differ = _different(ours, {name: theirs.get(name, "absent") for name in ours})
    if differ:
        raise UsageError(
            f"{here} has other versions than the run began with: {'; '.join(differ)}; install the "
            "same there, or start a new run with --run NAME"
        )


def _different(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    return [
        f"{name} {ours[name]} there, {theirs[name]} in run.json"
        for name in ours
        if ours[name] != theirs[name]
    ]
