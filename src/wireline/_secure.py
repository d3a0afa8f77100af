"""What a socket does about TLS that never waits: being wrapped, what is known of a connection, what is said at the end.

``ssl`` is not imported here: who uses TLS has loaded it by importing ``wireline.tls``, and nobody else pays for it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self, cast

from wireline._core.stream import StreamCore
from wireline._os.descriptor import State
from wireline._os.linger import DEFAULT_LINGER
from wireline._pending_handshakes import IncomingClient, PendingHandshakes
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

    _attempts: Iterator[int]
    _pending_handshakes: PendingHandshakes[Any] | None = None  # of clients that `try_accept_addr` accepted

    _shared = False
    """Whether one thread may read while another writes."""

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._secure: TlsCore | None = None  # `_core`, if that is TLS
        self._tls: SslContext | None = None
        self._tls_name = ""
        self._handshaking: set[SecureSocket] | None = None  # accepted, and in their handshake
        super()._setup(sock, buffered, state, peer)

    def _take_core(self, core: StreamCore) -> None:
        super()._take_core(core)
        self._secure = None
        if not core.plain:
            self._secure = cast("TlsCore", core)
            attend = weakref.WeakMethod(self._send_output)  # the core is not to keep the socket alive
            self._secure.attend = lambda: _call(attend())
            assert self._secure.shared or not self._shared, "threads need a core that has a lock"
            if self._shared:
                self._attempts = attempts(self._sock, self._secure)

    def _unconnected(self) -> None:
        self._secure = None
        super()._unconnected()

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

    def _begin_upgrade(self, secure: TlsCore, plain: StreamCore, leftover: str) -> None:
        """Go over to TLS. Bytes received in clear must not be taken for protected ones (T6).

        From here on nothing goes out in clear, however the handshake ends. A socket that speaks TLS already is left as
        it is: to put this handshake in its place would send the rest of the conversation past its encryption.
        """
        if not plain.plain:
            raise _tls_error("the socket speaks TLS already, and TLS inside TLS is not possible on it")
        if plain:
            unread = plain.recv_some(len(plain), SocketFlag.PEEK) or b""
            if leftover != "tls":
                raise _tls_error(
                    f"{len(unread)} bytes were received in clear and not read before TLS begins: somebody may have "
                    "put them there (leftover='tls' takes them for the beginning of the handshake)"
                )
            secure.feed(unread)
        self._take_core(secure)

    # Clients that are not handed out before their handshake is done.

    @contextlib.contextmanager
    def _welcome(self, client: SecureSocket) -> Iterator[None]:
        """Make a handshake with a client that was accepted: it is closed if that fails, or with the listener."""
        if self._handshaking is None:
            self._handshaking = set()
        self._handshaking.add(client)
        try:
            self._open_sock("accept")
            yield
        except BaseException:
            client.close()
            raise
        finally:
            self._handshaking.discard(client)

    def _next_ready_client(
        self, accept: Callable[[], tuple[Self, Address] | None]
    ) -> tuple[AcceptResult, Self | None, Address | None]:
        """What ``try_accept_addr`` returns of a TLS listener; ``accept`` gives a client that has connected, or None."""
        self._open_sock("accept")
        # `setdefault` is atomic: two threads get one.
        pending: PendingHandshakes[Self] = self._pending_handshakes or vars(self).setdefault(
            "_pending_handshakes", PendingHandshakes()
        )
        result = pending.next_ready(lambda: self._incoming(accept()))
        if self._closing.locked():  # by another thread, before there was a room
            pending.close()
        return result

    def _incoming(self, accepted: tuple[Self, Address] | None) -> IncomingClient[Self] | None:
        """Prepare the handshake with a client that ``try_accept_addr`` has accepted."""
        if accepted is None:
            return None
        client, address = accepted
        try:
            assert self._tls is not None
            return IncomingClient(client, address, client._server_core(self._tls))
        except BaseException:
            client.close()
            raise

    def _step_handshake(self, secure: TlsCore) -> bool:
        """Go on with a handshake as far as that is possible without waiting; whether it is done."""
        while not secure.handshake():
            self._flush_now(secure)
            try:
                secure.feed(self._sock.recv(secure.want, DONT_WAIT))
            except BlockingIOError:
                return False
            except OSError as error:
                secure.fail(error)
        self._flush_now(secure)
        return True

    def _close_pending_handshakes(self) -> None:
        for client in tuple(self._handshaking or ()):
            client.close()
        if self._pending_handshakes is not None:
            self._pending_handshakes.close()

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

    # Sending without waiting, for whoever has the turn to write.

    def _flush_now(self, secure: TlsCore) -> bool:
        """Send the ciphertext that is there as far as there is room; whether that was all."""
        if self._write_in_flight():
            return False
        try:
            while secure.unsent():
                secure.push(self._sock.send, DONT_WAIT | NO_SIGNAL)
        except BlockingIOError:
            return False
        return True

    def _seal_and_send(self, secure: TlsCore, piece: bytes | memoryview) -> bool:
        """Encrypt a slice and make one attempt to send it; whether it is gone. What is not is the core's ``rest``.

        Mostly there is room: this is where every message comes by, without the calls of ``_flush`` and ``push``.
        """
        secure.midway = True
        data = secure.seal(piece)
        try:
            if not self._shared:
                gone = self._sock.send(data, _NOW)
            else:
                for secure.gone in self._attempts:  # that keeps it, see `TlsCore.gone`
                    break
                gone = secure.gone
        except BlockingIOError:
            return False
        except OSError:
            secure.engine.accepted -= len(piece)  # it never went out, and never will
            raise
        except BaseException:
            if not self._shared:
                # A signal handler raised it in a callback of the loop, perhaps after the kernel took some of the bytes.
                words = "a signal handler raised an exception in a send, which is not finished"
                secure.engine.failed(cast("ssl.SSLError", _tls_error(words)))
            raise
        if gone == len(data):
            secure.rest = b""
            secure.gone = 0
            return True
        return secure.sent(gone)

    def _try_send_secure(self, secure: TlsCore, payload: bytes | memoryview) -> int:
        """Send what there is room for; how many bytes of ``payload`` are accepted.

        Accepted are the bytes of records that the kernel has taken, and those of the slice (up to 64 KiB) that was made
        into records and that the kernel took a part of, or had no room for. Its rest is ``secure.rest`` afterwards, and
        the next sending call, even with ``b""``, or ``close`` completes it. A slice that the kernel refused with an
        error is not counted; no ``OSError`` is raised.
        """
        before = secure.engine.accepted
        try:
            if self._flush_now(secure):
                for piece in secure.slices(payload):
                    # An operation of the loop may have the socket in its hands.
                    if self._write_in_flight() or not self._seal_and_send(secure, piece):
                        break
        except OSError as error:
            self._note_reset(error)
        accepted = secure.engine.accepted - before
        if accepted == len(payload):
            secure.midway = False
        return accepted

    # What is known of the connection.

    @property
    def is_ssl(self) -> bool:
        """Whether the socket speaks TLS, or will when it is connected."""
        return self._tls is not None or self._secure is not None

    @property
    def got_handshake(self) -> bool:
        """Whether the TLS handshake is done.

        Raises:
            ssl.SSLError: the socket does not speak TLS.
        """
        if not self.is_ssl:
            raise _tls_error("got_handshake: the socket does not speak TLS")
        return self._secure is not None and self._secure.engine.established

    def get_peer_certificates(self) -> list[Certificate]:
        """Return the peer's certificates, its own first, the root last.

        Returns:
            The chain that was verified; empty if there is none, or none was verified. A resumed server side knows
            the client's own certificate only; a resumed client keeps the chain of the first connection.

        Raises:
            ClosedError: the socket is closed.
        """
        self._open_sock("get_peer_certificates")
        if self._secure is None:
            return []
        return self._secure.ask(self._secure.engine.policy.certificates)

    def get_psk_identity(self) -> str:
        """Return the PSK identity that the handshake has proven; ``""`` if no pre-shared key was used.

        Raises:
            ClosedError: the socket is closed.
        """
        self._open_sock("get_psk_identity")
        if self._secure is None:
            return ""
        return self._secure.ask(self._secure.engine.policy.psk_identity)

    @property
    def tls_info(self) -> TlsInfo:
        """What the handshake has agreed on: version, cipher, ALPN protocol, resumed or not, server name.

        Raises:
            ClosedError: the socket is closed.
            ssl.SSLError: the socket does not speak TLS, or has not yet.
        """
        secure = self._handshaken("tls_info")
        return secure.ask(secure.engine.policy.info)

    @property
    def ssl_handle(self) -> ssl.SSLObject:
        """The ``ssl.SSLObject`` of the connection. Reading or writing through it breaks the socket.

        Raises:
            ClosedError: the socket is closed.
            ssl.SSLError: the socket does not speak TLS, or has not yet.
        """
        return self._handshaken("ssl_handle").engine.obj

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
        secure = self._handshaken("ssl_pointer")
        return secure.ask(secure.engine.policy.pointer)

    def _handshaken(self, operation: str) -> TlsCore:
        self._open_sock(operation)
        if self._secure is None:
            raise _tls_error(f"{operation}: the socket does not speak TLS" + (" yet" if self._tls else ""))
        return self._secure

    def _traits(self) -> list[str]:
        if not self.is_ssl:
            return []
        version = self._secure.ask(lambda obj: obj.version()) if self._secure is not None else None
        return [f"tls={version or 'not yet'}"]

    # The end.

    def _may_detach(self) -> None:
        if self._secure is not None:
            raise _tls_error("detach: the socket speaks TLS, and what has been agreed on would be lost")

    def _last_words(self, linger: float | None) -> tuple[float | None, bytes]:
        if self._secure is None or linger == 0:
            return linger, b""
        # A peer must be able to tell the end from a cut; and its session tickets, which nobody reads, must not
        # turn the close into a reset that eats what was sent before, be it the alert that says what was wrong.
        return (DEFAULT_LINGER if linger is None else linger), self._secure.farewell()


def attempts(sock: socket.socket, secure: TlsCore) -> Iterator[int]:
    """Make an iterator each step of which is one attempt to send the core's ``rest``; it gives how much is gone."""
    rests = map(getattr, itertools.repeat(secure), itertools.repeat("rest"))
    return map(sock.send, rests, itertools.repeat(_NOW))


def _call(method: Callable[[], object] | None) -> None:
    if method is not None:
        method()


def _tls_error(message: str) -> OSError:
    """An ``ssl.SSLError``. The front rooms do not import ``ssl``: only who gets here pays for it."""
    ssl = importlib.import_module("ssl")
    # With a number before it: the text of an `SSLError` made of a message alone is the repr of a tuple.
    error: OSError = ssl.SSLError(ssl.SSL_ERROR_SSL, message)
    return error
