"""``sendfile`` of the blocking flavour: by sendfile(2) where the stream is plain, else by reads and sends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from wireline._core.deadline import CallDeadline
from wireline._os.descriptor import KERNEL_WAITS
from wireline._os.file_part import FilePart
from wireline._socket_base import BaseSocket
from wireline._stream_common import should_raise
from wireline.errors import SocketTimeout
from wireline.net._stream_io import StreamIO
from wireline.options import SAFE_DISCONN, SocketFlag

__all__ = ["not_blocking", "send_file"]

# The most bytes of one sendfile(2) that may wait in the kernel. Linux sends less than 2 GiB in one call.
_WAITING_PIECE = 1 << 30

# The most bytes of one that does not wait: after each the clock is read. A guess: 0.2 ms of copying.
_PIECE = 1 << 20


def send_file(io: StreamIO, owner: BaseSocket, part: FilePart, deadline: CallDeadline | None) -> int:
    """Send a part of a file; return how many bytes were sent, which ``last_bytes_sent`` also has after an error."""
    permit = io.acquire_permit(owner, "sendfile", deadline)
    try:
        owner.last_bytes_sent = 0  # a thread that sent meanwhile may have set it
        io.flush("sendfile", deadline, 0)
        if part.by_kernel and not io.fd.cores[0].is_tls:
            _send_by_kernel(io, part, deadline)
        with part.keeping_position():
            _read_and_send(io, part, deadline)
        io.fd.cores[0].message_incomplete = False
        return part.sent
    except SocketTimeout:
        raise
    except OSError as error:
        should_raise(io, owner, error, SocketFlag(0), "sendfile")
        raise
    finally:
        owner.last_bytes_sent = io.count_sent(part.sent)
        del permit
        io.release_permit(owner)


def _send_by_kernel(io: StreamIO, part: FilePart, deadline: CallDeadline | None) -> None:
    """Send until the end of the part, or until the system refuses sendfile(2)."""
    number = io.fd.sock.fileno()
    if io.waits_in_kernel(deadline):
        while part.send_by_kernel(number, _WAITING_PIECE):
            pass
        return
    with not_blocking(io):
        while True:
            try:
                sent = part.send_by_kernel(number, _PIECE)
            except BlockingIOError:
                io.wait_for_room("sendfile", deadline, part.sent)
                continue
            if not sent:
                return
            _check_clock(part, deadline)


def _read_and_send(io: StreamIO, part: FilePart, deadline: CallDeadline | None) -> None:
    """Send what is left of the part."""
    while data := part.read():
        sent = 0
        while sent < len(data):
            taken = io.send_once("sendfile", memoryview(data)[sent:], deadline, part.sent)
            sent += taken
            part.add(taken)
            io.flush("sendfile", deadline, part.sent)
        io.fd.cores[0].message_incomplete = True  # to its sender the end of a piece is that of the message
        _check_clock(part, deadline)


def _check_clock(part: FilePart, deadline: CallDeadline | None) -> None:
    """Raise at the deadline, where no wait would notice it. A timeout of 0 goes on while there is room."""
    if deadline is not None and deadline.seconds and deadline.passed(time.monotonic()):
        raise SocketTimeout("sendfile", deadline.seconds, part.sent)


@contextlib.contextmanager
def not_blocking(io: StreamIO) -> Iterator[None]:
    """Let no system call on the descriptor wait, for those that have no ``MSG_DONTWAIT``. For the holder of the permit.

    The stream is marked first and unmarked last. So an exception of a signal handler, wherever it is raised, leaves a
    stream whose calls wait in ``poll``, which is right in both modes.
    """
    sock = io.fd.sock
    io.kernel_waits, io.kernel_flags = False, None
    try:
        sock.setblocking(False)
        yield
    finally:
        if KERNEL_WAITS:
            sock.setblocking(True)
            io.kernel_waits, io.kernel_flags = True, SAFE_DISCONN
