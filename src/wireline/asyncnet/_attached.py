"""A stream that belongs to a loop: what is the socket's part of it, and how it is let go."""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
from typing import Self

from wireline._core.deadline import Deadline
from wireline._core.stream import StreamCore
from wireline._os.close import close_quietly
from wireline._os.descriptor import State
from wireline._os.linger import dispose
from wireline._tls_facts import closing_output
from wireline.asyncnet._asyncio import Loop, running_loop
from wireline.asyncnet._channel import Channel
from wireline.asyncnet._fd_on_loop import FdOnLoop, is_blocking
from wireline.asyncnet._readiness import LoopState
from wireline.asyncnet._secured import SecuredStream
from wireline.asyncnet._sync import Signal
from wireline.errors import BusyError, SockAddr

__all__ = ["AttachedStream"]


class AttachedStream(SecuredStream):
    """The part of a stream that holds an ``FdOnLoop``, and the core while no task reads."""

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._fd = FdOnLoop(sock)
        # The core, while nobody waits for it: so an empty list is what tells a second reader that it is one.
        self._resting: list[StreamCore] = []
        self._is_connecting = False
        super()._setup(sock, buffered, state, peer)

    @classmethod
    def _adopt(
        cls,
        sock: socket.socket,
        *,
        buffered: bool,
        state: State | None = None,
        peer: SockAddr | None = None,
    ) -> Self:
        # What the library made itself blocks, as a new descriptor does.
        blocks = state is not None or is_blocking(sock)
        self = super()._adopt(sock, buffered=buffered, state=state, peer=peer)
        self._fd.blocks = blocks
        return self

    def _opened(self) -> None:
        self._fd.clear()  # of `connect`
        self._resting = []
        self._fd.turn.held = True

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
        self._fd.turn.held = True
        self._fd.drop_stream_reader()  # it knows the core that there was
        return self._resting.pop()

    # Belonging to a loop, and to a process.

    def _enter(self) -> Loop:
        """The running loop, which the socket belongs to from its first await on."""
        loop = running_loop()
        if loop is not self._fd.state.loop:
            self._belong_to(loop)
        return loop

    def _enter_state(self) -> LoopState:
        """The same, and its state."""
        self._enter()
        return self._fd.state

    def _belong_to(self, loop: Loop) -> None:
        if self._is_foreign:
            made = self._unix_file
            self.adopt()
            self._unix_file = made  # its file stays the parent's: other children may accept there, too
        try:
            self._fd.bind(loop)
        except RuntimeError as error:
            raise RuntimeError(f"{self!r} {error}") from None

    def _inherit(self) -> None:
        self._fd.release()
        if self._core is not None:
            # A task of the parent's, which read or sent in the moment of the fork, goes on there and not here.
            self._resting = [self._core]
            self._fd.turn.held = False

    def _read_channel(self) -> Channel:
        self._enter()
        return self._fd.read_channel()

    def _write_channel(self) -> Channel:
        self._enter()
        return self._fd.write_channel()

    def _signal(self) -> contextlib.AbstractContextManager[Signal]:
        """Something to wait for that ``close`` rings, too."""
        self._enter()
        return self._fd.signal()

    def _deadline(self, timeout: float | None) -> Deadline | None:
        return None if timeout is None else Deadline(timeout, self._enter().time())

    # The end.

    def _let_go(self, old: socket.socket) -> None:
        self._fd.replace(self._sock)()

    def _retire(self, linger: float | None) -> None:
        # New lists: a reader that is at work in this moment puts what it has back into the old ones.
        self._resting = []
        self._lines = []
        self._fd.close(functools.partial(self._dispose, linger))

    def _is_disposed(self) -> bool:
        # Everything that `close` does may be done again, so one that an exception has ended is made good by the next.
        return self._sock.fileno() < 0

    def _abandon(self) -> None:
        self._fd.abandon()

    def _dispose(self, linger: float | None) -> None:
        if self._core is not None and self._fd.was_cut:
            self._core.send_in_flight = True
        linger, final_bytes = closing_output(self._core, linger)
        sock = self._sock
        if linger is None or self._core is None or sock.fileno() < 0:
            close_quietly(sock)
            return
        # A send that this close has interrupted is to find a closed socket, and not the new one.
        heir = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        dispose(heir, linger, final_bytes)

    @property
    def _in_use(self) -> bool:
        """Whether a task reads or writes the stream."""
        return self._core is not None and (self._fd.turn.held or not self._resting)

    def _give_up(self) -> int:
        if not self._is_foreign:
            if self._in_use or self._fd.busy:
                raise OSError(errno.EBUSY, "detach: another task is using the socket")
            self._fd.give_back()
        self._resting = []
        self._fd.turn.end()
        return super()._give_up()
