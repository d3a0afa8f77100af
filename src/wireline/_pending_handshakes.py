"""Clients of a TLS listener that ``try_accept_addr``, which never waits, has accepted: they are in their handshake.

Theory of operation. A listener has one ``Room`` of at most ``MOST`` clients. A call of ``try_accept_addr`` lets in
whom the kernel has, asks a selector once which of the clients have sent something, goes on with the handshakes of
these, and hands out one that is done. Clients that say nothing cost a call nothing but their place in ``poll``.

A full room lets in one more only in the place of the client that has been in its handshake longest, and not before
that has had ``_GRACE`` seconds: clients that say nothing do not keep out others for as long as their time lasts, and
a crowd that arrives at once loses none. Those that find no room wait in the kernel's queue.

One call at a time looks after a room. For a second one, of another thread or of a finalizer that has interrupted the
first, no client is ready. No lock is needed for that: of two calls of ``dict.setdefault`` only one sets the key.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from wireline._core.stream import StreamCore
from wireline._os.process import process
from wireline.address import Address
from wireline.errors import ClosedError
from wireline.options import AcceptResult

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["MOST", "Arrival", "Guests"]

MOST = 256
"""Clients that a listener keeps whose handshake is not done, or that are not handed out yet.

A guess: a crowd for a program that polls, some 15 MB if all of them have begun their handshake, and a quarter of the
usual limit of descriptors.
"""

# Seconds that a client has for its handshake. A guess: that of `serve`, where it can be set.
_PATIENCE = 10.0

# Seconds after which a client may lose its place to a new one. A guess: several round trips around the world.
_GRACE = 1.0

# One that needs no descriptor of its own, and that a forked child does not share with its parent, as it does an epoll.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


# The only key of `_Room.keepers`.
_KEEPER = "keeper"


class Client(Protocol):
    """What is asked of a client's socket."""

    _core: StreamCore | None

    def fileno(self) -> int: ...
    def _hold(self, operation: str) -> object: ...
    def _begin_upgrade(self, secure: TlsCore, plain: StreamCore, leftover: str) -> None: ...
    def _step_handshake(self, secure: TlsCore) -> bool: ...
    def _published(self) -> None: ...
    def close(self, *, linger: float | None = None) -> None: ...


C = TypeVar("C", bound=Client)


class Arrival(NamedTuple, Generic[C]):
    """A client that was accepted a moment ago."""

    client: C
    address: Address
    secure: TlsCore


class _Guest(NamedTuple, Generic[C]):
    client: C
    address: Address
    secure: TlsCore
    fd: int
    since: float
    held: object
    """The right to read and write, which lasts as long as there is a reference to it."""


class Guests(Generic[C]):
    """The clients of one listener that cannot be handed out yet."""

    def __init__(self) -> None:
        self._rooms: dict[object, _Room[C]] = {}
        self._over = False

    def first(self, accept: Callable[[], Arrival[C] | None]) -> tuple[AcceptResult, C | None, Address | None]:
        """Go on with every handshake as far as that is possible now.

        Args:
            accept: gives the next client in the kernel's queue, None if there is none.

        Returns:
            What ``try_accept_addr`` returns.
        """
        room = self._room()
        me = object()
        try:
            if room.keepers.setdefault(_KEEPER, me) is not me:
                return room.nothing_now()
            return room.first(accept)
        finally:
            # Without a call, for a signal handler runs after one, and may raise.
            if _KEEPER in room.keepers and room.keepers[_KEEPER] is me:
                del room.keepers[_KEEPER]
            if self._over:  # `close` found us here
                self.close()

    def close(self) -> None:
        """Close every client that is not handed out. From any thread."""
        self._over = True
        me = object()
        for room in list(self._rooms.values()):
            try:
                if room.keepers.setdefault(_KEEPER, me) is me:
                    room.close()
            finally:
                if _KEEPER in room.keepers and room.keepers[_KEEPER] is me:
                    del room.keepers[_KEEPER]

    def _room(self) -> _Room[C]:
        """The room of this process. What a forked child finds of its parent's it only closes its descriptors of."""
        room = self._rooms.get(process.epoch)
        if room is None:
            room = self._rooms.setdefault(process.epoch, _Room())
            for epoch in list(self._rooms):
                if epoch is not process.epoch and (inherited := self._rooms.pop(epoch, None)) is not None:
                    inherited.abandon()
        return room


class _Room(Generic[C]):
    """The clients of one listener in one process.

    Attributes:
        keepers: the call that looks after the room now, as the only value; empty if there is none.
    """

    def __init__(self) -> None:
        self.keepers: dict[str, object] = {}
        self._shaking: dict[int, _Guest[C]] = {}  # by descriptor, in the order in which they arrived
        self._done: deque[_Guest[C]] = deque()
        self._selector = _Selector()

    def nothing_now(self) -> tuple[AcceptResult, None, None]:
        """What ``try_accept_addr`` returns if no client can be handed out."""
        present = self._shaking or self._done
        return (AcceptResult.NO_HANDSHAKE if present else AcceptResult.NO_CLIENT), None, None

    def first(self, accept: Callable[[], Arrival[C] | None]) -> tuple[AcceptResult, C | None, Address | None]:
        """As ``Guests.first``. Only for the keeper."""
        failure: OSError | None = None
        if self._is_full:
            self._look_after()  # before one of them has to go
        try:
            while self._has_a_place and (arrival := accept()) is not None:
                self._let_in(arrival)
        except ClosedError:
            raise
        except OSError as error:  # no descriptor is left; those that are here may give some back
            failure = error
        self._look_after()
        if self._done:
            guest = self._done.popleft()
            guest.client._published()
            return AcceptResult.SUCCESS, guest.client, guest.address
        if failure is not None:
            raise failure
        return self.nothing_now()

    @property
    def _is_full(self) -> bool:
        return len(self._shaking) + len(self._done) >= MOST

    @property
    def _oldest(self) -> _Guest[C] | None:
        return next(iter(self._shaking.values()), None)

    @property
    def _has_a_place(self) -> bool:
        if not self._is_full:
            return True
        oldest = self._oldest
        return oldest is not None and time.monotonic() >= oldest.since + _GRACE

    def _let_in(self, arrival: Arrival[C]) -> None:
        """Begin a handshake with a client."""
        client, address, secure = arrival
        try:
            held = client._hold("accept")
        except BaseException:
            client.close()
            raise
        guest = _Guest(client, address, secure, client.fileno(), time.monotonic(), held)
        assert client._core is not None
        try:
            if self._is_full and (oldest := self._oldest) is not None:
                self._send_away(oldest, linger=0)
            client._begin_upgrade(secure, client._core, "refuse")
            # What an exception may have left of an earlier client with this descriptor.
            self._forget(self._shaking.get(guest.fd, guest))
            self._shaking[guest.fd] = guest
            self._selector.register(guest.fd, selectors.EVENT_READ, guest)
        except BaseException:
            self._send_away(guest)
            raise

    def _look_after(self) -> None:
        """Go on with the handshakes of all that have sent something; close those that fail or take too long."""
        for key, _ in self._selector.select(0) if self._shaking else ():
            guest: _Guest[C] = key.data
            if self._shaking.get(guest.fd) is not guest:  # an exception came when it was half forgotten
                self._selector.unregister(guest.fd)
                continue
            try:
                done = guest.client._step_handshake(guest.secure)
            except OSError:
                # No caller waits for the reason, and the next may be better. The peer is sent the alert.
                self._send_away(guest)
                continue
            except BaseException:
                self._send_away(guest)
                raise
            if done:
                self._forget(guest)
                self._done.append(guest)
                continue
            # A peer that takes nothing: its turn is when there is room for what it is to be sent.
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if guest.secure.has_output else 0)
            if events != key.events:
                self._selector.modify(guest.fd, events, guest)
        while (oldest := self._oldest) is not None and time.monotonic() >= oldest.since + _PATIENCE:
            self._send_away(oldest, linger=0)

    def _forget(self, guest: _Guest[C]) -> None:
        self._shaking.pop(guest.fd, None)
        with contextlib.suppress(KeyError):  # it was never watched
            self._selector.unregister(guest.fd)

    def _send_away(self, guest: _Guest[C], linger: float | None = None) -> None:
        """Close a client, with ``linger=0`` at once: one that says nothing need not be told anything.

        It is let go of first: the last that uses a descriptor closes it.
        """
        self._forget(guest)
        guest.client._published()
        guest.client.close(linger=linger)

    def close(self) -> None:
        """Close every client. Only for the keeper."""
        while (oldest := self._oldest) is not None:
            self._send_away(oldest, linger=0)
        while self._done:
            self._send_away(self._done.popleft())

    def abandon(self) -> None:
        """Close the descriptors of the clients, which are those of the process that this one was forked from."""
        for guest in (*self._shaking.values(), *self._done):
            guest.client.close()
