"""What the adapters of async libraries ask of the socket that they take over."""

from __future__ import annotations

from wireline._socket_view import SocketView
from wireline.asyncnet import AsyncSocket
from wireline.options import SOCK_STREAM, SockOpt

__all__ = ["require_connected", "require_listening"]


def require_connected(sock: AsyncSocket) -> SocketView:
    """Return a view of a connected stream.

    Raises:
        TypeError: it is not an ``AsyncSocket``, or a datagram socket.
        ClosedError: it is closed.
        OSError: ``ENOTCONN``: it is not connected.
    """
    view = _view_of_a_stream(sock)
    _ = sock.peer_addr  # raises ENOTCONN
    return view


def require_listening(sock: AsyncSocket) -> SocketView:
    """Return a view of a listener.

    Raises:
        TypeError: it is not an ``AsyncSocket``, or a datagram socket, or has TLS of its own.
        ClosedError: it is closed.
        ValueError: it does not listen.
    """
    view = _view_of_a_stream(sock)
    if not sock.get_sock_opt(SockOpt.ACCEPT_CONN):
        raise ValueError("a Listener needs a socket that listens")
    if sock.is_ssl:  # its `accept` makes one handshake after the other
        raise TypeError("a Listener needs a socket without TLS of its own: give it the context as tls=")
    return view


def _view_of_a_stream(sock: AsyncSocket) -> SocketView:
    if not isinstance(sock, AsyncSocket):
        raise TypeError(f"a wireline.asyncnet.AsyncSocket is needed, not {type(sock).__name__}")
    view = SocketView(sock)
    if view.type != SOCK_STREAM:
        raise TypeError("a stream socket is needed, this is a datagram socket")
    return view
