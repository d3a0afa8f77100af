"""The iterator behind ``Socket.frames``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wireline._core.frames import Frame, FrameFormat
from wireline._core.stream import StreamCore
from wireline.options import SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline.net._socket import Socket
    from wireline.net._stream_io import StreamIO

__all__ = ["iterate_frames"]


def iterate_frames(
    owner: Socket, io: StreamIO, form: FrameFormat, timeout: Timeout, flags: SocketFlag
) -> Iterator[Frame]:
    """Iterate over the frames of a stream."""
    while True:
        # After each of the two calls there is none up to the `yield`: a signal handler could raise in it and lose the
        # frame.
        frame = io.buffer.ready_frame(form, io.core_slot)
        if frame is not None:
            yield frame
            continue
        answer = io.read(owner, StreamCore.frames, timeout, form, flags)
        if not answer:
            return
        yield answer  # type: ignore[misc] # only the end is bytes
