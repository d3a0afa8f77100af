"""The waiting of ``connect``: for the addresses of a name, and for one of them to answer."""

from __future__ import annotations

from wireline._core.deadline import CallDeadline
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os import resolver
from wireline._os.descriptor import reject_self_connect
from wireline._socket_base import BaseSocket, raise_if_closed
from wireline.asyncnet._fd_on_loop import FdOnLoop
from wireline.asyncnet._operations import Connect
from wireline.asyncnet._sync import wait_for_lookup
from wireline.errors import SockAddr
from wireline.options import AF_UNIX

__all__ = ["connect_to", "resolve"]


async def resolve(
    owner: BaseSocket, fd: FdOnLoop, operation: str, host: str, port: int, deadline: CallDeadline | None
) -> list[AddrInfo]:
    """Return the addresses of a name that a socket like this one can use."""
    sock = fd.sock
    lookup = resolver.resolve(host, port, sock.family, sock.type, sock.proto)
    with fd.notifier() as notifier:
        found = await wait_for_lookup(lookup, operation, deadline, notifier)
    raise_if_closed(owner, operation)
    assert found is not None
    return found


async def connect_to(
    owner: BaseSocket, fd: FdOnLoop, operation: str, target: SockAddr, deadline: CallDeadline | None
) -> None:
    """Connect the descriptor to one address."""
    sock = fd.sock
    connect = Connect(sock, target)
    queue = fd.open_write_queue()
    if sock.family == AF_UNIX:
        await fd.retry_with_backoff(connect, operation, deadline)
    else:
        # An operation of the loop begins the connection itself.
        begins = fd.port.completions is None
        await queue.perform(connect, operation, deadline, try_now=begins)
    raise_if_closed(owner, operation)
    reject_self_connect(sock)
