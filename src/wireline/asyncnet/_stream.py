"""The async flavour's stream: ask the core, and while it has no answer, let a job wait for it."""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import NoReturn, Self, TypeVar, TypeVarTuple, cast

from wireline import _promises
from wireline._arguments import Buffer, joined, require_resizable, sendable, writable
from wireline._datagram import Datagram
from wireline._descriptor import State, has_room, shut_down_writing
from wireline._sansio.deadline import Deadline, check_timeout
from wireline._sansio.lines import EMPTY_LINE
from wireline._sansio.stream import StreamCore, check_size
from wireline.asyncnet._asyncio import Loop, Operation, can_poll, pause, running_loop, when_done
from wireline.asyncnet._channel import Channel, Job, NotYet, open_channel
from wireline.asyncnet._jobs import Read, Room, Send
from wireline.asyncnet._reader import StreamReader
from wireline.asyncnet._secured import SecuredStream
from wireline.asyncnet._signals import Signal, WriteTurn
from wireline.errors import BusyError, ClosedError, SockAddr, SocketTimeout
from wireline.options import (
    BUFFER_SIZE,
    MAX_LINE_LENGTH,
    NO_SIGNAL,
    SAFE_DISCONN,
    ReadLineResult,
    SocketFlag,
    check_flags,
    is_disconnection_error,
)

__all__ = ["AsyncStream"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Turns of the loop that an operation, begun for a read that was given up, gets to bring what the kernel has: the
# event, the operation's task, its end, and we come first in each.
_TURNS_OF_AN_OPERATION = 4

# Seconds between two attempts where no event tells when the next one may succeed: a Unix listener or receiver whose
# queue is full. Guesses: short beside a human, long beside a system call.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


@_promises.documented(_promises.SocketPromises)
class AsyncStream(SecuredStream):
    """The part of an ``AsyncSocket`` that reads and writes a connected stream."""

    _module = "wireline.asyncnet"
    last_bytes_sent: int

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._loop: Loop | None = None
        self._thread = 0
        self._reader: Channel | None = None
        self._writer: Channel | None = None
        self._turn = WriteTurn()
        # The core, while nobody waits for it: so an empty list is what tells a second reader that it is one.
        self._resting: list[StreamCore] = []
        self._stream_reader: StreamReader | None = None
        self._is_connecting = False
        self._signals: set[Signal] | None = None  # made when it is needed: most sockets never do
        super()._setup(sock, buffered, state, peer)

    def _opened(self) -> None:
        self._close_channels()  # of the descriptor before, or for `connect`
        self._resting = []
        self._turn.held = True

    def _published(self) -> None:
        assert self._core is not None
        if not self._closing.locked():
            self._resting[:] = [self._core]
        self._let_go_of_turn()

    def _hold(self, operation: str) -> StreamCore:
        """Be the only one who reads and writes the stream."""
        self._open_sock(operation)
        if self._core is None:
            self._refuse(operation)
        if self._in_use:
            raise BusyError(f"{operation}: another task is using this socket")
        self._turn.held = True
        if self._stream_reader is not None:
            self._stream_reader.close(_closed_meanwhile)  # it knows the core that there was
            self._stream_reader = None
        return self._resting.pop()

    # What a datagram socket does instead, in the class below.

    async def recv_from(
        self, size: int, flags: SocketFlag = SAFE_DISCONN, timeout: float | None = None
    ) -> Datagram:
        raise NotImplementedError

    async def _send_datagram(self, operation: str, payload: bytes | memoryview, timeout: float | None) -> int:
        raise NotImplementedError

    # Belonging to a loop.

    def _enter(self) -> Loop:
        """The running loop, which the socket belongs to from its first await on."""
        loop = running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise RuntimeError(f"{self!r} belongs to another event loop")
            self._loop = loop
            self._thread = threading.get_ident()
        return loop

    def _read_channel(self) -> Channel:
        loop = self._enter()
        if self._reader is None:
            self._reader = open_channel(loop, self._sock)
        return self._reader

    def _write_channel(self) -> Channel:
        loop = self._enter()
        if self._writer is None:
            self._writer = open_channel(loop, self._sock, write=True)
        return self._writer

    def _close_channels(self) -> list[Operation | None]:
        """Wake everybody who waits; return the operations that still have the descriptor in their hands."""
        channels = [channel for channel in (self._reader, self._writer) if channel is not None]
        for channel in channels:
            channel.close(_closed_meanwhile)
        if self._stream_reader is not None:
            self._stream_reader.close(_closed_meanwhile)
        self._reader = self._writer = self._stream_reader = None
        return [channel.ending for channel in channels]

    def _let_go(self, old: socket.socket) -> None:
        when_done(self._close_channels(), old.close)

    @contextlib.contextmanager
    def _signal(self) -> Iterator[Signal]:
        """Something to wait for that ``close`` rings, too."""
        signal = Signal(self._enter())
        signals = self._signals = self._signals or set()
        signals.add(signal)
        try:
            yield signal
        finally:
            signals.discard(signal)

    def _deadline(self, timeout: float | None) -> Deadline | None:
        return None if timeout is None else Deadline(timeout, self._enter().time())

    def _retire(self, linger: float | None) -> None:
        self._resting.clear()
        self._turn.end()
        loop = self._loop
        if loop is None or loop.is_closed() or self._thread == threading.get_ident():
            self._end(linger)
        else:
            # From another thread: what belongs to the loop is touched inside it. The socket is closed already.
            try:
                loop.call_soon_threadsafe(self._end, linger)
            except RuntimeError:  # the loop was closed in this moment
                self._end(linger)

    def _end(self, linger: float | None) -> None:
        # A reader that was at work when another thread called `close` may have put these back since.
        self._resting.clear()
        self._lines.clear()
        if self._loop is None or not self._loop.is_closed():  # else there is nobody to wake
            self._turn.send_away()
            for signal in self._signals or ():
                signal.ring()
        writer = self._writer
        when_done(self._close_channels(), functools.partial(self._dispose_after, writer, linger))

    def _dispose_after(self, writer: Channel | None, linger: float | None) -> None:
        sending = None if writer is None else writer.ending
        if self._secure is not None and sending is not None and sending.cancelled():
            self._secure.lent = True  # it was ended in the midst of what counts as sent
        self._dispose(linger)

    @property
    def _in_use(self) -> bool:
        """Whether a task reads or writes the stream."""
        return self._core is not None and (self._turn.held or not self._resting)

    def _give_up(self) -> int:
        channels = [channel for channel in (self._reader, self._writer) if channel is not None]
        if self._in_use or any(channel.busy or channel.in_flight for channel in channels):
            raise OSError(errno.EBUSY, "detach: another task is using the socket")
        self._close_channels()
        self._resting.clear()
        self._turn.end()
        return super()._give_up()

    def _annotated(self, error: OSError, operation: str) -> OSError:
        error.add_note(f"during {operation} on {self!r}")
        return error

    def _raise_if_closed(self, operation: str) -> None:
        if self._closing.locked():
            raise _closed_meanwhile(operation)

    # Waiting.

    def _ask(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> bytes | None:
        """Make one request of the core; None if it has no answer yet."""
        if timeout is not None:
            check_timeout(timeout)
        if not self._resting:
            self._cannot_read(request.__name__)
        return request(self._resting[0], *args)

    def _wait_for(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> Awaitable[bytes]:
        """What to await until the core has an answer."""
        if timeout is not None:
            timeout = check_timeout(timeout)
            if timeout == 0:
                return self._read_at_once(request, *args)
        reader = self._stream_reader
        if reader is None or self._loop is not running_loop():
            loop = self._enter()
            if not can_poll(loop):
                return self._read_portably(request, timeout, *args)
            reader = self._stream_reader = StreamReader(loop, self._sock, self._resting, _Noter(self))
        return reader.wait(request, args, timeout)

    async def _read_portably(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> bytes:
        channel = self._read_channel()
        core = self._resting.pop()
        try:
            job = Read(self._sock, core, _Noter(self), request, args)
            return await channel.wait(job, request.__name__, self._deadline(timeout))
        finally:
            if not self._closing.locked():
                self._resting.append(core)

    async def _read_at_once(self, request: Callable[[StreamCore, *Ts], bytes | None], *args: *Ts) -> bytes:
        """Answer from what the kernel has, and do not wait for more (R4)."""
        if self._reader is not None:
            await self._let_operation_finish(self._reader)
        answer = self._read_now(request, *args)
        if answer is None:
            raise SocketTimeout(request.__name__, 0)
        return answer

    @staticmethod
    async def _let_operation_finish(channel: Channel) -> None:
        """Let an operation, begun for a call that was given up, bring what the kernel has."""
        for _ in range(_TURNS_OF_AN_OPERATION):
            if channel.in_flight:
                await pause(0)

    def _read_now(self, request: Callable[[StreamCore, *Ts], bytes | None], *args: *Ts) -> bytes | None:
        """Feed the core all that the kernel has, until it can answer; None if it cannot."""
        core = self._resting[0]
        while (answer := request(core, *args)) is None:
            kept = None if self._reader is None else self._reader.take_kept()
            if kept is None and self._reader is not None and self._reader.in_flight:
                return None  # what the kernel has may already be on its way
            try:
                core.feed(self._sock.recv(core.want) if kept is None else cast(bytes, kept.result()))
            except BlockingIOError:
                return None
            except OSError as error:
                core.fail(self._annotated(error, request.__name__))
        return answer

    def _cannot_read(self, operation: str) -> NoReturn:
        if self._core is None:
            self._refuse(operation)
        self._open_sock(operation)
        raise BusyError(f"{operation}: another task is reading this socket")

    async def _do(
        self,
        channel: Channel,
        job: Job[T],
        operation: str,
        deadline: Deadline | None,
        *,
        alone: bool = False,
        now: bool = True,
    ) -> T:
        """Do a job ``now`` if that is possible, else wait for it."""
        if now and not channel.busy and not channel.in_flight:
            try:
                answer = job.attempt()
            except BlockingIOError:
                pass
            else:
                if not isinstance(answer, NotYet):
                    return answer
            if deadline is not None and deadline.seconds == 0:
                raise SocketTimeout(operation, 0)
        if deadline is not None and deadline.seconds == 0:
            await self._let_operation_finish(channel)
        return await channel.wait(job, operation, deadline, alone=alone)

    async def _again_and_again(self, operation: str, job: Job[T], deadline: Deadline | None) -> T:
        """Try, where no event tells when to, with pauses that ``close`` can end."""
        pause = _FIRST_PAUSE
        with self._signal() as signal:
            while True:
                with contextlib.suppress(BlockingIOError):
                    answer = job.attempt()
                    assert not isinstance(answer, NotYet)
                    return answer
                until = signal.now() + pause
                if deadline is not None:
                    if deadline.passed(signal.now()):
                        raise SocketTimeout(operation, deadline.seconds)
                    until = min(until, deadline.at)
                await signal.wait(until)
                self._raise_if_closed(operation)
                pause = min(2 * pause, _LONGEST_PAUSE)

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
        if self._core is None and self._is_datagram:
            return (await self.recv_from(max_size, flags, timeout)).data
        reader = self._stream_reader
        if timeout is not None or reader is None or not self._resting or self._loop is not running_loop():
            answer = self._ask(StreamCore.recv_some, timeout, max_size, flags)
            if answer is None:
                answer = await self._wait_for(StreamCore.recv_some, timeout, max_size, flags)
            return answer
        # What the two calls above come to. Here and in `recv_line` every message comes by.
        core = self._resting[0]
        answer = core.recv_some(max_size, flags)
        if answer is None:
            simple = core.plain and flags is SAFE_DISCONN and type(max_size) is int
            most = max_size if simple else 0
            answer = await reader.wait(StreamCore.recv_some, (max_size, flags), None, most)
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
            if len(line) <= max_length:
                return line
            lines.append(line)
        reader = self._stream_reader
        if timeout is not None or reader is None or not self._resting or self._loop is not running_loop():
            answer = self._ask(StreamCore.recv_line, timeout, max_length, on_long, flags)
            if answer is None:
                answer = await self._wait_for(StreamCore.recv_line, timeout, max_length, on_long, flags)
            return answer
        core = self._resting[0]
        answer = core.recv_line(max_length, on_long, flags)
        if answer is None:
            simple = core.from_scratch and flags is SAFE_DISCONN and type(max_length) is int
            longest = max_length if simple else 0
            args = (max_length, on_long, flags)
            answer = await reader.wait(StreamCore.recv_line, args, None, 0, longest)
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
        self._ask(StreamCore.recv_line, 0, max_length, "truncate", SocketFlag.PEEK | SAFE_DISCONN)
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
        if not payload:
            self._open_sock("send")
        turn = self._turn
        deadline: Deadline | None = None
        if turn.held:
            if self._core is None and self._is_datagram:
                self.last_bytes_sent = await self._send_datagram("send", payload, timeout)
                return
            deadline = self._deadline(timeout)
            try:
                await self._take_turn("send", deadline)
            except BaseException:
                self.last_bytes_sent = 0
                raise
        turn.held = True
        if self._secure is not None:
            await self._send_secure(self._secure, payload, flags, deadline or self._deadline(timeout))
            return
        sent = 0
        job: Send | None = None
        try:
            if payload and (self._writer is None or not self._write_in_flight()):
                try:
                    sent = self._sock.send(payload, NO_SIGNAL)
                except BlockingIOError:
                    sent = 0
            if sent < len(payload):
                job = Send(self._sock, payload, sent)
                await self._send_rest("send", job, deadline or self._deadline(timeout))
        except SocketTimeout:
            raise
        except OSError as error:
            if self._is_real(error, flags, "send"):
                raise
        finally:
            self.last_bytes_sent = sent
            if job is not None:
                self.last_bytes_sent = job.sent
                job.release()
            if turn.queue:
                turn.release()
            else:
                turn.held = turn.over

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
        if self._core is None or self._turn.held or self._closing.locked() or self._write_in_flight():
            return False
        try:
            if self._secure is not None:
                return self._try_send_secure(self._secure, payload)
            return not payload or self._sock.send(payload, NO_SIGNAL) == len(payload)
        except OSError as error:
            self._note_reset(error)
            return False

    async def _take_turn(self, operation: str, deadline: Deadline | None) -> None:
        turn = self._turn
        if self._core is None or self._closing.locked():
            self._refuse(operation)
        if not turn.held:
            turn.held = True
            return
        now = self._enter().time()
        if not await turn.acquire(None if deadline is None else deadline.remaining(now)):
            self._raise_if_closed(operation)
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds, 0)

    def _write_in_flight(self) -> bool:
        """Whether an operation, begun for a send that was given up, is still at work."""
        return self._writer is not None and self._writer.in_flight

    async def _send_rest(self, operation: str, job: Send, deadline: Deadline | None) -> None:
        """Wait for room until all is sent, or for ``once`` something."""
        try:
            await self._write_channel().wait(job, operation, deadline)
        except SocketTimeout as error:
            raise SocketTimeout(operation, error.seconds, job.sent) from None

    async def _send_once(self, operation: str, payload: bytes | memoryview, deadline: Deadline | None) -> int:
        if self._write_in_flight():
            await self._send_rest(operation, Send(self._sock, b"", 0), deadline)
        with contextlib.suppress(BlockingIOError):
            return self._sock.send(payload, NO_SIGNAL)
        job = Send(self._sock, payload, 0, once=True)
        try:
            if can_poll(self._enter()):
                await self._send_rest(operation, job, deadline)
            else:
                # An operation of the loop is not called back, and who gives up is to have sent nothing.
                await self._again_and_again(operation, job, deadline)
            return job.sent
        finally:
            job.release()

    async def _wait_for_room(self, operation: str, deadline: Deadline | None) -> None:
        if not has_room(self._sock):
            job = Room(self._sock)
            try:
                if can_poll(self._enter()):
                    await self._write_channel().wait(job, operation, deadline)
                else:
                    await self._again_and_again(operation, job, deadline)
            except SocketTimeout as error:
                raise SocketTimeout(operation, error.seconds, 0) from None

    def _is_real(self, error: OSError, flags: SocketFlag, operation: str) -> bool:
        """Whether a failed send is to be reported: not when the peer is gone and the flags say so (W2)."""
        self._raise_if_closed(operation)
        self._note_reset(error)
        if is_disconnection_error(flags, error) and not self._write_shut:
            return False
        self._annotated(error, operation)
        return True

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


def _closed_meanwhile(operation: str) -> ClosedError:
    return ClosedError(f"{operation}: the socket was closed while it waited")


class _Noter:
    """``_annotated`` without the socket: the loop knows it, and must not keep alive what everybody else forgot."""

    __slots__ = ("_known",)

    def __init__(self, stream: AsyncStream) -> None:
        self._known = weakref.ref(stream)

    def __call__(self, error: OSError, operation: str) -> OSError:
        stream = self._known()
        return error if stream is None else stream._annotated(error, operation)


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
