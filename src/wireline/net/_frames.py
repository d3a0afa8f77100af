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
    core_slot = io.core_slot
    while True:
        buffer = io.buffer
        if core_slot and buffer.frame_format is form and core_slot[0].undo is None and buffer.frames:
            # The fast path: the core has split off this frame already. No variable holds the core, and from the
            # condition to `del` there is no call, and no jump backwards as of a `while` with this condition, where a
            # signal handler or another thread could run.
            frame = buffer.frames[-1]
            del buffer.frames[-1]  # type: ignore[attr-defined] # a list, because it is not empty
            yield frame
            continue
        answer = io.read(owner, StreamCore.frames, timeout, form, flags)
        if not answer:  # no call, in which a signal handler could raise and lose the frame
            return
        yield answer  # type: ignore[misc] # only the end is bytes
