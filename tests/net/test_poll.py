"""Waiting for a descriptor: by ``poll``, or ``select`` where there is none; with a deadline; woken by ``close``."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from wireline._core.deadline import CallDeadline
from wireline._core.happy_eyeballs import AddrInfo
from wireline._os.resolver import Lookup
from wireline.errors import SocketTimeout
from wireline.net._poll import Latch, Readiness, Waker, start_deadline, wait_for_lookup

Pair = tuple[socket.socket, socket.socket]

TOO_LONG = 5.0
"""Seconds. A call that takes less had nothing, or nearly nothing, to wait for."""


@pytest.fixture(params=["poll", "select"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "select":
        monkeypatch.delattr(select, "poll")


either_way = pytest.mark.usefixtures("_way")


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


@pytest.fixture
def waker() -> Iterator[Waker]:
    waker = Waker()
    yield waker
    waker.close()


def within(seconds: float) -> CallDeadline:
    return CallDeadline(seconds, time.monotonic())


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(bytes(65536), socket.MSG_DONTWAIT)
    except BlockingIOError:
        return


def ring_soon(waker: Waker) -> threading.Timer:
    timer = threading.Timer(0.02, waker.wake)
    timer.start()
    return timer


# Readiness.


@either_way
@pytest.mark.parametrize("seconds", [0, 5, None])
def test_data_that_is_there_is_reported(pair: Pair, waker: Waker, seconds: float | None) -> None:
    here, there = pair
    there.send(b"x")
    for readiness in (Readiness(here.fileno()), Readiness(here.fileno(), waker=waker)):
        for _ in range(3):
            assert readiness.wait(start_deadline(seconds))
    assert Readiness(here.fileno(), write=True).wait(start_deadline(seconds))


@either_way
@pytest.mark.parametrize("seconds", [0, 0.02])
@pytest.mark.parametrize("write", [False, True])
def test_a_deadline_passes(pair: Pair, waker: Waker, seconds: float, write: bool) -> None:
    here, _ = pair
    fill(here)
    start = time.monotonic()
    assert not Readiness(here.fileno(), write=write).wait(within(seconds))
    assert not Readiness(here.fileno(), write=write, waker=waker).wait(within(seconds))
    assert 2 * seconds * 0.9 <= time.monotonic() - start < TOO_LONG


@either_way
def test_a_deadline_that_has_passed_still_asks_once(pair: Pair) -> None:
    here, there = pair
    there.send(b"x")
    assert Readiness(here.fileno()).wait(CallDeadline(1, time.monotonic() - 100))


@either_way
def test_a_broken_connection_is_ready(pair: Pair) -> None:
    here, there = pair
    fill(here)
    there.close()
    assert Readiness(here.fileno()).wait(within(5))
    assert Readiness(here.fileno(), write=True).wait(within(5))


@either_way
def test_a_connection_that_failed_is_ready_to_write() -> None:
    with socket.socket() as bound, socket.socket() as sock:
        bound.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.connect_ex(bound.getsockname())
        assert Readiness(sock.fileno(), write=True).wait(within(5))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@either_way
def test_a_very_long_deadline_is_not_too_long(pair: Pair) -> None:
    here, there = pair
    there.send(b"x")
    assert Readiness(here.fileno()).wait(within(3e9))


@either_way
@pytest.mark.parametrize("seconds", [5, None])
@pytest.mark.parametrize("write", [False, True])
def test_R13_the_waker_ends_a_wait(pair: Pair, waker: Waker, seconds: float | None, write: bool) -> None:
    here, _ = pair
    fill(here)
    timer = ring_soon(waker)
    assert Readiness(here.fileno(), write=write, waker=waker).wait(start_deadline(seconds))
    timer.join()
    assert Readiness(here.fileno(), write=write, waker=waker).wait(within(5)), "and later waits"


@either_way
def test_R13_the_waker_also_ends_the_next_wait(pair: Pair, waker: Waker) -> None:
    here, _ = pair
    readiness = Readiness(here.fileno(), waker=waker)
    assert not readiness.wait(within(0.01))
    timer = ring_soon(waker)
    assert readiness.wait(within(5))
    timer.join()


@either_way
def test_without_a_wait_no_descriptors_are_made(pair: Pair, waker: Waker) -> None:
    here, there = pair
    there.send(b"x")
    assert Readiness(here.fileno(), waker=waker).wait(None)
    here.recv(1)
    assert not Readiness(here.fileno(), waker=waker).wait(within(0))
    assert not waker._pairs


# Waker.


def test_a_waker_wakes_all_waits(waker: Waker) -> None:
    events = [Latch() for _ in range(3)]
    threads = [threading.Thread(target=waker.wait_for, args=(event, 5)) for event in events]
    for thread in threads:
        thread.start()
    waker.wake()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_a_waker_that_was_woken_stays_woken(waker: Waker) -> None:
    waker.wake()
    start = time.monotonic()
    waker.wait_for(Latch(), 20)
    assert time.monotonic() - start < TOO_LONG
    assert Readiness(waker.fileno()).wait(within(0))
    waker.wake()


def test_a_waker_lets_the_time_pass(waker: Waker) -> None:
    start = time.monotonic()
    waker.wait_for(Latch(), 0.02)
    assert 0.018 <= time.monotonic() - start < TOO_LONG


def test_a_waker_closes_its_descriptors(waker: Waker) -> None:
    first = waker.fileno()
    assert waker.fileno() == first
    waker.close()
    waker.close()
    with pytest.raises(OSError):
        socket.socket(fileno=first).getsockname()


# Deadlines and lookups.


def test_a_deadline_begins_now() -> None:
    assert start_deadline(None) is None
    before = time.monotonic()
    deadline = start_deadline(2)
    after = time.monotonic()
    assert deadline is not None
    assert deadline.seconds == 2
    assert deadline.remaining(before) >= 2 >= deadline.remaining(after)


FOUND: list[AddrInfo] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]


def test_a_lookup_that_is_done_needs_no_wait(waker: Waker) -> None:
    lookup = Lookup(("some.test", 80, 0, socket.SOCK_STREAM, 6))
    lookup.set_result(FOUND)
    assert wait_for_lookup(lookup, "dial", within(0), waker) == FOUND


def test_a_lookup_that_gets_done(waker: Waker) -> None:
    lookup = Lookup(("some.test", 80, 0, socket.SOCK_STREAM, 6))
    timer = threading.Timer(0.02, lookup.set_result, [FOUND])
    timer.start()
    assert wait_for_lookup(lookup, "dial", None, waker) == FOUND
    timer.join()


def test_each_caller_of_a_lookup_gets_an_error_of_its_own(waker: Waker) -> None:
    lookup = Lookup(("some.test", 80, 0, socket.SOCK_STREAM, 6))
    lookup.set_exception(socket.gaierror(socket.EAI_NONAME, "unknown"))
    errors = []
    for _ in range(2):
        with pytest.raises(socket.gaierror, match="unknown") as caught:
            wait_for_lookup(lookup, "dial", None, waker)
        errors.append(caught.value)
    assert errors[0] is not errors[1]


def test_C2_the_deadline_of_a_lookup_passes(waker: Waker) -> None:
    lookup = Lookup(("some.test", 80, 0, socket.SOCK_STREAM, 6))
    for seconds in (0, 0.02):
        with pytest.raises(SocketTimeout) as caught:
            wait_for_lookup(lookup, "connect", within(seconds), waker)
        assert (caught.value.operation, caught.value.seconds) == ("connect", seconds)


@pytest.mark.parametrize("seconds", [20, None])
def test_R13_the_waker_ends_the_wait_for_a_lookup(waker: Waker, seconds: float | None) -> None:
    lookup = Lookup(("some.test", 80, 0, socket.SOCK_STREAM, 6))
    timer = ring_soon(waker)
    assert wait_for_lookup(lookup, "connect", start_deadline(seconds), waker) is None
    timer.join()
    start = time.monotonic()
    assert wait_for_lookup(lookup, "connect", start_deadline(seconds), waker) is None, "and before it begins"
    assert time.monotonic() - start < TOO_LONG
