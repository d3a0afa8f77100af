"""Length-prefixed messages, and a line followed by an exact read: bytes that lie in the buffer, in small pieces."""

from __future__ import annotations

from benchmarks import _async_catalogue
from benchmarks._payload import Payload
from benchmarks._rows import RateRow
from benchmarks._work import Contestant, Work

_FRAMES = Work(Payload.FRAMES, "feed", 3_000, 100)
_COUNTED = Work(Payload.COUNTED, "feed", 3_000, 100)
_SLOW_FRAMES = Work(Payload.FRAMES, "feed", 1_200, 40)
_SLOW_COUNTED = Work(Payload.COUNTED, "feed", 1_200, 40)

_STREAMS = _async_catalogue.STREAMS.name
_ASYNCNET = _async_catalogue.OURS.name

CONTESTANTS = [
    Contestant(name, work, f"benchmarks.frames:{function}", program)
    for name, work, function, program in [
        ("makefile frames", _FRAMES, "makefile_frames", "socket.makefile"),
        ("wireline frames", _FRAMES, "frames", "wireline net"),
        ("wireline recv_frame", _FRAMES, "recv_frame", "wireline net"),
        ("wireline recv_struct", _FRAMES, "recv_struct", "wireline net"),
        ("makefile line and body", _COUNTED, "makefile_counted", "socket.makefile"),
        ("wireline line and body", _COUNTED, "counted", "wireline net"),
        ("asyncio frames", _SLOW_FRAMES, "asyncio_frames", _STREAMS),
        ("wireline async frames", _SLOW_FRAMES, "async_frames", _ASYNCNET),
        ("wireline async recv_frame", _SLOW_FRAMES, "async_recv_frame", _ASYNCNET),
        ("wireline async recv_struct", _SLOW_FRAMES, "async_recv_struct", _ASYNCNET),
        ("asyncio line and body", _SLOW_COUNTED, "asyncio_counted", _STREAMS),
        ("wireline async line and body", _SLOW_COUNTED, "async_counted", _ASYNCNET),
    ]
]

ROWS = [
    RateRow("frames 100 B: frames()", "wireline frames", "makefile frames", 0.5),
    RateRow("frames 100 B: recv_frame", "wireline recv_frame", "makefile frames", 0.3),
    RateRow("frames 100 B: recv_struct and recv_exactly", "wireline recv_struct", "makefile frames", 0.2),
    RateRow("a line, then its body", "wireline line and body", "makefile line and body", 0.3),
    RateRow("async frames 100 B: frames()", "wireline async frames", "asyncio frames", 2.5),
    RateRow("async frames 100 B: recv_frame", "wireline async recv_frame", "asyncio frames", 1.5),
    RateRow(
        "async frames 100 B: recv_struct and recv_exactly",
        "wireline async recv_struct",
        "asyncio frames",
        1.2,
    ),
    RateRow("async: a line, then its body", "wireline async line and body", "asyncio line and body", 1.2),
]
