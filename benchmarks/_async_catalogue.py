"""The servers: the works, the programs, and the comparisons.

Ours on a loop is compared with theirs on the same loop, where there is one. Programs with a loop of their own are
compared with ours on asyncio's.
"""

from __future__ import annotations

from benchmarks._driver import Entrant
from benchmarks._programs import CompiledProgram, Program, PythonProgram
from benchmarks._rows import CpuRow, MemoryRow, RateRow, Row
from benchmarks._service import ServerContestant, Service


def _python(name: str, module: str, *needs: str) -> PythonProgram:
    words = tuple(module for module in needs if module in ("uvloop", "aiofastnet", "trio"))
    return PythonProgram(name, f"benchmarks.servers.{module}", needs, words)


OURS = _python("wireline asyncio", "ours")
OURS_UVLOOP = _python("wireline uvloop", "ours", "uvloop")
OURS_TRIO = _python("wireline trio", "ours", "trio")
STREAMS = _python("asyncio streams", "streams")
STREAMS_UVLOOP = _python("uvloop streams", "streams", "uvloop")
PROTOCOL = _python("asyncio Protocol", "protocol")
PROTOCOL_UVLOOP = _python("uvloop Protocol", "protocol", "uvloop")
AIOFASTNET = _python("aiofastnet Protocol", "protocol", "aiofastnet")
AIOFASTNET_UVLOOP = _python("aiofastnet Protocol, uvloop", "protocol", "aiofastnet", "uvloop")
TRIO = _python("trio", "trio_streams", "trio")
ANYIO = _python("anyio", "anyio_streams", "anyio")
ANYIO_TRIO = _python("anyio on trio", "anyio_streams", "anyio", "trio")
GEVENT = _python("gevent", "gevent_server", "gevent")
NIM = CompiledProgram("Nim asyncnet", "servers/asyncnet_server.nim")
EPOLL = CompiledProgram("C epoll", "servers/epoll.c")

PROGRAMS: list[Program] = [
    OURS,
    OURS_UVLOOP,
    OURS_TRIO,
    STREAMS,
    STREAMS_UVLOOP,
    PROTOCOL,
    PROTOCOL_UVLOOP,
    AIOFASTNET,
    AIOFASTNET_UVLOOP,
    TRIO,
    ANYIO,
    ANYIO_TRIO,
    GEVENT,
    NIM,
    EPOLL,
]

# As many as take about half a second.
ECHO = Service("echo", "echo", 40_000)
ECHO_ALONE = Service("echo", "echo", 20_000, connections=1)
LINES = Service("lines", "echo", 40_000)
LINES_32 = Service("lines", "echo", 80_000, outstanding=32)
ACCEPT = Service("greet", "connect", 8_000)
IDLE = Service("echo", "idle", 10_000)

WORKS = {
    "async echo 64 B": ECHO,
    "async echo 64 B, one connection": ECHO_ALONE,
    "async lines 64 B": LINES,
    "async lines 64 B x 32": LINES_32,
    "async accept": ACCEPT,
    "async idle memory": IDLE,
}

Pair = tuple[Program, Program, float | None]
"""Ours, theirs, and the target; None where there is none, and the row is there to be looked at."""

_ALL: list[Pair] = [
    (OURS, STREAMS, 1.3),
    (OURS_UVLOOP, STREAMS_UVLOOP, 1.15),
    (OURS, NIM, 1.4),
    (OURS, TRIO, 2.0),
    (OURS, ANYIO, None),
    (OURS, GEVENT, None),
    (OURS, PROTOCOL, None),
    (OURS_UVLOOP, PROTOCOL_UVLOOP, None),
    (OURS, AIOFASTNET, None),
    (OURS_UVLOOP, AIOFASTNET_UVLOOP, None),
    (OURS_UVLOOP, EPOLL, None),
]
_WITHOUT_TRIO = [each for each in _ALL if each[1] is not TRIO]  # it has no lines
_WITHOUT_TARGETS: list[Pair] = [(ours, theirs, None) for ours, theirs, _ in _ALL]

_COMPARISONS: dict[str, list[Pair]] = {
    "async echo 64 B": [*_ALL, (OURS_TRIO, TRIO, 1.6), (OURS_TRIO, ANYIO_TRIO, 1.3)],
    "async echo 64 B, one connection": [(OURS_TRIO, TRIO, 0.85)],
    "async lines 64 B": [*_WITHOUT_TRIO, (OURS_TRIO, ANYIO_TRIO, 1.4)],
    "async lines 64 B x 32": _WITHOUT_TRIO,
    "async accept": [(OURS, STREAMS, 1.2), *_WITHOUT_TARGETS[1:]],
    "async idle memory": [(OURS, STREAMS, 0.5), *_WITHOUT_TARGETS[1:]],
}


def _name(program: Program, work: str) -> str:
    return f"{program.name}: {work.removeprefix('async ')}"


def _row(work: str, ours: Program, theirs: Program, target: float | None) -> Row:
    title = f"{work}: {ours.name.removeprefix('wireline ')} / {theirs.name}"
    names = _name(ours, work), _name(theirs, work)
    if WORKS[work] is IDLE:
        return MemoryRow(title, *names, target)
    if WORKS[work] is ECHO_ALONE:
        # The rate of one connection is that of the load and of two processes that wake each other.
        return CpuRow(title, *names, None if target is None else round(1 / target, 2))
    return RateRow(title, *names, target)


def _contestants() -> list[Entrant]:
    found: dict[str, Entrant] = {}
    for work, pairs in _COMPARISONS.items():
        for program in (program for ours, theirs, _ in pairs for program in (theirs, ours)):
            found[_name(program, work)] = ServerContestant(_name(program, work), WORKS[work], program)
    return list(found.values())


CONTESTANTS = _contestants()

ROWS: list[Row] = [
    *(_row(work, *pair) for work, pairs in _COMPARISONS.items() for pair in pairs),
]
