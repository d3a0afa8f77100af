"""F1: descriptors pass over Unix sockets, no read loses them, and none is left open."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import gc
import itertools
import os
import resource
import socket
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from ssl import TLSVersion

import pytest

from tests.scenarios import tls
from tests.scenarios.flavours import Sock
from tests.scenarios.scene import (
    Scene,
    Wire,
    arrived,
    begin,
    fill,
    in_thread,
    over,
    read_exactly,
    soon,
)
from wireline import BUFFER_SIZE, BusyError, SocketFlag, SocketTimeout
from wireline.tls import SslError

over_unix = over("unix")

pytestmark = [pytest.mark.anyio, pytest.mark.readiness]

AT_MOST = 253
"""Descriptors that one message has, and that a socket keeps."""


@pytest.fixture
def files() -> Iterator[list[int]]:
    """Four files."""
    fds = [*os.pipe(), *os.pipe()]
    yield fds
    close(fds)


def send(peer: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    assert socket.send_fds(peer, [data], fds) == len(data)


def same(fds: Sequence[int], others: Sequence[int]) -> bool:
    """Whether these are the same files; close the first ones."""
    inodes = [os.fstat(fd).st_ino for fd in fds]
    close(fds)
    return inodes == [os.fstat(fd).st_ino for fd in others]


def open_fds() -> int:
    """Count descriptors, without the loop's own for readiness."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the directory
            count += "eventpoll" not in os.readlink(f"/proc/self/fd/{fd}")
    return count


@contextlib.contextmanager
def no_descriptor_is_lost() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


def close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


READS: dict[str, Callable[[Sock], object]] = {
    "recv": lambda sock: sock.recv(6, 5),
    "peek": lambda sock: sock.recv(6, 5, SocketFlag.PEEK),
    "recv_into": lambda sock: sock.recv_into(bytearray(6), timeout=5),
    "recv_some": lambda sock: sock.recv_some(),
    "recv_some_into": lambda sock: sock.recv_some_into(bytearray(10), 5),
    "recv_exactly": lambda sock: sock.recv_exactly(6),
    "recv_until": lambda sock: sock.recv_until(b"\n"),
    "recv_line": lambda sock: sock.recv_line(),
    "recv_line_into": lambda sock: sock.recv_line_into(bytearray(), 5),
    "lines": lambda sock: anext(aiter(sock.lines())),
    "frames": lambda sock: anext(aiter(sock.frames(lambda view: (6, 0) if len(view) >= 6 else None))),
    "recv_frame": lambda sock: sock.recv_frame(struct.Struct("!5sB"), length_adjust=-10),
    "recv_struct": lambda sock: sock.recv_struct("6s", 5),
    "fill": lambda sock: sock.fill(6),
    "skip": lambda sock: sock.skip(6),
}


@over_unix
async def test_F1_every_read_keeps_the_descriptors_of_its_bytes(scene: Scene, files: list[int]) -> None:
    for buffered, (name, read) in itertools.product((True, False), READS.items()):
        sock, peer = await scene.wire(buffered=buffered)
        with no_descriptor_is_lost():
            waiting = await begin(_awaited(read(sock)), 0)
            send(peer, b"12345\n", files)
            await soon(waiting)
            unread = b"12345\n" if name in ("peek", "fill") else b""
            received = await soon(sock.recv_fds(len(unread), 4))
            assert received == (unread, received.fds, 0), name
            assert not any(map(os.get_inheritable, received.fds))
            assert same(received.fds, files), name
            send(peer, b"line\n", files[:1])
            await arrived(sock, 5)
            assert sock.try_recv_line()[1] == b"line"
            send(peer, b"x", files[1:2])
            await arrived(sock, 1)
            assert sock.try_recv() == b"x"
            assert same((await sock.recv_fds(0, 9)).fds, files[:2])
        sock.close()


async def _awaited(awaitable: object) -> object:
    return await awaitable  # type: ignore[misc]


@over_unix
async def test_F1_descriptors_keep_their_place(scene: Scene, files: list[int]) -> None:
    for check in (_their_place_in_the_kernel, _their_place_in_the_buffer, _a_message_has_its_own):
        sock, peer = await scene.wire()
        await check(sock, peer, files)


async def _their_place_in_the_kernel(sock: Sock, peer: socket.socket, files: list[int]) -> None:
    """The kernel joins bytes to the descriptors behind them, and never to those before them."""
    peer.send(b"plain")
    send(peer, b"one", files[:1])
    send(peer, b"two", files[1:3])
    peer.send(b"end")
    await arrived(sock, 14)
    assert await sock.recv_fds(5, 9) == (b"plain", [], 0)
    for data, expected in ((b"one", files[:1]), (b"two", files[1:3])):
        received = await sock.recv_fds(100, 9)
        assert received == (data, received.fds, 0)
        assert same(received.fds, expected)
    assert await sock.recv_fds(100, 9) == (b"end", [], 0)


async def _their_place_in_the_buffer(sock: Sock, peer: socket.socket, files: list[int]) -> None:
    send(peer, b"one", files[:1])
    send(peer, b"two", files[1:3])
    send(peer, b"three", files[3:])
    peer.send(b"end")
    assert await soon(sock.fill(14)) == b"onetwothreeend"
    assert await sock.recv_fds(0, 9) == (b"", [], 0)
    for size, data, expected in ((2, b"on", files[:1]), (5, b"etwo", files[1:3])):
        received = await sock.recv_fds(size, 9)
        assert received == (data, received.fds, 0)
        assert same(received.fds, expected)
    sock.unread(b"again")
    received = await sock.recv_fds(5, 9)
    assert received == (b"again", [], 0)
    assert await sock.recv_exactly(5) == b"three"
    received = await sock.recv_fds(100, 9)
    assert received == (b"end", received.fds, 0)
    assert same(received.fds, files[3:])


async def _a_message_has_its_own(sock: Sock, peer: socket.socket, files: list[int]) -> None:
    """What does not fit beside those of an earlier message waits for the next call, with its bytes."""
    send(peer, b"a", files[:1])
    send(peer, b"b", files[1:2])
    send(peer, b"c", files[2:4])
    await arrived(sock, 3)
    assert await sock.fill(3) == b"abc"
    assert await sock.recv_exactly(1) == b"a"
    for data, expected, closed in ((b"", files[:1], 0), (b"b", files[1:2], 0), (b"c", files[2:3], 1)):
        received = await sock.recv_fds(9, 1)
        assert received == (data, received.fds, closed)
        assert same(received.fds, expected)


@over("unix", "unixgram")
async def test_F1_descriptors_that_do_not_fit_are_closed_and_counted(scene: Scene, files: list[int]) -> None:
    sock, peer = await _ends(scene)
    with no_descriptor_is_lost():
        send(peer, b"x", files)
        received = await soon(sock.recv_fds(10, 1))
        assert received == (b"x", received.fds, 3)
        assert same(received.fds, files[:1])
        send(peer, b"y", files)
        assert await soon(sock.recv_fds(10, 0)) == (b"y", [], 4)
        send(peer, b"z", [])
        assert await soon(sock.recv_fds(10, 0)) == (b"z", [], 0)


async def _ends(scene: Scene) -> tuple[Sock, socket.socket]:
    """A socket of ours and its peer, over a stream or with datagrams."""
    if scene.transport.name == "unix":
        return await scene.wire()
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.settimeout(10)
    return scene.closed_at_the_end(scene.flavour.from_socket(one)), scene.closed_at_the_end(other)


@over("unix", "unixgram")
async def test_F1_send_fds_reaches_recv_fds_of_the_standard_library(scene: Scene, files: list[int]) -> None:
    sock, peer = await _ends(scene)
    await sock.send_fds(b"hello", files, 5)
    assert sock.last_bytes_sent == 5
    data, fds, _, _ = socket.recv_fds(peer, 100, 10)
    assert data == b"hello"
    assert same(fds, files)
    await sock.send_fds(bytearray(b"none"), (), None)
    assert socket.recv_fds(peer, 100, 10)[:2] == (b"none", [])


@pytest.mark.full
@over_unix
async def test_F1_ten_thousand_messages_with_descriptors(wire: Wire, files: list[int]) -> None:
    sock, peer = wire

    def all_messages() -> None:
        for _ in range(10_000):
            send(peer, b"x", files[:1])
        peer.shutdown(socket.SHUT_WR)

    with no_descriptor_is_lost():
        sending = asyncio.ensure_future(in_thread(all_messages))
        count = 0
        while (received := await soon(sock.recv_fds(BUFFER_SIZE, 3))).data:
            assert received == (b"x", received.fds, 0)
            assert same(received.fds, files[:1])
            count += 1
        await sending
    assert count == 10_000


@over_unix
async def test_F1_a_reader_that_never_asks_keeps_few(scene: Scene, files: list[int]) -> None:
    for buffered in (True, False):
        await _keeps_few(*await scene.wire(buffered=buffered), files)


async def _keeps_few(sock: Sock, peer: socket.socket, files: list[int]) -> None:
    before = open_fds()

    def all_messages() -> None:
        for _ in range(2_500):
            send(peer, b"x", files)
        peer.shutdown(socket.SHUT_WR)

    sending = asyncio.ensure_future(in_thread(all_messages))
    count = 0
    while await soon(sock.recv_some()):
        count += 1
        assert count % 100 or open_fds() <= before + AT_MOST
    await sending
    assert open_fds() == before + AT_MOST
    received = await sock.recv_fds(10, AT_MOST)
    assert received == (b"", received.fds, 10_000 - AT_MOST)
    assert len(set(received.fds)) == AT_MOST
    close(received.fds)
    assert open_fds() == before
    assert await sock.recv_fds(10, AT_MOST) == (b"", [], 0)


@over_unix
async def test_F1_close_and_the_collector_close_what_no_call_has_returned(
    scene: Scene, files: list[int]
) -> None:
    sock, peer = await scene.wire()
    gc.collect()
    before = open_fds()
    send(peer, b"x", files)
    assert await soon(sock.recv_some()) == b"x"
    assert open_fds() == before + 4
    sock.close()
    assert open_fds() == before - 1
    one, other = socket.socketpair()
    send(other, b"x", files)
    with other, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dropped = scene.flavour.socket_type.from_socket(one)  # type: ignore[attr-defined]
        assert dropped.try_recv() == b"x"
        assert open_fds() == before - 1 + 2 + 4
        del dropped
        gc.collect()
    assert open_fds() == before - 1


@pytest.mark.full
@over_unix
async def test_F1_the_end_of_the_stream_leaves_the_descriptors(scene: Scene, files: list[int]) -> None:
    sock, peer = await scene.wire()
    send(peer, b"x", files)
    await arrived(sock, 1)
    await scene.reset(Wire(sock, peer))
    assert await sock.recv(10) == b"x"
    received = await sock.recv_fds(10, 4)
    assert received == (b"", received.fds, 0)
    assert same(received.fds, files)


@over_unix
async def test_R5_a_timeout_or_a_cancellation_loses_no_descriptor(wire: Wire, files: list[int]) -> None:
    sock, peer = wire
    with pytest.raises(SocketTimeout) as caught:
        await sock.recv_fds(10, 4, 0)
    assert caught.value.operation == "recv_fds"
    with pytest.raises(SocketTimeout):
        await sock.recv_fds(10, 4, 0.01)
    send(peer, b"first", files[:1])
    with pytest.raises(SocketTimeout):
        await sock.recv_exactly(100, 0.01)
    waiting = await begin(sock.recv_exactly(100, 0.05))
    send(peer, b"second", files[1:2])
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError, SocketTimeout):
        await waiting
    for data, fds in ((b"first", files[:1]), (b"second", files[1:2])):
        # The blocking flavour's call may still be there.
        received = await soon(_when_free(sock))
        assert received == (data, received.fds, 0)
        assert same(received.fds, fds)


async def _when_free(sock: Sock) -> tuple[bytes, list[int], int]:
    while True:
        with contextlib.suppress(BusyError):
            return await sock.recv_fds(100, 4, 5)
        await asyncio.sleep(0.001)


@over("unix", "unixgram")
async def test_W9_a_send_that_runs_out_of_time_sends_descriptors_once(scene: Scene, files: list[int]) -> None:
    sock, peer = await _ends(scene)
    if scene.transport.name == "unixgram":
        with pytest.raises(SocketTimeout) as caught:
            for _ in range(10_000):
                await sock.send_fds(bytes(1000), files, 0)
        assert (caught.value.operation, sock.last_bytes_sent) == ("send_fds", 0)
        return
    fill(sock)
    with pytest.raises(SocketTimeout) as caught:
        await sock.send_fds(b"x", files, 0.01)
    assert (caught.value.operation, caught.value.bytes_sent, sock.last_bytes_sent) == ("send_fds", 0, 0)
    read_exactly_until_empty(peer)
    message = bytes(5_000_000)
    with pytest.raises(SocketTimeout) as caught:
        await sock.send_fds(message, files, 0.05)
    sent = sock.last_bytes_sent
    assert 0 < sent == caught.value.bytes_sent < len(message)
    waiting = await begin(sock.send(message[sent:], timeout=10))
    passed: list[int] = []
    size = 0
    while size < len(message):
        data, fds, flags, _ = await in_thread(socket.recv_fds, peer, 1 << 20, 100)
        assert not flags & socket.MSG_CTRUNC
        passed += fds
        size += len(data)
    await soon(waiting)
    assert same(passed, files)


def read_exactly_until_empty(peer: socket.socket) -> None:
    count = array.array("i", [0])
    fcntl.ioctl(peer, 0x541B, count)
    while count[0]:
        read_exactly(peer, count[0])
        fcntl.ioctl(peer, 0x541B, count)


@pytest.mark.full
@over_unix
async def test_F1_a_large_message_waits_for_its_reader(scene: Scene, files: list[int]) -> None:
    """The descriptors pass with the first byte, also where that has to wait."""
    client, server = await scene.pair()
    fill(client)
    message = b"\1" * 3_000_000
    sending = await begin(client.send_fds(message, files, 30))
    data = b""
    while data[:1] == b"\0" or not data:
        received = await soon(server.recv_fds(BUFFER_SIZE, 4))
        data = received.data.lstrip(b"\0")
    assert same(received.fds, files)
    while len(data) < len(message):
        data += await soon(server.recv_some(timeout=10))
    await soon(sending)
    assert client.last_bytes_sent == len(message)
    assert data == message


@over_unix
async def test_F1_descriptors_that_the_system_cannot_pass_are_counted(wire: Wire, files: list[int]) -> None:
    """EMFILE: the kernel delivers the bytes, and as many descriptors as it can."""
    sock, peer = wire
    before = open_fds()
    for free in (0, 1):
        waiting = await begin(sock.recv_fds(10, 4))
        highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
        fillers = [os.dup(0) for _ in range(highest - open_fds())]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            while (last := os.dup(0)) < highest - 1:
                fillers.append(last)
            fillers.append(last)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1 + free, hard))
            send(peer, b"x", files)
            received = await soon(waiting)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fillers:
                os.close(fd)
        assert received == (b"x", received.fds, 1)
        assert same(received.fds, files[:free])
    assert open_fds() == before


@over("tcp4", "unix")
async def test_F1_ip_sockets_and_tls_refuse_before_any_system_call(scene: Scene) -> None:
    kind, reason = TypeError, "needs a Unix socket, this is an IP socket"
    sock = scene.socket()
    if scene.transport.is_unix:
        sock._wrap(tls.context(TLSVersion.TLSv1_3), "localhost")
        kind, reason = SslError, "cannot carry descriptors"
    for call in (lambda: sock.send_fds(b"x", [0]), lambda: sock.recv_fds(1, 1)):
        with pytest.raises(kind, match=reason):
            await call()
