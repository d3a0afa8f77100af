"""Facts that the operating system knows about a socket: TCP_INFO of a connection, the process behind a Unix peer."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from dataclasses import dataclass

from wireline._os.keep_alive import require_tcp

__all__ = ["PeerCredentials", "TcpInfo", "peer_credentials", "tcp_info"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TcpInfo:
    """The state of a TCP connection, as its own operating system sees it. None where that does not say.

    The figures are those of Linux's ``TCP_INFO``, tcp(7), in seconds and bytes.
    """

    state: str
    """The state of RFC 9293, for example ``"ESTABLISHED"`` or ``"CLOSE_WAIT"``."""
    rtt: float | None = None
    """The smoothed round-trip time, in seconds."""
    rtt_var: float | None = None
    """Its mean deviation, in seconds."""
    retransmits: int | None = None
    """Segments that were sent again, since the beginning."""
    congestion_window: int | None = None
    """The congestion window, in bytes: segments times the size of one."""
    unacked: int | None = None
    """Bytes that are on their way and not acknowledged: segments times the size of one."""
    delivery_rate: int | None = None
    """The most recent rate of delivery to the peer, in bytes a second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerCredentials:
    """The process that connected a Unix socket, or listened for it, when it did."""

    pid: int
    """The process; it may have ended since, and the number may be another one's."""
    uid: int
    """Its effective user."""
    gid: int
    """Its effective group."""


# RFC 9293, in the order of Linux's include/net/tcp_states.h. The last is Linux's own.
_STATES = (
    "UNKNOWN ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING "
    "NEW_SYN_RECV"
).split()

# Linux's `struct tcp_info` up to `tcpi_total_retrans`, which every kernel has since 2.6: 8 bytes, then numbers.
_BASE = struct.Struct("=8B24I")
_SEND_MSS, _UNACKED, _RTT, _RTT_VAR, _WINDOW, _RETRANSMITS = 8 + 2, 8 + 4, 8 + 15, 8 + 16, 8 + 18, 8 + 23

# `tcpi_delivery_rate`, since Linux 4.9.
_RATE = struct.Struct("=Q")
_RATE_AT = 160

_CREDENTIALS = struct.Struct("=iII")


def tcp_info(sock: socket.socket) -> TcpInfo:
    """Ask the operating system about a TCP connection.

    Raises:
        NotImplementedError: this platform has no ``TCP_INFO`` of Linux.
        OSError: ``sock`` is no TCP socket.
    """
    if sys.platform != "linux":
        raise NotImplementedError(f"tcp_info: {sys.platform} has no TCP_INFO as Linux has")
    require_tcp(sock, "tcp_info")
    return parse_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))


def parse_tcp_info(data: bytes) -> TcpInfo:
    """Read Linux's ``struct tcp_info``. An older kernel gives less of it."""
    number = data[0] if data else 0
    state = _STATES[number] if number < len(_STATES) else f"STATE_{number}"
    if len(data) < _BASE.size:
        return TcpInfo(state=state)
    values = _BASE.unpack_from(data)
    segment = values[_SEND_MSS]
    return TcpInfo(
        state=state,
        rtt=values[_RTT] / 1e6,
        rtt_var=values[_RTT_VAR] / 1e6,
        retransmits=values[_RETRANSMITS],
        congestion_window=values[_WINDOW] * segment,
        unacked=values[_UNACKED] * segment,
        delivery_rate=_RATE.unpack_from(data, _RATE_AT)[0] if len(data) >= _RATE_AT + _RATE.size else None,
    )


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Ask the operating system which process is at the other end of a Unix socket.

    Raises:
        NotImplementedError: this platform has no ``SO_PEERCRED``.
        OSError: ``sock`` is no Unix socket, or ``ENOTCONN``: it has no peer.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        raise NotImplementedError(f"peer_credentials: {sys.platform} has no SO_PEERCRED")
    if sock.family != socket.AF_UNIX:
        raise OSError(errno.EOPNOTSUPP, "peer_credentials: this is no Unix socket")
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    if pid == 0:
        # Linux's answer for a socket without a peer, with an overflow uid.
        raise OSError(errno.ENOTCONN, "peer_credentials: the socket has no peer")
    return PeerCredentials(pid=pid, uid=uid, gid=gid)
