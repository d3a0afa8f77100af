"""FB2, FB6, W9: errors name the call that was made, and every sending call says how much it has sent."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from wireline import (
    AF_INET,
    AF_UNIX,
    IPPROTO_UDP,
    SOCK_DGRAM,
    BusyError,
    ClosedError,
    SocketFlag,
    SocketTimeout,
)
from wireline.net import Socket

PATIENCE = 5.0
LOUD = SocketFlag(0)

Pair = tuple[Socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    for each in (here, there):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with Socket.from_socket(here) as sock, there:
        yield sock, there


class Doing:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.outcome: object = None
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call: Callable[[], object]) -> None:
        try:
            self.outcome = call()
        except Exception as error:  # noqa: BLE001 -- looked at by `get`
            self.outcome = error

    def get(self) -> object:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.outcome


def until(condition: Callable[[], object]) -> None:
    waiting = threading.Event()
    for _ in range(5000):
        if condition():
            return
        waiting.wait(0.001)
    raise AssertionError("it did not happen")


TIMED: dict[str, Callable[[Socket, float], object]] = {
    "recv": lambda sock, seconds: sock.recv(5, seconds),
    "recv_some": lambda sock, seconds: sock.recv_some(5, seconds),
    "recv_into": lambda sock, seconds: sock.recv_into(bytearray(5), None, seconds),
    "recv_exactly": lambda sock, seconds: sock.recv_exactly(5, seconds),
    "recv_until": lambda sock, seconds: sock.recv_until(b"\n", timeout=seconds),
    "recv_line": lambda sock, seconds: sock.recv_line(seconds),
    "recv_line_into": lambda sock, seconds: sock.recv_line_into(bytearray(), seconds),
    "lines": lambda sock, seconds: next(sock.lines(timeout=seconds)),
    "skip": lambda sock, seconds: sock.skip(5, seconds),
}


@pytest.mark.parametrize("seconds", [0, 0.001])
@pytest.mark.parametrize("name", TIMED)
def test_errors_of_a_read_name_the_call_that_was_made(pair: Pair, name: str, seconds: float) -> None:
    """FB6: ``SocketTimeout.operation`` was "recv" for ``recv_into``, and "recv_line" for ``lines``."""
    sock, peer = pair
    for _ in range(2):
        with pytest.raises(SocketTimeout, match=f"^.*{name} did not finish") as caught:
            TIMED[name](sock, seconds)
        assert (caught.value.operation, caught.value.seconds) == (name, seconds)
        peer.send(b"line\n")
        assert sock.recv_line() == b"line"  # and then by the other way in
    first = Doing(lambda: TIMED[name](sock, 50))
    until(lambda: not sock._io.core_slot)
    with pytest.raises(BusyError, match=f"^{name}: "):
        TIMED[name](sock, 50)
    sock.close()
    outcome = first.get()
    assert isinstance(outcome, ClosedError)
    assert f" {name}: " in str(outcome)


def test_try_recv_line_is_named_too(pair: Pair) -> None:
    """FB6: "recv_line" for ``try_recv_line``."""
    sock, peer = pair
    first = Doing(lambda: sock.recv_line())
    until(lambda: not sock._io.core_slot)
    with pytest.raises(BusyError, match=r"^try_recv_line: "):
        sock.try_recv_line()
    peer.send(b"line\n")
    assert first.get() == b"line"


SENDS: dict[str, Callable[[Socket], object]] = {
    "send": lambda sock: sock.send(bytes(1_000_000), LOUD, 0.001),
    "send_many": lambda sock: sock.send_many([bytes(1_000_000)], LOUD, 0.001),
    "send_some": lambda sock: sock.send_some(bytes(1_000_000), 0.001),
}


@pytest.mark.parametrize("name", SENDS)
def test_errors_of_a_send_name_the_call_that_was_made(pair: Pair, name: str) -> None:
    """FB6: "send" for ``send_many``."""
    sock, peer = pair
    while sock.try_send(bytes(1000)):
        pass
    with pytest.raises(SocketTimeout, match=f"{name} did not finish within 0.001 s") as caught:
        SENDS[name](sock)
    assert caught.value.operation == name
    assert caught.value.bytes_sent == sock.last_bytes_sent
    peer.close()
    with pytest.raises(ConnectionError) as lost:
        for _ in range(5):
            SENDS[name](sock)
    assert any(f"during {name} on" in note for note in lost.value.__notes__)
    sock.close()
    with pytest.raises(ClosedError, match=f" {name}: "):
        SENDS[name](sock)


@pytest.mark.parametrize(
    "name",
    "accept accept_addr recv_from recv_from_into recv_many_from recv recv_some recv_into".split(),
)
def test_errors_of_other_waits_name_the_call_that_was_made(name: str) -> None:
    """FB6: the same for listeners and datagrams."""
    kind = SOCK_DGRAM if name.startswith("recv") else socket.SOCK_STREAM
    with Socket(AF_UNIX, kind) as sock:
        sock.bind_unix(f"\0wireline-{os.urandom(8).hex()}")
        if kind != SOCK_DGRAM:
            sock.listen()
        arguments: tuple[object, ...] = () if name.startswith("accept") else (5,)
        if name.endswith("into"):
            arguments = (bytearray(5),)
        for seconds in (0, 0.001):
            with pytest.raises(SocketTimeout) as caught:
                getattr(sock, name)(*arguments, timeout=seconds)
            assert caught.value.operation == name
        waiting = Doing(lambda: getattr(sock, name)(*arguments))
        until(lambda: sock._fd.users)
        if kind == SOCK_DGRAM:
            with pytest.raises(BusyError, match=f"^{name}: "):
                getattr(sock, name)(*arguments)
        sock.close()
        outcome = waiting.get()
        assert isinstance(outcome, ClosedError)
        assert f" {name}: " in str(outcome)


# The number of bytes sent.


def test_last_bytes_sent_is_right_after_every_call(pair: Pair) -> None:
    """FB2, W9: after a call that was refused, or that found the buffers full, it was that of the call before."""
    sock, peer = pair
    sock.send(b"12345")
    assert sock.last_bytes_sent == 5
    refused: list[Callable[[], object]] = [
        lambda: sock.send("text"),  # type: ignore[arg-type]
        lambda: sock.send(b"x", 99),  # type: ignore[arg-type]
        lambda: sock.send(b"x", timeout=-1),
        lambda: sock.send_many(["text"]),  # type: ignore[list-item]
        lambda: sock.send_some("text"),  # type: ignore[arg-type]
        lambda: sock.send_some(b"x", -1),
        lambda: sock.try_send("text"),  # type: ignore[arg-type]
    ]
    for call in refused:
        sock.last_bytes_sent = 5
        with pytest.raises((TypeError, ValueError)):
            call()
        assert sock.last_bytes_sent == 0
    sock.send_many([b"1234", b"567"])
    assert sock.last_bytes_sent == 7
    assert sock.send_some(b"123") == sock.last_bytes_sent == 3
    assert sock.try_send(b"12")
    assert sock.last_bytes_sent == 2
    sent = 5 + 7 + 3 + 2
    assert not sock.try_send(bytes(1_000_000))
    part = sock.last_bytes_sent
    assert 0 < part < 1_000_000
    for call in (
        lambda: sock.send(bytes(10_000), LOUD, 0.001),
        lambda: sock.send_many([bytes(10_000)], LOUD, 0.001),
        lambda: sock.send_some(bytes(10_000), 0.001),
    ):
        sock.last_bytes_sent = 99
        with pytest.raises(SocketTimeout):
            call()
        assert sock.last_bytes_sent == 0
    sock.last_bytes_sent = 99
    assert not sock.try_send(b"x")
    assert sock.last_bytes_sent == 0
    received = 0
    while received < sent + part:
        received += len(peer.recv(65536))
    assert received == sent + part


def test_last_bytes_sent_of_one_that_waits_for_its_turn(pair: Pair) -> None:
    """FB2, W9: it was that of the call before."""
    sock, peer = pair
    first = Doing(lambda: sock.send(bytes(1_000_000)))
    until(lambda: not sock._io.write_lock.free)
    for call in (lambda: sock.send(b"x", LOUD, 0.001), lambda: sock.send_some(b"x", 0.001)):
        sock.last_bytes_sent = 99
        with pytest.raises(SocketTimeout):
            call()
        assert sock.last_bytes_sent == 0
    received = 0
    while received < 1_000_000:
        received += len(peer.recv(65536))
    assert first.get() is None


def test_last_bytes_sent_of_datagrams() -> None:
    """FB2, W9: ``send_to`` and ``send_some`` left it as it was."""
    with Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP) as sock, Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP) as other:
        other.bind_addr(0, "127.0.0.1")
        port = other.local_addr.port
        assert sock.send_to("127.0.0.1", port, b"12345") == sock.last_bytes_sent == 5
        with pytest.raises(OSError, match="send_to"):
            sock.send(b"x")
        assert sock.last_bytes_sent == 0
        sock.connect("127.0.0.1", port)
        sock.send(b"123")
        assert sock.last_bytes_sent == 3
        assert sock.send_some(b"1234") == sock.last_bytes_sent == 4
        assert sock.try_send(b"12")
        assert sock.last_bytes_sent == 2
        with pytest.raises(OSError, match="too long"):
            sock.send_to("127.0.0.1", port, bytes(100_000))
        assert sock.last_bytes_sent == 0
        sock.last_bytes_sent = 99
        assert not sock.try_send(bytes(100_000))
        assert sock.last_bytes_sent == 0
