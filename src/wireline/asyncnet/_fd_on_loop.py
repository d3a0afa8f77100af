"""A descriptor that belongs to a loop: which calls may touch it, which close it, and from where.

The async twin of the blocking flavour's guard. An ``AsyncSocket`` holds one ``FdOnLoop`` and forwards to it.

Theory of operation. A descriptor has one owner of each kind:

* *A process.* The socket keeps that of its owner (``BaseSocket._owner``, the one place) and asks before it calls us. In
  a forked child ``abandon`` is all that may be called: it closes the child's descriptor. No ``epoll_ctl``, no
  ``remove_reader``, no wake-up, for all of these are shared with the parent. A child that goes on with the socket
  ``release``s it from the parent's loop first; all loops of the parent are ``UNBOUND`` there (see ``_poller``), so it
  is found out where the loop is compared, and nowhere else.
* *A loop*, from the first await on (``bind``). Only its thread touches the descriptor and the registrations, and only
  its callbacks wake tasks.
* *One task that reads, and one that writes.* The core is with the reader (``StreamReader``), the ``turn`` with the
  writer. Between two awaits nothing else runs, so there is no last user to wait for: ``close`` closes.

``close`` may be called in any thread, and at any bytecode of the loop's own thread: a signal handler or a finalizer may
have interrupted a callback of ours that is half done, or the loop itself. So it does two things.

At once, in steps none of which can be seen half done: every object that knows the descriptor is marked
(``closed``), the poller forgets the number, and the descriptor is closed, by which the number is free again (a program
may bind to the port of a listener as soon as it has closed it). What was interrupted finds out by itself: its
``socket.socket`` answers ``EBADF`` and it looks at the mark, or it is about to sleep and looks at the mark last, after
it can be found. It never sees the number: that is asked of the ``socket.socket`` each time, and is -1 after the close.

Later, in a callback of the loop (``_finish``), where nothing of ours is half done: tasks are woken with
``ClosedError``, in the queues too, and timers are cancelled. Where no task waits, this part is left out.

Where a thread of another loop, or of none, calls ``close`` (the collector runs in any), all of it happens in the loop's
thread: only there no system call with the descriptor is under way. A loop that does not run has no call under way; on a
closed one no task waits.

On a loop without ``add_reader`` an operation of the loop may have the descriptor in its hands. Then it is closed when
the last of them has let go of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator

from wireline._core.stream import StreamCore
from wireline._os.close import close_quietly
from wireline._socket_base import closed_meanwhile
from wireline.asyncnet._asyncio import Loop, Operation, runs_here, when_done
from wireline.asyncnet._channel import Channel, open_channel
from wireline.asyncnet._operations import Owner
from wireline.asyncnet._reader import StreamReader
from wireline.asyncnet._readiness import UNBOUND, loop_state
from wireline.asyncnet._sync import Signal, WriteTurn

__all__ = ["FdOnLoop", "is_blocking"]


class FdOnLoop:
    """One descriptor, and what the library has of it in a loop.

    Attributes:
        blocks: whether the descriptor is handed back in blocking mode, see ``AsyncSocket.detach``.
        reader: what waits for input, but for the bytes of a stream; None until it is needed, as the next two.
        sock: the descriptor's one owner.
        state: that of the loop which it belongs to, or ``UNBOUND``.
        stream_reader: what waits for the bytes of a stream.
        turn: who may write.
        writer: what waits for room.
    """

    __slots__ = ("_signals", "blocks", "reader", "sock", "state", "stream_reader", "turn", "writer")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.state = UNBOUND
        self.turn = WriteTurn()
        self.reader: Channel | None = None
        self.writer: Channel | None = None
        self.stream_reader: StreamReader | None = None
        self.blocks = True
        self._signals: set[Signal] | None = None

    # Belonging to a loop.

    def bind(self, loop: Loop) -> None:
        """Belong to ``loop`` from now on.

        Raises:
            RuntimeError: it belongs to another one.
        """
        if self.state.loop is not None:
            raise RuntimeError("belongs to another event loop")
        self.state = loop_state(loop)

    def replace(self, sock: socket.socket) -> Callable[[], None]:
        """Go on with another descriptor; what is returned closes the old one, once no operation has it any more."""
        old, self.sock = self.sock, sock
        operations = self.clear(old)
        return lambda: when_done(operations, functools.partial(close_quietly, old))

    def release(self) -> None:
        """In a forked child: have nothing to do with the parent's loop, its tasks and its registrations."""
        self.state = UNBOUND
        self.reader = self.writer = self.stream_reader = self._signals = None
        self.turn = WriteTurn()

    # What waits for it. All of these are made when they are needed: most sockets need one of them.

    def read_channel(self) -> Channel:
        """What waits for input, of a bound descriptor."""
        if self.reader is None:
            self.reader = open_channel(self._loop(), self.sock)
        return self.reader

    def write_channel(self) -> Channel:
        """What waits for room, of a bound descriptor."""
        if self.writer is None:
            self.writer = open_channel(self._loop(), self.sock, write=True)
        return self.writer

    def open_stream_reader(self, resting: list[StreamCore], owner: Owner) -> StreamReader:
        """What waits for the bytes of a stream, of a bound descriptor, on a loop with ``add_reader``."""
        self.stream_reader = StreamReader(self._loop(), self.sock, resting, owner)
        return self.stream_reader

    @contextlib.contextmanager
    def signal(self) -> Iterator[Signal]:
        """Something to wait for that ``close`` rings, too."""
        signal = Signal(self._loop())
        signals = self._signals = self._signals or set()
        signals.add(signal)
        if self.turn.over:
            signal.ring()  # `close` came before there was something to ring
        try:
            yield signal
        finally:
            signals.discard(signal)

    def _loop(self) -> Loop:
        loop = self.state.loop
        assert loop is not None
        return loop

    @property
    def busy(self) -> bool:
        """Whether a job waits, or an operation of the loop has the descriptor."""
        return any(channel.busy or channel.in_flight for channel in self._channels())

    @property
    def was_cut(self) -> bool:
        """After ``close``: whether an operation was ended in the midst of what counts as sent."""
        ending = None if self.writer is None else self.writer.ending
        return ending is not None and ending.cancelled()

    def _channels(self) -> list[Channel]:
        return [channel for channel in (self.reader, self.writer) if channel is not None]

    # The end.

    def clear(self, sock: socket.socket | None = None) -> list[Operation | None]:
        """Wake every task that waits, from a task of the loop; the operations that still have the descriptor."""
        self.drop_stream_reader()
        channels = self._channels()
        for channel in channels:
            channel.close(closed_meanwhile)
        self.state.forget((sock or self.sock).fileno())
        self.reader = self.writer = None
        return [channel.ending for channel in channels]

    def drop_stream_reader(self) -> None:
        """The same for what waits for the bytes of a stream."""
        reader, self.stream_reader = self.stream_reader, None
        if reader is not None:
            reader.close(closed_meanwhile)

    def abandon(self) -> None:
        """Close the descriptor, and nothing else: this process does not own it."""
        close_quietly(self.sock)

    def close(self, dispose: Callable[[], object]) -> None:
        """Wake every task that waits, and close the descriptor by ``dispose``. Anywhere, at any bytecode, once."""
        self.turn.end()
        loop = self.state.loop
        if loop is None or loop.is_closed() or runs_here(loop) or not loop.is_running():
            self._close(dispose)
            return
        try:
            loop.call_soon_threadsafe(self._close, dispose)
        except RuntimeError:  # the loop was closed in this moment
            self._close(dispose)

    def _close(self, dispose: Callable[[], object]) -> None:
        for closing in (self.stream_reader, self.reader, self.writer):
            if closing is not None:
                closing.closed = True
        state = self.state
        loop = state.loop
        alive = loop is not None and not loop.is_closed()
        in_hands = alive and any(channel.in_flight for channel in self._channels())
        if loop is not None and alive and (in_hands or self._is_awaited()):
            try:
                loop.call_soon_threadsafe(self._finish, dispose if in_hands else None)
            except RuntimeError:  # the loop was closed in this moment: no task waits, and no operation
                in_hands = False
        if not in_hands:
            state.forget(self.sock.fileno())
            dispose()

    def _is_awaited(self) -> bool:
        """Whether a task waits, or is about to: it looks for ``closed`` after it can be found here."""
        if self.turn.queue or self._signals:
            return True
        return any(
            waiting is not None and waiting.needs_loop
            for waiting in (self.stream_reader, self.reader, self.writer)
        )

    def _finish(self, dispose: Callable[[], object] | None) -> None:
        """In a callback of the loop: wake everyone."""
        loop = self._loop()
        try:
            self.turn.send_away()
            for signal in self._signals or ():
                signal.ring()
            for waiting in (self.stream_reader, self.reader, self.writer):
                if waiting is not None:
                    waiting.close_now(closed_meanwhile)
        except BaseException:
            # An exception of a signal handler, or of one task that was woken: the others are still to be woken.
            loop.call_soon(self._finish, dispose)
            raise
        if dispose is not None:
            self.state.forget(self.sock.fileno())
            when_done([channel.ending for channel in self._channels()], functools.partial(_call, dispose))

    def give_back(self) -> None:
        """Leave the descriptor as it was given, for the caller's own use."""
        self.clear()
        if self.blocks:
            self.sock.setblocking(True)


def is_blocking(sock: socket.socket) -> bool:
    """Whether a descriptor from elsewhere is in blocking mode."""
    if os.name == "posix":
        return os.get_blocking(sock.fileno())
    return sock.gettimeout() != 0  # the system cannot be asked


def _call(dispose: Callable[[], object]) -> None:
    dispose()
