"""trio's ``Stream`` and ``Listener`` over an ``AsyncSocket``; and its reading methods over any stream.

Needs the extra ``trio``. Errors of ``Stream`` and ``Listener`` are trio's own; the wireline error is their
``__cause__``. Every call is a checkpoint: it may be cancelled, and it lets the other tasks run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from wireline._core.deadline import check_timeout
from wireline._public import publish
from wireline.adapters._buffered import BufferedStream
from wireline.adapters._checks import require_connected, require_listening
from wireline.asyncnet import AsyncSocket
from wireline.errors import BusyError, ClosedError
from wireline.options import BUFFER_SIZE, SocketFlag
from wireline.tls import Handshake, SslContext

__all__ = ["Listener", "Stream", "from_stream"]

# trio wants every error.
_NO_FLAGS = SocketFlag(0)


class Stream(trio.abc.HalfCloseableStream):
    """A connected stream as a ``trio.abc.HalfCloseableStream``.

    A read that is cancelled loses nothing. As with trio's own streams one task may send at a time.

    Calls raise ``trio.ClosedResourceError`` if this side has closed the stream, ``trio.BrokenResourceError`` if the
    connection failed, and ``trio.BusyResourceError`` if another task is in the same kind of call.
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
        require_connected(sock)
        self._sock = sock
        self._sends = False
        self._sent_eof = False
        self._handshake: _LateHandshake | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``. After a cancellation it is not known how much of it was sent."""
        with self._sending(), _raising("this stream"):
            await self._begin()
            if self._sent_eof:
                raise trio.ClosedResourceError("the end of this stream was sent")
            await self._sock.send(data, _NO_FLAGS)
        await cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the operating system would take at least one byte of a ``send_all``."""
        with self._sending(), _raising("this stream"):
            await self._begin()
            if self._sock.is_closed:
                raise trio.ClosedResourceError("this stream is closed")
            await trio.lowlevel.wait_writable(self._sock.fileno())

    async def send_eof(self) -> None:
        """Send the end of the stream; reading stays possible, over TLS too."""
        with self._sending(), _raising("this stream"):
            await self._begin()
            if not self._sent_eof:
                await self._sock.shutdown_write()
                self._sent_eof = True
        await cancel_shielded_checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at most ``max_bytes`` bytes, as soon as there is one; ``b""`` is the end of the stream.

        Raises:
            TypeError, ValueError: ``max_bytes`` is not an int, or is less than 1.
        """
        if max_bytes is None:
            max_bytes = BUFFER_SIZE
        elif not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes is an int or None, not {type(max_bytes).__name__}")
        elif max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}")
        with _raising("this stream"):
            await self._begin()
            if self._sock.has_data_buffered:  # else the read sleeps, which is a checkpoint
                await cancel_shielded_checkpoint()
            data = await self._sock.recv_some(max_bytes, None, _NO_FLAGS)
        if not data:
            await cancel_shielded_checkpoint()
        return data

    async def aclose(self) -> None:
        """Close the socket; a task that reads or sends gets a ``ClosedResourceError``."""
        if not self._sock.is_closed:
            trio.lowlevel.notify_closing(self._sock.fileno())  # for `wait_send_all_might_not_block`
        self._sock.close()
        await checkpoint()

    async def do_handshake(self) -> None:
        """Do the TLS handshake with a client of a ``Listener`` now; otherwise the first read or send does it."""
        with _raising("this stream"):
            await self._begin()
        await cancel_shielded_checkpoint()

    async def _begin(self) -> None:
        """Be cancelled before anything is done; do a handshake that is due."""
        await checkpoint_if_cancelled()
        if self._handshake is not None:
            await self._handshake.finish(self._sock)
            self._handshake = None

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        if self._sends:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sends = True
        try:
            yield
        finally:
            self._sends = False


class _LateHandshake:
    """The handshake with a client of a ``Listener``, which is done in the task of its handler."""

    def __init__(self, tls: SslContext, timeout: float | None) -> None:
        self._tls = tls
        self._timeout = timeout
        self._lock = trio.Lock()
        self._is_done = False

    async def finish(self, sock: AsyncSocket) -> None:
        """Do it, or wait until another task has; the socket is closed if it fails."""
        async with self._lock:
            if self._is_done:
                return
            try:
                await self._tls.wrap_connected_async(sock, Handshake.AS_SERVER, timeout=self._timeout)
            except BaseException:
                sock.close()
                raise
            self._is_done = True


class Listener(trio.abc.Listener[Stream]):
    """A listening socket as a ``trio.abc.Listener`` of ``Stream``, for ``trio.serve_listeners``."""

    def __init__(
        self, sock: AsyncSocket, *, tls: SslContext | None = None, handshake_timeout: float | None = 10.0
    ) -> None:
        """Take over the socket: ``aclose`` closes it.

        Args:
            sock: a listening socket, without TLS of its own.
            tls: do a handshake with each client, in the first call of its stream: a silent client delays no other. A
                handshake that fails closes the stream, and raises a ``BrokenResourceError`` there.
            handshake_timeout: seconds for each handshake; None means no limit.

        Raises:
            TypeError: ``sock`` is not an ``AsyncSocket``, or a datagram socket, or has TLS of its own.
            ClosedError: the socket is closed.
            ValueError: the socket does not listen, or ``handshake_timeout`` is negative.
        """
        require_listening(sock)
        self._sock = sock
        self._tls = tls
        self._handshake_timeout = check_timeout(handshake_timeout)

    async def accept(self) -> Stream:
        """Accept a client.

        Raises:
            ClosedResourceError: the listener is closed.
            BusyResourceError: another task is accepting.
            OSError: no descriptor is left, which ``trio.serve_listeners`` waits for.
        """
        await checkpoint()
        try:
            client = await self._sock.accept()
        except ClosedError as error:
            raise trio.ClosedResourceError("this listener is closed") from error
        stream = Stream(client)
        if self._tls is not None:
            stream._handshake = _LateHandshake(self._tls, self._handshake_timeout)
        return stream

    async def aclose(self) -> None:
        """Close the socket; a task that accepts gets a ``ClosedResourceError``."""
        self._sock.close()
        await checkpoint()


@contextlib.contextmanager
def _raising(subject: str) -> Iterator[None]:
    """Raise trio's errors in place of ours."""
    try:
        yield
    except ClosedError as error:
        raise trio.ClosedResourceError(f"{subject} is closed") from error
    except BusyError as error:
        raise trio.BusyResourceError(f"another task is using {subject}") from error
    except OSError as error:
        raise trio.BrokenResourceError(f"{subject} is broken: {error}") from error


def from_stream(stream: trio.abc.Stream) -> BufferedStream:
    """Return an object with the reading and sending methods of an ``AsyncSocket`` over any stream of trio's.

    So lines, frames and exact reads work over SSH, a WebSocket or a pair in memory. The object takes over the stream:
    ``aclose``, or the end of an ``async with`` block, closes it. The errors are those of an ``AsyncSocket``. A timeout
    of 0 returns bytes that were received already, and does not read from the stream. After a ``send`` that timed out or
    was cancelled it is not known how many bytes were sent, so every later ``send`` raises ``BrokenPipeError``.

    Args:
        stream: an object with the methods of ``trio.abc.Stream``; ``shutdown_write`` needs a ``send_eof``.

    Raises:
        TypeError: ``stream`` has no ``receive_some`` or no ``send_all``.
    """
    if not (hasattr(stream, "receive_some") and hasattr(stream, "send_all")):
        raise TypeError(f"a trio.abc.Stream is needed, not {type(stream).__name__}")
    return BufferedStream(_TrioStream(stream))


class _TrioStream:
    """trio's side of a ``BufferedStream``."""

    broken = trio.BrokenResourceError
    busy = trio.BusyResourceError
    closed = trio.ClosedResourceError

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.send = stream.send_all
        self.aclose = stream.aclose

    async def receive(self, size: int) -> bytes:
        return bytes(await self._stream.receive_some(size))

    async def send_eof(self) -> None:
        send_eof: Callable[[], Awaitable[None]] | None = getattr(self._stream, "send_eof", None)
        if send_eof is None:
            raise NotImplementedError("this stream has no half-close")
        await send_eof()

    @staticmethod
    def move_on_after(seconds: float | None) -> trio.CancelScope:
        return trio.CancelScope() if seconds is None else trio.move_on_after(seconds)

    @staticmethod
    def lock() -> trio.Lock:
        return trio.Lock()


publish(__name__, globals(), __all__)
