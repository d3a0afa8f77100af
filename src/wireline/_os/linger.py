"""How a descriptor is closed, so that closing never eats what was sent before.

Linux answers with a reset, and throws away what it has not sent yet, when a descriptor is closed while unread input
sits in the kernel, or when input arrives after the close. A peer that pipelines, or a TLS 1.3 client that never
reads its session tickets, therefore loses the end of the last reply (200,000 bytes became 81,920).

The cure is the sockets close of HTTP servers, here below HTTP: stop sending, go on reading and dropping until the
peer is done or the time is up, then close. That must not hold up the caller, so one daemon thread does it for the
whole process and both flavours (docs/decisions/0007 says why not the event loop). It exists only while there is
something to linger for.

A socket is handed over by ``deque.append``, from any thread, finalizer or signal handler. Which thread serves the
queue is decided by ``dict.setdefault``: a second one finds the place taken and ends. The thread gives the place up
before it looks into the queue for the last time, and a caller looks for the thread after the append, so one of the two
sees the other. No lock is involved.

Where no thread can be had, at the end of the interpreter or at a limit of the system, the calling thread lingers
itself, until the kernel has delivered all that was sent, and for a bounded time. Sockets that the main thread closes
before this module's exit hook are left for it, and share one wait.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence

from wireline._core.deadline import Deadline
from wireline._os import background
from wireline._os.close import close_quietly
from wireline.options import NO_SIGNAL

if sys.platform != "win32":
    import fcntl
    import resource
    import termios

__all__ = ["DEFAULT_LINGER", "close_in_background"]

DEFAULT_LINGER = 2.0
"""Seconds that a sockets close may take unless told otherwise; also the max_lingering that interpreter exit waits.

nginx's ``lingering_timeout`` is 5 s, Apache's is 2 s; a library, which is a guest in its process, takes the shorter.
"""

# The most sockets that linger at one time, unless half of the process's limit of descriptors is less: each socket holds
# a descriptor that a new connection may need. This number bounds the memory to 16 MB, at about 1 kB a socket.
_MAX_SOCKETS = 16_384

# Seconds that the thread stays when there is nothing left to do, so that a loop which closes sockets one after the
# other does not start a thread for each. A guess: long beside a close (20 us), too short to be noticed.
_IDLE_TIMEOUT = 0.005

# Seconds of silence after which a peer that has got everything is taken for one that has no more to say, when no more
# than that can be waited for. A reset does not take away what its kernel has, but many programs read no further once a
# write of theirs has failed. A guess: a peer that answers while it reads does not pause for that long.
_QUIET_TIME = 0.1

# Seconds in which a thread that was started is believed to be on its way. After that another one is started.
_START_TIMEOUT = 1.0

# Seconds between two polls of a socket that is not in the selector: after SHUT_RD, or if it could not be registered.
# A guess.
_POLL_INTERVAL = 0.01
_FIRST_POLL_INTERVAL = 0.0005  # of a thread that has nothing else to do than to wait for it
_POLL_SHARE = 10  # looks may take one part of this many of the thread's time

# The max_lingering that is read from such a socket in between: others wait for the thread, too. A guess.
_MAX_READS_PER_POLL = 16

# Seconds. Nothing is known to need it: it bounds the harm if an exception of a signal handler has cost a wake-up.
_MAX_WAIT = 1.0

# Turns of the thread that may fail one after the other, before it closes what it has and ends.
_MAX_FAILURES = 3

_DONT_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)

# The key under which the thread that serves the queue is entered.
_ACTIVE = "serving"


def close_in_background(
    sock: socket.socket, linger: float | None = None, final_bytes: bytes = b"", *, read_shutdown: bool = False
) -> None:
    """Close ``sock`` without waiting; only where no thread can run any more it may take ``DEFAULT_LINGER`` seconds.

    Args:
        sock: the descriptor's owner; it is not used elsewhere any more.
        linger: None is the operating system's plain close; 0 an abortive one (reset, unsent data is dropped); else
            the seconds in which the peer may finish before the descriptor is closed in any case.
        final_bytes: the last bytes to send, if ``linger`` leaves time for it.
        read_shutdown: it was shut down for reading, to wake a thread that waited for something to read.
    """
    if linger is None:
        close_quietly(sock)
    elif linger == 0:
        with contextlib.suppress(OSError):  # gone already: then there is nothing to abort
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        close_quietly(sock)
    else:
        lingering = _LingeringSocket(
            sock, final_bytes, Deadline(linger, time.monotonic()), read_shutdown=read_shutdown
        )
        try:
            if lingering.finish_sending():
                _linger_thread.add(lingering)
            else:
                close_quietly(sock)
        except BaseException:  # of a signal handler, between any two of the steps
            if _linger_thread.has(lingering):
                _linger_thread.enqueue(lingering)
            else:
                close_quietly(sock)
            raise


class _LingeringSocket:
    """A socket that has something to say yet, and then listens until its peer is done.

    After SHUT_RD the peer's FIN cannot be seen. So SIOCOUTQ is polled until everything is acknowledged; only then comes
    the FIN, because Linux resets a connection at which data arrives once both directions are shut down.
    """

    __slots__ = ("_ended", "_final_bytes", "_last_heard", "deadline", "read_shutdown", "sock")

    def __init__(
        self, sock: socket.socket, final_bytes: bytes, deadline: Deadline, *, read_shutdown: bool = False
    ) -> None:
        self.sock = sock
        self.deadline = deadline
        self.read_shutdown = read_shutdown
        self._final_bytes = final_bytes
        self._ended = False
        self._last_heard = 0.0  # when the peer has last said something

    @property
    def events(self) -> int:
        """What to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._final_bytes else 0)

    def finish_sending(self) -> bool:
        """Send what is left and then FIN, as far as there is room; False if the connection is gone."""
        if self._ended:
            return True
        try:
            if self.sock.gettimeout() != 0:
                self.sock.setblocking(False)
            while self._final_bytes:
                # A duplicate of the descriptor may have made it blocking again.
                self._final_bytes = self._final_bytes[
                    self.sock.send(self._final_bytes, NO_SIGNAL | _DONT_WAIT) :
                ]
            if not self.read_shutdown:
                self.sock.shutdown(socket.SHUT_WR)
                self._ended = True
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def is_done(self, discard_buffer: bytearray) -> bool:
        """Do what can be done now; True when the peer is done, or has got everything, or is gone."""
        if not self.finish_sending():
            return True
        try:
            for _ in range(_MAX_READS_PER_POLL):
                if not self.sock.recv_into(discard_buffer, 0, _DONT_WAIT):
                    return not self.read_shutdown or not self.has_unacked
                self._last_heard = time.monotonic()
        except BlockingIOError:
            return self.read_shutdown and not self.has_unacked
        except OSError:
            return True
        return False

    @property
    def has_unacked(self) -> bool:
        """Whether the peer has not got everything yet."""
        return bool(self._final_bytes) or _has_unacked(self.sock)

    def is_quiet(self, now: float) -> bool:
        """Whether it may be closed if it must, and the peer will have got everything."""
        return not self.has_unacked and now - self._last_heard > _QUIET_TIME


class _Waker:
    """Wakes a thread that polls. Its descriptors are closed with the last reference, not under a ringer's hands."""

    __slots__ = ("_receiver", "_sender", "_woken")

    def __init__(self) -> None:
        self._woken = False
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def wake(self) -> None:
        """Wake the thread. It is a system call once between two looks of the thread, and does not wait."""
        if self._woken:
            return
        try:
            self._woken = True
            self._sender.send(b"\0")
        except OSError:
            # Full, then it is rung; or out of order, then the thread finds out by itself, and looks without it.
            return
        except BaseException:  # of a signal handler: the next one rings
            self._woken = False
            raise

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._receiver.fileno()

    def rest(self) -> None:
        """Be silent again. The thread looks after this, not before, for sockets that were handed over."""
        if self._woken:
            with contextlib.suppress(BlockingIOError):  # `wake` has not got as far as sending
                self._receiver.recv(4096)
            self._woken = False

    def close(self) -> None:
        """Close the descriptors at once: in a forked child, where nothing can wake it."""
        close_quietly(self._receiver)
        close_quietly(self._sender)

    def __del__(self) -> None:
        # `__init__` may have failed.
        for name in ("_receiver", "_sender"):
            end = getattr(self, name, None)
            if end is not None:
                close_quietly(end)


class _Poller:
    """The sockets that the thread pollers. Only the thread itself uses it, but for ``wake``."""

    def __init__(self) -> None:
        self.sockets: dict[_LingeringSocket, None] = {}  # in the order in which they were handed over
        self.max_lingering = _max_sockets()
        self._polled: dict[_LingeringSocket, None] = {}
        self._deadlines: list[tuple[float, int, _LingeringSocket]] = []
        self._numbers = itertools.count()
        self._discard_buffer = bytearray(64 * 1024)
        self._poll_pause = _POLL_INTERVAL
        self._next_poll = 0.0
        self._waker: _Waker | None = None
        self._selector: selectors.BaseSelector | None = None

    def open(self) -> None:
        """Get what waiting needs. Without it, for want of descriptors, the sockets are looked at now and then."""
        try:
            self._selector = selectors.DefaultSelector()
            waker = _Waker()
            self._selector.register(waker, selectors.EVENT_READ)
            self._waker = waker
        except Exception:  # noqa: BLE001 -- out of descriptors or memory: it goes on with what there is
            self.drop_selector()

    def wake(self) -> None:
        """From any thread: something was handed over."""
        waker = self._waker
        if waker is not None:  # else it is not there yet, and the thread looks into the queue later than that
            waker.wake()

    def rest(self) -> None:
        """Let ``wake`` wake again."""
        if self._waker is not None:
            self._waker.rest()

    def drop_selector(self) -> None:
        """Waiting has failed: look at the sockets now and then instead."""
        selector, self._selector, self._waker = self._selector, None, None
        self._polled = dict.fromkeys(self.sockets)
        # The poll that failed may have had some of these in its hands.
        self._deadlines = [
            (lingering.deadline.at, next(self._numbers), lingering) for lingering in self.sockets
        ]
        heapq.heapify(self._deadlines)
        if selector is not None:
            with contextlib.suppress(OSError):  # it may be what has failed
                selector.close()

    def add_socket(self, lingering: _LingeringSocket) -> None:
        """Watch one more."""
        self.sockets[lingering] = None
        heapq.heappush(self._deadlines, (lingering.deadline.at, next(self._numbers), lingering))
        if self._selector is None or lingering.read_shutdown:
            self._polled[lingering] = None
            return
        try:
            self._selector.register(lingering.sock, lingering.events, lingering)
        except (OSError, ValueError, KeyError):
            # No room for it in the kernel (ENOSPC, ENOMEM), or it is closed: whichever, a look tells.
            self._polled[lingering] = None

    def close(self, lingering: _LingeringSocket) -> None:
        """Watch one no more, and close it."""
        self.sockets.pop(lingering, None)
        was_polled = self._polled.pop(lingering, self) is None
        if self._selector is not None and not was_polled:
            with contextlib.suppress(OSError, ValueError, KeyError):  # not there: what was wanted
                self._selector.unregister(lingering.sock)
        with contextlib.suppress(OSError):  # the descriptor is gone, whatever its last error was
            close_quietly(lingering.sock)

    def poll(self, seconds: float) -> list[_LingeringSocket]:
        """Wait for ``seconds`` at max_lingering and do what can be done; return those that are over."""
        over: list[_LingeringSocket] = []
        now = time.monotonic()
        until = min(now + seconds, now + _MAX_WAIT)
        if self._deadlines:
            until = min(until, self._deadlines[0][0])
        if self._polled or self._selector is None:
            until = min(until, max(self._next_poll, now))
        if self._selector is None:
            time.sleep(max(0.0, until - now))
        else:
            for key, _ in self._selector.select(max(0.0, until - now)):
                lingering: _LingeringSocket | None = key.data
                if lingering is not None and (
                    self._is_done(lingering) or not self._update_events(lingering, key.events)
                ):
                    over.append(lingering)
        now = time.monotonic()
        if now >= self._next_poll:
            over += [lingering for lingering in self._polled if self._is_done(lingering)]
            self._poll_pause = max(_POLL_INTERVAL, _POLL_SHARE * (time.monotonic() - now))
            self._next_poll = time.monotonic() + self._poll_pause
        over += self._expired()
        return over

    def _is_done(self, lingering: _LingeringSocket) -> bool:
        try:
            return lingering.is_done(self._discard_buffer)
        except Exception:  # noqa: BLE001 -- one connection's trouble (no memory, say) ends that connection
            return True

    def _update_events(self, lingering: _LingeringSocket, events: int) -> bool:
        """Wait no longer for room to write than there is something to write; False if that cannot be had."""
        assert self._selector is not None
        try:
            if lingering.events != events:
                self._selector.modify(lingering.sock, lingering.events, lingering)
        except (OSError, ValueError, KeyError):
            return False
        return True

    def _expired(self) -> Iterable[_LingeringSocket]:
        """Those whose time is up."""
        now = time.monotonic()
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            expired.append(heapq.heappop(self._deadlines)[2])
        if len(self._deadlines) > 2 * len(self.sockets) + 1000:
            # Those that were over long before their deadline: a thread that is never idle would collect them for ever.
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self.sockets]
            heapq.heapify(self._deadlines)
        return [lingering for lingering in expired if lingering in self.sockets]

    def end(self) -> None:
        """Close the descriptors of its own. The waker is closed with the last that still rings it."""
        self.drop_selector()

    def drop(self) -> None:
        """In a forked child: close the copies of its descriptors. Nothing is taken out of the parent's ``epoll``."""
        selector, waker = self._selector, self._waker
        with contextlib.suppress(OSError):  # the parent was closing them when it forked
            if selector is not None:
                selector.close()
            if waker is not None:
                waker.close()


class _LingerThread:
    """The sockets that linger, and the thread that sees to it."""

    def __init__(self) -> None:
        self._reset()
        self._exit = background.ExitHook(self.wait_at_exit)

    def _reset(self) -> None:
        # All that were handed over and are not closed yet: what a forked child has copies of.
        self._all: dict[_LingeringSocket, None] = {}
        self._queue: deque[_LingeringSocket] = deque()
        self._active: dict[str, _Poller] = {}
        self._start_deadline = 0.0  # until when a thread is believed to be on its way
        # Seconds that callers may still be held up where no thread can be had. Each takes half of it at max_lingering.
        self._inline_budget = 2 * DEFAULT_LINGER

    def has(self, lingering: _LingeringSocket) -> bool:
        """Whether a socket was taken over, and is not closed yet."""
        return lingering in self._all

    def add(self, lingering: _LingeringSocket) -> None:
        """Take a socket over; it is closed when its peer is done or its time is up."""
        if self._exit.over or not background.can_run_threads():
            # No thread would get to it, or nothing would wait for the thread.
            self._linger_inline([lingering], DEFAULT_LINGER)
            return
        self._exit.arm()
        if len(self._queue) >= _MAX_SOCKETS:  # the thread does not add_socket up, as if it could not run
            close_quietly(lingering.sock)
            return
        self._all[lingering] = None
        self.enqueue(lingering)

    def enqueue(self, lingering: _LingeringSocket) -> None:
        """Give one to the thread. Twice is fine: an exception of a signal handler may have cost any of the steps."""
        self._queue.append(lingering)
        poller = self._active.get(_ACTIVE)
        if poller is not None:
            poller.wake()
        elif time.monotonic() >= self._start_deadline:
            self._start()

    def _start(self) -> None:
        try:
            self._start_deadline = time.monotonic() + _START_TIMEOUT
            background.start("wireline-linger", self._run)
        except Exception:  # noqa: BLE001 -- whatever the reason is, there is no thread
            self._start_deadline = 0.0
            self._on_no_thread()
        except BaseException:  # of a signal handler: nothing tells whether the thread was started
            self._start_deadline = 0.0  # one too many ends by itself
            raise

    def _on_no_thread(self) -> None:
        """There is no thread to be had."""
        if background.is_ending() and background.is_main_thread():
            return  # The exit hook is next, and finds all in the queue: one wait for all of them.
        self._linger_inline(self._take_queued(), DEFAULT_LINGER)

    def _take_queued(self) -> list[_LingeringSocket]:
        """Take what is in the queue: it is the caller's from now on."""
        queued = []
        with contextlib.suppress(IndexError):  # empty
            while True:
                queued.append(self._queue.popleft())
        return queued

    # In the thread.

    def _run(self) -> None:
        poller = _Poller()
        self._start_deadline = 0.0
        if self._active.setdefault(_ACTIVE, poller) is not poller:
            return
        self._inline_budget = 2 * DEFAULT_LINGER
        try:
            poller.open()
            failures = 0
            while failures <= _MAX_FAILURES:
                try:
                    if not self._run_once(poller):
                        return
                    failures = 0
                except Exception:
                    # Not of one connection: the selector has failed, say, or there is no memory. Doing without a
                    # selector cures the one; if it lasts the thread ends, and the next close starts another.
                    poller.drop_selector()
                    failures += 1
                    if failures > _MAX_FAILURES:
                        raise
        finally:
            if self._active.get(_ACTIVE) is poller:  # it has failed
                del self._active[_ACTIVE]
                for lingering in (*poller.sockets, *self._take_queued()):
                    poller.close(lingering)
                    self._all.pop(lingering, None)
            poller.end()

    def _run_once(self, poller: _Poller) -> bool:
        """Go round once; False, and the thread ends, when there is nothing left to poller."""
        self._register_new(poller)
        was_idle = not poller.sockets
        for lingering in poller.poll(_IDLE_TIMEOUT if was_idle else _MAX_WAIT):
            poller.close(lingering)
            self._all.pop(lingering, None)
        if not was_idle or self._queue:
            return True
        del self._active[_ACTIVE]
        # A caller that hands over from here on starts another thread. One that has done so before is seen here.
        return bool(self._queue) and self._active.setdefault(_ACTIVE, poller) is poller

    def _register_new(self, poller: _Poller) -> None:
        poller.rest()
        for lingering in self._take_queued():
            if lingering not in poller.sockets:
                poller.add_socket(lingering)
        while len(poller.sockets) > poller.max_lingering:
            lingering = next(iter(poller.sockets))  # the one that has had the max_lingering time
            poller.close(lingering)
            self._all.pop(lingering, None)

    # Without the thread.

    def _linger_inline(self, socks: Sequence[_LingeringSocket], seconds: float) -> None:
        """Wait in the calling thread until what was sent has queued; a bounded time for all calls together."""
        begun = time.monotonic()
        limit = begun + min(seconds, self._inline_budget / 2)
        discard_buffer = bytearray(64 * 1024)
        pause = _FIRST_POLL_INTERVAL
        left = list(socks)
        try:
            while True:
                now = time.monotonic()
                left = [
                    lingering
                    for lingering in left
                    if not (
                        lingering.is_done(discard_buffer)
                        or lingering.is_quiet(now)
                        or lingering.deadline.passed(now)
                    )
                ]
                if not left or now >= limit:
                    return
                time.sleep(max(0.0, min(pause, limit - now)))
                pause = min(2 * pause, max(_POLL_INTERVAL, _POLL_SHARE * (time.monotonic() - now - pause)))
        finally:
            self._inline_budget -= time.monotonic() - begun
            for lingering in socks:
                self._all.pop(lingering, None)
                with contextlib.suppress(OSError):  # the descriptor is gone, whatever its last error was
                    close_quietly(lingering.sock)

    def wait_at_exit(self) -> None:
        """Give what is not on the wire yet a last chance, ``DEFAULT_LINGER`` seconds at max_lingering."""
        limit = time.monotonic() + DEFAULT_LINGER
        pause = _FIRST_POLL_INTERVAL
        while (now := time.monotonic()) < limit:
            if _ACTIVE not in self._active and now >= self._start_deadline:
                self._linger_inline(self._take_queued(), limit - now)
                return
            if all(lingering.is_quiet(now) for lingering in list(self._all)):
                return
            time.sleep(min(pause, limit - now))
            pause = min(2 * pause, _POLL_INTERVAL)

    def reset_after_fork(self) -> None:
        """In a forked child: the parent lingers; only the copies of its descriptors are closed here."""
        socks, pollers = list(self._all), list(self._active.values())
        self._reset()
        for poller in pollers:
            poller.drop()
        for lingering in socks:
            with contextlib.suppress(OSError):  # closed by the parent in this moment
                close_quietly(lingering.sock)


def _max_sockets() -> int:
    """How many sockets may linger at one time in this process."""
    if sys.platform == "win32":
        return _MAX_SOCKETS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAX_SOCKETS if limit == resource.RLIM_INFINITY else min(_MAX_SOCKETS, max(1, limit // 2))


def _has_unacked(sock: socket.socket) -> bool:
    """Whether the kernel still holds bytes that the peer has not acknowledged (not known on Windows: no)."""
    if sys.platform == "win32":
        return False
    try:
        unsent = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except (OSError, ValueError):
        return False
    return bool(struct.unpack("i", unsent)[0])


_linger_thread = _LingerThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_linger_thread.reset_after_fork)
