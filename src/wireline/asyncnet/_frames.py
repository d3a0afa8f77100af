"""The iterator behind ``AsyncSocket.frames``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from wireline._core.buffer import EMPTY
from wireline._core.frames import Frame, FrameFormat
from wireline._core.stream import StreamCore
from wireline.errors import BusyError
from wireline.options import SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline.asyncnet._socket import AsyncSocket
    from wireline.asyncnet._stream_io import StreamIO

__all__ = ["FrameIterator"]


class FrameIterator:
    """The iterator behind ``frames``. As ``LineIterator``, an object and not a generator."""

    __slots__ = ("_buffer", "_finished", "_flags", "_form", "_io", "_owner", "_timeout")

    def __init__(
        self, owner: AsyncSocket, io: StreamIO, form: FrameFormat, timeout: Timeout, flags: SocketFlag
    ) -> None:
        self._owner = owner
        self._io = io
        self._buffer = EMPTY
        self._form = form
        self._timeout = timeout
        self._flags = flags
        self._finished = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        buffer = self._buffer
        frames = buffer.frames
        io = self._io
        port = io.fd.port
        # The fast path: the core has split off this frame already. `close` clears them.
        if frames and port.budget > 0 and buffer.frame_format is self._form:
            port.budget -= 1
            return frames.pop()  # type: ignore[attr-defined,no-any-return] # a list, because it is not empty
        if self._finished:
            raise StopAsyncIteration
        form = self._form
        try:
            frame = io.ask(self._owner, StreamCore.frames, self._timeout, form, self._flags)
            if frame is None:
                frame = await io.wait_for(self._owner, StreamCore.frames, self._timeout, form, self._flags)
        except BusyError:
            raise  # to the second task that iterates; the first is unharmed
        except BaseException:
            self._finish()  # like a generator, it does not outlive an exception
            raise
        if isinstance(frame, Frame):
            self._buffer = self._io.buffer
            return frame
        self._finish()
        raise StopAsyncIteration

    def _finish(self) -> None:
        self._finished = True
        self._buffer = EMPTY
