"""Requests of a core under the names of the methods that make them, for errors: a request is known by ``__name__``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVarTuple

from wireline._core.stream import StreamCore

__all__ = ["LINES", "RECV_INTO", "RECV_LINE_INTO", "RECV_SOME_INTO", "TRY_RECV", "TRY_RECV_LINE", "UNREAD"]

Ts = TypeVarTuple("Ts")


def _named(
    operation: str, request: Callable[[StreamCore, *Ts], bytes | None]
) -> Callable[[StreamCore, *Ts], bytes | None]:
    def asked(core: StreamCore, *args: *Ts) -> bytes | None:
        return request(core, *args)

    asked.__name__ = operation
    return asked


def _unread(core: StreamCore, data: bytes) -> bytes:
    """Put bytes back, in a thread: an exception of a signal handler undoes it."""
    if core.undo is None:  # nothing was buffered
        core.note()
    return core.unread(data)


RECV_INTO = _named("recv_into", StreamCore.recv)
RECV_LINE_INTO = _named("recv_line_into", StreamCore.recv_line)
RECV_SOME_INTO = _named("recv_some_into", StreamCore.recv_some)
TRY_RECV = _named("try_recv", StreamCore.recv_some)
TRY_RECV_LINE = _named("try_recv_line", StreamCore.recv_line)
LINES = _named("lines", StreamCore.recv_line)
UNREAD = _named("unread", _unread)
