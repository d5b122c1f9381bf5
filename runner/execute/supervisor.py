"""The process above another verifier's program: holds its whole tree to time and memory, and ends
it. Started by `runner.execute.program.run_program` as `python -m runner.execute.supervisor FD`.

FD is a connected socket: a line of JSON with the fields of `Program` comes in, one with those of
`ProgramResult` goes out. Its end means that the harness is gone, and ends the tree.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import psutil

from runner.contract.limits import die_with_parent
from runner.contract.wire import from_json, to_json
from runner.execute.channel import Channel, ChannelClosed, Message
from runner.execute.gpu_processes import GpuProcesses
from runner.execute.process_tree import (
    adopt_orphans,
    descendants,
    end_all,
    reap,
    resident_bytes,
    wait_for_none,
)
from runner.execute.program import Program, ProgramEnd, ProgramResult

POLITE_S = 0.25  # from SIGTERM to SIGKILL
LINGER_S = 0.5  # helpers of a program may take a moment to see that it is gone
SAMPLE_EVERY_S = 0.02
SAMPLING_SHARE = 0.05  # of a core, at most
CANNOT_START = 127  # as a shell has it


class Supervision:
    """One program from its start to the end of its last descendant."""

    def __init__(self, program: Program, channel: Channel) -> None:
        self._program = program
        self._channel = channel
        self._gpu = GpuProcesses()
        self._peak_rss_bytes = 0
        self._peak_gpu_bytes: int | None = None

    def run(self) -> ProgramResult:
        start = monotonic()
        try:
            started = self._start()
        except OSError as error:
            Path(self._program.errors).write_text(f"{error}\n")
            return ProgramResult(ProgramEnd.FINISHED, CANNOT_START, monotonic() - start)
        ended, status = self._follow(started.pid, start + self._program.timeout_s)
        run_time_s = monotonic() - start
        left = self._left_behind() if ended is ProgramEnd.FINISHED else ()
        end_all(POLITE_S)
        self._cut_output()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ProgramResult(
            ended=ended,
            exit_code=None if status is None else os.waitstatus_to_exitcode(status),
            run_time_s=run_time_s if ended is ProgramEnd.FINISHED else monotonic() - start,
            cpu_s=used.ru_utime + used.ru_stime,
            peak_rss_bytes=self._peak_rss_bytes,
            peak_gpu_bytes=self._peak_gpu_bytes,
            left_behind=left,
        )

    def _start(self) -> subprocess.Popen[bytes]:
        program, parent = self._program, os.getpid()
        # Appended to, so that it can be cut while it is written.
        with open(program.output, "ab") as output, open(program.errors, "ab") as errors:
            return subprocess.Popen(
                program.arguments,
                cwd=program.folder,
                env=program.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )

    def _follow(self, pid: int, deadline: float) -> tuple[ProgramEnd, int | None]:
        """Until the program ends or has to; its exit status if it ended."""
        end, harness = os.pidfd_open(pid), self._channel.fileno()
        try:
            while True:
                begun = monotonic()
                # It may end before the time and be seen after it.
                ended = reap()
                if pid in ended:
                    return ProgramEnd.FINISHED, ended[pid]
                if begun >= deadline:
                    return ProgramEnd.KILLED_AT_DEADLINE, None
                if not self._sample():
                    return ProgramEnd.OUT_OF_MEMORY, None
                pause = max(SAMPLE_EVERY_S, (monotonic() - begun) / SAMPLING_SHARE)
                wait = max(0.0, min(pause, deadline - monotonic()))
                if harness in select.select([harness, end], [], [], wait)[0]:
                    return ProgramEnd.ABANDONED, None
        finally:
            os.close(end)

    def _sample(self) -> bool:
        """Measures the tree; whether it keeps to its memory."""
        processes = descendants()
        now = resident_bytes(processes)
        self._peak_rss_bytes = max(self._peak_rss_bytes, now)
        held = self._gpu.held_bytes({process.pid for process in processes})
        if held is not None:
            self._peak_gpu_bytes = max(held, self._peak_gpu_bytes or 0)
        self._cut_output()
        limit = self._program.memory_limit_bytes
        return limit is None or now <= limit

    def _left_behind(self) -> tuple[str, ...]:
        """The names of processes that outlive the program, and a moment more."""
        if wait_for_none(LINGER_S):
            return ()
        return tuple(_name(process) for process in descendants())

    def _cut_output(self) -> None:
        """A program that never stops printing must not fill the disk."""
        for path in (self._program.output, self._program.errors):
            if os.path.getsize(path) > self._program.output_limit_bytes:
                os.truncate(path, self._program.output_limit_bytes)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "?"


def main() -> None:
    adopt_orphans()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        program = from_json(_request(channel), Program)
        channel.send(to_json(Supervision(program, channel).run()))
    except ChannelClosed:
        return  # nobody is left who would want to know


def _request(channel: Channel) -> Message:
    """Raises ChannelClosed."""
    while True:
        for message in channel.receive():
            return message


if __name__ == "__main__":
    main()
