"""The iterator behind ``AsyncSocket.lines``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from wireline._core.deadline import check_timeout
from wireline._core.lines import EMPTY_LINE
from wireline._core.named import LINES
from wireline._core.stream import LINE
from wireline._socket_base import closed_meanwhile
from wireline.errors import BusyError
from wireline.options import BUFFER_SIZE, DEFAULT_FLAGS, SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline.asyncnet._socket import AsyncSocket
    from wireline.asyncnet._stream_io import StreamIO

__all__ = ["LineIterator"]


class LineIterator:
    """The iterator behind ``lines``. An object and not a generator: leaving the loop early leaves no task behind."""

    __slots__ = ("_ahead", "_flags", "_io", "_max_length", "_over", "_owner", "_timeout")

    def __init__(
        self,
        owner: AsyncSocket,
        io: StreamIO,
        ahead: list[bytes],
        max_length: int,
        timeout: Timeout,
        flags: SocketFlag,
    ) -> None:
        self._owner = owner
        self._io = io
        self._max_length = max_length
        self._timeout = timeout
        self._flags = flags
        # No line is split off ahead that is longer than a buffer.
        self._ahead = ahead if max_length >= BUFFER_SIZE else []
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        ahead = self._ahead
        port = self._io.fd.port
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
        owner, io, timeout, max_length = self._owner, self._io, self._timeout, self._max_length
        flags = self._flags
        if self._ahead:
            await io.fd.enter(owner).checkpoint()
            if self._ahead:
                self._io.fd.port.budget -= 1
                return self._ahead.pop()
        if timeout is not None:
            timeout = check_timeout(timeout)  # of a `Deadline`, the seconds that are left
        core = io.core
        waiter = self._io.fd.read_waiter
        if (
            core is not None
            and core.fast_recv_ok
            and waiter is not None
            and timeout != 0
            and flags is DEFAULT_FLAGS
            and waiter.port.loop is waiter.get_loop()
        ):
            core.direct = LINE
            core.direct_limit = max_length
            return await waiter.wait(LINES, (max_length, "raise", flags), timeout)
        answer = io.ask(owner, LINES, timeout, max_length, "raise", flags)
        if answer is None:
            answer = await io.wait_for(owner, LINES, timeout, max_length, "raise", flags)
        return answer
