"""Waiting for requests and for what becomes of children, both at once, without polling."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Iterator
from typing import Any


class Wakeup:
    """A selector that also wakes when a child ends or stops, of a process with one thread."""

    def __init__(self, requests: Any) -> None:
        """`requests`: what else to wait for; anything with a file descriptor."""
        self._requests = requests
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        signal.set_wakeup_fd(self._theirs.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._selector.register(self._ours, selectors.EVENT_READ)

    def wait(self, timeout_s: float | None = None) -> Iterator[bool]:
        """For each that is ready in time: whether it is a request, else it is about children."""
        for key, _ in self._selector.select(timeout_s):
            is_request = key.fileobj is self._requests
            if not is_request:
                self._ours.recv(4096)
            yield is_request

    def leave(self) -> None:
        """In a forked child, to which neither belongs."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for inherited in (self._selector, self._ours, self._theirs):
            inherited.close()
