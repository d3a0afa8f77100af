"""The part of a socket that ``SslContext.wrap_socket`` makes: ``connect`` or ``accept`` does a TLS handshake."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from wireline._validation import Leftover, check_leftover, require_context
from wireline.address import Address, IpAddress
from wireline.errors import ClosedError
from wireline.options import AcceptResult, Handshake

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore
    from wireline._pending_handshakes import Client, IncomingClient, PendingHandshakes
    from wireline.tls import SslContext

__all__ = ["TlsRole", "core_to_start_tls"]

C = TypeVar("C", bound="Client")


class Listener(Protocol):
    """The property of a listener that is used here."""

    @property
    def is_closed(self) -> bool: ...


class TlsRole:
    """The TLS of a socket that is not connected: a client's before ``connect``, or a listener's."""

    # The clients of a listener that are in their handshake: those of `accept`, and those of `try_accept_addr`.
    _handshaking: set[Client] | None = None
    _pending: PendingHandshakes[Any] | None = None

    def __init__(self, context: SslContext, hostname: str, *, shared: bool) -> None:
        """Prepare.

        Args:
            context: of the connections.
            hostname: the name that the server's certificate must have; ``""`` means the host that is connected to.
            shared: a reader and a writer may be two threads.
        """
        self._context = context
        self._hostname = hostname
        self._shared = shared

    def client_core(self, host: str, port: int) -> TlsCore:
        """Make the core for ``connect``."""
        return self._context._client_core(self._hostname or host, port, shared=self._shared)

    def server_core(self) -> TlsCore:
        """Make the core for an accepted client."""
        return self._context._server_core(shared=self._shared)

    # Clients that are not returned before their handshake is done.

    @contextlib.contextmanager
    def welcome(self, listener: Listener, client: Client) -> Iterator[None]:
        """Track a handshake with an accepted client: close the client if it fails, or with the listener."""
        # `setdefault` is atomic: two threads get the same object. Below, too.
        handshaking: set[Client] = self._handshaking or vars(self).setdefault("_handshaking", set())
        handshaking.add(client)
        try:
            _require_open(listener)
            yield
        except BaseException:
            client.close()
            raise
        finally:
            handshaking.discard(client)

    def next_ready_client(
        self, listener: Listener, accept: Callable[[], tuple[C, Address] | None]
    ) -> tuple[AcceptResult, C | None, Address | None]:
        """Return the result of ``try_accept_addr`` on a TLS listener; ``accept`` returns a new client, or None."""
        _require_open(listener)
        from wireline._pending_handshakes import PendingHandshakes  # only listeners need it

        pending: PendingHandshakes[C] = self._pending or vars(self).setdefault(
            "_pending", PendingHandshakes()
        )
        result = pending.next_ready(lambda: self._incoming(accept()))
        if listener.is_closed:  # closed by another thread, before `_pending` was set
            pending.close()
        return result

    def _incoming(self, accepted: tuple[C, Address] | None) -> IncomingClient[C] | None:
        """Prepare the handshake with a client that ``try_accept_addr`` has accepted."""
        if accepted is None:
            return None
        from wireline._pending_handshakes import IncomingClient  # as above

        client, address = accepted
        try:
            return IncomingClient(client, address, self.server_core())
        except BaseException:
            client.close()
            raise

    def close_clients(self) -> None:
        """Close the clients that are in their handshake, with the listener."""
        for client in tuple(self._handshaking or ()):
            client.close()
        if self._pending is not None:
            self._pending.close()


def core_to_start_tls(
    context: SslContext, handshake: Handshake, hostname: str | IpAddress, leftover: Leftover, *, shared: bool
) -> TlsCore:
    """Check the arguments of ``start_tls``, and make the core for a connected socket.

    Args:
        context: of the connection.
        handshake: our role.
        hostname: the name that the server's certificate must have.
        leftover: what is done with unread bytes.
        shared: a reader and a writer may be two threads.

    Raises:
        TypeError, ValueError: an argument is wrong, or a client verifies and has no hostname.
        OSError: the context cannot be used, because no CA is found, say.
    """
    require_context(context, "ctx")
    if not isinstance(handshake, Handshake):
        raise TypeError(f"handshake is a wireline.tls.Handshake, not {type(handshake).__name__}")
    check_leftover(leftover)
    if handshake is Handshake.AS_SERVER:
        return context._server_core(shared=shared)
    return context._client_core(hostname, 0, shared=shared)


def _require_open(listener: Listener) -> None:
    if listener.is_closed:
        raise ClosedError("accept: the socket is closed")
