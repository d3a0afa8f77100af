"""FA19: the limits of a server, over every kind of stream. tests/core/test_connection_limits.py has the decisions."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.scenarios import tasks, tls
from tests.scenarios.flavours import Server, Sock, in_thread
from tests.scenarios.scene import (
    A_WHILE,
    PATIENCE,
    TOO_LONG,
    Scene,
    Stopwatch,
    address_of,
    all_of,
    begin,
    eventually,
    no_descriptor_is_lost,
    over,
    over_every_stream,
    over_one,
    over_one_and_tls,
    pattern,
    read_exactly,
    soon,
    turns,
)
from wireline import Address, ClosedError
from wireline._core import connection_times

pytestmark = [pytest.mark.anyio, over_every_stream]

unix = over("unix")

Log = Callable[[], list[str]]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """The messages of the library, from INFO on."""
    caplog.set_level(logging.INFO, "wireline")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "wireline"]


class Echo:
    """Answers lines, and keeps the error that ends a connection."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    async def __call__(self, client: Sock, _: Address) -> None:
        try:
            async for line in client.lines():
                await client.send(line + b"\n")
        except BaseException as error:
            self.errors.append(error)
            raise


async def connected(scene: Scene, server: Server) -> Any:
    """A client of the standard library, past its handshake."""
    if scene.transport.tls is None:
        return scene.raw_connect(server.local_addr)
    context = tls.context(scene.transport.tls)
    return scene.closed_at_the_end(
        await scene.flavour.dial(*server.local_addr, tls=context, hostname="localhost", timeout=PATIENCE)
    )


async def end_of(peer: Any) -> float:
    """Wait until the server has ended a connection; return the seconds."""
    with Stopwatch() as took, contextlib.suppress(OSError):
        if isinstance(peer, socket.socket):
            await soon(all_of(peer))
        else:
            while await soon(peer.recv_some()):
                pass
    return took.seconds


async def assert_refused(scene: Scene, server: Server) -> None:
    """A connection is made by the kernel, and reset by the server: perhaps before the client has noticed."""
    with contextlib.suppress(ConnectionResetError):
        assert await end_of(scene.raw_connect(server.local_addr)) < TOO_LONG


async def answer_of(peer: Any, size: int) -> bytes:
    if isinstance(peer, socket.socket):
        return await soon(in_thread(read_exactly, peer, size))
    return bytes(await soon(peer.recv_exactly(size)))


async def until(attempt: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Try until it succeeds: nothing tells the clients of a server that a place is free."""
    limit = time.monotonic() + PATIENCE
    for _ in itertools.count():
        if await attempt():
            return
        assert time.monotonic() < limit
        await tasks.sleep(0.01)


async def say(peer: Any, data: bytes) -> bytes:
    """Send a line, and receive the answer."""
    if isinstance(peer, socket.socket):
        peer.sendall(data)
    else:
        await soon(peer.send(data))
    return await answer_of(peer, len(data))


# Time limits.


async def test_FA19_a_client_that_sends_nothing_is_ended(scene: Scene, log: Log) -> None:
    """FA19: a client that connects and sends nothing kept its place for ever."""
    echo = Echo()
    server = await scene.serve(echo, first_byte_timeout=0.2)
    speaks = await connected(scene, server)
    assert await say(speaks, b"hello\n") == b"hello\n"
    silent = await connected(scene, server)
    assert 0.1 < await end_of(silent) < TOO_LONG
    await eventually(lambda: server.connections == 1)
    assert [type(error) for error in echo.errors] == [ClosedError]
    (line,) = log()
    assert "ended: no byte in the first 0.2 s" in line
    assert await say(speaks, b"still here\n") == b"still here\n"


@pytest.mark.full
async def test_FA19_a_byte_that_the_handler_has_not_asked_for_is_in_time(scene: Scene) -> None:
    busy = tasks.Event()

    async def handler(client: Sock, _: Address) -> None:
        await busy.wait()
        await client.send(await client.recv_exactly(5))

    server = await scene.serve(handler, first_byte_timeout=0.1)
    peer = await connected(scene, server)
    if isinstance(peer, socket.socket):
        peer.sendall(b"early")
    else:
        await peer.send(b"early")
    await tasks.sleep(0.3)
    busy.set()
    assert await answer_of(peer, 5) == b"early"


async def test_FA19_an_idle_connection_is_ended_and_an_active_one_is_not(scene: Scene, log: Log) -> None:
    server = await scene.serve(Echo(), idle_timeout=0.4)
    idle, active = await connected(scene, server), await connected(scene, server)
    assert await say(idle, b"once\n") == b"once\n"
    waiting = await begin(end_of(idle))
    while not waiting.done():
        assert await say(active, b"again\n") == b"again\n"
        await tasks.sleep(0.05)
    assert 0.3 < await waiting < TOO_LONG
    assert ["ended: idle for 0.4 s" in line for line in log()] == [True]


@pytest.mark.full
async def test_FA19_a_handler_that_works_is_not_idle(scene: Scene) -> None:
    async def handler(client: Sock, _: Address) -> None:
        await tasks.sleep(0.5)
        await client.send(b"done")

    server = await scene.serve(handler, idle_timeout=0.1)
    peer = await connected(scene, server)
    assert await answer_of(peer, 4) == b"done"


@pytest.mark.full
async def test_FA19_a_lifetime_ends_the_busiest_connection(scene: Scene, log: Log) -> None:
    server = await scene.serve(Echo(), lifetime=0.4)
    peer = await connected(scene, server)
    with Stopwatch() as took, contextlib.suppress(OSError, AssertionError, EOFError):
        while True:
            await say(peer, b"and on\n")
    assert 0.3 < took.seconds < TOO_LONG
    await eventually(lambda: server.connections == 0)
    assert ["its lifetime of 0.4 s is over" in line for line in log()] == [True]


READS: list[Callable[[Sock], Any]] = [
    lambda client: client.recv_line(),
    lambda client: client.recv_exactly(100_000),
    lambda client: client.recv_frame("!I", max_size=2**30),
    lambda client: client.recv(100_000),
    lambda client: client.recv_until(b"\0", 100_000),
]


@over("tcp4", "unix")
async def test_FA19_a_message_that_drips_is_cut(
    scene: Scene, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA19: one byte every few seconds kept a connection for ever (slowloris)."""
    monkeypatch.setattr(connection_times, "RATE_WINDOW", 0.4)
    left = list(READS)

    async def handler(client: Sock, _: Address) -> None:
        await left.pop()(client)

    server = await scene.serve(handler, min_rate=1000)

    async def drip(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it is cut
            while True:
                peer.send(b"\1")
                await tasks.sleep(0.02)

    with Stopwatch() as took:
        await soon(tasks.gather(*(drip(scene.raw_connect(server.local_addr)) for _ in READS)))
    assert took.seconds < TOO_LONG
    await eventually(lambda: server.connections == 0)
    assert ["less than 1000 bytes a second" in line for line in log()] == [True] * len(READS)


@pytest.mark.full
async def test_FA19_short_messages_with_pauses_are_not_slow(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_times, "RATE_WINDOW", 0.2)
    server = await scene.serve(Echo(), min_rate=1_000_000)
    peer = await connected(scene, server)
    for _ in range(10):
        assert await say(peer, b"x\n") == b"x\n"
        await tasks.sleep(0.05)


async def test_FA19_a_relay_to_a_slow_reader_is_not_slow(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a relay has received and cannot send yet is no message that its client owes."""
    monkeypatch.setattr(connection_times, "RATE_WINDOW", 0.1)
    backend = await scene.wire()
    backend.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    server = await scene.serve(lambda client, _: scene.flavour.relay(client, backend.sock), min_rate=1000)
    peer = await connected(scene, server)
    data = pattern(2_000_000)
    raw = isinstance(peer, socket.socket)
    sending = await begin(in_thread(peer.sendall, data) if raw else peer.send(data))
    await tasks.sleep(0.5)
    assert server.connections == 1
    assert await soon(in_thread(read_exactly, backend.peer, len(data))) == data
    await soon(sending)


# Counts.


async def test_FA19_an_address_has_a_limit_and_unix_clients_have_none(
    scene: Scene, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """FA19: one address could take every place."""
    server = await scene.serve(Echo(), max_per_address=2)
    kept = [await connected(scene, server) for _ in range(2)]
    for peer in kept:
        assert await say(peer, b"x\n") == b"x\n"
    if scene.transport.is_unix:
        assert await say(await connected(scene, server), b"x\n") == b"x\n"
        return
    await assert_refused(scene, server)
    assert (server.stats.accepted, server.stats.refused, server.stats.open) == (2, 1, 2)
    assert ["refused: its address has too many connections" in line for line in log()] == [True]
    assert [vars(each)["event"] for each in caplog.records if hasattr(each, "event")] == ["refused"]
    kept[0].close()

    async def admitted() -> bool:
        with contextlib.suppress(OSError):
            return await say(await connected(scene, server), b"y\n") == b"y\n"
        return False

    await until(admitted)
    assert await say(kept[1], b"x\n") == b"x\n"


@over("tcp6")
async def test_FA19_an_ipv6_network_counts_as_one_and_mapped_addresses_as_ipv4(scene: Scene) -> None:
    from wireline._server_limits import address_key

    client = scene.socket()
    same = [Address("2001:db8:1:2::1", 5), Address("2001:db8:1:2:ffff::9", 6)]
    assert len({address_key(client, each) for each in same}) == 1
    assert address_key(client, Address("2001:db8:1:3::1", 5)) != address_key(client, same[0])
    assert address_key(client, Address("fe80::1%1", 5)) == address_key(client, Address("fe80::2%1", 5))
    async with await scene.flavour.serve(Echo(), 0, "", max_per_address=1) as server:
        port = server.local_addr.port
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as one:
            assert await say(one, b"x\n") == b"x\n"
            with socket.create_connection(("::1", port), PATIENCE) as six:
                assert await say(six, b"x\n") == b"x\n"
            with (
                contextlib.suppress(ConnectionResetError),
                socket.create_connection(("127.0.0.1", port), PATIENCE) as again,
            ):
                assert await end_of(again) < TOO_LONG


async def test_FA19_a_full_server_refuses_or_lets_clients_wait(scene: Scene) -> None:
    refusing = await scene.serve(Echo(), max_connections=1, on_full="refuse")
    first = await connected(scene, refusing)
    assert await say(first, b"x\n") == b"x\n"
    await assert_refused(scene, refusing)
    assert await say(first, b"x\n") == b"x\n"
    waiting = await scene.serve(Echo(), max_connections=1)
    first = await connected(scene, waiting)
    assert await say(first, b"x\n") == b"x\n"
    second = await begin(connected(scene, waiting), A_WHILE)
    assert waiting.connections == 1
    first.close()
    assert await say(await soon(second), b"y\n") == b"y\n"


@over("tls12", "tls13")
async def test_FA19_handshakes_have_a_limit_of_their_own(scene: Scene) -> None:
    server = await scene.serve(Echo(), max_handshakes=2, on_full="refuse", handshake_timeout=PATIENCE)
    silent = [scene.raw_connect(server.local_addr) for _ in range(2)]
    await eventually(lambda: server.connections == 2)
    await assert_refused(scene, server)
    silent[0].close()
    await eventually(lambda: server.connections == 1)
    served = await connected(scene, server)
    assert await say(served, b"x\n") == b"x\n"
    assert await say(await connected(scene, server), b"y\n") == b"y\n", "a finished handshake does not count"


@over("tls13")
async def test_FA19_a_connection_counts_while_it_lingers(scene: Scene) -> None:
    """FA19: connections that lingered held descriptors that no limit counted."""

    async def handler(client: Sock, _: Address) -> None:
        await client.send(b"bye")
        client.close(linger=PATIENCE)

    server = await scene.serve(handler, max_connections=1, on_full="refuse")
    peer = await connected(scene, server)  # it does not close, so the server lingers
    assert await answer_of(peer, 3) == b"bye"
    await eventually(lambda: server.connections == 0)
    await assert_refused(scene, server)
    peer.close()

    async def served() -> bool:
        with contextlib.suppress(OSError, EOFError, AssertionError):
            return await answer_of(await connected(scene, server), 3) == b"bye"
        return False

    await until(served)


# Together with the rest of a server.


@over_one_and_tls
@pytest.mark.full
async def test_FA19_on_error_gets_the_error_in_place_of_the_line(scene: Scene, log: Log) -> None:
    seen: list[BaseException] = []

    def on_error(error: BaseException, client: Sock) -> None:
        seen.append(error)

    server = await scene.serve(Echo(), first_byte_timeout=0.05, on_error=on_error)
    assert await end_of(await connected(scene, server)) < TOO_LONG
    await eventually(lambda: server.connections == 0)
    assert [(type(error), *error.__notes__) for error in seen] == [
        (ClosedError, "no byte in the first 0.05 s")
    ]
    assert log() == []


@over_one
async def test_S7_a_stop_among_connections_that_end_by_a_limit(scene: Scene) -> None:
    echo = Echo()
    with no_descriptor_is_lost():
        limits = {"first_byte_timeout": 0.1, "idle_timeout": 0.1, "lifetime": 0.12}
        server = await scene.flavour.serve(echo, 0, "127.0.0.1", **limits)
        peers = [socket.create_connection(server.local_addr, PATIENCE) for _ in range(30)]
        await eventually(lambda: server.stats.accepted == 30)
        report = await soon(server.stop(drain=0.1))
        assert report.drained + report.forced <= 30
        assert server.connections == 0
        for peer in peers:
            peer.close()
        await turns()
    assert {type(error) for error in echo.errors} <= {ClosedError, *tasks.CANCELLED}


@over_one
@pytest.mark.full
async def test_S7_the_limits_hold_during_a_drain(scene: Scene) -> None:
    server = await scene.serve(Echo(), idle_timeout=0.2)
    peer = scene.raw_connect(server.local_addr)
    assert await say(peer, b"x\n") == b"x\n"
    with Stopwatch() as took:
        assert await soon(server.stop(drain=1000)) == (1, 0)
    assert took.seconds < TOO_LONG


@over_one
async def test_FA19_the_other_listening_sockets_share_the_limits(scene: Scene) -> None:
    listeners = [socket.create_server((host, 0)) for host in ("127.0.0.1", "127.0.0.2")]
    where = [address_of(each) for each in listeners]
    async with await scene.flavour.serve(Echo(), sock=listeners, max_connections=1) as server:
        one = scene.raw_connect(where[0])
        assert await say(one, b"x\n") == b"x\n"
        others = [scene.raw_connect(each) for each in where]
        for other in others:
            other.sendall(b"y\n")
        await tasks.sleep(A_WHILE)
        assert server.connections == 1
        one.close()

        async def served(other: socket.socket) -> None:
            assert await answer_of(other, 2) == b"y\n"
            other.close()

        await tasks.gather(*map(served, others))
