"""What a listener does with its clients when it is not standard input and output that they get."""

from __future__ import annotations

import threading
from collections.abc import Callable

from wireline import BUFFER_SIZE, EndOfStreamError
from wireline.cli._outcome import Failure, Stage, report
from wireline.cli._peer import NO_FLAGS
from wireline.net import Socket

Service = Callable[[Socket, str, "float | None"], None]
"""Serves one client until it is done: the socket, the client's name, seconds to wait for it each time."""

_CHAT_PATIENCE = 5.0
"""Seconds that a message may wait for one client to take it, unless ``--timeout`` says otherwise. A guess."""


def echo(client: Socket, name: str, timeout: float | None) -> None:
    """Send everything back."""
    while data := client.recv_some(BUFFER_SIZE, timeout, NO_FLAGS):
        client.send(data, NO_FLAGS, timeout)


def discard(client: Socket, name: str, timeout: float | None) -> None:
    """Read to the end."""
    while client.recv_some(BUFFER_SIZE, timeout, NO_FLAGS):
        pass


class ChatRoom:
    """Everybody gets the lines of everybody else, as they were sent.

    A client that does not take a message in time is put out, so that it holds up the others once at most.
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
                self._tell_others(client, line, timeout)
        finally:
            with self._lock:
                self._clients.pop(client, None)

    def _tell_others(self, sender: Socket, line: bytes, timeout: float | None) -> None:
        with self._lock:
            others = [(client, name) for client, name in self._clients.items() if client is not sender]
        for client, name in others:
            try:
                client.send(line, NO_FLAGS, _CHAT_PATIENCE if timeout is None else timeout)
            except OSError as error:
                self._put_out(client, Failure(Stage.TALK, error, name))

    def _put_out(self, client: Socket, failure: Failure) -> None:
        """Close a client that cannot be told anything, and say so, unless it has left by itself meanwhile."""
        with self._lock:
            known = self._clients.pop(client, None)
        if known is not None:
            client.close(linger=0)
            report(failure)


def _next_line(client: Socket) -> bytes:
    """The next line with its end; one that the peer left unfinished gets one; ``b""`` when the peer is done."""
    try:
        return client.recv_until(b"\n")
    except EndOfStreamError as error:
        # The bytes stay readable; taking them is what makes the next call find the end.
        return client.recv(len(error.partial)) + b"\n" if error.partial else b""
