"""A program of somebody else's, run to its end: what is asked, what became of it. No torch."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from runner.contract.wire import from_json, to_json
from runner.execute.channel import Channel, ChannelClosed
from runner.execute.link import environment

OUTPUT_LIMIT_BYTES = 64 * 2**20
DYING_S = 30.0  # a tree of many processes, or one that holds a GPU, takes a while to go


class ProgramEnd(StrEnum):
    """How a program ended."""

    FINISHED = "finished"  # by itself
    KILLED_AT_DEADLINE = "killed_at_deadline"
    OUT_OF_MEMORY = "out_of_memory"  # its processes took more than they may, and were killed
    ABANDONED = "abandoned"  # the harness was ending
    SUPERVISOR_DIED = "supervisor_died"  # or did not answer


@dataclass(frozen=True)
class Program:
    """A process to start and hold to its limits, with all that it starts.

    `folder`: where it runs. `output`, `errors`: the files that its standard output and error go to,
    each cut after `output_limit_bytes`. `timeout_s`: when it is ended. `memory_limit_bytes`: what
    all its processes may have resident, None for no limit.
    """

    arguments: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    output: str
    errors: str
    timeout_s: float
    memory_limit_bytes: int | None = None
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES


@dataclass(frozen=True)
class ProgramResult:
    """What became of a program.

    `exit_code`: negative for a signal, None where it did not end by itself. `run_time_s`: to its
    end, or to that of its last process where it was ended. `cpu_s` and the peaks are of all its
    processes; peaks are sampled, `peak_gpu_bytes` is None where NVML tells nothing. `left_behind`:
    the names of processes that outlived it and were killed.
    """

    ended: ProgramEnd
    exit_code: int | None
    run_time_s: float
    cpu_s: float | None = None
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    left_behind: tuple[str, ...] = ()


def run_program(program: Program) -> ProgramResult:
    """Returns when neither the program nor anything that it started is left.

    Where this process ends before, so do they.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "runner.execute.supervisor", str(theirs.fileno())],
            env=environment(),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # Ctrl-C at the terminal is for the harness, whose end ends the supervisor.
            start_new_session=True,
        )
    channel = Channel(ours)
    try:
        return _followed(channel, program)
    finally:
        channel.close()
        _wait(supervisor)


def _followed(channel: Channel, program: Program) -> ProgramResult:
    try:
        channel.send(to_json(program))
        give_up = monotonic() + program.timeout_s + DYING_S
        while (left := give_up - monotonic()) > 0:
            for message in channel.receive(left):
                return from_json(message, ProgramResult)
    except ChannelClosed:
        pass  # it was killed
    return ProgramResult(ProgramEnd.SUPERVISOR_DIED, None, 0.0)


def _wait(supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.wait(DYING_S)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
