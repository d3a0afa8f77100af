"""The async flavour's stream: ask the core, and while it has no answer, wait for it (see ``_waiting``)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self

from wireline import _promises
from wireline._arguments import Buffer, joined, require_resizable, sendable, writable
from wireline._datagram import Datagram
from wireline._descriptor import shut_down_writing
from wireline._sansio.deadline import Deadline, check_timeout
from wireline._sansio.lines import EMPTY_LINE
from wireline._sansio.stream import StreamCore, check_size
from wireline.asyncnet._asyncio import running_loop
from wireline.asyncnet._jobs import Send
from wireline.asyncnet._waiting import WaitingStream
from wireline.errors import BusyError, SocketTimeout
from wireline.options import (
    BUFFER_SIZE,
    MAX_LINE_LENGTH,
    NO_SIGNAL,
    SAFE_DISCONN,
    ReadLineResult,
    SocketFlag,
    check_flags,
)

__all__ = ["AsyncStream"]

# What `recv_some` is mostly asked for. A tuple of its own for each that waits would be 60 bytes a connection.
_ANYTHING = (BUFFER_SIZE, SAFE_DISCONN)


@_promises.documented(_promises.SocketPromises)
class AsyncStream(WaitingStream):
    """The part of an ``AsyncSocket`` that reads and writes a connected stream."""

    _module = "wireline.asyncnet"
    last_bytes_sent: int

    # What a datagram socket does instead, in the class below.

    async def recv_from(
        self, size: int, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> Datagram:
        raise NotImplementedError

    async def _send_datagram(self, operation: str, payload: bytes | memoryview, timeout: float | None) -> int:
        raise NotImplementedError

    # Reading.

    async def recv(self, size: int, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN) -> bytes:
        if self._core is None and self._is_datagram:
            return (await self.recv_from(size, flags, timeout)).data
        answer = self._ask(StreamCore.recv, timeout, size, flags)
        return await self._wait_for(StreamCore.recv, timeout, size, flags) if answer is None else answer

    async def recv_into(
        self,
        buffer: bytearray | memoryview,
        size: int | None = None,
        timeout: float | None = None,
        flags: SocketFlag = SAFE_DISCONN,
    ) -> int:
        with writable(buffer, size) as target:
            data = await self.recv(len(target), timeout, flags)
            target[: len(data)] = data
        return len(data)

    async def recv_some(
        self, max_size: int = BUFFER_SIZE, timeout: float | None = None, flags: SocketFlag = SAFE_DISCONN
    ) -> bytes:
        reader = self._fd.stream_reader
        if (
            # Here and in `recv_line` every message comes by: no call for what the reader knows (a sixth of our time).
            reader is not None
            and reader.at_rest
            and flags is SAFE_DISCONN
            and type(max_size) is int
            and 0 < max_size <= BUFFER_SIZE
            and (timeout is None or (timeout := check_timeout(timeout)) != 0)
            and self._fd.state.loop is running_loop()
        ):
            args = _ANYTHING if max_size is BUFFER_SIZE else (max_size, flags)
            return await reader.wait(StreamCore.recv_some, args, timeout, max_size)
        if self._core is None and self._is_datagram:
            return (await self.recv_from(max_size, flags, timeout)).data
        answer = self._ask(StreamCore.recv_some, timeout, max_size, flags)
        if answer is None:
            # After more than a buffer the reader is not `at_rest`: the core wants to ask for less again.
            small = type(max_size) is int and max_size <= BUFFER_SIZE
            most = max_size if small and flags is SAFE_DISCONN else 0
            answer = await self._wait_for(StreamCore.recv_some, timeout, max_size, flags, most=most)
        return answer

    async def recv_exactly(self, size: int, timeout: float | None = None) -> bytes:
        answer = self._ask(StreamCore.recv_exactly, timeout, size)
        return await self._wait_for(StreamCore.recv_exactly, timeout, size) if answer is None else answer

    async def recv_until(
        self, delimiter: bytes, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None
    ) -> bytes:
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
        # The fast lane: a line that was split off ahead, at the cost of `list.pop`.
        lines = self._lines
        if lines and flags is SAFE_DISCONN and on_long == "truncate":
            if timeout is not None:
                check_timeout(timeout)
            if max_length is not MAX_LINE_LENGTH:
                max_length = check_size(max_length, "max_length")
            line = lines.pop()
            # No line ahead is longer than the default: that is not asked in each call.
            if max_length is MAX_LINE_LENGTH or len(line) <= max_length:
                return line
            lines.append(line)
        reader = self._fd.stream_reader
        if (
            reader is not None
            and reader.at_rest
            and flags is SAFE_DISCONN
            and type(max_length) is int
            and max_length > 0
            and on_long in ("truncate", "raise")
            and (timeout is None or (timeout := check_timeout(timeout)) != 0)
            and self._fd.state.loop is running_loop()
        ):
            args = (max_length, on_long, flags)
            most = max_length if self._resting[0].plain else 0
            return await reader.wait(StreamCore.recv_line, args, timeout, most, True)
        resting = self._resting
        if resting and timeout is None:
            answer = resting[0].recv_line(max_length, on_long, flags)  # what `_ask` does, without the call
        else:
            answer = self._ask(StreamCore.recv_line, timeout, max_length, on_long, flags)
        if answer is None:
            most = max_length if flags is SAFE_DISCONN and type(max_length) is int else 0
            answer = await self._wait_for(
                StreamCore.recv_line, timeout, max_length, on_long, flags, most=most, is_line=True
            )
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
        require_resizable(buffer)
        buffer[:] = await self.recv_line(timeout, flags, max_length, on_long=on_long)
        return len(buffer)

    def try_recv_line(self, max_length: int = MAX_LINE_LENGTH) -> tuple[ReadLineResult, bytes]:
        if not self._resting:
            self._cannot_read(StreamCore.recv_line.__name__)
        lines = self._lines
        # No line ahead is longer than the default: that is not asked in each call.
        if lines and (
            max_length is MAX_LINE_LENGTH or len(lines[-1]) <= check_size(max_length, "max_length")
        ):
            return ReadLineResult.FULL_LINE, lines.pop()
        line = self._read_now(StreamCore.recv_line, max_length, "truncate", SAFE_DISCONN)
        if line:
            return ReadLineResult.FULL_LINE, line
        assert self._core is not None
        partial = self._core.pending_line()
        if line is not None:
            return ReadLineResult.DISCONNECTED, partial
        return (ReadLineResult.PARTIAL_LINE if partial else ReadLineResult.NONE), partial

    def lines(self, max_length: int = MAX_LINE_LENGTH, timeout: float | None = None) -> AsyncIterator[bytes]:
        timeout = check_timeout(timeout)
        if check_size(max_length, "max_length") < 1:
            raise ValueError("max_length must be at least 1 byte")
        self._open_sock("lines")
        if self._core is None:
            self._refuse("lines")
        return _Lines(self, max_length, timeout)

    async def skip(self, size: int, timeout: float | None = None) -> None:
        if self._ask(StreamCore.skip, timeout, size) is None:
            await self._wait_for(StreamCore.skip, timeout, size)

    # Writing.

    async def send(
        self, data: Buffer, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> None:
        payload = data if type(data) is bytes else sendable(data)
        if flags is not SAFE_DISCONN:
            check_flags(flags)
        if timeout is not None:
            timeout = check_timeout(timeout)
        sent = None
        turn = self._fd.turn
        secure = self._secure
        if not turn.held and payload and (self._fd.writer is None or not self._fd.writer.in_flight):
            # Mostly there is room for all of it: one attempt, without an await, needs no turn.
            try:
                if secure is None:
                    sent = self._sock.send(payload, NO_SIGNAL)
                elif len(payload) <= secure.slice_size and not secure.rest:
                    sent = 0
                    if self._seal_and_send(secure, payload):
                        secure.midway = False
                        sent = len(payload)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.last_bytes_sent = 0
                if self._is_real(error, flags, "send"):
                    raise
                return
            if sent == len(payload):
                self.last_bytes_sent = len(payload)
                return
        if not payload:
            self._open_sock("send")
        deadline = self._deadline(timeout)
        if turn.held:
            if self._core is None and self._is_datagram:
                self.last_bytes_sent = await self._send_datagram("send", payload, timeout)
                return
            try:
                await self._take_turn("send", deadline)
            except BaseException:
                self.last_bytes_sent = 0
                raise
        turn.held = True
        if secure is not None:
            await self._send_secure(secure, payload, flags, deadline, sealed=sent is not None)
        else:
            await self._send_in_turn(payload, sent, flags, deadline)

    async def _send_in_turn(
        self, payload: bytes | memoryview, sent: int | None, flags: SocketFlag, deadline: Deadline | None
    ) -> None:
        """Send what one attempt has left, or all if there was none yet, and give the turn back."""
        job = Send(self._sock, payload, sent or 0)
        try:
            if sent is None and payload and not self._write_in_flight():
                with contextlib.suppress(BlockingIOError):
                    job.sent = self._sock.send(payload, NO_SIGNAL)
            if job.sent < len(payload):
                await self._send_rest("send", job, deadline)
        except SocketTimeout:
            raise
        except OSError as error:
            if self._is_real(error, flags, "send"):
                raise
        finally:
            self.last_bytes_sent = job.sent
            job.release()
            self._fd.turn.release()

    async def send_many(
        self, parts: Iterable[Buffer], flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> None:
        payload = joined(parts)
        self._open_sock("send_many")
        self._require("send_many", datagram=False)
        await self.send(payload, flags, timeout)

    async def send_some(self, data: Buffer, timeout: float | None = None) -> int:
        payload = sendable(data)
        timeout = check_timeout(timeout)
        if self._core is None and self._is_datagram:
            return await self._send_datagram("send_some", payload, timeout)
        deadline = self._deadline(timeout)
        await self._take_turn("send_some", deadline)
        try:
            if self._secure is not None:
                return await self._send_a_slice(self._secure, payload, deadline)
            return await self._send_once("send_some", payload, deadline) if payload else 0
        except SocketTimeout as error:
            raise SocketTimeout("send_some", error.seconds, 0) from None
        except OSError as error:
            self._is_real(error, SocketFlag(0), "send_some")
            raise
        finally:
            self._let_go_of_turn()

    async def try_send(self, data: Buffer) -> bool:
        payload = sendable(data)
        if self._core is None and self._is_datagram:
            try:
                return await self._send_datagram("try_send", payload, 0) == len(payload)
            except OSError:
                return False
        if self._core is None or self._fd.turn.held or self._closing.locked() or self._write_in_flight():
            return False
        try:
            if self._secure is not None:
                return self._try_send_secure(self._secure, payload)
            return not payload or self._sock.send(payload, NO_SIGNAL) == len(payload)
        except OSError as error:
            self._note_reset(error)
            return False

    async def shutdown_write(self, timeout: float | None = None) -> None:
        deadline = self._deadline(check_timeout(timeout))
        await self._take_turn("shutdown_write", deadline)
        try:
            if self._write_in_flight():  # what it has counts as sent
                await self._send_rest("shutdown_write", Send(self._sock, b"", 0), deadline)
            self._write_shut = True
            if self._secure is not None:
                await self._say_goodbye(self._secure, deadline)
            else:
                shut_down_writing(self._sock)
        finally:
            self._let_go_of_turn()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Lines:
    """The iterator behind ``lines``. An object and not a generator: leaving the loop early leaves no task behind."""

    __slots__ = ("_ahead", "_over", "_recv_line")

    def __init__(self, stream: AsyncStream, max_length: int, timeout: float | None) -> None:
        # No line is split off ahead that is longer than a buffer.
        self._ahead = stream._lines if max_length >= BUFFER_SIZE else []
        self._recv_line = functools.partial(
            stream.recv_line, timeout, SAFE_DISCONN, max_length, on_long="raise"
        )
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        if self._ahead:
            line = self._ahead.pop()
        else:
            try:
                line = await self._recv_line()
            except BusyError:
                raise  # to the second task that iterates; the first is unharmed
            except BaseException:
                self._over = True  # like a generator, it does not outlive an exception
                raise
            if not line:
                self._over = True
                raise StopAsyncIteration
        return b"" if line == EMPTY_LINE else line
