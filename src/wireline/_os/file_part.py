"""A part of a file that ``sendfile`` sends: by sendfile(2), or read in pieces. Nothing here waits for the network.

The descriptor is used only of a file whose bytes are those of its descriptor: ``gzip.GzipFile`` and the like have a
``fileno``, too, and sendfile(2) would send their compressed bytes. Of every other object the position is moved while
it is read, and set back at the end.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from wireline._core.sizes import check_size
from wireline._os.sigpipe import sigpipe_is_ignored

__all__ = ["PIECE", "BinaryFile", "FilePart"]

PIECE = 256 * 1024
"""Bytes that are read, or sent by one sendfile(2), before an event loop goes on. A guess: 3 ms of a slow disk, and
several times what the system call costs."""

# The largest offset that the system has.
_MAX_OFFSET = 2**63 - 1

# sendfile(2): what a file system, a kind of descriptor or a system that cannot do it reports. Reading may work then;
# if the argument is really wrong, it fails with the same error.
_NOT_POSSIBLE = frozenset(
    getattr(errno, name)
    for name in "EINVAL ENOSYS EOVERFLOW EOPNOTSUPP ENOTSUP ENOTSOCK ESPIPE EBADF".split()
    if hasattr(errno, name)
)


class BinaryFile(Protocol):
    """What ``sendfile`` needs of a file: an open file, an ``io.BytesIO``, a ``gzip.GzipFile``, ..."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> object: ...

    def tell(self) -> int: ...


class FilePart:
    """The bytes of a file from an offset on.

    Attributes:
        by_kernel: sendfile(2) may send them; it was not refused yet.
        gone: bytes that the last sendfile(2) has sent. It is set by ``for``, which stores the number before a signal
            handler can raise an exception.
    """

    __slots__ = ("_count", "_fd", "_file", "_offset", "_sent", "by_kernel", "gone")

    def __init__(self, file: BinaryFile, offset: int, count: int | None) -> None:
        """Check the arguments of ``sendfile``. A file with unwritten data is flushed.

        Raises:
            TypeError: ``file`` is no binary file; ``offset`` or ``count`` is not an int.
            ValueError: ``offset`` or ``count`` is out of range, or the file is closed.
            io.UnsupportedOperation: the file is not readable, or has no positions, as a pipe.
        """
        self._offset = _check_offset("offset", offset)
        self._count = None if count is None else _check_offset("count", count)
        self._sent = self.gone = 0
        self._file = file = _check_file(file)
        self._fd = _descriptor_of(file)
        self.by_kernel = self._fd is not None and hasattr(os, "sendfile") and sigpipe_is_ignored()

    @property
    def sent(self) -> int:
        """The number of bytes sent so far."""
        return self._sent + self.gone

    def add(self, sent: int) -> None:
        """Count bytes that were read and are sent."""
        self._sent += sent

    def _next_size(self, most: int) -> int:
        left = _MAX_OFFSET - self._offset if self._count is None else self._count
        left = min(left, _MAX_OFFSET - self._offset) - self._sent
        return max(0, min(left, most))

    def send_by_kernel(self, out: int, most: int) -> int:
        """Send at most ``most`` bytes by one sendfile(2).

        Args:
            out: the descriptor of the socket. If it blocks, the call may wait.
            most: bytes.

        Returns:
            The number of bytes sent. 0: there are no more, or the system cannot do it, and ``by_kernel`` is False.

        Raises:
            BlockingIOError: there is no space in the send buffer.
            OSError: an error of the socket, or of the disk.
        """
        size = self._next_size(most)
        if not size or self._fd is None:
            return 0
        try:
            position = self._offset + self._sent
            for self.gone in map(os.sendfile, (out,), (self._fd,), (position,), (size,)):  # noqa: B020
                break
        except OSError as error:
            if error.errno not in _NOT_POSSIBLE:
                raise
            self.by_kernel = False
            return 0
        gone = self.gone
        # Both: no signal handler can run in between.
        self._sent += gone
        self.gone = 0
        return gone

    def read(self) -> bytes:
        """Read the next piece, of at most ``PIECE`` bytes; ``b""`` at the end of the part, or of the file.

        Raises:
            OSError: of the file.
            TypeError: the file is not binary.
        """
        size = self._next_size(PIECE)
        if not size:
            return b""
        position = self._offset + self._sent
        if self._fd is not None and hasattr(os, "pread"):
            return os.pread(self._fd, size, position)
        if self._file.tell() != position:
            self._file.seek(position)
        data: Any = self._file.read(size)
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(
                f"sendfile needs a binary file, whose read() returns bytes, not {type(data).__name__}"
            )
        return bytes(data[:size])

    @contextmanager
    def keeping_position(self) -> Iterator[None]:
        """Set the position of a file without a descriptor back at the end of the block."""
        if self._fd is not None and hasattr(os, "pread"):
            yield
            return
        position = self._file.tell()
        try:
            yield
        finally:
            self._file.seek(position)


def _check_offset(name: str, value: int) -> int:
    value = check_size(value, name)
    if value > _MAX_OFFSET:
        raise ValueError(f"{name} is at most {_MAX_OFFSET}, got {value}")
    return value


def _check_file(file: BinaryFile) -> BinaryFile:
    """Return the file itself; for a ``tempfile.NamedTemporaryFile`` the one inside."""
    if not isinstance(file, io.IOBase) and isinstance(inner := getattr(file, "file", None), io.IOBase):
        file = inner
    if isinstance(file, io.TextIOBase):
        raise TypeError("sendfile needs a binary file, this one is text: open it with mode 'rb'")
    if not all(callable(getattr(file, name, None)) for name in ("read", "seek", "tell")):
        raise TypeError(f"sendfile needs a binary file, with read, seek and tell, not {type(file).__name__}")
    if isinstance(file, io.IOBase):
        if not file.readable():
            raise io.UnsupportedOperation("sendfile: the file is not open for reading")
        if not file.seekable():
            raise io.UnsupportedOperation(
                "sendfile: the file cannot be positioned, like a pipe: read it, and send the data"
            )
    return file


def _descriptor_of(file: BinaryFile) -> int | None:
    """Return the descriptor of a file whose bytes are those of its descriptor; None of any other object."""
    raw = file.raw if isinstance(file, io.BufferedReader | io.BufferedRandom) else file
    if type(raw) is not io.FileIO:
        return None
    if isinstance(file, io.BufferedRandom):
        file.flush()
    return raw.fileno()
