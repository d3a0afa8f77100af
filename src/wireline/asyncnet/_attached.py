"""A stream that belongs to a loop: what it has there, and how it lets go of it."""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import threading
from collections.abc import Iterator

from wireline._base import closed_meanwhile
from wireline._descriptor import State
from wireline._sansio.deadline import Deadline
from wireline._sansio.stream import StreamCore
from wireline.asyncnet._asyncio import Loop, Operation, running_loop, when_done
from wireline.asyncnet._channel import Channel, open_channel
from wireline.asyncnet._reader import StreamReader
from wireline.asyncnet._secured import SecuredStream
from wireline.asyncnet._signals import Signal, WriteTurn
from wireline.errors import BusyError, SockAddr

__all__ = ["AttachedStream"]


class _Here(threading.local):
    """The running thread. Its number is made once; each call of ``get_ident`` makes one, 32 bytes a connection."""

    def __init__(self) -> None:
        self.ident = threading.get_ident()


_here = _Here()


class AttachedStream(SecuredStream):
    """The part of a stream that knows its loop, and wakes everybody at the end."""

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._loop: Loop | None = None
        self._thread = 0
        self._reader: Channel | None = None
        self._writer: Channel | None = None
        self._turn = WriteTurn()
        # The core, while nobody waits for it: so an empty list is what tells a second reader that it is one.
        self._resting: list[StreamCore] = []
        self._stream_reader: StreamReader | None = None
        self._is_connecting = False
        self._signals: set[Signal] | None = None  # made when it is needed: most sockets never do
        super()._setup(sock, buffered, state, peer)

    def _opened(self) -> None:
        self._close_channels()  # of the descriptor before, or for `connect`
        self._resting = []
        self._turn.held = True

    def _published(self) -> None:
        assert self._core is not None
        if not self._closing.locked():
            self._resting[:] = [self._core]
        self._let_go_of_turn()

    def _hold(self, operation: str) -> StreamCore:
        """Be the only one who reads and writes the stream."""
        self._open_sock(operation)
        if self._core is None:
            self._refuse(operation)
        if self._in_use:
            raise BusyError(f"{operation}: another task is using this socket")
        self._turn.held = True
        if self._stream_reader is not None:
            self._stream_reader.close(closed_meanwhile)  # it knows the core that there was
            self._stream_reader = None
        return self._resting.pop()

    # Belonging to a loop.

    def _enter(self) -> Loop:
        """The running loop, which the socket belongs to from its first await on."""
        loop = running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise RuntimeError(f"{self!r} belongs to another event loop")
            self._loop = loop
            self._thread = _here.ident
        return loop

    def _read_channel(self) -> Channel:
        loop = self._enter()
        if self._reader is None:
            self._reader = open_channel(loop, self._sock)
        return self._reader

    def _write_channel(self) -> Channel:
        loop = self._enter()
        if self._writer is None:
            self._writer = open_channel(loop, self._sock, write=True)
        return self._writer

    def _close_channels(self) -> list[Operation | None]:
        """Wake everybody who waits; return the operations that still have the descriptor in their hands."""
        if self._stream_reader is not None:
            self._stream_reader.close(closed_meanwhile)
            self._stream_reader = None
        if self._reader is None and self._writer is None:
            return []
        channels = [channel for channel in (self._reader, self._writer) if channel is not None]
        for channel in channels:
            channel.close(closed_meanwhile)
        self._reader = self._writer = None
        return [channel.ending for channel in channels]

    def _let_go(self, old: socket.socket) -> None:
        when_done(self._close_channels(), old.close)

    @contextlib.contextmanager
    def _signal(self) -> Iterator[Signal]:
        """Something to wait for that ``close`` rings, too."""
        signal = Signal(self._enter())
        signals = self._signals = self._signals or set()
        signals.add(signal)
        try:
            yield signal
        finally:
            signals.discard(signal)

    def _deadline(self, timeout: float | None) -> Deadline | None:
        return None if timeout is None else Deadline(timeout, self._enter().time())

    def _retire(self, linger: float | None) -> None:
        self._resting.clear()
        self._turn.end()
        loop = self._loop
        if loop is None or loop.is_closed() or self._thread == threading.get_ident():
            self._end(linger)
        else:
            # From another thread: what belongs to the loop is touched inside it. The socket is closed already.
            try:
                loop.call_soon_threadsafe(self._end, linger)
            except RuntimeError:  # the loop was closed in this moment
                self._end(linger)

    def _end(self, linger: float | None) -> None:
        # A reader that was at work when another thread called `close` may have put these back since.
        self._resting.clear()
        self._lines.clear()
        if self._loop is None or not self._loop.is_closed():  # else there is nobody to wake
            self._turn.send_away()
            for signal in self._signals or ():
                signal.ring()
        writer = self._writer
        when_done(self._close_channels(), functools.partial(self._dispose_after, writer, linger))

    def _dispose_after(self, writer: Channel | None, linger: float | None) -> None:
        sending = None if writer is None else writer.ending
        if self._secure is not None and sending is not None and sending.cancelled():
            self._secure.lent = True  # it was ended in the midst of what counts as sent
        self._dispose(linger)

    @property
    def _in_use(self) -> bool:
        """Whether a task reads or writes the stream."""
        return self._core is not None and (self._turn.held or not self._resting)

    def _give_up(self) -> int:
        channels = [channel for channel in (self._reader, self._writer) if channel is not None]
        if self._in_use or any(channel.busy or channel.in_flight for channel in channels):
            raise OSError(errno.EBUSY, "detach: another task is using the socket")
        self._close_channels()
        self._resting.clear()
        self._turn.end()
        return super()._give_up()
