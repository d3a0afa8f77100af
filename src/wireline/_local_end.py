"""The local end of a socket: all that ``connect`` sets up again when it replaces a descriptor that failed (C3)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from wireline._os.process import process
from wireline.errors import SockAddr

if TYPE_CHECKING:
    from wireline._os import unix_file

__all__ = ["LocalEnd"]


class LocalEnd:
    """The options and the bound address of a socket, and the file that a Unix socket has created."""

    __slots__ = ("_address", "_file", "_groups", "_options")

    def __init__(self) -> None:
        # By level and number, in the order of setting.
        self._options: dict[tuple[int, int], int | bytes] = {}
        # The options that joined the multicast groups.
        self._groups: dict[tuple[int, int, bytes], None] = {}
        self._address: SockAddr | None = None
        self._file: unix_file.UnixFile | None = None

    # Options.

    def set_option(self, sock: socket.socket, level: int, number: int, value: int | bytes) -> None:
        """Set an option, and remember it."""
        sock.setsockopt(level, number, value)
        self._options.pop((level, number), None)
        self._options[level, number] = value

    def get_option(self, level: int, number: int) -> int | bytes | None:
        """Return the value that was set; None if none was."""
        return self._options.get((level, number))

    def join(self, sock: socket.socket, option: tuple[int, int, bytes]) -> None:
        """Set the option that joins a multicast group, and remember it."""
        sock.setsockopt(*option)
        self._groups[option] = None

    def leave(
        self, sock: socket.socket, option: tuple[int, int, bytes], joined: tuple[int, int, bytes]
    ) -> None:
        """Set the option that leaves a multicast group, and forget the one that joined it."""
        sock.setsockopt(*option)
        self._groups.pop(joined, None)

    def copy_options(self, fresh: socket.socket) -> None:
        """Set the remembered options of another descriptor."""
        for (level, number), value in self._remembered():
            fresh.setsockopt(level, number, value)
        for option in tuple(self._groups):
            fresh.setsockopt(*option)

    def _remembered(self) -> list[tuple[tuple[int, int], int | bytes]]:
        while True:
            try:
                return list(self._options.items())
            except RuntimeError:  # another thread set an option during the copy
                continue

    # The address.

    @property
    def is_bound(self) -> bool:
        """Whether this program has bound the socket."""
        return self._address is not None

    def bind(self, sock: socket.socket, sockaddr: SockAddr) -> None:
        """Bind to an IP address."""
        try:
            sock.bind(sockaddr)
        except OSError as error:
            error.add_note(f"while binding to {sockaddr!r}")
            raise
        self._address = sockaddr

    def bind_to_path(self, sock: socket.socket, path: str | bytes) -> None:
        """Bind to a path, which creates a file, or to an abstract name."""
        from wireline._os import unix_file  # only servers need it

        try:
            self._file = unix_file.bind(sock, path)
        except OSError as error:
            error.add_note(f"while binding to {path!r}")
            raise
        self._address = path

    def bind_again(self, fresh: socket.socket) -> None:
        """Bind another descriptor to the remembered address."""
        if isinstance(self._address, str | bytes):
            self.bind_to_path(fresh, self._address)
        elif self._address is not None:
            self.bind(fresh, self._address)

    # The file.

    def own_file(self) -> None:
        """Make this process the one that removes the file."""
        if self._file is not None:
            self._file = self._file._replace(owner=process.epoch)

    def keep_file(self) -> None:
        """Leave the file where it is: ``remove_file`` has no effect any more."""
        self._file = None

    def remove_file(self) -> None:
        """Remove the file, in the process that owns it, while the descriptor is open."""
        made, self._file = self._file, None
        if made is not None:
            made.remove()
