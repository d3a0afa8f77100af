"""The part of a server that both flavours share, because it never waits: arguments, and how it stops."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from wireline._socket_base import BaseSocket
from wireline._targets import Target
from wireline._validation import require_context
from wireline.timing import check_seconds

if TYPE_CHECKING:
    from wireline._server_stats import ServerStats
    from wireline.address import Address
    from wireline.tls import SslContext

__all__ = [
    "HandshakeConfig",
    "ServerTotals",
    "StopReport",
    "StopRequest",
    "StopRequests",
    "accept_failure",
    "check_callback",
    "check_wait_after_fork",
]

K = TypeVar("K")
S = TypeVar("S", bound=BaseSocket)


def accept_failure(listener: Address, error: BaseException, count: int) -> str:
    """What the log says of so many failures to accept a client."""
    name = str(Target("tcp", *listener)) if listener.port else listener.host  # the path of a Unix socket
    text = f"cannot accept connections at {name}: {error}"
    if count > 1:
        return f"{text} ({count} times)"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return f"{text}; raise the limit of open files with 'ulimit -n', or serve fewer clients at a time"
    return text


class StopReport(NamedTuple):
    """How the connections ended that were open when the server was stopped."""

    drained: int
    """Handlers that returned or raised by themselves in time."""
    forced: int
    """Connections that were closed while their handler ran."""


class StopRequest:
    """One call of ``stop``, or all calls of ``request_stop``.

    Attributes:
        until: the monotonic time at which the drain ends; None for no limit.
        caller: the thread that waits for the stop; None if no thread waits that a signal handler could interrupt.
        drain_cancelled: a later stop has ended the drain.
        handlers: the threads or tasks of the connections that were open when the stop was requested.
    """

    __slots__ = ("caller", "drain_cancelled", "handlers", "until")

    def __init__(self, until: float | None, handlers: Iterable[object], caller: object = None) -> None:
        self.until = until
        self.caller = caller
        self.drain_cancelled = False
        # A copy made now: by the time that another thread acts on the request some handlers may have ended.
        self.handlers = set(handlers)


class StopRequests:
    """The stop requests of one server that are in progress, in the order of the calls.

    Each call of ``stop`` is one, and all calls of ``request_stop`` together. A signal handler may add one between any
    two bytecodes, so each change is one operation on a dict or a set.

    Attributes:
        exempt: handlers that called ``stop`` themselves.
        forced: handlers whose connection was closed while they ran.
    """

    def __init__(self) -> None:
        self._requests: dict[object, StopRequest] = {}
        self.exempt: set[object] = set()
        self.forced: set[object] = set()

    @property
    def requested(self) -> StopRequest | None:
        """The request of ``request_stop``, if there is one."""
        return self._requests.get(_REQUEST_STOP)

    def request(self, request: StopRequest) -> None:
        """Add a call of ``request_stop``. A second stop ends the drain of the first."""
        added = self._requests.setdefault(_REQUEST_STOP, request) is request
        if not added or not self._is_first(_REQUEST_STOP):
            self.cancel_drains()

    def enter(self, request: StopRequest, handler: object | None) -> bool:
        """Add a call of ``stop``. A second stop ends the drain of the first.

        Args:
            request: the call; ``leave`` is due in any case.
            handler: the thread or task that calls, if it is a handler of this server.

        Returns:
            False for a handler that is not the first to stop: the first stop waits for it, so it must not wait.
        """
        self._requests[request] = request
        first = self._is_first(request)
        if handler is None:
            if not first:
                self.cancel_drains()
        elif first:
            self.exempt.add(handler)
        else:
            return False
        return True

    def leave(self, request: StopRequest, handler: object) -> None:
        """Remove a call of ``stop``."""
        self._requests.pop(request, None)
        self.exempt.discard(handler)

    def is_in_stop(self, caller: object) -> bool:
        """Whether ``caller`` is in ``stop`` already, and this is a signal handler that has interrupted it."""
        return any(request.caller is caller for request in list(self._requests.values()))

    def cancel_drains(self) -> None:
        """End all drains: no stop waits for handlers any more."""
        for request in list(self._requests.values()):
            request.drain_cancelled = True

    def report(self) -> StopReport:
        """Report on the handlers of all requests: the last request may end first, and has the fewest handlers."""
        requests = list(self._requests.values())
        handlers = {handler for request in requests for handler in request.handlers} - self.exempt
        count = len(handlers & self.forced)
        return StopReport(len(handlers) - count, count)

    def _is_first(self, key: object) -> bool:
        keys = list(self._requests)  # a copy, made in one step
        return keys[0] is key


# The key of the request of `request_stop`.
_REQUEST_STOP = object()


class HandshakeConfig(NamedTuple):
    """The TLS context of a server, and the seconds that one handshake may take."""

    tls: SslContext
    timeout: float | None

    @classmethod
    def from_arguments(
        cls, tls: SslContext | None, handshake_timeout: float | None
    ) -> HandshakeConfig | None:
        """Make it of the arguments of ``serve``; None without TLS.

        Raises:
            TypeError, ValueError: an argument is wrong.
            OSError: the context has no usable certificate.
        """
        timeout = check_seconds("handshake_timeout", handshake_timeout)
        if tls is None:
            return None
        require_context(tls)
        tls._server_core()
        return cls(tls, timeout)


def check_callback(name: str, takes: str, given: object) -> None:
    """Refuse an argument that is not callable.

    Args:
        name: of the argument.
        takes: the parameters that it is called with, for the message.
        given: the argument.

    Raises:
        TypeError: it is not callable.
    """
    if not callable(given):
        raise TypeError(f"{name} must be callable with {takes}, got {given!r}")


def check_wait_after_fork(*, stopped: bool) -> None:
    """Refuse ``wait`` in a forked child, in which the server does not run.

    Raises:
        RuntimeError: the child has not stopped its copy of the server, so ``wait`` would never return.
    """
    if not stopped:
        raise RuntimeError("wait: the server runs in the parent process, which made it")


class ServerTotals:
    """The counts of a server, of connections that are over and of those that are open.

    The threads that accept and those of connections write here, with the lock. A question takes no lock: it may be
    asked in the main thread, where an exception of a signal handler could keep a lock for ever. It is asked again if
    a connection ended meanwhile.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._accepted = self._refused = self._handshakes_failed = 0
        self._of_closed = 0, 0  # bytes received and sent; another tuple for each connection that ends

    def count_accepted(self) -> None:
        """Count a connection that was accepted."""
        with self._lock:
            self._accepted += 1

    def count_refused(self) -> None:
        """Count a connection that was refused."""
        with self._lock:
            self._refused += 1

    def count_failed_handshake(self) -> None:
        """Count a connection that ended in its handshake."""
        with self._lock:
            self._handshakes_failed += 1

    def close(self, active: dict[K, S], key: K, client: BaseSocket) -> None:
        """Take a connection out of those that are open, and keep its counts."""
        with self._lock:
            self._of_closed = _add_traffic(self._of_closed, client)
            active.pop(key, None)

    def stats(self, active: dict[K, S]) -> ServerStats:
        """Return the counts of now; ``active`` has the open connections."""
        from wireline._server_stats import ServerStats

        tries = 0
        while True:
            of_closed = self._of_closed
            clients = list(active.copy().values())
            traffic = of_closed
            for client in clients:
                traffic = _add_traffic(traffic, client)
            tries += 1
            if self._of_closed is of_closed or tries == _STATS_TRIES:
                break
        return ServerStats(
            accepted=self._accepted,
            refused=self._refused,
            handshakes_failed=self._handshakes_failed,
            open=len(clients),
            bytes_received=traffic[0],
            bytes_sent=traffic[1],
        )


# Connections may end all the time. Then one that has just ended may be missing in the answer. A guess.
_STATS_TRIES = 10


def _add_traffic(traffic: tuple[int, int], client: BaseSocket) -> tuple[int, int]:
    """Add the payload that a client has sent and was sent."""
    io = client._io
    received = 0 if io.core is None else io.core.buffer.received
    return traffic[0] + received, traffic[1] + io.payload_sent
