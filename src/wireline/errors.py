"""The library's own errors.

::

    WirelineError
    ├── ClosedError         (OSError)       this side closed the socket
    ├── DialError           (OSError)       no address of the name could be connected to
    ├── SocketTimeout       (TimeoutError)  the deadline of one call passed
    ├── EndOfStreamError    (EOFError)      the stream ended before the read had all its bytes
    ├── LineTooLongError    (ValueError)    no end of line within the limit of the caller
    ├── FrameError          (ValueError)    a frame with a negative length
    │   └── FrameTooLongError               a frame longer than the limit of the caller
    └── BusyError           (RuntimeError)  another thread or task is reading this socket

Each also inherits from the nearest built-in, so ``except TimeoutError`` and ``except OSError`` work as usual. Errors of
the operating system (``ConnectionResetError``, ``socket.gaierror``, ...) are raised unchanged, with the operation and
the peer in a note.
"""

from __future__ import annotations

import copy
import errno
import os
from typing import TypeVar

__all__ = [
    "BusyError",
    "ClosedError",
    "DialError",
    "EndOfStreamError",
    "FrameError",
    "FrameTooLongError",
    "LineTooLongError",
    "SocketTimeout",
    "WirelineError",
]

InetSockAddr = tuple[str, int] | tuple[str, int, int, int]
"""An address of the ``socket`` module: for IPv4, and for IPv6 with flow information and scope id."""

SockAddr = InetSockAddr | str | bytes
"""An address of the ``socket`` module: a tuple for IP, a path for Unix."""


class WirelineError(Exception):
    """Root of the library's own errors. They can be copied and pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        # By default pickle calls the class with `args`, which hold the finished message and not the parameters.
        return _rebuild, (type(self), self.args), self.__dict__


def _rebuild(cls: type[WirelineError], args: tuple[object, ...]) -> WirelineError:
    """Make an error from its ``args``, without the ``__init__`` of its class."""
    error = cls.__new__(cls)
    super(WirelineError, error).__init__(*args)
    return error


_E = TypeVar("_E", bound=BaseException)


def copy_for_reraise(error: _E) -> _E:
    """Copy an error that is raised more than once, so that each raise has its own traceback and notes."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    if hasattr(fresh, "__notes__"):
        fresh.__notes__ = list(error.__notes__)
    return fresh


def rename_operation(error: BaseException, old: str, new: str) -> None:
    """Change the operation in an error's text and notes from ``old`` to ``new``, a method that calls ``old``."""

    def put(text: str) -> str:
        return new + text[len(old) :] if text.startswith((f"{old}: ", f"{old} did ")) else text

    if isinstance(error, SocketTimeout) and error.operation == old:
        error.operation = new
    if isinstance(error, OSError) and error.strerror is not None:
        error.strerror = put(error.strerror)
    error.args = tuple(put(each) if isinstance(each, str) else each for each in error.args)
    notes: list[str] = getattr(error, "__notes__", [])
    notes[:] = [note.replace(f"during {old} on ", f"during {new} on ", 1) for note in notes]


class ClosedError(WirelineError, OSError):
    """The socket was closed on this side, before the call or during it. ``errno`` is ``EBADF``."""

    def __init__(self, message: str = "the socket is closed") -> None:
        super().__init__(errno.EBADF, message)


class DialError(WirelineError, OSError):
    """No address of the name could be connected to.

    Attributes:
        attempts: ``(sockaddr, error, seconds)`` of every address that was tried, in the order of the attempts;
            ``seconds`` is the duration of the attempt.
        errno: the code of the first attempt.
    """

    def __init__(self, target: str, attempts: tuple[tuple[SockAddr, OSError, float], ...]) -> None:
        self.attempts = attempts
        code = attempts[0][1].errno if attempts else None
        tried = "; ".join(
            f"{sockaddr!r}: {_reason(error)} after {seconds:.3f} s" for sockaddr, error, seconds in attempts
        )
        message = f"cannot connect to {target} ({tried or 'no address to try'})"
        super().__init__(code or errno.EHOSTUNREACH, message)


def _reason(error: OSError) -> str:
    """The operating system's text of an error, without the number."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error) or type(error).__name__)


class SocketTimeout(WirelineError, TimeoutError):
    """The timeout of one call passed. No received data is lost: repeat the call, or make another one.

    Attributes:
        operation: the name of the method.
        seconds: its timeout.
        bytes_sent: of a send, the number of bytes sent before; otherwise ``None``.
    """

    def __init__(self, operation: str, seconds: float, bytes_sent: int | None = None) -> None:
        self.operation = operation
        self.seconds = seconds
        self.bytes_sent = bytes_sent
        sent = "" if bytes_sent is None else f", {bytes_sent} bytes had been sent"
        super().__init__(errno.ETIMEDOUT, f"{operation} did not finish within {seconds:g} s{sent}")


class EndOfStreamError(WirelineError, EOFError):
    """The stream ended before a read had all its bytes.

    Attributes:
        partial: the bytes that did arrive; they also stay readable.
    """

    def __init__(self, operation: str, partial: bytes, wanted: str) -> None:
        self.partial = partial
        super().__init__(f"{operation}: the stream ended after {len(partial)} bytes; expected {wanted}")


class LineTooLongError(WirelineError, ValueError):
    """The peer sent more than ``max_length`` bytes without an end of line, or without the delimiter.

    Nothing was consumed: the bytes stay readable.

    Attributes:
        limit: the ``max_length`` that was given, in bytes.
    """

    def __init__(self, operation: str, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{operation}: no end within the limit of {limit} bytes")


class FrameError(WirelineError, ValueError):
    """The header of a frame has an impossible length. Nothing was consumed: the bytes stay readable.

    Attributes:
        size: the size of the payload that the header says, in bytes, after ``length_adjust``.
        limit: the ``max_size`` that was given, in bytes.
    """

    def __init__(
        self, operation: str, size: int, limit: int, subject: str = "the payload of the frame has"
    ) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"{operation}: {subject} {size} bytes, {self._reason()}")

    def _reason(self) -> str:
        return "which is negative"


class FrameTooLongError(FrameError):
    """A frame is longer than ``max_size``. Nothing was consumed, and none of its payload was read ahead for it."""

    def _reason(self) -> str:
        return f"the limit is {self.limit}"


class BusyError(WirelineError, RuntimeError):
    """Another thread or task is reading this socket, and its read goes on. Concurrent writers wait instead."""
