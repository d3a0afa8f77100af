"""The services of ``listen``: ``--echo``, ``--discard`` and ``--chat``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from wireline import BUFFER_SIZE, EndOfStreamError
from wireline.cli._outcome import Failure, Stage
from wireline.cli._peer import NO_FLAGS

if TYPE_CHECKING:
    from wireline.cli._serving import Connection
    from wireline.net import Socket

_CHAT_SEND_TIMEOUT = 5.0
"""Seconds in which a client of the chat must accept a message, without ``--timeout``. A guess."""


def echo(client: Socket, timeout: float | None) -> None:
    """Send all data back."""
    while data := client.recv_some(BUFFER_SIZE, timeout, NO_FLAGS):
        client.send(data, NO_FLAGS, timeout)


def discard(client: Socket, timeout: float | None) -> None:
    """Read to the end."""
    while client.recv_some(BUFFER_SIZE, timeout, NO_FLAGS):
        pass


class ChatRoom:
    """Sends the lines of each client to all others, unchanged.

    A client that does not accept a message in time is disconnected, so it delays the others once at most.
    """

    def __init__(self, timeout: float | None = None) -> None:
        """Begin without clients, each of which must accept a message within ``timeout`` seconds."""
        self._timeout = _CHAT_SEND_TIMEOUT if timeout is None else timeout
        self._lock = threading.Lock()
        self._clients: set[Connection] = set()

    def serve(self, connection: Connection) -> None:
        """Pass on the lines of one client until it leaves."""
        with self._lock:
            self._clients.add(connection)
        try:
            while line := _next_line(connection.client):
                self._send_to_others(connection, line)
        finally:
            with self._lock:
                self._clients.discard(connection)

    def _send_to_others(self, sender: Connection, line: bytes) -> None:
        with self._lock:
            others = [each for each in self._clients if each is not sender]
        for each in others:
            try:
                each.client.send(line, NO_FLAGS, self._timeout)
            except OSError as error:
                self._disconnect(each, error)

    def _disconnect(self, connection: Connection, error: OSError) -> None:
        """Close a client and note why, unless it has left in the meantime."""
        with self._lock:
            known = connection in self._clients
            self._clients.discard(connection)
        if known:
            connection.failure = Failure(Stage.TALK, error, connection.name)
            connection.client.close(linger=0)


def _next_line(client: Socket) -> bytes:
    """The next line with its end, which is added to an incomplete last line; ``b""`` when the client is done."""
    try:
        return client.recv_until(b"\n")
    except EndOfStreamError as error:
        # The bytes stay readable; this reads them, so that the next call finds the end.
        return client.recv(len(error.partial)) + b"\n" if error.partial else b""
