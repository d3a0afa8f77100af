"""Sockets for Python with one API in two flavours.

``wireline.net.Socket`` blocks, ``wireline.asyncnet.AsyncSocket`` is awaited. This module has the values, flags,
addresses and errors that both share. It imports neither ``asyncio`` nor ``ssl``.
"""

from __future__ import annotations

import typing as _typing

from wireline._core.frames import Frame as Frame
from wireline._os.keep_alive import KeepAlive as KeepAlive
from wireline._public import load_when_used as _load_when_used
from wireline._public import publish as _publish
from wireline._targets import Target as Target
from wireline._targets import parse_target as parse_target
from wireline.address import IPV4_ANY as IPV4_ANY
from wireline.address import IPV4_BROADCAST as IPV4_BROADCAST
from wireline.address import IPV4_LOOPBACK as IPV4_LOOPBACK
from wireline.address import IPV6_ANY as IPV6_ANY
from wireline.address import IPV6_LOOPBACK as IPV6_LOOPBACK
from wireline.address import Address as Address
from wireline.address import IpAddress as IpAddress
from wireline.address import IpAddressFamily as IpAddressFamily
from wireline.address import format_ip as format_ip
from wireline.address import from_sockaddr as from_sockaddr
from wireline.address import get_primary_ip_addr as get_primary_ip_addr
from wireline.address import ip_family as ip_family
from wireline.address import is_ip_address as is_ip_address
from wireline.address import parse_hostname as parse_hostname
from wireline.address import parse_ip_address as parse_ip_address
from wireline.address import to_sockaddr as to_sockaddr
from wireline.errors import BusyError as BusyError
from wireline.errors import ClosedError as ClosedError
from wireline.errors import DialError as DialError
from wireline.errors import EndOfStreamError as EndOfStreamError
from wireline.errors import FrameError as FrameError
from wireline.errors import FrameTooLongError as FrameTooLongError
from wireline.errors import LineTooLongError as LineTooLongError
from wireline.errors import SocketTimeout as SocketTimeout
from wireline.errors import WirelineError as WirelineError
from wireline.options import AF_INET as AF_INET
from wireline.options import AF_INET6 as AF_INET6
from wireline.options import AF_UNIX as AF_UNIX
from wireline.options import BUFFER_SIZE as BUFFER_SIZE
from wireline.options import IPPROTO_TCP as IPPROTO_TCP
from wireline.options import IPPROTO_UDP as IPPROTO_UDP
from wireline.options import MAX_FRAME_SIZE as MAX_FRAME_SIZE
from wireline.options import MAX_LINE_LENGTH as MAX_LINE_LENGTH
from wireline.options import SAFE_DISCONN as SAFE_DISCONN
from wireline.options import SOCK_DGRAM as SOCK_DGRAM
from wireline.options import SOCK_STREAM as SOCK_STREAM
from wireline.options import SOMAXCONN as SOMAXCONN
from wireline.options import AcceptResult as AcceptResult
from wireline.options import ReadLineResult as ReadLineResult
from wireline.options import SocketFlag as SocketFlag
from wireline.options import SockOpt as SockOpt
from wireline.options import is_disconnection_error as is_disconnection_error
from wireline.timing import Backoff as Backoff
from wireline.timing import Deadline as Deadline
from wireline.timing import Timeout as Timeout

if _typing.TYPE_CHECKING:
    from wireline._core.stats import SocketStats as SocketStats
    from wireline._os.facts import PeerCredentials as PeerCredentials
    from wireline._os.facts import TcpInfo as TcpInfo
    from wireline._relay_report import RelayReport as RelayReport

__all__ = [
    "AF_INET",
    "AF_INET6",
    "AF_UNIX",
    "BUFFER_SIZE",
    "IPPROTO_TCP",
    "IPPROTO_UDP",
    "IPV4_ANY",
    "IPV4_BROADCAST",
    "IPV4_LOOPBACK",
    "IPV6_ANY",
    "IPV6_LOOPBACK",
    "MAX_FRAME_SIZE",
    "MAX_LINE_LENGTH",
    "SAFE_DISCONN",
    "SOCK_DGRAM",
    "SOCK_STREAM",
    "SOMAXCONN",
    "AcceptResult",
    "Address",
    "Backoff",
    "BusyError",
    "ClosedError",
    "Deadline",
    "DialError",
    "EndOfStreamError",
    "Frame",
    "FrameError",
    "FrameTooLongError",
    "IpAddress",
    "IpAddressFamily",
    "KeepAlive",
    "LineTooLongError",
    "PeerCredentials",
    "ReadLineResult",
    "RelayReport",
    "SockOpt",
    "SocketFlag",
    "SocketStats",
    "SocketTimeout",
    "Target",
    "TcpInfo",
    "Timeout",
    "WirelineError",
    "format_ip",
    "from_sockaddr",
    "get_primary_ip_addr",
    "ip_family",
    "is_disconnection_error",
    "is_ip_address",
    "parse_hostname",
    "parse_ip_address",
    "parse_target",
    "to_sockaddr",
]

_LOADED_WHEN_USED = {
    "PeerCredentials": ("wireline._os.facts", __name__),
    "RelayReport": ("wireline._relay_report", __name__),
    "SocketStats": ("wireline._core.stats", __name__),
    "TcpInfo": ("wireline._os.facts", __name__),
}

_publish(__name__, globals(), (name for name in __all__ if name not in _LOADED_WHEN_USED))

__getattr__: _typing.Callable[[str], object] = _load_when_used(__name__, globals(), _LOADED_WHEN_USED)
