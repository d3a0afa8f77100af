"""``sendfile`` of the async flavour: by sendfile(2) where the stream is plain, else by reads and sends.

At most ``PIECE`` bytes are read or sent before the loop goes on.
"""

from __future__ import annotations

import socket

from wireline._core.deadline import CallDeadline
from wireline._core.stream import StreamCore
from wireline._os.file_part import PIECE, FilePart
from wireline._socket_base import BaseSocket
from wireline._stream_common import should_raise
from wireline.asyncnet._queue import Operation
from wireline.asyncnet._stream_io import StreamIO
from wireline.errors import SocketTimeout
from wireline.options import SocketFlag

__all__ = ["send_file"]


class _SendPiece(Operation[int]):
    """Send a piece by sendfile(2)."""

    __slots__ = ("_part", "_sock")

    def __init__(self, sock: socket.socket, part: FilePart) -> None:
        self._sock = sock
        self._part = part

    def try_once(self) -> int:
        self._sock.setblocking(False)  # as in `accept_now`: sendfile(2) has no MSG_DONTWAIT
        return self._part.send_by_kernel(self._sock.fileno(), PIECE)


async def send_file(io: StreamIO, owner: BaseSocket, part: FilePart, deadline: CallDeadline | None) -> int:
    """Send a part of a file; return how many bytes were sent, which ``last_bytes_sent`` also has after an error."""
    port = io.fd.enter(owner)
    core = await io.acquire_write_lock(owner, "sendfile", deadline)
    try:
        await io.send_payload(owner, "sendfile", b"", 0, deadline)  # the rest of a send that was given up
        if part.by_kernel and not core.is_tls and port.completions is None:
            try:
                await _send_by_kernel(io, part, deadline)
            finally:
                io.payload_sent += part.sent
        with part.keeping_position():
            await _read_and_send(io, owner, core, part, deadline)
        core.message_incomplete = False
        return part.sent
    except SocketTimeout as error:
        raise SocketTimeout("sendfile", error.seconds, part.sent) from None
    except OSError as error:
        should_raise(io, owner, error, SocketFlag(0), "sendfile")
        raise
    finally:
        owner.last_bytes_sent = part.sent
        io.release_write_lock(owner)


async def _send_by_kernel(io: StreamIO, part: FilePart, deadline: CallDeadline | None) -> None:
    """Send until the end of the part, or until the system refuses sendfile(2)."""
    piece = _SendPiece(io.fd.sock, part)
    while await io.fd.open_write_queue().perform(piece, "sendfile", deadline):
        await _next_turn(io, deadline)


async def _read_and_send(
    io: StreamIO, owner: BaseSocket, core: StreamCore, part: FilePart, deadline: CallDeadline | None
) -> None:
    """Send what is left of the part."""
    while data := part.read():
        try:
            await io.send_payload(owner, "sendfile", data, 0, deadline)
        finally:
            part.add(owner.last_bytes_sent)
            core.message_incomplete = True  # to its sender the end of a piece is that of the message
        await _next_turn(io, deadline)


async def _next_turn(io: StreamIO, deadline: CallDeadline | None) -> None:
    """Let the loop go on. A timeout of 0 goes on while there is room."""
    await io.fd.port.checkpoint()
    io.fd.raise_if_closed("sendfile")
    if deadline is not None and deadline.seconds and deadline.passed(io.fd.port.time()):
        raise SocketTimeout("sendfile", deadline.seconds)
