"""A task that never waits lets the others go on: reads, sends, and sends that cannot deliver; and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.asyncnet.loops import WAYS, Way, turns
from tests.asyncnet.streams import drain, drain_until, wire
from wireline import SAFE_DISCONN, SocketFlag
from wireline.asyncnet import AsyncSocket
from wireline.asyncnet._poller import BUDGET

LIMIT = 3 * BUDGET
"""Operations within which a task must have let the others go on: lines split ahead are counted with some delay."""


def program(text: str, *arguments: str, seconds: float = 20) -> str:
    """Run a program in a process of its own, which may hang; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


POLLING = [way.name for way in WAYS if not way.portable]


@pytest.mark.parametrize("loop", POLLING)
@pytest.mark.parametrize("flags", ["SAFE_DISCONN", "SocketFlag(0)"])
@pytest.mark.parametrize("tls", ["", "tls"])
def test_a_handler_that_sends_to_a_peer_that_is_gone_freezes_nothing(loop: str, flags: str, tls: str) -> None:
    """FA23: sends to a client that has left never suspended, and no timer and no other client ran again."""
    if tls and flags != "SAFE_DISCONN":
        pytest.skip("an error ends the connection")
    out = program(
        """
        import asyncio, contextlib, socket, sys
        from wireline import SAFE_DISCONN, SocketFlag
        from wireline.asyncnet import AsyncSocket, serve, dial

        async def handle(sock, address):
            while True:
                with contextlib.suppress(ConnectionError):
                    await sock.send(b"x" * 100, FLAGS)

        async def main():
            server_tls = client_tls = None
            if "tls" in sys.argv:
                from tests.tls import certificates
                from wireline.tls import SslContext
                leaf = certificates.server()
                server_tls = SslContext(cert_file=leaf.cert, key_file=leaf.key)
                client_tls = SslContext(ca_file=certificates.ca_file())
            async with serve(handle, 0, "127.0.0.1", tls=server_tls) as server:
                port = server.local_addr.port
                client = await dial("127.0.0.1", port, tls=client_tls, hostname=client_tls and "localhost")
                await client.recv_some()
                client.close(linger=0)
                for _ in range(20):
                    await asyncio.sleep(0.001)
            print("stopped")

        if sys.argv[1] == "uvloop":
            import uvloop
            uvloop.run(main())
        else:
            asyncio.run(main())
        """.replace("FLAGS", flags),
        loop,
        tls,
    )
    assert out == "stopped\n"


Once = Callable[[AsyncSocket], Awaitable[object]]


async def _one_of_lines(sock: AsyncSocket) -> object:
    async for line in sock.lines():
        return line
    raise AssertionError("the end")


READS: dict[str, Once] = {
    "recv_line": lambda sock: sock.recv_line(),
    "recv_line with a limit": lambda sock: sock.recv_line(5, max_length=100),
    "recv_line at once": lambda sock: sock.recv_line(0),
    "recv_line_into": lambda sock: sock.recv_line_into(bytearray()),
    "lines": _one_of_lines,
    "recv": lambda sock: sock.recv(2),
    "recv_into": lambda sock: sock.recv_into(bytearray(2)),
    "recv_some": lambda sock: sock.recv_some(2),
    "recv_exactly": lambda sock: sock.recv_exactly(2),
    "recv_until": lambda sock: sock.recv_until(b"\n"),
    "skip": lambda sock: sock.skip(2),
    "peek": lambda sock: sock.recv(2, 5, SocketFlag.PEEK),
}


async def steps_until_others_go_on(call: Callable[[], Awaitable[object]], most: int) -> int:
    """Make a call again and again until another task has had a turn; how often it was made."""
    others = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(others.set_result, None)
    for count in range(most):
        if others.done():
            return count
        await call()
    return most


@pytest.mark.parametrize("name", READS)
async def test_a_task_that_always_finds_something_lets_the_others_go_on(way: Way, name: str) -> None:
    """FA22: a task that found a line each time never yielded, and other clients waited for seconds."""
    with wire() as (sock, peer):
        for _ in range(4):
            peer.send(b"x\n" * (LIMIT + 20))
            assert await sock.recv_line() == b"x"
            count = await steps_until_others_go_on(lambda: READS[name](sock), LIMIT)
            assert count < LIMIT
            rest = asyncio.create_task(sock.recv_exactly(10_000))
            await turns(6)
            rest.cancel()
            await asyncio.wait([rest])
            while sock.has_data_buffered:
                await sock.recv_some(0xFFFF)


async def test_the_iterator_of_lines_lets_the_others_go_on(way: Way) -> None:
    """FA22: the same for one ``lines()`` over thousands of lines that are there."""
    with wire() as (sock, peer):
        peer.send(b"".join(b"%d\n" % number for number in range(5000)))
        lines = sock.lines()
        got = [await anext(lines) for _ in range(500)]  # from here on they are split ahead
        for _ in range(10):
            before = len(got)

            async def one_more() -> None:
                got.append(await anext(lines))

            await steps_until_others_go_on(one_more, LIMIT)
            assert len(got) - before < LIMIT
        assert got == [b"%d" % number for number in range(len(got))]


async def test_a_task_whose_sends_never_wait_lets_the_others_go_on(way: Way) -> None:
    """FA22: the same for sends."""
    with wire() as (sock, peer):
        assert await steps_until_others_go_on(lambda: sock.send(b"x"), LIMIT) < LIMIT
        assert set(drain(peer)) == {ord("x")}
    with wire() as (sock, peer):
        assert await steps_until_others_go_on(lambda: sock.send_some(b"x"), LIMIT) < LIMIT
    with wire() as (sock, peer):
        assert await steps_until_others_go_on(lambda: sock.send_many([b"x"]), LIMIT) < LIMIT


async def test_each_send_to_a_peer_that_is_gone_lets_the_others_go_on(way: Way) -> None:
    """FA23: at once, and not when the budget is spent."""
    with wire() as (sock, peer):
        await sock.send(b"x")
        peer.close()
        assert await steps_until_others_go_on(lambda: sock.send(b"x"), LIMIT) <= 2

        def send_with_the_lock() -> Awaitable[object]:
            return sock._io.send_locked(sock, b"x", 0, SAFE_DISCONN, None)

        assert await steps_until_others_go_on(send_with_the_lock, LIMIT) <= 2


async def test_datagrams_let_the_others_go_on(way: Way) -> None:
    """FA22: a flood of datagrams kept the one task that receives them busy for good."""
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        async with AsyncSocket(sock_type=socket.SOCK_DGRAM) as sock:
            sock.bind_addr(0, "127.0.0.1")
            await sock.connect(*peer.getsockname())
            peer.connect(sock.local_addr)
            assert await steps_until_others_go_on(lambda: sock.send(b"x"), LIMIT) < LIMIT

            async def exchange() -> None:
                peer.send(b"x")
                await sock.recv_from(10)

            assert await steps_until_others_go_on(exchange, LIMIT) < LIMIT

            async def exchange_many() -> None:
                for _ in range(8):
                    peer.send(b"x")
                assert len(await sock.recv_many_from()) == 8

            # Each datagram counts.
            assert await steps_until_others_go_on(exchange_many, LIMIT) < LIMIT / 4
            outgoing = [(b"x", *peer.getsockname())] * 8
            assert await steps_until_others_go_on(lambda: sock.send_many_to(outgoing), LIMIT) < LIMIT / 4


async def test_clients_that_are_there_let_the_others_go_on(way: Way) -> None:
    """FA22: the same for ``accept``."""
    async with AsyncSocket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()

        async def exchange() -> None:
            with socket.create_connection(listener.local_addr):
                (await listener.accept()).close()

        assert await steps_until_others_go_on(exchange, LIMIT) < LIMIT


async def test_a_cancellation_where_a_read_lets_the_others_go_on_loses_nothing(way: Way) -> None:
    """FA22, R5: it pauses before it takes anything."""
    with wire() as (sock, peer):
        expected = [b"%d" % number for number in range(3 * LIMIT)]
        peer.send(b"\n".join(expected) + b"\n")
        got = [await sock.recv_line()]
        cancelled = 0
        while len(got) < len(expected):

            async def read() -> None:
                while len(got) < len(expected):
                    got.append(await sock.recv_line())

            reading = asyncio.create_task(read())
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            cancelled += reading.cancelled()
        assert got == expected
        assert cancelled > 1


async def test_a_cancellation_where_a_send_lets_the_others_go_on_has_sent_nothing(way: Way) -> None:
    """FA22, W3: ``last_bytes_sent`` says so, and the writers go on in their order."""
    with wire() as (sock, peer):
        await sock.send(b"begin")
        sent = 0
        cancelled = 0
        for _ in range(40):

            async def write() -> None:
                nonlocal sent
                for _ in range(LIMIT):
                    await sock.send(b"0123456789")
                    sent += 1

            writing = asyncio.create_task(write())
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])
            cancelled += writing.cancelled()
            assert sock.last_bytes_sent == 0
            assert len(drain(peer).removeprefix(b"begin")) == 10 * sent
            sent = 0
        assert cancelled == 40
        await asyncio.wait_for(sock.send(b"end"), 5)
        assert drain(peer) == b"end"


async def test_writers_go_out_in_the_order_of_their_calls_where_one_pauses(way: Way) -> None:
    """FA22, W5: a pause of the first is no chance for the second."""
    with wire() as (sock, peer):
        await sock.send(b".")
        order: list[int] = []

        async def one(number: int) -> None:
            order.append(number)
            await sock.send(b"%4d" % number)

        writing = [asyncio.create_task(one(number)) for number in range(2 * LIMIT)]
        data = await drain_until(peer, lambda: all(task.done() for task in writing))
        data = data[1:]
        assert len(order) == 2 * LIMIT
        assert [int(data[at : at + 4]) for at in range(0, len(data), 4)] == order


@pytest.mark.parametrize("name", [*READS, "send", "send_many", "send_some", "shutdown_write"])
def test_another_loop_is_refused_although_there_is_nothing_to_wait_for(way: Way, name: str) -> None:
    """FA29: a ``send`` on a socket of another loop was not refused, as nothing was asked before the system call."""
    calls: dict[str, Callable[[AsyncSocket], Awaitable[Any]]] = {
        **READS,
        "send": lambda sock: sock.send(b"x"),
        "send_many": lambda sock: sock.send_many([b"x"]),
        "send_some": lambda sock: sock.send_some(b"x"),
        "shutdown_write": lambda sock: sock.shutdown_write(),
    }
    with way.chosen(), wire() as (sock, peer):
        peer.send(b"one\ntwo\nthree\n")
        with asyncio.Runner(loop_factory=way.new_loop) as runner:

            async def bind() -> None:
                await sock.send(b"x")  # the first call binds
                assert await sock.recv_line() == b"one"

            runner.run(bind())
            with asyncio.Runner(loop_factory=way.new_loop) as other:

                async def use() -> None:
                    with pytest.raises(RuntimeError, match="another event loop"):
                        await calls[name](sock)

                other.run(use())

            async def goes_on() -> None:
                assert await sock.recv_line(5) == b"two"
                await sock.send(b"y", SAFE_DISCONN)

            runner.run(goes_on())
        assert drain(peer) == b"xy"
