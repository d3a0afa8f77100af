"""Listening sockets that another program has opened for this one."""

from __future__ import annotations

from wireline._os.systemd import adopt_inherited_sockets
from wireline.net._socket import Socket

__all__ = ["listeners_from_environment"]


def listeners_from_environment() -> list[tuple[str, Socket]]:
    """Take the sockets that systemd, or another supervisor with its protocol, has opened for this process.

    The variables ``LISTEN_PID``, ``LISTEN_FDS`` and ``LISTEN_FDNAMES`` are removed, so a second call returns nothing,
    and so does a child. The descriptors become close-on-exec. See sd_listen_fds(3).

    Returns:
        Pairs of a name and a socket, in the order of the descriptors. Names may repeat; without ``LISTEN_FDNAMES`` they
        are ``"unknown"``. An empty list if ``LISTEN_PID`` is not this process, or the variables are missing.

    Raises:
        ValueError: a variable is malformed, or a descriptor is not an open stream or datagram socket.
    """
    return adopt_inherited_sockets(Socket.from_socket)
