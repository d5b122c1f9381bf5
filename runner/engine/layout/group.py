"""The ranks of one gang, or a part of them, and what they say to each other, counted in bytes and
seconds.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, cast

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous as rendezvous_at

from runner.contract.layout import Partition
from runner.engine.layout.devices import GLOO, backends_for
from runner.engine.layout.world import world

# A gang that loses a rank is killed from outside; this only bounds a run without a scheduler.
COLLECTIVE_TIMEOUT = timedelta(hours=24)


@dataclass
class Traffic:
    """`bytes`: sent by this rank, as payloads of the algorithm and not of a backend's.

    A broadcast is its payload once for each receiver, from the owner; a reduce once from every
    rank but the owner; an all-reduce twice from every rank (a ring sends 2 (P - 1) / P of it).
    """

    bytes: int = 0
    seconds: float = 0.0
    collectives: int = 0


class KeyValueStore(Protocol):
    """What torch's stores have that signals need."""

    def set(self, key: str, value: str, /) -> None: ...

    def check(self, keys: list[str], /) -> bool: ...


class Group:
    """Collectives of `size` ranks; with one rank they are nothing and cost nothing.

    `store`: of the rendezvous, for signals; there is none for one rank. `through_host`: tensors of
    a GPU go by host memory, copied here: gloo knows some collectives for them, not all. `backend`:
    torch's name of what carries the collectives.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        store: KeyValueStore | None = None,
        through_host: bool = False,
        backend: str | None = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self.members: Sequence[int] = range(size)
        self.traffic = Traffic()
        self._store = store
        self._through_host = through_host
        self._backend = backend
        self._handle: dist.ProcessGroup | None = None  # None: torch's own, of all ranks
        self._parts: dict[tuple[tuple[int, ...], ...], Group] = {}
        self._turns = 0

    def part(self, partition: Partition) -> Group:
        """This rank's group of a partition of the gang; what it sends counts as the gang's. All
        ranks must ask for the same ones in the same order.
        """
        own = next(ranks for ranks in partition if self.rank in ranks)
        if len(own) == self.size:
            return self
        if len(own) == 1:
            return Group()
        key = tuple(map(tuple, partition))
        if key not in self._parts:
            handle, _ = dist.new_subgroups_by_enumeration(
                list(map(list, key)), COLLECTIVE_TIMEOUT, self._backend
            )
            made = Group(own.index(self.rank), len(own), self._store, self._through_host)
            made.members, made.traffic = own, self.traffic
            made._handle = cast(dist.ProcessGroup, handle)  # this rank is in one of them
            self._parts[key] = made
        return self._parts[key]

    def broadcast(self, tensor: Tensor, owner: int) -> Tensor:
        """The owner's values on every rank, in place; `tensor` is contiguous."""
        if self.size > 1:
            with self._counted(tensor, sends=self.size - 1 if self.rank == owner else 0):
                sent = self._here(tensor)
                dist.broadcast(sent, self.members[owner], self._handle)
                _put(sent, tensor)
        return tensor

    def reduce(self, tensor: Tensor, owner: int) -> Tensor:
        """The sum over ranks on the owner, in place; elsewhere the tensor is used up."""
        if self.size > 1:
            with self._counted(tensor, sends=0 if self.rank == owner else 1):
                summed = self._here(tensor)
                dist.reduce(summed, self.members[owner], group=self._handle)
                _put(summed, tensor)
        return tensor

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks on every rank, in place."""
        if self.size > 1:
            with self._counted(tensor, sends=2):
                summed = self._here(tensor)
                dist.all_reduce(summed, group=self._handle)
                _put(summed, tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The ranks' tensors of one shape, [size, *shape]."""
        if self.size == 1:
            return tensor[None]
        with self._counted(tensor, sends=self.size - 1):
            sent = self._here(tensor)
            parts = [torch.empty_like(sent) for _ in range(self.size)]
            dist.all_gather(parts, sent, self._handle)
            return torch.stack(parts).to(tensor.device)

    def swap(self, outgoing: list[tuple[Tensor, int]], incoming: list[tuple[Tensor, int]]) -> None:
        """Tensors to ranks, and into tensors from ranks; all on their way at the same time.

        Those between two ranks keep their order. Ranks that are in neither list need not call.
        """
        if not outgoing and not incoming:
            return
        (first, _), *_ = outgoing + incoming
        with self._counted(first, sends=0):
            sent = [self._here(tensor) for tensor, _ in outgoing]
            received = [self._here(tensor) for tensor, _ in incoming]
            operations = [
                dist.P2POp(way, tensor, self.members[peer], self._handle)
                for way, tensors, ends in (
                    (dist.isend, sent, outgoing),
                    (dist.irecv, received, incoming),
                )
                for tensor, (_, peer) in zip(tensors, ends, strict=True)
            ]
            for work in dist.batch_isend_irecv(operations):
                work.wait()
            for (tensor, _), came in zip(incoming, received, strict=True):
                _put(came, tensor)
        self.traffic.bytes += sum(tensor.nbytes for tensor, _ in outgoing)

    def turn(self) -> int:
        """How often it was asked before, by all ranks alike: so that names of signals are new."""
        self._turns += 1
        return self._turns - 1

    def signal(self, name: str) -> None:
        """For all ranks to see, whatever they are doing; no collective."""
        if self._store is not None:
            self._store.set(f"signal/{name}", "1")

    def signalled(self, name: str) -> bool:
        """Whether any rank gave that signal; no collective."""
        return self._store is not None and self._store.check([f"signal/{name}"])

    def decide(self, flag: bool) -> bool:
        """Rank 0's answer everywhere: what depends on a clock or on chance."""
        if self.size == 1:
            return flag
        return bool(self.broadcast(torch.tensor([flag], dtype=torch.uint8), 0).item())

    def all_agree(self, flag: bool) -> bool:
        """Whether it is true on every rank."""
        if self.size == 1:
            return flag
        no = torch.tensor([not flag], dtype=torch.uint8)
        return not self.all_reduce(no).item()

    def _here(self, tensor: Tensor) -> Tensor:
        """Itself or its copy, where the backend can send from it and receive into it."""
        return tensor.cpu() if self._through_host else tensor

    @contextmanager
    def _counted(self, tensor: Tensor, sends: int) -> Iterator[None]:
        if tensor.is_cuda:
            # Kernels that were only queued are not the transfer's time.
            torch.cuda.synchronize(tensor.device)
        start = time.perf_counter()
        yield
        if tensor.is_cuda:
            # NCCL returns before the transfer has happened.
            torch.cuda.synchronize(tensor.device)
        self.traffic.seconds += time.perf_counter() - start
        self.traffic.bytes += sends * tensor.nbytes
        self.traffic.collectives += 1


def _put(came: Tensor, tensor: Tensor) -> None:
    """What came, into where it was to go."""
    if came is not tensor:
        tensor.copy_(came)


@contextmanager
def joined_group(device: torch.device) -> Iterator[Group]:
    """The gang that RANK and WORLD_SIZE speak of: NCCL when each rank has a GPU, else gloo.

    Ranks meet through the file RENDEZVOUS names, or MASTER_ADDR and MASTER_PORT as under torchrun.
    Raises InstanceError GANG_MISMATCH for a RANK or WORLD_SIZE that cannot be.
    """
    rank, size = world()
    if size == 1:
        yield Group()
        return
    rendezvous = os.environ.get("RENDEZVOUS")
    if rendezvous:
        # torch names it there, without marking it as exported.
        store = dist.FileStore(rendezvous, size)  # type: ignore[attr-defined]
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _interface_towards(os.environ["MASTER_ADDR"]))
        store, _, _ = next(rendezvous_at("env://"))
    backends = backends_for(device)
    dist.init_process_group(
        backends,
        store=store,
        rank=rank,
        world_size=size,
        timeout=COLLECTIVE_TIMEOUT,
    )
    through_host = device.type == "cuda" and backends == GLOO
    yield Group(dist.get_rank(), dist.get_world_size(), store, through_host, backends)
    # Not after an error: taking a group down can wait for ranks that are gone.
    dist.destroy_process_group()


def _interface_towards(host: str) -> str:
    """The network interface that reaches `host`: gloo would take what this host's name means,
    which often is the loopback.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # chooses a route and sends nothing
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(known.address == own for known in addresses):
            return name
    raise OSError(f"no interface has the address {own}; set GLOO_SOCKET_IFNAME")
