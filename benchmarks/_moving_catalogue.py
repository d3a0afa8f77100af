"""Relays between two connections, and files: 200 MB of each."""

from __future__ import annotations

from benchmarks._payload import Payload
from benchmarks._rows import RateRow
from benchmarks._work import Contestant, Work

_RELAY = Work(Payload.BLOCK, "relay", 6_000, 400)
_FILE = Work(Payload.BLOCK, "drain", 3_200, 400)

CONTESTANTS = [
    Contestant(name, work, f"benchmarks.moving:{function}", program)
    for name, work, function, program in [
        ("socket relay", _RELAY, "socket_loop", "socket"),
        ("wireline relay", _RELAY, "relay", "wireline net"),
        ("wireline async relay", _RELAY, "asyncio_relay", "wireline asyncnet, asyncio"),
        ("socket sendfile", _FILE, "socket_sendfile", "socket"),
        ("wireline sendfile", _FILE, "sendfile", "wireline net"),
        ("wireline sendfile, timeout", _FILE, "sendfile_timeout", "wireline net"),
    ]
]

ROWS = [
    RateRow("relay 64 KiB: relay", "wireline relay", "socket relay", 1.3),
    RateRow("async relay 64 KiB: relay", "wireline async relay", "socket relay"),
    RateRow("file 200 MB: sendfile", "wireline sendfile", "socket sendfile", 0.95),
    RateRow("file 200 MB: sendfile, timeout", "wireline sendfile, timeout", "socket sendfile"),
]
