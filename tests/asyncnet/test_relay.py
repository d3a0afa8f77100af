"""``relay`` on a loop: given up at any await it loses no byte, and many relays share few pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from tests.asyncnet.loops import ALL_WAYS, Way, turns
from tests.asyncnet.streams import drain, narrow_wire, open_descriptors, pattern
from wireline import BusyError, RelayReport
from wireline._os import splice
from wireline.asyncnet import AsyncSocket, relay

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)

DATA = pattern(60_000, 1)


async def everything(near: AsyncSocket, far: socket.socket, arrived: bytes, size: int) -> bytes:
    """The bytes that have arrived, and then those that the next reads of the source return.

    On a loop without readiness a send that was begun goes on, and its bytes count as sent.
    """
    left = b""
    while len(arrived) + len(left) < size:
        await turns(1)
        arrived += drain(far)
        with contextlib.suppress(TimeoutError):
            left += await near.recv_some(timeout=0)
    return arrived + left


@every_way
async def test_a_relay_that_is_cancelled_at_any_await_loses_no_byte(way: Way) -> None:
    for count in range(30):
        with narrow_wire() as (a, near), narrow_wire() as (b, far):
            counts: list[int] = [0]
            running = asyncio.create_task(
                relay(a, b, progress=lambda up, _, counts=counts: counts.append(up))
            )  # type: ignore[misc]
            sent = 0
            arrived = b""
            for turn in range(count):
                with contextlib.suppress(BlockingIOError):
                    sent += near.send(DATA[sent : sent + 3000])
                if turn % 3 == 2:
                    arrived += drain(far)
                await turns(1)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            arrived += drain(far)
            assert len(arrived) == counts[-1] or "portable" in way.name
            assert await everything(a, far, arrived, sent) == DATA[:sent], count
            with pytest.raises(TimeoutError):
                await b.recv_some(timeout=0)


async def test_a_relay_that_is_cancelled_with_a_full_pipe_loses_no_byte(way: Way) -> None:
    data = pattern(6_000_000)
    with tcp_pair() as (near, ours), tcp_pair() as (far, theirs):
        a, b = AsyncSocket.from_socket(ours), AsyncSocket.from_socket(theirs)
        async with a, b:
            moved = [0]
            running = asyncio.create_task(relay(a, b, progress=lambda up, _: moved.append(up)))
            loop = asyncio.get_running_loop()
            sending = loop.run_in_executor(None, near.sendall, data)
            receiving = loop.run_in_executor(None, receive, far, 3_000_000)
            arrived = await receiving
            await asyncio.sleep(0.05)  # until the buffers are full; no event says so
            running.cancel()
            await asyncio.wait([running])
            assert len(splice._allowed) == splice._MAX_PIPES
            rest_there = loop.run_in_executor(None, receive, far, moved[-1] - 3_000_000)
            arrived += await rest_there
            arrived += await a.recv_exactly(len(data) - len(arrived), timeout=10)
            assert arrived == data
            await sending


def receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece
        data += piece
    return bytes(data)


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there = listener.accept()[0]
    with here, there:
        here.settimeout(10)
        yield here, there


async def test_a_relay_is_refused_while_a_task_uses_a_socket(way: Way) -> None:
    with narrow_wire() as (a, _), narrow_wire() as (b, far):
        reading = asyncio.create_task(b.recv_some())
        await turns(2)
        with pytest.raises(BusyError):
            await relay(a, b)
        far.send(b"x")
        assert await reading == b"x"


async def many(count: int, each: int) -> None:
    """Let relays run at once, and move bytes through each."""
    with contextlib.ExitStack() as stack:
        ends: list[tuple[socket.socket, socket.socket]] = []
        running: list[asyncio.Task[RelayReport]] = []
        for _ in range(count):
            near, ours = socket.socketpair()
            theirs, far = socket.socketpair()
            ends.append((stack.enter_context(near), stack.enter_context(far)))
            a, b = AsyncSocket.from_socket(ours), AsyncSocket.from_socket(theirs)
            stack.callback(a.close)
            stack.callback(b.close)
            running.append(asyncio.create_task(relay(a, b)))
        await asyncio.sleep(0)
        before = open_descriptors()
        for number, (near, _) in enumerate(ends):
            near.send(number.to_bytes(4) * each)
            near.shutdown(socket.SHUT_WR)
        for number, (_, far) in enumerate(ends):
            far.setblocking(False)
            got = bytearray()
            while len(got) < 4 * each:
                got += drain(far)
                await asyncio.sleep(0)
            assert got == number.to_bytes(4) * each
            far.shutdown(socket.SHUT_WR)
        assert open_descriptors() <= before + 2 * splice._MAX_PIPES + 2
        for report in await asyncio.gather(*running):
            assert (report.reason, report.a_to_b) == ("end", 4 * each)


async def test_many_relays_of_one_loop_take_no_descriptor_of_their_own(way: Way) -> None:
    await many(100, 1000)


@pytest.mark.full
@pytest.mark.stress
async def test_ten_thousand_relays_in_one_loop(way: Way) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(10_000, (hard - 200) // 4)
    if soft < 4 * count + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * count + 200), hard))
    try:
        await many(count, 100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_bulk_relays_share_the_pipes_that_a_process_may_have(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that get none copy; as many descriptors are open as two pipes have."""
    monkeypatch.setattr(splice, "_allowed", [None] * 2)
    data = pattern(3_000_000)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        running, ends = [], []
        for _ in range(4):
            near, ours = stack.enter_context(tcp_pair())
            far, theirs = stack.enter_context(tcp_pair())
            a, b = AsyncSocket.from_socket(ours), AsyncSocket.from_socket(theirs)
            stack.callback(a.close)
            stack.callback(b.close)
            running.append(asyncio.create_task(relay(a, b)))
            ends.append((near, far))
        before = len(os.listdir("/proc/self/fd"))
        sending = [loop.run_in_executor(None, near.sendall, data) for near, _ in ends]
        got = await asyncio.gather(*(loop.run_in_executor(None, receive, far, len(data)) for _, far in ends))
        await asyncio.gather(*sending)
        assert got == [data] * 4
        assert len(os.listdir("/proc/self/fd")) <= before + 4 + 1
        for near, far in ends:
            near.shutdown(socket.SHUT_WR)
            far.shutdown(socket.SHUT_WR)
        assert {report.a_to_b for report in await asyncio.gather(*running)} == {len(data)}
