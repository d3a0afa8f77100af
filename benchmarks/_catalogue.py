"""The works, the contestants, and the comparisons with their targets.

These contestants have one connection and hold the clock themselves; the servers are in ``_async_catalogue``.
"""

from __future__ import annotations

from benchmarks import (
    _async_catalogue,
    _datagrams_catalogue,
    _drivers_catalogue,
    _frames_catalogue,
    _growth_catalogue,
    _pipelined_catalogue,
    _tls_catalogue,
)
from benchmarks._driver import Entrant
from benchmarks._payload import Payload
from benchmarks._rows import DurationRow, ExtraRow, RateRow, Row
from benchmarks._work import Contestant, Work

PING_PONG = Work(Payload.MESSAGE, "echo", 5_000, 500)
LINES = Work(Payload.LINES, "feed", 6_000, 100)
SLOW_LINES = Work(Payload.LINES, "feed", 1_200, 40)
BULK_OUT = Work(Payload.BLOCK, "drain", 12_000, 400)
BULK_IN = Work(Payload.BLOCK, "feed", 12_000, 400)
ALONE = Work(Payload.LINES, None, 150, 10)
IMPORT = Work(Payload.MESSAGE, None, 3, 1)

SOCKET = "socket"
NIM = "Nim net"
MAKEFILE = "socket.makefile"
NET = "wireline net"
STREAMS = _async_catalogue.STREAMS.name
ASYNCNET = _async_catalogue.OURS.name

_ONE_CONNECTION = [
    ("socket echo", PING_PONG, "blocking:socket_echo", SOCKET),
    ("socket echo, settimeout", PING_PONG, "blocking:socket_echo_timeout", SOCKET),
    ("wireline recv_some echo", PING_PONG, "blocking:recv_some_echo", NET),
    ("wireline recv_some echo, timeout", PING_PONG, "blocking:recv_some_echo_timeout", NET),
    ("wireline recv_exactly echo", PING_PONG, "blocking:recv_exactly_echo", NET),
    ("Nim net echo", PING_PONG, "net_blocking.nim:echo", NIM),
    ("Nim net lines", LINES, "net_blocking.nim:lines", NIM),
    ("makefile iteration", LINES, "blocking:makefile_iteration", MAKEFILE),
    ("makefile readline", LINES, "blocking:makefile_readline", MAKEFILE),
    ("wireline lines", LINES, "blocking:lines", NET),
    ("wireline recv_line", LINES, "blocking:recv_line", NET),
    ("wireline recv_line, timeout", LINES, "blocking:recv_line_timeout", NET),
    ("asyncio readline", SLOW_LINES, "asyncio_streams:readline", STREAMS),
    ("asyncio readline, timeout", SLOW_LINES, "asyncio_streams:readline_timeout", STREAMS),
    ("wireline async recv_line", SLOW_LINES, "asyncnet:recv_line", ASYNCNET),
    ("wireline async recv_line, timeout", SLOW_LINES, "asyncnet:recv_line_timeout", ASYNCNET),
    ("wireline recv_exactly", SLOW_LINES, "blocking:recv_exactly", NET),
    ("wireline recv_exactly, timeout", SLOW_LINES, "blocking:recv_exactly_timeout", NET),
    ("asyncio read, waiting", ALONE, "waiting:read", STREAMS),
    ("asyncio read, waiting, timeout", ALONE, "waiting:read_timeout", STREAMS),
    ("wireline async recv_some, waiting", ALONE, "waiting:recv_some", ASYNCNET),
    ("wireline async recv_some, waiting, timeout", ALONE, "waiting:recv_some_timeout", ASYNCNET),
    ("asyncio readexactly", SLOW_LINES, "asyncio_streams:readexactly", STREAMS),
    ("asyncio readexactly, timeout", SLOW_LINES, "asyncio_streams:readexactly_timeout", STREAMS),
    ("socket sendall", BULK_OUT, "blocking:socket_sendall", SOCKET),
    ("wireline send", BULK_OUT, "blocking:send", NET),
    ("socket recv", BULK_IN, "blocking:socket_recv", SOCKET),
    ("wireline recv_some", BULK_IN, "blocking:recv_some", NET),
    ("wireline recv", BULK_IN, "blocking:recv", NET),
    ("socket recv, ready", BULK_IN, "blocking:socket_recv_ready", SOCKET),
    ("wireline recv_some, ready", BULK_IN, "blocking:recv_some_ready", NET),
    ("wireline recv, ready", BULK_IN, "blocking:recv_ready", NET),
    ("import wireline", IMPORT, "imports:front_door", NET),
    ("import wireline.net", IMPORT, "imports:net", NET),
    ("import wireline, not compiled", IMPORT, "imports:front_door_uncompiled", NET),
    ("import wireline.net, not compiled", IMPORT, "imports:net_uncompiled", NET),
]

CONTESTANTS: list[Entrant] = [
    *(
        Contestant(name, work, function if program == NIM else f"benchmarks.{function}", program)
        for name, work, function, program in _ONE_CONNECTION
    ),
    *_frames_catalogue.CONTESTANTS,
    *_datagrams_catalogue.CONTESTANTS,
    *_async_catalogue.CONTESTANTS,
    *_tls_catalogue.CONTESTANTS,
    *_pipelined_catalogue.CONTESTANTS,
    *_growth_catalogue.CONTESTANTS,
    *_drivers_catalogue.CONTESTANTS,
]

ROWS: list[Row] = [
    RateRow("ping-pong 64 B: recv_some", "wireline recv_some echo", "socket echo", 0.9),
    RateRow("ping-pong 64 B: recv_exactly", "wireline recv_exactly echo", "socket echo", 0.9),
    RateRow(
        "ping-pong 64 B: recv_some, timeout", "wireline recv_some echo, timeout", "socket echo, settimeout"
    ),
    RateRow("ping-pong 64 B: recv_some / Nim net", "wireline recv_some echo", "Nim net echo"),
    RateRow("lines 64 B: lines()", "wireline lines", "makefile iteration", 0.5),
    RateRow("lines 64 B: recv_line", "wireline recv_line", "makefile readline", 0.5),
    RateRow("lines 64 B: recv_line / Nim net", "wireline recv_line", "Nim net lines"),
    RateRow("bulk 64 KiB: send", "wireline send", "socket sendall", 0.95),
    # The sending load has more work than the receiver, so the first two rows depend on how both fall into step. A
    # target means something where the bytes are ready. `recv` promises more than theirs: all of the bytes.
    RateRow("bulk 64 KiB: recv_some", "wireline recv_some", "socket recv"),
    RateRow("bulk 64 KiB: recv", "wireline recv", "socket recv"),
    RateRow("bulk 64 KiB: recv_some, ready", "wireline recv_some, ready", "socket recv, ready", 0.95),
    RateRow("bulk 64 KiB: recv, ready", "wireline recv, ready", "socket recv, ready"),
    ExtraRow(
        "unused timeout: recv_line, buffered",
        "wireline recv_line, timeout",
        "wireline recv_line",
        "asyncio readline, timeout",
        "asyncio readline",
        0.1,
    ),
    ExtraRow(
        "unused timeout: recv_exactly, from the kernel",
        "wireline recv_exactly, timeout",
        "wireline recv_exactly",
        "asyncio readexactly, timeout",
        "asyncio readexactly",
        0.1,
    ),
    RateRow("async buffered lines: recv_line", "wireline async recv_line", "asyncio readline", 3),
    ExtraRow(
        "async unused timeout: recv_line, buffered",
        "wireline async recv_line, timeout",
        "wireline async recv_line",
        "asyncio readline, timeout",
        "asyncio readline",
        0.1,
    ),
    ExtraRow(
        "async unused timeout: recv_some, from the kernel",
        "wireline async recv_some, waiting, timeout",
        "wireline async recv_some, waiting",
        "asyncio read, waiting, timeout",
        "asyncio read, waiting",
        0.1,
    ),
    DurationRow("import wireline", "import wireline", 100),
    DurationRow("import wireline.net", "import wireline.net", 100),
    DurationRow("import wireline, not compiled", "import wireline, not compiled", 100),
    DurationRow("import wireline.net, not compiled", "import wireline.net, not compiled", 100),
    *_frames_catalogue.ROWS,
    *_datagrams_catalogue.ROWS,
    *_async_catalogue.ROWS,
    *_tls_catalogue.ROWS,
    *_pipelined_catalogue.ROWS,
    *_growth_catalogue.ROWS,
    *_drivers_catalogue.ROWS,
]

HEADLINES = {
    "ping-pong 64 B: recv_some",
    "lines 64 B: lines()",
    "lines 64 B: recv_line",
    "frames 100 B: frames()",
    "async frames 100 B: frames()",
    "datagrams 64 B: recv_from",
    "async datagrams 64 B: recv_from",
    "bulk 64 KiB: send",
    "bulk 64 KiB: recv_some, ready",
    "async buffered lines: recv_line",
    "import wireline",
    "import wireline.net",
    "async echo 64 B: asyncio / asyncio streams",
    "async echo 64 B: uvloop / uvloop streams",
    "async echo 64 B: asyncio / Nim asyncnet",
    "async echo 64 B: asyncio / trio",
    "async echo 64 B: uvloop / uvloop Protocol",
    "async echo 64 B: uvloop / C epoll",
    "async lines 64 B: asyncio / asyncio streams",
    "async lines 64 B: uvloop / uvloop streams",
    "async lines 64 B: asyncio / Nim asyncnet",
    "async lines 64 B x 32: asyncio / asyncio streams",
    "async lines 64 B x 32: uvloop / uvloop streams",
    "async lines 64 B x 32: asyncio / Nim asyncnet",
    "async accept: asyncio / asyncio streams",
    "async idle memory: asyncio / asyncio streams",
    "async unused timeout: recv_some, from the kernel",
    "TLS ping-pong 64 B: recv_some",
    "TLS bulk 64 KiB: send",
    "TLS bulk 64 KiB: recv_some",
    "async TLS bulk 64 KiB: send, asyncio",
    "async TLS bulk 64 KiB: send, uvloop",
    "async TLS bulk 64 KiB: recv_some, asyncio",
    "async TLS bulk 64 KiB: recv_some, uvloop",
    "async TLS echo 64 B: asyncio / asyncio streams",
    "async TLS echo 64 B: uvloop / uvloop streams",
}
"""The names of the rows of `make bench-quick`: one or two for each kind of work."""
