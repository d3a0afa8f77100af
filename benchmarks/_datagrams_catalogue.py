"""Datagrams that have arrived, one by one and many in a call."""

from __future__ import annotations

from benchmarks import _async_catalogue
from benchmarks._payload import Payload
from benchmarks._rows import RateRow
from benchmarks._work import Contestant, Work

_DATAGRAMS = Work(Payload.LINES, None, 600, 40)

_SOCKET = "socket"
_NET = "wireline net"
_ASYNCNET = _async_catalogue.OURS.name

CONTESTANTS = [
    Contestant(name, _DATAGRAMS, f"benchmarks.datagrams:{function}", program)
    for name, function, program in [
        ("socket recvfrom", "recvfrom", _SOCKET),
        ("wireline recv_from", "recv_from", _NET),
        ("wireline recv_many_from", "recv_many_from", _NET),
        ("asyncio DatagramProtocol", "protocol", "asyncio DatagramProtocol"),
        ("wireline async recv_from", "async_recv_from", _ASYNCNET),
        ("wireline async recv_many_from", "async_recv_many_from", _ASYNCNET),
        ("socket sendto", "sendto", _SOCKET),
        ("wireline send_to", "send_to", _NET),
        ("wireline send_many_to", "send_many_to", _NET),
    ]
]

ROWS = [
    RateRow("datagrams 64 B: recv_from", "wireline recv_from", "socket recvfrom", 0.45),
    RateRow("datagrams 64 B: recv_many_from", "wireline recv_many_from", "socket recvfrom", 0.5),
    RateRow("async datagrams 64 B: recv_from", "wireline async recv_from", "asyncio DatagramProtocol", 1),
    RateRow(
        "async datagrams 64 B: recv_many_from",
        "wireline async recv_many_from",
        "asyncio DatagramProtocol",
        1.5,
    ),
    RateRow("datagrams 64 B: send_to", "wireline send_to", "socket sendto"),
    RateRow("datagrams 64 B: send_many_to", "wireline send_many_to", "socket sendto"),
]
