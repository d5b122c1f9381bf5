"""What a shard asks of its node: options of the command, or a cluster.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from runner.contract.errors import UsageError


@dataclass(frozen=True)
class Placement:
    """For each shard, which one node runs.

    partition, account: as SLURM calls them
    cpus: cores; 0 for as many as the widest strategy has ranks
    gpus: whole GPUs
    memory: GiB; 0 for what the cluster gives
    time_limit: minutes, after which SLURM ends the shard; it is submitted again and goes on
    at_once: shards that may run at the same time; 0 for all
    setup: shell lines that come before, such as `module load cuda`
    address: of Ray's head; empty for the one that RAY_ADDRESS or this machine knows
    """

    partition: str = ""
    account: str = ""
    cpus: int = 0
    gpus: int = 0
    memory: float = 0.0
    time_limit: int = 24 * 60
    at_once: int = 0
    setup: tuple[str, ...] = ()
    address: str = ""


def placement_of(words: Iterable[str]) -> Placement:
    """`words`: `KEY=VALUE`, or the name of a TOML file; what comes later counts.

    Raises UsageError that names the word.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        known = {field.name for field in fields(Placement)}
        if equals and key in known:
            found |= _values({key: [value] if key == "setup" else value}, word)
        elif equals and not Path(word).exists():
            raise UsageError(f"--cluster {word}: unknown key {key}; known: {_known()}")
        else:
            found |= _values(_content(Path(word)), word)
    return Placement(**found)


def _content(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"{error.strerror}; name a TOML file, or KEY=VALUE with one of {_known()}"
        raise UsageError(f"--cluster {file}: {reason}") from error
    except ValueError as error:
        raise UsageError(f"--cluster {file}: not TOML: {error}") from error


def _values(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    types: dict[str, type] = {name: type(value) for name, value in asdict(Placement()).items()}
    made = {}
    for key, value in given.items():
        if key not in types:
            raise UsageError(f"--cluster {where}: unknown key {key}; known: {_known()}")
        try:
            made[key] = types[key](value)
        except (TypeError, ValueError) as error:
            kind = types[key].__name__
            raise UsageError(f"--cluster {where}: {key} must be of type {kind}") from error
        if isinstance(made[key], int | float) and made[key] < 0:
            raise UsageError(f"--cluster {where}: {key} must not be negative")
    return made


def _known() -> str:
    return ", ".join(field.name for field in fields(Placement))
