"""The loop that every branch and bound is: rounds, and meetings of the ranks between them."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor

from runner.engine.search.search import SearchContext, SearchEnd
from runner.engine.search.sharing import Meeting, Sized, Store

T = TypeVar("T", bound=Sized)


class Tree(Protocol[T]):
    """The sub-problems of a search that are open on this rank. `begun`: the root was bounded;
    `stalled`: whether something else had better be tried, the same on all ranks after `conclude`;
    `batch`: how many a round takes at most; `complete`: nothing was left that cannot be split.
    """

    begun: bool
    stalled: bool
    batch: int

    @property
    def store(self) -> Store[T]: ...

    @property
    def blank(self) -> T:
        """No sub-problems, as the store has them."""
        ...

    @property
    def waits(self) -> bool:
        """Whether it can do nothing of use before the next meeting."""
        ...

    @property
    def complete(self) -> bool: ...

    def begin(self) -> None:
        """Bounds the root on every rank; one alone stores it."""
        ...

    def round(self) -> None:
        """Bounds a batch; ends early when a counterexample is confirmed."""
        ...

    def standing(self) -> Tensor:
        """What this rank knows, [n] float64."""
        ...

    def conclude(self, meeting: Meeting) -> None:
        """What all ranks know together."""
        ...


def run_rounds(tree: Tree[T], context: SearchContext) -> SearchEnd:
    """Until the tree is closed, a counterexample is confirmed, or it is time to pause; called
    again, it goes on. With a fixed workload, so many rounds, whatever they find. May raise
    DeadlineReached.
    """
    sharing, workload = context.sharing, context.workload
    rounds = 0
    with sharing.search():
        if not tree.begun:
            with sharing.round():
                tree.begin()
        while True:
            pause = context.pauses()
            if sharing.due(tree.waits or workload is not None or bool(pause)):
                meeting = sharing.meet(len(tree.store), tree.standing(), pause)
                if meeting.found:
                    return SearchEnd.COUNTEREXAMPLE
                tree.conclude(meeting)
                if not meeting.waiting:
                    return SearchEnd.PROVED if tree.complete else SearchEnd.GAVE_UP
                if meeting.pause or tree.stalled:
                    return SearchEnd.PAUSED
                if workload is not None and rounds == workload.rounds:
                    return SearchEnd.GAVE_UP
                sharing.level(tree.store, tree.batch, tree.blank)
            with sharing.round():
                tree.round()
            rounds += 1
