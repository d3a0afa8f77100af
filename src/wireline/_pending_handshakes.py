"""Clients of a TLS listener that ``try_accept_addr``, which never waits, has accepted: they are in their handshake.

Theory of operation. A listener has one ``Room`` of at most ``MOST`` clients. A call of ``try_accept_addr`` lets in
whom the kernel has, asks a selector once which of the clients have sent something, goes on with the handshakes of
these, and hands out one that is done. Clients that say nothing cost a call nothing but their place in ``poll``.

A full clients lets in one more only in the place of the client that has been in its handshake longest, and not before
that has had ``_GRACE`` seconds: clients that say nothing do not keep out others for as long as their time lasts, and
a crowd that arrives at once loses none. Those that find no clients wait in the kernel's queue.

One call at a time looks after a clients. For a second one, of another thread or of a finalizer that has interrupted the
next_ready, no client is ready. No lock is needed for that: of two calls of ``dict.setdefault`` only one sets the key.
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

__all__ = ["MAX_PENDING", "IncomingClient", "PendingHandshakes"]

MAX_PENDING = 256
"""Clients that a listener keeps whose handshake is not done, or that are not handed out yet.

A guess: a crowd for a program that polls, some 15 MB if all of them have begun their handshake, and a quarter of the
usual limit of descriptors.
"""

# Seconds that a client has for its handshake. A guess: that of `serve`, where it can be set.
_HANDSHAKE_TIMEOUT = 10.0

# Seconds after which a client may lose its place to a new one. A guess: several round trips around the world.
_MIN_HANDSHAKE_TIME = 1.0

# One that needs no descriptor of its own, and that a forked child does not share with its parent, as it does an epoll.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


# The only key of `_Room.holder`.
_HOLDER = "keeper"


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


class IncomingClient(NamedTuple, Generic[C]):
    """A client that was accepted a moment ago."""

    client: C
    address: Address
    secure: TlsCore


class _PendingHandshake(NamedTuple, Generic[C]):
    client: C
    address: Address
    secure: TlsCore
    fd: int
    started_at: float
    exclusive: object
    """The right to read and write, which lasts as long as there is a reference to it."""


class PendingHandshakes(Generic[C]):
    """The clients of one listener that cannot be handed out yet."""

    def __init__(self) -> None:
        self._by_process: dict[object, _Clients[C]] = {}
        self._closed = False

    def next_ready(
        self, accept: Callable[[], IncomingClient[C] | None]
    ) -> tuple[AcceptResult, C | None, Address | None]:
        """Go on with every handshake as far as that is possible now.

        Args:
            accept: gives the next client in the kernel's queue, None if there is none.

        Returns:
            What ``try_accept_addr`` returns.
        """
        clients = self._clients()
        token = object()
        try:
            if clients.holder.setdefault(_HOLDER, token) is not token:
                return clients.no_client_ready()
            return clients.next_ready(accept)
        finally:
            # Without a call, for a signal handler runs after one, and may raise.
            if _HOLDER in clients.holder and clients.holder[_HOLDER] is token:
                del clients.holder[_HOLDER]
            if self._closed:  # `close` found us here
                self.close()

    def close(self) -> None:
        """Close every client that is not handed out. From any thread."""
        self._closed = True
        token = object()
        for clients in list(self._by_process.values()):
            try:
                if clients.holder.setdefault(_HOLDER, token) is token:
                    clients.close()
            finally:
                if _HOLDER in clients.holder and clients.holder[_HOLDER] is token:
                    del clients.holder[_HOLDER]

    def _clients(self) -> _Clients[C]:
        """The clients of this process. What a forked child finds of its parent's it only closes its descriptors of."""
        clients = self._by_process.get(process.epoch)
        if clients is None:
            clients = self._by_process.setdefault(process.epoch, _Clients())
            for epoch in list(self._by_process):
                if (
                    epoch is not process.epoch
                    and (inherited := self._by_process.pop(epoch, None)) is not None
                ):
                    inherited.close_inherited()
        return clients


class _Clients(Generic[C]):
    """The clients of one listener in one process.

    Attributes:
        holder: the call that looks after the clients now, as the only value; empty if there is none.
    """

    def __init__(self) -> None:
        self.holder: dict[str, object] = {}
        self._handshaking: dict[
            int, _PendingHandshake[C]
        ] = {}  # by descriptor, in the order in which they arrived
        self._ready: deque[_PendingHandshake[C]] = deque()
        self._selector = _Selector()

    def no_client_ready(self) -> tuple[AcceptResult, None, None]:
        """What ``try_accept_addr`` returns if no client can be handed out."""
        present = self._handshaking or self._ready
        return (AcceptResult.NO_HANDSHAKE if present else AcceptResult.NO_CLIENT), None, None

    def next_ready(
        self, accept: Callable[[], IncomingClient[C] | None]
    ) -> tuple[AcceptResult, C | None, Address | None]:
        """As ``Guests.next_ready``. Only for the keeper."""
        failure: OSError | None = None
        if self._is_full:
            self._step_handshakes()  # before one of them has to go
        try:
            while self._can_accept and (incoming := accept()) is not None:
                self._start_handshake(incoming)
        except ClosedError:
            raise
        except OSError as error:  # no descriptor is left; those that are here may give some back
            failure = error
        self._step_handshakes()
        if self._ready:
            pending = self._ready.popleft()
            pending.client._published()
            return AcceptResult.SUCCESS, pending.client, pending.address
        if failure is not None:
            raise failure
        return self.no_client_ready()

    @property
    def _is_full(self) -> bool:
        return len(self._handshaking) + len(self._ready) >= MAX_PENDING

    @property
    def _oldest(self) -> _PendingHandshake[C] | None:
        return next(iter(self._handshaking.values()), None)

    @property
    def _can_accept(self) -> bool:
        if not self._is_full:
            return True
        oldest = self._oldest
        return oldest is not None and time.monotonic() >= oldest.started_at + _MIN_HANDSHAKE_TIME

    def _start_handshake(self, incoming: IncomingClient[C]) -> None:
        """Begin a handshake with a client."""
        client, address, secure = incoming
        try:
            exclusive = client._hold("accept")
        except BaseException:
            client.close()
            raise
        pending = _PendingHandshake(client, address, secure, client.fileno(), time.monotonic(), exclusive)
        assert client._core is not None
        try:
            if self._is_full and (oldest := self._oldest) is not None:
                self._close_client(oldest, linger=0)
            client._begin_upgrade(secure, client._core, "refuse")
            # What an exception may have left of an earlier client with this descriptor.
            self._remove(self._handshaking.get(pending.fd, pending))
            self._handshaking[pending.fd] = pending
            self._selector.register(pending.fd, selectors.EVENT_READ, pending)
        except BaseException:
            self._close_client(pending)
            raise

    def _step_handshakes(self) -> None:
        """Go on with the handshakes of all that have sent something; close those that fail or take too long."""
        for key, _ in self._selector.select(0) if self._handshaking else ():
            pending: _PendingHandshake[C] = key.data
            if (
                self._handshaking.get(pending.fd) is not pending
            ):  # an exception came when it was half forgotten
                self._selector.unregister(pending.fd)
                continue
            try:
                done = pending.client._step_handshake(pending.secure)
            except OSError:
                # No caller waits for the reason, and the next may be better. The peer is sent the alert.
                self._close_client(pending)
                continue
            except BaseException:
                self._close_client(pending)
                raise
            if done:
                self._remove(pending)
                self._ready.append(pending)
                continue
            # A peer that takes nothing: its turn is when there is clients for what it is to be sent.
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if pending.secure.has_output else 0)
            if events != key.events:
                self._selector.modify(pending.fd, events, pending)
        while (
            oldest := self._oldest
        ) is not None and time.monotonic() >= oldest.started_at + _HANDSHAKE_TIMEOUT:
            self._close_client(oldest, linger=0)

    def _remove(self, pending: _PendingHandshake[C]) -> None:
        self._handshaking.pop(pending.fd, None)
        with contextlib.suppress(KeyError):  # it was never watched
            self._selector.unregister(pending.fd)

    def _close_client(self, pending: _PendingHandshake[C], linger: float | None = None) -> None:
        """Close a client, with ``linger=0`` at once: one that says nothing need not be told anything.

        It is let go of next_ready: the last that uses a descriptor closes it.
        """
        self._remove(pending)
        pending.client._published()
        pending.client.close(linger=linger)

    def close(self) -> None:
        """Close every client. Only for the keeper."""
        while (oldest := self._oldest) is not None:
            self._close_client(oldest, linger=0)
        while self._ready:
            self._close_client(self._ready.popleft())

    def close_inherited(self) -> None:
        """Close the descriptors of the clients, which are those of the process that this one was forked from."""
        for pending in (*self._handshaking.values(), *self._ready):
            pending.client.close()
