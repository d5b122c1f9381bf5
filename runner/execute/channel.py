"""Lines of JSON over a socket: how the scheduler and the fork server talk."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Mapping
from typing import Any

Message = dict[str, Any]


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """One end of a connected stream socket; not safe for several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._partial = b""
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Raises ChannelClosed."""
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, timeout_s: float | None = None) -> list[Message]:
        """The messages that have arrived, none after `timeout_s`. Raises ChannelClosed."""
        wait_ms = None if timeout_s is None else max(0.0, timeout_s * 1000)
        if not self._poll.poll(wait_ms):
            return []
        try:
            data = self._connection.recv(1 << 16)
        except OSError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self._connection.close()
