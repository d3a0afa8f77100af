"""How a descriptor is closed, so that closing never eats what was sent before.

Linux answers with a reset, and throws away what it has not sent yet, when a descriptor is closed while unread input
sits in the kernel, or when input arrives after the close. A peer that pipelines, or a TLS 1.3 client that never
reads its session tickets, therefore loses the end of the last reply (200,000 bytes became 81,920).

The cure is the lingering close of HTTP servers, here below HTTP: stop sending, go on reading and dropping until the
peer is done or the time is up, then close. That must not hold up the caller, so one daemon thread does it for the
whole process and both flavours. It exists only while there is something to linger for.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import socket
import struct
import threading
import time

from wireline._sansio.deadline import Deadline
from wireline.options import NO_SIGNAL

__all__ = ["DEFAULT_LINGER", "dispose"]

DEFAULT_LINGER = 2.0
"""Seconds that a lingering close may take unless told otherwise; also the most that interpreter exit waits.

nginx's ``lingering_timeout`` is 5 s, Apache's is 2 s; a library inside somebody's process takes the shorter.
"""

# Seconds between two looks at a socket that is deaf: nothing tells when its peer has got everything. A guess.
_LOOK = 0.01

# The most that is read from such a socket in between: others wait for the thread, too. A guess.
_READS_A_LOOK = 16

# Seconds. A selector refuses to wait for much more than three weeks at once.
_LONGEST_WAIT = 86_400.0


def dispose(
    sock: socket.socket, linger: float | None = None, farewell: bytes = b"", *, deaf: bool = False
) -> None:
    """Close ``sock`` without ever waiting.

    Args:
        sock: the descriptor's owner; nobody else uses it any more.
        linger: None is the operating system's plain close; 0 an abortive one (reset, unsent data is dropped); else
            the seconds in which the peer may finish before the descriptor is closed in any case.
        farewell: the last bytes to send, if ``linger`` leaves time for it.
        deaf: it was shut down for reading, to wake a thread that waited for something to read.
    """
    if linger is None:
        sock.close()
    elif linger == 0:
        with contextlib.suppress(OSError):  # gone already: then there is nothing to abort
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    else:
        leaving = _Leaving(sock, farewell, Deadline(linger, time.monotonic()), deaf=deaf)
        if leaving.stop_sending():
            _lingerer.add(leaving)
        else:
            sock.close()


class _Leaving:
    """A socket that has something to say yet, and then listens until its peer is done.

    A deaf one cannot hear when that is. It waits until the peer has got everything, and only then ends sending: Linux
    resets a connection at which data arrives once both directions are shut down.
    """

    def __init__(
        self, sock: socket.socket, farewell: bytes, deadline: Deadline, *, deaf: bool = False
    ) -> None:
        self.sock = sock
        self.deadline = deadline
        self.deaf = deaf
        self._farewell = farewell

    @property
    def events(self) -> int:
        """What to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._farewell else 0)

    def stop_sending(self) -> bool:
        """Send what is left and then FIN, as far as there is room; False if the connection is gone."""
        try:
            self.sock.setblocking(False)
            while self._farewell:
                self._farewell = self._farewell[self.sock.send(self._farewell, NO_SIGNAL) :]
            if not self.deaf:
                self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def is_over(self, events: int, scrap: bytearray) -> bool:
        """Do what can be done now; True when the peer is done, or gone."""
        if events & selectors.EVENT_WRITE and not self.stop_sending():
            return True
        return bool(events & selectors.EVENT_READ) and _peer_is_done(self.sock, scrap)

    def has_been_heard(self, scrap: bytearray) -> bool:
        """Of a deaf one: do what can be done now; True when the peer has got everything, or is gone."""
        if not self.stop_sending():
            return True
        with contextlib.suppress(OSError):
            for _ in range(_READS_A_LOOK):
                if not self.sock.recv_into(scrap):
                    break
        return not self._farewell and not _has_unsent(self.sock)


class _Lingerer:
    """One thread that reads and drops what the peers of half-closed sockets still send."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrivals: list[_Leaving] = []
        self._waiting: set[_Leaving] = set()
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None

    def add(self, leaving: _Leaving) -> None:
        """Take a socket over; it is closed when its peer is done or its time is up."""
        with self._lock:
            self._arrivals.append(leaving)
            if self._wake is not None:
                self._wake.send(b"\0")
                return
            try:
                self._start()
            except (OSError, RuntimeError):
                # No descriptor or no thread to be had. Closing at once is all that is left.
                self._arrivals.pop()
                leaving.sock.close()

    def _start(self) -> None:
        with contextlib.ExitStack() as unless_it_runs:
            woken, wake = map(unless_it_runs.enter_context, socket.socketpair())
            selector = unless_it_runs.enter_context(selectors.DefaultSelector())
            selector.register(woken, selectors.EVENT_READ)
            thread = threading.Thread(
                target=self._run, args=(selector, woken), name="wireline-linger", daemon=True
            )
            thread.start()
            unless_it_runs.pop_all()
        self._wake, self._thread = wake, thread  # it waits for our lock before it looks

    def _run(self, selector: selectors.BaseSelector, woken: socket.socket) -> None:
        scrap = bytearray(64 * 1024)
        with selector, woken:
            while self._welcome(selector):
                now = time.monotonic()
                nearest = min(leaving.deadline.at for leaving in self._waiting)
                deaf = [leaving for leaving in self._waiting if leaving.deaf]
                longest = _LOOK if deaf else _LONGEST_WAIT
                for key, events in selector.select(min(max(0.0, nearest - now), longest)):
                    leaving = key.data
                    if leaving is None:
                        woken.recv(4096)
                    elif leaving.is_over(events, scrap):
                        self._close(selector, leaving)
                    elif leaving.events != key.events:
                        selector.modify(leaving.sock, leaving.events, leaving)
                for leaving in deaf:
                    if leaving.has_been_heard(scrap):
                        self._close(selector, leaving)
                now = time.monotonic()
                for leaving in [leaving for leaving in self._waiting if leaving.deadline.passed(now)]:
                    self._close(selector, leaving)

    def _welcome(self, selector: selectors.BaseSelector) -> bool:
        """Begin to watch those that came; False, and the thread ends, when there is nobody left to watch."""
        with self._lock:
            for leaving in self._arrivals:
                if not leaving.deaf:
                    selector.register(leaving.sock, leaving.events, leaving)
            self._waiting.update(self._arrivals)
            self._arrivals.clear()
            if not self._waiting and self._wake is not None:
                self._wake.close()
                self._wake = None
            return bool(self._waiting)

    def _close(self, selector: selectors.BaseSelector, leaving: _Leaving) -> None:
        if not leaving.deaf:
            selector.unregister(leaving.sock)
        self._waiting.remove(leaving)
        leaving.sock.close()

    def wait_at_exit(self) -> None:
        """Give what is not on the wire yet a last chance, ``DEFAULT_LINGER`` seconds at most."""
        limit = time.monotonic() + DEFAULT_LINGER
        thread = self._thread
        while thread is not None and thread.is_alive() and time.monotonic() < limit:
            with self._lock:
                pending = [leaving.sock for leaving in (*self._arrivals, *self._waiting)]
            if not any(map(_has_unsent, pending)):
                return
            thread.join(0.02)

    def forget(self) -> None:
        """In a forked child: the parent lingers, we only drop our copies of its descriptors."""
        self._lock = threading.Lock()  # the parent's may be held by a thread that does not exist here
        for leaving in (*self._arrivals, *self._waiting):
            leaving.sock.close()
        self._arrivals.clear()
        self._waiting.clear()
        self._thread = None
        if self._wake is not None:
            self._wake.close()
            self._wake = None


def _peer_is_done(sock: socket.socket, scrap: bytearray) -> bool:
    try:
        return sock.recv_into(scrap) == 0
    except BlockingIOError:
        return False
    except OSError:
        return True


def _has_unsent(sock: socket.socket) -> bool:
    """Whether the kernel still holds bytes that the peer has not acknowledged (Linux; elsewhere: not known, no)."""
    try:
        import fcntl
        import termios

        unsent = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except (ImportError, OSError, ValueError):
        return False
    return bool(struct.unpack("i", unsent)[0])


_lingerer = _Lingerer()
atexit.register(_lingerer.wait_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lingerer.forget)
