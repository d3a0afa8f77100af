"""How a descriptor is closed, so that closing never eats what was sent before.

Linux answers with a reset, and throws away what it has not sent yet, when a descriptor is closed while unread input
sits in the kernel, or when input arrives after the close. A peer that pipelines, or a TLS 1.3 client that never
reads its session tickets, therefore loses the end of the last reply (200,000 bytes became 81,920).

The cure is the lingering close of HTTP servers, here below HTTP: stop sending, go on reading and dropping until the
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
from wireline._os import background as _background
from wireline._os.close import close_quietly
from wireline.options import NO_SIGNAL

if sys.platform != "win32":
    import fcntl
    import resource
    import termios

__all__ = ["DEFAULT_LINGER", "dispose"]

DEFAULT_LINGER = 2.0
"""Seconds that a lingering close may take unless told otherwise; also the most that interpreter exit waits.

nginx's ``lingering_timeout`` is 5 s, Apache's is 2 s; a library, which is a guest in its process, takes the shorter.
"""

# The most sockets that linger at one time, unless half of the descriptors that the process may have are fewer: each
# holds one that a new connection may need. The number itself bounds the memory, at about 1 kB a socket to 16 MB.
_MOST = 16_384

# Seconds that the thread stays when there is nothing left to do, so that a loop which closes sockets one after the
# other does not start a thread for each. A guess: long beside a close (20 us), too short to be noticed.
_IDLE = 0.005

# Seconds of silence after which a peer that has got everything is taken for one that has no more to say, when no more
# than that can be waited for. A reset does not take away what its kernel has, but many programs read no further once a
# write of theirs has failed. A guess: a peer that answers while it reads does not pause for that long.
_SILENCE = 0.1

# Seconds in which a thread that was started is believed to be on its way. After that another one is started.
_BELIEF = 1.0

# Seconds between two looks at a socket that no event tells about: one that is deaf, or could not be polled. A guess.
_LOOK = 0.01
_FIRST_LOOK = 0.0005  # of a thread that has nothing else to do than to wait for it
_SHARE = 10  # looks may take one part of this many of the thread's time

# The most that is read from such a socket in between: others wait for the thread, too. A guess.
_READS_A_LOOK = 16

# Seconds. Nothing is known to need it: it bounds the harm if an exception of a signal handler has cost a wake-up.
_LONGEST_WAIT = 1.0

# Turns of the thread that may fail one after the other, before it closes what it has and ends.
_FAILURES = 3

_DONT_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)

# The key under which the thread that serves the queue is entered.
_SERVING = "serving"


def dispose(
    sock: socket.socket, linger: float | None = None, farewell: bytes = b"", *, deaf: bool = False
) -> None:
    """Close ``sock`` without waiting; only where no thread can run any more it may take ``DEFAULT_LINGER`` seconds.

    Args:
        sock: the descriptor's owner; it is not used elsewhere any more.
        linger: None is the operating system's plain close; 0 an abortive one (reset, unsent data is dropped); else
            the seconds in which the peer may finish before the descriptor is closed in any case.
        farewell: the last bytes to send, if ``linger`` leaves time for it.
        deaf: it was shut down for reading, to wake a thread that waited for something to read.
    """
    if linger is None:
        close_quietly(sock)
    elif linger == 0:
        with contextlib.suppress(OSError):  # gone already: then there is nothing to abort
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        close_quietly(sock)
    else:
        leaving = _Leaving(sock, farewell, Deadline(linger, time.monotonic()), deaf=deaf)
        try:
            if leaving.stop_sending():
                _lingerer.add(leaving)
            else:
                close_quietly(sock)
        except BaseException:  # of a signal handler, between any two of the steps
            if _lingerer.has(leaving):
                _lingerer.hand_over(leaving)
            else:
                close_quietly(sock)
            raise


class _Leaving:
    """A socket that has something to say yet, and then listens until its peer is done.

    A deaf one cannot hear when that is. It waits until the peer has got everything, and only then ends sending: Linux
    resets a connection at which data arrives once both directions are shut down.
    """

    __slots__ = ("_ended", "_farewell", "_heard", "deadline", "deaf", "sock")

    def __init__(
        self, sock: socket.socket, farewell: bytes, deadline: Deadline, *, deaf: bool = False
    ) -> None:
        self.sock = sock
        self.deadline = deadline
        self.deaf = deaf
        self._farewell = farewell
        self._ended = False
        self._heard = 0.0  # when the peer has last said something

    @property
    def events(self) -> int:
        """What to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._farewell else 0)

    def stop_sending(self) -> bool:
        """Send what is left and then FIN, as far as there is room; False if the connection is gone."""
        if self._ended:
            return True
        try:
            if self.sock.gettimeout() != 0:
                self.sock.setblocking(False)
            while self._farewell:
                # A duplicate of the descriptor may have made it blocking again.
                self._farewell = self._farewell[self.sock.send(self._farewell, NO_SIGNAL | _DONT_WAIT) :]
            if not self.deaf:
                self.sock.shutdown(socket.SHUT_WR)
                self._ended = True
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def is_over(self, scrap: bytearray) -> bool:
        """Do what can be done now; True when the peer is done, or has got everything, or is gone."""
        if not self.stop_sending():
            return True
        try:
            for _ in range(_READS_A_LOOK):
                if not self.sock.recv_into(scrap, 0, _DONT_WAIT):
                    return not self.deaf or not self.owes
                self._heard = time.monotonic()
        except BlockingIOError:
            return self.deaf and not self.owes
        except OSError:
            return True
        return False

    @property
    def owes(self) -> bool:
        """Whether the peer has not got everything yet."""
        return bool(self._farewell) or _has_unsent(self.sock)

    def is_settled(self, now: float) -> bool:
        """Whether it may be closed if it must, and the peer will have got everything."""
        return not self.owes and now - self._heard > _SILENCE


class _Bell:
    """Wakes a thread that polls. Its descriptors are closed with the last reference, not under a ringer's hands."""

    __slots__ = ("_ear", "_rung", "_string")

    def __init__(self) -> None:
        self._rung = False
        self._ear, self._string = socket.socketpair()
        self._ear.setblocking(False)
        self._string.setblocking(False)

    def ring(self) -> None:
        """Wake the thread. It is a system call once between two looks of the thread, and does not wait."""
        if self._rung:
            return
        try:
            self._rung = True
            self._string.send(b"\0")
        except OSError:
            # Full, then it is rung; or out of order, then the thread finds out by itself, and looks without it.
            return
        except BaseException:  # of a signal handler: the next one rings
            self._rung = False
            raise

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._ear.fileno()

    def rest(self) -> None:
        """Be silent again. The thread looks after this, not before, for sockets that were handed over."""
        if self._rung:
            with contextlib.suppress(BlockingIOError):  # `ring` has not got as far as sending
                self._ear.recv(4096)
            self._rung = False

    def close(self) -> None:
        """Close the descriptors at once: in a forked child, where nothing can ring it."""
        close_quietly(self._ear)
        close_quietly(self._string)

    def __del__(self) -> None:
        # `__init__` may have failed.
        for name in ("_ear", "_string"):
            end = getattr(self, name, None)
            if end is not None:
                close_quietly(end)


class _Watch:
    """The sockets that the thread watches. Only the thread itself uses it, but for ``wake``."""

    def __init__(self) -> None:
        self.kept: dict[_Leaving, None] = {}  # in the order in which they were handed over
        self.most = _bound()
        self._looked_at: dict[_Leaving, None] = {}
        self._deadlines: list[tuple[float, int, _Leaving]] = []
        self._numbers = itertools.count()
        self._scrap = bytearray(64 * 1024)
        self._pause = _LOOK
        self._next_look = 0.0
        self._bell: _Bell | None = None
        self._selector: selectors.BaseSelector | None = None

    def open(self) -> None:
        """Get what waiting needs. Without it, for want of descriptors, the sockets are looked at now and then."""
        try:
            self._selector = selectors.DefaultSelector()
            bell = _Bell()
            self._selector.register(bell, selectors.EVENT_READ)
            self._bell = bell
        except Exception:  # noqa: BLE001 -- out of descriptors or memory: it goes on with what there is
            self.go_blind()

    def wake(self) -> None:
        """From any thread: something was handed over."""
        bell = self._bell
        if bell is not None:  # else it is not there yet, and the thread looks into the queue later than that
            bell.ring()

    def rest(self) -> None:
        """Let ``wake`` ring again."""
        if self._bell is not None:
            self._bell.rest()

    def go_blind(self) -> None:
        """Waiting has failed: look at the sockets now and then instead."""
        selector, self._selector, self._bell = self._selector, None, None
        self._looked_at = dict.fromkeys(self.kept)
        # The turn that failed may have had some of these in its hands.
        self._deadlines = [(leaving.deadline.at, next(self._numbers), leaving) for leaving in self.kept]
        heapq.heapify(self._deadlines)
        if selector is not None:
            with contextlib.suppress(OSError):  # it may be what has failed
                selector.close()

    def keep(self, leaving: _Leaving) -> None:
        """Watch one more."""
        self.kept[leaving] = None
        heapq.heappush(self._deadlines, (leaving.deadline.at, next(self._numbers), leaving))
        if self._selector is None or leaving.deaf:
            self._looked_at[leaving] = None
            return
        try:
            self._selector.register(leaving.sock, leaving.events, leaving)
        except (OSError, ValueError, KeyError):
            # No room for it in the kernel (ENOSPC, ENOMEM), or it is closed: whichever, a look tells.
            self._looked_at[leaving] = None

    def close(self, leaving: _Leaving) -> None:
        """Watch one no more, and close it."""
        self.kept.pop(leaving, None)
        looked_at = self._looked_at.pop(leaving, self) is None
        if self._selector is not None and not looked_at:
            with contextlib.suppress(OSError, ValueError, KeyError):  # not there: what was wanted
                self._selector.unregister(leaving.sock)
        with contextlib.suppress(OSError):  # the descriptor is gone, whatever its last error was
            close_quietly(leaving.sock)

    def turn(self, seconds: float) -> list[_Leaving]:
        """Wait for ``seconds`` at most and do what can be done; return those that are over."""
        over: list[_Leaving] = []
        now = time.monotonic()
        until = min(now + seconds, now + _LONGEST_WAIT)
        if self._deadlines:
            until = min(until, self._deadlines[0][0])
        if self._looked_at or self._selector is None:
            until = min(until, max(self._next_look, now))
        if self._selector is None:
            time.sleep(max(0.0, until - now))
        else:
            for key, _ in self._selector.select(max(0.0, until - now)):
                leaving: _Leaving | None = key.data
                if leaving is not None and (
                    self._is_over(leaving) or not self._is_watched(leaving, key.events)
                ):
                    over.append(leaving)
        now = time.monotonic()
        if now >= self._next_look:
            over += [leaving for leaving in self._looked_at if self._is_over(leaving)]
            self._pause = max(_LOOK, _SHARE * (time.monotonic() - now))
            self._next_look = time.monotonic() + self._pause
        over += self._late()
        return over

    def _is_over(self, leaving: _Leaving) -> bool:
        try:
            return leaving.is_over(self._scrap)
        except Exception:  # noqa: BLE001 -- one connection's trouble (no memory, say) ends that connection
            return True

    def _is_watched(self, leaving: _Leaving, events: int) -> bool:
        """Wait no longer for room to write than there is something to write; False if that cannot be had."""
        assert self._selector is not None
        try:
            if leaving.events != events:
                self._selector.modify(leaving.sock, leaving.events, leaving)
        except (OSError, ValueError, KeyError):
            return False
        return True

    def _late(self) -> Iterable[_Leaving]:
        """Those whose time is up."""
        now = time.monotonic()
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            late.append(heapq.heappop(self._deadlines)[2])
        if len(self._deadlines) > 2 * len(self.kept) + 1000:
            # Those that were over long before their deadline: a thread that is never idle would collect them for ever.
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self.kept]
            heapq.heapify(self._deadlines)
        return [leaving for leaving in late if leaving in self.kept]

    def end(self) -> None:
        """Close the descriptors of its own. The bell is closed with the last that still rings it."""
        self.go_blind()

    def drop(self) -> None:
        """In a forked child: close the copies of its descriptors. Nothing is taken out of the parent's ``epoll``."""
        selector, bell = self._selector, self._bell
        with contextlib.suppress(OSError):  # the parent was closing them when it forked
            if selector is not None:
                selector.close()
            if bell is not None:
                bell.close()


class _Lingerer:
    """The sockets that linger, and the thread that sees to it."""

    def __init__(self) -> None:
        self._begin()
        self._exit = _background.ExitHook(self.wait_at_exit)

    def _begin(self) -> None:
        # All that were handed over and are not closed yet: what a forked child has copies of.
        self._all: dict[_Leaving, None] = {}
        self._arrivals: deque[_Leaving] = deque()
        self._serving: dict[str, _Watch] = {}
        self._starting = 0.0  # until when a thread is believed to be on its way
        # Seconds that callers may still be held up where no thread can be had. Each takes half of it at most.
        self._patience = 2 * DEFAULT_LINGER

    def has(self, leaving: _Leaving) -> bool:
        """Whether a socket was taken over, and is not closed yet."""
        return leaving in self._all

    def add(self, leaving: _Leaving) -> None:
        """Take a socket over; it is closed when its peer is done or its time is up."""
        if self._exit.over or not _background.can_run_threads():
            # No thread would get to it, or nothing would wait for the thread.
            self._linger_here([leaving], DEFAULT_LINGER)
            return
        self._exit.arm()
        if len(self._arrivals) >= _MOST:  # the thread does not keep up, as if it could not run
            close_quietly(leaving.sock)
            return
        self._all[leaving] = None
        self.hand_over(leaving)

    def hand_over(self, leaving: _Leaving) -> None:
        """Give one to the thread. Twice is fine: an exception of a signal handler may have cost any of the steps."""
        self._arrivals.append(leaving)
        watch = self._serving.get(_SERVING)
        if watch is not None:
            watch.wake()
        elif time.monotonic() >= self._starting:
            self._start()

    def _start(self) -> None:
        try:
            self._starting = time.monotonic() + _BELIEF
            _background.start("wireline-linger", self._run)
        except Exception:  # noqa: BLE001 -- whatever the reason is, there is no thread
            self._starting = 0.0
            self._do_without()
        except BaseException:  # of a signal handler: nothing tells whether the thread was started
            self._starting = 0.0  # one too many ends by itself
            raise

    def _do_without(self) -> None:
        """There is no thread to be had."""
        if _background.is_ending() and _background.is_main_thread():
            return  # The exit hook is next, and finds all in the queue: one wait for all of them.
        self._linger_here(self._arrived(), DEFAULT_LINGER)

    def _arrived(self) -> list[_Leaving]:
        """Take what is in the queue: it is the caller's from now on."""
        arrived = []
        with contextlib.suppress(IndexError):  # empty
            while True:
                arrived.append(self._arrivals.popleft())
        return arrived

    # In the thread.

    def _run(self) -> None:
        watch = _Watch()
        self._starting = 0.0
        if self._serving.setdefault(_SERVING, watch) is not watch:
            return
        self._patience = 2 * DEFAULT_LINGER
        try:
            watch.open()
            failures = 0
            while failures <= _FAILURES:
                try:
                    if not self._turn(watch):
                        return
                    failures = 0
                except Exception:
                    # Not of one connection: the selector has failed, say, or there is no memory. Doing without a
                    # selector cures the one; if it lasts the thread ends, and the next close starts another.
                    watch.go_blind()
                    failures += 1
                    if failures > _FAILURES:
                        raise
        finally:
            if self._serving.get(_SERVING) is watch:  # it has failed
                del self._serving[_SERVING]
                for leaving in (*watch.kept, *self._arrived()):
                    watch.close(leaving)
                    self._all.pop(leaving, None)
            watch.end()

    def _turn(self, watch: _Watch) -> bool:
        """Go round once; False, and the thread ends, when there is nothing left to watch."""
        self._welcome(watch)
        was_idle = not watch.kept
        for leaving in watch.turn(_IDLE if was_idle else _LONGEST_WAIT):
            watch.close(leaving)
            self._all.pop(leaving, None)
        if not was_idle or self._arrivals:
            return True
        del self._serving[_SERVING]
        # A caller that hands over from here on starts another thread. One that has done so before is seen here.
        return bool(self._arrivals) and self._serving.setdefault(_SERVING, watch) is watch

    def _welcome(self, watch: _Watch) -> None:
        watch.rest()
        for leaving in self._arrived():
            if leaving not in watch.kept:
                watch.keep(leaving)
        while len(watch.kept) > watch.most:
            leaving = next(iter(watch.kept))  # the one that has had the most time
            watch.close(leaving)
            self._all.pop(leaving, None)

    # Without the thread.

    def _linger_here(self, leavings: Sequence[_Leaving], seconds: float) -> None:
        """Wait in the calling thread until what was sent has arrived; a bounded time for all calls together."""
        begun = time.monotonic()
        limit = begun + min(seconds, self._patience / 2)
        scrap = bytearray(64 * 1024)
        pause = _FIRST_LOOK
        left = list(leavings)
        try:
            while True:
                now = time.monotonic()
                left = [
                    leaving
                    for leaving in left
                    if not (leaving.is_over(scrap) or leaving.is_settled(now) or leaving.deadline.passed(now))
                ]
                if not left or now >= limit:
                    return
                time.sleep(max(0.0, min(pause, limit - now)))
                pause = min(2 * pause, max(_LOOK, _SHARE * (time.monotonic() - now - pause)))
        finally:
            self._patience -= time.monotonic() - begun
            for leaving in leavings:
                self._all.pop(leaving, None)
                with contextlib.suppress(OSError):  # the descriptor is gone, whatever its last error was
                    close_quietly(leaving.sock)

    def wait_at_exit(self) -> None:
        """Give what is not on the wire yet a last chance, ``DEFAULT_LINGER`` seconds at most."""
        limit = time.monotonic() + DEFAULT_LINGER
        pause = _FIRST_LOOK
        while (now := time.monotonic()) < limit:
            if _SERVING not in self._serving and now >= self._starting:
                self._linger_here(self._arrived(), limit - now)
                return
            if all(leaving.is_settled(now) for leaving in list(self._all)):
                return
            time.sleep(min(pause, limit - now))
            pause = min(2 * pause, _LOOK)

    def forget(self) -> None:
        """In a forked child: the parent lingers; only the copies of its descriptors are closed here."""
        leavings, watches = list(self._all), list(self._serving.values())
        self._begin()
        for watch in watches:
            watch.drop()
        for leaving in leavings:
            with contextlib.suppress(OSError):  # closed by the parent in this moment
                close_quietly(leaving.sock)


def _bound() -> int:
    """How many sockets may linger at one time in this process."""
    if sys.platform == "win32":
        return _MOST
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if limit == resource.RLIM_INFINITY else min(_MOST, max(1, limit // 2))


def _has_unsent(sock: socket.socket) -> bool:
    """Whether the kernel still holds bytes that the peer has not acknowledged (not known on Windows: no)."""
    if sys.platform == "win32":
        return False
    try:
        unsent = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except (OSError, ValueError):
        return False
    return bool(struct.unpack("i", unsent)[0])


_lingerer = _Lingerer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lingerer.forget)
