"""Many outstanding lines: answers to all received lines with one ``send_many``, against a ``send`` for each.

Servers on both loops, also against asyncio's ``writelines``; and the blocking flavour with one connection.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks._async_catalogue import LINES_32, OURS, OURS_UVLOOP, STREAMS, STREAMS_UVLOOP
from benchmarks._driver import Entrant
from benchmarks._payload import Payload
from benchmarks._rows import RateRow, Row
from benchmarks._service import ServerContestant, Service
from benchmarks._work import Contestant, Work

LINES_TLS = replace(LINES_32, tls=True, messages=40_000)

WORKS: dict[str, Service] = {
    "pipelined": replace(LINES_32, role="lines-batch"),
    "pipelined, try_recv_line": replace(LINES_32, role="lines-try"),
    "TLS pipelined": replace(LINES_TLS, role="lines-batch"),
    "TLS pipelined, try_recv_line": replace(LINES_TLS, role="lines-try"),
    "TLS pipelined, one by one": LINES_TLS,
}
_ONE_BY_ONE = {"": "lines 64 B x 32", "TLS ": "TLS pipelined, one by one"}
"""The work with a ``send`` for each line; without TLS it is one of ``_async_catalogue``."""

_PAIRS = [(OURS, STREAMS), (OURS_UVLOOP, STREAMS_UVLOOP)]

PIECES = Work(Payload.LINES, "echo", 40, 4)
"""256 lines outstanding."""
PIECES_TLS = replace(PIECES, tls=True)

_BLOCKING = [
    ("wireline lines, send", PIECES, "lines_send"),
    ("wireline lines, send_many", PIECES, "lines_send_many"),
    ("wireline TLS lines, send", PIECES_TLS, "lines_send"),
    ("wireline TLS lines, send_many", PIECES_TLS, "lines_send_many"),
]

CONTESTANTS: list[Entrant] = [
    *(
        Contestant(name, work, f"benchmarks.blocking:{what}", "wireline net")
        for name, work, what in _BLOCKING
    ),
    *(
        ServerContestant(f"{program.name}: {work}", service, program)
        for work, service in WORKS.items()
        for ours, theirs in _PAIRS
        for program in ([theirs, ours] if service.role == "lines-batch" else [ours])
    ),
]


def _rows(tls: str) -> list[Row]:
    """The rows of both loops, where ``tls`` says how the names of the works begin."""
    found: list[Row] = []
    for ours, theirs in _PAIRS:
        start = f"{tls}pipelined lines x 32: {ours.name.removeprefix('wireline ')}"
        batch, one_by_one = f"{ours.name}: {tls}pipelined", f"{ours.name}: {_ONE_BY_ONE[tls]}"
        found += [
            RateRow(f"{start}, send_many / send", batch, one_by_one),
            RateRow(f"{start}, try_recv_line and send_many / send", f"{batch}, try_recv_line", one_by_one),
            RateRow(f"{start}, send_many / writelines", batch, f"{theirs.name}: {tls}pipelined"),
        ]
    return found


ROWS: list[Row] = [
    *_rows(""),
    *_rows("TLS "),
    RateRow(
        "pipelined lines x 256: blocking, send_many / send",
        "wireline lines, send_many",
        "wireline lines, send",
    ),
    RateRow(
        "TLS pipelined lines x 256: blocking, send_many / send",
        "wireline TLS lines, send_many",
        "wireline TLS lines, send",
    ),
]
