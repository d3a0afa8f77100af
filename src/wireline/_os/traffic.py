"""Byte counts of a connection that the kernel keeps."""

from __future__ import annotations

import socket
import struct
import sys

from wireline.options import AF_INET, AF_INET6, IPPROTO_TCP

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["sent_mark", "tcp_traffic"]

# linux/tcp.h, `struct tcp_info`: tcpi_bytes_acked and tcpi_bytes_received, two __u64 at byte 120.
_BYTES = struct.Struct("=QQ")
_BYTES_AT = 120


def tcp_traffic(sock: socket.socket) -> tuple[int | None, int | None]:
    """Return the bytes received, and the sent bytes that the peer acknowledged; None where Linux does not say.

    Raises:
        OSError: from getsockopt(2).
    """
    if sys.platform != "linux" or sock.family not in (AF_INET, AF_INET6):
        return None, None
    info = sock.getsockopt(IPPROTO_TCP, socket.TCP_INFO, _BYTES_AT + _BYTES.size)
    if len(info) < _BYTES_AT + _BYTES.size:  # a kernel before 4.1
        return None, None
    acknowledged, received = _BYTES.unpack_from(info, _BYTES_AT)
    return received, acknowledged


def sent_mark(sock: socket.socket) -> int:
    """Return a number that changes when the peer takes bytes that were sent: 0 where there is none.

    Raises:
        OSError: from getsockopt(2) or ioctl(2).
    """
    acknowledged = tcp_traffic(sock)[1]
    if acknowledged is not None:
        return acknowledged
    if sys.platform == "win32":
        return 0
    # Of a Unix socket: the bytes that the peer has not read. The same number twice may hide an exchange of equal size.
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
