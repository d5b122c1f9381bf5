"""The loop of a run over a cluster, on a stand-in for one whose nodes fail as they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Silent, answer, make_category

from runner.contract.errors import UsageError
from runner.execute.cluster.cluster import ShardProgram, ShardStage, ShardState
from runner.execute.executor import GangResult
from runner.record import manifest as manifests
from runner.record.append import DiskFullError
from runner.record.folder import RunInUseError, open_run
from runner.record.manifest import FILE_NAME, Command, Status, read_manifest
from runner.record.read import read_run
from runner.record.shards import SHARDS, Shard, noted_jobs
from runner.run import spread as spreading
from runner.run.plan import plan
from runner.run.schedule import schedule
from runner.run.shard import open_shard
from runner.run.spread import (
    LostShardsError,
    Standing,
    prepare_shards,
    shared_networks,
    spread,
)

INSTANCES, SHARDS_WANTED = 6, 3


class Lost(Exception):
    """The node is gone."""


class Nodes:
    """A cluster that runs a job when it is asked for its state. `verify`: of all its ranks."""

    def __init__(self, verify: Callable[[dict[str, Any], int], GangResult] = answer) -> None:
        self.verify = verify
        self.submitted: list[int] = []
        self.cancelled: list[str] = []
        self.converted: list[str] = []
        self._waiting: dict[str, ShardProgram] = {}

    def submit(self, programs: Sequence[ShardProgram]) -> list[str]:
        names = []
        for program in programs:
            self.submitted.append(int(program.arguments[-1]))
            names.append(f"job{len(self.submitted)}")
            self._waiting[names[-1]] = program
        return names

    def states(self, jobs: Sequence[str]) -> Mapping[str, ShardState]:
        for job in jobs:
            if job in self._waiting:
                self._run(self._waiting.pop(job))
        return {job: ShardState(ShardStage.ENDED) for job in jobs}

    def cancel(self, jobs: Iterable[str]) -> None:
        self.cancelled += jobs

    def _run(self, program: ShardProgram) -> None:
        run, number = Path(program.arguments[-2]), int(program.arguments[-1])
        try:
            with open_shard(run, number) as (folder, tasks):
                server, command = FakeServer(self.verify), folder.manifest.command
                networks = shared_networks(run)
                schedule(tasks, command, folder, server, Silent(), networks=networks)
                self.converted += server.prepared
            code = 0
        except Lost:
            return
        except DiskFullError as error:
            code = self._said(program, error, 3)
        except RunInUseError as error:
            code = self._said(program, error, 4)
        except UsageError as error:
            code = self._said(program, error, 2)
        program.ended.write_text(str(code))

    def _said(self, program: ShardProgram, error: UsageError, code: int) -> int:
        program.log.write_text(f"error: {error}\n")
        return code


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.standing: Standing | None = None
        self.words: list[str] = []

    def stands(self, standing: Standing) -> None:
        self.standing = standing

    def happened(self, what: str) -> None:
        self.words.append(what)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "POLL_S", 0.0)
    monkeypatch.setattr(spreading, "SEEN_WITHIN_S", 0.0)


@pytest.fixture
def category(tmp_path: Path) -> Path:
    return make_category(tmp_path / "digits", INSTANCES)


def run(category: Path, nodes: Nodes, told: Told | None = None, name: str = "run") -> Path:
    command = Command((str(category),), ("baseline", "fsdp"), 2, shards=SHARDS_WANTED)
    tasks = plan(command)
    with open_run(category.parent / "results", command, len(tasks), name) as folder:
        prepare_shards(tasks, folder)
        spread(folder, nodes, (), told or Told(), poll_s=0.0)
    return folder.path


def assert_every_row_is_there_once(path: Path) -> None:
    read = read_run(path)
    assert len(read.outcomes) == INSTANCES * 2
    assert not read.outcomes.duplicated(["network", "property", "strategy"]).any()
    assert len(read.ranks) == INSTANCES * 3
    assert not read.left_out
    for table in ("outcomes.csv", "ranks.csv"):
        whole = (path / table).read_text().splitlines()
        parts = [(path / SHARDS / f"{n:04d}" / table).read_text().splitlines() for n in range(3)]
        assert whole == [whole[0], *(line for part in parts for line in part[1:])]
    official = (path / "baseline" / "digits" / "results.csv").read_text().splitlines()
    assert len(official) == INSTANCES


def test_every_shard_is_run_and_they_are_one_run(category: Path) -> None:
    nodes, told = Nodes(), Told()
    path = run(category, nodes, told)
    assert sorted(nodes.submitted) == [0, 1, 2]
    assert_every_row_is_there_once(path)
    assert read_manifest(path).status is Status.FINISHED
    assert told.standing is not None
    assert told.standing.shards == {"finished": 3}
    assert sum(told.standing.verdicts.values()) == told.standing.rows == INSTANCES * 2
    assert [node.shard for node in read_manifest(path).nodes] == [0, 1, 2]
    assert nodes.cancelled == []


def test_a_network_is_converted_once_for_all_shards(tmp_path: Path) -> None:
    nodes = Nodes()
    path = run(make_category(tmp_path / "digits", INSTANCES, networks=1), nodes)
    assert_every_row_is_there_once(path)
    assert nodes.converted == ["net0.onnx"]


def test_a_lost_shard_is_submitted_again_and_goes_on(category: Path) -> None:
    asked: list[str] = []

    def lost_at_the_third(payload: dict[str, Any], ranks: int) -> GangResult:
        asked.append(payload["property"] + payload["strategy"]["name"])
        if len(asked) == 3:
            raise Lost
        return answer(payload, ranks)

    nodes, told = Nodes(lost_at_the_third), Told()
    path = run(category, nodes, told)
    assert sorted(nodes.submitted) == [0, 0, 1, 2]
    assert len(asked) == INSTANCES * 2 + 1, "only what was cut off was asked again"
    assert_every_row_is_there_once(path)
    assert ["shard 0 was lost; it is submitted again" in words for words in told.words] == [True]
    first = read_manifest(path / SHARDS / "0000").nodes
    assert [node.first for node in first] == [0, 2]


@pytest.mark.slow
def test_a_shard_that_is_lost_in_vain_is_given_up_and_others_finish(category: Path) -> None:
    bad = "prop0.vnnlib"

    def lost(payload: dict[str, Any], ranks: int) -> GangResult:
        if Path(payload["property"]).name == bad:
            raise Lost
        return answer(payload, ranks)

    nodes = Nodes(lost)
    with pytest.raises(LostShardsError, match=r"shard 0 was lost and is given up[^$]*to go on"):
        run(category, nodes)
    assert sorted(nodes.submitted) == [0, 0, 0, 1, 2]
    path = category.parent / "results" / "run"
    assert len(read_run(path).outcomes) == (INSTANCES - 2) * 2

    mended = Nodes()
    assert run(category, mended) == path
    assert mended.submitted == [0], "what was finished is not submitted again"
    assert_every_row_is_there_once(path)


@pytest.mark.slow
def test_a_shard_that_records_something_each_time_is_never_given_up(category: Path) -> None:
    asked: list[str] = []

    def lost_every_other_time(payload: dict[str, Any], ranks: int) -> GangResult:
        asked.append("")
        if len(asked) % 2 == 0:
            raise Lost
        return answer(payload, ranks)

    nodes = Nodes(lost_every_other_time)
    assert_every_row_is_there_once(run(category, nodes))
    assert len(nodes.submitted) > 3 * spreading.ATTEMPTS


@pytest.mark.slow
def test_a_full_disk_in_one_shard_ends_that_one(category: Path) -> None:
    def full(payload: dict[str, Any], ranks: int) -> GangResult:
        if Path(payload["property"]).name == "prop1.vnnlib":
            raise OSError(28, "No space left on device")
        return answer(payload, ranks)

    with pytest.raises(LostShardsError, match="no room left"):
        run(category, Nodes(full))
    assert len(read_run(category.parent / "results" / "run").outcomes) == 8
    assert_every_row_is_there_once(run(category, Nodes()))


def test_another_version_on_a_node_is_refused_and_cancels_the_rest(
    category: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = manifests._versions()

    class Elsewhere(Nodes):
        def submit(self, programs: Sequence[ShardProgram]) -> list[str]:
            monkeypatch.setattr(manifests, "_versions", lambda: {**here, "torch": "1.0"})
            return super().submit(programs)

    nodes = Elsewhere()
    with pytest.raises(UsageError, match=r"shard 0: .*torch 1\.0 there, .* in run\.json; install"):
        run(category, nodes)
    assert nodes.cancelled == ["job2", "job3"]
    assert read_manifest(category.parent / "results" / "run").nodes == ()


def test_an_interrupt_cancels_what_is_left_and_the_same_command_goes_on(category: Path) -> None:
    def interrupted(payload: dict[str, Any], ranks: int) -> GangResult:
        if Path(payload["property"]).name == "prop1.vnnlib":
            raise KeyboardInterrupt
        return answer(payload, ranks)

    nodes = Nodes(interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(category, nodes)
    path = category.parent / "results" / "run"
    assert read_manifest(path).status is Status.INTERRUPTED
    assert nodes.cancelled == ["job1", "job2", "job3"]
    assert_every_row_is_there_once(run(category, Nodes()))


def test_jobs_that_still_run_are_waited_for(category: Path) -> None:
    nodes = Nodes()

    class Killed(Told):
        def stands(self, standing: Standing) -> None:
            raise Lost

    with pytest.raises(Lost):
        run(category, nodes, Killed())
    nodes.cancelled.clear()
    path = category.parent / "results" / "run"
    assert noted_jobs(path) == {0: "job1", 1: "job2", 2: "job3"}

    class Alive(Nodes):
        """Jobs of an earlier command end when they are asked for a second time."""

        def states(self, jobs: Sequence[str]) -> Mapping[str, ShardState]:
            if not self.submitted and not any(path.glob(f"{SHARDS}/*.ended")):
                for number in range(SHARDS_WANTED):
                    shard = Shard(path, number)
                    self._run(ShardProgram(("", str(path), str(number)), shard.log, shard.ended))
                return {job: ShardState(ShardStage.RUNNING) for job in jobs}
            return {job: ShardState(ShardStage.ENDED) for job in jobs}

    again = Alive()
    assert_every_row_is_there_once(run(category, again))
    assert again.submitted == []


def test_instances_that_were_changed_since_are_refused(category: Path) -> None:
    class Late(Nodes):
        def submit(self, programs: Sequence[ShardProgram]) -> list[str]:
            (category / "instances.csv").write_text("net0.onnx,prop0.vnnlib,99\n")
            return super().submit(programs)

    with pytest.raises(UsageError, match="with its files any more: they were changed"):
        run(category, Late())


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        ("digits/instances.csv", r"node .*instances\.csv: cannot be read"),
        ("digits/prop0.vnnlib", r"line 1 of .* is not net0\.onnx, prop0\.vnnlib with its files"),
    ],
)
def test_a_category_that_a_node_does_not_see_is_named(
    hidden: str, said: str, category: Path
) -> None:
    class Elsewhere(Nodes):
        def submit(self, programs: Sequence[ShardProgram]) -> list[str]:
            (category.parent / hidden).unlink()
            return super().submit(programs)

    with pytest.raises(UsageError, match=f"{said}.*let all nodes see the categories"):
        run(category, Elsewhere())


def test_a_run_folder_that_a_node_does_not_see_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"does not see .*; let --results name a folder that all"),
        open_shard(tmp_path / "elsewhere", 0),
    ):
        pass


def test_a_damaged_shard_is_named_with_the_remedy(category: Path) -> None:
    path = run(category, Nodes())
    (path / SHARDS / "0001" / FILE_NAME).write_text("{")
    read = read_run(path)
    assert len(read.outcomes) == 8
    assert "a whole shard" in str(read.left_out[0])
    with pytest.raises(UsageError, match=r"shard 1 is damaged.*remove .*0001 and run the same"):
        run(category, Nodes())


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("0001.csv", r"0001\.csv.* damaged.*(start a new run|mend the line)"),
        (
            "0001/outcomes.csv",
            r"shard 1: .*0001/outcomes\.csv:1: .*(start a new run|mend the line)",
        ),
        ("0001/ranks.csv", r"shard 1: .*0001/ranks\.csv:1: .*(start a new run|mend the line)"),
        ("jobs.json", r"jobs\.json is damaged.*remove it"),
    ],
)
@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"a,b\nc,d\n", b"{\n"])
def test_a_damaged_file_of_a_shard_is_named(
    content: bytes, file: str, said: str, category: Path
) -> None:
    def interrupted(payload: dict[str, Any], ranks: int) -> GangResult:
        if Path(payload["property"]).name == "prop4.vnnlib":
            raise KeyboardInterrupt
        return answer(payload, ranks)

    with pytest.raises(KeyboardInterrupt):
        run(category, Nodes(interrupted))
    (category.parent / "results" / "run" / SHARDS / file).write_bytes(content)
    with pytest.raises(UsageError, match=said):
        run(category, Nodes())


def test_rows_tell_the_kind_of_node(category: Path) -> None:
    path = run(category, Nodes())
    shard = path / SHARDS / "0002"
    manifest = read_manifest(shard)
    (node,) = manifest.nodes
    fast = replace(node, first=1, host={**node.host, "cores": 999, "cpu": "fast"})
    replace(manifest, nodes=(node, fast)).write(shard)
    kinds = read_run(path).outcomes["node"].value_counts()
    assert kinds[fast.kind] == 3
    assert kinds[node.kind] == INSTANCES * 2 - 3
