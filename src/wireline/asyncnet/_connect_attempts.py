"""Connections that are attempted side by side, for ``dial``."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator

from wireline._os.descriptor import CONNECTING, connect_result
from wireline.asyncnet._completion_queue import when_done
from wireline.asyncnet._port import Completion
from wireline.asyncnet._sync import Notifier
from wireline.errors import SockAddr

__all__ = ["ConnectAttempts"]


class ConnectAttempts:
    """Connections that are attempted side by side; the notifier says when one is done."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._port = notifier.port
        self._running: dict[int, socket.socket] = {}
        self._completions: dict[int, Completion] = {}
        self._done: list[int] = []

    def start(self, sock: socket.socket, target: SockAddr, index: int) -> None:
        """Start an attempt, and own ``sock`` from now on.

        Raises:
            OSError: it failed at once; the socket is closed again.
        """
        self._running[index] = sock  # first: an exception at any moment finds it there
        try:
            if self._port.completions is not None:
                completion = self._port.completions.connect(sock, target)
                completion.add_done_callback(lambda _: self._on_done(index))
                self._completions[index] = completion
            else:
                code = sock.connect_ex(target)
                if code and code not in CONNECTING:
                    raise OSError(code, os.strerror(code))
                # Not by the poller, which has a descriptor of its own: `dial` works with the last one that is left.
                self._port.watch_fd(sock.fileno(), functools.partial(self._on_done, index), write=True)
        except BaseException:
            del self._running[index]
            self._unwatch(sock)
            sock.close()
            raise

    def _unwatch(self, sock: socket.socket) -> None:
        if self._port.completions is None:
            self._port.unwatch_fd(sock.fileno(), write=True)

    def _on_done(self, index: int) -> None:
        self._done.append(index)
        if index in self._running:
            self._unwatch(self._running[index])
        self._notifier.notify()

    def results(self) -> Iterator[tuple[int, OSError | None]]:
        """Yield the attempts that are done, with their errors; those that failed are closed."""
        while self._done:
            index = self._done.pop(0)
            sock = self._running[index]
            error = self._error(index) or connect_result(sock)
            if error is not None:
                del self._running[index]
                sock.close()
            if error is not None and not isinstance(error, OSError):
                raise error
            yield index, error

    def _error(self, index: int) -> BaseException | None:
        """Return the error of an attempt that the loop has made."""
        completion = self._completions.pop(index, None)
        error = None if completion is None else completion.exception()
        if isinstance(error, OSError) and error.errno:
            return OSError(error.errno, os.strerror(error.errno))  # asyncio has a text of its own
        return error

    def take(self, index: int) -> socket.socket:
        """Give up the socket of an attempt: it is the caller's."""
        return self._running.pop(index)

    def close(self) -> None:
        """Give up the attempts that still run."""
        for index, sock in self._running.items():
            self._unwatch(sock)
            completion = self._completions.get(index)
            if completion is not None:
                completion.cancel()
            # Not before the loop has let go of the descriptor: its number may be another socket's in the next moment.
            when_done([completion], sock.close)
        self._running.clear()
