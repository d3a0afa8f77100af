"""Clients of a TLS listener that ``try_accept_addr``, which never waits, has accepted and that are in their handshake.

Theory of operation. A listener has at most ``MAX_PENDING`` such clients. A call of ``try_accept_addr`` accepts what is
in the kernel's queue, asks a selector once which clients have sent something, continues their handshakes, and returns
one client whose handshake is done. A silent client costs a call no more than its entry in ``poll``.

At the limit a new client takes the place of the one whose handshake has lasted longest, but only after
``_MIN_HANDSHAKE_TIME`` seconds. So silent clients do not keep others out for the whole handshake timeout, and a crowd
that arrives at once loses no client. Clients beyond the limit wait in the kernel's queue.

One call at a time works on the clients. For a second call, from another thread or from a finalizer that interrupts the
first, no client is ready. This needs no lock: of two calls of ``dict.setdefault`` only one sets the key.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from wireline._os.process import process
from wireline._parts import Stream
from wireline._tls_facts import begin_upgrade
from wireline.address import Address
from wireline.errors import ClosedError
from wireline.options import DONT_WAIT, AcceptResult

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["MAX_PENDING", "Client", "IncomingClient", "PendingHandshakes"]

MAX_PENDING = 256
"""Clients of one listener that are in their handshake, or wait to be returned.

A guess: a crowd for a program that polls, 15 MB if all have begun their handshake, a quarter of the usual limit of
descriptors.
"""

# Seconds for one handshake. A guess: the default of `serve`.
_HANDSHAKE_TIMEOUT = 10.0

# Seconds before a client may lose its place to a new one. A guess: several round trips around the world.
_MIN_HANDSHAKE_TIME = 1.0

# `poll` has no descriptor of its own, which an epoll would share with a forked child.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)

# The only key of `_Clients.holder`.
_HOLDER = "holder"


class Client(Protocol):
    """The part of a client's socket that is used here."""

    @property
    def _io(self) -> Stream: ...
    def fileno(self) -> int: ...
    def close(self, *, linger: float | None = None) -> None: ...


C = TypeVar("C", bound=Client)


class IncomingClient(NamedTuple, Generic[C]):
    """A client that was just accepted, with the core for its handshake."""

    client: C
    address: Address
    secure: TlsCore


def step_handshake(io: Stream, tls_core: TlsCore) -> bool:
    """Continue a handshake as far as possible without waiting; return whether it is done."""
    while not tls_core.handshake():
        io.flush_now(tls_core)
        try:
            tls_core.feed(io.fd.sock.recv(tls_core.recv_size, DONT_WAIT))
        except BlockingIOError:
            return False
        except OSError as error:
            tls_core.fail(error)
    io.flush_now(tls_core)
    return True


class _PendingHandshake(NamedTuple, Generic[C]):
    client: C
    address: Address
    secure: TlsCore
    fd: int
    started_at: float
    exclusive: object
    """The exclusive right to read and write, held as long as this reference exists."""


class PendingHandshakes(Generic[C]):
    """The clients of one listener that are in their handshake, or wait to be returned."""

    def __init__(self) -> None:
        self._by_process: dict[object, _Clients[C]] = {}
        self._closed = False

    def next_ready(
        self, accept: Callable[[], IncomingClient[C] | None]
    ) -> tuple[AcceptResult, C | None, Address | None]:
        """Continue all handshakes without waiting, and return a client whose handshake is done.

        Args:
            accept: returns the next client in the kernel's queue, or None.

        Returns:
            The result of ``try_accept_addr``.
        """
        clients = self._clients()
        token = object()
        try:
            if clients.holder.setdefault(_HOLDER, token) is not token:
                return clients.no_client_ready()
            return clients.next_ready(accept)
        finally:
            # No calls in these lines: a signal handler could run after one, and raise.
            if _HOLDER in clients.holder and clients.holder[_HOLDER] is token:
                del clients.holder[_HOLDER]
            if self._closed:  # a `close` that ran meanwhile has left the clients to us
                self.close()

    def close(self) -> None:
        """Close every client that was not returned, from any thread."""
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
        """Return the clients of this process. A forked child closes its copies of its parent's descriptors."""
        clients = self._by_process.get(process.epoch)
        if clients is None:
            clients = self._by_process.setdefault(process.epoch, _Clients())
            for epoch in list(self._by_process):
                if epoch is process.epoch:
                    continue
                inherited = self._by_process.pop(epoch, None)
                if inherited is not None:
                    inherited.close_inherited()
        return clients


class _Clients(Generic[C]):
    """The clients of one listener in one process.

    Attributes:
        holder: the token of the call that works on the clients, as the only value; empty if there is none.
    """

    def __init__(self) -> None:
        self.holder: dict[str, object] = {}
        self._handshaking: dict[int, _PendingHandshake[C]] = {}  # by descriptor, the oldest first
        self._ready: deque[_PendingHandshake[C]] = deque()
        self._selector = _Selector()

    def no_client_ready(self) -> tuple[AcceptResult, None, None]:
        """The result of ``try_accept_addr`` if no client can be returned."""
        pending = self._handshaking or self._ready
        return (AcceptResult.NO_HANDSHAKE if pending else AcceptResult.NO_CLIENT), None, None

    def next_ready(
        self, accept: Callable[[], IncomingClient[C] | None]
    ) -> tuple[AcceptResult, C | None, Address | None]:
        """Do the work of ``PendingHandshakes.next_ready``. Only for the holder."""
        failure: OSError | None = None
        if self._is_full:
            self._step_handshakes()  # this may free a place before a client is closed for it
        try:
            while self._can_accept and (incoming := accept()) is not None:
                self._start_handshake(incoming)
        except ClosedError:
            raise
        except OSError as error:  # no free descriptor, say; the handshakes below may end and free some
            failure = error
        self._step_handshakes()
        if self._ready:
            pending = self._ready.popleft()
            pending.client._io.publish(pending.client)
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
        client, address, secure = incoming
        try:
            exclusive = client._io.hold(client, "accept")
        except BaseException:
            client.close()
            raise
        pending = _PendingHandshake(client, address, secure, client.fileno(), time.monotonic(), exclusive)
        try:
            if self._is_full and (oldest := self._oldest) is not None:
                self._close_client(oldest, linger=0)
            begin_upgrade(client._io, client, secure, "refuse")
            # An exception may have left the entry of an earlier client with the same descriptor.
            self._remove(self._handshaking.get(pending.fd, pending))
            self._handshaking[pending.fd] = pending
            self._selector.register(pending.fd, selectors.EVENT_READ, pending)
        except BaseException:
            self._close_client(pending)
            raise

    def _step_handshakes(self) -> None:
        """Continue the handshakes of clients that have sent something; close those that fail or time out."""
        for key, _ in self._selector.select(0) if self._handshaking else ():
            pending: _PendingHandshake[C] = key.data
            if self._handshaking.get(pending.fd) is not pending:  # an exception interrupted `_remove`
                self._selector.unregister(pending.fd)
            elif self._step(pending):
                self._remove(pending)
                self._ready.append(pending)
            elif self._handshaking.get(pending.fd) is pending:
                # If the send buffer is full, the handshake goes on when the client has read.
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if pending.secure.has_output else 0)
                if events != key.events:
                    self._selector.modify(pending.fd, events, pending)
        while (
            oldest := self._oldest
        ) is not None and time.monotonic() >= oldest.started_at + _HANDSHAKE_TIMEOUT:
            self._close_client(oldest, linger=0)

    def _step(self, pending: _PendingHandshake[C]) -> bool:
        """Continue one handshake; True if it is done. A client whose handshake fails is closed."""
        try:
            return step_handshake(pending.client._io, pending.secure)
        except OSError:
            # No caller waits for this error, and another client may be ready. The peer is sent the alert.
            self._close_client(pending)
            return False
        except BaseException:
            self._close_client(pending)
            raise

    def _remove(self, pending: _PendingHandshake[C]) -> None:
        self._handshaking.pop(pending.fd, None)
        with contextlib.suppress(KeyError):  # not registered yet
            self._selector.unregister(pending.fd)

    def _close_client(self, pending: _PendingHandshake[C], linger: float | None = None) -> None:
        """Close a client; ``linger=0`` resets the connection of one that was silent.

        ``publish`` comes first: the descriptor is closed by its last user.
        """
        self._remove(pending)
        pending.client._io.publish(pending.client)
        pending.client.close(linger=linger)

    def close(self) -> None:
        """Close every client. Only for the holder."""
        while (oldest := self._oldest) is not None:
            self._close_client(oldest, linger=0)
        while self._ready:
            self._close_client(self._ready.popleft())

    def close_inherited(self) -> None:
        """Close this process's copies of its parent's descriptors."""
        for pending in (*self._handshaking.values(), *self._ready):
            pending.client.close()
