"""TLS 1.3: the works of the other catalogues, with a certificate; and handshakes."""

from __future__ import annotations

from benchmarks._async_catalogue import (
    OURS,
    OURS_UVLOOP,
    PROTOCOL,
    PROTOCOL_UVLOOP,
    STREAMS,
    STREAMS_UVLOOP,
    Pair,
)
from benchmarks._driver import Entrant
from benchmarks._payload import Payload
from benchmarks._rows import RateRow, Row
from benchmarks._service import ServerContestant, Service
from benchmarks._work import Contestant, Work

# One connection. As many as take about half a second.

PING_PONG = Work(Payload.MESSAGE, "echo", 5_000, 500, tls=True)
BULK_OUT = Work(Payload.BLOCK, "drain", 6_000, 400, tls=True)
BULK_IN = Work(Payload.BLOCK, "feed", 6_000, 400, tls=True)

SSL_SOCKET = "ssl.SSLSocket"
NET = "wireline net"

_BLOCKING = [
    ("SSLSocket echo", PING_PONG, "blocking:socket_echo", SSL_SOCKET),
    ("wireline TLS echo", PING_PONG, "blocking:recv_some_echo", NET),
    ("SSLSocket sendall", BULK_OUT, "blocking:socket_sendall", SSL_SOCKET),
    ("wireline TLS send", BULK_OUT, "blocking:send", NET),
    ("SSLSocket recv", BULK_IN, "blocking:socket_recv", SSL_SOCKET),
    ("wireline TLS recv_some", BULK_IN, "blocking:recv_some", NET),
    ("SSLSocket recv, ready", BULK_IN, "blocking:socket_recv_ready", SSL_SOCKET),
    ("wireline TLS recv_some, ready", BULK_IN, "blocking:recv_some_ready", NET),
]
_ASYNC = [
    ("streams TLS write", BULK_OUT, "asyncio_streams:write", STREAMS.name),
    ("streams TLS read", BULK_IN, "asyncio_streams:read", STREAMS.name),
    ("streams TLS read, ready", BULK_IN, "asyncio_streams:read_ready", STREAMS.name),
    ("wireline async TLS send", BULK_OUT, "asyncnet:send", OURS.name),
    ("wireline async TLS recv_some", BULK_IN, "asyncnet:recv_some", OURS.name),
    ("wireline async TLS recv_some, ready", BULK_IN, "asyncnet:recv_some_ready", OURS.name),
]

_ON_UVLOOP = {STREAMS.name: STREAMS_UVLOOP.name, OURS.name: OURS_UVLOOP.name}

# Many connections.

ECHO = Service("echo", "echo", 20_000, tls=True)
HANDSHAKES = Service("greet", "connect", 1_000, tls=True)
RESUMED = Service("greet", "resume", 1_500, tls=True)

SERVICES = {
    "async TLS echo 64 B": ECHO,
    "TLS handshakes, full": HANDSHAKES,
    "TLS handshakes, resumed": RESUMED,
}

_COMPARISONS: dict[str, list[Pair]] = {
    "async TLS echo 64 B": [
        (OURS, STREAMS, 1.2),
        (OURS_UVLOOP, STREAMS_UVLOOP, 1.05),
        (OURS, PROTOCOL, None),
        (OURS_UVLOOP, PROTOCOL_UVLOOP, None),
    ],
    "TLS handshakes, full": [(OURS, STREAMS, None), (OURS_UVLOOP, STREAMS_UVLOOP, None)],
    "TLS handshakes, resumed": [(OURS, STREAMS, None), (OURS_UVLOOP, STREAMS_UVLOOP, None)],
}


def _on_uvloop(name: str) -> str:
    return f"{name}, uvloop"


def _one_connection() -> list[Entrant]:
    found: list[Entrant] = [
        Contestant(name, work, f"benchmarks.{function}", program)
        for name, work, function, program in _BLOCKING + _ASYNC
    ]
    found += [
        Contestant(_on_uvloop(name), work, f"benchmarks.{function}_uvloop", _ON_UVLOOP[program], ("uvloop",))
        for name, work, function, program in _ASYNC
    ]
    return found


def _async_bulk() -> list[Row]:
    pairs = [
        ("send", "wireline async TLS send", "streams TLS write"),
        ("recv_some", "wireline async TLS recv_some", "streams TLS read"),
        ("recv_some, ready", "wireline async TLS recv_some, ready", "streams TLS read, ready"),
    ]
    return [
        row
        for what, ours, theirs in pairs
        for row in (
            RateRow(f"async TLS bulk 64 KiB: {what}, asyncio", ours, theirs, 2.5),
            RateRow(f"async TLS bulk 64 KiB: {what}, uvloop", _on_uvloop(ours), _on_uvloop(theirs), 1.0),
        )
    ]


CONTESTANTS: list[Entrant] = [
    *_one_connection(),
    *(
        ServerContestant(f"{program.name}: {work}", SERVICES[work], program)
        for work, pairs in _COMPARISONS.items()
        for program in dict.fromkeys(program for ours, theirs, _ in pairs for program in (theirs, ours))
    ),
]

ROWS: list[Row] = [
    RateRow("TLS ping-pong 64 B: recv_some", "wireline TLS echo", "SSLSocket echo", 0.95),
    RateRow("TLS bulk 64 KiB: send", "wireline TLS send", "SSLSocket sendall", 1.2),
    RateRow("TLS bulk 64 KiB: recv_some", "wireline TLS recv_some", "SSLSocket recv", 1.2),
    RateRow(
        "TLS bulk 64 KiB: recv_some, ready", "wireline TLS recv_some, ready", "SSLSocket recv, ready", 1.2
    ),
    *_async_bulk(),
    *(
        RateRow(
            f"{work}: {ours.name.removeprefix('wireline ')} / {theirs.name}",
            f"{ours.name}: {work}",
            f"{theirs.name}: {work}",
            target,
        )
        for work, pairs in _COMPARISONS.items()
        for ours, theirs, target in pairs
    ),
]
