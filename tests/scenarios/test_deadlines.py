"""D1: a ``Deadline`` wherever a timeout may stand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.scenarios.calls import READS
from tests.scenarios.scene import (
    TOO_LONG,
    Scene,
    Stopwatch,
    Wire,
    dripping,
    fill,
    over,
    over_one,
    over_one_and_tls,
)
from wireline import AF_INET, SOCK_DGRAM, Deadline, SocketTimeout

pytestmark = [pytest.mark.anyio, over_one_and_tls]

LIMIT = 0.05


async def twice(call: Callable[[Deadline], Awaitable[object]]) -> None:
    """Make a call that cannot succeed under one deadline: first it waits, then it does not."""
    for _ in range(10):
        limit = Deadline(LIMIT)
        with Stopwatch() as took:
            with pytest.raises(SocketTimeout) as first:
                await call(limit)
            with pytest.raises(SocketTimeout) as second:
                await call(limit)
        if first.value.seconds:
            break  # else a busy machine has spent the whole limit before the first call looked at it
    assert LIMIT * 0.9 < took.seconds < TOO_LONG
    assert 0 < first.value.seconds <= LIMIT
    assert second.value.seconds < 0.005  # a timer of uvloop may go off that early
    assert first.value.operation == second.value.operation


async def test_D1_several_reads_share_one_deadline(wire: Wire) -> None:
    for read in READS.values():
        await twice(lambda limit, read=read: read(wire.sock, limit))  # type: ignore[misc]
    wire.peer.sendall(b"here")
    await twice(lambda limit: wire.sock.recv_exactly(5, limit))
    assert await wire.sock.recv_exactly(4, Deadline(5)) == b"here"


@over("tcp4")
async def test_D1_whatever_waits_takes_a_deadline(scene: Scene) -> None:
    listener = scene.listener()
    await twice(lambda limit: listener.accept(timeout=limit))
    await twice(lambda limit: listener.accept_addr(timeout=limit))
    datagrams = scene.closed_at_the_end(scene.flavour.socket(AF_INET, SOCK_DGRAM))
    datagrams.bind_addr(0, "127.0.0.1")
    await twice(lambda limit: datagrams.recv_from(10, timeout=limit))
    await twice(lambda limit: datagrams.recv_from_into(bytearray(10), timeout=limit))
    await twice(lambda limit: datagrams.recv_many_from(timeout=limit))
    nowhere = scene.black_hole()
    await twice(lambda limit: scene.dial(*nowhere, timeout=limit))
    await twice(lambda limit: scene.socket().connect(*nowhere, timeout=limit))
    pair = await scene.pair()
    fill(pair.client)
    data = bytes(1_000_000)  # a little more than nothing may fit, a moment later
    await twice(lambda limit: pair.client.send(data, timeout=limit))
    await twice(lambda limit: pair.client.send_many([data], timeout=limit))
    server = await scene.serve(lambda client, _: client.recv_some())
    await twice(lambda limit: server.wait(limit))
    assert await server.stop(Deadline(0)) == (0, 0)


@over_one
async def test_D1_an_iterator_of_lines_ends_at_its_deadline(wire: Wire) -> None:
    count = 0
    with dripping(wire.peer, b"line\n", every=0.01), Stopwatch() as took:
        with pytest.raises(SocketTimeout):
            async for _ in wire.sock.lines(timeout=Deadline(0.2)):
                count += 1
                assert count < 100, "each line has a limit of its own"
    assert 0.15 < took.seconds < TOO_LONG
    assert count
