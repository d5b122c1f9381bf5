"""Jobs and reports as plain JSON values, and back.

cattrs knows dataclasses, enumerations and sets, and refuses fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from cattrs.errors import ForbiddenExtraKeysError
from cattrs.preconf.json import make_converter

from runner.contract.question import CONTRACT_VERSION, Question, Report

T = TypeVar("T")

# What `from_json` raises where values are not of the type; AttributeError: no object where one is
# wanted, as the name of a strategy in a question that was made before strategies travelled as data.
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, ForbiddenExtraKeysError)

_converter = make_converter(forbid_extra_keys=True, detailed_validation=False)


def to_json(value: Any) -> Any:
    """A dataclass, or a list of them, as values that JSON has; sets in one order."""
    return _sorted(_converter.unstructure(value))


def from_json(data: Any, kind: type[T]) -> T:
    """Raises one of MALFORMED where `data` is not what `to_json` gives of a `kind`."""
    return _converter.structure(data, kind)


def question_to_json(question: Question) -> dict[str, Any]:
    plain: dict[str, Any] = to_json(question)
    return plain


def question_from_json(data: Mapping[str, Any]) -> Question:
    """Raises one of MALFORMED, also for a question of another version of the contract."""
    return _of_this_version(data, Question)


def report_to_json(report: Report) -> dict[str, Any]:
    plain: dict[str, Any] = to_json(report)
    return plain


def report_from_json(data: Mapping[str, Any]) -> Report:
    """Raises one of MALFORMED, also for a report of another version of the contract."""
    return _of_this_version(data, Report)


def _of_this_version(data: Mapping[str, Any], kind: type[T]) -> T:
    found = data.get("version")
    if found != CONTRACT_VERSION:
        name = kind.__name__.lower()
        raise ValueError(f"a {name} of version {found}, but this program has {CONTRACT_VERSION}")
    return from_json(data, kind)


def _sorted(plain: Any) -> Any:
    match plain:
        case dict():
            return {key: _sorted(value) for key, value in plain.items()}
        case set() | frozenset():
            return sorted(plain)
        case list() | tuple():
            return [_sorted(value) for value in plain]
    return plain
