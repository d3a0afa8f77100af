"""Standard input and output as plain descriptors, without Python's buffers.

``sys.stdin.buffer`` would delay bytes until its buffer is full, and its lock would abort the interpreter's exit while a
thread still reads a terminal.
"""

from __future__ import annotations

import os
import select
import stat

from wireline.cli._outcome import Failure, Stage


class Input:
    """The source of the bytes that are sent to the peer.

    Attributes:
        size: number of bytes, if it is known in advance.
        is_terminal: whether it is a terminal.
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
                # Another process that shares this terminal or pipe has made it non-blocking.
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
    """The destination of the bytes that are received.

    Attributes:
        is_terminal: whether it is a terminal.
    """

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self.is_terminal = os.isatty(fd)

    def write(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            Failure: the descriptor cannot be written to: its reader has exited, the disk is full.
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
    r"""Converts the line ends of a stream of chunks to ``\r\n``; an existing ``\r\n`` stays as it is."""

    def __init__(self) -> None:
        self._after_cr = False

    def translate(self, chunk: bytes) -> bytes:
        r"""Convert the next chunk; it may end between a ``\r`` and its ``\n``."""
        head, rest = (b"\n", chunk[1:]) if self._after_cr and chunk.startswith(b"\n") else (b"", chunk)
        self._after_cr = chunk.endswith(b"\r")
        return head + rest.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _bytes_left(fd: int) -> int | None:
    """Bytes of a regular file from its current position; None for anything else."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return None
    return max(0, status.st_size - os.lseek(fd, 0, os.SEEK_CUR))
