"""What a socket does about TLS that never waits: being wrapped, what is known of a connection, what is said at the end.

``ssl`` is not imported here: who uses TLS has loaded it by importing ``wireline.tls``, and nobody else pays for it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self, cast

from wireline._core.stream import Sender, StreamCore
from wireline._os.descriptor import State
from wireline._os.linger import DEFAULT_LINGER
from wireline._pending_handshakes import Arrival, Guests
from wireline._socket_base import BaseSocket
from wireline.address import Address
from wireline.errors import SockAddr
from wireline.options import DONT_WAIT, NO_SIGNAL, AcceptResult, SocketFlag

if TYPE_CHECKING:
    import ssl

    from wireline._core.tls import TlsCore
    from wireline.tls import Certificate, SslContext, TlsInfo

__all__ = ["SecureSocket"]

_NOW = DONT_WAIT | NO_SIGNAL


class SecureSocket(BaseSocket):
    """A socket that may speak TLS."""

    _guests: Guests[Any] | None = None  # accepted by `try_accept_addr`, and in their handshake

    _shared = False
    """Whether one thread may read while another writes."""

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._sender: Sender = sock  # what sends plaintext
        self._tls: SslContext | None = None
        self._tls_name = ""
        self._arriving: set[SecureSocket] | None = None  # accepted, and in their handshake
        super()._setup(sock, buffered, state, peer)

    def _take_core(self, core: StreamCore) -> None:
        super()._take_core(core)
        self._sender = core.sender(self._sock)
        tls_core = self._tls_core
        if tls_core is not None:
            send_output = weakref.WeakMethod(self._send_output)  # the core is not to keep the socket alive
            tls_core.on_output = lambda: _call(send_output())
            assert tls_core.thread_safe or not self._shared, "threads need a core that has a lock"

    def _unconnected(self) -> None:
        self._sender = self._sock
        super()._unconnected()

    @property
    def _tls_core(self) -> TlsCore | None:
        """The core, if that is TLS: for the facts about a connection. To send and to read asks the core itself."""
        core = self._core
        return cast("TlsCore", core) if core is not None and core.is_tls else None

    # Becoming a TLS socket.

    def _wrap(self, context: SslContext, hostname: str) -> None:
        """Make ``connect`` or ``accept`` do a handshake: ``SslContext.wrap_socket``."""
        self._open_sock("wrap_socket")
        self._require("wrap_socket", datagram=False)
        if self._state is State.CONNECTED:
            raise OSError(errno.EISCONN, "wrap_socket: the socket is connected, see wrap_connected_socket")
        self._tls, self._tls_name = context, hostname

    def _client_core(self, host: str, port: int) -> TlsCore | None:
        """What ``connect`` needs if the socket is wrapped."""
        if self._tls is None:
            return None
        name = self._tls_name or host
        return self._tls._client_core(name, port, buffered=self._buffered, shared=self._shared)

    def _server_core(self, context: SslContext) -> TlsCore:
        """What a client needs that was accepted."""
        return context._server_core(buffered=self._buffered, shared=self._shared)

    def _begin_upgrade(self, tls_core: TlsCore, plain: StreamCore, leftover: str) -> None:
        """Go over to TLS. Bytes received in clear must not be taken for protected ones (T6).

        From here on nothing goes out in clear, however the handshake ends. A socket that speaks TLS already is left as
        it is: to put this handshake in its place would send the rest of the conversation past its encryption.
        """
        if plain.is_tls:
            raise _tls_error("the socket speaks TLS already, and TLS inside TLS is not possible on it")
        if plain:
            unread = plain.recv_some(len(plain), SocketFlag.PEEK) or b""
            if leftover != "tls":
                raise _tls_error(
                    f"{len(unread)} bytes were received in clear and not read before TLS begins: somebody may have "
                    "put them there (leftover='tls' takes them for the beginning of the handshake)"
                )
            tls_core.feed(unread)
        self._take_core(tls_core)

    # Clients that are not handed out before their handshake is done.

    @contextlib.contextmanager
    def _welcome(self, client: SecureSocket) -> Iterator[None]:
        """Make a handshake with a client that was accepted: it is closed if that fails, or with the listener."""
        if self._arriving is None:
            self._arriving = set()
        self._arriving.add(client)
        try:
            self._open_sock("accept")
            yield
        except BaseException:
            client.close()
            raise
        finally:
            self._arriving.discard(client)

    def _first_guest(
        self, accept: Callable[[], tuple[Self, Address] | None]
    ) -> tuple[AcceptResult, Self | None, Address | None]:
        """What ``try_accept_addr`` returns of a TLS listener; ``accept`` gives a client that has connected, or None."""
        self._open_sock("accept")
        # `setdefault` is atomic: two threads get one.
        guests: Guests[Self] = self._guests or vars(self).setdefault("_guests", Guests())
        result = guests.first(lambda: self._welcome_now(accept()))
        if self._closing.locked():  # by another thread, before there was a room
            guests.close()
        return result

    def _welcome_now(self, accepted: tuple[Self, Address] | None) -> Arrival[Self] | None:
        """Prepare the handshake with a client that ``try_accept_addr`` has accepted."""
        if accepted is None:
            return None
        client, address = accepted
        try:
            assert self._tls is not None
            return Arrival(client, address, client._server_core(self._tls))
        except BaseException:
            client.close()
            raise

    def _step_handshake(self, tls_core: TlsCore) -> bool:
        """Go on with a handshake as far as that is possible without waiting; whether it is done."""
        while not tls_core.handshake():
            self._flush_now(tls_core)
            try:
                tls_core.feed(self._sock.recv(tls_core.recv_size, DONT_WAIT))
            except BlockingIOError:
                return False
            except OSError as error:
                tls_core.fail(error)
        self._flush_now(tls_core)
        return True

    def _send_guests_away(self) -> None:
        for client in tuple(self._arriving or ()):
            client.close()
        if self._guests is not None:
            self._guests.close()

    # Hooks of the flavours.

    def _hold(self, operation: str) -> object:
        """Be the only call that reads and writes the stream, until ``_published``.

        Returns:
            That right, which lasts as long as there is a reference to it.
        """
        raise NotImplementedError

    def _send_output(self) -> None:
        """Send what a read has made, unless somebody else is sending, who will look again."""
        raise NotImplementedError

    def _write_in_flight(self) -> bool:
        """Whether something is being sent by somebody who cannot be stopped."""
        return False

    # Sending without waiting, for the call that holds the write lock.

    def _flush_now(self, core: StreamCore) -> bool:
        """Send the ciphertext that is there as far as there is room; return whether that was all."""
        return not self._write_in_flight() and core.flush(self._sock.send, _NOW)

    def _send_available(self, core: StreamCore, payload: bytes | memoryview) -> int:
        """Send as much as there is room for; return how many bytes of ``payload`` count as sent. It raises no OSError.

        These are the bytes that the system has taken, and over TLS all of a chunk (up to 64 KiB) of which it has taken
        a part, or for which there was no room. The rest of that is ``core.unsent``, and the next sending call, even
        with ``b""``, or ``close`` sends it. A chunk that the system refused with an error does not count.
        """
        sent = 0
        try:
            if self._flush_now(core):
                # An operation of the loop may be using the socket.
                while sent < len(payload) and not core.unsent and not self._write_in_flight():
                    sent += self._sender.send(memoryview(payload)[sent:] if sent else payload, _NOW)
        except OSError as error:
            self._note_reset(error)
        if sent == len(payload):
            core.message_incomplete = False
        return sent

    # What is known of the connection.

    @property
    def is_ssl(self) -> bool:
        """Whether the socket speaks TLS, or will when it is connected."""
        return self._tls is not None or self._tls_core is not None

    @property
    def got_handshake(self) -> bool:
        """Whether the TLS handshake is done.

        Raises:
            ssl.SSLError: the socket does not speak TLS.
        """
        if not self.is_ssl:
            raise _tls_error("got_handshake: the socket does not speak TLS")
        tls_core = self._tls_core
        return tls_core is not None and tls_core.engine.established

    def get_peer_certificates(self) -> list[Certificate]:
        """Return the peer's certificates, its own first, the root last.

        Returns:
            The chain that was verified; empty if there is none, or none was verified. A resumed server side knows
            the client's own certificate only; a resumed client keeps the chain of the first connection.

        Raises:
            ClosedError: the socket is closed.
        """
        self._open_sock("get_peer_certificates")
        tls_core = self._tls_core
        if tls_core is None:
            return []
        return tls_core.with_ssl_object(tls_core.engine.policy.certificates)

    def get_psk_identity(self) -> str:
        """Return the PSK identity that the handshake has proven; ``""`` if no pre-shared key was used.

        Raises:
            ClosedError: the socket is closed.
        """
        self._open_sock("get_psk_identity")
        tls_core = self._tls_core
        if tls_core is None:
            return ""
        return tls_core.with_ssl_object(tls_core.engine.policy.psk_identity)

    @property
    def tls_info(self) -> TlsInfo:
        """What the handshake has agreed on: version, cipher, ALPN protocol, resumed or not, server name.

        Raises:
            ClosedError: the socket is closed.
            ssl.SSLError: the socket does not speak TLS, or has not yet.
        """
        tls_core = self._require_tls_core("tls_info")
        return tls_core.with_ssl_object(tls_core.engine.policy.info)

    @property
    def ssl_handle(self) -> ssl.SSLObject:
        """The ``ssl.SSLObject`` of the connection. Reading or writing through it breaks the socket.

        Raises:
            ClosedError: the socket is closed.
            ssl.SSLError: the socket does not speak TLS, or has not yet.
        """
        return self._require_tls_core("ssl_handle").engine.obj

    @property
    def ssl_pointer(self) -> int:
        """OpenSSL's ``SSL*`` as a number, for calls by ``ctypes`` or ``cffi``.

        It is valid until the socket is closed. Never free it, never use it in another thread than the one that is
        inside a call of this socket.

        Raises:
            ClosedError: the socket is closed.
            NotImplementedError: it cannot be reached in this interpreter; the text says why.
            ssl.SSLError: the socket does not speak TLS, or has not yet.
        """
        tls_core = self._require_tls_core("ssl_pointer")
        return tls_core.with_ssl_object(tls_core.engine.policy.pointer)

    def _require_tls_core(self, operation: str) -> TlsCore:
        self._open_sock(operation)
        tls_core = self._tls_core
        if tls_core is None:
            raise _tls_error(f"{operation}: the socket does not speak TLS" + (" yet" if self._tls else ""))
        return tls_core

    def _traits(self) -> list[str]:
        if not self.is_ssl:
            return []
        tls_core = self._tls_core
        version = None if tls_core is None else tls_core.with_ssl_object(lambda obj: obj.version())
        return [f"tls={version or 'not yet'}"]

    # The end.

    def _may_detach(self) -> None:
        if self._tls_core is not None:
            raise _tls_error("detach: the socket speaks TLS, and what has been agreed on would be lost")

    def _last_words(self, linger: float | None) -> tuple[float | None, bytes]:
        tls_core = self._tls_core
        if tls_core is None or linger == 0:
            return linger, b""
        # A peer must be able to tell the end from a cut; and its session tickets, which nobody reads, must not
        # turn the close into a reset that eats what was sent before, be it the alert that says what was wrong.
        return (DEFAULT_LINGER if linger is None else linger), tls_core.final_bytes()


def _call(method: Callable[[], object] | None) -> None:
    if method is not None:
        method()


def _tls_error(message: str) -> OSError:
    """An ``ssl.SSLError``. The front rooms do not import ``ssl``: only who gets here pays for it."""
    ssl = importlib.import_module("ssl")
    # With a number before it: the text of an `SSLError` made of a message alone is the repr of a tuple.
    error: OSError = ssl.SSLError(ssl.SSL_ERROR_SSL, message)
    return error
