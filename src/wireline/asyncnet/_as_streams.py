"""``as_streams`` and ``as_transport``: asyncio's interfaces over an ``AsyncSocket``.

They load ``_as_transport`` when they are called: a program that does not call them has no use for its classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wireline._socket_view import SocketView
from wireline._validation import require_int
from wireline.asyncnet._port import running_port
from wireline.asyncnet._socket import AsyncSocket
from wireline.options import SOCK_STREAM

if TYPE_CHECKING:
    import asyncio

__all__ = ["as_streams", "as_transport"]


def as_streams(sock: AsyncSocket, limit: int = 65536) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return asyncio's stream reader and writer over a connected socket, for libraries that need them.

    This is a plain call. The streams own the socket: nothing else may read or write it from now on, and
    ``writer.close()`` closes it. Bytes that the socket has received are the first that the reader gives.

    Args:
        sock: a connected stream; over TLS after its handshake.
        limit: the size in bytes of the reader's buffer; at twice this size it stops receiving.

    Returns:
        The reader and the writer.

    Raises:
        TypeError, ValueError: an argument has the wrong type, a datagram socket, or ``limit`` is not positive.
        ClosedError: the socket is closed.
        OSError: ``ENOTCONN``: the socket is not connected.
        RuntimeError: no event loop runs, or it is trio's.
    """
    require_int("limit", limit)
    if limit < 1:
        raise ValueError(f"limit must be at least 1 byte, got {limit}")
    view = _require_usable(sock, "as_streams")
    from wireline.asyncnet import _as_transport

    return _as_transport.make_streams(sock, view, limit)


def as_transport(sock: AsyncSocket, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
    """Return an asyncio transport over a connected socket, for libraries that are asyncio protocols.

    This is a plain call. The transport owns the socket, and calls ``protocol.connection_made`` in the next turn of the
    loop, as asyncio does. It reads and writes in two tasks: a cancellation of all tasks of the loop aborts it. Where
    asyncio differs from this library, it is asyncio's way: ``write`` keeps what the system does not take, a reset is an
    error in ``connection_lost``. If ``abort`` or an error drops written bytes, the peer gets a reset.

    Args:
        sock: a connected stream; over TLS after its handshake.
        protocol: an ``asyncio.Protocol`` or ``asyncio.BufferedProtocol``.

    Returns:
        The transport.

    Raises:
        TypeError: ``sock`` is not an ``AsyncSocket``, or a datagram socket; ``protocol`` is no protocol.
        ClosedError: the socket is closed.
        OSError: ``ENOTCONN``: the socket is not connected.
        RuntimeError: no event loop runs, or it is trio's.
    """
    if isinstance(protocol, type) or not hasattr(protocol, "connection_made"):
        raise TypeError(f"as_transport needs an asyncio protocol, not {protocol!r}")
    view = _require_usable(sock, "as_transport")
    from wireline.asyncnet import _as_transport

    return _as_transport.make_transport(sock, view, protocol)


def _require_usable(sock: AsyncSocket, operation: str) -> SocketView:
    """Raise the error of a socket that is no connected stream, or of a loop that is not asyncio's."""
    if not isinstance(sock, AsyncSocket):
        raise TypeError(f"{operation} needs a wireline.asyncnet.AsyncSocket, not {type(sock).__name__}")
    view = SocketView(sock)
    if view.type != SOCK_STREAM:
        raise TypeError(f"{operation} needs a stream socket, this is a datagram socket")
    _ = sock.peer_addr  # raises ENOTCONN
    if running_port().tasks is None:
        raise RuntimeError(
            f"{operation} needs asyncio or uvloop: a transport cannot outlive its call on trio"
        )
    return view
