"""run.json: what was asked, on what machine, with what versions, and how far it came."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pynvml

import runner
from runner.contract.errors import UsageError
from runner.contract.verifier import Tool
from runner.contract.vocabulary import AttackKind, Device, Meter, Method, On
from runner.contract.whole import replace_file
from runner.contract.wire import MALFORMED, from_json
from runner.contract.workload import Workload
from runner.record.schema import SCHEMA_VERSION

FILE_NAME = "run.json"

_DISTRIBUTIONS = ("torch", "auto_LiRPA", "onnx", "onnxruntime", "numpy")


class Status(StrEnum):
    """How far a run came. A killed run stays `running`; its folder's lock says that it is not."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Command:
    """Everything that decides which rows a run has; the same command resumes its own run.

    Categories are absolute paths, `timeout_s` None means each instance's own. `verifiers`: those
    beside our strategies. `on`, `shards`: a run over a cluster, None and 0 for one that is not cut.
    `machines`: words after --machine, over which the ranks of every gang are spread.
    """

    categories: tuple[str, ...]
    strategies: tuple[str, ...]
    ranks: int
    timeout_s: float | None = None
    filter: str | None = None
    limit: int | None = None
    method: Method = Method.COMPLETE
    attack: AttackKind = AttackKind.PGD
    seed: int = 0
    device: Device = Device.AUTO
    memory_limit_gib: float | None = None
    repeat: int = 1
    workload: Workload | None = None
    work_memory_mib: float | None = None
    verifiers: tuple[Tool, ...] = ()
    on: On | None = None
    shards: int = 0
    machines: tuple[str, ...] = ()
    # Words after --cluster: where shards are placed decides no row, so another time it may differ.
    placement: tuple[str, ...] = field(default=(), compare=False)

    @property
    def contenders(self) -> tuple[str, ...]:
        """What the column `strategy` holds: strategies, and other verifiers."""
        return (*self.strategies, *(tool.name for tool in self.verifiers))

    def shell(self, results: Path, name: str | None) -> str:
        """The command line that continues the run, ready to be typed."""
        words = ["vnncomp-runner", "run", *self.categories]
        words += ["--strategies", ",".join(self.strategies) or "none", "--ranks", str(self.ranks)]
        for tool in self.verifiers:
            words += [] if tool.source else ["--verifier", f"{tool.name}={tool.path}"]
        for source in dict.fromkeys(tool.source for tool in self.verifiers if tool.source):
            words += ["--verifiers", source]
        options = {
            "--timeout": self.timeout_s,
            "--filter": self.filter,
            "--limit": self.limit,
            "--method": self.method,
            "--attack": None if self.attack is AttackKind.PGD else self.attack,
            "--seed": self.seed,
            "--device": self.device,
            "--memory-limit": self.memory_limit_gib,
            "--work-memory": self.work_memory_mib,
            "--repeat": self.repeat,
            "--fixed-workload": self.workload and self.workload.rounds,
            "--batch": self.workload and self.workload.batch,
            "--on": self.on,
            "--shards": self.shards or None,
            "--results": results,
            "--run": name,
        }
        for word in self.machines:
            words += ["--machine", word]
        for word in self.placement:
            words += ["--cluster", word]
        for option, value in options.items():
            if value is not None:
                words += [option, str(value)]
        return shlex.join(words)


@dataclass(frozen=True)
class ClusterNode:
    """A machine that ran a shard: its `versions`, `host` and `gpus` as in run.json, and how many
    outcomes the shard had when it began (`first`).
    """

    shard: int
    first: int
    versions: dict[str, str]
    host: dict[str, Any]
    gpus: list[dict[str, Any]]
    git_revision: str | None

    @property
    def kind(self) -> str:
        """What its times depend on, in words: two nodes of one kind are as good as one."""
        gpus = Counter(str(gpu["name"]) for gpu in self.gpus)
        parts = [f"{self.host.get('cores')} cores", str(self.host.get("cpu"))]
        return ", ".join([*parts, *(f"{count} x {name}" for name, count in gpus.items())])


@dataclass(frozen=True)
class Manifest:
    """The content of run.json. Times are UTC in ISO 8601; `rows` is how many outcomes it plans.

    `nodes`: of a shard, and of a run that was cut into shards; empty for others. `meters`: what has
    measured peak tensor bytes; written when the run ends.
    """

    schema: int
    status: Status
    command: Command
    rows: int
    seed: int
    started: str
    finished: str | None
    resumed: tuple[str, ...]
    versions: dict[str, str]
    host: dict[str, Any]
    gpus: list[dict[str, Any]]
    git_revision: str | None
    nodes: tuple[ClusterNode, ...] = ()
    meters: tuple[str, ...] = ()

    def resumed_now(self) -> Manifest:
        return replace(self, status=Status.RUNNING, resumed=(*self.resumed, utc_now()))

    def ended(self, status: Status, meters: Collection[Meter]) -> Manifest:
        named = tuple(sorted(set(meters) - {Meter.NONE}))
        return replace(self, status=status, finished=utc_now(), meters=named)

    def with_version(self, name: str, version: str) -> Manifest:
        """Which version of another verifier runs."""
        return replace(self, versions={**self.versions, name: version})

    def write(self, run: Path) -> None:
        """Replaces run.json of the folder in one step."""
        replace_file(run / FILE_NAME, json.dumps(asdict(self), indent=2) + "\n")


def describe(command: Command, rows: int) -> Manifest:
    """The manifest of a run that starts here and now."""
    return Manifest(
        schema=SCHEMA_VERSION,
        status=Status.RUNNING,
        command=command,
        rows=rows,
        seed=command.seed,
        started=utc_now(),
        finished=None,
        resumed=(),
        versions=_versions(),
        host=_host(),
        gpus=describe_gpus(),
        git_revision=_git_revision(),
    )


def this_node(shard: int, first: int) -> ClusterNode:
    """The machine that runs this process."""
    return ClusterNode(
        shard=shard,
        first=first,
        versions=_versions(),
        host=_host(),
        gpus=describe_gpus(),
        git_revision=_git_revision(),
    )


def read_manifest(run: Path, oldest: int = SCHEMA_VERSION) -> Manifest:
    """Raises UsageError when `run` is not a run folder, or of a schema version that is newer than
    this program's or older than `oldest`.
    """
    path = run / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not oldest <= content["schema"] <= SCHEMA_VERSION:
            raise UsageError(
                f"{path}: schema version {content['schema']}, but this program reads "
                f"{oldest} to {SCHEMA_VERSION}; use the version of the program that wrote it"
            )
        command = content["command"]
        # Absent where an older version wrote it.
        workload, verifiers = command.get("workload"), command.get("verifiers", ())
        on, nodes = command.get("on"), content.get("nodes", ())
        content["command"] = Command(
            **command
            | {
                "categories": tuple(command["categories"]),
                "strategies": tuple(command["strategies"]),
                "method": Method(command["method"]),
                "device": Device(command["device"]),
                "workload": Workload(**workload) if workload else None,
                "verifiers": tuple(from_json(tool, Tool) for tool in verifiers),
                "on": On(on) if on else None,
                "placement": tuple(command.get("placement", ())),
                "machines": tuple(command.get("machines", ())),
            }
        )
        return Manifest(
            **content
            | {
                "status": Status(content["status"]),
                "resumed": tuple(content["resumed"]),
                "nodes": tuple(ClusterNode(**node) for node in nodes),
                "meters": tuple(content.get("meters", ())),  # absent likewise
            }
        )
    except FileNotFoundError:
        raise UsageError(f"{run} is not a run folder: it has no {FILE_NAME}") from None
    except (OSError, *MALFORMED) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def utc_now() -> str:
    return datetime.now(UTC).isoformat()


def _versions() -> dict[str, str]:
    found = {"vnncomp-runner": runner.__version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _host() -> dict[str, Any]:
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=True),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def describe_gpus() -> list[dict[str, Any]]:
    """Name, memory and driver of each NVIDIA GPU; empty without a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        return [
            {
                "name": pynvml.nvmlDeviceGetName(handle),
                "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                "driver": pynvml.nvmlSystemGetDriverVersion(),
            }
            for handle in handles
        ]
    finally:
        pynvml.nvmlShutdown()


def _git_revision() -> str | None:
    """The commit of this program's own checkout, `-dirty` appended for local changes."""
    source = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(source), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
