"""Live tensor bytes on a CPU, by what they are for: torch's allocator counts (allocator.cpp)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from ctypes import PyDLL, Structure, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

from runner.contract.vocabulary import Memory, Meter
from runner.engine.measure.tensors import Tally

_KINDS = tuple(Memory)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


class _Tally(Structure):
    """As allocator.cpp lays it out."""

    _fields_ = (("live", c_int64), ("peak", c_int64))


class _Ledger(Structure):
    """As allocator.cpp lays it out."""

    _fields_ = (
        ("kind", c_int64),
        ("climbing", c_int64),
        ("total", _Tally),
        ("kinds", _Tally * len(_KINDS)),
        ("at_peak", c_int64 * len(_KINDS)),
    )


class AllocatorMeter:
    """Counts all that torch takes of a CPU's memory in this thread, until it gives it back.

    That is every dense storage, and the memory that an operator takes and gives back inside its
    kernel, as the kind at hand: a rank must have that too, and the meter of a GPU counts it. What
    torch does not take (of NumPy, of a file, shared with other processes) and tensors made before
    the meter was entered count from `adopt` on; one that is resized then counts as the kind at
    hand. Tensors that die after it was left are still subtracted. Of two meters of this class
    that are entered the inner one counts. Buffers of gloo, which its threads take, do not count.
    """

    name = Meter.ALLOCATOR

    def __init__(self, library: Path) -> None:
        self._library = _loaded(library)
        self._address = self._library.new_ledger()
        self._ledger = _Ledger.from_address(self._address)
        self._ledger.kind = _NUMBERS[Memory.OTHER]

    def __enter__(self) -> AllocatorMeter:
        self._outer = self._library.count_in(self._address)
        return self

    def __exit__(self, *raised: object) -> None:
        self._library.count_in(self._outer)

    def kind(self, kind: Memory) -> AbstractContextManager[None]:
        """Memory that is taken inside is `kind`; the innermost counts."""
        return _Said(self._ledger, _KINDS.index(kind))

    @property
    def total(self) -> Tally:
        """Of all kinds together."""
        return Tally(self._ledger.total.live, self._ledger.total.peak)

    def live_by_kind(self) -> dict[Memory, int]:
        """Bytes that are live now, of every kind."""
        return {kind: self._ledger.kinds[number].live for kind, number in _NUMBERS.items()}

    def peak_by_kind(self) -> dict[Memory, int]:
        """Bytes of every kind at that kind's own peak."""
        return {kind: self._ledger.kinds[number].peak for kind, number in _NUMBERS.items()}

    def at_peak_by_kind(self) -> dict[Memory, int]:
        """Bytes of every kind when the total was at its peak, which is their sum."""
        if self._ledger.climbing:
            return self.live_by_kind()
        return {kind: self._ledger.at_peak[number] for kind, number in _NUMBERS.items()}

    def adopt(self, tensor: torch.Tensor, kind: Memory) -> None:
        """Count `tensor` as `kind` from now on, wherever it was made."""
        storage = tensor.untyped_storage()
        self._library.adopt(self._address, storage._cdata, _NUMBERS[kind])


class _Said:
    """A kind that is said for a while; a class, as it is quicker than a generator."""

    __slots__ = ("_ledger", "_number", "_outer")

    def __init__(self, ledger: _Ledger, number: int) -> None:
        self._ledger = ledger
        self._number = number

    def __enter__(self) -> None:
        self._outer = self._ledger.kind
        self._ledger.kind = self._number

    def __exit__(self, *raised: object) -> None:
        self._ledger.kind = self._outer


@cache
def _loaded(path: Path) -> PyDLL:
    """The library with its functions declared. Raises OSError for one that does not load."""
    library = PyDLL(str(path))  # holds the lock of Python: what it does takes no time
    library.new_ledger.restype = c_void_p
    library.count_in.argtypes, library.count_in.restype = [c_void_p], c_void_p
    library.adopt.argtypes, library.adopt.restype = [c_void_p, c_void_p, c_int64], None
    return library
