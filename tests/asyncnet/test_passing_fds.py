"""R5 and W9 for passed descriptors: a call that is given up at any moment loses none, and sends none twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Iterator

import pytest

from tests.asyncnet.loops import WAYS, Way, turns
from tests.asyncnet.streams import HOWS, LEFT, GivenUp, cancelled_at, narrow_wire, pattern, wire
from wireline import SocketTimeout
from wireline._os.passed_fds import ReceivedFds
from wireline.asyncnet import AsyncSocket

polled = pytest.mark.parametrize("way", [way for way in WAYS if not way.portable], ids=lambda way: way.name)


@pytest.fixture
def fd() -> Iterator[int]:
    """An open file."""
    one, other = os.pipe()
    os.close(other)
    yield one
    os.close(one)


def send(peer: socket.socket, data: bytes, fd: int, count: int) -> None:
    socket.send_fds(peer, [data], [fd] * count)


def taken(*all_received: ReceivedFds) -> tuple[bytes, int, int]:
    """The bytes, the number of descriptors, which are closed, and that of those that were closed before."""
    for received in all_received:
        for fd in received.fds:
            os.close(fd)
    return (
        b"".join(received.data for received in all_received),
        sum(len(received.fds) for received in all_received),
        sum(received.truncated for received in all_received),
    )


def sent_to(peer: socket.socket) -> tuple[bytes, int]:
    """What has arrived at a raw peer: the bytes, and how many descriptors."""
    data, count = b"", 0
    with contextlib.suppress(BlockingIOError):
        while True:
            piece, fds, _, _ = socket.recv_fds(peer, 65536, 253)
            for fd in fds:
                os.close(fd)
            if not piece:
                break
            data, count = data + piece, count + len(fds)
    return data, count


async def rest_of(sock: AsyncSocket) -> list[ReceivedFds]:
    """Everything that is left to receive, of which some may be received already."""
    received = [await sock.recv_fds(0, 253)]
    with contextlib.suppress(SocketTimeout):
        while True:
            received.append(await sock.recv_fds(1000, 253, 0))
    received.append(await sock.recv_fds(0, 253))
    return received


@polled
async def test_R5_recv_fds_that_is_given_up_at_any_moment_loses_nothing(way: Way, fd: int) -> None:
    for how, count in itertools.product(HOWS, range(4)):
        for stage in range(3):
            with wire() as (sock, peer):
                call = GivenUp(how, lambda timeout, sock=sock: sock.recv_fds(100, 5, timeout))
                await turns(3)
                for number in range(stage):
                    send(peer, b"one" if number == 0 else b"two", fd, number + 2)
                    await turns(count)
                await call.give_up()
                outcome = await call.outcome()
                for number in range(stage, 2):
                    send(peer, b"one" if number == 0 else b"two", fd, number + 2)
                received = [] if outcome is LEFT else [outcome]
                assert taken(*received, *await rest_of(sock)) == (b"onetwo", 5, 0), (how, count, stage)


@polled
async def test_R5_reads_that_are_cancelled_keep_descriptors(way: Way, fd: int) -> None:
    for arrived, soon in itertools.product((False, True), (False, True)):
        for read in (lambda sock: sock.recv_exactly(6), lambda sock: sock.recv_fds(100, 5)):
            with wire() as (sock, peer):
                if arrived:
                    send(peer, b"one", fd, 2)
                outcome, _ = await cancelled_at(1, soon, read(sock))
                if not arrived:
                    send(peer, b"one", fd, 2)
                send(peer, b"two", fd, 3)
                received = [outcome] if isinstance(outcome, ReceivedFds) else []
                assert taken(*received, *await rest_of(sock)) == (b"onetwo", 5, 0)


async def test_W9_send_fds_that_is_given_up_at_any_moment_sends_descriptors_once(way: Way, fd: int) -> None:
    message = pattern(100_000)
    for how, count, waits in itertools.product(HOWS, range(3), (False, True)):
        with narrow_wire() as (sock, peer):
            if waits:  # for space in the send buffer
                while sock.try_send(bytes(1000)):
                    pass
            call = GivenUp(how, lambda timeout, sock=sock: sock.send_fds(message, [fd, fd], timeout))
            await turns(2)
            data, passed = b"", 0
            for _ in range(count):
                piece, fds = sent_to(peer)
                data, passed = data + piece, passed + fds
                await turns(1)
            await call.give_up()
            outcome = await call.outcome()
            size = sock.last_bytes_sent
            assert outcome is LEFT, (how, count, waits)
            while len(data.lstrip(b"\0")) < size:
                piece, fds = sent_to(peer)
                data, passed = data + piece, passed + fds
                await turns(1)
            assert data.lstrip(b"\0") == message[:size], (how, count, waits)
            assert passed == (2 if size else 0), (how, count, waits)


@pytest.mark.full
async def test_W9_send_fds_waits_for_its_turn(way: Way, fd: int) -> None:
    with narrow_wire() as (sock, peer):
        first = asyncio.create_task(sock.send(b"a" * 50_000))
        await turns(2)
        second = asyncio.create_task(sock.send_fds(b"b" * 50_000, [fd]))
        third = asyncio.create_task(sock.send_fds(b"c", [fd], 0.001))
        with pytest.raises(SocketTimeout) as caught:
            await third
        assert (caught.value.operation, caught.value.bytes_sent) == ("send_fds", 0)
        data, passed = b"", 0
        while len(data) < 100_000:
            piece, fds = sent_to(peer)
            data, passed = data + piece, passed + fds
            await turns(1)
        await first
        await second
        assert (data, passed) == (b"a" * 50_000 + b"b" * 50_000, 1)
