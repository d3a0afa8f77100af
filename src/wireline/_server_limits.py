"""The limits of a server, of both flavours: the arguments, and how connections are admitted and ended."""

from __future__ import annotations

import contextlib
import functools
import math
import socket
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import NamedTuple

from wireline._core.connection_counts import Admission, Connection, ConnectionCounts
from wireline._core.connection_times import ConnectionTimes, Progress, TimeLimit, TimeLimits
from wireline._event_log import EventLog
from wireline._os.linger import when_closed
from wireline._os.traffic import sent_mark
from wireline._socket_base import BaseSocket
from wireline._validation import require_int
from wireline.address import Address
from wireline.errors import ClosedError
from wireline.options import AF_UNIX, DONT_WAIT
from wireline.timing import check_seconds

__all__ = ["ConnectionLimiter", "ServerLimits"]

# Bytes of an IPv6 address that belong to one client: a network of 64 bits, RFC 4291.
_NETWORK_BYTES = 8


class ServerLimits(NamedTuple):
    """The limits that ``serve`` was given, checked.

    Attributes:
        max_connections, max_per_address, max_handshakes: counts; None for no limit.
        refuse: whether a full server closes new clients at once, and does not leave them in the queue.
        times: the time limits.
    """

    max_connections: int | None
    max_per_address: int | None
    max_handshakes: int | None
    refuse: bool
    times: TimeLimits

    @classmethod
    def check(
        cls,
        max_connections: int | None,
        max_per_address: int | None,
        max_handshakes: int | None,
        on_full: str,
        first_byte_timeout: float | None,
        idle_timeout: float | None,
        lifetime: float | None,
        min_rate: float | None,
    ) -> ServerLimits:
        """Check the arguments of ``serve``.

        Raises:
            TypeError, ValueError: one of them has the wrong type, or is out of range.
        """
        if on_full not in ("wait", "refuse"):
            raise ValueError(f"on_full is 'wait' or 'refuse', got {on_full!r}")
        return cls(
            _check_count("max_connections", max_connections),
            _check_count("max_per_address", max_per_address),
            _check_count("max_handshakes", max_handshakes),
            on_full == "refuse",
            TimeLimits(
                _check_duration("first_byte_timeout", first_byte_timeout),
                _check_duration("idle_timeout", idle_timeout),
                _check_duration("lifetime", lifetime),
                _check_rate(min_rate),
            ),
        )

    @property
    def counts_places(self) -> bool:
        """Whether the number of connections, in all or of an address, is limited."""
        return self.max_connections is not None or self.max_per_address is not None

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self.counts_places or self.max_handshakes is not None or self.times.any

    def exceeded(self, limit: TimeLimit) -> str:
        """Say in words that a connection has exceeded a time limit."""
        value = self.times[list(TimeLimit).index(limit)]
        return _WORDS[limit].format(value)


_WORDS = {
    TimeLimit.FIRST_BYTE: "no byte in the first {:g} s",
    TimeLimit.IDLE: "idle for {:g} s",
    TimeLimit.LIFETIME: "its lifetime of {:g} s is over",
    TimeLimit.RATE: "less than {:g} bytes a second of an incomplete message",
}


def _check_count(name: str, count: int | None) -> int | None:
    if count is None:
        return None
    require_int(name, count)
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
    return count


def _check_duration(name: str, seconds: float | None) -> float | None:
    if check_seconds(name, seconds) == 0:
        raise ValueError(f"{name} must be more than 0, or None for no limit")
    return check_seconds(name, seconds)


def _check_rate(rate: float | None) -> float | None:
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise TypeError(f"min_rate is bytes a second (int, float) or None, not {type(rate).__name__}")
    if not 0 < rate < math.inf:
        raise ValueError(f"min_rate must be more than 0, and finite, got {rate!r}")
    return rate


def address_key(client: BaseSocket, address: Address) -> Hashable | None:
    """Return the address that a client counts for: of IPv6 its /64 network; None for a Unix client."""
    if client._fd.sock.family == AF_UNIX:
        return None
    host = address.host.partition("%")[0]
    if ":" not in host:
        return host
    return socket.inet_pton(socket.AF_INET6, host)[:_NETWORK_BYTES]


def look_at(client: BaseSocket, limits: TimeLimits) -> Progress:
    """Look at a connection that may be in use by another thread. The numbers need not be of one moment."""
    io = client._io
    core = io.core
    if core is None:
        return Progress(0, 0, False, False, 0)
    reads = io.is_reading()
    received, left, sent = core.buffer.received, core.buffer.size, 0
    # Nothing has arrived, or the handler has closed it.
    with contextlib.suppress(OSError), client._use("stats") as sock:
        if limits.idle is not None:
            sent = sent_mark(sock)
        if not received and limits.first_byte is not None:
            # Of a byte that the handler has not asked for yet: it cannot be late.
            received = len(sock.recv(1, socket.MSG_PEEK | DONT_WAIT))
    owed = reads and left > 0 and not io.relayed  # what a relay has unread, it could not send yet
    return Progress(received, sent, reads or io.is_writing(), owed, received - left)


class ConnectionLimiter:
    """Applies the limits of one server.

    In the blocking flavour accept threads, connection threads and the thread that looks at the connections share it.
    The lock is for them: no call of ``stop`` takes it, so a signal handler or a finalizer may interrupt its holder.
    """

    def __init__(
        self,
        limits: ServerLimits,
        events: EventLog,
        *,
        handshakes: bool,
        log_exceeded: bool,
        on_release: Callable[[], object],
        lock: AbstractContextManager[object],
    ) -> None:
        """Begin without connections.

        Args:
            limits: of the server.
            events: its log.
            handshakes: connections begin with a handshake.
            log_exceeded: log each connection that exceeds a time limit.
            on_release: called in any thread when a place may be free again.
            lock: held for each change of the tables.
        """
        self.limits = limits
        self._events = events
        self._handshakes = handshakes
        self._log_exceeded = log_exceeded
        self._on_release = on_release
        self._lock = lock
        self._counts = ConnectionCounts(limits.max_connections, limits.max_per_address, limits.max_handshakes)
        self._times = ConnectionTimes(limits.times) if limits.times.any else None

    def must_wait(self) -> bool:
        """Whether to leave clients in the queue of the kernel for now."""
        return not self.limits.refuse and self._counts.is_full

    def new(self, client: BaseSocket, address: Address, now: float) -> Connection:
        """Make the record of an accepted client."""
        limited = self.limits.max_per_address is not None
        key = address_key(client, address) if limited else None
        return Connection(client, client.fileno(), key, now)

    def admit(self, connection: Connection) -> Admission:
        """Give a connection a place, if it is within the limits."""
        with self._lock:
            return self._counts.admit(connection, handshake=self._handshakes)

    def refuse(self, connection: Connection, address: Address, reason: Admission, now: float) -> None:
        """Reset the connection of a client that has no place."""
        client: BaseSocket = connection.client
        seconds = now - connection.accepted_at
        self._events.log_limit("refused", client, address, reason.value, seconds)
        client.close(linger=0)

    def start(self, connection: Connection, now: float) -> bool:
        """The handler starts; return whether ``next_look`` is earlier now."""
        self._counts.established(connection)
        if self._handshakes and self.limits.max_handshakes is not None:
            self._on_release()
        if self._times is None:
            return False
        times = self.limits.times
        if times.idle is not None or times.min_rate is not None:
            connection.client._io.show_progress()
        with self._lock:
            return self._times.start(connection, now)

    def end(self, connection: Connection) -> None:
        """The connection was closed. Its place is free when it does not linger any more."""
        if self._times is not None:
            with self._lock:
                self._times.remove(connection)
        self._counts.established(connection)
        if self.limits.counts_places and when_closed(
            connection.fd, functools.partial(self._release, connection)
        ):
            return
        self._release(connection)

    def _release(self, connection: Connection) -> None:
        self._counts.release(connection)
        self._on_release()

    # Time.

    @property
    def looks(self) -> bool:
        """Whether connections have to be looked at."""
        return self._times is not None

    def next_look(self) -> float | None:
        """Return the time of the next ``enforce``; None while there is no connection."""
        if self._times is None:
            return None
        with self._lock:
            return self._times.next_look()

    def enforce(self, now: float) -> None:
        """Close the connections that exceed a time limit now."""
        for connection, limit in self._exceeding(now):
            connection.exceeded = limit
            client: BaseSocket = connection.client
            try:
                if self._log_exceeded:
                    reason, seconds = self.limits.exceeded(limit), now - connection.accepted_at
                    self._events.log_limit("ended", client, client.peer_addr, reason, seconds)
                # A client that sends nothing, or too slowly, is reset.
                client.close(linger=0 if limit in (TimeLimit.FIRST_BYTE, TimeLimit.RATE) else None)
            except ClosedError:
                pass  # by its handler, at this moment
            except OSError as error:
                self._events.log_failure("a connection could not be closed", error)

    def reason(self, connection: Connection) -> str | None:
        """Return the time limit, in words, for which a connection was closed."""
        limit = connection.exceeded
        return self.limits.exceeded(limit) if isinstance(limit, TimeLimit) else None

    def _exceeding(self, now: float) -> list[tuple[Connection, TimeLimit]]:
        if self._times is None:
            return []
        found: list[tuple[Connection, TimeLimit]] = []
        with self._lock:
            for connection in self._times.due(now):
                if connection.client.is_closed:
                    continue
                progress = look_at(connection.client, self.limits.times)
                limit = self._times.look(connection, progress, now)
                if limit is not None:
                    found.append((connection, limit))
        return found
