"""Live tensor bytes on a CPU, by what they are for: a dispatch mode that follows storages."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from runner.contract.vocabulary import Memory, Meter
from runner.engine.measure.tensors import Tally


class DispatchMeter(TorchDispatchMode):
    """Counts the bytes of every dense storage, from its first tensor to its last.

    Views and in-place operators add nothing. Memory that one operator takes and gives back inside
    its kernel is not seen. Tensors made before the meter was entered, or by anything but a torch
    operator (NumPy, a file), count from `adopt` on. Storages that die after it was left are still
    subtracted.
    """

    name = Meter.DISPATCH

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = Tally()
        self._by_kind = {kind: Tally() for kind in Memory}
        self._tally = self._by_kind[Memory.OTHER]
        self._at_peak = self.live_by_kind()
        self._climbing = False  # the total is at a peak that is not noted yet
        self._storages: dict[int, _Followed] = {}
        # By id, as an operator's own hash is a call into Python; the operator keeps its id taken.
        self._operators: dict[int, tuple[bool, OpOverload]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch's wrapper around every call would cost more than the meter

    def __enter__(self) -> DispatchMeter:
        self._plain_resize = torch.UntypedStorage.resize_
        # No operator runs then, so no dispatch mode sees it: torch's own tracker does the same.
        torch.UntypedStorage.resize_ = self._following_resize()  # type: ignore[method-assign, assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        torch.UntypedStorage.resize_ = self._plain_resize  # type: ignore[method-assign]

    @contextmanager
    def kind(self, kind: Memory) -> Iterator[None]:
        """Storages made inside are `kind`; the innermost counts."""
        outer, self._tally = self._tally, self._by_kind[kind]
        try:
            yield
        finally:
            self._tally = outer

    def live_by_kind(self) -> dict[Memory, int]:
        """Bytes that are live now, of every kind."""
        return {kind: tally.live for kind, tally in self._by_kind.items()}

    def peak_by_kind(self) -> dict[Memory, int]:
        """Bytes of every kind at that kind's own peak."""
        return {kind: tally.peak for kind, tally in self._by_kind.items()}

    def at_peak_by_kind(self) -> dict[Memory, int]:
        """Bytes of every kind when the total was at its peak, which is their sum."""
        return self.live_by_kind() if self._climbing else self._at_peak

    def adopt(self, tensor: torch.Tensor, kind: Memory) -> None:
        """Count `tensor` as `kind` from now on, wherever it was made."""
        followed = self._storages.get(tensor.untyped_storage()._cdata)
        if followed is not None:
            self._forget(followed)
        with self.kind(kind):
            self._follow(tensor)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **kwargs) if kwargs else func(*args)
        known = self._operators.get(id(func))
        if known is None:
            known = self._operators[id(func)] = (_may_allocate(func), func)
        if known[0]:
            if isinstance(result, torch.Tensor):
                self._follow(result)
            elif isinstance(result, (tuple, list)):
                for item in result:
                    if isinstance(item, torch.Tensor):
                        self._follow(item)
        return result

    def _follow(self, tensor: torch.Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
        except NotImplementedError:
            return  # A sparse tensor has no storage of its own; its parts are dense tensors.
        key, size = storage._cdata, storage.nbytes()
        followed = self._storages.get(key)
        if followed is None:
            self._storages[key] = followed = _Followed(storage, self._forget)
            followed.key, followed.tally, followed.size = key, self._tally, 0
        if size != followed.size:
            self._resized(followed, size)

    def _following_resize(self) -> Callable[[Any, int], Any]:
        plain = self._plain_resize

        def resize_(storage: torch.UntypedStorage, size: int) -> Any:
            result = plain(storage, size)
            followed = self._storages.get(storage._cdata)
            if followed is not None:
                self._resized(followed, storage.nbytes())
            return result

        return resize_

    def _resized(self, followed: _Followed, size: int) -> None:
        """In the way of every operator, so nothing here is a call that need not be one."""
        growth, followed.size = size - followed.size, size
        tally, total = followed.tally, self.total
        if growth > 0:
            tally.live += growth
            if tally.live > tally.peak:
                tally.peak = tally.live
            total.live += growth
            if total.live > total.peak:
                total.peak = total.live
                self._climbing = True
        else:
            if self._climbing:
                # Once per summit and not at every step up.
                self._at_peak, self._climbing = self.live_by_kind(), False
            tally.live += growth
            total.live += growth

    def _forget(self, followed: _Followed) -> None:
        del self._storages[followed.key]
        if followed.size:
            self._resized(followed, 0)


class _Followed(weakref.ref[torch.UntypedStorage]):
    """A live storage, and what was counted for it."""

    __slots__ = ("key", "size", "tally")

    key: int
    size: int
    tally: Tally


def _may_allocate(func: OpOverload) -> bool:
    """Whether a result may be a new storage, or an old one of a new size."""
    schema = func._schema
    if schema.name in _GIVES_STORAGE or any(argument.is_out for argument in schema.arguments):
        return True
    return any(result.alias_info is None for result in schema.returns)


# Their schemas tell of a result that aliases an argument, and yet its storage may be news.
_GIVES_STORAGE = frozenset(
    {
        "aten::lift_fresh",  # ends every torch.tensor(…)
        "aten::resize_",
        "aten::resize_as_",
        "aten::_resize_output_",
        "aten::set_",
    }
)
