"""T5: a reader and a writer at both ends at the same time. ``ssl.SSLSocket`` breaks one connection in ten."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.asyncnet.loops import WAYS, Way
from tests.tls.memory import client_context, only, server_context
from wireline import asyncnet, net
from wireline.tls import SslContext

pytestmark = pytest.mark.stress

CONNECTIONS = 40
PATIENCE = 20.0
LOOPBACK = "127.0.0.1"

SIZES = (1, 100, 4096, 16_384, 17, 65_536, 3, 150_000, 16_383, 1, 1)
MESSAGES = 88
TOTAL = sum(itertools.islice(itertools.cycle(SIZES), MESSAGES))

PERIOD = 65_521
"""Bytes after which the pattern repeats. It is a prime, so a lost or doubled piece of any usual size is detected."""
_BLOCK = random.Random(1).randbytes(PERIOD)
PATTERN = _BLOCK * (3 + TOTAL // PERIOD)


def messages(start: int) -> Iterator[bytes]:
    """The messages of one end, which begin at ``start`` in the pattern."""
    for size in itertools.islice(itertools.cycle(SIZES), MESSAGES):
        yield PATTERN[start : start + size]
        start += size


class Check:
    """Checks that the received bytes are those of the pattern."""

    def __init__(self, start: int) -> None:
        self._position = self._start = start

    def __call__(self, data: bytes) -> None:
        assert data == PATTERN[self._position : self._position + len(data)], f"after {self.received} bytes"
        self._position += len(data)

    @property
    def received(self) -> int:
        return self._position - self._start


WAYS_TO_READ = 4


@pytest.fixture
def contexts(version: str) -> tuple[SslContext, SslContext]:
    """The contexts of client and server, with session tickets: some connections are resumed."""
    client, server = client_context(), server_context()
    only(version, client, server)
    return client, server


@pytest.fixture
def switch_often() -> Iterator[None]:
    """Switch threads every 50 us instead of every 5 ms, for more interleavings."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(50e-6)
    yield
    sys.setswitchinterval(before)


# ------------------------------------------------------------------------------------------------- threads


def write_all(sock: net.Socket, start: int, timeout: float | None) -> None:
    for message in messages(start):
        sock.send(message, timeout=timeout)
    sock.shutdown_write(timeout)


def read_all(sock: net.Socket, start: int, timeout: float | None) -> int:
    check = Check(start)
    target = bytearray(70_000)
    for turn in itertools.count():
        match turn % WAYS_TO_READ:
            case 0:
                data = sock.recv_some(timeout=timeout)
            case 1:
                data = sock.recv(40_000, timeout)
            case 2:
                data = sock.recv_some(1000, timeout)
            case _:
                data = bytes(target[: sock.recv_into(target, timeout=timeout)])
        if not data:
            return check.received
        check(data)
    raise AssertionError


@pytest.mark.parametrize("timeout", [None, PATIENCE], ids=["no-timeout", "timeout"])
@pytest.mark.usefixtures("switch_often")
def test_T5_a_reader_and_a_writer_thread_at_both_ends(
    contexts: tuple[SslContext, SslContext], timeout: float | None
) -> None:
    client_tls, server_tls = contexts
    with ThreadPoolExecutor(4 * CONNECTIONS) as pool, ExitStack() as stack:
        work: list[tuple[Future[None], Future[int]]] = []
        with net.Socket() as listener:
            server_tls.wrap_socket(listener)
            listener.bind_addr(0, LOOPBACK)
            listener.listen()
            for number in range(CONNECTIONS):
                accepting = pool.submit(listener.accept, timeout=PATIENCE)
                here = net.dial("localhost", listener.local_addr.port, tls=client_tls, timeout=PATIENCE)
                stack.enter_context(here)
                there = stack.enter_context(accepting.result(PATIENCE))
                for sender, receiver, start in ((here, there, number), (there, here, 1000 + number)):
                    work.append(
                        (
                            pool.submit(write_all, sender, start, timeout),
                            pool.submit(read_all, receiver, start, timeout),
                        )
                    )
        for writing, reading in work:
            writing.result(PATIENCE)
            assert reading.result(PATIENCE) == TOTAL


# ------------------------------------------------------------------------------------------------- tasks


async def write_all_async(sock: asyncnet.AsyncSocket, start: int) -> None:
    for message in messages(start):
        await sock.send(message)
    await sock.shutdown_write()


async def read_all_async(sock: asyncnet.AsyncSocket, start: int) -> int:
    check = Check(start)
    for turn in itertools.count():
        match turn % WAYS_TO_READ:
            case 0:
                data = await sock.recv_some()
            case 1:
                data = await sock.recv(40_000)
            case 2:
                data = await sock.recv_some(1000)
            case _:
                data = await sock.recv_some(70_000, PATIENCE)
        if not data:
            return check.received
        check(data)
    raise AssertionError


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_T5_a_reader_and_a_writer_task_at_both_ends(
    contexts: tuple[SslContext, SslContext], way: Way
) -> None:
    client_tls, server_tls = contexts
    served: list[int] = []

    async def handler(there: asyncnet.AsyncSocket, _: object) -> None:
        number = int(await there.recv_line())
        received, _nothing = await asyncio.gather(
            read_all_async(there, number), write_all_async(there, 1000 + number)
        )
        served.append(received)

    async def one(number: int, port: int) -> None:
        async with await asyncnet.dial("localhost", port, tls=client_tls, timeout=PATIENCE) as here:
            await here.send(b"%d\n" % number)
            received, _ = await asyncio.gather(
                read_all_async(here, 1000 + number), write_all_async(here, number)
            )
            assert received == TOTAL

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), asyncnet.serve(handler, 0, LOOPBACK, tls=server_tls) as server:
            await asyncio.gather(*(one(number, server.local_addr.port) for number in range(CONNECTIONS)))
            await server.stop(drain=PATIENCE)

    way.run(main)
    assert served == [TOTAL] * CONNECTIONS
