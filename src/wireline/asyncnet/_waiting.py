"""How a stream waits: for the answer to a request, for a job, and to write; and how often it lets others go on.

What need not wait still lets the other tasks of the loop go on once in ``BUDGET`` operations (``_poller``). A read does
so before it has asked the core: a cancellation there finds nothing taken, and the read begins after it. A send does so
while it has the turn to write and has sent nothing, so that it keeps its place among the writers. A send that cannot
deliver, because the peer is gone, does so every time: else ``while True: await sock.send(data)`` would be the end of
all other tasks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar, TypeVarTuple, cast

from wireline._core.deadline import Deadline, check_timeout
from wireline._core.stream import StreamCore
from wireline._os.descriptor import has_room
from wireline.asyncnet._asyncio import can_poll, pause, running_loop
from wireline.asyncnet._attached import AttachedStream
from wireline.asyncnet._channel import Channel, Job, NotYet
from wireline.asyncnet._operations import NOW, Owner, Read, Room, Send
from wireline.errors import BusyError, SocketTimeout
from wireline.options import DONT_WAIT

__all__ = ["WaitingStream"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Turns of the loop that an operation, begun for a read that was given up, gets to bring what the kernel has: the
# event, the operation's task, its end, and we come first in each.
_TURNS_OF_AN_OPERATION = 4

# Seconds between two attempts where no event tells when the next one may succeed: a Unix listener or receiver whose
# queue is full. Guesses: short beside a human, long beside a system call.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class WaitingStream(AttachedStream):
    """The part of a stream that asks the core, and waits while it has no answer."""

    # For bytes.

    def _ask(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> bytes | None:
        """Make one request of the core; None if it has no answer yet, and if it is the others' turn."""
        if timeout is not None:
            check_timeout(timeout)
        state = self._fd.state
        if state.loop is not running_loop():
            state = self._enter_state()
        resting = self._resting  # `close` leaves another one, but this one as it is
        if not resting:
            self._cannot_read(request.__name__)
        left = state.left
        if left <= 0:
            return None  # and `_wait_for` lets the others go on before it asks
        state.left = left - 1
        return request(resting[0], *args)

    def _wait_for(
        self,
        request: Callable[[StreamCore, *Ts], bytes | None],
        timeout: float | None,
        *args: *Ts,
    ) -> Awaitable[bytes]:
        """What to await until the core has an answer.

        Args:
            request: a method of the core, which has just answered None.
            timeout: seconds to wait.
            args: its arguments.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self._fd.state.left <= 0:
            return self._after_the_others(request, timeout, *args)
        if timeout == 0:
            return self._read_at_once(request, *args)
        resting = self._resting
        if not resting:
            self._cannot_read(request.__name__)  # closed in this moment
        reader = self._fd.stream_reader
        if reader is None or reader.closed:
            loop = self._enter()
            if not can_poll(loop):
                return self._read_portably(request, timeout, *args)
            reader = self._fd.open_stream_reader(resting, Owner(self))
        return reader.wait(request, args, timeout)

    async def _after_the_others(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> bytes:
        """Let the other tasks go on, and then begin: with the question, which may have been asked in vain."""
        await self._fd.state.checkpoint()
        answer = self._ask(request, timeout, *args)
        if answer is None:
            answer = await self._wait_for(request, timeout, *args)
        return answer

    async def _take_part(self) -> None:
        """Count an operation that may need no wait, and let the others go on when it is their turn."""
        state = self._enter_state()
        if state.left <= 0:
            await state.checkpoint()
        state.left -= 1

    async def _read_portably(
        self, request: Callable[[StreamCore, *Ts], bytes | None], timeout: float | None, *args: *Ts
    ) -> bytes:
        channel = self._read_channel()
        core = self._resting.pop()
        try:
            job = Read(self._sock, core, Owner(self), request, args)
            return await channel.wait(job, request.__name__, self._deadline(timeout))
        finally:
            if not self._closing.locked():
                self._resting.append(core)

    async def _read_at_once(self, request: Callable[[StreamCore, *Ts], bytes | None], *args: *Ts) -> bytes:
        """Answer from what the kernel has, and do not wait for more (R4)."""
        if self._fd.reader is not None:
            await self._let_operation_finish(self._fd.reader)
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
        resting = self._resting
        if not resting:
            self._cannot_read(request.__name__)  # closed, or read by another task, in this moment
        core = resting[0]
        while (answer := request(core, *args)) is None:
            kept = None if self._fd.reader is None else self._fd.reader.take_kept()
            if kept is None and self._fd.reader is not None and self._fd.reader.in_flight:
                return None  # what the kernel has may already be on its way
            try:
                core.feed(
                    self._sock.recv(core.recv_size, DONT_WAIT) if kept is None else cast(bytes, kept.result())
                )
            except BlockingIOError:
                return None
            except OSError as error:
                self._raise_if_closed(request.__name__)
                core.fail(self._annotated(error, request.__name__))
        return answer

    def _cannot_read(self, operation: str) -> NoReturn:
        if self._core is None:
            self._refuse(operation)
        self._open_sock(operation)
        raise BusyError(f"{operation}: another task is reading this socket")

    # For a job.

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

    # To write.

    async def _take_turn(self, operation: str, deadline: Deadline | None) -> None:
        turn = self._fd.turn
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
        return self._fd.writer is not None and self._fd.writer.in_flight

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
            return self._sender.send(payload, NOW)
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
