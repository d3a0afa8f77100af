"""The thread that lets connections end in peace: there while it is needed, and no longer."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from wireline import _linger
from wireline._linger import _Leaving, _Lingerer, dispose
from wireline._sansio.deadline import Deadline

PATIENCE = 5.0

TOO_LONG = 5.0
"""Seconds below which a call has returned that had nothing to wait for, or next to nothing."""

Pair = tuple[socket.socket, socket.socket]


def leaving(sock: socket.socket) -> _Leaving:
    return _Leaving(sock, b"", Deadline(PATIENCE, time.monotonic()))


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
    dispose(here)
    assert is_closed(here)
    assert there.recv(1) == b""
    assert not lingerers()


def test_zero_is_a_reset(pair: Pair) -> None:
    here, there = pair
    dispose(here, 0)
    assert is_closed(here)
    with pytest.raises(ConnectionResetError):
        there.recv(1)
    closed = socket.socket()
    closed.close()
    dispose(closed, 0)


def test_seconds_are_for_the_peer_to_finish(pair: Pair) -> None:
    here, there = pair
    dispose(here, PATIENCE)
    assert there.recv(1) == b""
    for _ in range(10):
        there.send(bytes(100_000))
    assert not is_closed(here)
    (thread,) = lingerers()
    assert thread.daemon
    there.close()
    join()
    assert is_closed(here)


def test_the_time_is_up_for_each_by_itself(pair: Pair) -> None:
    here, _ = pair
    other, its_peer = tcp_pair()
    dispose(other, PATIENCE)
    dispose(here, 0.02)
    limit = time.monotonic() + PATIENCE
    while not is_closed(here) and time.monotonic() < limit:
        threading.Event().wait(0.005)
    assert is_closed(here)
    assert not is_closed(other)
    its_peer.close()
    join()
    assert is_closed(other)


def test_a_reset_ends_it(pair: Pair) -> None:
    here, there = pair
    dispose(here, PATIENCE)
    dispose(there, 0)
    join()
    assert is_closed(here)


@pytest.mark.parametrize("seconds", [3e6, 3e9])
def test_the_time_may_be_very_long(pair: Pair, seconds: float) -> None:
    here, there = pair
    dispose(here, seconds)
    (thread,) = lingerers()
    there.close()
    thread.join(PATIENCE)
    assert is_closed(here)


def test_a_connection_that_is_gone_is_closed_at_once(pair: Pair) -> None:
    here, _ = pair
    with socket.socket() as unconnected:
        dispose(unconnected, PATIENCE)
        assert is_closed(unconnected)
    here.close()
    dispose(here, PATIENCE)
    assert not lingerers()


def test_it_comes_back_after_it_has_ended(pair: Pair) -> None:
    for _ in range(3):
        here, there = tcp_pair()
        dispose(here, PATIENCE)
        assert len(lingerers()) == 1
        there.close()
        join()


def test_many_share_one_thread(pair: Pair) -> None:
    pairs = [tcp_pair() for _ in range(20)]
    for here, _ in pairs:
        dispose(here, PATIENCE)
    assert len(lingerers()) == 1
    for _, there in pairs:
        there.close()
    join()
    assert all(is_closed(here) for here, _ in pairs)


@pytest.mark.parametrize("what", ["thread", "descriptors"])
def test_without_the_means_to_linger_it_closes_at_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def none_left(*_: object) -> None:
        raise (
            OSError(errno.EMFILE, "none left")
            if what == "descriptors"
            else RuntimeError("can't start new thread")
        )

    here, there = pair
    with monkeypatch.context() as without:
        if what == "thread":
            without.setattr(threading.Thread, "start", none_left)
        else:
            without.setattr(socket, "socketpair", none_left)
        dispose(here, PATIENCE)
    assert is_closed(here)
    assert there.recv(1) == b""
    again, its_peer = tcp_pair()
    dispose(again, PATIENCE)
    assert not is_closed(again), "and the next one lingers as if nothing had been"
    its_peer.close()
    join()


# At the end of the interpreter.


def fill(sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        return


def test_at_exit_it_waits_while_something_is_unsent(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_linger, "DEFAULT_LINGER", 20.0)
    lingerer = _Lingerer()
    start = time.monotonic()
    lingerer.wait_at_exit()
    assert time.monotonic() - start < TOO_LONG, "nothing to wait for"
    monkeypatch.setattr(_linger, "DEFAULT_LINGER", 0.1)
    here, there = pair
    fill(here)
    here.shutdown(socket.SHUT_WR)
    lingerer.add(leaving(here))
    start = time.monotonic()
    lingerer.wait_at_exit()
    assert 0.1 <= time.monotonic() - start < TOO_LONG, "as long as it may"
    there.close()
    join()


def test_at_exit_it_does_not_wait_for_what_has_arrived(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_linger, "DEFAULT_LINGER", 20.0)
    here, there = pair
    lingerer = _Lingerer()
    here.send(b"x")
    assert there.recv(1) == b"x"
    here.shutdown(socket.SHUT_WR)
    assert there.recv(1) == b""
    lingerer.add(leaving(here))
    start = time.monotonic()
    lingerer.wait_at_exit()
    assert time.monotonic() - start < TOO_LONG
    there.close()
    join()


def test_where_it_cannot_be_known_nothing_is_unsent(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = pair
    fill(here)
    assert _linger._has_unsent(here)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert not _linger._has_unsent(here)
    monkeypatch.undo()
    here.close()
    assert not _linger._has_unsent(here)


# After a fork.

FORK = """
    import os, socket, threading, warnings
    from wireline import _linger

    warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12 and later: that other threads run is the point

    def pair():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return socket.create_connection(listener.getsockname()), listener.accept()[0]

    here, there = pair()
    _linger.dispose(here, 10)
    child = os.fork()
    if not child:  # the parent's thread does not exist here, and what it has is none of our business
        assert here.fileno() == -1
        assert _linger._lingerer._thread is None
        ours, its_peer = pair()
        _linger.dispose(ours, 10)
        thread = _linger._lingerer._thread
        assert its_peer.recv(1) == b""
        its_peer.close()
        thread.join(5)
        os._exit(0 if ours.fileno() == -1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert here.fileno() != -1
    thread = _linger._lingerer._thread
    there.close()
    thread.join(5)
    assert here.fileno() == -1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform without fork")
def test_a_forked_child_leaves_the_parents_alone_and_has_one_of_its_own() -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
