"""The lingering close, and its thread, which exists only while a socket lingers."""

from __future__ import annotations

import errno
import itertools
import os
import selectors
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from wireline._core.deadline import CallDeadline
from wireline._os import background, linger
from wireline._os.linger import _LingeringSocket, _LingerThread, close_in_background

PATIENCE = 5.0

TOO_LONG = 5.0
"""Seconds. A call that takes less has not waited."""

Pair = tuple[socket.socket, socket.socket]


def lingering(sock: socket.socket) -> _LingeringSocket:
    return _LingeringSocket(sock, b"", CallDeadline(PATIENCE, time.monotonic()))


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    there.settimeout(PATIENCE)
    return here, there


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = tcp_pair()
    with here, there:
        yield here, there
    join()


def lingerers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "wireline-linger"]


def join() -> None:
    """Wait for the thread to end."""
    for thread in lingerers():
        thread.join(PATIENCE)
        assert not thread.is_alive()


def is_closed(sock: socket.socket) -> bool:
    return sock.fileno() == -1


def test_none_is_a_plain_close(pair: Pair) -> None:
    here, there = pair
    close_in_background(here)
    assert is_closed(here)
    assert there.recv(1) == b""
    assert not lingerers()


def test_zero_is_a_reset(pair: Pair) -> None:
    here, there = pair
    close_in_background(here, 0)
    assert is_closed(here)
    with pytest.raises(ConnectionResetError):
        there.recv(1)
    closed = socket.socket()
    closed.close()
    close_in_background(closed, 0)


def test_seconds_are_for_the_peer_to_finish(pair: Pair) -> None:
    here, there = pair
    close_in_background(here, PATIENCE)
    assert there.recv(1) == b""
    for _ in range(10):
        there.send(bytes(100_000))
    assert not is_closed(here)
    (thread,) = lingerers()
    assert thread.daemon
    there.close()
    join()
    assert is_closed(here)


def test_each_socket_has_its_own_deadline(pair: Pair) -> None:
    here, _ = pair
    other, its_peer = tcp_pair()
    close_in_background(other, PATIENCE)
    close_in_background(here, 0.02)
    until(lambda: is_closed(here))
    assert not is_closed(other)
    its_peer.close()
    join()
    assert is_closed(other)


def test_a_reset_ends_it(pair: Pair) -> None:
    here, there = pair
    close_in_background(here, PATIENCE)
    close_in_background(there, 0)
    join()
    assert is_closed(here)


@pytest.mark.parametrize("seconds", [3e6, 3e9])
def test_the_deadline_may_be_very_far(pair: Pair, seconds: float) -> None:
    here, there = pair
    close_in_background(here, seconds)
    (thread,) = lingerers()
    there.close()
    thread.join(PATIENCE)
    assert is_closed(here)


def test_a_connection_that_is_gone_is_closed_at_once(pair: Pair) -> None:
    here, _ = pair
    with socket.socket() as unconnected:
        close_in_background(unconnected, PATIENCE)
        assert is_closed(unconnected)
    here.close()
    close_in_background(here, PATIENCE)
    assert not lingerers()


def test_the_thread_is_started_again_after_it_has_ended(pair: Pair) -> None:
    for _ in range(3):
        here, there = tcp_pair()
        close_in_background(here, PATIENCE)
        assert len(lingerers()) == 1
        there.close()
        join()


def test_many_share_one_thread(pair: Pair) -> None:
    pairs = [tcp_pair() for _ in range(20)]
    for here, _ in pairs:
        close_in_background(here, PATIENCE)
    assert len(lingerers()) == 1
    for _, there in pairs:
        there.close()
    join()
    assert all(is_closed(here) for here, _ in pairs)


def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_P5_an_exception_of_a_signal_handler_is_not_taken_for_a_missing_thread(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA7: any exception during the start of the thread was swallowed, as if no thread could be started."""

    def interrupted(_: threading.Thread) -> None:
        raise LookupError("of a signal handler")

    here, there = pair
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(LookupError, match="of a signal handler"):
            close_in_background(here, PATIENCE)
    other, its_peer = tcp_pair()
    close_in_background(other, PATIENCE)  # starts the thread, which finds both
    for peer in (there, its_peer):
        assert peer.recv(1) == b""
        peer.close()
    join()
    assert is_closed(here)
    assert is_closed(other)


def test_P6_without_a_thread_it_lingers_in_the_calling_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA9: where no thread could be started, the connection was closed at once and reset."""
    here, there = pair
    fill(here)
    received = bytearray()

    def read_slowly() -> None:
        while piece := there.recv(4096):
            received.extend(piece)

    there.send(b"this is what makes a close a reset")
    reader = threading.Thread(target=read_slowly)
    reader.start()
    with monkeypatch.context() as without:
        no_thread(without)
        close_in_background(here, PATIENCE, b"final bytes")
    assert is_closed(here)
    reader.join(PATIENCE)
    assert received.endswith(b"final bytes")
    again, its_peer = tcp_pair()
    close_in_background(again, PATIENCE)
    assert not is_closed(again), "and the next one lingers as if nothing had been"
    its_peer.close()
    join()


def test_P6_without_a_thread_all_calls_together_take_a_bounded_time(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA9: peers that do not read hold up all callers together for no longer than the exit would wait."""
    no_thread(monkeypatch)
    monkeypatch.setattr(linger, "DEFAULT_LINGER", 0.1)
    linger_thread = _LingerThread()
    monkeypatch.setattr(linger, "_linger_thread", linger_thread)
    pairs = [tcp_pair() for _ in range(20)]
    for here, _ in pairs:
        fill(here)
    start = time.monotonic()
    for here, _ in pairs:
        close_in_background(here, PATIENCE)
        assert is_closed(here)
    assert 0.1 <= time.monotonic() - start < TOO_LONG / 2
    for _, there in pairs:
        there.close()


def test_P6_without_a_thread_it_waits_while_the_peer_still_talks(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    there.send(b"before")
    failed: list[OSError] = []

    def talk() -> None:
        try:
            for _ in range(5):
                threading.Event().wait(linger._QUIET_TIME / 10)
                there.send(b"and on")
        except OSError as error:
            failed.append(error)
        there.close()

    talker = threading.Thread(target=talk)
    talker.start()
    no_thread(monkeypatch)
    close_in_background(here, PATIENCE, b"final bytes")
    assert is_closed(here)
    talker.join()
    assert not failed


def test_without_descriptors_the_sockets_are_polled(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """FA3: without a descriptor for the thread's own use every connection was closed at once, and reset."""

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "none left")

    here, there = pair
    monkeypatch.setattr(socket, "socketpair", none_left)
    close_in_background(here, PATIENCE)
    there.send(bytes(1000))
    assert there.recv(1) == b""
    assert not is_closed(here)
    there.close()
    join()
    assert is_closed(here)


# Errors of one socket, and of the thread.


class Failing:
    """A selector whose chosen method fails."""

    def __init__(self, name: str, error: BaseException, times: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._name, self._error, self._left = name, error, times

    def __getattr__(self, name: str) -> object:
        if name == self._name and self._left:

            def fail(target: object = None, *_: object) -> None:
                # The waker is registered first; this test is about sockets.
                if isinstance(target, linger._Waker):
                    getattr(self._selector, name)(target, *_)
                    return
                self._left -= 1
                raise self._error

            return fail
        return getattr(self._selector, name)


ERRORS = {
    "EAGAIN": BlockingIOError(errno.EAGAIN, "again"),
    "EBADF": OSError(errno.EBADF, "bad"),
    "ENOMEM": OSError(errno.ENOMEM, "no memory"),
    "ENOSPC": OSError(errno.ENOSPC, "max_user_watches"),
    "MemoryError": MemoryError(),
}


@pytest.mark.parametrize("method", ["register", "select", "unregister", "modify", "close"])
def test_P1_the_thread_survives_errors_of_its_selector(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """FA3: an error of epoll ended the thread; every later close raised BrokenPipeError and leaked a descriptor."""
    for error, times in itertools.product(ERRORS.values(), [1, 2]):
        with monkeypatch.context() as patch:
            survive_errors(patch, method, error, times)


def survive_errors(monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException, times: int) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", lambda: Failing(method, error, times))
    pairs = [tcp_pair() for _ in range(4)]
    for here, _ in pairs:
        fill(here)
        close_in_background(here, PATIENCE, b"final bytes")
        assert not is_closed(here)
    (thread,) = lingerers()
    for _, there in pairs:
        assert read_to_the_end(there).endswith(b"final bytes")
        there.close()
    thread.join(PATIENCE)
    assert all(is_closed(here) for here, _ in pairs)
    join()


def read_to_the_end(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(65536):
        data += piece
    return bytes(data)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "broken"), ValueError("odd")])
def test_P1_an_error_of_one_connection_ends_that_connection_only(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """FA3: an unexpected error of one connection ended the thread, and with it the lingering of all others."""
    here, there = pair
    unlucky, its_peer = tcp_pair()
    real = _LingeringSocket.is_done

    def is_done(self: _LingeringSocket, discard_buffer: bytearray) -> bool:
        if self.sock is unlucky:
            raise error
        return real(self, discard_buffer)

    monkeypatch.setattr(_LingeringSocket, "is_done", is_done)
    close_in_background(here, PATIENCE)
    close_in_background(unlucky, PATIENCE)
    its_peer.send(b"x")
    until(lambda: is_closed(unlucky))
    assert not is_closed(here)
    its_peer.close()
    there.close()
    join()
    assert is_closed(here)


def until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not is_so() and time.monotonic() < limit:
        threading.Event().wait(0.005)
    assert is_so()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_P1_a_thread_that_dies_is_replaced(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """FA3: once the thread was dead, no socket lingered any more, and closing one raised."""
    here, _ = pair

    def poll(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(linger._Poller, "poll", poll)
        close_in_background(here, PATIENCE)
        join()
    assert is_closed(here), "what it had is closed"
    again, its_peer = tcp_pair()
    close_in_background(again, PATIENCE)
    assert not is_closed(again)
    assert len(lingerers()) == 1
    its_peer.close()
    join()
    assert is_closed(again)


def test_P1_enqueueing_is_one_system_call_at_most_and_never_waits(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA1: each close wrote to a blocking socketpair, under a lock that its reader needed: a deadlock after 280."""
    here, there = pair
    looks = threading.Event()
    real = linger._Waker.clear

    def clear(self: linger._Waker) -> None:
        assert looks.wait(PATIENCE)
        real(self)

    with monkeypatch.context() as held_up:
        held_up.setattr(linger._Waker, "clear", clear)
        close_in_background(here, PATIENCE)
        until(lambda: any(poller._waker is not None for poller in linger._linger_thread._active.values()))
        pairs = [tcp_pair() for _ in range(400)]  # more wake-ups than the socketpair holds
        start = time.monotonic()
        for one, _ in pairs:
            close_in_background(one, PATIENCE)
        assert time.monotonic() - start < TOO_LONG
        looks.set()
    for _, its_peer in [*pairs, (here, there)]:
        its_peer.close()
    join()
    assert all(is_closed(one) for one, _ in pairs)


def test_P1_more_than_may_linger_at_once_closes_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linger, "_MAX_SOCKETS", 10)
    pairs = [tcp_pair() for _ in range(15)]
    for here, _ in pairs:
        close_in_background(here, PATIENCE)
        until(lambda: not linger._linger_thread._queue)
    until(lambda: sum(is_closed(here) for here, _ in pairs) == 5)
    assert [is_closed(here) for here, _ in pairs] == [True] * 5 + [False] * 10
    for _, there in pairs:
        there.close()
    join()


def test_P1_sockets_that_are_done_early_leave_no_deadline_behind(pair: Pair) -> None:
    here, there = pair
    close_in_background(here, 3e9)  # keeps the thread alive
    for _ in range(1200):
        one, its_peer = socket.socketpair()
        close_in_background(one, 3e9)
        its_peer.close()
    until(lambda: len(linger._linger_thread._all) == 1)
    (poller,) = linger._linger_thread._active.values()
    for _ in range(2):  # the round that removes entries may have been the one before
        one, its_peer = socket.socketpair()
        close_in_background(one, 3e9)
        its_peer.close()
        until(lambda: len(linger._linger_thread._all) == 1)
    assert len(poller._deadlines) <= 1010
    there.close()
    join()


@pytest.mark.parametrize("moment", range(1, 400, 7))
def test_P5_an_exception_of_a_signal_handler_leaves_no_descriptor(pair: Pair, moment: int) -> None:
    """FA3, FA7: interrupted at any bytecode, a close must not leave the descriptor open forever."""
    here, there = pair
    steps = itertools.count(1)

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        if frame.f_code.co_filename not in (linger.__file__, background.__file__):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and next(steps) == moment:
            raise KeyboardInterrupt
        return trace

    interrupted = False
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        close_in_background(here, PATIENCE)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        sys.settrace(before)
    # The thread has it, or it is closed. Before the first step of `close_in_background` the caller still owns it.
    # Asked while the peer is open: when it is done, the thread forgets the socket and closes it a moment later.
    if interrupted and not is_closed(here) and here not in {one.sock for one in linger._linger_thread._all}:
        assert moment < 60
        here.close()
    there.close()
    another, its_peer = tcp_pair()
    close_in_background(another, PATIENCE)  # starts a thread for the rest of the queue
    its_peer.close()
    until(lambda: is_closed(here) and is_closed(another))
    join()


def test_P2_a_finalizer_may_enqueue_while_another_socket_is_enqueued(monkeypatch: pytest.MonkeyPatch) -> None:
    """FA2: a finalizer that ran while the thread was started closed a socket, and waited for the lock around it."""
    outer, its_peer = tcp_pair()
    inner, inner_peer = tcp_pair()
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        monkeypatch.undo()
        close_in_background(inner, PATIENCE)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    close_in_background(outer, PATIENCE)
    assert len(lingerers()) == 1
    for peer in (its_peer, inner_peer):
        assert peer.recv(1) == b""
        peer.close()
    join()
    assert is_closed(outer)
    assert is_closed(inner)


# At the end of the interpreter.


def fill(sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        return


def test_at_exit_it_waits_while_something_is_unsent(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linger, "DEFAULT_LINGER", 20.0)
    linger_thread = _LingerThread()
    start = time.monotonic()
    linger_thread.wait_at_exit()
    assert time.monotonic() - start < TOO_LONG, "nothing to wait for"
    monkeypatch.setattr(linger, "DEFAULT_LINGER", 0.1)
    here, there = pair
    fill(here)
    here.shutdown(socket.SHUT_WR)
    linger_thread.add(lingering(here))
    start = time.monotonic()
    linger_thread.wait_at_exit()
    assert 0.1 <= time.monotonic() - start < TOO_LONG, "as long as it may"
    there.close()
    join()


def test_T4_the_exit_waits_for_a_thread_that_begins_at_that_moment(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit saw no thread, the thread took the queue, and the exit found it empty: the process ended too early."""
    monkeypatch.setattr(linger, "DEFAULT_LINGER", 0.1)
    linger_thread = _LingerThread()
    here, there = pair
    fill(here)
    taken: list[_LingeringSocket] = []

    class Beginning(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            taken.extend(linger_thread._take_queued())
            return False

    linger_thread._all[unsent := lingering(here)] = None
    linger_thread._queue.append(unsent)
    linger_thread._active = Beginning()
    start = time.monotonic()
    linger_thread.wait_at_exit()
    assert taken == [unsent]
    assert time.monotonic() - start >= 0.1
    here.close()
    there.close()


def test_at_exit_it_does_not_wait_for_bytes_that_have_arrived(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linger, "DEFAULT_LINGER", 20.0)
    here, there = pair
    linger_thread = _LingerThread()
    here.send(b"x")
    assert there.recv(1) == b"x"
    here.shutdown(socket.SHUT_WR)
    assert there.recv(1) == b""
    linger_thread.add(lingering(here))
    start = time.monotonic()
    linger_thread.wait_at_exit()
    assert time.monotonic() - start < TOO_LONG
    there.close()
    join()


def test_where_it_is_unknown_nothing_counts_as_unacknowledged(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = pair
    fill(here)
    assert linger.unacked(here)
    monkeypatch.setattr(sys, "platform", "win32")
    assert not linger.unacked(here)
    monkeypatch.undo()
    here.close()
    assert not linger.unacked(here)


# After a fork.

FORK = """
    import os, socket, threading, warnings
    from wireline._os import linger

    warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 and later, about other threads: they are the point

    def pair():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return socket.create_connection(listener.getsockname()), listener.accept()[0]

    here, there = pair()
    linger.close_in_background(here, 10)
    child = os.fork()
    if not child:  # the parent's thread does not exist here, and its sockets stay open
        assert here.fileno() == -1
        assert not linger._linger_thread._active and not linger._linger_thread._all
        ours, its_peer = pair()
        linger.close_in_background(ours, 10)
        (thread,) = [each for each in threading.enumerate() if each.name == "wireline-linger"]
        assert its_peer.recv(1) == b""
        its_peer.close()
        thread.join(5)
        os._exit(0 if ours.fileno() == -1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert here.fileno() != -1
    (thread,) = [each for each in threading.enumerate() if each.name == "wireline-linger"]
    there.close()
    thread.join(5)
    assert here.fileno() == -1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform without fork")
def test_a_forked_child_leaves_the_parents_sockets_alone_and_starts_its_own_thread() -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
