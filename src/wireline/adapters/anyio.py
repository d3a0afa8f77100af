"""anyio's ``ByteStream`` and ``Listener`` over an ``AsyncSocket``; and its reading methods over any stream.

Needs the extra ``anyio``. Errors of ``ByteStream`` and ``Listener`` are anyio's own; the wireline error is their
``__cause__``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from wireline._core.deadline import check_timeout
from wireline._public import publish
from wireline._socket_view import SocketView
from wireline.adapters._buffered import BufferedStream
from wireline.adapters._checks import require_connected, require_listening
from wireline.asyncnet import AsyncSocket
from wireline.errors import BusyError, ClosedError
from wireline.options import AF_UNIX, BUFFER_SIZE, SocketFlag
from wireline.tls import Handshake, SslContext

__all__ = ["ByteStream", "Listener", "from_stream"]

# anyio wants every error.
_NO_FLAGS = SocketFlag(0)

# The process or the system is out of descriptors or memory: a client waits until there are some.
_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# Seconds until the next attempt; trio's number.
_PAUSE = 0.1

_log = logging.getLogger("wireline")


class ByteStream(anyio.abc.ByteStream):
    """A connected stream as an ``anyio.abc.ByteStream``.

    A read that is cancelled loses nothing. Several tasks may send at a time: they take turns. Over TLS, the stream of a
    wireline socket, the attributes are those of an anyio ``TLSStream``.
    """

    def __init__(self, sock: AsyncSocket) -> None:
        """Take over the socket: ``aclose`` closes it.

        Args:
            sock: a connected stream; over TLS after its handshake.

        Raises:
            TypeError: ``sock`` is not an ``AsyncSocket``, or a datagram socket.
            ClosedError: the socket is closed.
            OSError: ``ENOTCONN``: the socket is not connected.
        """
        self._view = require_connected(sock)
        self._sock = sock

    async def receive(self, max_bytes: int = BUFFER_SIZE) -> bytes:
        """Receive at most ``max_bytes`` bytes, as soon as there is one."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        with _raising("reading from"):
            data = await self._sock.recv_some(max_bytes, None, _NO_FLAGS)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all of ``item``."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        with _raising("writing to"):
            await self._sock.send(item, _NO_FLAGS)

    async def send_eof(self) -> None:
        """Send the end of the stream; reading stays possible, over TLS too."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        with _raising("writing to"):
            await self._sock.shutdown_write()

    async def aclose(self) -> None:
        """Close the socket; a task that reads or sends gets a ``ClosedResourceError``."""
        self._sock.close()
        await anyio.lowlevel.checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The addresses, the family and the socket, by ``SocketAttribute``; over TLS also ``TLSAttribute``."""
        view, sock = self._view, self._sock
        attributes = _socket_attributes(view) | {SocketAttribute.remote_address: view.getpeername}
        if view.family != AF_UNIX:
            attributes[SocketAttribute.remote_port] = lambda: sock.peer_addr.port
        return attributes | _tls_attributes(sock) if sock.is_ssl else attributes


class Listener(anyio.abc.Listener[ByteStream]):
    """A listening socket as an ``anyio.abc.Listener`` of ``ByteStream``."""

    def __init__(
        self, sock: AsyncSocket, *, tls: SslContext | None = None, handshake_timeout: float | None = 10.0
    ) -> None:
        """Take over the socket: ``aclose`` closes it.

        Args:
            sock: a listening socket, without TLS of its own.
            tls: do a handshake with each client, in the task of its handler: a silent client delays no other. A client
                whose handshake fails is closed, with one line in the log.
            handshake_timeout: seconds for each handshake; None means no limit.

        Raises:
            TypeError: ``sock`` is not an ``AsyncSocket``, or a datagram socket, or has TLS of its own.
            ClosedError: the socket is closed.
            ValueError: the socket does not listen, or ``handshake_timeout`` is negative.
        """
        self._view = require_listening(sock)
        self._sock = sock
        self._tls = tls
        self._handshake_timeout = check_timeout(handshake_timeout)

    async def serve(
        self,
        handler: Callable[[ByteStream], Awaitable[Any]],
        task_group: anyio.abc.TaskGroup | None = None,
    ) -> None:
        """Accept clients, and call ``handler`` with each in a task of its own.

        It ends when it is cancelled, or by ``aclose`` with a ``ClosedResourceError``. Without a ``task_group`` this and
        the exceptions of handlers are in an exception group, as with anyio's own listeners.
        """
        async with contextlib.AsyncExitStack() as stack:
            group = task_group
            if group is None:
                group = await stack.enter_async_context(anyio.create_task_group())
            while True:
                await anyio.lowlevel.checkpoint_if_cancelled()
                with _raising("accepting connections from"):
                    try:
                        client = await self._sock.accept()
                    except OSError as error:
                        if error.errno not in _RESOURCES:
                            raise
                        await anyio.sleep(_PAUSE)
                        continue
                group.start_soon(self._serve_client, client, handler)

    async def _serve_client(
        self, client: AsyncSocket, handler: Callable[[ByteStream], Awaitable[Any]]
    ) -> None:
        try:
            if self._tls is not None:
                await self._tls.wrap_connected_async(
                    client, Handshake.AS_SERVER, timeout=self._handshake_timeout
                )
        except BaseException as error:
            client.close()
            if not isinstance(error, OSError):
                raise
            _log.info("the TLS handshake with a client of %r failed: %s", self._sock, error)
        else:
            await handler(ByteStream(client))

    async def aclose(self) -> None:
        """Close the socket; ``serve`` ends with a ``ClosedResourceError``."""
        self._sock.close()
        await anyio.lowlevel.checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The local address, the family and the socket, by ``SocketAttribute``."""
        return _socket_attributes(self._view)


@contextlib.contextmanager
def _raising(action: str) -> Iterator[None]:
    """Raise anyio's errors in place of ours."""
    try:
        yield
    except ClosedError as error:
        raise anyio.ClosedResourceError from error
    except BusyError as error:
        raise anyio.BusyResourceError(action) from error
    except OSError as error:
        raise anyio.BrokenResourceError from error


def _socket_attributes(view: SocketView) -> dict[Any, Callable[[], Any]]:
    """Return the attributes of every socket. The addresses are asked for when they are needed, as in anyio."""
    attributes: dict[Any, Callable[[], Any]] = {
        SocketAttribute.family: lambda: view.family,
        SocketAttribute.local_address: view.getsockname,
        SocketAttribute.raw_socket: lambda: view,
    }
    if view.family != AF_UNIX:
        attributes[SocketAttribute.local_port] = lambda: view.getsockname()[1]
    return attributes


def _tls_attributes(sock: AsyncSocket) -> dict[Any, Callable[[], Any]]:
    tls = sock.ssl_handle
    names: Any = TLSAttribute  # their types are those of the values
    attributes: dict[Any, Callable[[], Any]] = {
        names.alpn_protocol: tls.selected_alpn_protocol,
        names.channel_binding_tls_unique: tls.get_channel_binding,
        names.cipher: tls.cipher,
        names.peer_certificate: lambda: tls.getpeercert(False),
        names.peer_certificate_binary: lambda: tls.getpeercert(True),
        names.server_side: lambda: tls.server_side,
        names.shared_ciphers: tls.shared_ciphers,
        names.ssl_object: lambda: tls,
        names.standard_compatible: lambda: True,
        names.tls_version: tls.version,
    }
    return attributes


def from_stream(stream: anyio.abc.AnyByteStream) -> BufferedStream:
    """Return an object with the reading and sending methods of an ``AsyncSocket`` over any byte stream of anyio's.

    So lines, frames and exact reads work over SSH, a WebSocket or a pair in memory. The object takes over the stream:
    ``aclose``, or the end of an ``async with`` block, closes it. The errors are those of an ``AsyncSocket``. A timeout
    of 0 returns bytes that were received already, and does not read from the stream. After a ``send`` that timed out or
    was cancelled it is not known how many bytes were sent, so every later ``send`` raises ``BrokenPipeError``.

    Args:
        stream: an object with the methods of ``anyio.abc.ByteStream`` or of an object stream of bytes.

    Raises:
        TypeError: ``stream`` has no ``receive`` or no ``send``.
    """
    if not (hasattr(stream, "receive") and hasattr(stream, "send")):
        raise TypeError(f"an anyio.abc.ByteStream is needed, not {type(stream).__name__}")
    return BufferedStream(_AnyioStream(stream))


class _AnyioStream:
    """anyio's side of a ``BufferedStream``."""

    broken = anyio.BrokenResourceError
    busy = anyio.BusyResourceError
    closed = anyio.ClosedResourceError

    def __init__(self, stream: anyio.abc.AnyByteStream) -> None:
        self._stream: Any = stream
        self._has_limit = not isinstance(stream, anyio.abc.ObjectReceiveStream)
        self.send_eof = stream.send_eof
        self.aclose = stream.aclose

    async def receive(self, size: int) -> bytes:
        data = b""
        try:
            while not data:  # an object may be empty, and is not the end
                data = bytes(
                    await (self._stream.receive(size) if self._has_limit else self._stream.receive())
                )
        except anyio.EndOfStream:
            return b""
        return data

    async def send(self, data: bytes | memoryview) -> None:
        await self._stream.send(bytes(data))

    @staticmethod
    def move_on_after(seconds: float | None) -> anyio.CancelScope:
        return anyio.move_on_after(seconds)

    @staticmethod
    def lock() -> anyio.Lock:
        return anyio.Lock()


publish(__name__, globals(), __all__)
