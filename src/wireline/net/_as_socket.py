"""``as_socket``: a ``socket.socket`` for libraries that know no other, over a ``Socket``.

It is a subclass because libraries and type checkers ask for one, but its own descriptor is -1: every method is written
here, and a method that this file does not know fails with ``EBADF`` instead of bypassing the buffer or TLS.
"""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Self

from wireline._core.deadline import check_timeout
from wireline._socket_view import SocketView
from wireline._validation import Buffer, as_bytes_like, as_writable_view
from wireline.errors import SocketTimeout
from wireline.net._socket import Socket
from wireline.net._socket_file import SocketFile
from wireline.options import BUFFER_SIZE, DONT_WAIT, NO_SIGNAL, SOCK_STREAM, SocketFlag, SockOpt

if TYPE_CHECKING:
    import ssl

__all__ = ["as_socket"]

# A reset is an error, as in `socket`.
_NO_FLAGS = SocketFlag(0)

_PEEK = int(getattr(socket, "MSG_PEEK", 0))


def as_socket(sock: Socket) -> socket.socket:
    """Return an object that passes for a ``socket.socket``, for libraries that need one.

    It has its own timeout, at first None, and shares everything else with ``sock``: closing one closes the other.
    ``makefile`` keeps the connection open until each of its files is closed, as in ``socket``. A peer that resets the
    connection is a ``ConnectionResetError``. Over TLS it also has the facts of an ``ssl.SSLSocket``: ``version``,
    ``cipher``, ``getpeercert``, ``selected_alpn_protocol`` and the like.

    Bytes that the socket has read ahead are invisible to ``select``: a program that waits with ``select`` must ask
    ``pending()`` first, the number of these bytes. A socket made with ``buffered=False`` has none in clear. Over TLS it
    has the rest of a record at most, as an ``ssl.SSLSocket``: none if each read asks for 16 KiB or more.

    One thread reads at a time; a second one gets a ``BusyError``. What cannot be done, such as receiving ancillary
    data, raises ``NotImplementedError`` with a sentence that says so.

    Args:
        sock: a connected stream, or a listener, whose ``accept`` then returns such objects.

    Returns:
        The object. It holds ``sock``, and its ``close`` closes it.

    Raises:
        TypeError: ``sock`` is not a ``wireline.net.Socket``, or a datagram socket.
        ClosedError: ``sock`` is closed.
        OSError: ``ENOTCONN``: ``sock`` is neither connected nor listening.
    """
    if not isinstance(sock, Socket):
        raise TypeError(f"as_socket needs a wireline.net.Socket, not {type(sock).__name__}")
    view = SocketView(sock)
    if view.type != SOCK_STREAM:
        raise TypeError("as_socket needs a stream socket, this is a datagram socket")
    if not sock.get_sock_opt(SockOpt.ACCEPT_CONN):
        _ = sock.peer_addr  # raises ENOTCONN
    kind = TlsSocketBridge if sock.is_ssl else SocketBridge
    bridge = kind.__new__(kind)
    bridge._begin(sock, view)
    return bridge


def _refused(name: str, reason: str) -> Callable[..., NoReturn]:
    """Make a method that cannot be offered."""

    def method(self: object, *args: object, **kwargs: object) -> NoReturn:
        _raise_unsupported(name, reason)

    method.__name__ = name
    return method


def _raise_unsupported(name: str, reason: str) -> NoReturn:
    text = f"{name}: {reason}"
    raise NotImplementedError(text)


_ONE_STREAM = "a wireline stream has one peer; use send and recv"
_CONNECTED = "the socket is made, bound and connected by wireline, before as_socket"
_ANCILLARY = "as_socket passes no ancillary data; use the wireline socket itself"


class SocketBridge(socket.socket):
    """A ``socket.socket`` over a ``Socket``, made by ``as_socket``.

    Theory of operation. The timeout is that of one call, as in ``socket``. ``recv`` is ``recv_some``; every error of
    the connection is raised. The number of open files of ``makefile`` is counted; the last of them closes the socket if
    ``close`` was called before.
    """

    __slots__ = ("_accepted", "_closed", "_files", "_read_shutdown", "_sock", "_timeout", "_view")

    def _begin(self, sock: Socket, view: SocketView) -> None:
        """Take the place of ``__init__``, which would make a descriptor."""
        self._sock = sock
        self._view = view
        self._timeout: float | None = None
        self._files = 0
        self._closed = False
        self._accepted = 0
        self._read_shutdown = False

    # Facts and options.

    @property
    def family(self) -> int:  # type: ignore[override] # the stub has an enum
        """The address family."""
        return self._view.family

    @property
    def type(self) -> int:  # type: ignore[override]
        """The kind of socket."""
        return self._view.type

    @property
    def proto(self) -> int:
        """The number of the protocol."""
        return self._view.proto

    @property
    def timeout(self) -> float | None:
        """The timeout of each call."""
        return self._timeout

    def fileno(self) -> int:
        """Return the descriptor, to wait for; bytes that were read ahead do not show there. -1 after ``close``."""
        return self._sock.fileno()

    def getsockname(self) -> Any:
        """Return the local address."""
        return self._view.getsockname()

    def getpeername(self) -> Any:
        """Return the address of the peer."""
        return self._view.getpeername()

    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        """Return an option."""
        if optname == socket.SO_TYPE and level == socket.SOL_SOCKET:
            # Asked by `ssl.SSLContext.wrap_socket` alone, which then takes the descriptor and calls `detach` last: were
            # that refused, two sockets would own the descriptor.
            self._require_detachable()
        return self._view.getsockopt(level, optname, buflen)

    def setsockopt(self, level: int, optname: int, value: Any, /, *optlen: Any) -> None:
        """Set an option."""
        self._view.setsockopt(level, optname, value, *optlen)

    def get_inheritable(self) -> bool:
        """Whether programs that this process executes inherit the descriptor."""
        return self._view.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        """Set whether programs that this process executes inherit the descriptor."""
        self._view.set_inheritable(inheritable)

    # Waiting.

    def settimeout(self, value: float | None, /) -> None:
        """Set the timeout of each call: seconds, 0 for a non-blocking socket, None for no limit."""
        self._timeout = check_timeout(value)

    def gettimeout(self) -> float | None:
        """Return the timeout of each call."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """Set the timeout to None, or to 0."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """Whether the timeout is not 0."""
        return self._timeout != 0

    def _limit(self, flags: int, known: int) -> float | None:
        """Return the timeout of a call with these flags of the operating system."""
        if flags & ~(known | DONT_WAIT):
            raise NotImplementedError(f"as_socket does not know all of the flags {flags:#x}")
        return 0.0 if flags & DONT_WAIT else self._timeout

    # Reading.

    def pending(self) -> int:
        """Return how many bytes can be read without the network, which ``select`` does not see."""
        if not self._sock.has_data_buffered:
            return 0
        try:
            return len(self._sock.recv_some(1 << 30, 0, SocketFlag.PEEK))
        except SocketTimeout:  # another thread has read them
            return 0

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive at most ``bufsize`` bytes, as soon as there is one; ``b""`` is the end."""
        timeout = self._limit(flags, _PEEK)
        try:
            return self._sock.recv_some(bufsize, timeout, SocketFlag.PEEK if flags & _PEEK else _NO_FLAGS)
        except SocketTimeout as error:
            _raise_timeout(error, timeout)
        except OSError:
            if self._read_shutdown and not self._sock.is_closed:
                return b""  # over TLS the end that `shutdown` has made looks like a cut
            raise

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer; 0 is the end."""
        target = as_writable_view(buffer, nbytes or None)
        data = self.recv(len(target), flags)
        target[: len(data)] = data
        return len(data)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Receive as ``recv`` does; a stream has no address of a sender."""
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive as ``recv_into`` does; a stream has no address of a sender."""
        return self.recv_into(buffer, nbytes, flags), None

    # Writing.

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send as much as the send buffer takes; return how much that was."""
        timeout = self._limit(flags, NO_SIGNAL)
        payload = as_bytes_like(data)
        sock = self._sock
        try:
            if not self._accepted:
                sent = sock.send_some(payload, timeout)
                if timeout is None or sock.try_send(b""):
                    return sent
                self._accepted = sent
            # TLS has accepted bytes, and the system not yet their record: a caller that waits for the answer would wait
            # for ever. As with OpenSSL, the call fails, and the next one, with the same bytes, counts them.
            sock.send(b"", _NO_FLAGS, timeout)
            sent = min(self._accepted, len(payload))
            self._accepted -= sent
            return sent
        except SocketTimeout as error:
            _raise_timeout(error, timeout)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all of ``data``; a ``BlockingIOError`` has the number of bytes sent in ``characters_written``."""
        timeout = self._limit(flags, NO_SIGNAL)
        payload = as_bytes_like(data)[self._accepted :]
        try:
            self._sock.send(payload, _NO_FLAGS, timeout)
            self._accepted = 0
        except SocketTimeout as error:
            _raise_timeout(error, timeout)

    def sendmsg(
        self,
        buffers: Iterable[Any],
        ancdata: Iterable[Any] = (),
        flags: int = 0,
        address: object = None,
        /,
    ) -> int:
        """Send several buffers like one; return how much the send buffer took."""
        if list(ancdata):
            _raise_unsupported("sendmsg", _ANCILLARY)
        if address is not None:
            _raise_unsupported("sendmsg", _ONE_STREAM)
        return self.send(b"".join(map(as_bytes_like, buffers)), flags)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a binary file from ``offset`` on; return how much was sent, where the file's position then is."""
        if self._timeout == 0:
            raise ValueError("non-blocking sockets are not supported")
        file.seek(offset)
        total = 0
        try:
            while data := file.read(BUFFER_SIZE if count is None else min(BUFFER_SIZE, count - total)):
                self.sendall(data)
                total += len(data)
        finally:
            file.seek(offset + total)
        return total

    # Files.

    def makefile(  # type: ignore[override] # the stub has an overload for each kind of file
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.IOBase:
        """Return a file over the connection, which stays open until the file is closed."""
        if not set(mode) <= {"r", "w", "b"}:
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        writing = "w" in mode
        reading = "r" in mode or not writing
        raw = SocketFile(self, ("r" if reading else "") + ("w" if writing else ""))
        self._files += 1
        size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        if size == 0:
            if "b" not in mode:
                raise ValueError("unbuffered streams must be binary")
            return raw
        buffered: io.BufferedRWPair | io.BufferedReader | io.BufferedWriter
        if reading and writing:
            buffered = io.BufferedRWPair(raw, raw, size)
        else:
            buffered = io.BufferedReader(raw, size) if reading else io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, io.text_encoding(encoding), errors, newline)  # type: ignore[type-var] # pairs too
        text.mode = mode  # type: ignore[misc] # as `socket` sets it
        return text

    def file_closed(self) -> None:
        """Note that a file of ``makefile`` is closed."""
        self._files -= 1
        if self._closed:
            self.close()

    # The end.

    def shutdown(self, how: int, /) -> None:
        """End reading, writing or both. The end of writing waits for sends under way, that of both does not."""
        if how == socket.SHUT_WR:
            try:
                self._sock.shutdown_write(self._timeout)
            except SocketTimeout as error:
                _raise_timeout(error, self._timeout)
            return
        if how == socket.SHUT_RDWR and self._sock.is_ssl:
            try:
                self._sock.shutdown_write(0)  # `close_notify`, if no thread is sending
            except SocketTimeout:
                pass  # what follows makes that thread fail, and the peer sees a cut
        self._read_shutdown = self._read_shutdown or how != socket.SHUT_WR
        self._view.shutdown(how)

    def close(self) -> None:
        """Close the socket, when the files of ``makefile`` are closed too."""
        self._closed = True
        if self._files <= 0:
            self._sock.close()

    def _require_detachable(self) -> None:
        if self._sock.is_ssl:
            _raise_unsupported("detach", "the socket speaks TLS, and TLS inside TLS is started by start_tls")
        if self._sock.has_data_buffered:
            raise OSError(errno.EBUSY, "detach: received bytes are still unread, and would be lost")

    def detach(self) -> int:
        """Release the descriptor. It is refused over TLS, and while there are bytes that were read ahead."""
        fd = self._sock.detach()
        self._closed = True
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._closed:
            self.close()

    def __repr__(self) -> str:
        return f"<socket.socket over {self._sock!r}>"

    # Listening.

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a client; over TLS, after its handshake."""
        try:
            client, address = self._sock.accept_addr(timeout=self._timeout)
        except SocketTimeout as error:
            _raise_timeout(error, self._timeout)
        try:
            bridge = as_socket(client)
        except BaseException:
            client.close()
            raise
        try:
            return bridge, bridge.getpeername()
        except OSError:  # the peer is gone already
            return bridge, tuple(address)

    def listen(self, backlog: int = socket.SOMAXCONN, /) -> None:
        """Listen."""
        self._sock.listen(backlog)

    bind = _refused("bind", _CONNECTED)
    connect = _refused("connect", _CONNECTED)
    connect_ex = _refused("connect_ex", _CONNECTED)
    dup = _refused("dup", "two sockets cannot share what was read ahead, or a TLS connection")
    recvmsg = _refused("recvmsg", _ANCILLARY)
    recvmsg_into = _refused("recvmsg_into", _ANCILLARY)
    sendto = _refused("sendto", _ONE_STREAM)
    if hasattr(socket.socket, "sendmsg_afalg"):
        sendmsg_afalg = _refused("sendmsg_afalg", "this is no AF_ALG socket")


class TlsSocketBridge(SocketBridge):
    """A ``SocketBridge`` with the facts of an ``ssl.SSLSocket``."""

    __slots__ = ()

    server_side = property(lambda self: self._tls.server_side)
    server_hostname = property(lambda self: self._tls.server_hostname)
    context = property(lambda self: self._tls.context)
    session = property(lambda self: self._tls.session)
    session_reused = property(lambda self: self._tls.session_reused)

    @property
    def _tls(self) -> ssl.SSLObject:
        return self._sock.ssl_handle

    def version(self) -> str | None:
        """Return the version of TLS."""
        return self._tls.version()

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher, its protocol and its number of secret bits."""
        return self._tls.cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """Return the ciphers of both sides."""
        return self._tls.shared_ciphers()

    def compression(self) -> str | None:
        """Return the compression, which is None."""
        return self._tls.compression()

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that was negotiated."""
        return self._tls.selected_alpn_protocol()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the peer's certificate: a dict, which is empty if it was not verified, or DER bytes."""
        return self._tls.getpeercert(binary_form)

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """Return the bytes that bind an authentication to this connection."""
        return self._tls.get_channel_binding(cb_type)

    def do_handshake(self, block: bool = False) -> None:
        """Do nothing: the handshake is done."""

    def read(self, len: int = 1024, buffer: bytearray | None = None) -> bytes | int:
        """Receive, as ``recv`` and ``recv_into`` do."""
        return self.recv(len) if buffer is None else self.recv_into(buffer, len)

    def write(self, data: Buffer) -> int:
        """Send, as ``send`` does."""
        return self.send(data)

    unwrap = _refused("unwrap", "a wireline socket that speaks TLS cannot go back to clear text")


def _raise_timeout(error: SocketTimeout, timeout: float | None) -> NoReturn:
    """Raise what ``socket`` raises at the end of a timeout."""
    if timeout == 0:
        blocking = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if error.bytes_sent is not None:
            blocking.characters_written = error.bytes_sent
        raise blocking from error
    raise TimeoutError("timed out") from error
