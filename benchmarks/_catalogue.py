"""What is measured: the works, the contestants, and which of them are compared, against what target.

Here are those with one connection, which hold the clock themselves; the servers are in ``_async_catalogue``.
"""

from __future__ import annotations

from benchmarks import _async_catalogue, _tls_catalogue
from benchmarks._driver import Entrant
from benchmarks._payload import Payload
from benchmarks._rows import DurationRow, ExtraRow, RateRow, Row
from benchmarks._work import Contestant, Work

PING_PONG = Work(Payload.MESSAGE, "echo", 5_000, 500)
LINES = Work(Payload.LINES, "feed", 6_000, 100)
SLOW_LINES = Work(Payload.LINES, "feed", 1_200, 40)
BULK_OUT = Work(Payload.BLOCK, "drain", 12_000, 400)
BULK_IN = Work(Payload.BLOCK, "feed", 12_000, 400)
IMPORT = Work(Payload.MESSAGE, None, 3, 1)

CONTESTANTS: list[Entrant] = [
    Contestant("socket echo", PING_PONG, "benchmarks.blocking:socket_echo"),
    Contestant("socket echo, settimeout", PING_PONG, "benchmarks.blocking:socket_echo_timeout"),
    Contestant("wireline recv_some echo", PING_PONG, "benchmarks.blocking:recv_some_echo"),
    Contestant("wireline recv_some echo, timeout", PING_PONG, "benchmarks.blocking:recv_some_echo_timeout"),
    Contestant("wireline recv_exactly echo", PING_PONG, "benchmarks.blocking:recv_exactly_echo"),
    Contestant("makefile iteration", LINES, "benchmarks.blocking:makefile_iteration"),
    Contestant("makefile readline", LINES, "benchmarks.blocking:makefile_readline"),
    Contestant("wireline lines", LINES, "benchmarks.blocking:lines"),
    Contestant("wireline recv_line", LINES, "benchmarks.blocking:recv_line"),
    Contestant("wireline recv_line, timeout", LINES, "benchmarks.blocking:recv_line_timeout"),
    Contestant("asyncio readline", SLOW_LINES, "benchmarks.asyncio_streams:readline"),
    Contestant("asyncio readline, timeout", SLOW_LINES, "benchmarks.asyncio_streams:readline_timeout"),
    Contestant("wireline async recv_line", SLOW_LINES, "benchmarks.asyncnet:recv_line"),
    Contestant("wireline async recv_line, timeout", SLOW_LINES, "benchmarks.asyncnet:recv_line_timeout"),
    Contestant("wireline recv_exactly", SLOW_LINES, "benchmarks.blocking:recv_exactly"),
    Contestant("wireline recv_exactly, timeout", SLOW_LINES, "benchmarks.blocking:recv_exactly_timeout"),
    Contestant("asyncio readexactly", SLOW_LINES, "benchmarks.asyncio_streams:readexactly"),
    Contestant("asyncio readexactly, timeout", SLOW_LINES, "benchmarks.asyncio_streams:readexactly_timeout"),
    Contestant("socket sendall", BULK_OUT, "benchmarks.blocking:socket_sendall"),
    Contestant("wireline send", BULK_OUT, "benchmarks.blocking:send"),
    Contestant("socket recv", BULK_IN, "benchmarks.blocking:socket_recv"),
    Contestant("wireline recv_some", BULK_IN, "benchmarks.blocking:recv_some"),
    Contestant("wireline recv", BULK_IN, "benchmarks.blocking:recv"),
    Contestant("socket recv, ready", BULK_IN, "benchmarks.blocking:socket_recv_ready"),
    Contestant("wireline recv_some, ready", BULK_IN, "benchmarks.blocking:recv_some_ready"),
    Contestant("import wireline", IMPORT, "benchmarks.imports:front_door"),
    Contestant("import wireline.net", IMPORT, "benchmarks.imports:net"),
    Contestant("import wireline, not compiled", IMPORT, "benchmarks.imports:front_door_uncompiled"),
    Contestant("import wireline.net, not compiled", IMPORT, "benchmarks.imports:net_uncompiled"),
    *_async_catalogue.CONTESTANTS,
    *_tls_catalogue.CONTESTANTS,
]

ROWS: list[Row] = [
    RateRow("ping-pong 64 B: recv_some", "wireline recv_some echo", "socket echo", 0.9),
    RateRow("ping-pong 64 B: recv_exactly", "wireline recv_exactly echo", "socket echo", 0.9),
    RateRow(
        "ping-pong 64 B: recv_some, timeout", "wireline recv_some echo, timeout", "socket echo, settimeout"
    ),
    RateRow("lines 64 B: lines()", "wireline lines", "makefile iteration", 0.5),
    RateRow("lines 64 B: recv_line", "wireline recv_line", "makefile readline", 0.5),
    RateRow("bulk 64 KiB: send", "wireline send", "socket sendall", 0.95),
    RateRow("bulk 64 KiB: recv_some", "wireline recv_some", "socket recv", 0.95),
    RateRow("bulk 64 KiB: recv", "wireline recv", "socket recv", 0.95),
    RateRow("bulk 64 KiB: recv_some, ready", "wireline recv_some, ready", "socket recv, ready"),
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
    DurationRow("import wireline", "import wireline", 100),
    DurationRow("import wireline.net", "import wireline.net", 100),
    DurationRow("import wireline, not compiled", "import wireline, not compiled", 100),
    DurationRow("import wireline.net, not compiled", "import wireline.net, not compiled", 100),
    *_async_catalogue.ROWS,
    *_tls_catalogue.ROWS,
]
