"""Which sub-problems of a search are on which rank, and which starts of an attack: all on every
rank, or each on one (`dp`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from runner.engine.bounds.network_bounds import NetworkBounds
from runner.engine.clock import Deadline, DeadlineReached, RoundOver
from runner.engine.finding import Confirmation
from runner.engine.layout.group import Group
from runner.engine.layout.levelling import moves
from runner.engine.targets import Candidate

# Between two looks at what other ranks signal.
LOOK_SECONDS = 0.02
# Between two meetings at most: what is proved together is told, and the shares are levelled.
MEETING_SECONDS = 10.0


@dataclass(frozen=True)
class Meeting:
    """What all ranks know after it. `standings` [ranks, n]; `waiting`: sub-problems of all."""

    standings: Tensor
    waiting: int
    found: bool
    pause: bool


class Sized(Protocol):
    def __len__(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Store(Protocol[T]):
    """Open sub-problems, a dataclass of tensors whose first dimension counts them."""

    def __len__(self) -> int: ...

    def put(self, items: T) -> None: ...

    def give(self, count: int) -> T:
        """About so many to another rank, worth as much as those that stay."""
        ...


class Sharing(Protocol):
    """`ranks`: that share the sub-problems; `rank`: this one's place among them; the first
    begins with the root.
    """

    ranks: int
    rank: int

    def search(self) -> AbstractContextManager[None]:
        """Around a whole search."""
        ...

    def round(self) -> AbstractContextManager[None]:
        """Around what a rank does alone between two meetings; ends early at a RoundOver."""
        ...

    def checkpoint(self) -> None:
        """To be called a few times a second, in a round. Raises RoundOver or DeadlineReached."""
        ...

    def check(self) -> None:
        """As `checkpoint`, outside of rounds: all ranks call it at the same points. Raises
        DeadlineReached on all of them.
        """
        ...

    def passed(self, fraction: float) -> bool:
        """Whether that fraction of the time is over, for ranks with the same sub-problems."""
        ...

    def confirm(self, candidate: Candidate) -> bool:
        """Whether it is a counterexample; then the next meeting tells all."""
        ...

    def due(self, waits: bool) -> bool:
        """Before each round: whether to meet, as this rank waits for the others or one for it."""
        ...

    def meet(self, waiting: int, standing: Tensor, pause: bool | None) -> Meeting:
        """Each rank's standing [n] float64 to all; `pause`: None where no rank has a reason.

        Raises DeadlineReached on all ranks.
        """
        ...

    def level(self, store: Store[T], enough: int, blank: T) -> None:
        """Right after a meeting: sub-problems go to ranks that have less than `enough`."""
        ...

    def same(self, known: NetworkBounds) -> NetworkBounds:
        """Rank 0's bounds on all: what is to be split must mean the same everywhere."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """The ranks' tensors of one shape [ranks, *shape], on all of them; after a meeting."""
        ...


class Alike:
    """Every rank runs the same search on the same values; of one rank, it is alone."""

    ranks = 1
    rank = 0

    def __init__(
        self,
        checkpoint: Callable[[], None],
        confirm: Callable[[Candidate], bool],
        decide: Callable[[bool], bool] = lambda flag: flag,
        passed: Callable[[float], bool] = lambda fraction: False,
    ) -> None:
        self.checkpoint = self.check = checkpoint
        self.passed = passed
        self._confirm = confirm
        self._decide = decide
        self._found = False

    def search(self) -> AbstractContextManager[None]:
        return nullcontext()

    def round(self) -> AbstractContextManager[None]:
        return nullcontext()

    def confirm(self, candidate: Candidate) -> bool:
        self._found = self._confirm(candidate)
        return self._found

    def due(self, waits: bool) -> bool:
        return True

    def meet(self, waiting: int, standing: Tensor, pause: bool | None) -> Meeting:
        pauses = False if pause is None else self._decide(pause)
        return Meeting(standing[None], waiting, self._found, pauses)

    def level(self, store: Store[T], enough: int, blank: T) -> None:
        """There is nobody else."""

    def same(self, known: NetworkBounds) -> NetworkBounds:
        return known

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor[None]


class Apart:
    """Each sub-problem on one rank. Ranks meet when one of them has none left, or has an end to
    tell; between meetings nothing is said but `on_request`'s, for weights that are sharded.
    `name`: for its signals; all ranks make theirs in the same order.

    `alike`: ranks that search the same sub-problems as this one, with parts of the network each.
    They go the way of the first of them, as each clock and each look at signals is its own.
    """

    def __init__(
        self,
        group: Group,
        deadline: Deadline,
        confirmation: Confirmation,
        on_request: Callable[[], AbstractContextManager[Callable[[], None]]] | None = None,
        name: str = "search",
        alike: Group | None = None,
    ) -> None:
        self._name = f"{name} {group.turn()}"
        self._alike = alike or Group()
        self.ranks, self.rank = group.size, group.rank
        self._group = group
        self._deadline = deadline
        self._confirmation = confirmation
        self._on_request = on_request or (lambda: nullcontext(lambda: None))
        self._serve: Callable[[], None] = lambda: None
        self._looked = 0.0
        self._met, self._met_at = 0, time.perf_counter()
        # Whether a batch was dropped half-way: then nothing may be concluded from what is left.
        self._lost = False
        self._counts: list[int] = []

    @contextmanager
    def search(self) -> Iterator[None]:
        with self._on_request() as self._serve:
            yield

    @contextmanager
    def round(self) -> Iterator[None]:
        try:
            yield
        except RoundOver:
            self._lost = True

    def checkpoint(self) -> None:
        if self._alike.decide(self._useless()):
            raise RoundOver

    def check(self) -> None:
        self._deadline.check()

    def _useless(self) -> bool:
        """Whether what is done here serves nobody any more; looks now and then."""
        now = time.perf_counter()
        if now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        return self._deadline.over or self._group.signalled(self._end)

    def passed(self, fraction: float) -> bool:
        return self._deadline.passed(fraction, self._alike)

    def confirm(self, candidate: Candidate) -> bool:
        found = self._alike.decide(self._alike.rank == 0 and self._confirmation.alone(candidate))
        if found:
            self._group.signal(self._end)
        return found

    def due(self, waits: bool) -> bool:
        late = time.perf_counter() - self._met_at > MEETING_SECONDS
        ends = self._lost or self._deadline.over or self._confirmation.confirmed
        if self._alike.decide(waits or late or ends):
            self._group.signal(self._meeting)
            return True
        return self._alike.decide(self._group.signalled(self._meeting))

    def meet(self, waiting: int, standing: Tensor, pause: bool | None) -> Meeting:
        self._serve()
        self._met, self._met_at = self._met + 1, time.perf_counter()
        over = self._lost or self._deadline.over
        flags = [waiting, over, self._confirmation.confirmed, bool(pause)]
        mine = torch.cat([torch.tensor(flags, dtype=torch.float64), standing.cpu()])
        self._alike.broadcast(mine, 0)
        all_ = self._group.all_gather(mine)
        counts, overs, found, pauses = (all_[:, index] for index in range(len(flags)))
        self._counts = [int(count) for count in counts]
        if bool(found.any()):
            self._confirmation.settle(writer=self._group.members[int(found.argmax())])
        elif bool(overs.any()):
            raise DeadlineReached
        return Meeting(
            all_[:, len(flags) :], sum(self._counts), bool(found.any()), bool(pauses.any())
        )

    def level(self, store: Store[T], enough: int, blank: T) -> None:
        rank = self._group.rank
        for source, target, count in moves(self._counts, enough):
            if rank == source:
                gone = store.give(count)
                # Apart from the columns: it is in host memory, where they may not be.
                self._group.swap([(torch.tensor([len(gone)]), target)], [])
                self._group.swap([(column.contiguous(), target) for column in _columns(gone)], [])
            elif rank == target:
                length = torch.zeros(1, dtype=torch.long)
                self._group.swap([], [(length, source)])
                come = _room(blank, int(length))
                self._group.swap([], [(column, source) for column in _columns(come)])
                store.put(come)

    def same(self, known: NetworkBounds) -> NetworkBounds:
        intervals = {}
        for name, interval in known.intervals.items():
            lower, upper = interval.lower.contiguous(), interval.upper.contiguous()
            # This rank's own sums hold: the values lie in its own bounds, and in these.
            intervals[name] = interval.between(
                self._group.broadcast(lower, 0), self._group.broadcast(upper, 0)
            )
        return NetworkBounds(known.box, intervals)

    def gather(self, tensor: Tensor) -> Tensor:
        return self._group.all_gather(tensor.contiguous())

    @property
    def _meeting(self) -> str:
        return f"{self._name}: meeting {self._met}"

    @property
    def _end(self) -> str:
        return f"{self._name}: end"


def _columns(items: Any) -> list[Tensor]:
    return [getattr(items, field.name) for field in fields(items)]


def _room(blank: T, count: int) -> T:
    made: T = type(blank)(*(c.new_empty((count, *c.shape[1:])) for c in _columns(blank)))
    return made
