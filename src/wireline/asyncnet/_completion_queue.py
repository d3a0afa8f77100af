"""The queue for loops without readiness: Windows' default one, or any loop in tests (``WIRELINE_PORTABLE``).

Such a loop performs ``sock_recv`` and the like by itself, and they lose received bytes when they are cancelled. So
they never are: an operation goes on when its caller was cancelled, and its result (an *orphan*) is kept for the next
caller. Only ``close`` ends it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from typing import Any, cast

from wireline._os.linger import DEFAULT_LINGER
from wireline.asyncnet._port import Completion, Completions, Port
from wireline.asyncnet._queue import LoopOperation, OperationQueue, ReadinessQueue

__all__ = ["CompletionQueue", "open_queue", "when_done"]


class CompletionQueue(OperationQueue):
    """Operations that the loop performs, one at a time, and that only ``close`` cancels."""

    def __init__(self, port: Port, sock: socket.socket, completions: Completions) -> None:
        super().__init__(port, sock)
        self._completions = completions
        self._started: Completion | None = None
        self._started_for: LoopOperation[Any] | None = None  # that of the orphan, if there is one
        self._orphan: Completion | None = None

    @property
    def in_flight(self) -> bool:
        return self._started is not None or self._orphan is not None

    @property
    def has_orphan(self) -> bool:
        return self._orphan is not None

    def take_orphan(self) -> Completion | None:
        orphan, self._orphan = self._orphan, None
        return orphan

    def _watch(self) -> bool:
        if self.closed:
            return False
        if self._started is not None:
            return True
        if self._orphan is not None:
            self._started, self._orphan = self._orphan, None
            self._started.add_done_callback(
                self._on_done
            )  # it is done, so the callback runs in the next turn
            return True
        self._started_for = self._first()
        self._started = self._started_for.start(self._completions)
        self._started.add_done_callback(self._on_done)
        return True

    def _unwatch(self) -> None:
        if self.closing is not None:
            return  # a second `close`, while the operation ends
        if self._started is not None and self._started_for is not None and not self._port.is_over():
            self.closing = self._started
            if self._queue or not self._started_for.committed_on_start:
                self._started_for.cancel(self._started)
            else:  # its caller has left, and has counted these bytes as sent
                limit = self._port.call_at(self._port.time() + DEFAULT_LINGER, self._started.cancel)
                self._started.add_done_callback(lambda _: limit.cancel())
        if self._orphan is not None and self._started_for is not None and self._orphan.exception() is None:
            self._started_for.dispose(self._orphan.result())
        self._orphan = None

    def _on_done(self, completion: Completion) -> None:
        self._started = None
        started_for, self._started_for = self._started_for, None
        if completion.cancelled():
            if self._queue:  # not by `close`: a program may cancel all tasks of the loop
                self._restart_after_cancellation(started_for)
            return
        error = completion.exception()
        if self.closing is not None:
            if started_for is not None and error is None:
                started_for.dispose(completion.result())
            return
        reusable = started_for is not None and started_for.result_reusable
        if not self._queue:
            if reusable:
                self._started_for, self._orphan = started_for, completion
            return
        if reusable or self._queue[0].queued is started_for:
            if isinstance(error, OSError):
                self._fail_first(error)
            else:
                self._finish_first(self._first().complete, completion.result())
        self._start_next()

    def _restart_after_cancellation(self, started_for: LoopOperation[Any] | None) -> None:
        if (
            started_for is not None
            and started_for is self._queue[0].queued
            and not started_for.result_reusable
        ):
            # How far it got is unknown, so it cannot be started again.
            self._fail_first(OSError(errno.ECANCELED, "the operation was cancelled inside the event loop"))
        self._start_next()

    def _fail_first(self, error: OSError) -> None:
        self._finish_first(self._first().on_error, error)

    def _first(self) -> LoopOperation[Any]:
        # A socket queues others (`Writable`) only where there is readiness.
        return cast("LoopOperation[Any]", self._queue[0].queued)

    def _start_next(self) -> None:
        if self._queue and self._started is None:
            self._watch()


def open_queue(port: Port, sock: socket.socket, *, write: bool = False) -> OperationQueue:
    """Return the queue that suits the loop."""
    if port.completions is not None:
        return CompletionQueue(port, sock, port.completions)
    return ReadinessQueue(port, sock, write=write)


def when_done(completions: Iterable[Completion | None], then: Callable[[], object]) -> None:
    """Call ``then`` when the last of some operations is done; at once if there is none."""
    running = {completion for completion in completions if completion is not None and not completion.done()}
    if not running:
        then()
        return

    def one_is_done(completion: Completion) -> None:
        running.discard(completion)
        if not running:
            then()

    for completion in list(running):
        completion.add_done_callback(one_is_done)
