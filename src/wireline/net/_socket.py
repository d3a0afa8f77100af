"""The socket of the blocking flavour: arguments, states, connecting and accepting.

A ``FdGuard`` knows which threads use the descriptor, ``StreamIO`` reads and sends a connected stream, ``DatagramIO``
datagrams. The lines of ``recv_some``, ``recv_line`` and ``send`` that every message passes are here, without the call.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, cast

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.lines import EMPTY_LINE
from wireline._core.named import LINES, RECV_INTO, RECV_LINE_INTO, TRY_RECV_LINE
from wireline._core.stream import SOME, StreamCore, check_size
from wireline._os.datagram import Datagram, ReceivedInto
from wireline._os.descriptor import (
    KERNEL_WAITS,
    State,
    Unclaimed,
    accept_now,
    close_unclaimed,
    is_failed_before_accept,
    shut_down_writing,
)
from wireline._os.process import process
from wireline._socket_base import BaseSocket
from wireline._validation import (
    Buffer,
    UnixPath,
    as_bytes_like,
    as_writable_view,
    check_peer_arguments,
    join_buffers,
    require_resizable,
)
from wireline.address import Address, IpAddress, to_display_address, unix_path
from wireline.errors import SockAddr, SocketTimeout, WirelineError, rename_operation
from wireline.net._connect import connect_to, resolve
from wireline.net._datagram_io import DatagramIO
from wireline.net._fd_guard import FdGuard, Use
from wireline.net._poll import start_deadline
from wireline.net._retry import until_ready
from wireline.net._stream_io import StreamIO
from wireline.net._write_lock import Permit
from wireline.options import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    BUFFER_SIZE,
    MAX_LINE_LENGTH,
    NO_SIGNAL,
    SAFE_DISCONN,
    SOCK_DGRAM,
    AcceptResult,
    ReadLineResult,
    SocketFlag,
    check_flags,
)

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["Accepted", "Socket"]


# Where a thread finds no permit while others queue for it.
_NO_PERMITS: list[Permit] = []


class Socket(BaseSocket):
    """A blocking socket: TCP, UDP or Unix."""

    _module = "wireline.net"
    _kernel_waits = KERNEL_WAITS
    _shared = True
    last_bytes_sent: int

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._guard = FdGuard(sock)
        self._io = StreamIO(self._guard, kernel_waits=self._kernel_waits)
        self._datagrams = DatagramIO(self._guard) if sock.type == SOCK_DGRAM else None
        self._unclaimed: Unclaimed = []  # clients that the system gave, and no caller has
        super()._setup(sock, buffered, state, peer)

    # Reading.

    def recv(self, size: int, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN) -> bytes:
        """Receive ``size`` bytes; ``b""`` means that the peer is done.

        A buffered stream gives all ``size`` bytes, and fewer only at its end. An unbuffered one gives what one
        system call does. A datagram socket gives the next datagram, cut to ``size``. A timeout or a cancellation
        loses nothing: what has arrived stays for the next read, whichever that is.

        Args:
            size: bytes; 0 is answered at once on a stream.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            The bytes.

        Raises:
            SocketTimeout: time ran out first.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``. As any
                failure of the connection, it is reported after everything that arrived before it.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """
        if self._datagrams is not None:
            return self._datagrams.receive(self, "recv", size, flags, timeout).data
        return self._io.read(self, StreamCore.recv, timeout, size, flags)

    def recv_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
    ) -> int:
        """Receive into the caller's buffer as ``recv`` does; 0 means that the peer is done.

        A timeout or a cancellation loses nothing and leaves the buffer as it was.

        Args:
            buffer: something writable and contiguous.
            size: bytes; None fills the buffer.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            How many bytes of the buffer were written.

        Raises:
            SocketTimeout: time ran out first.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError: the buffer cannot be written to.
            ValueError: ``size`` is negative or more than the buffer has, or ``timeout`` is negative.
        """
        target = as_writable_view(buffer, size)
        if self._datagrams is not None:
            return self._datagrams.receive_into(self, "recv_into", target, flags, timeout).size
        return len(self._io.read(self, RECV_INTO, timeout, len(target), flags, into=target))

    def recv_some(
        self, max_size: int = BUFFER_SIZE, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN
    ) -> bytes:
        """Receive what there is, as soon as there is one byte; ``b""`` means that the peer is done.

        A datagram socket gives the next datagram, cut to ``max_size``. A timeout or a cancellation loses nothing:
        what has arrived stays for the next read.

        Args:
            max_size: the most bytes to return. More than ``BUFFER_SIZE``, up to 1 MiB, also asks the kernel for as
                much at once, which bulk data gain from.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the bytes for the next read. ``SAFE_DISCONN`` takes a reset for the end.

        Returns:
            At least one byte, from the buffer first; ``b""`` at the end.

        Raises:
            SocketTimeout: time ran out before a byte came.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """
        if (
            timeout is None
            and flags is SAFE_DISCONN
            and (max_size is BUFFER_SIZE or (type(max_size) is int and 0 < max_size <= BUFFER_SIZE))
        ):
            # One message after the other: the core would answer "not yet", so no request is made (half of our time).
            io = self._io
            core_slot = io.core_slot
            core = None
            try:
                core = core_slot.pop()
                # An interrupted call has left something in the `inbox`: then the core is to recover first.
                if core.fast_recv_ok and core.inbox is None:
                    for core.inbox in io.receive:  # no signal handler can run in between: see `StreamIO.fill`
                        break
                    data = core.inbox
                    if core.is_tls:  # what `accept` does without TLS is the next condition, without the call
                        core.direct = SOME
                        core.direct_limit = max_size
                        data = core.accept(data)  # type: ignore[arg-type] # the loop has set it
                    if data and len(data) <= max_size:
                        core.undo = core.inbox = None
                        core_slot += self._guard.cores
                        if io.quiet_epoch is not process.epoch:
                            io.leave(self)
                        return data
            except BaseException as error:  # noqa: BLE001 -- raised again there
                io.fast_recv_failed(self, core, error)
            else:
                core_slot += (
                    self._guard.cores
                )  # before a call, in which a signal handler can raise an exception
                io.end_fast_recv(self)
            del core  # a reference of a call that is over would look like one of a reader
        if self._datagrams is not None:
            return self._datagrams.receive(self, "recv_some", max_size, flags, timeout).data
        return self._io.read(self, StreamCore.recv_some, timeout, max_size, flags)

    def recv_exactly(self, size: int, timeout: float | None = None) -> bytes:
        """Receive ``size`` bytes, not one fewer.

        A timeout or a cancellation loses nothing: what has arrived stays for the next read.

        Args:
            size: bytes.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The bytes.

        Raises:
            EndOfStreamError: the peer was done, or gone, before. The bytes that came are its ``partial``, and stay
                readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or negative.
        """
        return self._io.read(self, StreamCore.recv_exactly, timeout, size)

    def recv_until(
        self, delimiter: bytes, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None
    ) -> bytes:
        """Receive everything up to a delimiter, and the delimiter.

        A timeout or a cancellation loses nothing: what has arrived stays for the next read.

        Args:
            delimiter: one byte at least.
            max_length: the most bytes to return, the delimiter included.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The bytes; they end with ``delimiter``.

        Raises:
            LineTooLongError: ``max_length`` bytes came and the delimiter was not among them. They stay readable.
            EndOfStreamError: the peer was done, or gone, before the delimiter. The bytes that came are its
                ``partial``, and stay readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an empty delimiter; an argument is of the wrong type, or
                negative.
        """
        return self._io.read(self, StreamCore.recv_until, timeout, delimiter, max_length)

    def recv_line(
        self,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> bytes:
        r"""Receive a line without its end; ``b""`` means that the peer is done.

        A line ends at ``\r\n`` or ``\n``; a lone ``\r`` is data. An empty line is ``b"\r\n"``, whichever way it
        ended. A line that the peer left unfinished is not returned; its bytes stay readable with ``recv`` or
        ``recv_some``. A timeout or a cancellation loses nothing: what has arrived of a line stays for the next read.

        Args:
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the line for the next read. ``SAFE_DISCONN`` takes a reset for the end.
            max_length: bytes that a line may have, without its end; at least 1.
            on_long: what to do with a longer line. ``"truncate"`` returns its first ``max_length`` bytes, and the
                next read goes on with the rest; ``"raise"`` raises and consumes nothing.

        Returns:
            The line.

        Raises:
            LineTooLongError: the line is longer, and ``on_long`` is ``"raise"``.
            SocketTimeout: time ran out before the line was complete.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or out of its range.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        # The fast lane: a line that was split off ahead, at the cost of `list.pop`.
        lines = self._lines
        if (
            lines
            and flags is SAFE_DISCONN
            # No line ahead is longer than the default: that is not asked in each call.
            and (max_length is MAX_LINE_LENGTH or self._fits(check_size(max_length, "max_length")))
            and on_long == "truncate"
            and self._core.undo is None  # type: ignore[union-attr]
            # Again, for `_fits` is a call, in which `close` may have come. Between here and `del` there is none:
            # neither a signal handler nor another thread can be in between.
            and lines
        ):
            line = lines[-1]
            del lines[-1]
            return line
        return self._io.read(self, StreamCore.recv_line, timeout, max_length, on_long, flags)

    def recv_line_into(
        self,
        buffer: bytearray,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
        max_length: int = MAX_LINE_LENGTH,
        *,
        on_long: str = "truncate",
    ) -> int:
        r"""Receive a line as ``recv_line`` does, and make it the content of ``buffer``.

        A timeout or a cancellation loses nothing and leaves the buffer as it was.

        Args:
            buffer: what was in it is replaced; it becomes as long as the line.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.
            flags: ``PEEK`` leaves the line for the next read. ``SAFE_DISCONN`` takes a reset for the end.
            max_length: bytes that a line may have, without its end; at least 1.
            on_long: ``"truncate"`` or ``"raise"``, see ``recv_line``.

        Returns:
            How many bytes the line has: 2 for an empty one, which is ``b"\r\n"``, and 0 when the peer is done.

        Raises:
            LineTooLongError: the line is longer, and ``on_long`` is ``"raise"``.
            SocketTimeout: time ran out before the line was complete.
            ConnectionResetError: the peer reset the connection, and ``flags`` lack ``SAFE_DISCONN``.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: ``buffer`` is no bytearray, this is a datagram socket, or another argument is of
                the wrong type or out of its range.
        """
        require_resizable(buffer)
        buffer[:] = self._io.read(self, RECV_LINE_INTO, timeout, max_length, on_long, flags)
        return len(buffer)

    def _fits(self, max_length: int) -> bool:
        """Whether the next line that was split off ahead has at most ``max_length`` bytes."""
        return all(len(line) <= max_length for line in self._lines[-1:])

    def try_recv_line(self, max_length: int = MAX_LINE_LENGTH) -> tuple[ReadLineResult, bytes]:
        r"""Return a line if a whole one has arrived, and say what there is if not. It never waits.

        Args:
            max_length: bytes that a line may have, without its end; at least 1. A longer one is truncated.

        Returns:
            ``FULL_LINE`` and the line, an empty one as ``b"\r\n"``; ``PARTIAL_LINE`` and a copy of what there is
            of it; ``DISCONNECTED``, with a copy of what the peer left unfinished; or ``NONE`` and ``b""``.

        Raises:
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; ``max_length`` is no int, or less than 1.
        """
        try:
            line = self._io.read(self, TRY_RECV_LINE, 0, max_length, "truncate", SAFE_DISCONN)
        except SocketTimeout:
            assert self._core is not None
            partial = self._core.pending_line()
            return (ReadLineResult.PARTIAL_LINE if partial else ReadLineResult.NONE), partial
        if line:
            return ReadLineResult.FULL_LINE, line
        assert self._core is not None
        return ReadLineResult.DISCONNECTED, self._core.pending_line()

    def lines(self, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over the lines that the peer sends, without their ends; an empty one is ``b""``.

        It ends when the peer is done; the bytes of a line that was left unfinished stay readable with ``recv``. A
        timeout or a cancellation ends this iterator and loses nothing: what has arrived stays for the next read,
        another ``lines()`` for example.

        Args:
            max_length: bytes that a line may have, without its end; at least 1.
            timeout: seconds for each line; None waits for ever, 0 never waits.

        Returns:
            The iterator.

        Raises:
            LineTooLongError: a line is longer. Its bytes stay readable.
            SocketTimeout: time ran out before a line was complete.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or out of its range.
        """
        timeout = check_timeout(timeout)
        if check_size(max_length, "max_length") < 1:
            raise ValueError("max_length must be at least 1 byte")
        self._open_sock("lines")
        if self._core is None:
            self._refuse("lines")
        return self._iterate_lines(max_length, timeout)

    def _iterate_lines(self, max_length: int, timeout: float | None) -> Iterator[bytes]:
        ahead = self._lines
        unlimited = max_length >= BUFFER_SIZE  # no line is split off ahead that is longer
        while True:
            line = b""
            # The core is not kept in a variable: one that an interrupted call has lost would be taken for held.
            if ahead and unlimited and self._core.undo is None:  # type: ignore[union-attr]
                line = ahead[-1]
                del ahead[-1]
            else:
                line = self._io.read(self, LINES, timeout, max_length, "raise", SAFE_DISCONN)
                if not line:
                    return
            yield b"" if line == EMPTY_LINE else line

    def skip(self, size: int, timeout: float | None = None) -> None:
        """Receive ``size`` bytes and drop them.

        A timeout or a cancellation loses nothing: no byte is dropped, and none leaves the memory, before all of
        them are there.

        Args:
            size: bytes.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            EndOfStreamError: the peer was done, or gone, before. The bytes that came are its ``partial``, and stay
                readable with ``recv`` or ``recv_some``.
            SocketTimeout: time ran out first.
            BusyError: another thread or task is reading.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: a datagram socket; an argument is of the wrong type, or negative.
        """
        self._io.read(self, StreamCore.skip, timeout, size)

    # Writing.

    def send(self, data: Buffer, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None) -> None:
        """Send all of ``data``.

        Whoever sends at the same time takes turns: every ``send`` goes out whole. The buffer is the caller's again
        when the call returns. A timeout or a cancellation leaves the rest unsent; ``last_bytes_sent`` says how many
        bytes went out. On a datagram socket ``data`` is one datagram.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none. An empty one sends nothing on a stream.
            flags: with ``SAFE_DISCONN`` a peer that is gone is no error: the data cannot be delivered.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            SocketTimeout: time ran out; on a stream ``bytes_sent`` says how many bytes went out before.
            BrokenPipeError, ConnectionResetError: the peer is gone, and ``flags`` lack ``SAFE_DISCONN``; or this
                side has called ``shutdown_write``.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """
        io = self._io
        deadline = None
        if type(data) is bytes and flags is SAFE_DISCONN and timeout is None:
            payload: bytes | memoryview = data
            in_kernel = io.kernel_waits
        else:
            self.last_bytes_sent = 0  # for what is refused here
            payload = as_bytes_like(data)
            check_flags(flags)
            deadline = start_deadline(check_timeout(timeout))
            in_kernel = io.waits_in_kernel(deadline)
        writing = io.write_lock
        free = writing.free
        permit: Permit | None
        try:
            permit = (_NO_PERMITS if writing.queue else free).pop()
        except IndexError:
            permit = None
        if permit is None and (permit := self._wait_to_send(payload, deadline)) is None:
            return  # it was a datagram
        # The core is not kept in a variable here: it would look like one that a reader holds.
        sent = 0
        before: int | None = None
        try:
            before = self._core.accepted  # type: ignore[union-attr] # it is there: the lock was free
            # Mostly all of it fits. If not, and without a deadline, the kernel waits until all is sent.
            if in_kernel and payload:
                sent = io.sender.send(payload, NO_SIGNAL)
            while sent != len(payload) or self._core.unsent:  # type: ignore[union-attr]
                sent += io.send_more(payload, sent, deadline)
            self.last_bytes_sent = sent
        except BaseException as error:  # noqa: BLE001 -- raised again below
            # A signal handler may have interrupted the core after it took bytes, and before they were counted here.
            if before is not None:
                sent = max(sent, self._core.accepted - before)  # type: ignore[union-attr]
            self.last_bytes_sent = sent
            self._send_failed(error, flags)
        finally:
            free += writing.permits
            if writing.queue:
                writing.wake_next()
            if io.quiet_epoch is not process.epoch:
                io.leave(self)
            if self._core.has_output:  # type: ignore[union-attr]
                io.send_output(self)  # of a read, which found the lock taken

    def _wait_to_send(self, payload: bytes | memoryview, deadline: Deadline | None) -> Permit | None:
        """Queue for the write lock; or send a datagram and return None."""
        self.last_bytes_sent = 0
        if self._datagrams is not None:
            self.last_bytes_sent = self._datagrams.send(self, "send", payload, deadline)
            return None
        return self._io.queue_to_write(self, "send", deadline)

    def _send_failed(self, error: BaseException, flags: SocketFlag) -> None:
        """Raise the error that is being handled, unless it says that the peer is gone and ``flags`` allow that."""
        is_the_networks = isinstance(error, OSError) and not isinstance(error, SocketTimeout)
        if is_the_networks and not self._is_real(cast("OSError", error), flags, "send"):
            return
        try:
            raise error
        finally:
            del error  # the traceback keeps this frame

    def send_many(
        self, parts: Iterable[Buffer], flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> None:
        """Send many pieces, in order, as if they were one.

        For many small messages at once, as a server has that answers a client which did not wait for each answer: it
        costs one system call and, on TLS, one record where a ``send`` for each costs one of both for every message.
        The pieces are put together in memory first, so a large one is better off with a ``send`` of its own. A timeout
        or a cancellation leaves the rest unsent, as of ``send``.

        Args:
            parts: an iterable of ``bytes`` or other buffers.
            flags: as for ``send``.
            timeout: as for ``send``.

        Raises:
            TypeError: ``parts`` is no iterable of buffers (one buffer is none), or this is a datagram socket.
            SocketTimeout: time ran out; ``bytes_sent`` counts the bytes of all pieces together.
            BrokenPipeError, ConnectionResetError, ClosedError, OSError, ValueError: as for ``send``.
        """
        self.last_bytes_sent = 0
        payload = join_buffers(parts)
        self._open_sock("send_many")
        self._require("send_many", datagram=False)
        try:
            self.send(payload, flags, timeout)
        except (OSError, WirelineError) as error:
            rename_operation(error, "send", "send_many")
            raise

    def send_some(self, data: Buffer, timeout: float | None = None) -> int:
        """Send what there is room for with one low-level send.

        A timeout or a cancellation has sent nothing.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none.
            timeout: seconds to wait for room; None waits for ever, 0 never waits.

        Returns:
            How many bytes went out: at least one, unless ``data`` is empty.

        Raises:
            SocketTimeout: time ran out before there was room.
            BrokenPipeError, ConnectionResetError: the peer is gone, or this side has called ``shutdown_write``.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket is not connected, or the connection failed.
            TypeError, ValueError: an argument is of the wrong type, or negative.
        """
        self.last_bytes_sent = 0
        payload = as_bytes_like(data)
        deadline = start_deadline(check_timeout(timeout))
        if self._datagrams is not None:
            self.last_bytes_sent = self._datagrams.send(self, "send_some", payload, deadline)
            return self.last_bytes_sent
        permit = self._io.acquire_permit(self, "send_some", deadline)
        try:
            return self._io.send_some(self, payload, deadline)
        except SocketTimeout:
            raise
        except OSError as error:
            self._is_real(error, SocketFlag(0), "send_some")
            raise
        finally:
            del permit
            self._io.release_permit(self)

    def try_send(self, data: Buffer) -> bool:
        """Send ``data`` as far as there is room, and say whether all of it went out. It never waits.

        It is a plain call in both flavours. ``last_bytes_sent`` says how many bytes went out.

        Args:
            data: ``bytes`` or another buffer, ``str`` is none.

        Returns:
            True only if all of it went out: False if there was room for a part or nothing, if another task or thread
            is sending, and after any error of the socket.

        Raises:
            TypeError: ``data`` is no buffer.
        """
        self.last_bytes_sent = 0
        payload = as_bytes_like(data)
        if self._datagrams is not None:
            try:
                self.last_bytes_sent = self._datagrams.send(self, "try_send", payload, start_deadline(0))
            except OSError:
                return False
            return self.last_bytes_sent == len(payload)
        permit = self._io.write_lock.try_acquire()
        if permit is None:
            return False
        try:
            assert self._core is not None
            self.last_bytes_sent = self._send_available(self._core, payload)
            return self.last_bytes_sent == len(payload) and not self._core.unsent
        finally:
            del permit
            self._io.release_permit(self)

    def __iand__(self, data: Buffer) -> Self:
        """Send all of ``data``: ``sock &= data`` is ``sock.send(data)``."""
        self.send(data)
        return self

    def shutdown_write(self, timeout: float | None = None) -> None:
        """Send the end of the stream, and go on reading: half-close.

        It waits for those who are sending. A timeout or a cancellation leaves the stream as it is, open for
        writing. A peer that is gone needs no telling.

        Args:
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Raises:
            SocketTimeout: time ran out first.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the socket was never connected.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """
        deadline = start_deadline(check_timeout(timeout))
        permit = self._io.acquire_permit(self, "shutdown_write", deadline)
        try:
            self._write_shut = True
            self._io.flush("shutdown_write", deadline)
            shut_down_writing(self._io.sender)
            self._io.flush("shutdown_write", deadline)  # `close_notify`
        finally:
            del permit
            self._io.release_permit(self)

    # Datagrams.

    def send_to(
        self,
        address: str | IpAddress,
        port: int,
        data: Buffer,
        flags: SocketFlag = SAFE_DISCONN,
        timeout: float | None = None,
    ) -> int:
        """Send one datagram.

        A timeout or a cancellation has sent nothing.

        Args:
            address: a name, of which the first address is used, or an address; on a Unix socket the path.
            port: 0 to 65535; not used on a Unix socket.
            data: ``bytes`` or another buffer, ``str`` is none. An empty one is a datagram too.
            flags: none makes a difference here.
            timeout: seconds for the whole call, finding the name included; None waits for ever, 0 never waits.

        Returns:
            How many bytes were sent: all of them.

        Raises:
            SocketTimeout: time ran out first.
            socket.gaierror: the name does not resolve.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: too large (``EMSGSIZE``), no route, or an earlier datagram was refused
                (``ConnectionRefusedError``); the socket keeps working.
            TypeError, ValueError: a stream socket; an argument is of the wrong type, or out of its range.
        """
        self.last_bytes_sent = 0
        payload = as_bytes_like(data)
        check_flags(flags)
        deadline = start_deadline(check_timeout(timeout))
        self._require("send_to", datagram=True)
        with self._use("send_to"):
            target = self._destination(address, port, deadline)
            assert self._datagrams is not None
            self.last_bytes_sent = sent = self._datagrams.send_to(self, payload, target, deadline)
        return sent

    def _destination(self, address: str | IpAddress, port: int, deadline: Deadline | None) -> SockAddr:
        """Where a datagram goes: a path, or the first address of the name."""
        if self._sock.family == AF_UNIX:
            return unix_path(str(address) if isinstance(address, IpAddress) else address)
        return resolve(self, self._guard, "send_to", *check_peer_arguments(address, port), deadline)[0][4]

    def recv_from(
        self, size: int, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> Datagram:
        """Receive one datagram and its sender.

        An empty datagram is a datagram, not an end. A timeout or a cancellation takes no datagram away.

        Args:
            size: bytes to keep of it at most; the rest of a larger one is gone, and ``truncated`` says so.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            A ``Datagram``: ``(data, address)``, and ``truncated``.

        Raises:
            SocketTimeout: time ran out before a datagram came.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or the like; the socket keeps
                working.
            TypeError, ValueError: a stream socket; an argument is of the wrong type, or negative.
        """
        return self._require_datagrams("recv_from").receive(self, "recv_from", size, flags, timeout)

    def recv_from_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        flags: SocketFlag = SAFE_DISCONN,
        timeout: float | None = None,
    ) -> ReceivedInto:
        """Receive one datagram into the caller's buffer, as ``recv_from`` does.

        A timeout or a cancellation takes no datagram away and leaves the buffer as it was.

        Args:
            buffer: something writable and contiguous.
            size: bytes to keep of the datagram at most; None means the whole buffer.
            flags: ``PEEK`` leaves the datagram for the next call.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            A ``ReceivedInto``: ``(size, address)``, and ``truncated``.

        Raises:
            SocketTimeout: time ran out before a datagram came.
            BusyError: another thread or task is receiving.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: an earlier datagram was refused (``ConnectionRefusedError``), or the like; the socket keeps
                working.
            TypeError: a stream socket, or the buffer cannot be written to.
            ValueError: ``size`` is negative or more than the buffer has, or ``timeout`` is negative.
        """
        target = as_writable_view(buffer, size)
        return self._require_datagrams("recv_from_into").receive_into(
            self, "recv_from_into", target, flags, timeout
        )

    def _require_datagrams(self, operation: str) -> DatagramIO:
        self._open_sock(operation)
        self._require(operation, datagram=True)
        assert self._datagrams is not None
        return self._datagrams

    # Connecting.

    def connect(self, address: str | IpAddress, port: int = 0, timeout: float | None = None) -> None:
        """Connect to a host, to each of its addresses in turn until one answers.

        The addresses are those of the socket's own family; see ``dial`` for both, raced. A datagram socket sends
        nothing: it only learns whom ``send`` and ``recv`` are for. After an error, a timeout or a cancellation the
        socket is unconnected, keeps its options, and may be connected again.

        Args:
            address: a name or an address.
            port: 0 to 65535.
            timeout: seconds for the whole call, finding the name included; None waits for ever.

        Raises:
            SocketTimeout: time ran out first.
            socket.gaierror: the name does not resolve.
            BusyError: another thread or task is connecting this socket.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: the last address's error (``ConnectionRefusedError``, ...), or the socket is connected or
                listening already.
            TypeError, ValueError: a Unix socket (see ``connect_unix``); an argument is of the wrong type, or out of
                its range.
        """
        host, port = check_peer_arguments(address, port)
        deadline = start_deadline(check_timeout(timeout))
        with self._use_alone("connect") as sock:
            if sock.family not in (AF_INET, AF_INET6):
                raise TypeError("connect needs an IP socket, this is a Unix socket: see connect_unix")
            self._may_connect("connect")
            secure = self._client_core(host, port)
            found = resolve(self, self._guard, "connect", host, port, deadline)
            self._connect_to_any("connect", [info[4] for info in found], secure, deadline)

    def connect_unix(self, path: UnixPath, timeout: float | None = None) -> None:
        """Connect to a Unix socket.

        After an error, a timeout or a cancellation the socket is unconnected and may be connected again.

        Args:
            path: a path, or on Linux an abstract name (a leading NUL).
            timeout: seconds for the whole call; None waits for ever.

        Raises:
            SocketTimeout: time ran out before the listener had room for one more.
            BusyError: another thread or task is connecting this socket.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: nobody listens there (``ConnectionRefusedError``), nothing is there (``FileNotFoundError``), or
                the socket is connected or listening already.
            TypeError, ValueError: an IP socket (see ``connect``); no path, an empty one or one that is too long.
        """
        where = unix_path(path)
        deadline = start_deadline(check_timeout(timeout))
        with self._use_alone("connect_unix") as sock:
            if sock.family != AF_UNIX:
                raise TypeError("connect_unix needs a Unix socket, this is an IP socket: see connect")
            self._may_connect("connect_unix")
            self._connect_to_any("connect_unix", [where], self._client_core("", 0), deadline)

    def _connect_to_any(
        self, operation: str, targets: Sequence[SockAddr], secure: TlsCore | None, deadline: Deadline | None
    ) -> None:
        """Try one address after the other, each on a fresh descriptor if the last one failed (C3)."""
        if self._spoiled:
            self._renew()
        target = targets[0]
        try:
            for position, target in enumerate(targets, 1):
                try:
                    connect_to(self, self._guard, operation, target, deadline)
                    break
                except OSError as error:
                    error.add_note(f"while connecting to {target!r}")
                    # Without a number it is a signal handler's, which is not to be taken for the address's.
                    if position == len(targets) or isinstance(error, WirelineError) or error.errno is None:
                        raise
                    self._renew()
            self._connected(target, secure)
            if secure is not None:
                self._handshake_first(secure, operation, deadline)
        except BaseException:
            if not self._closing.locked():
                # What has failed is not fit for another try. Without a descriptor to be had that one begins with this.
                self._spoiled = True
                if (
                    self._state is State.CONNECTED
                ):  # an exception came when it was connected, and not returned yet
                    self._unconnected()
                with contextlib.suppress(OSError):
                    self._renew()
            raise

    def _handshake_first(self, tls_core: TlsCore, operation: str, deadline: Deadline | None) -> None:
        """Make the handshake before any call may use the connection."""
        try:
            self._io.handshake(self, tls_core, operation, deadline)
        except BaseException:
            self._unconnected()
            raise
        self._published()

    # Accepting.

    def accept_addr(
        self, flags: SocketFlag = SAFE_DISCONN, inheritable: bool = False, timeout: float | None = None
    ) -> Accepted:
        """Accept a connection; return its socket and who it is.

        The new socket is buffered if this one is. A timeout or a cancellation accepts nobody: who has connected is
        there for the next call.

        Args:
            flags: with ``SAFE_DISCONN`` a client that went away before it was accepted is skipped.
            inheritable: whether a program that this process executes gets the new descriptor too.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            An ``Accepted``: ``(client, address)``. The address of a Unix client is its path, ``""`` as a rule, and
            port 0.

        Raises:
            SocketTimeout: time ran out before anybody connected.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """
        return self._accept("accept_addr", flags, inheritable, timeout)

    def accept(
        self, flags: SocketFlag = SAFE_DISCONN, inheritable: bool = False, timeout: float | None = None
    ) -> Socket:
        """Accept a connection and return its socket.

        The new socket is buffered if this one is. A timeout or a cancellation accepts nobody: who has connected is
        there for the next call.

        Args:
            flags: with ``SAFE_DISCONN`` a client that went away before it was accepted is skipped.
            inheritable: whether a program that this process executes gets the new descriptor too.
            timeout: seconds for the whole call; None waits for ever, 0 never waits.

        Returns:
            The client's socket.

        Raises:
            SocketTimeout: time ran out before anybody connected.
            ClosedError: this side closed the socket, before or meanwhile.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError, ValueError: a datagram socket; ``timeout`` is no number, or negative.
        """
        return self._accept("accept", flags, inheritable, timeout).client

    def _accept(
        self, operation: str, flags: SocketFlag, inheritable: bool, timeout: float | None
    ) -> Accepted:
        check_flags(flags)
        deadline = start_deadline(check_timeout(timeout))
        client, address = self._accept_plain(operation, flags, inheritable, deadline)
        if self._tls is not None:
            with self._welcome(client):
                client._upgrade_by(client._server_core(self._tls), deadline, operation)
        return Accepted(client, address)

    def _accept_plain(
        self, operation: str, flags: SocketFlag, inheritable: bool, deadline: Deadline | None
    ) -> Accepted:
        with self._use(operation) as listener:
            self._require(operation, datagram=False)
            if self._state is not State.LISTENING:
                raise OSError(errno.EINVAL, f"{operation}: the socket is {self._state.value}, not listening")
            while True:
                try:
                    sock, sockaddr = until_ready(
                        self, self._guard, operation, deadline, lambda: accept_now(listener, self._unclaimed)
                    )
                    break
                except OSError as error:
                    if isinstance(error, WirelineError) or not is_failed_before_accept(flags, error):
                        raise
        address = to_display_address(sockaddr)
        return Accepted(self._accepted(sock, address, inheritable), address)

    def try_accept_addr(self) -> tuple[AcceptResult, Socket | None, Address | None]:
        """Accept a connection if somebody has connected. It never waits.

        Returns:
            ``SUCCESS``, the client's socket and its address; or ``NO_CLIENT``, None and None. Of a TLS listener
            also ``NO_HANDSHAKE``, None and None: a client has come, and is handed out by a later call, when the
            handshake is done; or another thread is in this call. A client that takes more than 10 s is
            closed. 256 clients are kept at most, and a call looks only at those that have sent something. Further
            ones wait to be accepted, and take the place of a client that has been in its handshake for a second.

        Raises:
            ClosedError: this side closed the socket.
            OSError: no descriptor is left (``EMFILE``, ``ENFILE``), or the socket is not listening.
            TypeError: a datagram socket.
        """
        if self._tls is not None:
            return self._next_ready_client(
                cast("Callable[[], tuple[Self, Address] | None]", self._accept_now)
            )
        accepted = self._accept_now()
        if accepted is None:
            return AcceptResult.NO_CLIENT, None, None
        return AcceptResult.SUCCESS, accepted.client, accepted.address

    def _accept_now(self) -> Accepted | None:
        """A client that has connected; None if none has."""
        try:
            return self._accept_plain("try_accept_addr", SAFE_DISCONN, False, start_deadline(0))
        except SocketTimeout:
            return None

    # The states of the descriptor.

    def _take_core(self, core: StreamCore) -> None:
        super()._take_core(core)
        self._io.use_core(core, self._sender)

    def _opened(self) -> None:
        assert self._core is not None
        self._io.connected(self._core)

    def _published(self) -> None:
        self._guard.publish()
        if self._io.quiet_epoch is not process.epoch:
            self._io.leave(self)

    def _unconnected(self) -> None:
        self._io.unconnected()
        super()._unconnected()

    def _let_go(self, old: socket.socket) -> None:
        self._guard.sock = self._sock
        self._io.sender = self._sock
        super()._let_go(old)

    def _use(self, operation: str) -> AbstractContextManager[socket.socket]:
        return Use(self._guard, operation)

    def _use_alone(self, operation: str) -> AbstractContextManager[socket.socket]:
        """The same, and refuse a second thread that connects."""
        return Use(self._guard, operation, alone=True)

    def _inherit(self) -> None:
        self._io.inherit()
        if self._closing.locked():  # by another thread, in this moment
            self._io.quiet_epoch = None

    def _is_in_use(self) -> bool:
        return self._guard.is_in_use()

    def _abandon(self) -> None:
        self._io.quiet_epoch = None
        close_unclaimed(self._unclaimed)
        self._guard.abandon()

    def _retire(self, linger: float | None) -> None:
        self._io.quiet_epoch = None
        self._guard.begin_close(functools.partial(self._dispose, linger))

    def _dispose(self, linger: float | None) -> None:
        close_unclaimed(self._unclaimed)
        self._deaf = self._guard.read_shutdown
        super()._dispose(linger)

    def _is_disposed(self) -> bool:
        return self._guard.disposed

    def _give_up(self) -> int:
        # `detach` is a close that keeps the descriptor, and unlike `close` it does not send calls away.
        self._guard.give_up()
        self._io.quiet_epoch = None
        return super()._give_up()

    # TLS.

    def _hold(self, operation: str) -> object:
        return self._io.hold(self, operation)

    def _send_output(self) -> None:
        self._io.send_output(self)

    def _upgrade(self, tls_core: TlsCore, timeout: float | None, leftover: str) -> None:
        """Go over to TLS: ``SslContext.wrap_connected_socket``."""
        deadline = start_deadline(check_timeout(timeout))
        self._upgrade_by(tls_core, deadline, "wrap_connected_socket", leftover)

    def _upgrade_by(
        self, tls_core: TlsCore, deadline: Deadline | None, operation: str, leftover: str = "refuse"
    ) -> None:
        held = self._hold(operation)
        assert self._core is not None
        try:
            self._begin_upgrade(tls_core, self._core, leftover)
            self._io.handshake(self, tls_core, operation, deadline)
        finally:
            del held
            self._published()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Accepted(NamedTuple):
    """A connection that was accepted, and who made it."""

    client: Socket
    address: Address
