"""Repeat a call that may not wait; for the bytes of a connected stream ``StreamIO`` does so."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

from wireline._core.deadline import CallDeadline, check_timeout
from wireline._socket_base import BaseSocket, annotated, raise_if_closed
from wireline.errors import SocketTimeout
from wireline.net._fd_guard import FdGuard, Use
from wireline.net._poll import Latch, Readiness, start_deadline
from wireline.timing import Timeout

__all__ = ["described", "retry_when_ready", "until_ready", "wait_until"]

T = TypeVar("T")

# Seconds between two attempts where no event tells when the next one may succeed. Guesses: short beside a human, long
# beside a system call.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


def until_ready(
    owner: BaseSocket,
    guard: FdGuard,
    operation: str,
    deadline: CallDeadline | None,
    attempt: Callable[[], T],
    *,
    write: bool = False,
) -> T:
    """Repeat ``attempt`` until it does not have to wait.

    Args:
        owner: the socket.
        guard: of its descriptor.
        operation: the call, in words.
        deadline: until when.
        attempt: raises ``BlockingIOError`` where it would have to wait.
        write: it waits for room, and not for input.
    """
    try:
        return attempt()
    except BlockingIOError:
        pass
    except OSError as error:
        raise described(error, operation, owner) from error.__cause__
    return retry_when_ready(owner, guard, operation, deadline, attempt, write=write)


def retry_when_ready(
    owner: BaseSocket,
    guard: FdGuard,
    operation: str,
    deadline: CallDeadline | None,
    attempt: Callable[[], T],
    *,
    write: bool = False,
) -> T:
    """Do the same after a first attempt, which raised ``BlockingIOError``."""
    readiness = Readiness(guard.sock.fileno(), write=write, waker=guard.waker)
    pause = 0.0
    while True:
        late = pause and deadline is not None and deadline.passed(time.monotonic())
        if late or not readiness.wait(deadline):
            assert deadline is not None
            raise SocketTimeout(operation, deadline.seconds, 0 if write else None)
        raise_if_closed(owner, operation)
        try:
            return attempt()
        except BlockingIOError:
            if write:
                pause = _ready_and_yet_refused(guard, pause, deadline)
        except OSError as error:
            raise described(error, operation, owner) from error.__cause__


def described(error: OSError, operation: str, owner: BaseSocket) -> OSError:
    """Return the error of an attempt with a note; if the socket was closed meanwhile, raise that."""
    raise_if_closed(owner, operation)
    return annotated(error, operation, owner)


def wait_until(
    owner: BaseSocket,
    guard: FdGuard,
    operation: str,
    is_ready: Callable[[socket.socket], bool],
    timeout: Timeout,
    *,
    write: bool = False,
    alone: bool = False,
) -> None:
    """Wait until a descriptor is ready, and do nothing with it.

    Args:
        owner: the socket.
        guard: of its descriptor.
        operation: the call, in words.
        is_ready: says so without waiting.
        timeout: seconds to wait.
        write: it waits for room, and not for input.
        alone: be the only call that receives datagrams.
    """
    deadline = start_deadline(check_timeout(timeout))
    with Use(guard, operation, alone=alone) as sock:

        def attempt() -> None:
            if not is_ready(sock):
                raise BlockingIOError

        until_ready(owner, guard, operation, deadline, attempt, write=write)


def _ready_and_yet_refused(guard: FdGuard, pause: float, deadline: CallDeadline | None) -> float:
    """Wait a little: the system reports that a Unix socket may send, but not that its receiver's queue is full."""
    pause = min(2 * pause, _LONGEST_PAUSE) or _FIRST_PAUSE
    seconds = pause if deadline is None else min(pause, deadline.remaining(time.monotonic()))
    guard.waker.wait_for(Latch(), seconds)
    return pause
