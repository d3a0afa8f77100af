"""The raw file of ``makefile``, as ``socket.SocketIO`` is for ``socket.socket``, whose private parts that one needs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wireline.net._as_socket import SocketBridge

__all__ = ["SocketFile"]


class SocketFile(io.RawIOBase):
    """A raw file over a ``SocketBridge``, which counts its open files."""

    def __init__(self, sock: SocketBridge, mode: str) -> None:
        super().__init__()
        self._sock: SocketBridge | None = sock
        self._mode = mode
        self._timed_out = False

    def _open(self) -> SocketBridge:
        if self._sock is None:
            raise ValueError("I/O operation on closed file.")
        return self._sock

    def readable(self) -> bool:
        """Whether it is open for reading."""
        self._open()
        return "r" in self._mode

    def writable(self) -> bool:
        """Whether it is open for writing."""
        self._open()
        return "w" in self._mode

    def seekable(self) -> bool:
        """Return False."""
        self._open()
        return False

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._open().fileno()

    @property
    def name(self) -> int:
        """The descriptor; -1 when it is closed."""
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def mode(self) -> str:
        """``"rb"``, ``"wb"`` or ``"rwb"``."""
        return self._mode + "b"

    def readinto(self, buffer: Any) -> int | None:
        """Receive; None if nothing is there and the socket does not block.

        After a timeout it refuses to read: the buffer above has dropped the beginning of what it was asked for.
        """
        sock = self._open()
        if "r" not in self._mode:
            raise io.UnsupportedOperation("File or stream is not readable.")
        if self._timed_out:
            raise OSError("cannot read from timed out object")
        try:
            return sock.recv_into(buffer)
        except TimeoutError:
            self._timed_out = True
            raise
        except BlockingIOError:
            return None

    def write(self, data: Any) -> int | None:
        """Send as much as the send buffer takes; None if that is nothing and the socket does not block."""
        sock = self._open()
        if "w" not in self._mode:
            raise io.UnsupportedOperation("File or stream is not writable.")
        try:
            return sock.send(data)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close the file, and the socket if it has waited for this."""
        if self.closed:
            return
        super().close()
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.file_closed()
