"""What ranks run in the tests: each target does one thing, often a bad one."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from runner.contract.errors import InstanceError
from runner.contract.vocabulary import Cause

Payload = dict[str, Any]


def rank() -> int:
    return int(os.environ["RANK"])


def echo(payload: Payload) -> Payload:
    return {"rank": rank(), "payload": payload}


READY: list[int] = []  # processes that made everything ready


def get_ready() -> None:
    READY.append(os.getpid())


def who_got_ready(payload: Payload) -> Payload:
    return {"pids": READY}


def grandparent(payload: Payload) -> Payload:
    return {"pid": psutil.Process(os.getppid()).ppid()}


def environment(payload: Payload) -> Payload:
    return dict(os.environ)


def threads(payload: Payload) -> Payload:
    import torch

    return {"torch": torch.get_num_threads(), "process": len(os.listdir("/proc/self/task"))}


def talk(payload: Payload) -> Payload:
    sys.stdout.write("to stdout\n")
    sys.stderr.write("to stderr\n")
    os.write(1, b"below Python\n")
    return {}


def sleep(payload: Payload) -> Payload:
    time.sleep(payload["seconds"])
    return {}


def ignore_term(payload: Payload) -> Payload:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return sleep(payload)


def rank_1_sleeps(payload: Payload) -> Payload:
    return sleep(payload) if rank() == 1 else {"rank": rank()}


def raise_instance_error(payload: Payload) -> Payload:
    raise InstanceError(Cause.MALFORMED_PROPERTY, "x.vnnlib, line 3: not a number")


def raise_value_error(payload: Payload) -> Payload:
    raise ValueError("seven")


def leave(payload: Payload) -> Payload:
    sys.exit("goodbye")


def unserialisable(payload: Payload) -> Payload:
    return {"value": object()}


def exit_at_once(payload: Payload) -> Payload:
    os._exit(payload["code"])


def rank_1_fails_others_sleep(payload: Payload) -> Payload:
    return raise_value_error(payload) if rank() == 1 else sleep(payload)


def signal_self(payload: Payload) -> Payload:
    """Rank `payload["rank"]` sends itself `payload["signal"]`; all sleep after that."""
    if rank() == payload["rank"]:
        os.kill(os.getpid(), payload["signal"])
    return sleep(payload)


def stop_and_continue(payload: Payload) -> Payload:
    """Rank 0 is stopped until rank 1 wakes it; then rank 1 sleeps."""
    pid = Path(payload["folder"], "pid")
    if rank() == 0:
        pid.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        return {}
    while not pid.exists():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(int(pid.read_text()), signal.SIGCONT)
    return sleep(payload)


def allocate_torch(payload: Payload) -> Payload:
    import torch

    return {"sum": float(torch.ones(payload["bytes"] // 4).sum())}


def allocate_numpy(payload: Payload) -> Payload:
    import numpy as np

    return {"sum": float(np.ones(payload["bytes"] // 8).sum())}


def allocate_python(payload: Payload) -> Payload:
    blocks = []
    for _ in range(payload["bytes"] // 1024):
        blocks.append(bytes(1024))
    return {"blocks": len(blocks)}


def _join_gang() -> None:
    import torch.distributed as dist

    ranks = int(os.environ["WORLD_SIZE"])
    store = dist.FileStore(os.environ["RENDEZVOUS"], ranks)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank(), world_size=ranks)


def joined_for_a_job(payload: Payload) -> Payload:
    """Joins the gang and checks it as a rank that verifies does; rank 1's job is another one."""
    import torch

    from runner.contract.wire import question_from_json
    from runner.engine.layout.group import joined_group
    from runner.engine.programs.same_gang import check_gang

    own = payload["of_rank_1"] if rank() == 1 else {}
    with joined_group(torch.device("cpu")) as group:
        check_gang(question_from_json({**payload["job"], **own}), group)
    return {}


def all_reduce(payload: Payload) -> Payload:
    import torch
    import torch.distributed as dist

    _join_gang()
    tensor = torch.tensor([float(rank() + 1)])
    dist.all_reduce(tensor)
    return {"sum": tensor.item()}


def all_reduce_metered(payload: Payload) -> Payload:
    """What the meter of a rank sees of a collective over 4096 bytes."""
    import torch
    import torch.distributed as dist

    from runner.engine.measure.library import tensor_meter

    _join_gang()
    with tensor_meter() as meter:
        tensor = torch.full((1024,), float(rank() + 1))
        dist.all_reduce(tensor)
        dist.broadcast(tensor, 0)
        live_bytes = meter.total.live
    return {"first": tensor[0].item(), "live_bytes": live_bytes}


def all_reduce_without_end(payload: Payload) -> Payload:
    """Every rank leaves its pid in `payload["folder"]` once the collectives run."""
    import torch
    import torch.distributed as dist

    _join_gang()
    dist.all_reduce(torch.zeros(1))
    Path(payload["folder"], f"pid{rank()}").write_text(str(os.getpid()))
    while True:
        dist.all_reduce(torch.zeros(1))


def rank_1_out_of_memory(payload: Payload) -> Payload:
    """Rank 1 runs out of memory while rank 0 waits for it in a collective."""
    import torch
    import torch.distributed as dist

    _join_gang()
    if rank() == 1:
        torch.ones(1 << 40)
    dist.all_reduce(torch.zeros(1))
    return {}
