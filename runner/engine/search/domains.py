"""The open sub-domains of a ReLU-split search, compact, the most urgent first."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from runner.contract.vocabulary import Memory
from runner.engine.bounds.interval import Interval
from runner.engine.bounds.subdomains import Subdomains
from runner.engine.bounds.tagging import Tagger


@dataclass(frozen=True)
class Domains:
    """B of them: the disjunct [B] each is of, phases [B, N] int8, bounds lower and upper [B, N] of
    the unstable neurons' inputs, multipliers [B, K, V] float16 (to start from: any value in range
    gives a valid bound), margins [B] float64, depth [B], and urgency [B]: the least is next.
    ceiling [B] float64: the greatest margin to be claimed, 0 once limits hold only where the
    disjunct may be unsafe. anew [B]: the depth where neurons were last bounded for it, and stood
    [B] float64: its margin then.
    """

    disjunct: Tensor
    phases: Tensor
    lower: Tensor
    upper: Tensor
    multipliers: Tensor
    margins: Tensor
    depth: Tensor
    urgency: Tensor
    ceiling: Tensor
    anew: Tensor
    stood: Tensor

    def __len__(self) -> int:
        return len(self.disjunct)

    def select(self, index: Tensor) -> Domains:
        return Domains(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def before(self) -> Interval:
        return Interval(self.lower, self.upper)

    def subdomains(self, rows: Tensor, sets: Tensor | None = None) -> Subdomains:
        """To bound them, with their rows [K, B, outputs] and sets of planes [B]."""
        multipliers = self.multipliers.transpose(0, 1).to(rows.dtype)
        return Subdomains(rows, self.phases, self.before, multipliers, sets)

    def with_multipliers(self, multipliers: Tensor) -> Domains:
        """[K, B, V] of any dtype."""
        return replace(self, multipliers=multipliers.transpose(0, 1).to(torch.float16))

    def child(self, subdomains: Subdomains) -> Domains:
        """One level deeper; `margins` are still the parents'."""
        before = subdomains.before
        split = replace(
            self, phases=subdomains.phases, lower=before.lower, upper=before.upper
        ).with_multipliers(subdomains.multipliers)
        return replace(split, depth=self.depth + 1)

    def decided(self) -> Domains:
        """With all neurons that their limits make stable as split: what follows from the others."""
        phases = torch.where(self.lower >= 0, 1, torch.where(self.upper <= 0, -1, 0))
        return replace(
            self, phases=torch.where(self.phases == 0, phases, self.phases).to(torch.int8)
        )

    def to(self, device: torch.device) -> Domains:
        return Domains(*(getattr(self, field.name).to(device) for field in fields(self)))


def joined(parts: list[Domains]) -> Domains:
    return Domains(
        *(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Domains))
    )


def kind_of(column: str) -> Memory:
    """What a column of Domains counts as: α and β, or bounds and what is proved."""
    return Memory.ALPHA if column == "multipliers" else Memory.BOUNDS


class DomainStore:
    """Open domains in host memory; rows of a buffer that doubles when it is full."""

    def __init__(self, tag: Tagger) -> None:
        self._tag = tag
        self._buffer: Domains | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def share(self) -> float:
        """What the domains have of their roots, if each split halves."""
        return float((0.5 ** self._used("depth").double()).sum()) if self._count else 0.0

    def least_margins(self, disjuncts: int) -> Tensor:
        """Of each disjunct [disjuncts]; inf where none is open."""
        least = torch.full((disjuncts,), torch.inf, dtype=torch.float64)
        if self._count:
            least.scatter_reduce_(0, self._used("disjunct"), self._used("margins"), "amin")
        return least

    def _used(self, name: str) -> Tensor:
        if self._buffer is None:
            raise ValueError("nothing was ever stored")
        column: Tensor = getattr(self._buffer, name)
        return column[: self._count]

    def put(self, domains: Domains) -> None:
        domains = domains.to(torch.device("cpu"))
        stop = self._count + len(domains)
        if self._buffer is None or stop > len(self._buffer):
            self._grow(domains, stop)
        for field in fields(Domains):
            getattr(self._buffer, field.name)[self._count : stop] = getattr(domains, field.name)
        self._count = stop

    def _grow(self, like: Domains, least: int) -> None:
        capacity = max(least, 2 * self._count)
        grown = []
        for field in fields(Domains):
            column: Tensor = getattr(like, field.name)
            with self._tag.kind(kind_of(field.name)):
                room = column.new_empty((capacity, *column.shape[1:]))
            if self._count:
                room[: self._count] = self._used(field.name)
            grown.append(room)
        self._buffer = Domains(*grown)

    def take(self, count: int) -> Domains:
        """The `count` most urgent domains, or all; the last rows move into their places."""
        count = min(count, self._count)
        chosen = torch.topk(self._used("urgency"), count, largest=False).indices.sort().values
        if self._buffer is None:
            raise ValueError("nothing was ever stored")
        taken = self._buffer.select(chosen)
        kept = self._count - count
        holes = chosen[chosen < kept]
        tail = torch.ones(count, dtype=torch.bool)
        tail[chosen[chosen >= kept] - kept] = False
        movers = tail.nonzero()[:, 0] + kept
        for field in fields(Domains):
            column = getattr(self._buffer, field.name)
            column[holes] = column[movers]
        self._count = kept
        return taken

    def give(self, count: int) -> Domains:
        """Every second of the most urgent, about so many; those that are as urgent as each other
        stay together, as they may be members of one family, which is cheaper to bound as one.
        """
        taken = self.take(2 * count)
        urgencies = taken.urgency.unique(return_inverse=True)[1]
        self.put(taken.select(urgencies % 2 == 0))
        return taken.select(urgencies % 2 == 1)
