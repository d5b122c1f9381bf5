"""A recipe: which networks are trained on what, by which methods, and the category of them."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from runner.contract.errors import UsageError
from runner.training.architectures import Architecture
from runner.training.methods import method_named
from runner.training.methods.method import TrainingMethod
from runner.training.ranges import radius, within

T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """`name`: of runner.training.data. `folder`: of its files. `most`: images to train on, 0 for
    all."""

    name: str
    folder: str = ""
    most: int = 0

    def __post_init__(self) -> None:
        within("most", self.most, 0, 1_000_000)


@dataclass(frozen=True)
class Training:
    """`radius`: L∞, what is trained for. `ramp`: share of the epochs in which the radius of bounds
    grows. `steps`: of attacks inside training. The learning rate falls along a cosine.
    """

    radius: float
    epochs: int = 30
    batch: int = 128
    learning_rate: float = 1e-3
    ramp: float = 0.5
    steps: int = 7

    def __post_init__(self) -> None:
        radius("radius", self.radius)
        within("epochs", self.epochs, 1, 10_000)
        within("batch", self.batch, 1, 100_000)
        within("learning_rate", self.learning_rate, 1e-9, 1)
        within("ramp", self.ramp, 0, 1)
        within("steps", self.steps, 1, 1000)


@dataclass(frozen=True)
class Category:
    """The first `images` test images of each class, at each of the `radii`; `timeout` in s."""

    radii: tuple[float, ...]
    images: int = 1
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if not self.radii:
            raise UsageError("radii = []: at least one radius is needed")
        for each in self.radii:
            radius("radii", each)
        within("images", self.images, 1, 1000)
        within("timeout", self.timeout, 1e-3, 1e6)


@dataclass(frozen=True)
class Wanted:
    """One network: all that its weights depend on. `label`: of its method in the recipe."""

    label: str
    method: TrainingMethod
    seed: int
    data: Data
    architecture: Architecture
    training: Training

    @property
    def name(self) -> str:
        """As a file is called."""
        return f"{re.sub('[+, ]+', '_', self.label)}_seed{self.seed}"

    @property
    def digest(self) -> str:
        """Of everything: equal for networks that are equal."""
        return _digest([type(self.method).__name__, asdict(self)])


@dataclass(frozen=True)
class Recipe:
    """`name`: of the category. `methods` by name, each with its options."""

    name: str
    data: Data
    architecture: Architecture
    training: Training
    category: Category
    seeds: tuple[int, ...]
    methods: Mapping[str, TrainingMethod]

    @property
    def digest(self) -> str:
        """Of all that category and figures depend on."""
        networks = [wanted.digest for wanted in self.networks()]
        return _digest([self.name, networks, asdict(self.category)])

    def networks(self) -> Iterator[Wanted]:
        for name, method in self.methods.items():
            for seed in self.seeds:
                yield Wanted(name, method, seed, self.data, self.architecture, self.training)


def read_recipe(path: Path) -> Recipe:
    """Raises UsageError that names the file, the key and the remedy."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return _recipe(path.stem, table)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such recipe; recipes/ has some") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: this is no TOML file: {error}") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _recipe(name: str, table: dict[str, Any]) -> Recipe:
    known = ("data", "architecture", "training", "category", "methods", "seeds")
    _refuse_unknown("", table, known)
    methods = _table("methods", table)
    if not methods:
        raise UsageError("[methods.NAME]: at least one method is needed")
    seeds = table.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise UsageError(f"seeds = {seeds}: a list of whole numbers is needed")
    recipe = Recipe(
        name=name,
        data=_structured(Data, "data", _table("data", table)),
        architecture=_structured(Architecture, "architecture", _table("architecture", table)),
        training=_structured(Training, "training", _table("training", table)),
        category=_structured(Category, "category", _table("category", table)),
        seeds=tuple(dict.fromkeys(seeds)),
        methods={label: _method(label, _table(label, methods)) for label in methods},
    )
    for label, method in recipe.methods.items():
        _refuse_batches(label, method, recipe.training.batch)
    names = [wanted.name for wanted in recipe.networks()]
    for twice in (each for each in names if names.count(each) > 1):
        raise UsageError(f"[methods]: two networks would be called {twice}; rename one of them")
    return recipe


def _method(label: str, table: dict[str, Any]) -> TrainingMethod:
    """Called as its label, unless the key `method` says another; so one may be there twice."""
    if not re.fullmatch(r"[\w+., -]+", label):
        raise UsageError(f"methods.{label!r}: letters, digits, spaces and + - . , _ are possible")
    options = {key: value for key, value in table.items() if key != "method"}
    name = _value(f"methods.{label}.method", table.get("method", label), "str")
    return _structured(method_named(name), f"methods.{label}", options)


def _refuse_batches(label: str, method: TrainingMethod, batch: int) -> None:
    try:
        method.refuse_batches_of(batch)
    except UsageError as error:
        raise UsageError(f"[methods.{label}] with training.batch = {batch}: {error}") from error


def _table(key: str, table: dict[str, Any]) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{key}: a table is needed, as [{key}]")
    return value


def _structured(kind: type[T], key: str, table: dict[str, Any]) -> T:
    """Raises UsageError for a key of the table that is unknown, missing or mistyped."""
    known = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(f"{key}.", table, known)
    values = {name: _value(f"{key}.{name}", table[name], known[name]) for name in table}
    try:
        return kind(**values)
    except TypeError as error:  # what has no default
        raise UsageError(f"[{key}]: {str(error).split('() ')[-1]}") from error
    except UsageError as error:
        raise UsageError(f"[{key}] {error}") from error


def _value(key: str, value: Any, kind: str) -> Any:
    """Of the type that the field says, which `from __future__ import annotations` keeps as text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "tuple[float, ...]" and isinstance(value, list):
        return tuple(_value(key, each, "float") for each in value)
    if kind == "float" and number:
        return float(value)
    if (kind == "int" and type(value) is int) or (kind == "str" and isinstance(value, str)):
        return value
    wanted = {"float": "a number", "int": "a whole number", "str": "a text"}
    raise UsageError(f"{key} = {value!r}: {wanted.get(kind, 'a list of numbers')} is needed")


def _refuse_unknown(prefix: str, table: Mapping[str, Any], known: Any) -> None:
    for key in table:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise UsageError(f"unknown key {prefix}{key}; known: {listed}")
