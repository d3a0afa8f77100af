"""The waiting of ``connect``: for the addresses of a name, and for one of them to answer."""

from __future__ import annotations

import os
import socket
import time

from wireline._core.deadline import CallDeadline
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os import resolver
from wireline._os.descriptor import CONNECTING, reject_self_connect
from wireline._socket_base import BaseSocket, raise_if_closed
from wireline.errors import SockAddr, SocketTimeout
from wireline.net._fd_guard import FdGuard
from wireline.net._poll import Latch, Readiness, wait_for_lookup
from wireline.options import AF_UNIX

__all__ = ["connect_to", "resolve"]

# A Unix listener whose queue is full refuses a connect that may not wait, and no event tells when there is room.
# Seconds between two attempts; both are guesses: short beside a human, long beside a system call.
_UNIX_RETRY_FIRST, _UNIX_RETRY_LONGEST = 0.001, 0.05


def resolve(
    owner: BaseSocket, fd: FdGuard, operation: str, host: str, port: int, deadline: CallDeadline | None
) -> list[AddrInfo]:
    """Return the addresses of a name that a socket like this one can use."""
    sock = fd.sock
    lookup = resolver.resolve(host, port, sock.family, sock.type, sock.proto)
    found = wait_for_lookup(lookup, operation, deadline, fd.waker)
    raise_if_closed(owner, operation)
    assert found is not None
    return found


def connect_to(
    owner: BaseSocket, fd: FdGuard, operation: str, target: SockAddr, deadline: CallDeadline | None
) -> None:
    """Connect the descriptor to one address."""
    sock = fd.sock
    pause = _UNIX_RETRY_FIRST
    while True:
        code = sock.connect_ex(target)
        if code in CONNECTING and sock.family != AF_UNIX:
            if not Readiness(sock.fileno(), write=True, waker=fd.waker).wait(deadline):
                assert deadline is not None
                raise SocketTimeout(operation, deadline.seconds)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        raise_if_closed(owner, operation)
        if code == 0:
            reject_self_connect(sock)
            return
        if code not in CONNECTING:
            raise OSError(code, os.strerror(code))
        _pause(fd, operation, pause, deadline)
        pause = min(2 * pause, _UNIX_RETRY_LONGEST)


def _pause(fd: FdGuard, operation: str, seconds: float, deadline: CallDeadline | None) -> None:
    if deadline is not None:
        seconds = min(seconds, deadline.remaining(time.monotonic()))
        if not seconds:
            raise SocketTimeout(operation, deadline.seconds)
    fd.waker.wait_for(Latch(), seconds)
