"""How the driver says what a tensor is for; the measuring side implements it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from runner.contract.vocabulary import Memory


class Tagger(Protocol):
    def kind(self, memory: Memory) -> AbstractContextManager[None]:
        """Tensors made inside are of this kind, unless an inner one says otherwise."""
        ...


class NoTagger:
    """For callers who do not measure."""

    def kind(self, memory: Memory) -> AbstractContextManager[None]:
        return nullcontext()
