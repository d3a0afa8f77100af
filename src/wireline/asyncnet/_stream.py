"""The async flavour's stream: ask the core, and while it has no answer, wait for it (see ``_waiting``)."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.lines import EMPTY_LINE
from wireline._core.named import LINES, RECV_INTO, RECV_LINE_INTO, TRY_RECV_LINE
from wireline._core.stream import LINE, SOME, StreamCore, check_size
from wireline._os.datagram import Datagram
from wireline._os.descriptor import State, shut_down_writing
from wireline._socket_base import closed_meanwhile
from wireline._validation import Buffer, joined, require_resizable, sendable, writable
from wireline.asyncnet._operations import NOW, Send
from wireline.asyncnet._port import Port
from wireline.asyncnet._waiting import WaitingStream
from wireline.errors import BusyError, SocketTimeout, WirelineError, rename
from wireline.options import (
    BUFFER_SIZE,
    MAX_LINE_LENGTH,
    SAFE_DISCONN,
    ReadLineResult,
    SocketFlag,
    check_flags,
)

__all__ = ["AsyncStream"]

# What `recv_some` is mostly asked for. A tuple of its own for each that waits would be 60 bytes a connection.
_ANYTHING = (BUFFER_SIZE, SAFE_DISCONN)


class AsyncStream(WaitingStream):
    """The part of an ``AsyncSocket`` that reads and writes a connected stream."""

    _module = "wireline.asyncnet"
    last_bytes_sent: int

    # What a datagram socket does instead.

    async def _receive(self, operation: str, size: int, flags: SocketFlag, timeout: float | None) -> Datagram:
        size = check_size(size)
        check_flags(flags)
        timeout = check_timeout(timeout)
        datagrams = self._datagrams(operation)
        return await datagrams.receive(operation, size, flags, self._deadline(timeout))

    async def _send_datagram(self, operation: str, payload: bytes | memoryview, timeout: float | None) -> int:
        datagrams = self._datagrams(operation)
        if self._state is not State.CONNECTED:
            raise OSError(errno.EDESTADDRREQ, f"{operation}: the socket is unconnected, see send_to")
        sent = await datagrams.send(operation, payload, None, self._deadline(timeout))
        self.last_bytes_sent = sent
        return sent

    # Reading.

    async def recv(self, size: int, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN) -> bytes:
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
        if self._core is None and self._is_datagram:
            return (await self._receive("recv", size, flags, timeout)).data
        answer = self._ask(StreamCore.recv, timeout, size, flags)
        return await self._wait_for(StreamCore.recv, timeout, size, flags) if answer is None else answer

    async def recv_into(
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
        with writable(buffer, size) as target:
            if self._core is None and self._is_datagram:
                data = (await self._receive("recv_into", len(target), flags, timeout)).data
            else:
                answer = self._ask(RECV_INTO, timeout, len(target), flags)
                if answer is None:
                    answer = await self._wait_for(RECV_INTO, timeout, len(target), flags)
                data = answer
            target[: len(data)] = data
        return len(data)

    async def recv_some(
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
        core = self._core
        if (
            # One message after the other: the core would answer "not yet", so no request is made (a sixth of our time).
            core is not None
            and core.fast_recv_ok
            and (waiter := self._fd.read_waiter) is not None
            and flags is SAFE_DISCONN
            and (max_size is BUFFER_SIZE or (type(max_size) is int and 0 < max_size <= BUFFER_SIZE))
            and (timeout is None or (timeout := check_timeout(timeout)) != 0)
            and waiter.port.loop is waiter.get_loop()
        ):
            core.direct = SOME
            core.direct_limit = max_size
            args = _ANYTHING if max_size is BUFFER_SIZE else (max_size, flags)
            return await waiter.wait(StreamCore.recv_some, args, timeout)
        if self._core is None and self._is_datagram:
            return (await self._receive("recv_some", max_size, flags, timeout)).data
        answer = self._ask(StreamCore.recv_some, timeout, max_size, flags)
        if answer is None:
            answer = await self._wait_for(StreamCore.recv_some, timeout, max_size, flags)
        return answer

    async def recv_exactly(self, size: int, timeout: float | None = None) -> bytes:
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
        answer = self._ask(StreamCore.recv_exactly, timeout, size)
        return await self._wait_for(StreamCore.recv_exactly, timeout, size) if answer is None else answer

    async def recv_until(
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
        answer = self._ask(StreamCore.recv_until, timeout, delimiter, max_length)
        if answer is None:
            answer = await self._wait_for(StreamCore.recv_until, timeout, delimiter, max_length)
        return answer

    async def recv_line(
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
        # The fast lane: a line that was split off ahead, at the cost of `list.pop`.
        lines = self._lines
        fd = self._fd
        if (
            lines
            and (left := (port := fd.port).budget) > 0
            and flags is SAFE_DISCONN
            and on_long == "truncate"
        ):
            if timeout is not None:
                check_timeout(timeout)
            if max_length is not MAX_LINE_LENGTH:
                max_length = check_size(max_length, "max_length")
            port.budget = left - 1
            try:
                line = lines.pop()
            except IndexError:
                raise closed_meanwhile("recv_line") from None  # it has cleared them in this moment
            # No line ahead is longer than the default: that is not asked in each call.
            if max_length is MAX_LINE_LENGTH or len(line) <= max_length:
                return line
            lines.append(line)
        core = self._core
        if (
            core is not None
            and core.fast_recv_ok
            and (waiter := fd.read_waiter) is not None
            and flags is SAFE_DISCONN
            and (max_length is MAX_LINE_LENGTH or (type(max_length) is int and max_length > 0))
            and on_long in ("truncate", "raise")
            and (timeout is None or (timeout := check_timeout(timeout)) != 0)
            and waiter.port.loop is waiter.get_loop()
        ):
            core.direct = LINE
            core.direct_limit = max_length
            return await waiter.wait(StreamCore.recv_line, (max_length, on_long, flags), timeout)
        resting = self._resting
        port = fd.port
        left = port.budget
        if resting and timeout is None and left > 0 and not lines and port.loop is port.running_loop():
            port.budget = left - 1
            answer = resting[0].recv_line(max_length, on_long, flags)  # what `_ask` does, without the call
        elif (
            lines and left <= 0 and flags is SAFE_DISCONN and on_long == "truncate" and port.loop is not None
        ):
            check_timeout(timeout)
            if check_size(max_length, "max_length") < 1:
                raise ValueError("max_length must be at least 1 byte")
            # Not by the core: it would take all lines ahead back.
            await self._enter().checkpoint()
            return await self.recv_line(timeout, flags, max_length, on_long=on_long)
        else:
            answer = self._ask(StreamCore.recv_line, timeout, max_length, on_long, flags)
        if answer is None:
            answer = await self._wait_for(StreamCore.recv_line, timeout, max_length, on_long, flags)
        return answer

    async def recv_line_into(
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
        answer = self._ask(RECV_LINE_INTO, timeout, max_length, on_long, flags)
        if answer is None:
            answer = await self._wait_for(RECV_LINE_INTO, timeout, max_length, on_long, flags)
        buffer[:] = answer
        return len(buffer)

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
        if not self._resting:
            self._raise_not_readable("try_recv_line")
        lines = self._lines
        # No line ahead is longer than the default: that is not asked in each call.
        if lines and (
            max_length is MAX_LINE_LENGTH or len(lines[-1]) <= check_size(max_length, "max_length")
        ):
            return ReadLineResult.FULL_LINE, lines.pop()
        line = self._feed_available(TRY_RECV_LINE, max_length, "truncate", SAFE_DISCONN)
        if line:
            return ReadLineResult.FULL_LINE, line
        assert self._core is not None
        partial = self._core.pending_line()
        if line is not None:
            return ReadLineResult.DISCONNECTED, partial
        return (ReadLineResult.PARTIAL_LINE if partial else ReadLineResult.NONE), partial

    def lines(self, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None) -> AsyncIterator[bytes]:
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
        return _Lines(self, max_length, timeout)

    async def skip(self, size: int, timeout: float | None = None) -> None:
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
        if self._ask(StreamCore.skip, timeout, size) is None:
            await self._wait_for(StreamCore.skip, timeout, size)

    # Writing.

    async def send(
        self, data: Buffer, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> None:
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
        if type(data) is bytes and flags is SAFE_DISCONN and timeout is None:
            payload: bytes | memoryview = data
        else:
            self.last_bytes_sent = 0  # for what is refused here
            payload = data if type(data) is bytes else sendable(data)
            check_flags(flags)
            timeout = check_timeout(timeout)
        fd = self._fd
        port = fd.port
        left = port.budget
        sent: int | None = None
        if (
            # Mostly there is room for all of it: one attempt, without an await, needs no lock.
            left > 0
            and not fd.write_lock.locked
            and payload
            and (fd.write_queue is None or not fd.write_queue.in_flight)
            and port.loop is port.running_loop()
        ):
            port.budget = left - 1
            try:
                sent = self._sender.send(payload, NOW)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.last_bytes_sent = 0
                if self._is_real(error, flags, "send"):
                    raise
                await self._fd.port.checkpoint()  # it could not deliver (FA23)
                return
            if sent == (size := len(payload)) and not self._core.unsent:  # type: ignore[union-attr] # it is connected
                self.last_bytes_sent = size
                return
        await self._send_locked(payload, sent, flags, timeout)

    async def send_many(
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
        payload = joined(parts)
        self._open_sock("send_many")
        self._require("send_many", datagram=False)
        try:
            await self.send(payload, flags, timeout)
        except (OSError, WirelineError) as error:
            rename(error, "send", "send_many")
            raise

    async def _send_locked(
        self, payload: bytes | memoryview, sent: int | None, flags: SocketFlag, timeout: float | None
    ) -> None:
        """Send what one attempt has left, or all if there was none yet, with the write lock held."""
        self.last_bytes_sent = sent or 0
        if not payload:
            self._open_sock("send")
        port = self._enter()
        deadline = self._deadline(timeout)
        lock = self._fd.write_lock
        if lock.locked:
            if self._core is None and self._is_datagram:
                await self._send_datagram("send", payload, timeout)
                return
            try:
                await self._acquire_write_lock("send", deadline)
            except BaseException:
                self.last_bytes_sent = 0  # the count of another task may be there by now
                raise
        lock.locked = True
        if sent is None:
            if port.budget <= 0:
                await self._pause_in_turn(port)
            port.budget -= 1
        if not await self._send_rest_of(payload, sent or 0, flags, deadline):
            await self._fd.port.checkpoint()  # it could not deliver (FA23)

    async def _pause_in_turn(self, port: Port) -> None:
        """Let the others go on, and keep the place among the writers."""
        try:
            await port.checkpoint()
        except BaseException:
            self.last_bytes_sent = 0
            self._release_write_lock()
            raise

    async def _send_rest_of(
        self, payload: bytes | memoryview, sent: int, flags: SocketFlag, deadline: Deadline | None
    ) -> bool:
        """Send a message from ``sent`` on and release the write lock; return False if the peer is gone."""
        core = self._core
        assert core is not None
        size = len(payload)
        job: Send | None = None
        try:
            if self._write_in_flight():  # an operation of a send that was given up
                await self._send_remaining("send", Send(self._sock, b"", 0), deadline)
            if core.unsent:
                await self._flush(core, "send", deadline, sent)
            while sent < size:
                try:
                    sent += self._sender.send(memoryview(payload)[sent:] if sent else payload, NOW)
                except BlockingIOError:
                    job = Send(self._sock, payload, sent)
                    await self._send_remaining("send", job, deadline)
                    sent = job.sent
                if core.unsent:
                    await self._flush(core, "send", deadline, sent)
            core.message_incomplete = False
        except SocketTimeout:
            raise
        except OSError as error:
            if self._is_real(error, flags, "send"):
                raise
            return False
        finally:
            if job is not None:
                sent = job.sent
                job.release()
            elif type(payload) is memoryview:
                payload.release()  # W4: an exception would keep the caller's buffer
            self.last_bytes_sent = sent
            self._release_write_lock()
        return True

    async def send_some(self, data: Buffer, timeout: float | None = None) -> int:
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
        payload = sendable(data)
        timeout = check_timeout(timeout)
        if self._core is None and self._is_datagram:
            return await self._send_datagram("send_some", payload, timeout)
        port = self._enter()
        deadline = self._deadline(timeout)
        await self._acquire_write_lock("send_some", deadline)
        try:
            if port.budget <= 0:
                await port.checkpoint()
            port.budget -= 1
            self.last_bytes_sent = 0  # the task that wrote before may have set it meanwhile
            core = self._core
            assert core is not None
            await self._flush(core, "send_some", deadline, 0)
            if not payload:
                return 0
            if core.seals:
                await self._wait_writable("send_some", deadline)  # a timeout is to have sent nothing
            self.last_bytes_sent = sent = await self._send_once("send_some", payload, deadline)
            # A whole record, or the peer waits for its rest while we wait for its answer.
            with contextlib.suppress(SocketTimeout):  # the next send takes the rest along
                await self._flush(core, "send_some", deadline)
            core.message_incomplete = False
            return sent
        except SocketTimeout as error:
            raise SocketTimeout("send_some", error.seconds, 0) from None
        except OSError as error:
            self._is_real(error, SocketFlag(0), "send_some")
            raise
        finally:
            self._release_write_lock()

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
        payload = sendable(data)
        if self._closing.locked() or self._write_in_flight():
            return False
        is_datagram = self._core is None and self._is_datagram and self._state is State.CONNECTED
        if is_datagram:
            if self._fd.write_queue is not None and self._fd.write_queue.busy:
                return False
        elif self._core is None or self._fd.write_lock.locked:
            return False
        if is_datagram:
            try:
                self.last_bytes_sent = self._sock.send(payload, NOW)
            except OSError as error:
                self._note_reset(error)
                return False
            return self.last_bytes_sent == len(payload)
        core = self._core
        assert core is not None
        self.last_bytes_sent = self._send_available(core, payload)
        return self.last_bytes_sent == len(payload) and not core.unsent

    async def shutdown_write(self, timeout: float | None = None) -> None:
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
        deadline = self._deadline(check_timeout(timeout))
        self._enter()
        await self._acquire_write_lock("shutdown_write", deadline)
        try:
            if self._write_in_flight():  # what it has counts as sent
                await self._send_remaining("shutdown_write", Send(self._sock, b"", 0), deadline)
            core = self._core
            assert core is not None
            self._write_shut = True
            await self._flush(core, "shutdown_write", deadline)
            shut_down_writing(self._sender)
            await self._flush(core, "shutdown_write", deadline)  # `close_notify`
        finally:
            self._release_write_lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Lines:
    """The iterator behind ``lines``. An object and not a generator: leaving the loop early leaves no task behind."""

    __slots__ = ("_ahead", "_fd", "_max_length", "_over", "_stream", "_timeout")

    def __init__(self, stream: AsyncStream, max_length: int, timeout: float | None) -> None:
        self._stream = stream
        self._fd = stream._fd
        self._max_length = max_length
        self._timeout = timeout
        # No line is split off ahead that is longer than a buffer.
        self._ahead = stream._lines if max_length >= BUFFER_SIZE else []
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        ahead = self._ahead
        port = self._fd.port
        left = port.budget
        if ahead and left > 0:
            port.budget = left - 1
            try:
                line = ahead.pop()
            except IndexError:
                raise closed_meanwhile("lines") from None  # it has cleared them in this moment
        else:
            if self._over:
                raise StopAsyncIteration
            try:
                line = await self._next()
            except BusyError:
                raise  # to the second task that iterates; the first is unharmed
            except BaseException:
                self._end()  # like a generator, it does not outlive an exception
                raise
            if not line:
                self._end()
                raise StopAsyncIteration
        return b"" if line is EMPTY_LINE else line

    def _end(self) -> None:
        self._over = True
        self._ahead = []

    async def _next(self) -> bytes:
        stream, timeout, max_length = self._stream, self._timeout, self._max_length
        if self._ahead:
            await stream._enter().checkpoint()
            if self._ahead:
                self._fd.port.budget -= 1
                return self._ahead.pop()
        core = stream._core
        waiter = self._fd.read_waiter
        if (
            core is not None
            and core.fast_recv_ok
            and waiter is not None
            and timeout != 0
            and waiter.port.loop is waiter.get_loop()
        ):
            core.direct = LINE
            core.direct_limit = max_length
            return await waiter.wait(LINES, (max_length, "raise", SAFE_DISCONN), timeout)
        answer = stream._ask(LINES, timeout, max_length, "raise", SAFE_DISCONN)
        if answer is None:
            answer = await stream._wait_for(LINES, timeout, max_length, "raise", SAFE_DISCONN)
        return answer
