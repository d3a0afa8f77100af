"""W8: what an inbox keeps when a call ends early, and how a cut datagram is distinguished from a whole one."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from wireline import address
from wireline._os.datagram import Raw, data_of, make_datagram, store_datagram
from wireline._os.inbox import MAX_COUNT, Inbox
from wireline._os.passed_fds import CONTROL_SIZE, PassedFds

Pair = tuple[socket.socket, socket.socket]


class Broken(Exception):
    """What a signal handler raises."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.socket(type=socket.SOCK_DGRAM) as here, socket.socket(type=socket.SOCK_DGRAM) as there:
        for sock in (here, there):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        here.connect(there.getsockname())
        yield here, there


def interrupted(raw: Raw, size: int) -> Any:
    raise Broken


@pytest.mark.parametrize(
    ("size", "data", "truncated"), [(3, b"abc", True), (4, b"abcd", False), (9, b"abcd", False)]
)
def test_W8_one_byte_more_shows_whether_there_was_more(
    pair: Pair, size: int, data: bytes, truncated: bool
) -> None:
    here, there = pair
    for _ in range(2):
        here.send(b"abcd")
    inbox = Inbox()
    datagram = inbox.take(there, size, make_datagram)
    assert datagram == (data, here.getsockname())
    assert datagram.truncated is truncated
    buffer = bytearray(b"........")
    received = inbox.take(there, size, lambda raw, size: store_datagram(memoryview(buffer), raw, size))
    assert received == (len(data), here.getsockname())
    assert received.truncated is truncated
    assert buffer == data.ljust(8, b".")


def test_W8_P5_an_interrupted_call_leaves_its_datagrams_for_the_next(pair: Pair) -> None:
    for many in (False, True):
        interrupt_a_call(*pair, many)


def interrupt_a_call(here: socket.socket, there: socket.socket, many: bool) -> None:
    for number in range(3):
        here.send(b"%d23456789" % number)
    inbox = Inbox()
    with pytest.raises(Broken):
        if many:
            inbox.take_many(there, 4, 64, interrupted)
        else:
            inbox.take(there, 4, interrupted)
    for _ in range(2):
        assert inbox.peek(there, 99, make_datagram).data == b"0234"
    # It was cut for the first call, and the second says so, too.
    first = inbox.take(there, 99, make_datagram)
    assert first.data == b"0234"
    assert first.truncated
    rest = inbox.take_many(there, 2, 1, make_datagram) + inbox.take_many(there, 2, 64, make_datagram)
    assert [datagram.data for datagram in rest] == [b"12", b"22"]
    with pytest.raises(BlockingIOError):
        inbox.take_many(there, 2, 64, make_datagram)


def test_W8_P5_a_single_datagram_is_kept_for_a_call_for_many(pair: Pair) -> None:
    here, there = pair
    here.send(b"one")
    inbox = Inbox()
    with pytest.raises(Broken):
        inbox.take(there, 4, interrupted)
    here.send(b"two")
    got = [inbox.take_many(there, 4, 64, data_of) for _ in range(2)]
    assert got == [[b"one"], [b"two"]]


class Failing:
    """A socket whose third datagram is an error."""

    def __init__(self) -> None:
        self.calls = 0

    def recvfrom(self, size: int, flags: int) -> Raw:
        self.calls += 1
        if self.calls == 3:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        if self.calls == 5:
            raise BlockingIOError
        return b"%d" % self.calls, ("192.0.2.1", 9)


def test_W8_an_error_after_the_first_datagram_is_raised_by_the_next_call() -> None:
    for then in ("take", "take_many", "peek"):
        sock: Any = Failing()
        inbox = Inbox()
        assert inbox.take_many(sock, 9, 64, data_of) == [b"1", b"2"]
        with pytest.raises(ConnectionRefusedError):
            if then == "take_many":
                inbox.take_many(sock, 9, 64, data_of)
            else:
                getattr(inbox, then)(sock, 9, data_of)
        assert inbox.take_many(sock, 9, 64, data_of) == [b"4"]


def test_W8_a_batch_has_a_limit(pair: Pair) -> None:
    class Endless:
        def recvfrom(self, size: int, flags: int) -> Raw:
            return b"x", None

    sock: Any = Endless()
    assert len(Inbox().take_many(sock, 9, 10**9, data_of)) == MAX_COUNT


def test_W8_ten_thousand_peers_do_not_fill_the_memory() -> None:
    for number in range(10_000):
        sockaddr = (f"10.0.{number >> 8}.{number & 255}", number)
        datagram = make_datagram((b"x", sockaddr), 9)
        assert datagram.address == sockaddr
        assert make_datagram((b"y", sockaddr), 9).address is datagram.address
    assert len(address.known_addresses) <= 512


def test_W8_P5_calls_with_and_without_descriptors_take_what_the_other_has_left() -> None:
    def interrupt_take_fds(inbox: Inbox, sock: socket.socket) -> None:
        passed = inbox.passed = inbox.passed or PassedFds(sock)
        passed.datagrams.extend(map(sock.recvmsg, (4,), (CONTROL_SIZE,), (0,)))

    with contextlib.ExitStack() as stack:
        here, there = (
            stack.enter_context(sock) for sock in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        )
        inbox = Inbox()
        before = len(os.listdir("/dev/fd"))
        for call in (inbox.take, inbox.peek, lambda *args: inbox.take_many(*args[:2], 64, args[2])[0]):
            socket.send_fds(here, [b"0123456789"], [here.fileno()] * 3)
            interrupt_take_fds(inbox, there)
            assert inbox.has_kept
            datagram = call(there, 9, make_datagram)
            assert (datagram.data, datagram.truncated) == (b"0123", True)
            if call == inbox.peek:
                assert inbox.take_fds(there, 9, 0) == (b"0123", [], 3)
            assert not inbox.has_kept
        assert len(os.listdir("/dev/fd")) == before
        here.send(b"0123456789")
        with pytest.raises(Broken):
            inbox.take(there, 4, interrupted)
        assert inbox.take_fds(there, 9, 2) == (b"0123", [], 0)
