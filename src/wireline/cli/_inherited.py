"""``--fd``: sockets that the parent process has opened: a shell, systemd, inetd."""

from __future__ import annotations

import os
import socket
import stat
from typing import NamedTuple

from wireline import SOCK_STREAM, Target
from wireline.cli._binding import target_at
from wireline.net import Socket, listeners_from_environment

SYSTEMD = "systemd"
"""The value of ``--fd`` for all sockets of ``LISTEN_FDS``."""

_STANDARD = (0, 1, 2)


class Inherited(NamedTuple):
    """What ``--fd`` names.

    Attributes:
        sockets: they listen, or it is one that is connected.
        connected: whether it is one connection.
        address: where they listen; of a connection, this side of it.
    """

    sockets: list[Socket]
    connected: bool
    address: Target


def inherited(spec: str) -> Inherited:
    """Find the sockets, and check that they can be served.

    Raises:
        ValueError: a descriptor is not open, or is not such a socket.
    """
    if spec != SYSTEMD:
        return _checked([_opened(int(spec))], f"descriptor {spec}")
    found = [sock for _, sock in listeners_from_environment()]
    if not found:
        raise ValueError(
            "the environment has no LISTEN_FDS for this process: start it by a socket unit of systemd, "
            "or give the number of a descriptor"
        )
    return _checked(found, "a socket of LISTEN_FDS")


def _opened(fd: int) -> Socket:
    try:
        mode = os.fstat(fd).st_mode
    except (OSError, OverflowError):
        raise ValueError(f"descriptor {fd} is not open in this process") from None
    if not stat.S_ISSOCK(mode):
        raise ValueError(f"descriptor {fd} is not a socket")
    # The standard descriptors must stay open: the next file would get the number.
    sock = socket.socket(fileno=os.dup(fd) if fd in _STANDARD else fd)
    sock.set_inheritable(False)
    try:
        return Socket.from_socket(sock)
    except (OSError, ValueError):
        sock.detach()
        raise ValueError(f"descriptor {fd} is no TCP or Unix stream socket") from None


def _checked(sockets: list[Socket], name: str) -> Inherited:
    connected = [sock for sock in sockets if not _listens(sock, name)]
    if connected and len(sockets) > 1:
        raise ValueError(f"{name} does not listen: several sockets must all be listening ones")
    return Inherited(sockets, bool(connected), target_at(sockets[0].local_addr))


def _listens(sock: Socket, name: str) -> bool:
    """Whether a socket listens; False: it is connected."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != SOCK_STREAM:
        raise ValueError(f"{name} is a datagram socket, and a listening stream socket is needed")
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return True
    try:
        sock.peer_addr  # noqa: B018 - it raises
    except OSError:
        raise ValueError(f"{name} is a socket that neither listens nor is connected") from None
    return False


def separate_from_standard_streams(sock: Socket) -> None:
    """Replace the standard descriptors that are this socket: inetd passes a connection as all three.

    Messages for the operator must not reach the client, and the connection must end with the socket.
    """
    for fd in _STANDARD:
        if os.path.sameopenfile(fd, sock.fileno()):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd)
            os.close(null)
