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
from wireline._secure import SecureSocket
from wireline.asyncnet._datagram_io import DatagramIO
from wireline.asyncnet._fd_on_loop import FdOnLoop, is_blocking
from wireline.asyncnet._operations import WeakAnnotator
from wireline.asyncnet._port import Port, running_port
from wireline.asyncnet._queue import OperationQueue
from wireline.asyncnet._sync import Notifier
from wireline.errors import BusyError, SockAddr

__all__ = ["AttachedStream"]


class AttachedStream(SecureSocket):
    """The part of a stream that holds an ``FdOnLoop``, and the core while no task reads."""

    def _setup(self, sock: socket.socket, buffered: bool, state: State, peer: SockAddr | None = None) -> None:
        self._fd = FdOnLoop(sock)
        # The core, while nobody waits for it: so an empty list is what tells a second reader that it is one.
        self._resting: list[StreamCore] = []
        self._is_connecting = False
        self._datagram_io: DatagramIO | None = None
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
        was_blocking = state is not None or is_blocking(sock)
        self = super()._adopt(sock, buffered=buffered, state=state, peer=peer)
        self._fd.was_blocking = was_blocking
        return self

    def _opened(self) -> None:
        self._fd.clear()  # of `connect`
        self._resting = []
        self._fd.write_lock.locked = True

    def _published(self) -> None:
        assert self._core is not None
        if not self._closing.locked():
            self._resting[:] = [self._core]
        self._release_write_lock()

    def _hold(self, operation: str) -> StreamCore:
        """Be the only one who reads and writes the stream."""
        self._open_sock(operation)
        if self._core is None:
            self._refuse(operation)
        if self._in_use:
            raise BusyError(f"{operation}: another task is using this socket")
        self._fd.write_lock.locked = True
        self._fd.drop_read_waiter()  # it knows the core that there was
        return self._resting.pop()

    # Belonging to a loop, and to a process.

    def _enter(self) -> Port:
        """The port of the running loop, which the socket belongs to from its first await on."""
        port = self._fd.port
        if port.loop is not port.running_loop():
            return self._bind_to_loop(running_port())
        return port

    def _bind_to_loop(self, port: Port) -> Port:
        if self._is_foreign:
            made = self._unix_file
            self.adopt()
            self._unix_file = made  # its file stays the parent's: other children may accept there, too
        try:
            self._fd.bind(port)
        except RuntimeError as error:
            raise RuntimeError(f"{self!r} {error}") from None
        return port

    def _inherit(self) -> None:
        self._fd.reset_after_fork()
        if self._core is not None:
            # A task of the parent's, which read or sent in the moment of the fork, goes on there and not here.
            self._resting = [self._core]
            self._fd.write_lock.locked = False

    def _read_queue(self) -> OperationQueue:
        self._enter()
        return self._fd.open_read_queue()

    def _write_queue(self) -> OperationQueue:
        self._enter()
        return self._fd.open_write_queue()

    def _notifier(self) -> contextlib.AbstractContextManager[Notifier]:
        """A notifier that ``close`` uses, too."""
        self._enter()
        return self._fd.notifier()

    def _datagrams(self, operation: str) -> DatagramIO:
        """The datagrams of the socket, which belongs to the running loop from now on."""
        self._open_sock(operation)
        self._enter()
        if self._datagram_io is None:
            self._datagram_io = DatagramIO(self._fd, WeakAnnotator(self))
        return self._datagram_io

    def _deadline(self, timeout: float | None) -> Deadline | None:
        return None if timeout is None else Deadline(timeout, self._enter().time())

    # Output that a read has made.

    def _send_output(self) -> None:
        """Send what a read has made, unless another task is sending, which will look again."""
        core = self._core
        if (
            core is not None
            and core.has_output
            and not self._fd.write_lock.locked
            and not self._closing.locked()
        ):
            with contextlib.suppress(OSError):  # the peer is gone: the next read or send finds out by itself
                self._flush_now(core)

    def _release_write_lock(self) -> None:
        self._fd.write_lock.release()
        self._send_output()

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
        if self._core is not None and self._fd.send_was_cut:
            self._core.send_in_flight = True
        linger, farewell = self._last_words(linger)
        sock = self._sock
        if linger is None or self._core is None or sock.fileno() < 0:
            close_quietly(sock)
            return
        # A send that this close has interrupted is to find a closed socket, and not the new one.
        heir = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        dispose(heir, linger, farewell)

    @property
    def _in_use(self) -> bool:
        """Whether a task reads or writes the stream."""
        return self._core is not None and (self._fd.write_lock.locked or not self._resting)

    def _give_up(self) -> int:
        if not self._is_foreign:
            if self._in_use or self._fd.busy:
                raise OSError(errno.EBUSY, "detach: another task is using the socket")
            self._fd.give_back()
        self._resting = []
        self._fd.write_lock.close()
        return super()._give_up()
