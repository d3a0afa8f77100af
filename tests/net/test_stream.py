"""``net._stream_io`` on platforms that lack something, and with errors that no peer can cause."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.descriptors import only
from wireline import AF_UNIX, SOCK_DGRAM, BusyError, ClosedError, SocketFlag, SocketTimeout, _stream_common
from wireline.net import Socket, _socket, _stream_io
from wireline.options import NO_SIGNAL
from wireline.testing import pair

NO_FLAGS = SocketFlag(0)


class Wire:
    """A wireline socket and one of the standard library, connected."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            self.peer, _ = listener.accept()
        self.peer.settimeout(5)
        self.sock = Socket.from_socket(here)

    def close(self) -> None:
        self.sock.close()
        self.peer.close()


def later(call: Callable[..., Any], *args: Any) -> threading.Timer:
    """Make a call soon, from another thread."""
    timer = threading.Timer(0.02, call, args)
    timer.start()
    return timer


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


# One message after the other.


@pytest.fixture
def resting(wire: Wire) -> Wire:
    """Its last read returned one receive as it was, so the next `recv_some` does not ask the core."""
    for _ in range(2):
        wire.peer.send(b"message")
        assert wire.sock.recv_some() == b"message"
    assert wire.sock._io.core is not None
    assert wire.sock._io.core.fast_recv_ok
    return wire


def test_R2_bytes_above_the_size_stay_for_the_next_read(resting: Wire) -> None:
    resting.peer.send(b"12345")
    assert resting.sock.recv_some(2) == b"12"
    assert resting.sock.recv_some() == b"345"
    with pytest.raises(ValueError, match="negative"):
        resting.sock.recv_some(-1)
    assert resting.sock.recv_some(0) == b""


def test_R12_an_end_and_a_reset_are_reported_every_time(resting: Wire) -> None:
    resting.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    resting.peer.close()
    assert [resting.sock.recv_some(), resting.sock.recv_some()] == [b"", b""]
    with pytest.raises(ConnectionResetError):
        resting.sock.recv_some(flags=NO_FLAGS)


@pytest.mark.parametrize(
    "read",
    [
        lambda sock: sock.recv_line(0),
        lambda sock: sock.recv_exactly(2, 0),
        lambda sock: sock.recv_until(b"x", timeout=0),
        lambda sock: sock.recv(2, 0),
    ],
)
def test_R5_bytes_that_a_read_in_between_has_buffered_are_there(
    resting: Wire, read: Callable[[Socket], bytes]
) -> None:
    with pytest.raises(SocketTimeout):
        resting.sock.recv_some(timeout=0)
    resting.peer.send(b"a")
    select.select([resting.sock], [], [], 5)
    with pytest.raises(SocketTimeout):
        read(resting.sock)
    assert resting.sock.recv_some() == b"a"


def test_R2_a_read_of_nothing_receives_nothing(resting: Wire) -> None:
    def receive() -> Iterator[bytes]:
        yield pytest.fail("it receives")

    resting.sock._io.receive = receive()
    assert resting.sock.recv_some(0) == b""


def test_lines_that_are_split_ahead_are_iterated_in_order(wire: Wire) -> None:
    expected = [b"%d" % number for number in range(1000)]
    wire.peer.sendall(b"\n".join(expected) + b"\n")
    lines = wire.sock.lines()
    assert [next(lines) for _ in expected] == expected


def test_R14_a_close_during_a_fast_read_closes_the_descriptor(resting: Wire) -> None:
    def close_and_receive() -> Iterator[bytes]:
        resting.sock.close(linger=0)
        yield b"data"

    fd = resting.sock.fileno()
    resting.sock._io.receive = close_and_receive()
    assert resting.sock.recv_some() == b"data"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_R14_a_close_during_a_send_closes_the_descriptor(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sender:
        def send(self, data: bytes, flags: int) -> int:
            wire.sock.close(linger=0)
            return len(data)

    fd = wire.sock.fileno()
    monkeypatch.setattr(wire.sock._io, "sender", Sender())
    wire.sock.send(b"x")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_R11_R13_the_second_reader_is_refused_and_close_wakes_the_first(resting: Wire) -> None:
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(resting.sock.recv_some)
        while resting.sock._io.core_slot:
            time.sleep(0)
        with pytest.raises(BusyError):
            resting.sock.recv_some()
        resting.sock.close()
        with pytest.raises(ClosedError):
            reading.result(5)
    with pytest.raises(ClosedError):
        resting.sock.recv_some()


# Platforms.


@pytest.fixture(params=["everything", "no MSG_DONTWAIT", "no poll", "neither"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The features of a platform. Windows has no MSG_DONTWAIT and no poll."""
    if request.param in ("no MSG_DONTWAIT", "neither"):
        monkeypatch.setattr(_stream_io, "DONT_WAIT", 0)
        for module in (_stream_io, _stream_common):
            monkeypatch.setattr(module, "NOW", NO_SIGNAL)
        monkeypatch.setattr(_socket, "KERNEL_WAITS", False)
    if request.param in ("no poll", "neither"):
        monkeypatch.delattr(select, "poll")


@pytest.fixture
def anywhere(platform: None) -> Iterator[Wire]:
    """A wire on each platform."""
    wire = Wire()
    yield wire
    wire.close()


@pytest.mark.parametrize("timeout", [None, 5])
def test_reading_on_every_platform(anywhere: Wire, timeout: float | None) -> None:
    sock, peer = anywhere.sock, anywhere.peer
    with pytest.raises(SocketTimeout):
        sock.recv(1, timeout=0)
    with pytest.raises(SocketTimeout):
        sock.recv(1, timeout=0.02)
    timer = later(peer.send, b"line\nrest")
    assert sock.recv_line(timeout) == b"line"
    timer.join()
    assert sock.recv(4, timeout) == b"rest"
    data = bytes(300_000)
    sender = later(peer.sendall, data)
    assert sock.recv_exactly(len(data), timeout) == data
    sender.join()
    timer = later(peer.close)
    assert sock.recv_some(timeout=timeout) == b""
    timer.join()


@pytest.mark.parametrize("timeout", [None, 5])
def test_writing_on_every_platform(anywhere: Wire, timeout: float | None) -> None:
    sock, peer = anywhere.sock, anywhere.peer
    data = bytes(range(256)) * 40_000
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(peer.recv(100_000))

    reader = later(read)
    sock.send(data, timeout=timeout)
    reader.join()
    assert got == data
    more = bytes(100_000_000)
    with pytest.raises(SocketTimeout) as caught:
        sock.send(more, timeout=0.02)
    assert 0 < (caught.value.bytes_sent or 0) < len(more)
    assert sock.try_send(more) is False
    peer.close()
    sock.send(data, timeout=timeout)
    with pytest.raises(BrokenPipeError):
        sock.send(data, NO_FLAGS, timeout)


@pytest.mark.parametrize("timeout", [None, 5])
def test_R13_closing_on_every_platform(platform: None, timeout: float | None) -> None:
    calls: list[Callable[[Socket], object]] = [
        lambda sock: sock.recv(1, timeout),
        lambda sock: next(sock.lines(timeout=timeout)),
        lambda sock: sock.send(bytes(20_000_000), timeout=timeout),
    ]
    for call in calls:
        wire = Wire()
        timer = later(wire.sock.close)
        with pytest.raises(ClosedError):
            call(wire.sock)
        timer.join()
        wire.close()
    for make in (lambda: Socket(AF_UNIX, SOCK_DGRAM), listener):
        sock = make()
        timer = later(sock.close)
        with pytest.raises(ClosedError):
            if make is not listener:
                sock.recv_from(10, timeout=timeout)
            else:
                sock.accept(timeout=timeout)
        timer.join()


def listener() -> Socket:
    sock = Socket()
    sock.bind_addr(0, "127.0.0.1")
    sock.listen()
    return sock


def test_connecting_and_accepting_on_every_platform(platform: None) -> None:
    with listener() as here, Socket() as sock:
        with pytest.raises(SocketTimeout):
            here.accept(timeout=0.02)
        sock.connect("127.0.0.1", here.local_addr.port, timeout=5)
        with here.accept(timeout=5) as client:
            client.send(b"hello\n")
            assert sock.recv_line() == b"hello"
    with Socket() as bound, Socket() as sock:
        bound.bind_addr(0, "127.0.0.1")
        with pytest.raises(ConnectionRefusedError):
            sock.connect("127.0.0.1", bound.local_addr.port, timeout=5)


# A kernel that says one thing and does another.


class Once:
    """Replaces a method of every standard library socket: the first calls raise, the others are as they were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *errors: OSError) -> None:
        self.errors = list(errors)
        real = getattr(socket.socket, name)

        def method(sock: socket.socket, *args: Any) -> Any:
            if self.errors:
                raise self.errors.pop(0)
            return real(sock, *args)

        monkeypatch.setattr(socket.socket, name, method)


def test_a_descriptor_that_only_looked_readable(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.peer.send(b"line\n")
    once = Once(monkeypatch, "recv", BlockingIOError(errno.EAGAIN, "not yet"))
    assert wire.sock.recv_line(timeout=5) == b"line"
    assert not once.errors


def test_a_descriptor_that_only_looked_writable(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    once = Once(monkeypatch, "send", BlockingIOError(errno.EAGAIN, "not yet"))
    wire.sock.send(b"whole", timeout=5)
    assert not once.errors
    assert wire.peer.recv(9) == b"whole"


def test_R3_a_kernel_that_always_has_one_byte_more(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.peer.send(b"ready")
    monkeypatch.setattr(socket.socket, "recv", lambda *_: b"x")
    start = time.monotonic()
    with pytest.raises(SocketTimeout):
        wire.sock.recv_exactly(10**9, timeout=0.05)
    assert 0.04 < time.monotonic() - start < 5


@pytest.mark.parametrize("timeout", [None, 5])
def test_R12_any_other_failure_is_an_error_every_time(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    wire.peer.send(b"before")
    assert wire.sock.recv(3, timeout) == b"bef"
    wire.peer.send(b"unread")
    Once(monkeypatch, "recv", OSError(errno.ETIMEDOUT, "the network is gone"))
    wire.sock._io._receive_as = (0, 0)  # it keeps the method that it calls
    with pytest.raises(OSError, match="the network is gone"):
        wire.sock.recv_exactly(9, timeout)
    assert wire.sock.recv(9, timeout) == b"ore"
    for _ in range(2):
        for read in (wire.sock.recv, wire.sock.recv_exactly, wire.sock.skip):
            with pytest.raises(OSError, match="the network is gone") as caught:
                read(1, timeout)
            assert caught.value.errno == errno.ETIMEDOUT


def test_W2_any_other_failure_of_send_is_raised(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in (SocketFlag.SAFE_DISCONN, NO_FLAGS):
        Once(monkeypatch, "send", OSError(errno.ENOBUFS, "no room"))
        with pytest.raises(OSError, match="no room") as caught:
            wire.sock.send(b"x", flags)
        assert any("send" in note for note in caught.value.__notes__)
        monkeypatch.undo()
    assert wire.sock.try_send(b"x") is True
    Once(monkeypatch, "send", OSError(errno.ENOBUFS, "no room"))
    assert wire.sock.try_send(b"x") is False


def test_a_half_close_that_fails_is_raised_and_of_a_peer_that_is_gone_is_not(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in (errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE):
        Once(monkeypatch, "shutdown", OSError(code, "gone"))
        wire.sock.shutdown_write()
        monkeypatch.undo()
    Once(monkeypatch, "shutdown", OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        wire.sock.shutdown_write()
    monkeypatch.undo()


def test_a_connect_that_is_interrupted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as here, Socket() as sock:
        monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.ENETUNREACH)
        with pytest.raises(OSError, match="unreachable"):
            sock.connect("127.0.0.1", here.local_addr.port)
        monkeypatch.undo()
        sock.connect("127.0.0.1", here.local_addr.port)


def test_C3_without_a_new_descriptor_the_failure_of_connect_is_reported() -> None:
    with Socket() as bound, listener() as here, Socket() as sock:
        bound.bind_addr(0, "127.0.0.1")
        with only(0), pytest.raises(ConnectionRefusedError):
            sock.connect("127.0.0.1", bound.local_addr.port)
        sock.connect("127.0.0.1", here.local_addr.port, timeout=5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this host")
def test_C3_after_a_bind_that_fails_the_next_connect_binds_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Socket() as refusing, listener() as here, Socket() as sock:
        refusing.bind_addr(0, "127.0.0.1")
        sock.bind_addr(0, "127.0.0.2")
        once = Once(monkeypatch, "bind", OSError(errno.EADDRINUSE, "in use for a moment"))
        with pytest.raises(ConnectionRefusedError):
            sock.connect("127.0.0.1", refusing.local_addr.port)
        assert not once.errors
        sock.connect("127.0.0.1", here.local_addr.port, timeout=5)
        assert sock.local_addr.host == "127.0.0.2"


def test_the_accepted_descriptor_is_closed_when_it_cannot_be_prepared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with listener() as here, socket.create_connection(here.local_addr) as peer:
        Once(monkeypatch, "setsockopt", OSError(errno.EINVAL, "no such option"))
        with pytest.raises(OSError, match="no such option"):
            here.accept(timeout=5)
        assert peer.recv(1) == b""


def test_the_alias_of_send(wire: Wire) -> None:
    sock = wire.sock
    sock &= b"by operator"
    assert sock is wire.sock
    assert wire.peer.recv(99) == b"by operator"


def test_socket_error_is_for_calls_made_by_hand(wire: Wire) -> None:
    sock = wire.sock
    sock.socket_error(0)
    sock.socket_error(5)
    with pytest.raises(OSError, match="no error code"):
        sock.socket_error()
    with pytest.raises(ConnectionRefusedError):
        sock.socket_error(-1, last_error=errno.ECONNREFUSED)
    sock.socket_error(-1, last_error=errno.EPIPE)
    with pytest.raises(BrokenPipeError):
        sock.socket_error(-1, last_error=errno.EPIPE, flags=NO_FLAGS)
    sock.socket_error(-1, True, errno.EAGAIN)
    with pytest.raises(BlockingIOError):
        sock.socket_error(-1, False, errno.EAGAIN)


def test_the_pending_error_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound, socket.socket() as raw:
        bound.bind(("127.0.0.1", 0))
        raw.setblocking(False)
        raw.connect_ex(bound.getsockname())
        select.select([], [raw], [], 5)
        with Socket.from_socket(raw) as sock:
            assert sock.get_socket_error() == errno.ECONNREFUSED
            assert sock.get_socket_error() == 0


def test_names_of_sockets() -> None:
    with Socket(socket.AF_INET6, SOCK_DGRAM) as udp, listener() as here, Socket(AF_UNIX) as unix:
        udp.bind_addr(0, "::1")
        assert f"IPv6 datagram, local=[::1]:{udp.local_addr.port}, unconnected" in repr(udp)
        assert f"IPv4 stream, local=127.0.0.1:{here.local_addr.port}, listening" in repr(here)
        assert "Unix stream" in repr(unix)
        with Socket() as sock:
            sock.connect(*here.local_addr)
            assert f"peer=127.0.0.1:{here.local_addr.port}, connected" in repr(sock)
        assert repr(sock) == "<wireline.net.Socket IPv4 stream, closed>"


def test_output_of_a_read_is_sent_at_once_or_by_the_thread_that_writes() -> None:
    with pair("tls") as (sock, peer):
        core = sock._io.core
        assert core is not None
        permit = sock._io.acquire_permit(sock, "send", None)
        core.close_notify()
        sock._io.send_output(sock)
        assert core.has_output
        del permit
        sock._io.release_permit(sock)
        assert not core.has_output
        assert peer.recv_some(timeout=5) == b""
        peer._io.core.close_notify()  # type: ignore[union-attr]
        peer._io.send_output(peer)
        assert sock.recv_some(timeout=5) == b""
        peer.close()
