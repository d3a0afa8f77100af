"""``SocketView``: the facts and options of a connected socket, in the words of ``socket.socket``.

Programs written for ``socket`` or asyncio ask for raw addresses and set options by number. A view acts on a duplicate
of the descriptor, which exists for one call: were it the descriptor itself, a ``close`` in another thread could give
its number to another file in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

from wireline._socket_base import BaseSocket
from wireline.errors import ClosedError

__all__ = ["SocketView"]

# With this flag `socket.socket` leaves the file status flags alone, which the duplicate shares with the original;
# without it `socket.setdefaulttimeout` would make the original non-blocking.
_LEAVE_FLAGS = getattr(socket, "SOCK_NONBLOCK", 0)


class SocketView:
    """The facts and options of a socket. Reading and writing are the owner's."""

    def __init__(self, sock: BaseSocket) -> None:
        self._sock = sock
        with self._duplicate(socket.AF_UNSPEC, socket.SOCK_STREAM, 0) as raw:
            self.family = socket.AddressFamily(_fact(raw, "SO_DOMAIN", raw.family))
            self.type = socket.SocketKind(raw.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
            self.proto = _fact(raw, "SO_PROTOCOL", raw.proto)

    @contextlib.contextmanager
    def _duplicate(self, family: int, kind: int, proto: int) -> Iterator[socket.socket]:
        """Yield a second descriptor of the socket, which is closed at the end of the block."""
        fd = self._sock.fileno()
        if fd < 0:
            raise ClosedError
        fd = os.dup(fd)
        if self._sock.is_closed:  # perhaps before the `dup`, which may then have taken another file
            os.close(fd)
            raise ClosedError
        with socket.socket(family, kind | _LEAVE_FLAGS, proto, fileno=fd) as raw:
            yield raw

    def _raw(self) -> contextlib.AbstractContextManager[socket.socket]:
        return self._duplicate(self.family, self.type, self.proto)

    def fileno(self) -> int:
        """Return the descriptor; -1 after ``close``."""
        return self._sock.fileno()

    def getsockname(self) -> Any:
        """Return the local address, as ``socket`` writes it."""
        with self._raw() as raw:
            return raw.getsockname()

    def getpeername(self) -> Any:
        """Return the address of the peer, as ``socket`` writes it."""
        with self._raw() as raw:
            return raw.getpeername()

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> int | bytes:
        """Return an option: an int, or ``size`` bytes."""
        with self._raw() as raw:
            return raw.getsockopt(level, option, size) if size else raw.getsockopt(level, option)

    def setsockopt(self, level: int, option: int, value: Any, *size: Any) -> None:
        """Set an option: an int, bytes, or None and a size."""
        with self._raw() as raw:
            raw.setsockopt(level, option, value, *size)

    def shutdown(self, how: int, /) -> None:
        """Shut down the descriptor, without a word to TLS."""
        with self._raw() as raw:
            raw.shutdown(how)

    def get_inheritable(self) -> bool:
        """Whether programs that this process executes inherit the descriptor."""
        return os.get_inheritable(self.fileno())

    def set_inheritable(self, inheritable: bool, /) -> None:
        """Set whether programs that this process executes inherit the descriptor."""
        os.set_inheritable(self.fileno(), inheritable)

    def gettimeout(self) -> float | None:
        """Return 0: what waits is the event loop."""
        return 0.0

    def settimeout(self, value: float | None, /) -> None:
        """Accept 0 and refuse anything else: what waits is the event loop."""
        if value != 0:
            _refuse("settimeout")

    def setblocking(self, flag: bool, /) -> None:
        """Accept False and refuse True: what waits is the event loop."""
        if flag:
            _refuse("setblocking")

    def __repr__(self) -> str:
        return f"<wireline.SocketView of {self._sock!r}>"


def _fact(raw: socket.socket, option: str, otherwise: int) -> int:
    """Return a property of a descriptor, where the system says it."""
    number = getattr(socket, option, None)
    return int(otherwise if number is None else raw.getsockopt(socket.SOL_SOCKET, number))


def _refuse(operation: str) -> NoReturn:
    raise OSError(errno.EOPNOTSUPP, f"{operation}: the socket belongs to an event loop, which must not block")
