"""The addresses of a target, and connections to all of them at the same time."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - `getaddrinfo` has names encoded by it, and its thread may get no descriptor to load it
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import NamedTuple, Protocol

from wireline import AF_UNIX, DialError, SocketTimeout, Target
from wireline.cli._printable import sanitize_for_terminal
from wireline.net import Socket, dial


class Connectable(Protocol):
    """A server that is checked; its text is its address."""

    def connect(self, timeout: float) -> Socket:
        """Connect to it.

        Raises:
            OSError: it does not answer, or not in time.
        """
        ...


class Endpoint(NamedTuple):
    """One address of the target, as ``Socket`` takes it."""

    family: int
    host: str
    port: int

    def __str__(self) -> str:
        if self.family == AF_UNIX:
            return sanitize_for_terminal(str(Target("unix", path=self.host)))
        return str(Target("tcp", self.host, self.port))

    def connect(self, timeout: float) -> Socket:
        """Connect to it.

        Raises:
            OSError: it does not answer, or not in time.
        """
        if self.family == AF_UNIX:
            return dial(str(Target("unix", path=self.host)), timeout=timeout)
        return dial(self.host, self.port, timeout=timeout)


class Attempt(NamedTuple):
    """The result of connecting to one address."""

    endpoint: Connectable
    seconds: float
    error: OSError | None
    sock: Socket | None


def resolve(target: Target, timeout: float) -> list[Endpoint]:
    """Return the addresses of a target, in the resolver's order.

    Raises:
        socket.gaierror: the name has none.
        TimeoutError: the resolver did not answer in time.
        UnicodeError: the name is not valid.
    """
    if target.path:
        return [Endpoint(AF_UNIX, target.path, 0)]
    result: Future[list[Endpoint]] = Future()
    # A daemon: `getaddrinfo` cannot be interrupted, and must not delay the exit.
    threading.Thread(target=_resolve, args=(target, result), name="wireline-resolve", daemon=True).start()
    try:
        return result.result(timeout)
    except TimeoutError:
        if result.done():
            raise
        raise TimeoutError(f"its name was not resolved within {timeout:g} s") from None


def _resolve(target: Target, result: Future[list[Endpoint]]) -> None:
    try:
        answers = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits for the result
        result.set_exception(error)
        return
    endpoints = [
        Endpoint(int(family), str(sockaddr[0]), int(sockaddr[1])) for family, _, _, _, sockaddr in answers
    ]
    result.set_result(list(dict.fromkeys(endpoints)))


def connect_all(endpoints: list[Endpoint], timeout: float) -> list[Attempt]:
    """Connect to all endpoints at once, and wait for each to answer or to fail. The caller closes the sockets."""
    with ThreadPoolExecutor(max_workers=len(endpoints)) as threads:
        return list(threads.map(lambda endpoint: _attempt(endpoint, timeout), endpoints))


def _attempt(endpoint: Endpoint, timeout: float) -> Attempt:
    began = monotonic()
    sock, failed = None, None
    try:
        sock = endpoint.connect(timeout)
    except DialError as error:
        failed = error.attempts[0][1]  # the endpoint is one address
    except OSError as error:
        failed = error
    return Attempt(endpoint, monotonic() - began, failed, sock)


def dial_error(target: Target, attempts: list[Attempt]) -> OSError:
    """The error to raise if no address answered."""
    if len(attempts) == 1 or all(isinstance(attempt.error, SocketTimeout) for attempt in attempts):
        assert attempts[0].error is not None
        return attempts[0].error
    tried = tuple(
        ((attempt.endpoint.host, attempt.endpoint.port), attempt.error, attempt.seconds)
        for attempt in attempts
        if attempt.error is not None and isinstance(attempt.endpoint, Endpoint)
    )
    return DialError(str(target), tried)
