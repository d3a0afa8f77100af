"""Closing a descriptor without losing what was sent before.

Linux answers with a reset and drops unsent data when a descriptor is closed while unread input is in the kernel, or
when input arrives after the close. A peer that pipelines, or a TLS 1.3 client that never reads its session tickets,
then loses the end of the last reply (measured: 81,920 of 200,000 bytes arrived).

The remedy is the lingering close of HTTP servers: stop sending, read and discard until the peer is done or the time
is up, then close. One daemon thread does this for the whole process and both flavours, so that no caller waits
(docs/decisions/0007 says why not the event loop). The thread exists only while a socket lingers.

Sockets reach the thread through a queue, by ``deque.append``, from any thread, finalizer or signal handler. No lock is
involved. ``dict.setdefault`` decides which thread serves the queue; a second thread finds the key taken and ends. The
thread removes the key before it looks into the queue for the last time, and a caller looks for the key after its
append, so at least one of the two sees the other.

If no thread can run, at the end of the interpreter or at a limit of the system, the calling thread lingers itself:
until the peer's kernel has acknowledged everything, and for a bounded time. Sockets that the main thread closes before
this module's exit hook are left for that hook and share one wait.
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
from collections.abc import Callable, Iterable, Sequence

from wireline._core.deadline import CallDeadline
from wireline._os import background
from wireline._os.close import close_quietly
from wireline.options import DONT_WAIT, NO_SIGNAL

if sys.platform != "win32":
    import fcntl
    import resource
    import termios

__all__ = ["DEFAULT_LINGER", "close_in_background", "when_closed"]

DEFAULT_LINGER = 2.0
"""Seconds that a lingering close may take by default, and the most that the end of the interpreter waits.

nginx's ``lingering_timeout`` is 5 s, Apache's is 2 s; a library takes the shorter.
"""

# The most sockets that linger at one time, unless half of the process's limit of descriptors is less: each socket holds
# a descriptor that a new connection may need. This number bounds the memory to 16 MB, at about 1 kB a socket.
_MAX_SOCKETS = 16_384

# Seconds that the thread waits for more work before it ends, so that a loop which closes one socket after the other
# does not start a thread for each. A guess: long beside a close (20 us), too short to be noticed.
_IDLE_TIMEOUT = 0.005

# Seconds of silence, with everything acknowledged, after which we close if we cannot wait longer. A reset does not
# remove data from the peer's kernel, but many programs stop reading when a write fails. A guess: a peer that answers
# while it reads does not pause for that long.
_QUIET_TIME = 0.1

# Seconds that a started thread has to begin to run. After that another one is started. A guess.
_START_TIMEOUT = 1.0

# Seconds between two polls of a socket that is not in the selector: after SHUT_RD, or if it could not be registered.
# A guess.
_POLL_INTERVAL = 0.01
# Seconds; the first interval of a thread that only waits for these sockets. A guess.
_FIRST_POLL_INTERVAL = 0.0005
# Polls may take one part in this many of the thread's time. A guess.
_POLL_SHARE = 10

# The most reads of one socket before the next socket's turn. A guess.
_MAX_READS_PER_POLL = 16

# Seconds. Not needed by any known case: it bounds the harm if an exception of a signal handler has cost a wake-up.
_MAX_WAIT = 1.0

# Failed rounds in a row after which the thread closes all its sockets and ends. A guess.
_MAX_FAILURES = 3

# The key of the thread that serves the queue.
_ACTIVE = "active"


def close_in_background(
    sock: socket.socket, linger: float | None = None, final_bytes: bytes = b"", *, read_shutdown: bool = False
) -> None:
    """Close a socket without waiting. If no thread can run, it may take up to ``DEFAULT_LINGER`` seconds.

    Args:
        sock: owns the descriptor; the caller must not use it any more.
        linger: None closes at once, as close(2) does; 0 resets the connection and drops unsent data; otherwise the
            seconds that the peer has before the descriptor is closed.
        final_bytes: sent before the end of the stream, if ``linger`` is neither None nor 0.
        read_shutdown: SHUT_RD was called on the socket, to wake a thread that was reading.
    """
    if linger is None:
        close_quietly(sock)
    elif linger == 0:
        with contextlib.suppress(OSError):  # not connected any more: nothing to reset
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        close_quietly(sock)
    else:
        lingering = _LingeringSocket(
            sock, final_bytes, CallDeadline(linger, time.monotonic()), read_shutdown=read_shutdown
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


def when_closed(fd: int, callback: Callable[[], object]) -> bool:
    """Call back when a socket that lingers is closed, in whichever thread closes it.

    Args:
        fd: its descriptor.
        callback: must not raise or wait.

    Returns:
        False if no socket with this descriptor lingers: it will not be called.
    """
    lingering = _linger_thread.by_fd.get(fd)
    if lingering is None:
        return False
    lingering.on_closed.append(callback)
    if _linger_thread.by_fd.get(fd) is lingering:
        return True
    try:
        lingering.on_closed.pop()
    except IndexError:  # the thread that has closed it calls back
        return True
    return False


class _LingeringSocket:
    """A socket that sends its final bytes, and then reads until its peer is done.

    After SHUT_RD the peer's FIN cannot be seen. So we poll SIOCOUTQ until everything is acknowledged, and only then
    send our FIN: Linux resets a connection at which data arrives once both directions are shut down.
    """

    __slots__ = (
        "_fin_sent",
        "_final_bytes",
        "_last_heard",
        "deadline",
        "fd",
        "on_closed",
        "read_shutdown",
        "sock",
    )

    def __init__(
        self, sock: socket.socket, final_bytes: bytes, deadline: CallDeadline, *, read_shutdown: bool = False
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.on_closed: list[Callable[[], object]] = []
        self.deadline = deadline
        self.read_shutdown = read_shutdown
        self._final_bytes = final_bytes
        self._fin_sent = False
        self._last_heard = 0.0  # monotonic seconds of the peer's last data

    @property
    def events(self) -> int:
        """The events to wait for, as ``selectors`` defines them."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._final_bytes else 0)

    @property
    def has_unacked(self) -> bool:
        """Whether the peer's kernel has not acknowledged everything yet."""
        return bool(self._final_bytes) or _has_unacked(self.sock)

    def finish_sending(self) -> bool:
        """Send the final bytes and FIN, as far as the send buffer allows; False if the connection is gone."""
        if self._fin_sent:
            return True
        try:
            if self.sock.gettimeout() != 0:
                self.sock.setblocking(False)
            while self._final_bytes:
                # DONT_WAIT: a duplicate of the descriptor may have made it blocking again.
                sent = self.sock.send(self._final_bytes, NO_SIGNAL | DONT_WAIT)
                self._final_bytes = self._final_bytes[sent:]
            if not self.read_shutdown:
                self.sock.shutdown(socket.SHUT_WR)
                self._fin_sent = True
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def is_done(self, discard_buffer: bytearray) -> bool:
        """Send and read without waiting; True if the peer is done or gone, or after SHUT_RD has acknowledged all."""
        if not self.finish_sending():
            return True
        try:
            for _ in range(_MAX_READS_PER_POLL):
                if not self.sock.recv_into(discard_buffer, 0, DONT_WAIT):
                    return not self.read_shutdown or not self.has_unacked
                self._last_heard = time.monotonic()
        except BlockingIOError:
            return self.read_shutdown and not self.has_unacked
        except OSError:
            return True
        return False

    def is_quiet(self, now: float) -> bool:
        """Whether everything is acknowledged and the peer has been silent: closing now loses nothing."""
        return not self.has_unacked and now - self._last_heard > _QUIET_TIME


class _Waker:
    """Wakes a thread that waits in a selector. The last reference closes the descriptors: ``wake`` is always safe."""

    __slots__ = ("_receiver", "_sender", "_woken")

    def __init__(self) -> None:
        self._woken = False
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def wake(self) -> None:
        """Wake the thread, from anywhere, without waiting. A second call before ``clear`` makes no system call."""
        if self._woken:
            return
        try:
            self._woken = True
            self._sender.send(b"\0")
        except OSError:
            # A full buffer is a wake-up already. After any other error the selector reports the descriptor, fails, and
            # the thread goes on without it.
            return
        except BaseException:  # of a signal handler: let the next call try again
            self._woken = False
            raise

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._receiver.fileno()

    def clear(self) -> None:
        """Take the wake-up. The thread looks into the queue after this, not before."""
        if self._woken:
            with contextlib.suppress(BlockingIOError):  # `wake` has not sent its byte yet
                self._receiver.recv(4096)
            self._woken = False

    def close(self) -> None:
        """Close the descriptors at once: for a forked child, in which no other thread uses them."""
        close_quietly(self._receiver)
        close_quietly(self._sender)

    def __del__(self) -> None:
        # `__init__` may have failed before it set them.
        for name in ("_receiver", "_sender"):
            end = getattr(self, name, None)
            if end is not None:
                close_quietly(end)


class _Poller:
    """The sockets of the thread, and how it waits for them. Only the thread uses it, except for ``wake``.

    Attributes:
        sockets: in the order in which they were added.
        max_sockets: the most that may linger at one time.
    """

    def __init__(self) -> None:
        self.sockets: dict[_LingeringSocket, None] = {}
        self.max_sockets = _max_sockets()
        self._polled: dict[_LingeringSocket, None] = {}  # those that are not in the selector
        self._deadlines: list[tuple[float, int, _LingeringSocket]] = []
        self._numbers = itertools.count()  # so that the heap never compares two sockets
        self._discard_buffer = bytearray(64 * 1024)
        self._next_poll = 0.0
        self._waker: _Waker | None = None
        self._selector: selectors.BaseSelector | None = None

    def open(self) -> None:
        """Make the selector and the waker. If there are no descriptors for them, all sockets are polled."""
        try:
            self._selector = selectors.DefaultSelector()
            waker = _Waker()
            self._selector.register(waker, selectors.EVENT_READ)
            self._waker = waker
        except Exception:  # noqa: BLE001 -- no descriptors, or no memory: polling needs neither
            self.drop_selector()

    def wake(self) -> None:
        """End the wait, from any thread. Without a waker yet, the thread looks into the queue later anyway."""
        waker = self._waker
        if waker is not None:
            waker.wake()

    def clear_wakeup(self) -> None:
        """Let ``wake`` work again."""
        if self._waker is not None:
            self._waker.clear()

    def drop_selector(self) -> None:
        """Close the selector, and poll all sockets from now on. The waker is closed with its last reference."""
        selector, self._selector, self._waker = self._selector, None, None
        self._polled = dict.fromkeys(self.sockets)
        # The round that failed may have taken entries out of the heap.
        self._deadlines = [
            (lingering.deadline.at, next(self._numbers), lingering) for lingering in self.sockets
        ]
        heapq.heapify(self._deadlines)
        if selector is not None:
            with contextlib.suppress(OSError):  # it may be the one that failed
                selector.close()

    def add(self, lingering: _LingeringSocket) -> None:
        """Begin to wait for a socket."""
        self.sockets[lingering] = None
        heapq.heappush(self._deadlines, (lingering.deadline.at, next(self._numbers), lingering))
        # After SHUT_RD a socket is always readable.
        if self._selector is None or lingering.read_shutdown:
            self._polled[lingering] = None
            return
        try:
            self._selector.register(lingering.sock, lingering.events, lingering)
        except (OSError, ValueError, KeyError):
            # ENOSPC or ENOMEM in the kernel, or the socket is closed: polling finds out which.
            self._polled[lingering] = None

    def remove(self, lingering: _LingeringSocket) -> None:
        """Stop waiting for a socket, and close it."""
        self.sockets.pop(lingering, None)
        was_polled = self._polled.pop(lingering, self) is None
        if self._selector is not None and not was_polled:
            with contextlib.suppress(OSError, ValueError, KeyError):  # not registered
                self._selector.unregister(lingering.sock)
        close_quietly(lingering.sock)

    def poll(self, timeout: float) -> list[_LingeringSocket]:
        """Wait for at most ``timeout`` seconds and go on with the sockets; return those to be removed."""
        done: list[_LingeringSocket] = []
        seconds = self._seconds_to_wait(timeout)
        if self._selector is None:
            time.sleep(seconds)
        else:
            for key, _ in self._selector.select(seconds):
                lingering: _LingeringSocket | None = key.data  # None: the waker
                if lingering is not None and (
                    self._is_done(lingering) or not self._update_events(lingering, key.events)
                ):
                    done.append(lingering)
        now = time.monotonic()
        if now >= self._next_poll:
            done += [lingering for lingering in self._polled if self._is_done(lingering)]
            finished = time.monotonic()
            self._next_poll = finished + max(_POLL_INTERVAL, _POLL_SHARE * (finished - now))
        done += self._expired()
        return done

    def _seconds_to_wait(self, timeout: float) -> float:
        now = time.monotonic()
        until = now + min(timeout, _MAX_WAIT)
        if self._deadlines:
            until = min(until, self._deadlines[0][0])
        if self._polled or self._selector is None:
            until = min(until, self._next_poll)
        return max(0.0, until - now)

    def _is_done(self, lingering: _LingeringSocket) -> bool:
        try:
            return lingering.is_done(self._discard_buffer)
        except Exception:  # noqa: BLE001 -- an error of one connection (no memory, say) ends that connection only
            return True

    def _update_events(self, lingering: _LingeringSocket, events: int) -> bool:
        """Stop waiting for writability once all is sent; False if the selector refuses."""
        assert self._selector is not None
        try:
            if lingering.events != events:
                self._selector.modify(lingering.sock, lingering.events, lingering)
        except (OSError, ValueError, KeyError):
            return False
        return True

    def _expired(self) -> Iterable[_LingeringSocket]:
        """The sockets whose deadline has passed."""
        now = time.monotonic()
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            expired.append(heapq.heappop(self._deadlines)[2])
        if len(self._deadlines) > 2 * len(self.sockets) + 1000:
            # Entries of sockets that were done long before their deadline: a thread that never ends would keep them
            # all.
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self.sockets]
            heapq.heapify(self._deadlines)
        return [lingering for lingering in expired if lingering in self.sockets]

    def close_after_fork(self) -> None:
        """Close the child's copies of the descriptors. The sockets stay registered in the parent's epoll."""
        selector, waker = self._selector, self._waker
        with contextlib.suppress(OSError):  # the parent was closing them when it forked
            if selector is not None:
                selector.close()
            if waker is not None:
                waker.close()


class _LingerThread:
    """The queue of lingering sockets, and the thread that serves it while there are any."""

    def __init__(self) -> None:
        self._reset()
        self._exit = background.ExitHook(self.wait_at_exit)

    def _reset(self) -> None:
        # Added and not closed yet: the sockets of which a forked child has copies.
        self._all: dict[_LingeringSocket, None] = {}
        self.by_fd: dict[int, _LingeringSocket] = {}  # likewise
        self._queue: deque[_LingeringSocket] = deque()
        self._active: dict[str, _Poller] = {}
        self._start_deadline = 0.0  # monotonic seconds until which a started thread has not failed to run
        # Seconds that callers may still be held up where no thread can run. Each call takes at most half of it.
        self._inline_budget = 2 * DEFAULT_LINGER

    def has(self, lingering: _LingeringSocket) -> bool:
        """Whether a socket was added and is not closed yet."""
        return lingering in self._all

    def add(self, lingering: _LingeringSocket) -> None:
        """Take ownership of a socket. It is closed when its peer is done or its deadline has passed."""
        if self._exit.over or not background.can_run_threads():
            # No thread would serve it, or the process would not wait for that thread.
            self._linger_inline([lingering], DEFAULT_LINGER)
            return
        self._exit.arm()
        if len(self._queue) >= _MAX_SOCKETS:  # the thread does not keep up: it may not get to run at all
            close_quietly(lingering.sock)
            return
        self._all[lingering] = None
        self.by_fd[lingering.fd] = lingering
        self.enqueue(lingering)

    def enqueue(self, lingering: _LingeringSocket) -> None:
        """Give a socket to the thread, once or twice: a signal handler's exception may have cut a first call short."""
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
        except (RuntimeError, MemoryError):  # no thread: the limit, or no memory for one
            self._start_deadline = 0.0
            self._serve_without_thread()
        except BaseException:  # of a signal handler: the thread may have been started or not
            self._start_deadline = 0.0  # a second thread ends by itself
            raise

    def _serve_without_thread(self) -> None:
        if background.is_ending() and background.is_main_thread():
            return  # the exit hook runs next, and waits once for the whole queue
        self._linger_inline(self._take_queued(), DEFAULT_LINGER)

    def _take_queued(self) -> list[_LingeringSocket]:
        """Empty the queue: its sockets belong to the caller from now on."""
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
                    # Not of one connection: the selector has failed, or there is no memory. Going on without a selector
                    # cures the first; if it goes on failing the thread ends, and the next close starts another.
                    poller.drop_selector()
                    failures += 1
                    if failures > _MAX_FAILURES:
                        raise
        finally:
            if self._active.get(_ACTIVE) is poller:  # it has failed
                del self._active[_ACTIVE]
                for lingering in (*poller.sockets, *self._take_queued()):
                    self._remove(poller, lingering)
            poller.drop_selector()

    def _run_once(self, poller: _Poller) -> bool:
        """Wait once and go on with the sockets; False, and the thread ends, when there are none left."""
        self._register_new(poller)
        was_idle = not poller.sockets
        for lingering in poller.poll(_IDLE_TIMEOUT if was_idle else _MAX_WAIT):
            self._remove(poller, lingering)
        if not was_idle or self._queue:
            return True
        del self._active[_ACTIVE]
        # A caller that enqueues from here on starts another thread. One that did so before is seen here.
        return bool(self._queue) and self._active.setdefault(_ACTIVE, poller) is poller

    def _register_new(self, poller: _Poller) -> None:
        poller.clear_wakeup()
        for lingering in self._take_queued():
            if lingering not in poller.sockets:
                poller.add(lingering)
        while len(poller.sockets) > poller.max_sockets:
            self._remove(poller, next(iter(poller.sockets)))  # the one that has had the most time

    def _remove(self, poller: _Poller, lingering: _LingeringSocket) -> None:
        self._forget(lingering)
        poller.remove(lingering)
        _call_back(lingering)

    def _forget(self, lingering: _LingeringSocket) -> None:
        # Before it is closed: the next socket may have the same number.
        self._all.pop(lingering, None)
        if self.by_fd.get(lingering.fd) is lingering:
            del self.by_fd[lingering.fd]

    # Without the thread.

    def _linger_inline(self, sockets: Sequence[_LingeringSocket], seconds: float) -> None:
        """Linger in the calling thread until all is acknowledged; ``_inline_budget`` bounds all calls together."""
        started = time.monotonic()
        limit = started + min(seconds, self._inline_budget / 2)
        discard_buffer = bytearray(64 * 1024)
        pause = _FIRST_POLL_INTERVAL
        left = list(sockets)
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
            self._inline_budget -= time.monotonic() - started
            for lingering in sockets:
                self._forget(lingering)
                close_quietly(lingering.sock)
                _call_back(lingering)

    def wait_at_exit(self) -> None:
        """Wait until everything is acknowledged, for at most ``DEFAULT_LINGER`` seconds."""
        limit = time.monotonic() + DEFAULT_LINGER
        pause = _FIRST_POLL_INTERVAL
        while (now := time.monotonic()) < limit:
            if _ACTIVE not in self._active and now >= self._start_deadline:
                self._linger_inline(self._take_queued(), limit - now)
            # Not the queue alone: a thread that began a moment ago may have taken sockets out of it.
            if all(lingering.is_quiet(now) for lingering in list(self._all)):
                return
            time.sleep(min(pause, limit - now))
            pause = min(2 * pause, _POLL_INTERVAL)

    def reset_after_fork(self) -> None:
        """Close the child's copies of the descriptors; the parent goes on lingering."""
        sockets, pollers = list(self._all), list(self._active.values())
        self._reset()
        for poller in pollers:
            poller.close_after_fork()
        for lingering in sockets:
            close_quietly(lingering.sock)


def _call_back(lingering: _LingeringSocket) -> None:
    with contextlib.suppress(IndexError):  # none, or taken back
        lingering.on_closed.pop()()


def _max_sockets() -> int:
    """How many sockets may linger at one time in this process."""
    if sys.platform == "win32":
        return _MAX_SOCKETS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAX_SOCKETS if limit == resource.RLIM_INFINITY else min(_MAX_SOCKETS, max(1, limit // 2))


def _has_unacked(sock: socket.socket) -> bool:
    """Whether the kernel still holds bytes that the peer has not acknowledged; False on Windows, which cannot tell."""
    if sys.platform == "win32":
        return False
    try:
        unacked = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except (OSError, ValueError):
        return False
    return bool(struct.unpack("i", unacked)[0])


_linger_thread = _LingerThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_linger_thread.reset_after_fork)
