"""How many connections a server has: in all, in their handshake, and of each client address.

Theory of operation. One thread at a time may call ``admit``, but ``established`` and ``release`` may run in any thread,
at any moment, also in a finalizer that has interrupted another call. So there is no lock: each change is one operation
on a dict, and only ``admit`` adds and removes the groups of addresses.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Any

__all__ = ["Admission", "Connection", "ConnectionCounts"]


class Admission(enum.Enum):
    """Whether a connection is within the limits."""

    GRANTED = "granted"
    FULL = "the server is full"
    ADDRESS_FULL = "its address has too many connections"


class Connection:
    """One connection of a server, from its accept until its descriptor is closed.

    Attributes:
        client: its socket, for the caller.
        fd: the number of its descriptor, likewise.
        address: the client address that it counts for; None for a client without one.
        exceeded: the time limit for which it was closed.
        accepted_at: the time of the accept.
        started_at: the time since which the handler runs.
        active_at: the time of the last check that found progress.
        moved: bytes received and sent, when ``active_at`` was set.
        taken: bytes that the handler had taken when the measurement of the rate began; None while none is made.
        measured_from: the time and the bytes received at the start of the measurement.
        tick: the tick of the next check; None if there is none.
    """

    __slots__ = (
        "accepted_at",
        "active_at",
        "address",
        "client",
        "exceeded",
        "fd",
        "measured_from",
        "moved",
        "started_at",
        "taken",
        "tick",
    )

    def __init__(self, client: Any, fd: int, address: Hashable | None, now: float) -> None:
        self.client = client
        self.fd = fd
        self.address = address
        self.exceeded: object = None
        self.accepted_at = self.started_at = self.active_at = now
        self.moved = (0, 0)
        self.taken: int | None = None
        self.measured_from = (now, 0)
        self.tick: int | None = None


class ConnectionCounts:
    """The connections of one server, counted. None as a limit means no limit."""

    def __init__(
        self,
        max_connections: int | None = None,
        max_per_address: int | None = None,
        max_handshakes: int | None = None,
    ) -> None:
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._max_handshakes = max_handshakes
        self._all: dict[Connection, None] = {}
        self._handshakes: dict[Connection, None] = {}
        self._by_address: dict[Hashable, dict[Connection, None]] = {}

    @property
    def is_full(self) -> bool:
        """Whether no connection of any client is within the limits."""
        return _reaches(len(self._all), self._max_connections) or _reaches(
            len(self._handshakes), self._max_handshakes
        )

    def admit(self, connection: Connection, *, handshake: bool) -> Admission:
        """Count a connection if it is within the limits. One thread at a time.

        Args:
            connection: a new one.
            handshake: it begins with a handshake, until ``established``.
        """
        if self.is_full:
            return Admission.FULL
        if self._max_per_address is not None and connection.address is not None:
            group = self._by_address.setdefault(connection.address, {})
            if len(group) >= self._max_per_address:
                return Admission.ADDRESS_FULL
            group[connection] = None
            self._drop_empty_groups()
        self._all[connection] = None
        if handshake:
            self._handshakes[connection] = None
        return Admission.GRANTED

    def _drop_empty_groups(self) -> None:
        # Each group that is dropped was made by an `admit` since the last time: constant cost.
        if len(self._by_address) > 2 * len(self._all) + 16:
            self._by_address = {address: group for address, group in self._by_address.items() if group}

    def established(self, connection: Connection) -> None:
        """The handshake is over."""
        self._handshakes.pop(connection, None)

    def release(self, connection: Connection) -> None:
        """The descriptor of a connection is closed. A second call has no effect."""
        self._handshakes.pop(connection, None)
        self._all.pop(connection, None)
        group = self._by_address.get(connection.address)
        if group is not None:
            group.pop(connection, None)


def _reaches(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit
