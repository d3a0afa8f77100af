"""The reading and sending methods of an ``AsyncSocket`` over the stream of another library, for ``from_stream``.

The core makes all decisions, as in a socket; this only waits. A library promises that a cancelled ``receive`` has
consumed nothing, and what it returns goes into the core before the next await: so a cancelled call loses nothing.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, TypeVarTuple, cast

from wireline._core.deadline import check_timeout
from wireline._core.frames import Frame, Header, frame_format, struct_of
from wireline._core.lines import EMPTY_LINE
from wireline._core.named import LINES, RECV_INTO, RECV_LINE_INTO, RECV_SOME_INTO
from wireline._core.sizes import check_max_length
from wireline._core.stream import Delimiter, StreamCore
from wireline._validation import Buffer, as_bytes_like, as_writable_view, join_buffers, require_resizable
from wireline.errors import BusyError, ClosedError, SocketTimeout
from wireline.options import (
    BUFFER_SIZE,
    MAX_FRAME_SIZE,
    MAX_LINE_LENGTH,
    SAFE_DISCONN,
    SocketFlag,
    check_flags,
    check_iterator_flags,
    is_disconnection_error,
)
from wireline.timing import Timeout

__all__ = ["BufferedStream", "ForeignStream"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ForeignStream(Protocol):
    """A stream of another library, and what this needs of the library.

    Attributes:
        broken, busy, closed: the library's errors.
    """

    @property
    def broken(self) -> type[Exception]: ...

    @property
    def busy(self) -> type[Exception]: ...

    @property
    def closed(self) -> type[Exception]: ...

    async def receive(self, size: int) -> bytes:
        """Receive up to ``size`` bytes, more if the library has no limit; ``b""`` is the end of the stream."""
        ...

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of ``data``."""

    async def send_eof(self) -> None:
        """Send the end of the stream. NotImplementedError if the stream has no half-close."""

    async def aclose(self) -> None:
        """Close the stream."""

    def move_on_after(self, seconds: float | None) -> AbstractContextManager[object]:
        """Cancel the block when the time is up, and go on behind it."""
        ...

    def lock(self) -> AbstractAsyncContextManager[object]:
        """Return a fair lock."""
        ...


class BufferedStream:
    """The reading and sending methods of an ``AsyncSocket``, with the same arguments, results and errors.

    A stream is not a socket, hence three differences: ``timeout=0`` returns bytes that were received already, and does
    not read from the stream; ``aclose`` is awaited; and after a ``send`` that timed out or was cancelled it is not
    known how many bytes were sent, so every later one raises a ``BrokenPipeError``.
    """

    def __init__(self, stream: ForeignStream) -> None:
        self._stream = stream
        self._core = StreamCore()
        self._reads = False
        self._closed = False
        self._write_shut = False
        self._send_cut = False
        self._write_lock = stream.lock()

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed the stream."""
        return self._closed

    @property
    def has_data_buffered(self) -> bool:
        """Whether a byte can be read without the stream."""
        return bool(self._core)

    # Reading.

    async def recv(self, size: int, timeout: Timeout = None, flags: SocketFlag = SAFE_DISCONN) -> bytes:
        """Receive ``size`` bytes; fewer only at the end of the stream."""
        return await self._ask(StreamCore.recv, timeout, size, flags)

    async def recv_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        timeout: Timeout = None,
        flags: SocketFlag = SAFE_DISCONN,
    ) -> int:
        """Receive into the caller's buffer, like ``recv``; 0 means the end of the stream."""
        with as_writable_view(buffer, size) as target:
            data = await self._ask(RECV_INTO, timeout, len(target), flags)
            target[: len(data)] = data
        return len(data)

    async def recv_some(
        self, max_size: int = BUFFER_SIZE, timeout: Timeout = None, flags: SocketFlag = SAFE_DISCONN
    ) -> bytes:
        """Receive the available bytes, as soon as there is at least one; ``b""`` means the end of the stream."""
        return await self._ask(StreamCore.recv_some, timeout, max_size, flags)

    async def recv_some_into(
        self, buffer: bytearray | memoryview, timeout: Timeout = None, flags: SocketFlag = SAFE_DISCONN
    ) -> int:
        """Receive the available bytes into the caller's buffer; 0 means the end of the stream."""
        with as_writable_view(buffer, None) as target:
            data = await self._ask(RECV_SOME_INTO, timeout, len(target), flags)
            target[: len(data)] = data
        return len(data)

    async def recv_exactly(self, size: int, timeout: Timeout = None) -> bytes:
        """Receive exactly ``size`` bytes."""
        return await self._ask(StreamCore.recv_exactly, timeout, size)

    async def recv_until(
        self, delimiter: Delimiter, max_length: int = MAX_LINE_LENGTH, timeout: Timeout = None
    ) -> bytes:
        """Receive all bytes up to a delimiter, the delimiter included."""
        return await self._ask(StreamCore.recv_until, timeout, delimiter, max_length)

    async def recv_line(
        self,
        timeout: Timeout = None,
        flags: SocketFlag = SAFE_DISCONN,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> bytes:
        r"""Receive a line without its line ending; an empty one is ``b"\r\n"``, and ``b""`` the end of the stream."""
        return await self._ask(StreamCore.recv_line, timeout, max_length, on_long, flags)

    async def recv_line_into(
        self,
        buffer: bytearray,
        timeout: Timeout = None,
        flags: SocketFlag = SAFE_DISCONN,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> int:
        """Receive a line like ``recv_line``, and replace the content of ``buffer`` with it."""
        require_resizable(buffer)
        buffer[:] = await self._ask(RECV_LINE_INTO, timeout, max_length, on_long, flags)
        return len(buffer)

    def lines(
        self,
        max_length: int = MAX_LINE_LENGTH,
        timeout: Timeout = None,
        *,
        flags: SocketFlag = SAFE_DISCONN,
    ) -> _Iterator[bytes]:
        """Iterate over the received lines, without their line endings; an empty one is ``b""``."""
        check_timeout(timeout)
        check_iterator_flags(flags)
        max_length = check_max_length(max_length)
        self._require_open("lines")

        async def next_line() -> bytes | None:
            line = await self._ask(LINES, timeout, max_length, "raise", flags)
            return b"" if line is EMPTY_LINE else line or None

        return _Iterator(next_line)

    async def skip(self, size: int, timeout: Timeout = None) -> None:
        """Receive ``size`` bytes and discard them."""
        await self._ask(StreamCore.skip, timeout, size)

    async def recv_struct(self, fmt: str | bytes | struct.Struct, timeout: Timeout = None) -> tuple[Any, ...]:
        """Receive the bytes of a ``struct`` format, and unpack them."""
        return await self._ask(StreamCore.recv_struct, timeout, struct_of(fmt))

    async def recv_frame(
        self,
        header: Header,
        *,
        length_field: int = -1,
        length_adjust: int = 0,
        max_size: int = MAX_FRAME_SIZE,
        timeout: Timeout = None,
    ) -> Frame:
        """Receive one length-prefixed message."""
        form = frame_format(header, length_field, length_adjust, max_size)
        return await self._ask(StreamCore.recv_frame, timeout, form)

    def frames(
        self,
        header: Header,
        *,
        length_field: int = -1,
        length_adjust: int = 0,
        max_size: int = MAX_FRAME_SIZE,
        timeout: Timeout = None,
        flags: SocketFlag = SAFE_DISCONN,
    ) -> _Iterator[Frame]:
        """Iterate over length-prefixed messages."""
        form = frame_format(header, length_field, length_adjust, max_size)
        check_timeout(timeout)
        check_iterator_flags(flags)
        self._require_open("frames")

        async def next_frame() -> Frame | None:
            frame = await self._ask(StreamCore.frames, timeout, form, flags)
            return frame if isinstance(frame, Frame) else None

        return _Iterator(next_frame)

    async def fill(self, size: int = 1, timeout: Timeout = None) -> memoryview:
        """Receive until at least ``size`` bytes are buffered, and return all of them without consuming them."""
        return await self._ask(StreamCore.fill, timeout, size)

    def consume(self, size: int) -> None:
        """Remove bytes that the last ``fill`` has returned."""
        self._require_readable("consume")
        self._core.consume(size)

    def unread(self, data: Buffer) -> None:
        """Put bytes back in front of everything that is still to be read."""
        self._require_readable("unread")
        self._core.unread(bytes(as_bytes_like(data)))

    async def _ask(self, request: Callable[[StreamCore, *Ts], T | None], timeout: Timeout, *args: *Ts) -> T:
        """Make a request of the core, and receive until it has a result."""
        operation = request.__name__
        seconds = check_timeout(timeout)
        self._require_readable(operation)
        result = request(self._core, *args)
        if result is not None:
            return result
        if seconds == 0:
            raise SocketTimeout(operation, 0)
        self._reads = True
        try:
            with self._stream.move_on_after(seconds):
                while result is None:
                    await self._receive(operation)
                    result = request(self._core, *args)
        finally:
            self._reads = False
        if result is None:
            raise SocketTimeout(operation, cast(float, seconds))
        return result

    async def _receive(self, operation: str) -> None:
        try:
            self._core.feed(await self._stream.receive(self._core.recv_size))
        except self._stream.broken as error:
            self._core.fail(_reset(operation, error))
        except self._stream.busy as error:
            raise BusyError(f"{operation}: another task is reading this stream") from error
        except self._stream.closed as error:
            raise ClosedError(f"{operation}: the stream is closed") from error

    def _require_readable(self, operation: str) -> None:
        self._require_open(operation)
        if self._reads:
            raise BusyError(f"{operation}: another task is reading this stream")

    def _require_open(self, operation: str) -> None:
        if self._closed:
            raise ClosedError(f"{operation}: the stream is closed")

    # Sending.

    async def send(self, data: Buffer, flags: SocketFlag = SAFE_DISCONN, timeout: Timeout = None) -> None:
        """Send all of ``data``. Concurrent calls take turns."""
        await self._send("send", as_bytes_like(data), flags, timeout)

    async def send_many(
        self, parts: Iterable[Buffer], flags: SocketFlag = SAFE_DISCONN, timeout: Timeout = None
    ) -> None:
        """Send several buffers, in order, like one."""
        await self._send("send_many", join_buffers(parts), flags, timeout)

    async def _send(
        self, operation: str, payload: bytes | memoryview, flags: SocketFlag, timeout: Timeout
    ) -> None:
        check_flags(flags)
        failure = await self._write(operation, timeout, lambda: self._send_whole(operation, payload))
        if failure is not None and not is_disconnection_error(flags, failure):
            raise failure

    async def _send_whole(self, operation: str, payload: bytes | memoryview) -> None:
        if self._write_shut:
            raise BrokenPipeError(errno.EPIPE, f"{operation}: shutdown_write was called")
        if self._send_cut:
            raise BrokenPipeError(
                errno.EPIPE, f"{operation}: it is not known how much of an earlier send was sent"
            )
        if payload:
            self._send_cut = True
            try:
                await self._stream.send(payload)
            except self._stream.broken:
                self._send_cut = False  # every later send says the same
                raise
            self._send_cut = False

    async def shutdown_write(self, timeout: Timeout = None) -> None:
        """Send the end of the stream; reading stays possible.

        Raises:
            NotImplementedError: the stream has no half-close.
        """
        await self._write("shutdown_write", timeout, self._shut_down)

    async def _shut_down(self) -> None:
        if not self._write_shut:
            await self._stream.send_eof()
            self._write_shut = True

    async def _write(
        self, operation: str, timeout: Timeout, write: Callable[[], Awaitable[None]]
    ) -> OSError | None:
        """Write with the lock held; return the error of a connection that is gone."""
        seconds = check_timeout(timeout)
        self._require_open(operation)
        done = False
        try:
            with self._stream.move_on_after(seconds):
                async with self._write_lock:
                    self._require_open(operation)
                    await write()
                    done = True
        except self._stream.broken as error:
            return _reset(operation, error)
        except self._stream.busy as error:
            raise BusyError(f"{operation}: another task is sending on this stream") from error
        except self._stream.closed as error:
            raise ClosedError(f"{operation}: the stream is closed") from error
        if not done:
            raise SocketTimeout(operation, cast(float, seconds))
        return None

    # The end.

    async def aclose(self) -> None:
        """Close the stream; a task that reads or sends gets a ``ClosedError``."""
        self._closed = True
        with contextlib.suppress(self._stream.broken):
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class _Iterator(Generic[T]):
    """The iterator of ``lines`` and ``frames``. Like a generator, it does not outlive an exception."""

    def __init__(self, find_next: Callable[[], Awaitable[T | None]]) -> None:
        self._find_next: Callable[[], Awaitable[T | None]] | None = find_next

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._find_next is None:
            raise StopAsyncIteration
        try:
            item = await self._find_next()
        except BusyError:
            raise  # to the second task that iterates; the first is unharmed
        except BaseException:
            self._find_next = None
            raise
        if item is None:
            self._find_next = None
            raise StopAsyncIteration
        return item


def _reset(operation: str, cause: Exception) -> OSError:
    error = ConnectionResetError(errno.ECONNRESET, f"{operation}: the stream is broken: {cause}")
    error.__cause__ = cause
    return error
