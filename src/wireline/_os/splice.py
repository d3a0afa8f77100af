"""A pipe between two sockets: splice(2) moves bytes through it, and none of them is copied through Python.

A pipe takes two descriptors, so their number in a process is limited; one that cannot be had is no error.
"""

from __future__ import annotations

import errno
import os
import socket

from wireline._os.sigpipe import sigpipe_is_ignored

__all__ = ["PIPE_SIZE", "Pipe", "can_splice", "open_pipe"]

# The most pipes of a process. A guess: 64 descriptors, and half of the pages that Linux lets a user's pipes have.
_MAX_PIPES = 32

PIPE_SIZE = 1024 * 1024
"""Bytes that a pipe holds. Measured: of 512 KiB splice(2) takes as much CPU time as ``recv`` and ``send``, of 1 MiB a
quarter less."""

# splice(2): what a system or a kind of descriptor that cannot do it reports.
_NOT_POSSIBLE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ESPIPE})

# One element for each pipe that may still be made. `list.pop` and `append` are one operation of C each.
_allowed: list[None] = [None] * _MAX_PIPES


def _in_child() -> None:
    _allowed[:] = [None] * _MAX_PIPES  # the pipes of the parent's calls are never given back here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def can_splice(source: socket.socket, sink: socket.socket) -> bool:
    """Whether splice(2) may move bytes between two sockets; the first call that fails says whether it really can.

    Not from a Unix socket: descriptors that arrive with the bytes would be closed.
    """
    return hasattr(os, "splice") and source.family != socket.AF_UNIX and sigpipe_is_ignored()


def open_pipe() -> Pipe | None:
    """Make a pipe; None if there are too many, or no descriptors."""
    try:
        _allowed.pop()
    except IndexError:
        return None
    try:
        return Pipe()
    except OSError:
        _allowed.append(None)
        return None


class Pipe:
    """A pipe that is filled only while it is empty.

    Attributes:
        size: bytes inside.
        last_used: seconds of the caller's clock.
        gone: bytes that the last ``send_to`` has moved and that are not subtracted yet. ``for`` stores the number
            before a signal handler can raise an exception.
    """

    __slots__ = ("_ends", "gone", "last_used", "size")

    def __init__(self) -> None:
        self._ends = (-1, -1)
        self.size = self.gone = 0
        self.last_used = 0.0
        for self._ends in map(os.pipe2, (os.O_NONBLOCK | os.O_CLOEXEC,)):
            break
        import fcntl  # Windows has none, and no splice(2) either

        try:
            fcntl.fcntl(self._ends[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # above the user's limit: the default size

    def fill_from(self, source: socket.socket) -> int | None:
        """Receive into the pipe; return the size. 0 is the end of the stream, None: splice(2) is not possible.

        It waits if the descriptor blocks: splice(2) has no MSG_DONTWAIT.

        Raises:
            BlockingIOError: nothing has arrived.
            OSError: of the socket.
        """
        try:
            for self.size in map(os.splice, (source.fileno(),), (self._ends[1],), (PIPE_SIZE,)):  # noqa: B020
                break
        except OSError as error:
            if error.errno in _NOT_POSSIBLE:
                return None
            raise
        return self.size

    def send_to(self, sink: socket.socket) -> None:
        """Send as much of the content as fits; the caller subtracts ``gone`` from ``size``. It may wait, likewise.

        Raises:
            BlockingIOError: there is no space in the send buffer.
            OSError: of the socket; EINVAL and the like: splice(2) is not possible.
        """
        for self.gone in map(os.splice, (self._ends[0],), (sink.fileno(),), (self.size,)):  # noqa: B020
            break

    def content(self) -> bytes:
        """Remove and return the content."""
        pieces = []
        try:
            while piece := os.read(self._ends[0], PIPE_SIZE):
                pieces.append(piece)
        except BlockingIOError:
            pass
        self.size = 0
        return b"".join(pieces)

    def close(self) -> None:
        """Close it, once."""
        # None yet, if a signal handler has raised an exception before the first line of `__init__`.
        (read, write), self._ends = getattr(self, "_ends", (-1, -1)), (-1, -1)
        if read >= 0:
            os.close(read)
            os.close(write)
            _allowed.append(None)

    __del__ = close
