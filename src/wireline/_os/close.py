"""Closing a descriptor, whatever close(2) reports."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["close_quietly"]


def close_quietly(sock: socket.socket) -> None:
    """Close a socket whose data was sent, or is not wanted any more.

    An error of close(2) is about data that cannot be written again, and on Linux the number is free all the same
    (close(2), "Dealing with error returns from close()"). A caller could do nothing about it, so it is not raised.
    """
    with contextlib.suppress(OSError):
        sock.close()
