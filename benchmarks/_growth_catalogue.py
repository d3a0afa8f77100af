"""How the cost grows: the echo of ``_async_catalogue`` with more connections, and with larger messages."""

from __future__ import annotations

from dataclasses import replace

from benchmarks._async_catalogue import (
    AIOFASTNET_UVLOOP,
    ECHO,
    EPOLL,
    OURS,
    OURS_UVLOOP,
    STREAMS,
    STREAMS_UVLOOP,
    TRIO,
)
from benchmarks._driver import Entrant
from benchmarks._programs import Program
from benchmarks._rows import RateRow, Row
from benchmarks._service import ServerContestant, Service
from benchmarks._words import in_bytes

# By connections and by size, the number of messages for about a third of a second. The slope matters more than a single
# step, so these run in every other round only.
_BY_CONNECTIONS = {1: 8_000, 16: 20_000, 256: 20_000, 4096: 20_000}
_BY_SIZE = {16: 20_000, 256: 20_000, 4 * 1024: 16_000, 64 * 1024: 3_000, 1024 * 1024: 200}

_PROGRAMS: list[Program] = [
    STREAMS,
    STREAMS_UVLOOP,
    TRIO,
    AIOFASTNET_UVLOOP,
    EPOLL,
    OURS,
    OURS_UVLOOP,
]
_PAIRS: list[tuple[Program, Program]] = [
    (OURS, STREAMS),
    (OURS_UVLOOP, STREAMS_UVLOOP),
    (OURS, TRIO),
    (OURS_UVLOOP, AIOFASTNET_UVLOOP),
    (OURS_UVLOOP, EPOLL),
]


WORKS: dict[str, Service] = {
    **{
        f"growth: {connections} connection{'s' if connections > 1 else ''}": replace(
            ECHO, connections=connections, messages=messages
        )
        for connections, messages in _BY_CONNECTIONS.items()
    },
    **{
        f"growth: {in_bytes(size)}": replace(ECHO, size=size, messages=messages)
        for size, messages in _BY_SIZE.items()
    },
}


def _name(program: Program, work: str) -> str:
    return f"{program.name}: {work.removeprefix('growth: ')}"


CONTESTANTS: list[Entrant] = [
    ServerContestant(_name(program, work), service, program, every=2)
    for work, service in WORKS.items()
    for program in _PROGRAMS
]

ROWS: list[Row] = [
    RateRow(
        f"{work}: {ours.name.removeprefix('wireline ')} / {theirs.name}",
        _name(ours, work),
        _name(theirs, work),
    )
    for work in WORKS
    for ours, theirs in _PAIRS
]
