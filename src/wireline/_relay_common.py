"""A relay between two connected streams, without its waits: which bytes go where, and how it ends.

Theory of operation. Each direction has at most one piece under way, which is in the receive buffer of its source until
the sink has taken it, or in a pipe. Nothing is received for a sink that is full, so a slow reader holds the other side
back. However the relay ends, bytes that are left are put back into the receive buffer of their source: the next read of
that socket returns them. So no byte is lost by a timeout or a cancellation, and none is sent twice.

How the ends of a stream are relayed:

- A half-close is relayed after all bytes before it. The other direction goes on.
- A connection that breaks ends the relay, after all bytes that had arrived before.
- A side to which we cannot send may be gone: then the other direction delivers what it had sent, and finds its end. Or
  it only does not read any more: then the other direction goes on.

A pipe is made when a direction has moved much, and closed when it is not used for a second.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Literal, cast

from wireline._core.stream import StreamCore
from wireline._os.descriptor import shut_down_writing
from wireline._os.linger import DEFAULT_LINGER, unacked
from wireline._os.splice import PIPE_SIZE, Pipe, can_splice, open_pipe
from wireline._parts import Stream
from wireline._relay_report import RelayReport
from wireline._socket_base import BaseSocket, annotated, check_kind, raise_if_closed, require_open
from wireline._stream_common import NOW
from wireline.errors import ClosedError, copy_for_reraise
from wireline.options import AF_UNIX, BUFFER_SIZE, SocketFlag
from wireline.timing import check_seconds

__all__ = [
    "ACK_INTERVAL",
    "PIECE",
    "READ",
    "WRITE",
    "AckWait",
    "Direction",
    "Relay",
    "Side",
    "check_arguments",
]

PIECE = 256 * 1024
"""The most bytes of one receive, once a direction fills smaller ones. A guess."""

# Bytes that one call of `advance` moves at most, about. A guess: a third of a millisecond.
_TURN = 1 << 20

# Bytes that a direction moves before it gets a pipe, and between two attempts to get one. A guess: a pipe costs two
# descriptors and as much time as 64 KiB.
_BULK = 1 << 20

# Seconds after which a pipe that is not used is closed. A guess.
_PIPE_IDLE = 1.0

ACK_INTERVAL = 0.002
"""Seconds between two looks whether a peer has acknowledged all. A guess; no event says so."""

READ, WRITE = 1, 2
"""Events."""

_NO_FLAGS = SocketFlag(0)

Progress = Callable[[int, int], object]


class AckWait:
    """The wait before a reset, which drops what the other side has not acknowledged.

    It is over when nothing is left, or ``DEFAULT_LINGER`` seconds after the last acknowledgement.
    """

    __slots__ = ("_left", "_limit", "_unacked")

    def __init__(self, unacked: Callable[[], int], now: float) -> None:
        self._unacked = unacked
        self._left = 0
        self._limit = now + DEFAULT_LINGER

    def is_over(self, now: float) -> bool:
        """Look; if it is not over, look again after ``ACK_INTERVAL``."""
        before, self._left = self._left, self._unacked()
        if self._left < before:
            self._limit = now + DEFAULT_LINGER
        return not self._left or now >= self._limit


class Side:
    """One of the two sockets.

    Attributes:
        events: what to wait for: ``READ`` and ``WRITE``.
        owner: the socket.
        name: the parameter's name.
    """

    __slots__ = ("events", "io", "name", "owner")

    def __init__(self, owner: BaseSocket, name: Literal["a", "b"]) -> None:
        self.owner = owner
        self.io: Stream = owner._io
        self.name: Literal["a", "b"] = name
        self.events = 0

    @property
    def core(self) -> StreamCore:
        """The core. It is kept in no variable while the relay waits: a reference would look like a reader's."""
        return cast("StreamCore", self.io.core)

    def flush(self) -> bool:
        """Send pending ciphertext; return whether all was sent."""
        if self.core.has_output and not self.io.flush_now(self.core):
            return False
        self.core.message_incomplete = False
        return True


class Direction:
    """From one side to the other.

    Attributes:
        source, sink: the sides.
        moved: bytes sent.
        full: the sink takes nothing at the moment.
        ending: the source has ended, and the sink is to see that.
        over: nothing is left to do.
        ready: an event has been reported since nothing could be done, or there was none to wait for yet.
        error: why the sink could not be sent to.
    """

    __slots__ = (
        "_drained",
        "_gone",
        "_pipe",
        "_pipe_at",
        "_shut",
        "_size",
        "ending",
        "error",
        "full",
        "moved",
        "over",
        "ready",
        "sink",
        "source",
    )

    def __init__(self, source: Side, sink: Side) -> None:
        self.source = source
        self.sink = sink
        self.moved = 0
        self.full = self.ending = self.over = self._shut = self._drained = False
        self.ready = True
        self.error: OSError | None = None
        self._size = BUFFER_SIZE
        self._gone = 0
        self._pipe: Pipe | None = None
        self._pipe_at: float = _BULK
        if (
            source.core.is_tls
            or sink.core.is_tls
            or not can_splice(source.owner._fd.sock, sink.owner._fd.sock)
        ):
            self._pipe_at = float("inf")

    def uses_pipe(self, now: float) -> bool:
        """Whether the next steps need a pipe, which is made here."""
        if self.moved >= self._pipe_at and self._pipe is None and not self.over:
            self._pipe = open_pipe()
            self._pipe_at = self.moved + 16 * _BULK
            if self._pipe is not None:
                self._pipe.last_used = now
        return self._pipe is not None

    def step(self, now: float) -> bool:
        """Move at most a piece; return whether anything was done.

        Raises:
            OSError: the source broke. An error of the sink is kept in ``error``.
        """
        if self.over or not self.ready:
            return False
        self.ready = active = self._move(now)
        if active and self._drained and not self.full and not self.source.core and not self._in_pipe():
            # The last receive has taken all that was there: the next would only find that out.
            self.ready = self._drained = False
        return active

    def _in_pipe(self) -> int:
        return 0 if self._pipe is None else self._pipe.size

    def _move(self, now: float) -> bool:
        try:
            self.full = not self.sink.flush()
            if self.full:
                return False
            if self.ending:
                return self._end()
            if self._pipe is not None and self._pipe.size:
                return self._empty_pipe(self._pipe, now)
        except OSError as error:
            return self._sink_failed(error)
        if self.source.core:
            return self._send_buffered()
        return self._take(now)

    def _take(self, now: float) -> bool:
        """Receive, with nothing under way."""
        source = self.source
        # With an empty buffer this is "not yet", the end, or its error.
        if source.core.recv_some(self._size, _NO_FLAGS) is not None:
            self.ending = True
            return True
        if self._pipe is not None:
            return self._fill_pipe(self._pipe, now)
        before = source.core.buffer.received
        if not source.io.receive_now(source.owner, "relay"):
            return False
        received = source.core.buffer.received - before
        if received >= BUFFER_SIZE:
            self._size = PIECE
        # 0: the end, or an error, which the next step finds in the core. With TLS the end may be there with data.
        self._drained = 0 < received < BUFFER_SIZE and not source.core.is_tls
        return True

    def _send_buffered(self) -> bool:
        """Send the bytes that were received."""
        buffer = self.source.core.buffer
        sender = self.sink.io.sender
        moved = False
        try:
            while not self.full and (view := buffer.show(1)) is not None:
                try:
                    # `for` stores the number before a signal handler can raise an exception.
                    for self._gone in map(sender.send, (view,), (NOW,)):
                        break
                    moved = True
                    self.full = not self.sink.flush()
                except BlockingIOError:
                    self.full = True
                finally:
                    self.settle()
        except OSError as error:
            return self._sink_failed(error)
        return moved

    def _fill_pipe(self, pipe: Pipe, now: float) -> bool:
        source = self.source
        try:
            size = pipe.fill_from(source.owner._fd.sock)
        except BlockingIOError:
            return False
        except OSError as error:
            raise_if_closed(source.owner, "relay")
            source.core.fail(annotated(error, "relay", source.owner))
            return True
        pipe.last_used = now
        if size is None:
            self._drop_pipe()
            self._pipe_at = float("inf")
        elif not size:
            source.core.feed(b"")
        else:
            self._drained = size < PIPE_SIZE // 4
        return True

    def _empty_pipe(self, pipe: Pipe, now: float) -> bool:
        pipe.last_used = now
        try:
            pipe.send_to(self.sink.owner._fd.sock)
        except BlockingIOError:
            self.full = True
            return False
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._drop_pipe()  # this kind of socket cannot: the bytes go through the buffer
            self._pipe_at = float("inf")
            return True
        self.settle()
        return True

    def settle(self) -> None:
        """Count what the last system call has sent, and take it out of where it was."""
        pipe, buffer, sink = self._pipe, self.source.core.buffer, self.sink.io
        if pipe is not None:
            # No signal handler can run in these lines.
            self.moved += pipe.gone
            buffer.received += pipe.gone
            sink.payload_sent += pipe.gone
            pipe.size -= pipe.gone
            pipe.gone = 0
        if self._gone:
            buffer.consume(self._gone)
            # Nor between the last line of `consume` and these.
            self.moved += self._gone
            sink.payload_sent += self._gone
            self._gone = 0

    def _sink_failed(self, error: OSError) -> bool:
        raise_if_closed(self.sink.owner, "relay")
        self.error = annotated(error, "relay", self.sink.owner)
        if isinstance(error, ConnectionResetError):
            self.sink.core.pending_reset = copy_for_reraise(error)
        self.over = True
        return True

    def _end(self) -> bool:
        """Half-close the sink."""
        if not self._shut:
            self.sink.io.write_shut = self._shut = True
            shut_down_writing(self.sink.io.sender)
        self.full = not self.sink.flush()
        self.over = not self.full
        return self.over

    # The pipe.

    @property
    def pipe_expires(self) -> float | None:
        """When the pipe is to be closed if it is not used."""
        pipe = self._pipe
        return None if pipe is None or pipe.size else pipe.last_used + _PIPE_IDLE

    def close_idle_pipe(self, now: float) -> None:
        """Close the pipe if it was not used for a while. The next one is for more than a few bytes again."""
        expires = self.pipe_expires
        if expires is not None and now >= expires:
            self._drop_pipe()
            self._pipe_at = self.moved + _BULK

    def _drop_pipe(self) -> None:
        pipe = self._pipe
        if pipe is None:
            return
        self.settle()
        left = pipe.content()
        if left:
            # It is empty while there is a pipe: this is the front of the stream.
            self.source.core.feed(left)
        self._pipe = None
        pipe.close()

    def put_back(self) -> None:
        """At the end of the relay: leave what the sink has not taken to the next read of the source."""
        self.settle()
        self._drop_pipe()


class Relay:
    """Both directions, and how the relay ends.

    Attributes:
        finished: it has ended.
        idle_at: when it ends because nothing moves; None: never.
        unfinished: ``advance`` has stopped at its limit and is to be called again, whether there is an event or not.
    """

    __slots__ = (
        "_began",
        "_half_closed",
        "_idle",
        "_progress",
        "_report",
        "_shown",
        "down",
        "idle_at",
        "sides",
        "unfinished",
        "up",
    )

    def __init__(
        self,
        a: BaseSocket,
        b: BaseSocket,
        idle_timeout: float | None,
        half_close_timeout: float | None,
        progress: Progress | None,
        now: float,
    ) -> None:
        """Begin, with both streams held by the caller."""
        self.sides = Side(a, "a"), Side(b, "b")
        for side in self.sides:
            side.core.recover()  # a read that was interrupted may have left bytes outside the buffer
        self.up = Direction(*self.sides)
        self.down = Direction(*reversed(self.sides))
        self._idle = idle_timeout
        self._half_closed = half_close_timeout
        self._progress = progress
        self._began = now
        self._shown = 0
        self._report: tuple[str, Side | None, OSError | None] | None = None
        self.unfinished = False
        self.idle_at: float | None = None
        self.touch(now)

    @property
    def directions(self) -> tuple[Direction, Direction]:
        return self.up, self.down

    @property
    def finished(self) -> bool:
        return self._report is not None

    def prepare(self, now: float) -> bool:
        """Before ``advance``: whether it makes system calls that wait if the descriptors block."""
        up, down = self.up.uses_pipe(now), self.down.uses_pipe(now)
        return up or down

    def advance(self, now: float) -> None:
        """Do everything that need not wait, up to a limit.

        Raises:
            ClosedError: this side has closed a socket.
        """
        self.raise_if_closed()
        before = self.up.moved + self.down.moved
        active = True
        while active and not self.finished:
            up, down = self.step(self.up, now), self.step(self.down, now)
            active = up or down
            if active:
                self.touch(now)
            if self.up.moved + self.down.moved - before >= _TURN:
                break
        self.unfinished = active and not self.finished
        for side in self.sides:
            if not self.finished and side.core.has_output:  # made by a read
                self._flush(side)
        self._choose_events()
        self.show_progress()

    def raise_if_closed(self) -> None:
        """Refuse to go on once this side has closed a socket."""
        for side in self.sides:
            raise_if_closed(side.owner, "relay")

    def show_progress(self) -> None:
        """Tell the caller how much was sent, if it is more than before."""
        total = self.up.moved + self.down.moved
        if self._progress is not None and total != self._shown:
            self._shown = total
            self._progress(self.up.moved, self.down.moved)

    def step(self, direction: Direction, now: float) -> bool:
        """Let one direction do something."""
        if self.finished:
            return False
        try:
            active = direction.step(now)
        except ClosedError:
            raise
        except OSError as error:
            self.fail(direction.source, error)
            return True
        if active:
            self.conclude()
        return active

    def conclude(self) -> None:
        """Finish if both directions are over."""
        if not self.finished and self.up.over and self.down.over:
            self._finish("end")

    def _finish(self, reason: str) -> None:
        """Finish; for a side that could not be sent to, the reason is that its connection broke."""
        for direction in self.directions:
            if direction.error is not None:
                self.fail(direction.sink, direction.error)
                return
        self._report = reason, None, None

    def fail(self, side: Side, error: OSError) -> None:
        """Finish: a connection broke. If the other direction could not send to that side, it was that which told."""
        if not self.finished:
            self._report = "reset", side, error.with_traceback(None)

    def touch(self, now: float) -> None:
        """Note that something moved."""
        limit = self._idle
        if self._half_closed is not None and (self.up.over or self.down.over):
            limit = self._half_closed
        self.idle_at = None if limit is None else now + limit

    def alarm(self) -> float | None:
        """When ``on_alarm`` is to be called, if nothing happens before."""
        moments = [self.idle_at, self.up.pipe_expires, self.down.pipe_expires]
        return min((moment for moment in moments if moment is not None), default=None)

    def on_alarm(self, now: float) -> None:
        """Close idle pipes, and end an idle relay."""
        for direction in self.directions:
            direction.close_idle_pipe(now)
        if self.idle_at is not None and now >= self.idle_at and not self.finished:
            self._finish("idle")

    def on_event(self, side: Side, events: int) -> None:
        """Note that a side can be read or written; ``advance`` is to be called."""
        for direction in self.directions:
            if (events & READ and direction.source is side) or (events & WRITE and direction.sink is side):
                direction.ready = True

    def _choose_events(self) -> None:
        """Set what to wait for."""
        for side in self.sides:
            side.events = WRITE if side.core.has_output and not self.finished else 0
        for direction in self.directions:
            if direction.over or self.finished:
                continue
            if direction.full:
                direction.sink.events |= WRITE
            elif not direction.ending:
                direction.source.events |= READ

    def _flush(self, side: Side) -> None:
        try:
            side.flush()
        except OSError as error:
            raise_if_closed(side.owner, "relay")
            self.fail(side, error)

    def put_back(self) -> None:
        """Leave every byte that was not delivered to the next read of its socket."""
        for direction in self.directions:
            if not direction.source.owner.is_closed:
                direction.put_back()

    def unacked(self) -> int:
        """After a reset: bytes of the other side that a reset of it would drop."""
        failed = self._report[1] if self._report is not None else None
        for side in self.sides:
            if failed is not None and side is not failed and not side.owner.is_closed:
                sock = side.owner._fd.sock
                return 0 if sock.family == AF_UNIX else unacked(sock)
        return 0

    def report(self, now: float) -> RelayReport:
        """The result, when it has finished."""
        assert self._report is not None
        reason, side, error = self._report
        return RelayReport(
            a_to_b=self.up.moved,
            b_to_a=self.down.moved,
            seconds=now - self._began,
            reason=cast('Literal["end", "idle", "reset"]', reason),
            failed=None if side is None else side.name,
            error=error,
        )


def check_arguments(
    a: BaseSocket,
    b: BaseSocket,
    kind: type[BaseSocket],
    idle_timeout: float | None,
    half_close_timeout: float | None,
    progress: Progress | None,
) -> tuple[float | None, float | None]:
    """Check the arguments of ``relay``; return the two times.

    Raises:
        TypeError, ValueError: one of them is wrong.
        ClosedError: a socket is closed.
    """
    for name, sock in (("a", a), ("b", b)):
        if not isinstance(sock, kind):
            raise TypeError(f"{name} is a {kind.__module__}.{kind.__name__}, not {type(sock).__name__}")
    if a is b:
        raise ValueError("a relay needs two sockets: a and b are the same")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress is a function or None, not {type(progress).__name__}")
    idle_timeout = check_seconds("idle_timeout", idle_timeout)
    half_close_timeout = check_seconds("half_close_timeout", half_close_timeout)
    for sock in (a, b):
        require_open(sock, "relay")
        check_kind(sock._fd.sock, "relay", datagram=False)
    return idle_timeout, half_close_timeout
