"""The ranks of one gang and what they say to each other, counted in bytes and seconds."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

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


class Group:
    """Collectives of `size` ranks; with one rank they are nothing and cost nothing."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.traffic = Traffic()

    def broadcast(self, tensor: Tensor, owner: int) -> Tensor:
        """The owner's values on every rank, in place; `tensor` is contiguous."""
        if self.size > 1:
            with self._counted(tensor, sends=self.size - 1 if self.rank == owner else 0):
                dist.broadcast(tensor, owner)
        return tensor

    def reduce(self, tensor: Tensor, owner: int) -> Tensor:
        """The sum over ranks on the owner, in place; elsewhere the tensor is used up."""
        if self.size > 1:
            with self._counted(tensor, sends=0 if self.rank == owner else 1):
                dist.reduce(tensor, owner)
        return tensor

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks on every rank, in place."""
        if self.size > 1:
            with self._counted(tensor, sends=2):
                dist.all_reduce(tensor)
        return tensor

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

    @contextmanager
    def _counted(self, tensor: Tensor, sends: int) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if tensor.is_cuda:
            # NCCL returns before the transfer has happened.
            torch.cuda.synchronize(tensor.device)
        self.traffic.seconds += time.perf_counter() - start
        self.traffic.bytes += sends * tensor.nbytes
        self.traffic.collectives += 1


@contextmanager
def joined_group(device: torch.device) -> Iterator[Group]:
    """The gang that RANK and WORLD_SIZE speak of: NCCL when ranks are on GPUs, else gloo.

    Ranks meet through the file RENDEZVOUS names, or MASTER_ADDR and MASTER_PORT as under torchrun.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    rendezvous = os.environ.get("RENDEZVOUS")
    if not rendezvous:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _interface_towards(os.environ["MASTER_ADDR"]))
    # `decide` sends a CPU tensor, so a GPU gang needs gloo beside NCCL.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        init_method=f"file://{rendezvous}" if rendezvous else "env://",
        rank=rank,
        world_size=size,
        timeout=COLLECTIVE_TIMEOUT,
    )
    yield Group(rank, size)
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
