"""The async flavour's socket: arguments, states, connecting and accepting.

A ``FdOnLoop`` knows which loop and which tasks use the descriptor, ``StreamIO`` reads and sends a connected stream,
``DatagramIO`` datagrams. The lines of ``recv_some``, ``recv_line`` and ``send`` that every message passes are here,
without the call.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._core.frames import Frame, Header, frame_format, struct_of
from wireline._core.named import RECV_INTO, RECV_LINE_INTO, RECV_SOME_INTO, TRY_RECV, TRY_RECV_LINE
from wireline._core.sizes import check_count, check_max_length, check_size
from wireline._core.stream import LINE, SOME, Delimiter, StreamCore
from wireline._os.datagram import Datagram, ReceivedInto
from wireline._os.descriptor import State, is_failed_before_accept, shut_down_writing
from wireline._os.outbox import Outgoing
from wireline._os.passed_fds import Delivery, ReceivedFds, as_ancillary, recv_fds
from wireline._socket_base import (
    BaseSocket,
    annotated,
    check_kind,
    closed_meanwhile,
    refuse,
    require_fd_passing,
    require_open,
)
from wireline._stream_common import NOW, send_available, send_some_now, should_raise
from wireline._tls_facts import begin_upgrade
from wireline._tls_role import core_to_start_tls
from wireline._validation import (
    Buffer,
    Leftover,
    UnixPath,
    as_bytes_like,
    as_message,
    as_writable_view,
    check_peer_arguments,
    join_buffers,
    require_resizable,
)
from wireline.address import Address, IpAddress, to_display_address, unix_path
from wireline.asyncnet._connect import connect_to, resolve
from wireline.asyncnet._datagram_io import DatagramIO
from wireline.asyncnet._fd_on_loop import FdOnLoop, is_blocking
from wireline.asyncnet._frames import FrameIterator
from wireline.asyncnet._lines import LineIterator
from wireline.asyncnet._operations import Accept, accept_now
from wireline.asyncnet._stream_io import StreamIO
from wireline.errors import BusyError, SockAddr, SocketTimeout, WirelineError, rename_operation
from wireline.options import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    BUFFER_SIZE,
    DEFAULT_FLAGS,
    MAX_FRAME_SIZE,
    MAX_LINE_LENGTH,
    SOCK_DGRAM,
    AcceptResult,
    Handshake,
    ReadLineResult,
    SocketFlag,
    check_flags,
    check_iterator_flags,
    effective_flags,
)
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore
    from wireline._os.file_part import BinaryFile
    from wireline.tls import SslContext

__all__ = ["Accepted", "AsyncSocket"]

# The arguments of requests that are mostly made. A tuple of its own for each that waits would be 60 bytes a connection.
_SOME = (BUFFER_SIZE, DEFAULT_FLAGS)
_LINE = (MAX_LINE_LENGTH, "truncate", DEFAULT_FLAGS)


class AsyncSocket(BaseSocket):
    """An asynchronous socket: TCP, UDP or Unix."""

    _module = "wireline.asyncnet"
    last_bytes_sent: int

    _fd: FdOnLoop
    _io: StreamIO

    # Attributes of the class until they are needed: a connection has 16 bytes less.
    _datagrams: DatagramIO | None = None
    _is_connecting = False

    def _setup(
        self,
        sock: socket.socket,
        buffered: bool,
        state: State,
        peer: SockAddr | None = None,
        *,
        default_flags: SocketFlag,
    ) -> None:
        # No other code sets these: a subtype is safe.
        self._fd = FdOnLoop(sock)  # pyright: ignore[reportIncompatibleVariableOverride]
        self._io = StreamIO(self._fd)  # pyright: ignore[reportIncompatibleVariableOverride]
        if sock.type == SOCK_DGRAM:
            self._datagrams = DatagramIO(self._fd)  # pyright: ignore[reportIncompatibleVariableOverride]
        super()._setup(sock, buffered, state, peer, default_flags=default_flags)

    @classmethod
    def _adopt(
        cls,
        sock: socket.socket,
        *,
        buffered: bool,
        default_flags: SocketFlag,
        state: State | None = None,
        peer: SockAddr | None = None,
    ) -> Self:
        # What the library made itself blocks, as a new descriptor does.
        was_blocking = state is not None or is_blocking(sock)
        self = super()._adopt(sock, buffered=buffered, default_flags=default_flags, state=state, peer=peer)
        self._fd.was_blocking = was_blocking
        return self

    # Reading.

    async def recv(self, size: int, timeout: Timeout = None, flags: SocketFlag = DEFAULT_FLAGS) -> bytes:
        """Receive ``size`` bytes; ``b""`` means the end of the stream.

        A buffered stream returns all ``size`` bytes, and fewer only at its end. An unbuffered stream returns the
        result of one system call. A datagram socket returns the next datagram, cut to ``size``. A timeout or a
        cancellation loses nothing: the bytes that have arrived stay for the next read, of any kind.

        Args:
            size: number of bytes; on a stream 0 returns ``b""`` at once.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` treats a reset as the end.

        Returns:
            The bytes.

        Raises:
            SocketTimeout: the timeout expired.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``. Like any
                failure of the connection, it is raised after all bytes that arrived before it were read.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument has the wrong type, or is negative.
        """
        if self._datagrams is not None:
            return await self._datagrams.receive_data(self, "recv", size, flags, timeout)
        answer = self._io.ask(self, StreamCore.recv, timeout, size, flags)
        return (
            await self._io.wait_for(self, StreamCore.recv, timeout, size, flags) if answer is None else answer
        )

    async def recv_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        timeout: Timeout = None,
        flags: SocketFlag = DEFAULT_FLAGS,
    ) -> int:
        """Receive into the caller's buffer, like ``recv``; 0 means the end of the stream.

        A timeout or a cancellation loses nothing and leaves the buffer as it was.

        Args:
            buffer: a writable, contiguous buffer.
            size: number of bytes; None means the length of the buffer.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` treats a reset as the end.

        Returns:
            The number of bytes written to the buffer.

        Raises:
            SocketTimeout: the timeout expired.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError: the buffer is not writable.
            ValueError: ``size`` is negative or larger than the buffer, or ``timeout`` is negative.
        """
        with as_writable_view(buffer, size) as target:
            if self._datagrams is not None:
                data = await self._datagrams.receive_data(self, "recv_into", len(target), flags, timeout)
            else:
                answer = self._io.ask(self, RECV_INTO, timeout, len(target), flags)
                if answer is None:
                    answer = await self._io.wait_for(self, RECV_INTO, timeout, len(target), flags)
                data = answer
            target[: len(data)] = data
        return len(data)

    async def recv_some(
        self, max_size: int = BUFFER_SIZE, timeout: Timeout = None, flags: SocketFlag = DEFAULT_FLAGS
    ) -> bytes:
        """Receive the available bytes, as soon as there is at least one; ``b""`` means the end of the stream.

        A datagram socket returns the next datagram, cut to ``max_size``. A timeout or a cancellation loses nothing:
        the bytes that have arrived stay for the next read.

        Args:
            max_size: the most bytes to return. A value above ``BUFFER_SIZE``, up to 1 MiB, is also the size of the
                read from the kernel, which makes bulk transfers faster.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` treats a reset as the end.

        Returns:
            At least one byte, from the buffer first; ``b""`` at the end of the stream.

        Raises:
            SocketTimeout: the timeout expired before a byte arrived.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument has the wrong type, or is negative.
        """
        waiter = self._fd.read_waiter
        seconds = None
        if (
            # One message after the other: the core would answer "not yet", so no request is made (a sixth of our time).
            waiter is not None
            and (core := waiter.core).fast_recv_ok
            and flags is DEFAULT_FLAGS
            and (max_size is BUFFER_SIZE or (type(max_size) is int and 0 < max_size <= BUFFER_SIZE))
            and (timeout is None or (seconds := check_timeout(timeout)) != 0)
            and waiter.port.loop is waiter.get_loop()
        ):
            core.direct = SOME
            core.direct_limit = max_size
            args = _SOME if max_size is BUFFER_SIZE else (max_size, flags)
            return await waiter.wait(StreamCore.recv_some, args, seconds)
        if self._datagrams is not None:
            return await self._datagrams.receive_data(self, "recv_some", max_size, flags, timeout)
        answer = self._io.ask(self, StreamCore.recv_some, timeout, max_size, flags)
        if answer is None:
            answer = await self._io.wait_for(self, StreamCore.recv_some, timeout, max_size, flags)
        return answer

    async def recv_exactly(self, size: int, timeout: Timeout = None) -> bytes:
        """Receive exactly ``size`` bytes.

        A timeout or a cancellation loses nothing: the bytes that have arrived stay for the next read.

        Args:
            size: number of bytes.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            The bytes.

        Raises:
            EndOfStreamError: the stream ended, or was reset, before ``size`` bytes. Its ``partial`` has the bytes
                that arrived; they stay readable with ``recv`` or ``recv_some``.
            SocketTimeout: the timeout expired.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument has the wrong type, or is negative.
        """
        if timeout is not None:
            check_timeout(timeout)
        port = self._fd.port
        if port.budget > 0 and port.loop is port.running_loop():
            data = self._io.buffer.ready_bytes(size, self._io.core_slot)
            if data is not None:
                port.budget -= 1
                return data
        data = self._io.ask(self, StreamCore.recv_exactly, timeout, size)
        if data is None:
            data = await self._io.wait_for(self, StreamCore.recv_exactly, timeout, size)
        return data

    async def recv_until(
        self, delimiter: Delimiter, max_length: int = MAX_LINE_LENGTH, timeout: Timeout = None
    ) -> bytes:
        """Receive all bytes up to a delimiter, the delimiter included.

        Of several delimiters the one that ends first counts.

        A timeout or a cancellation loses nothing: the bytes that have arrived stay for the next read.

        Args:
            delimiter: ``bytes`` or a ``bytearray`` of at least one byte, or a tuple of them.
            max_length: the most bytes to return, the delimiter included.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            The bytes; they end with ``delimiter``.

        Raises:
            LineTooLongError: the first ``max_length`` bytes do not contain the delimiter. They stay readable.
            EndOfStreamError: the stream ended, or was reset, before the delimiter. Its ``partial`` has the bytes
                that arrived; they stay readable with ``recv`` or ``recv_some``.
            SocketTimeout: the timeout expired.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an empty delimiter; an argument has the wrong type, or
                is negative.
        """
        answer = self._io.ask(self, StreamCore.recv_until, timeout, delimiter, max_length)
        if answer is None:
            answer = await self._io.wait_for(self, StreamCore.recv_until, timeout, delimiter, max_length)
        return answer

    async def recv_line(
        self,
        timeout: Timeout = None,
        flags: SocketFlag = DEFAULT_FLAGS,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> bytes:
        r"""Receive a line without its line ending; ``b""`` means the end of the stream.

        A line ends at ``\r\n`` or ``\n``; a lone ``\r`` is data. An empty line is returned as ``b"\r\n"``, with
        either line ending. An unfinished line at the end of the stream is not returned; its bytes stay readable with
        ``recv`` or ``recv_some``. A timeout or a cancellation loses nothing: the part of a line that has arrived stays
        for the next read.

        Args:
            timeout: seconds for the whole call; None means no limit, 0 does not wait.
            flags: ``PEEK`` leaves the line for the next read. ``SAFE_DISCONN`` treats a reset as the end.
            max_length: the most bytes of a line, without its line ending; at least 1.
            on_long: how a longer line is treated. ``"truncate"`` returns its first ``max_length`` bytes, and the
                next read continues with the rest; ``"raise"`` raises ``LineTooLongError`` and consumes nothing.

        Returns:
            The line.

        Raises:
            LineTooLongError: the line is longer, and ``on_long`` is ``"raise"``.
            SocketTimeout: the timeout expired before the line was complete.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument has the wrong type, or is out of range.
        """
        if flags is DEFAULT_FLAGS and max_length is MAX_LINE_LENGTH and on_long == "truncate":
            if timeout is not None:
                timeout = check_timeout(timeout)
            fd = self._fd
            port = fd.port
            buffer = self._io.buffer
            lines = buffer.lines
            if lines and port.budget > 0:
                # A line that was split ahead, at the cost of `list.pop`. None of them is longer than the default.
                port.budget -= 1
                try:
                    return lines.pop()
                except IndexError:
                    raise closed_meanwhile("recv_line") from None  # `close` has cleared them in this moment
            if buffer.size and (line := self._io.ready_line(buffer, max_length)) is not None:
                return line
            waiter = fd.read_waiter
            if (
                # One message after the other: the core would answer "not yet", so no request is made.
                waiter is not None
                and (core := waiter.core).fast_recv_ok
                and timeout != 0
                and port.loop is port.running_loop()
            ):
                core.direct = LINE
                core.direct_limit = max_length
                return await waiter.wait(StreamCore.recv_line, _LINE, timeout)
        answer = self._io.ask(self, StreamCore.recv_line, timeout, max_length, on_long, flags)
        if answer is None:
            answer = await self._io.wait_for(self, StreamCore.recv_line, timeout, max_length, on_long, flags)
        return answer

    async def recv_line_into(
        self,
        buffer: bytearray,
        timeout: Timeout = None,
        flags: SocketFlag = DEFAULT_FLAGS,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> int:
        r"""Receive a line like ``recv_line``, and replace the content of ``buffer`` with it.

        A timeout or a cancellation loses nothing and leaves the buffer as it was.

        Args:
            buffer: its content is replaced; it becomes as long as the line.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.
            flags: ``PEEK`` leaves the line for the next read. ``SAFE_DISCONN`` treats a reset as the end.
            max_length: the most bytes of a line, without its line ending; at least 1.
            on_long: ``"truncate"`` or ``"raise"``, see ``recv_line``.

        Returns:
            The length of the line in bytes: 2 for an empty one (``b"\r\n"``), 0 at the end of the stream.

        Raises:
            LineTooLongError: the line is longer, and ``on_long`` is ``"raise"``.
            SocketTimeout: the timeout expired before the line was complete.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: ``buffer`` is not a bytearray; a datagram socket; another argument has the wrong
                type, or is out of range.
        """
        require_resizable(buffer)
        answer = self._io.ask(self, RECV_LINE_INTO, timeout, max_length, on_long, flags)
        if answer is None:
            answer = await self._io.wait_for(self, RECV_LINE_INTO, timeout, max_length, on_long, flags)
        buffer[:] = answer
        return len(buffer)

    def try_recv_line(self, max_length: int = MAX_LINE_LENGTH) -> tuple[ReadLineResult, bytes]:
        r"""Return a whole line, or a copy of the part that has arrived. It never waits.

        Args:
            max_length: the most bytes of a line, without its line ending; at least 1. A longer one is truncated.

        Returns:
            ``FULL_LINE`` and the line, an empty one as ``b"\r\n"``; ``PARTIAL_LINE`` and a copy of the part that
            has arrived; ``DISCONNECTED`` at the end of the stream, with a copy of an unfinished line; or ``NONE``
            and ``b""``.

        Raises:
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; ``max_length`` is not an int, or is less than 1.
        """
        if not self._io.core_slot:
            self._io.raise_not_readable(self, "try_recv_line")
        lines = self._io.buffer.lines
        # No line ahead is longer than the default: that is not asked in each call.
        if lines and (
            max_length is MAX_LINE_LENGTH or len(lines[-1]) <= check_size(max_length, "max_length")
        ):
            return ReadLineResult.FULL_LINE, lines.pop()
        line = self._io.feed_available(self, TRY_RECV_LINE, max_length, "truncate", DEFAULT_FLAGS)
        if line:
            return ReadLineResult.FULL_LINE, line
        assert self._io.core is not None
        partial = self._io.core.pending_line()
        if line is not None:
            return ReadLineResult.DISCONNECTED, partial
        return (ReadLineResult.PARTIAL_LINE if partial else ReadLineResult.NONE), partial

    def lines(
        self,
        max_length: int = MAX_LINE_LENGTH,
        timeout: Timeout = None,
        *,
        flags: SocketFlag = DEFAULT_FLAGS,
    ) -> AsyncIterator[bytes]:
        """Iterate over the received lines, without their line endings; an empty one is ``b""``.

        The iterator ends at the end of the stream; the bytes of an unfinished line stay readable with ``recv``. A
        timeout or a cancellation ends this iterator and loses nothing: the bytes that have arrived stay for the next
        read, for example another ``lines()``.

        Args:
            max_length: the most bytes of a line, without its line ending; at least 1.
            timeout: seconds for each line; None means no limit, 0 does not wait.
            flags: without ``SAFE_DISCONN`` a reset is a ``ConnectionResetError`` and not the end.

        Returns:
            The iterator.

        Raises:
            LineTooLongError: a line is longer. Its bytes stay readable.
            SocketTimeout: the timeout expired before a line was complete.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument has the wrong type, or is out of range; ``flags`` has
                ``PEEK``.
        """
        check_timeout(timeout)
        max_length = check_max_length(max_length)
        check_iterator_flags(flags)
        require_open(self, "lines")
        if self._io.core is None:
            refuse(self, "lines")
        return LineIterator(self, self._io, self._io.buffer.lines, max_length, timeout, flags)

    async def skip(self, size: int, timeout: Timeout = None) -> None:
        """Receive ``size`` bytes and discard them.

        A timeout or a cancellation loses nothing: all ``size`` bytes are kept in memory until the last of them has
        arrived, and only then discarded.

        Args:
            size: number of bytes.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Raises:
            EndOfStreamError: the stream ended, or was reset, before ``size`` bytes. Its ``partial`` has the bytes
                that arrived; they stay readable with ``recv`` or ``recv_some``.
            SocketTimeout: the timeout expired.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument has the wrong type, or is negative.
        """
        if self._io.ask(self, StreamCore.skip, timeout, size) is None:
            await self._io.wait_for(self, StreamCore.skip, timeout, size)

    # Frames.

    async def recv_struct(self, fmt: str | bytes | struct.Struct, timeout: Timeout = None) -> tuple[Any, ...]:
        """Receive the bytes of a ``struct`` format, and unpack them.

        A timeout or a cancellation loses nothing: the bytes that have arrived stay for the next read.

        Args:
            fmt: a format of the ``struct`` module, for example ``"!IH"``, or a ``struct.Struct``.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            The fields.

        Raises:
            EndOfStreamError: the stream ended, or was reset, before all bytes. Its ``partial`` has the bytes that
                arrived; they stay readable with ``recv`` or ``recv_some``.
            SocketTimeout: the timeout expired.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; ``fmt`` is no format; ``timeout`` is not a number, or is negative.
        """
        form = fmt if type(fmt) is struct.Struct else struct_of(fmt)
        if timeout is not None:
            check_timeout(timeout)
        port = self._fd.port
        if port.budget > 0 and port.loop is port.running_loop():
            fields = self._io.buffer.ready_fields(form, self._io.core_slot)
            if fields is not None:
                port.budget -= 1
                return fields
        fields = self._io.ask(self, StreamCore.recv_struct, timeout, form)
        if fields is None:
            fields = await self._io.wait_for(self, StreamCore.recv_struct, timeout, form)
        return fields

    async def recv_frame(
        self,
        header: Header,
        *,
        length_field: int = -1,
        length_adjust: int = 0,
        max_size: int = MAX_FRAME_SIZE,
        timeout: Timeout = None,
    ) -> Frame:
        """Receive one length-prefixed message.

        A timeout or a cancellation loses nothing: the bytes that have arrived stay for the next read.

        Args:
            header: a ``struct`` format or a ``struct.Struct``: the payload has ``fields[length_field] + length_adjust``
                bytes. Or a function for headers of other kinds: it gets the bytes that have arrived, at most 64 KiB of
                them, as a read-only ``memoryview``, and returns ``(header_size, payload_size)``, or None if it needs
                more bytes.
            length_field: index of the field that has the length; the default is the last one.
            length_adjust: is added to the length. For example -4 if the length counts its own four bytes.
            max_size: the most bytes of a payload. A longer one is refused before it is read.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            A ``Frame``: ``fields``, a tuple, or the bytes of a header that a function measured; and ``payload``.

        Raises:
            FrameTooLongError: the payload is longer than ``max_size``. Nothing was consumed.
            FrameError: the length is negative. Nothing was consumed.
            EndOfStreamError: the stream ended, or was reset, before the whole frame. Its ``partial`` has the bytes
                that arrived, ``b""`` if the end is between two frames; they stay readable with ``recv``.
            SocketTimeout: the timeout expired.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; the header has no such field, or that is no integer; the function
                returned something else; an argument has the wrong type, or is negative.
        """
        if timeout is not None:
            check_timeout(timeout)
        port = self._fd.port
        if port.budget > 0 and port.loop is port.running_loop():
            frame = self._io.buffer.ready_frame_of(
                header, length_field, length_adjust, max_size, self._io.core_slot
            )
            if frame is not None:
                port.budget -= 1
                return frame
        form = frame_format(header, length_field, length_adjust, max_size)
        frame = self._io.ask(self, StreamCore.recv_frame, timeout, form)
        if frame is None:
            frame = await self._io.wait_for(self, StreamCore.recv_frame, timeout, form)
        return frame

    def frames(
        self,
        header: Header,
        *,
        length_field: int = -1,
        length_adjust: int = 0,
        max_size: int = MAX_FRAME_SIZE,
        timeout: Timeout = None,
        flags: SocketFlag = DEFAULT_FLAGS,
    ) -> AsyncIterator[Frame]:
        """Iterate over length-prefixed messages.

        The iterator ends at the end of the stream, if that is between two frames. A timeout or a cancellation ends this
        iterator and loses nothing: the bytes that have arrived stay for the next read, for example another
        ``frames()``.

        Args:
            header: as for ``recv_frame``.
            length_field: as for ``recv_frame``.
            length_adjust: as for ``recv_frame``.
            max_size: the most bytes of a payload. A longer one is refused before it is read.
            timeout: seconds for each frame; None means no limit, 0 does not wait.
            flags: without ``SAFE_DISCONN`` a reset between two frames is a ``ConnectionResetError`` and not the end.

        Returns:
            The iterator of ``Frame``.

        Raises:
            FrameTooLongError: the payload is longer than ``max_size``. Nothing of the frame was consumed.
            FrameError: the length is negative. Nothing of the frame was consumed.
            EndOfStreamError: the stream ended, or was reset, inside a frame. Its ``partial`` has the bytes that
                arrived; they stay readable with ``recv``.
            SocketTimeout: the timeout expired before a frame was complete.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: as for ``recv_frame``; ``flags`` has ``PEEK``.
        """
        form = frame_format(header, length_field, length_adjust, max_size)
        check_timeout(timeout)
        check_iterator_flags(flags)
        require_open(self, "frames")
        if self._io.core is None:
            refuse(self, "frames")
        return FrameIterator(self, self._io, form, timeout, flags)

    async def fill(self, size: int = 1, timeout: Timeout = None) -> memoryview:
        """Receive until at least ``size`` bytes are buffered, and return all buffered bytes without consuming them.

        ``consume`` removes them, and every other read begins with them. The view is read-only and of memory that is
        never written again: it may be kept. A timeout or a cancellation loses nothing.

        Args:
            size: number of bytes, at most ``MAX_FRAME_SIZE`` (16 MiB). 0 returns what is buffered at once.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            The bytes. An unbuffered socket receives no more than ``size``.

        Raises:
            EndOfStreamError: the stream ended, or was reset, before ``size`` bytes. Its ``partial`` has the bytes
                that arrived; they stay readable with ``recv`` or ``recv_some``.
            SocketTimeout: the timeout expired.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument has the wrong type, or is out of range.
        """
        if timeout is not None:
            check_timeout(timeout)
        port = self._fd.port
        if port.budget > 0 and port.loop is port.running_loop():
            view = self._io.buffer.ready_view(size, self._io.core_slot)
            if view is not None:
                port.budget -= 1
                return view
        view = self._io.ask(self, StreamCore.fill, timeout, size)
        if view is None:
            view = await self._io.wait_for(self, StreamCore.fill, timeout, size)
        return view

    def consume(self, size: int) -> None:
        """Remove bytes that the last ``fill`` has returned. It never waits.

        Args:
            size: number of bytes, from the front. Several calls may consume the bytes of one ``fill``.

        Raises:
            ValueError: ``size`` is negative or more than the last ``fill`` has returned, or bytes were read or put
                back since. Nothing was removed.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket.
            OSError: the socket is not connected.
            TypeError: a datagram socket; ``size`` is not an int.
        """
        if type(size) is not int or size < 0:
            size = check_size(size)
        self._io.ask_now(self, StreamCore.consume, size)

    def unread(self, data: Buffer) -> None:
        """Put bytes back in front of everything that is still to be read. It never waits.

        Args:
            data: ``bytes`` or another buffer, not ``str``. The next read begins with these bytes.

        Raises:
            ValueError: more than ``MAX_FRAME_SIZE`` (16 MiB) bytes were put back than read. Nothing was put back.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket.
            OSError: the socket is not connected.
            TypeError: a datagram socket; ``data`` is not a buffer.
        """
        self._io.ask_now(self, StreamCore.unread, bytes(as_bytes_like(data)))

    async def recv_some_into(
        self, buffer: bytearray | memoryview, timeout: Timeout = None, flags: SocketFlag = DEFAULT_FLAGS
    ) -> int:
        """Receive the available bytes into the caller's buffer, as soon as there is at least one; 0 means the end.

        A timeout or a cancellation loses nothing and leaves the buffer as it was. A datagram socket receives the next
        datagram, cut to the length of the buffer.

        Args:
            buffer: a writable, contiguous buffer. An empty one returns 0 at once.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` treats a reset as the end.

        Returns:
            The number of bytes written to the buffer.

        Raises:
            SocketTimeout: the timeout expired before a byte arrived.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError: the buffer is not writable.
            ValueError: the buffer is not contiguous; ``timeout`` is negative.
        """
        with as_writable_view(buffer, None) as target:
            if self._datagrams is not None:
                size = len(target)
                data = await self._datagrams.receive_data(self, "recv_some_into", size, flags, timeout)
            else:
                answer = self._io.ask(self, RECV_SOME_INTO, timeout, len(target), flags)
                if answer is None:
                    answer = await self._io.wait_for(self, RECV_SOME_INTO, timeout, len(target), flags)
                data = answer
            target[: len(data)] = data
        return len(data)

    def try_recv(self, max_size: int = BUFFER_SIZE) -> bytes | None:
        """Return the available bytes, or None if there are none. It never waits.

        This is a plain call in both flavours. A datagram socket returns the next datagram, cut to ``max_size``.

        Args:
            max_size: the most bytes to return.

        Returns:
            At least one byte, from the buffer first; ``b""`` at the end of the stream, also after a reset; None if
            nothing has arrived.

        Raises:
            ConnectionResetError: the peer reset the connection, and the socket's ``default_flags`` lack
                ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: ``max_size`` is not an int, or is negative.
        """
        if self._datagrams is not None:
            return self._datagrams.try_receive(self, "try_recv", check_size(max_size, "max_size"))
        return self._io.feed_available(self, TRY_RECV, max_size, DEFAULT_FLAGS)

    async def wait_readable(self, timeout: Timeout = None) -> None:
        """Wait until a read, or on a listening socket an ``accept``, would return or raise without waiting.

        Bytes in the buffer, the end of the stream and an error count as readable. A buffered socket and a TLS socket
        receive while they wait; the bytes stay for the next read. An unbuffered plain socket leaves them in the kernel.
        A timeout or a cancellation loses nothing.

        Args:
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Raises:
            SocketTimeout: the timeout expired.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected.
            TypeError, ValueError: ``timeout`` is not a number, or is negative.
        """
        check_timeout(timeout)
        if self._datagrams is None and self._fd.state is not State.LISTENING:
            await self._io.wait_readable(self, timeout)
        else:
            await self._fd.wait_readable(self, timeout)

    # Writing.

    async def wait_writable(self, timeout: Timeout = None) -> None:
        """Wait until the operating system would take at least one byte, or one datagram.

        An error counts as writable. The call does not wait for sends of other threads or tasks. A timeout or a
        cancellation changes nothing.

        Args:
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Raises:
            SocketTimeout: the timeout expired.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected.
            TypeError, ValueError: ``timeout`` is not a number, or is negative.
        """
        check_timeout(timeout)
        if self._datagrams is None and self._io.core is None:
            refuse(self, "wait_writable")
        await self._fd.wait_writable(self, timeout)

    async def send(self, data: Buffer, flags: SocketFlag = DEFAULT_FLAGS, timeout: Timeout = None) -> None:
        """Send all of ``data``.

        Concurrent calls take turns: the data of one call is never mixed with that of another. The buffer may be
        changed as soon as the call returns. A timeout or a cancellation leaves the rest unsent; ``last_bytes_sent``
        is the number of bytes sent. On a datagram socket ``data`` is one datagram.

        Args:
            data: ``bytes`` or another buffer, not ``str``. On a stream an empty one sends nothing.
            flags: with ``SAFE_DISCONN`` the call returns normally if the peer has closed or reset the connection.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Raises:
            SocketTimeout: the timeout expired; on a stream ``bytes_sent`` is the number of bytes sent before.
            BrokenPipeError, ConnectionResetError: the peer has closed or reset the connection, and ``flags`` lack
                ``SAFE_DISCONN``; or this side has called ``shutdown_write``.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument has the wrong type, or is negative.
        """
        if type(data) is bytes and flags is DEFAULT_FLAGS and timeout is None:
            payload: bytes | memoryview = data
        else:
            self.last_bytes_sent = 0  # for what is refused here
            payload = as_bytes_like(data)
            check_flags(flags)
            timeout = check_timeout(timeout)
        size = len(payload)
        fd = self._fd
        port = fd.port
        left = port.budget
        if (
            # Mostly there is room for all of it: one attempt, without an await, needs no lock.
            left > 0
            and size
            and not fd.write_lock.locked
            and (fd.write_queue is None or not fd.write_queue.in_flight)
            and port.loop is port.running_loop()
        ):
            port.budget = left - 1
            if port.raise_if_cancelled is not None:
                self.last_bytes_sent = 0
                await port.raise_if_cancelled()
            io = self._io
            try:
                sent: int | None = io.sender.send(payload, NOW)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                await io.fail_send(self, error, flags)
                return
            if sent == size and not io.core.unsent:  # type: ignore[union-attr] # it is connected
                self.last_bytes_sent = size
                io.payload_sent += size
                return
        else:
            sent = None
        await self._send_waiting(payload, sent, flags, timeout)

    async def _send_waiting(
        self, payload: bytes | memoryview, sent: int | None, flags: SocketFlag, timeout: Timeout
    ) -> None:
        """Send what one attempt has left, or all if there was none yet."""
        self.last_bytes_sent = sent or 0
        if not payload:
            require_open(self, "send")
        if self._datagrams is not None:
            self.last_bytes_sent = await self._datagrams.send(self, "send", payload, timeout)
        else:
            deadline = self._fd.deadline(self, check_timeout(timeout))
            await self._io.send_locked(self, payload, sent, flags, deadline)

    async def send_many(
        self, parts: Iterable[Buffer], flags: SocketFlag = DEFAULT_FLAGS, timeout: Timeout = None
    ) -> None:
        """Send several buffers, in order, like one.

        Use it for many small messages, for example the answers to pipelined requests: it takes one system call and, on
        TLS, one record, where a ``send`` per message takes one of both per message. The buffers are joined in memory
        first, so send a large one with a ``send`` of its own. A timeout or a cancellation leaves the rest unsent, as
        with ``send``.

        Args:
            parts: an iterable of ``bytes`` or other buffers.
            flags: as for ``send``.
            timeout: as for ``send``.

        Raises:
            TypeError: ``parts`` is not an iterable of buffers (a single buffer is refused); a datagram socket.
            SocketTimeout: the timeout expired; ``bytes_sent`` counts the bytes of all buffers together.
            BrokenPipeError, ConnectionResetError, ClosedError, OSError, ValueError: as for ``send``.
        """
        self.last_bytes_sent = 0
        payload = join_buffers(parts)
        require_open(self, "send_many")
        check_kind(self._fd.sock, "send_many", datagram=False)
        try:
            # Not the method of a subclass, which may be made of `send_many`.
            await AsyncSocket.send(self, payload, flags, timeout)
        except (OSError, WirelineError) as error:
            rename_operation(error, "send", "send_many")
            raise

    async def send_some(self, data: Buffer, timeout: Timeout = None) -> int:
        """Send as much of ``data`` as one low-level send accepts.

        After a timeout or a cancellation nothing was sent.

        Args:
            data: ``bytes`` or another buffer, not ``str``.
            timeout: seconds to wait for space in the send buffer; None means no limit, 0 does not wait.

        Returns:
            The number of bytes sent: at least one, unless ``data`` is empty.

        Raises:
            SocketTimeout: the timeout expired before there was space in the send buffer.
            BrokenPipeError, ConnectionResetError: the peer has closed or reset the connection, or this side has
                called ``shutdown_write``.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument has the wrong type, or is negative.
        """
        self.last_bytes_sent = 0
        payload = as_bytes_like(data)
        timeout = check_timeout(timeout)
        if self._datagrams is not None:
            self.last_bytes_sent = sent = await self._datagrams.send(self, "send_some", payload, timeout)
            return sent
        self._fd.enter(self)
        deadline = self._fd.deadline(self, timeout)
        core = await self._io.acquire_write_lock(self, "send_some", deadline)
        try:
            await self._fd.spend_budget()
            self.last_bytes_sent = 0  # the task that wrote before may have set it meanwhile
            return await self._io.send_some(self, core, payload, deadline)
        except SocketTimeout as error:
            raise SocketTimeout("send_some", error.seconds, 0) from None
        except OSError as error:
            should_raise(self._io, self, error, SocketFlag(0), "send_some")
            raise
        finally:
            self._io.release_write_lock(self)

    def try_send(self, data: Buffer) -> bool:
        """Send as much of ``data`` as the send buffer has space for. It never waits.

        This is a plain call in both flavours. ``last_bytes_sent`` is the number of bytes sent.

        Args:
            data: ``bytes`` or another buffer, not ``str``.

        Returns:
            True if all of ``data`` was sent. False if only a part or nothing was sent, if another task or thread is
            sending, and after any error of the socket.

        Raises:
            TypeError: ``data`` is not a buffer.
        """
        self.last_bytes_sent = 0
        payload = as_bytes_like(data)
        io = self._io
        core = io.core
        if self._closing.locked() or self._fd.write_in_flight:
            return False
        if self._datagrams is not None:
            self.last_bytes_sent = sent = self._datagrams.try_send(payload)
            return sent == len(payload)
        if core is None or self._fd.write_lock.locked:
            return False
        self.last_bytes_sent = send_available(io, core, payload)
        return self.last_bytes_sent == len(payload) and not core.unsent

    async def sendfile(
        self, file: BinaryFile, offset: int = 0, count: int | None = None, timeout: Timeout = None
    ) -> int:
        """Send a file, or a part of it; return how many bytes were sent.

        A plain stream sends by sendfile(2), which copies nothing through Python, where the system can; other streams
        read and send 256 KiB at a time. The position of a file that has a descriptor of its own is neither used nor
        moved. That of any other object (``io.BytesIO``, ``gzip.GzipFile``, ...) is set back at the end of the call. In
        the async flavour other tasks run after every 256 KiB; a slow disk delays them by the time that so many bytes
        take.

        Concurrent calls take turns, as with ``send``. A timeout or a cancellation leaves the rest unsent;
        ``last_bytes_sent`` is the number of bytes sent, also after an error.

        Args:
            file: a binary file, readable and with positions. Unwritten data in its buffer is flushed first.
            offset: the first byte to send, from the beginning of the file.
            count: the most bytes to send; None means up to the end of the file, 0 sends nothing.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            The number of bytes sent. It is less than ``count`` if the file has fewer, or has become shorter meanwhile.

        Raises:
            SocketTimeout: the timeout expired; ``bytes_sent`` is the number of bytes sent before.
            BrokenPipeError, ConnectionResetError: the peer has closed or reset the connection, or this side has
                called ``shutdown_write``.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, the connection failed, or the file cannot be read
                (``io.UnsupportedOperation`` if it is a pipe, or not open for reading).
            TypeError, ValueError: a text file; a datagram socket; an argument has the wrong type, or is out of range.
        """
        self.last_bytes_sent = 0
        from wireline._os.file_part import FilePart
        from wireline.asyncnet._send_file import send_file

        part = FilePart(file, offset, count)
        return await send_file(self._io, self, part, self._fd.deadline(self, check_timeout(timeout)))

    def try_send_some(self, data: Buffer) -> int:
        """Send as much of ``data`` as the send buffer has space for, in one low-level send. It never waits.

        This is a plain call in both flavours. A datagram socket sends ``data`` as one datagram, or nothing. Over TLS
        the bytes of whole records count, and the operating system may have taken only a part of the last one: the next
        sending call, even with ``b""``, sends the rest.

        Args:
            data: ``bytes`` or another buffer, not ``str``.

        Returns:
            The number of bytes sent; 0 if the send buffer has no space, or another task or thread is sending.

        Raises:
            BrokenPipeError, ConnectionResetError: the peer has closed or reset the connection, or this side has
                called ``shutdown_write``.
            ClosedError: this side closed the socket.
            OSError: the socket is not connected, or the connection failed.
            TypeError: ``data`` is not a buffer.
        """
        self.last_bytes_sent = 0
        payload = as_bytes_like(data)
        if self._datagrams is not None:
            self.last_bytes_sent = sent = self._datagrams.try_send_some(self, payload)
            return sent
        if self._io.core is None or self.is_closed:
            refuse(self, "try_send_some")
        if self._fd.is_foreign:
            self.adopt()
        return 0 if self._fd.write_lock.locked else send_some_now(self._io, self, payload)

    async def shutdown_write(self, timeout: Timeout = None) -> None:
        """Send the end of the stream; reading stays possible (half-close).

        The call first waits for sends that are under way. A timeout or a cancellation leaves the stream as it is,
        open for writing. It is no error if the peer has closed or reset the connection.

        Args:
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Raises:
            SocketTimeout: the timeout expired.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket was never connected.
            TypeError, ValueError: a datagram socket; ``timeout`` is not a number, or is negative.
        """
        deadline = self._fd.deadline(self, check_timeout(timeout))
        self._fd.enter(self)
        core = await self._io.acquire_write_lock(self, "shutdown_write", deadline)
        try:
            await self._fd.spend_budget()
            await self._io.finish_orphan("shutdown_write", deadline)
            self._io.write_shut = True
            await self._io.flush(core, "shutdown_write", deadline)
            shut_down_writing(self._io.sender)
            await self._io.flush(core, "shutdown_write", deadline)  # `close_notify`
        finally:
            self._io.release_write_lock(self)

    # Passing descriptors.

    async def send_fds(self, data: Buffer, fds: Iterable[int], timeout: Timeout = None) -> None:
        """Send all of ``data``, and descriptors with its first byte, over a Unix socket.

        The peer gets copies of the descriptors; this side may close its own as soon as the call returns. A timeout or a
        cancellation leaves the rest of ``data`` unsent: if ``last_bytes_sent`` is not 0, the descriptors were sent, and
        ``send`` sends the rest. On a connected datagram socket ``data`` is one datagram.

        Args:
            data: ``bytes`` or another buffer, not ``str``; at least one byte.
            fds: descriptors, at most 253. Without any the call is a ``send``.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Raises:
            SocketTimeout: the timeout expired; on a stream ``bytes_sent`` is the number of bytes sent before.
            BrokenPipeError, ConnectionResetError: the peer has closed or reset the connection, or this side has
                called ``shutdown_write``.
            ClosedError: this side closed the socket, before or during the call.
            OSError: one of the descriptors is not open (``EBADF``), too many are on their way to a peer that does not
                read (``ETOOMANYREFS``), the socket is not connected, or the connection failed.
            ssl.SSLError: the socket uses TLS, which cannot carry descriptors.
            NotImplementedError: the platform does not pass descriptors.
            TypeError, ValueError: an IP socket; an argument has the wrong type, is empty or out of range.
        """
        self.last_bytes_sent = 0
        payload = as_message(data)
        ancillary = as_ancillary(fds)
        timeout = check_timeout(timeout)
        require_fd_passing(self, "send_fds")
        if self._datagrams is not None:
            self.last_bytes_sent = await self._datagrams.send_fds(self, payload, ancillary, timeout)
            return
        self._fd.enter(self)
        deadline = self._fd.deadline(self, timeout)
        await self._io.acquire_write_lock(self, "send_fds", deadline)
        try:
            self.last_bytes_sent = 0  # the task that wrote before may have set it meanwhile
            await self._fd.spend_budget()
            await self._io.send_fds(self, payload, ancillary, deadline)
        except SocketTimeout:
            raise
        except OSError as error:
            should_raise(self._io, self, error, SocketFlag(0), "send_fds")
            raise
        finally:
            if type(payload) is memoryview:
                payload.release()  # W4: an exception would keep the caller's buffer
            self._io.release_write_lock(self)

    async def recv_fds(self, size: int, max_fds: int, timeout: Timeout = None) -> ReceivedFds:
        """Receive bytes and the descriptors that were passed with them, from a Unix socket.

        The call returns as soon as there is a byte, as ``recv_some`` does. After the bytes of a message with
        descriptors the result ends; later bytes stay for the next call. Descriptors whose bytes other reads have
        returned are returned first: every read of a Unix stream keeps those that are passed with its bytes, at most 253
        in all, and closes further ones. A timeout or a cancellation loses nothing: bytes and descriptors stay for the
        next call. On a datagram socket the call returns the next datagram, cut to ``size``; the other methods close the
        descriptors of a datagram.

        Args:
            size: the most bytes to return. 0 returns the descriptors that other reads have left, and does not wait.
            max_fds: the most descriptors to return.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            A ``ReceivedFds``: ``(data, fds, truncated)``. The descriptors are closed when this process executes
            another program, and belong to the caller. ``truncated`` counts those that were closed because a message
            had more than ``max_fds``, or because the socket kept 253 already; descriptors that the operating system
            could not pass (``EMFILE``) count as one for each message. ``data`` is ``b""`` at the end of the stream, and
            before a message whose descriptors would make the result larger than ``max_fds``.

        Raises:
            SocketTimeout: the timeout expired before a byte arrived.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the socket is not connected, or the connection failed.
            ssl.SSLError: the socket uses TLS, which cannot carry descriptors.
            NotImplementedError: the platform does not pass descriptors, or this event loop cannot receive them.
            TypeError, ValueError: an IP socket; an argument has the wrong type, or is negative.
        """
        size = check_size(size)
        max_fds = check_size(max_fds, "max_fds", "descriptors")
        timeout = check_timeout(timeout)
        require_fd_passing(self, "recv_fds")
        if self._fd.enter(self).completions is not None:
            raise NotImplementedError(
                "recv_fds: this event loop has no add_reader, and receives without descriptors by itself"
            )
        if self._datagrams is not None:
            return await self._datagrams.receive_fds(self, size, max_fds, timeout)
        passed = self._fd.passed
        if passed is None:
            refuse(self, "recv_fds")
        delivery = Delivery()
        args = (size, max_fds, passed, delivery)
        try:
            received = self._io.ask(self, recv_fds, timeout, *args)
            if received is None:
                received = await self._io.wait_for(self, recv_fds, timeout, *args)
            return received
        except BaseException:
            passed.pieces[:0] = delivery.pieces  # without a call: a second exception finds this done
            passed.truncated += delivery.truncated
            passed.close_if_ended()
            raise

    # Datagrams.

    async def send_to(
        self,
        address: str | IpAddress,
        port: int,
        data: Buffer,
        flags: SocketFlag = DEFAULT_FLAGS,
        timeout: Timeout = None,
    ) -> int:
        """Send one datagram.

        After a timeout or a cancellation nothing was sent.

        Args:
            address: an address, or a name, whose first address is used; on a Unix socket the path.
            port: 0 to 65535; not used on a Unix socket.
            data: ``bytes`` or another buffer, not ``str``. An empty one is sent as an empty datagram.
            flags: without effect here.
            timeout: seconds for the whole call, name resolution included; None means no limit, 0 does not wait.

        Returns:
            The number of bytes sent: all of ``data``.

        Raises:
            SocketTimeout: the timeout expired.
            socket.gaierror: the name does not resolve.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the datagram is too large (``EMSGSIZE``), there is no route, or an earlier datagram was refused
                (``ConnectionRefusedError``); the socket stays usable.
            TypeError, ValueError: a stream socket; an argument has the wrong type, or is out of range.
        """
        self.last_bytes_sent = 0
        datagrams = self._datagrams or self._open_datagrams("send_to")
        payload = data if type(data) is bytes else as_bytes_like(data)
        if flags is not DEFAULT_FLAGS:
            check_flags(flags)
        if timeout is not None:
            timeout = check_timeout(timeout)
        sent = datagrams.send_now(self, address, port, payload)
        if sent is None:
            sent = await datagrams.send_to(self, address, port, payload, timeout)
        self.last_bytes_sent = sent
        return sent

    async def send_many_to(self, datagrams: Iterable[Outgoing], timeout: Timeout = None) -> int:
        """Send several datagrams, each to an address of its own, with less work for each than ``send_to``.

        All are checked, and all names are resolved, before the first is sent. An error or a timeout after the first
        datagram is no exception: the call returns how many were sent, and a call with the rest raises the error if it
        still holds. The system reports only once that the port of an earlier datagram is closed: the next receiving
        call raises this error. A timeout or a cancellation leaves the rest unsent; ``last_bytes_sent`` is the number
        of bytes of the datagrams that were sent.

        Args:
            datagrams: an iterable of ``Datagram`` objects, each sent to its ``address``, and of tuples
                ``(data, address, port)`` with the values that ``send_to`` takes.
            timeout: seconds for the whole call, name resolution included; None means no limit, 0 does not wait.

        Returns:
            The number of datagrams sent: all of them, unless an error or the timeout stopped the call after the first.

        Raises:
            SocketTimeout: the timeout expired before one was sent.
            socket.gaierror: a name does not resolve; nothing was sent.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the first one is too large (``EMSGSIZE``), there is no route, or an earlier datagram was refused
                (``ConnectionRefusedError``); the socket stays usable.
            TypeError, ValueError: a stream socket; a datagram has the wrong type, or its port is out of range. Nothing
                was sent.
        """
        self.last_bytes_sent = 0
        return await self._open_datagrams("send_many_to").send_many_to(self, datagrams, timeout)

    async def recv_from(
        self, size: int, flags: SocketFlag = DEFAULT_FLAGS, timeout: Timeout = None
    ) -> Datagram:
        """Receive one datagram and the address of its sender.

        An empty datagram is a datagram, not an end. A timeout or a cancellation loses no datagram.

        Args:
            size: the most bytes to keep; the rest of a larger datagram is lost, and ``truncated`` is true.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            A ``Datagram``: ``(data, address)``, and ``truncated``.

        Raises:
            SocketTimeout: the timeout expired before a datagram arrived.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or during the call.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or a similar error; the
                socket stays usable.
            TypeError, ValueError: a stream socket; an argument has the wrong type, or is negative.
        """
        datagrams = self._datagrams or self._open_datagrams("recv_from")
        if timeout is not None:
            timeout = check_timeout(timeout)
        datagram = datagrams.receive_now(self, "recv_from", size) if flags is DEFAULT_FLAGS else None
        if datagram is None:
            datagram = await datagrams.receive(self, "recv_from", size, flags, timeout)
        return datagram

    async def recv_many_from(
        self, max_count: int = 64, size: int = 2048, timeout: Timeout = None
    ) -> list[Datagram]:
        """Receive the datagrams that have arrived, as soon as there is one.

        Under load it takes two thirds of the time that a ``recv_from`` for each datagram would take. A timeout or a
        cancellation loses no datagram. Neither does an error that the system reports after the first datagram: the next
        receiving call raises it.

        Args:
            max_count: the most datagrams to return, at least 1. Above 1,024 it has the effect of 1,024.
            size: the most bytes to keep of each; the rest of a larger one is lost, and its ``truncated`` is true.
            timeout: seconds to wait for the first; None means no limit, 0 does not wait.

        Returns:
            At least one ``Datagram``, in the order of their arrival.

        Raises:
            SocketTimeout: the timeout expired before a datagram arrived.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or during the call.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or a similar error; the
                socket stays usable.
            TypeError, ValueError: a stream socket; an argument has the wrong type, or is out of range.
        """
        count = check_count(max_count)
        datagrams = self._open_datagrams("recv_many_from")
        return await datagrams.receive_many(self, "recv_many_from", check_size(size), count, timeout)

    async def recv_from_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        flags: SocketFlag = DEFAULT_FLAGS,
        timeout: Timeout = None,
    ) -> ReceivedInto:
        """Receive one datagram into the caller's buffer, like ``recv_from``.

        A timeout or a cancellation loses no datagram and leaves the buffer as it was.

        Args:
            buffer: a writable, contiguous buffer.
            size: the most bytes to keep of the datagram; None means the length of the buffer.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            A ``ReceivedInto``: ``(size, address)``, and ``truncated``.

        Raises:
            SocketTimeout: the timeout expired before a datagram arrived.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or during the call.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or a similar error; the
                socket stays usable.
            TypeError: a stream socket, or the buffer is not writable.
            ValueError: ``size`` is negative or larger than the buffer, or ``timeout`` is negative.
        """
        target = as_writable_view(buffer, size)
        datagrams = self._datagrams or self._open_datagrams("recv_from_into")
        return await datagrams.receive_into(self, "recv_from_into", target, flags, timeout)

    def _open_datagrams(self, operation: str) -> DatagramIO:
        require_open(self, operation)
        check_kind(self._fd.sock, operation, datagram=True)
        assert self._datagrams is not None
        return self._datagrams

    # Connecting.

    async def connect(self, address: str | IpAddress, port: int = 0, timeout: Timeout = None) -> None:
        """Connect to a host: try each of its addresses in turn until one accepts the connection.

        Only addresses of the socket's own family are tried; ``dial`` races those of both. On a datagram socket the
        call sends nothing: it sets the peer of ``send`` and ``recv``. After an error, a timeout or a cancellation
        the socket is unconnected, keeps its options, and may be connected again.

        Args:
            address: a name or an address.
            port: 0 to 65535.
            timeout: seconds for the whole call, name resolution included; None means no limit.

        Raises:
            SocketTimeout: the timeout expired.
            socket.gaierror: the name does not resolve.
            BusyError: another thread or task is connecting this socket.
            ClosedError: this side closed the socket, before or during the call.
            OSError: the error of the last address (``ConnectionRefusedError``, ...), or the socket is already
                connected or listening.
            TypeError, ValueError: a Unix socket (see ``connect_unix``); an argument has the wrong type, or is out of
                range.
        """
        host, port = check_peer_arguments(address, port)
        timeout = check_timeout(timeout)
        require_open(self, "connect")
        if self._fd.sock.family not in (AF_INET, AF_INET6):
            raise TypeError("connect needs an IP socket, this is a Unix socket: see connect_unix")
        with self._connecting("connect"):
            secure = None if self._tls is None else self._tls.client_core(host, port)
            deadline = self._fd.deadline(self, timeout)
            await self._fd.spend_budget()
            found = await resolve(self, self._fd, "connect", host, port, deadline)
            await self._connect_to_any("connect", [info[4] for info in found], secure, deadline)

    async def connect_unix(self, path: UnixPath, timeout: Timeout = None) -> None:
        """Connect to a Unix socket.

        After an error, a timeout or a cancellation the socket is unconnected and may be connected again.

        Args:
            path: a path, or on Linux an abstract name (a leading NUL).
            timeout: seconds for the whole call; None means no limit.

        Raises:
            SocketTimeout: the timeout expired while the listener's backlog was full.
            BusyError: another thread or task is connecting this socket.
            ClosedError: this side closed the socket, before or during the call.
            OSError: no socket listens there (``ConnectionRefusedError``), the path does not exist
                (``FileNotFoundError``), or the socket is already connected or listening.
            TypeError, ValueError: an IP socket (see ``connect``); ``path`` is not a path, empty, or too long.
        """
        where = unix_path(path)
        timeout = check_timeout(timeout)
        require_open(self, "connect_unix")
        if self._fd.sock.family != AF_UNIX:
            raise TypeError("connect_unix needs a Unix socket, this is an IP socket: see connect")
        with self._connecting("connect_unix"):
            secure = None if self._tls is None else self._tls.client_core("", 0)
            deadline = self._fd.deadline(self, timeout)
            await self._fd.spend_budget()
            self._fd.raise_if_closed("connect_unix")
            await self._connect_to_any("connect_unix", [where], secure, deadline)

    @contextlib.contextmanager
    def _connecting(self, operation: str) -> Iterator[None]:
        """Refuse a second task that connects."""
        self._may_connect(operation)
        if self._is_connecting:
            raise BusyError(f"{operation}: another task is connecting this socket")
        self._fd.enter(self)
        self._is_connecting = True
        try:
            yield
        finally:
            self._is_connecting = False

    async def _connect_to_any(
        self,
        operation: str,
        targets: Sequence[SockAddr],
        secure: TlsCore | None,
        deadline: CallDeadline | None,
    ) -> None:
        """Try the addresses in turn, each on a fresh descriptor if the one before failed (C3)."""
        if self._needs_new_fd:
            self._replace_fd()
        target = targets[0]
        try:
            for position, target in enumerate(targets, 1):
                try:
                    await connect_to(self, self._fd, operation, target, deadline)
                    break
                except OSError as error:
                    error.add_note(f"while connecting to {target!r}")
                    if position == len(targets) or isinstance(error, WirelineError):
                        raise
                    self._replace_fd()
            self._connected(target, secure)
            if secure is not None:
                await self._handshake_first(secure, operation, deadline)
        except BaseException:
            if not self._closing.locked():
                # A descriptor that failed cannot connect again. If `_replace_fd` fails, the next connect does it.
                self._needs_new_fd = True
                with contextlib.suppress(OSError):
                    self._replace_fd()
            raise

    async def _handshake_first(
        self, tls_core: TlsCore, operation: str, deadline: CallDeadline | None
    ) -> None:
        """Do the TLS handshake before any other call may use the connection."""
        try:
            await self._io.handshake(self, tls_core, operation, deadline)
        except BaseException:
            self._unconnected()
            raise
        self._io.publish(self)

    # Accepting.

    async def accept_addr(
        self, flags: SocketFlag = DEFAULT_FLAGS, inheritable: bool = False, timeout: Timeout = None
    ) -> Accepted:
        """Accept a connection and return its socket and address.

        The new socket is buffered if this one is. A timeout or a cancellation accepts no client: one that has
        connected stays for the next call. A TLS listener finishes the handshake before it returns, and closes a client
        whose handshake does not succeed.

        Args:
            flags: with ``SAFE_DISCONN`` a client that disconnected before it was accepted is skipped.
            inheritable: whether programs that this process executes inherit the new descriptor.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            An ``Accepted``: ``(client, address)``. The address of a Unix client is its path, usually ``""``, and
            port 0.

        Raises:
            SocketTimeout: the timeout expired before a client connected, or before its TLS handshake was done.
            ClosedError: this side closed the socket, before or during the call.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError, ValueError: a datagram socket; ``timeout`` is not a number, or is negative.
        """
        return await self._accept("accept_addr", flags, inheritable, timeout)

    async def accept(
        self, flags: SocketFlag = DEFAULT_FLAGS, inheritable: bool = False, timeout: Timeout = None
    ) -> AsyncSocket:
        """Accept a connection and return its socket.

        The new socket is buffered if this one is. A timeout or a cancellation accepts no client: one that has
        connected stays for the next call. A TLS listener finishes the handshake before it returns, and closes a client
        whose handshake does not succeed.

        Args:
            flags: with ``SAFE_DISCONN`` a client that disconnected before it was accepted is skipped.
            inheritable: whether programs that this process executes inherit the new descriptor.
            timeout: seconds for the whole call; None means no limit, 0 does not wait.

        Returns:
            The client's socket.

        Raises:
            SocketTimeout: the timeout expired before a client connected, or before its TLS handshake was done.
            ClosedError: this side closed the socket, before or during the call.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError, ValueError: a datagram socket; ``timeout`` is not a number, or is negative.
        """
        return (await self._accept("accept", flags, inheritable, timeout)).client

    async def _accept(
        self, operation: str, flags: SocketFlag, inheritable: bool, timeout: Timeout
    ) -> Accepted:
        check_flags(flags)
        timeout = check_timeout(timeout)
        self._listener(operation)
        self._fd.enter(self)
        deadline = self._fd.deadline(self, timeout)
        while True:
            await self._fd.spend_budget()
            is_ours = self._local is not None and self._local.is_bound
            accept = Accept(self._listener(operation), is_ours=is_ours)
            try:
                sock, sockaddr = await self._fd.open_read_queue().perform(accept, operation, deadline)
                break
            except OSError as error:
                if isinstance(error, WirelineError):
                    raise
                if not is_failed_before_accept(effective_flags(flags, self._io.default_flags), error):
                    raise annotated(error, operation, self) from error.__cause__
        address = to_display_address(sockaddr)
        client = self._accepted(sock, address, inheritable)
        if self._tls is not None:
            with self._tls.welcome(self, client):
                await client._upgrade(self._tls.server_core(), deadline, operation)
        return Accepted(client, address)

    def try_accept_addr(self) -> tuple[AcceptResult, AsyncSocket | None, Address | None]:
        """Accept a connection if a client has connected. It never waits.

        Returns:
            ``SUCCESS``, the client's socket and its address; or ``NO_CLIENT``, None and None. A TLS listener may also
            return ``NO_HANDSHAKE``, None and None: a client is in its handshake, and a later call returns it when the
            handshake is done; or another thread is in this call. A client whose handshake takes more than 10 s is
            closed. At most 256 clients are in their handshake, and a call looks only at those that have sent
            something. Further clients wait to be accepted; one of them takes the place of a client that has been in
            its handshake for more than 1 s.

        Raises:
            ClosedError: this side closed the socket.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError: a datagram socket.
        """
        if self._tls is not None:
            return self._tls.next_ready_client(self, self._accept_now)
        accepted = self._accept_now()
        if accepted is None:
            return AcceptResult.NO_CLIENT, None, None
        return AcceptResult.SUCCESS, accepted.client, accepted.address

    def _accept_now(self) -> Accepted | None:
        """A client that has connected; None if none has."""
        listener = self._listener("try_accept_addr")
        while True:
            try:
                queue = self._fd.read_queue
                orphan = None if queue is None else queue.take_orphan()
                sock, sockaddr = (
                    accept_now(listener)
                    if orphan is None
                    else cast("tuple[socket.socket, SockAddr]", orphan.result())
                )
            except BlockingIOError:
                return None
            except OSError as error:
                if not is_failed_before_accept(self._io.default_flags, error):
                    raise annotated(error, "try_accept_addr", self) from error.__cause__
            else:
                address = to_display_address(sockaddr)
                return Accepted(self._accepted(sock, address, False), address)

    def _listener(self, operation: str) -> socket.socket:
        require_open(self, operation)
        fd = self._fd
        check_kind(fd.sock, operation, datagram=False)
        if fd.state is not State.LISTENING:
            raise OSError(errno.EINVAL, f"{operation}: the socket is {fd.state.value}, not listening")
        return fd.sock

    # TLS.

    async def start_tls(
        self,
        ctx: SslContext,
        handshake: Handshake = Handshake.AS_CLIENT,
        hostname: str | IpAddress = "",
        timeout: Timeout = None,
        *,
        leftover: Leftover = "refuse",
    ) -> None:
        """Start TLS on the connection (STARTTLS): do the handshake now.

        After a timeout or a cancellation, or if the handshake fails, the socket can only be closed. On a TLS socket the
        call adds a layer inside of the present one: ``tls_info``, the certificates and the end of the stream are then
        those of the new layer, and ``close`` ends both.

        Args:
            ctx: the ``SslContext``, for its certificates and its rules.
            handshake: the role of this side.
            hostname: the name that the server's certificate must have. A client that verifies needs it.
            timeout: seconds for the whole handshake; None means no limit, 0 does not wait.
            leftover: how bytes that were received before the call and not read are treated. ``"refuse"`` raises an
                error, because an attacker may have inserted them; ``"tls"`` takes them as the beginning of the
                handshake.

        Raises:
            ssl.SSLError: the handshake failed, or there are unread bytes.
            SocketTimeout: the timeout expired.
            BusyError: another thread or task is reading or sending.
            ClosedError: the context was destroyed, or this side closed the socket, before or during the call.
            OSError: the socket is not connected, the connection failed, or no CA is found.
            TypeError, ValueError: a datagram socket; a client verifies and has no hostname; an argument has the wrong
                type, or is none of its values.
        """
        core = core_to_start_tls(ctx, handshake, hostname, leftover, shared=False)
        await self._upgrade(core, timeout, "start_tls", leftover)

    async def _upgrade(
        self,
        tls_core: TlsCore,
        timeout: CallDeadline | Timeout,
        operation: str,
        leftover: Leftover = "refuse",
    ) -> None:
        """Begin TLS on the connection, and do the handshake."""
        if not isinstance(timeout, CallDeadline):
            timeout = self._fd.deadline(self, check_timeout(timeout))
        self._fd.enter(
            self
        )  # the handshake may have to wait before it reads, and no call need have been made before
        self._io.hold(self, operation)
        try:
            begin_upgrade(self._io, self, tls_core, leftover)
            await self._io.handshake(self, tls_core, operation, timeout)
        finally:
            self._io.publish(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Accepted(NamedTuple):
    """A connection that was accepted, and the address of its peer."""

    client: AsyncSocket
    address: Address
