"""Closing a descriptor without raising the error of close(2)."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["close_quietly"]


def close_quietly(sock: socket.socket) -> None:
    """Close a socket, and ignore an error of close(2).

    Such an error is about data that was written before and cannot be written again. On Linux the descriptor is closed
    all the same (close(2), "Dealing with error returns from close()"), so a caller can do nothing about it.
    """
    with contextlib.suppress(OSError):
        sock.close()
