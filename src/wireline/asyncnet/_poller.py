"""One epoll for all sockets of a loop, and how long its tasks go on without a pause.

One epoll, itself watched by the loop as a single descriptor, has three reasons. Speed: the loop handles one event a
turn, however many sockets are ready, and their callbacks are in plain dictionaries. Correctness: when a descriptor
reports an error together with data (a reset after the last bytes, an ICMP error on a datagram socket), libuv calls its
watcher once and then drops it without notice, so under uvloop a reader that has yet to be given the error would sleep
forever; epoll(7) goes on reporting it. And safety: ``close`` may be called at any bytecode, by a signal handler or by
the garbage collector, where no function of the loop may be called but the thread-safe one. Taking a descriptor out of
this poller is one system call and one operation of a dictionary, and both may happen at any moment. The poller's own
registration with the loop is ended by a callback of the loop, in the next turn.

An epoll is shared by the processes of a fork: a child only closes its copy of the descriptor (``_disown``), and its
sockets begin anew with the loop that the child runs.

Where there is no epoll the loop watches every descriptor itself, and a signal handler should not call ``close``.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Protocol

__all__ = ["BUDGET", "FdPoller"]

# Events taken at once; the rest is taken in the next turn of the loop. A guess: enough for a busy turn.
_EVENTS = 256

BUDGET = 128
"""Operations that the tasks of a loop may do in a row before one of them lets the loop go on, as in tokio.

A send or a read that need not wait takes 1 to 10 us, so a turn of the loop is held up for about a millisecond at most.
It is one count for all sockets of the loop, so a task that goes around among thousands of sockets is counted too. It
begins anew with each turn in which the poller has events: a task that waits often hardly ever has to pause.
"""

_IN: int = getattr(select, "EPOLLIN", 0)
_OUT: int = getattr(select, "EPOLLOUT", 0)

_Callbacks = dict[int, Callable[[], object]]


class _LoopCalls(Protocol):
    """The calls of a loop, which the port adds to its poller."""

    __slots__ = ()

    def watch_fd(self, fd: int, callback: Callable[[], object], *, write: bool = False) -> None:
        """Let the loop itself call ``callback`` in every turn in which ``fd`` is ready."""

    def unwatch_fd(self, fd: int, *, write: bool = False) -> None:
        """End a ``watch_fd``. The loop may be closed already."""

    def call_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        """Call back in the next turn of the loop. RuntimeError if it is closed."""
        ...

    def is_running(self) -> bool:
        """Whether the loop runs."""
        ...

    def report(self, error: BaseException) -> None:
        """A callback has failed, which is a fault of this library."""


class FdPoller(_LoopCalls):
    """The part of a port that watches descriptors.

    Attributes:
        budget: operations until the next pause, see ``BUDGET``. Each operation that need not wait counts itself.
        turn_budget: the budget of a turn.
    """

    __slots__ = ("__weakref__", "_epoll", "_readers", "_writers", "budget")

    turn_budget = BUDGET

    def __init__(self) -> None:
        self.budget = self.turn_budget
        self._epoll: select.epoll | None = None
        self._readers: _Callbacks = {}
        self._writers: _Callbacks = {}

    # Watching descriptors.

    def watch(self, sock: socket.socket, callback: Callable[[], object], *, write: bool = False) -> bool:
        """Call ``callback`` in every turn of the loop in which ``sock`` is ready, or broken.

        Returns:
            False if the socket is closed, be it in this moment: nothing is watched then.

        Raises:
            OSError: the system refuses the registration (``ENOSPC``, ``ENOMEM``); nothing is watched.
        """
        fd = sock.fileno()
        if fd < 0:
            return False
        mine = self._writers if write else self._readers
        try:
            mine[fd] = callback  # before the event that needs it
            self._begin(fd, callback, write=write)
        except BaseException as error:
            self.unwatch(fd, callback, write=write)
            if sock.fileno() == fd or not isinstance(error, OSError):
                raise
        if sock.fileno() != fd:
            # Closed in between, before there was something to forget. The number may be another socket's by now.
            self.unwatch(fd, callback, write=write)
            return False
        return True

    def _begin(self, fd: int, callback: Callable[[], object], *, write: bool) -> None:
        if not hasattr(select, "epoll"):
            self.watch_fd(fd, callback, write=write)
            return
        epoll = self._epoll
        if epoll is None:
            epoll = select.epoll()
            try:
                self.watch_fd(epoll.fileno(), self._dispatch)
            except BaseException:
                epoll.close()
                raise
            self._epoll = epoll
        if fd in (self._readers if write else self._writers):
            epoll.modify(fd, _IN | _OUT)
        else:
            events = _OUT if write else _IN
            try:
                epoll.register(fd, events)
            except FileExistsError:  # an exception has ended the call that registered it
                epoll.modify(fd, events)

    def unwatch(self, fd: int, callback: Callable[[], object], *, write: bool = False) -> None:
        """Leave ``fd`` alone, if it is still ``callback`` that is called for it. The loop may be closed already."""
        mine, others = (self._writers, self._readers) if write else (self._readers, self._writers)
        if mine.get(fd) != callback:
            return
        del mine[fd]
        if not hasattr(select, "epoll"):
            self.unwatch_fd(fd, write=write)
            return
        self._forget(fd, (_IN if write else _OUT) if fd in others else 0)

    def forget(self, fd: int) -> None:
        """Leave ``fd`` alone, which is about to be closed. At any bytecode."""
        for write, mine in ((False, self._readers), (True, self._writers)):
            if mine.pop(fd, None) is not None:
                if hasattr(select, "epoll"):
                    self._forget(fd, 0)
                else:
                    self.unwatch_fd(fd, write=write)

    def _forget(self, fd: int, still: int) -> None:
        epoll = self._epoll
        if epoll is not None:
            try:
                if still:
                    epoll.modify(fd, still)
                else:
                    epoll.unregister(fd)
            except (OSError, ValueError):
                pass  # another part of the program closed the descriptor, and epoll has forgotten it by itself
        if not self._readers and not self._writers and self._epoll is not None:
            if not self.is_running():
                self._close_if_idle()
            else:
                # Not now: a signal handler that closes a socket may have interrupted the loop itself.
                with contextlib.suppress(RuntimeError):  # closed in this moment; the descriptor goes with us
                    self.call_threadsafe(self._close_if_idle)

    def _close_if_idle(self) -> None:
        epoll = self._epoll
        if epoll is None or self._readers or self._writers:
            return
        self._epoll = None
        self.unwatch_fd(epoll.fileno())
        epoll.close()

    def _dispatch(self) -> None:
        epoll = self._epoll
        if epoll is None:
            return
        self.budget = self.turn_budget
        readers, writers = self._readers, self._writers
        for fd, events in epoll.poll(0, _EVENTS):
            try:
                if writers:  # seldom: a task waits until it can write
                    self._either(fd, events)
                    continue
                callback = readers.get(fd)
                if callback is not None:
                    callback()
                else:
                    # One of those before has closed it; or an exception has cut a registration in two, and it would be
                    # reported without end.
                    self._forget(fd, 0)
            except Exception as error:  # noqa: BLE001 -- one socket's trouble; the others still get their events
                self.report(error)

    def _either(self, fd: int, events: int) -> None:
        reader = self._readers.get(fd)
        if reader is not None and events != _OUT:
            reader()
        writer = self._writers.get(fd)
        if writer is not None and events != _IN:
            writer()
        elif reader is None and writer is None:
            self._forget(fd, 0)

    def _disown(self) -> None:
        """In a forked child: watch nothing any more, without a word to the epoll that the parent has too."""
        self.budget = 0
        epoll, self._epoll = self._epoll, None
        _parents.append((self._readers.copy(), self._writers.copy()))
        self._readers.clear()
        self._writers.clear()
        if epoll is not None:
            epoll.close()  # this copy of the descriptor; `epoll_ctl` would reach the parent's registrations


# Kept alive: a task of the parent that is destroyed in the child would report that it was pending.
_parents: list[tuple[_Callbacks, _Callbacks]] = []
