"""Standard input and output as plain descriptors, without Python's buffers between.

``sys.stdin.buffer`` would hold back bytes until its buffer is full, and its lock would abort the interpreter's exit
while a thread is still reading a terminal.
"""

from __future__ import annotations

import os
import select
import stat

from wireline.cli._outcome import Failure, Stage


class Input:
    """Where the bytes for the peer come from.

    Attributes:
        size: how many bytes there are, where that is known beforehand.
        is_terminal: whether somebody types them.
    """

    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self.size = _bytes_left(fd)
        self.is_terminal = os.isatty(fd)

    def read(self, size: int) -> bytes:
        """Wait for bytes and return at most ``size``; ``b""`` is the end.

        Raises:
            Failure: the descriptor cannot be read.
        """
        while True:
            try:
                return os.read(self._fd, size)
            except BlockingIOError:
                # Whoever shares this terminal or pipe with us has made it non-blocking.
                select.select([self._fd], [], [])
            except OSError as error:
                raise Failure(Stage.INPUT, error) from error


class NoInput(Input):
    """Input that has ended."""

    def __init__(self) -> None:
        self.size = None
        self.is_terminal = False

    def read(self, size: int) -> bytes:
        """Return the end."""
        return b""


class Output:
    """Where the bytes of the peer go."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self.is_terminal = os.isatty(fd)

    def write(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            Failure: the reader is gone, the disk is full, ...
        """
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                select.select([], [self._fd], [])
            except OSError as error:
                raise Failure(Stage.OUTPUT, error) from error


class CrlfTranslator:
    r"""Turn every line end of a stream of chunks into ``\r\n``; those that are already so stay as they are."""

    def __init__(self) -> None:
        self._after_cr = False

    def translate(self, chunk: bytes) -> bytes:
        r"""Translate the next chunk; it may end between a ``\r`` and its ``\n``."""
        head, rest = (b"\n", chunk[1:]) if self._after_cr and chunk.startswith(b"\n") else (b"", chunk)
        self._after_cr = chunk.endswith(b"\r")
        return head + rest.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def occupy_standard_descriptors() -> None:
    """Put something harmless where descriptor 0, 1 or 2 is closed.

    The next socket would get its number otherwise, and be taken for standard input or output. Reading then finds
    the end at once; writing output fails, as it should; messages go nowhere.
    """
    for fd, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, mode)


def _bytes_left(fd: int) -> int | None:
    """How much of a regular file is still to be read."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return None
    return max(0, status.st_size - os.lseek(fd, 0, os.SEEK_CUR))
