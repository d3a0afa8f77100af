"""The services of ``listen``: ``--echo``, ``--discard`` and ``--chat``."""

from __future__ import annotations

import threading
from collections.abc import Callable

from wireline import BUFFER_SIZE, EndOfStreamError
from wireline.cli._outcome import Failure, Stage, report
from wireline.cli._peer import NO_FLAGS
from wireline.net import Socket

Service = Callable[[Socket, str, "float | None"], None]
"""Serves one client until it is done. Arguments: its socket, its name, and the time limit of each call in seconds."""

_CHAT_SEND_TIMEOUT = 5.0
"""Seconds in which a client of the chat must accept a message, without ``--timeout``. A guess."""


def echo(client: Socket, name: str, timeout: float | None) -> None:
    """Send all data back."""
    while data := client.recv_some(BUFFER_SIZE, timeout, NO_FLAGS):
        client.send(data, NO_FLAGS, timeout)


def discard(client: Socket, name: str, timeout: float | None) -> None:
    """Read to the end."""
    while client.recv_some(BUFFER_SIZE, timeout, NO_FLAGS):
        pass


class ChatRoom:
    """Sends the lines of each client to all others, unchanged.

    A client that does not accept a message in time is disconnected, so it delays the others once at most.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[Socket, str] = {}

    def serve(self, client: Socket, name: str, timeout: float | None) -> None:
        """Pass on the lines of one client until it leaves."""
        with self._lock:
            self._clients[client] = name
        try:
            while line := _next_line(client):
                self._send_to_others(client, line, timeout)
        finally:
            with self._lock:
                self._clients.pop(client, None)

    def _send_to_others(self, sender: Socket, line: bytes, timeout: float | None) -> None:
        with self._lock:
            others = [(client, name) for client, name in self._clients.items() if client is not sender]
        for client, name in others:
            try:
                client.send(line, NO_FLAGS, _CHAT_SEND_TIMEOUT if timeout is None else timeout)
            except OSError as error:
                self._disconnect(client, Failure(Stage.TALK, error, name))

    def _disconnect(self, client: Socket, failure: Failure) -> None:
        """Close a client and report why, unless it has left in the meantime."""
        with self._lock:
            known = self._clients.pop(client, None)
        if known is not None:
            client.close(linger=0)
            report(failure)


def _next_line(client: Socket) -> bytes:
    """The next line with its end, which is added to an incomplete last line; ``b""`` when the client is done."""
    try:
        return client.recv_until(b"\n")
    except EndOfStreamError as error:
        # The bytes stay readable; this reads them, so that the next call finds the end.
        return client.recv(len(error.partial)) + b"\n" if error.partial else b""
