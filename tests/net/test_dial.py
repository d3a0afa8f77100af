"""C1, C2: how ``dial`` drives the race, in cases that no real network can be made to produce."""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Callable, Iterator

import pytest

from wireline import IPPROTO_TCP, IPPROTO_UDP, DialError
from wireline._core.happy_eyeballs import AddrInfo
from wireline.net import _dial, dial

LOCALHOST = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((LOCALHOST, 0)) as listener:
        yield listener


def info(sock: socket.socket) -> AddrInfo:
    return (socket.AF_INET, socket.SOCK_STREAM, IPPROTO_TCP, "", sock.getsockname())


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every name stand for these addresses."""

    def to(*found: AddrInfo) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: list(found))

    return to


@pytest.mark.parametrize("timeout", [3e6, 3e9, float("inf")])
def test_C2_a_deadline_may_be_very_far_away(listener: socket.socket, timeout: float) -> None:
    """Three weeks is the most that a selector waits at once."""
    with dial(LOCALHOST, listener.getsockname()[1], timeout=timeout) as sock:
        assert sock.peer_addr == listener.getsockname()


def test_C1_an_address_that_fails_at_once_counts_as_failed(
    listener: socket.socket, resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = _dial.begin_connect

    def begin_connect(
        info: AddrInfo, prepare: Callable[[socket.socket], object]
    ) -> tuple[socket.socket, bool]:
        if info[4] == ("192.0.2.1", 9):
            raise OSError(errno.ENETUNREACH, "no route")
        return begin(info, prepare)

    monkeypatch.setattr(_dial, "begin_connect", begin_connect)
    unreachable = (socket.AF_INET, socket.SOCK_STREAM, IPPROTO_TCP, "", ("192.0.2.1", 9))
    resolve(unreachable, info(listener))
    with dial("some.test", 80) as sock:
        assert sock.peer_addr == listener.getsockname()
    resolve(unreachable)
    with pytest.raises(DialError) as caught:
        dial("other.test", 80)
    ((sockaddr, error, _),) = caught.value.attempts
    assert sockaddr == ("192.0.2.1", 9)
    assert error.errno == caught.value.errno == errno.ENETUNREACH


def test_C1_two_that_answer_at_the_same_moment_and_one_of_them_wins(
    resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Patient(selectors.SelectSelector):
        """Reports nothing before two have answered."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            ready = super().select(timeout)
            return ready if len(ready) >= 2 else []

    monkeypatch.setattr(_dial, "_Selector", Patient)
    with socket.create_server((LOCALHOST, 0)) as first, socket.create_server((LOCALHOST, 0)) as second:
        resolve(info(first), info(second))
        with dial("some.test", 80) as sock:
            assert sock.peer_addr in (first.getsockname(), second.getsockname())
        for listener in (first, second):  # both were connected to, and both connections are over
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(1) == b""


def test_C1_no_address_at_all(resolve: Callable[..., None]) -> None:
    resolve()
    with pytest.raises(DialError, match="no address to try") as caught:
        dial("some.test", 80)
    assert caught.value.attempts == ()
    assert caught.value.errno == errno.EHOSTUNREACH


def test_C1_datagrams_are_connected_at_once() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as there:
        there.bind((LOCALHOST, 0))
        with dial(LOCALHOST, there.getsockname()[1], IPPROTO_UDP) as sock:
            sock.send(b"x")
            assert there.recvfrom(9) == (b"x", tuple(sock.local_addr))


def test_C5_an_interruption_leaves_no_descriptor(
    listener: socket.socket, resolve: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            raise KeyboardInterrupt

    monkeypatch.setattr(_dial, "_Selector", Interrupted)
    resolve(info(listener))
    with pytest.raises(KeyboardInterrupt):
        dial("some.test", 80)
