"""S5, S7: ``serve`` on a machine without free resources, and the end of its handlers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import pytest
import uvloop

from tests.asyncnet.loops import ALL_WAYS, Way, spy, turns
from tests.asyncnet.streams import LOOPBACK, PATIENCE, until
from tests.faults.descriptors import only
from wireline import Address, ClosedError, SocketTimeout
from wireline.asyncnet import AsyncSocket, Server, StopReport, _serve, dial, serve
from wireline.asyncnet._asyncio import AsyncioTasks

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
with_clock = pytest.mark.parametrize(
    "way", [way for way in ALL_WAYS if way.has_a_clock_to_put_forward], ids=lambda way: way.name
)


async def echo(client: AsyncSocket, _: Address) -> None:
    while data := await client.recv_some():
        await client.send(data)


async def read(client: AsyncSocket, _: Address) -> None:
    await client.recv(1)


@contextlib.asynccontextmanager
async def peer_of(server: Server) -> AsyncIterator[AsyncSocket]:
    """A client; when the block begins it has been accepted, or waits for that."""
    async with await dial(*server.local_addr, timeout=PATIENCE) as peer:
        yield peer


async def ask(peer: AsyncSocket, line: bytes) -> None:
    """Exchange one echo."""
    await peer.send(line + b"\n", timeout=PATIENCE)
    assert await peer.recv_line(PATIENCE) == line


async def echoed(sock: socket.socket) -> None:
    """Wait for a reply."""
    await until(lambda: select.select([sock], [], [], 0)[0])


class Held:
    """A handler that stays until it is let go, and waits for that and not for its client."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.ended = 0

    async def __call__(self, client: AsyncSocket, _: Address) -> None:
        await self.let_go.wait()
        self.ended += 1


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


class Log:
    """The log records of the library. In debug mode asyncio logs, too."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def records(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name == "wireline"]

    @property
    def text(self) -> str:
        return self._caplog.text


# S5.


class Accepts:
    """Counts the attempts to accept, and makes them fail for as long as the test asks for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: OSError | None = None
        self.attempts = 0
        accept = socket.socket._accept  # type: ignore[attr-defined]

        def accepting(sock: socket.socket) -> Any:
            self.attempts += 1
            if self.error is not None:
                raise self.error
            return accept(sock)

        monkeypatch.setattr(socket.socket, "_accept", accepting)


@pytest.fixture
def accepts(monkeypatch: pytest.MonkeyPatch) -> Accepts:
    return Accepts(monkeypatch)


@pytest.fixture
def unconnected() -> Iterator[list[socket.socket]]:
    """Sockets that are made while there are descriptors to be had."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(6)]
        for sock in socks:
            sock.settimeout(PATIENCE)
        yield socks


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to lower on Windows")
@every_way
async def test_S5_out_of_descriptors_it_serves_its_clients_and_accepts_again_when_it_can(
    way: Way, accepts: Accepts, unconnected: list[socket.socket], log: Log
) -> None:
    async with serve(echo, 0, LOOPBACK) as server, peer_of(server) as kept:
        await ask(kept, b"before")
        with only(2):
            for sock in unconnected:
                sock.connect(server.local_addr)
                sock.sendall(b"x")
            await until(lambda: log.records)
            before = accepts.attempts
            busy = time.process_time()
            await asyncio.sleep(
                0.25
            )  # the test is about the time itself: pauses of 5, 10, 20, 40, 80, 160 ms
            assert accepts.attempts - before <= 12
            assert time.process_time() - busy < 0.2
            assert server.connections == 3
            await ask(kept, b"meanwhile")
            (record,) = log.records
            assert record.levelno == logging.ERROR
            assert str(server.local_addr.port) in record.getMessage()
            for sock in unconnected[:2]:
                sock.close()  # and with them the server's two: four descriptors for four clients
            for sock in unconnected[2:]:
                await echoed(sock)
            assert server.connections == 5
        await ask(kept, b"after")


@with_clock
async def test_S5_it_reports_at_most_once_a_second_and_tries_at_least_as_often(
    way: Way, accepts: Accepts, log: Log
) -> None:
    loop = spy()
    async with serve(echo, 0, LOOPBACK) as server:
        await turns(4)
        accepts.error = OSError(errno.EMFILE, "none left")
        async with peer_of(server):
            if way.portable:  # its accept is under way: this one gets in
                async with peer_of(server):
                    pass
            await until(lambda: log.records)
            before, start = accepts.attempts, loop.time()
            for _ in range(100):
                loop.ahead += 0.1
                await turns(3)
            seconds = loop.time() - start
            assert 6 <= len(log.records) <= seconds + 1
            assert seconds - 2 <= accepts.attempts - before <= seconds + 12
            accepts.error = None
            loop.ahead += 1
            await until(lambda: server.connections)


@pytest.mark.parametrize("code", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_S5_any_resource_may_run_out(way: Way, code: int, accepts: Accepts, log: Log) -> None:
    async with serve(echo, 0, LOOPBACK) as server:
        accepts.error = OSError(code, "none left")
        async with peer_of(server) as first, peer_of(server) as second:
            await until(lambda: log.records)
            assert "none left" in log.text
            accepts.error = None
            await ask(first, b"1")
            await ask(second, b"2")


async def test_S5_a_server_that_waits_is_stopped_like_any_other(way: Way, accepts: Accepts, log: Log) -> None:
    async with serve(echo, 0, LOOPBACK) as server:
        await turns(4)
        accepts.error = OSError(errno.EMFILE, "none left")
        async with peer_of(server), peer_of(server):
            await until(lambda: accepts.attempts >= 4 and log.records)
            start = time.monotonic()
            await server.stop()
            assert time.monotonic() - start < PATIENCE / 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to lower on Windows")
@every_way
async def test_S5_accept_itself_raises_it_and_loses_no_client(
    way: Way, unconnected: list[socket.socket]
) -> None:
    async with AsyncSocket() as listener:
        listener.bind_addr(0, LOOPBACK)
        listener.listen()
        with pytest.raises(SocketTimeout):
            await listener.accept(timeout=0.005)  # all that waiting needs has been opened
        with only(0):
            unconnected[0].connect(listener.local_addr)
            for _ in range(3):
                with pytest.raises(OSError, match="open files") as caught:
                    await listener.accept(timeout=PATIENCE)
                assert caught.value.errno == errno.EMFILE
        async with await listener.accept(timeout=PATIENCE) as client:
            unconnected[0].sendall(b"x")
            assert await client.recv(1, PATIENCE) == b"x"


@every_way
async def test_max_connections_holds_the_next_client_back_without_accepting(
    way: Way, accepts: Accepts
) -> None:
    held = Held()
    async with serve(held, 0, LOOPBACK, max_connections=2) as server:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(peer_of(server))
            await until(lambda: server.connections == 2)
            before = accepts.attempts
            await turns(20)
            assert server.connections == 2
            assert accepts.attempts == before
            held.let_go.set()
            await until(lambda: held.ended == 5)
        await until(lambda: not server.connections)


# S7: handlers.


@every_way
async def test_S7_a_handler_that_uses_its_own_closed_socket_is_logged(way: Way, log: Log) -> None:
    async def careless(client: AsyncSocket, address: Address) -> None:
        client.close()
        await read(client, address)

    async with serve(careless, 0, LOOPBACK) as server:
        async with peer_of(server) as peer:
            assert await peer.recv(1, PATIENCE) == b""
        await until(lambda: log.records)
    (record,) = log.records
    assert "used a closed socket" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ClosedError


@every_way
async def test_S7_a_handler_that_raises_is_logged_and_harms_no_other(way: Way, log: Log) -> None:
    async def handler(client: AsyncSocket, _: Address) -> None:
        async for line in client.lines():
            await client.send(b"%d\n" % (1 // int(line)))

    async with serve(handler, 0, LOOPBACK) as server, peer_of(server) as other:
        async with peer_of(server) as peer:
            await peer.send(b"1\n0\n")
            assert await peer.recv_line(PATIENCE) == b"1"
            assert await peer.recv_line(PATIENCE) == b""
        await other.send(b"1\n")
        assert await other.recv_line(PATIENCE) == b"1"
    (record,) = log.records
    assert "ZeroDivisionError" in log.text
    assert "failed" in record.getMessage()


@every_way
@pytest.mark.parametrize("begun", [True, False])
async def test_S7_a_handler_that_is_cancelled_closes_its_connection_and_is_not_logged(
    way: Way, begun: bool, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[asyncio.Task[None]] = []
    spawn = AsyncioTasks.spawn

    def spawning(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = spawn(coroutine, name)
        if name.startswith("wireline-client"):
            tasks.append(task)
            if not begun:
                task.cancel()
        return task

    monkeypatch.setattr(AsyncioTasks, "spawn", staticmethod(spawning))
    async with serve(read, 0, LOOPBACK) as server, peer_of(server) as peer:
        await until(lambda: tasks)
        await turns(3)
        if begun:
            assert server.connections == 1
            tasks[0].cancel()
        assert await peer.recv(1, PATIENCE) == b""
        await until(lambda: not server.connections)
    assert tasks[0].cancelled()
    assert log.records == []


@every_way
async def test_S7_a_handler_whose_task_group_falls_with_the_connection_is_not_logged(
    way: Way, log: Log
) -> None:
    async def grouped(client: AsyncSocket, address: Address) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(read(client, address))
            group.create_task(asyncio.sleep(PATIENCE))

    async with serve(grouped, 0, LOOPBACK) as server, peer_of(server):
        await until(lambda: server.connections)
        await turns(3)
        assert await server.stop() == StopReport(drained=0, forced=1)
        await turns(3)
        assert not server.connections
    assert log.records == []


async def test_S7_a_task_group_that_fails_for_another_reason_is(way: Way, log: Log) -> None:
    async def grouped(client: AsyncSocket, address: Address) -> None:
        async def spoil() -> None:
            try:
                await read(client, address)
            finally:
                raise KeyError("spoiled")

        async with asyncio.TaskGroup() as group:
            group.create_task(spoil())

    async with serve(grouped, 0, LOOPBACK) as server, peer_of(server):
        await until(lambda: server.connections)
        await turns(3)
        await server.stop()
    assert "spoiled" in log.text


@every_way
async def test_S7_a_handler_that_waits_for_something_else_is_cancelled_when_the_time_is_up(way: Way) -> None:
    held = Held()
    async with serve(held, 0, LOOPBACK) as server, peer_of(server) as peer:
        await until(lambda: server.connections)
        start = time.monotonic()
        assert await server.stop() == StopReport(drained=0, forced=1)
        assert time.monotonic() - start < PATIENCE / 2
        assert not held.ended
        assert not server.connections
        assert await peer.recv(1, PATIENCE) == b""


@every_way
@pytest.mark.parametrize("busy", ["reading", "writing", "both"])
async def test_S7_handlers_that_unwind_are_waited_for_and_not_disturbed(way: Way, busy: str) -> None:
    unwound = asyncio.Event()

    async def handler(client: AsyncSocket, address: Address) -> None:
        try:
            if busy == "both":
                await asyncio.gather(client.send(bytes(20_000_000)), client.recv(1))
            elif busy == "reading":
                await client.recv(1)
            else:
                await client.send(bytes(20_000_000))
        except ClosedError:
            await asyncio.sleep(0.01)
            unwound.set()

    async with serve(handler, 0, LOOPBACK) as server, peer_of(server):
        await until(lambda: server.connections)
        await turns(5)
        assert await server.stop() == StopReport(drained=0, forced=1)
        assert unwound.is_set()
        assert not server.connections


@every_way
async def test_S7_a_handler_that_does_not_end_is_cancelled_and_then_not_waited_for(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_serve, "_UNWIND", 0.01)
    let_go = asyncio.Event()
    cancelled = 0

    async def stubborn(client: AsyncSocket, address: Address) -> None:
        nonlocal cancelled
        with contextlib.suppress(ClosedError):
            await read(client, address)
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                cancelled += 1

    async with serve(stubborn, 0, LOOPBACK) as server, peer_of(server) as peer:
        await until(lambda: server.connections)
        await turns(3)
        assert await server.stop() == StopReport(drained=0, forced=1)
        assert await peer.recv(1, PATIENCE) == b"", "but its connection is closed"
        assert cancelled == 1
        assert server.connections == 1
        let_go.set()
        await until(lambda: not server.connections)


@every_way
async def test_S7_a_handler_that_has_closed_its_connection_and_waits_for_something_else_is_cancelled(
    way: Way,
) -> None:
    async def leaving(client: AsyncSocket, _: Address) -> None:
        client.close()
        await asyncio.sleep(PATIENCE)

    async with serve(leaving, 0, LOOPBACK) as server, peer_of(server):
        await until(lambda: server.connections)
        await turns(3)
        start = time.monotonic()
        assert await server.stop() == StopReport(drained=0, forced=1)
        assert time.monotonic() - start < PATIENCE / 2
        assert not server.connections


async def give_up_in_a_block(client: AsyncSocket) -> None:
    async with asyncio.timeout(0.01):
        await client.recv_line()


async def give_up_by_waiting(client: AsyncSocket) -> None:
    await asyncio.wait_for(client.recv_some(), 0.01)


@every_way
@pytest.mark.parametrize("give_up", [give_up_in_a_block, give_up_by_waiting])
async def test_P8_a_timeout_of_asyncios_around_a_read_is_the_peers_doing(
    way: Way, give_up: Callable[[AsyncSocket], Coroutine[Any, Any, None]], caplog: pytest.LogCaptureFixture
) -> None:
    """FA15: a client that was idle for the timeout cost the log a traceback."""
    caplog.set_level(logging.INFO, "wireline")

    async def handler(client: AsyncSocket, _: Address) -> None:
        await give_up(client)

    async with serve(handler, 0, LOOPBACK) as server, peer_of(server) as peer:
        assert await peer.recv(1, PATIENCE) == b""
    (record,) = Log(caplog).records
    assert (record.levelno, record.exc_info) == (logging.INFO, None)
    assert "TimeoutError" in record.getMessage()


async def test_P8_a_timeout_of_asyncios_around_something_else_is_the_programs_fault(
    way: Way, log: Log
) -> None:
    async def handler(client: AsyncSocket, _: Address) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(PATIENCE)

    async with serve(handler, 0, LOOPBACK) as server, peer_of(server) as peer:
        assert await peer.recv(1, PATIENCE) == b""
    (record,) = log.records
    assert record.levelno == logging.ERROR
    assert record.exc_info


@every_way
async def test_on_error_may_be_a_coroutine_function(way: Way, log: Log) -> None:
    seen: list[tuple[type[Exception], bool]] = []

    async def on_error(error: Exception, client: AsyncSocket) -> None:
        await client.send(b"sorry")
        await asyncio.sleep(0)
        seen.append((type(error), client.is_closed))
        raise KeyError("a mistake in on_error")

    async def handler(client: AsyncSocket, _: Address) -> None:
        raise ZeroDivisionError

    async with serve(handler, 0, LOOPBACK, on_error=on_error) as server, peer_of(server) as peer:
        assert await peer.recv(9, PATIENCE) == b"sorry"
    assert seen == [(ZeroDivisionError, False)]
    (record,) = log.records
    assert "on_error failed" in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is KeyError


@every_way
async def test_S5_a_connection_without_a_task_is_closed_and_the_next_one_served(
    way: Way, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any error in starting a handler ended the task that accepts, and the server listened on in vain."""

    def refusing(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        monkeypatch.undo()
        raise MemoryError("no task to be had")

    async with serve(echo, 0, LOOPBACK) as server:
        monkeypatch.setattr(AsyncioTasks, "spawn", staticmethod(refusing))
        async with peer_of(server) as refused:
            assert await refused.recv(1, PATIENCE) == b""
        async with peer_of(server) as peer:
            await ask(peer, b"hello")
    (record,) = log.records
    assert "no task to be had" in record.getMessage()


# P4: a request from elsewhere.


@every_way
async def test_P4_a_request_from_another_thread(way: Way) -> None:
    async with serve(read, 0, LOOPBACK) as server, peer_of(server) as peer:
        await until(lambda: server.connections)
        await asyncio.to_thread(server.request_stop)
        await server.wait(PATIENCE)
        assert await server.stop() == StopReport(drained=0, forced=1)
        assert await peer.recv(1, PATIENCE) == b""


@every_way
async def test_P4_a_request_goes_on_in_place_of_a_stop_that_was_given_up(way: Way) -> None:
    held = Held()
    async with serve(held, 0, LOOPBACK) as server, peer_of(server):
        await until(lambda: server.connections)
        stopping = asyncio.create_task(server.stop(drain=1000))
        await turns(5)
        stopping.cancel()
        await asyncio.wait([stopping])
        server.request_stop(drain=1000)
        await turns(5)
        assert server.connections == 1
        held.let_go.set()
        await server.wait(PATIENCE)
        assert await server.stop() == StopReport(drained=1, forced=0)


@pytest.mark.parametrize("asked", ["stop", "request_stop"])
async def test_S7_a_server_that_is_stopped_has_no_task_left(way: Way, asked: str) -> None:
    """A program may close its loop next, and asyncio complains of a task that is destroyed while it is pending."""
    server = await serve(read, 0, LOOPBACK)
    async with peer_of(server):
        await until(lambda: server.connections)
        if asked == "stop":
            await server.stop()
        else:
            server.request_stop()
            await server.wait()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("wireline-")]


def test_P4_a_request_after_the_end_of_the_loop_does_nothing() -> None:
    async def main() -> Server:
        return await serve(read, 0, LOOPBACK)

    server = asyncio.run(main())
    server.request_stop()


# S7: stopping.


@every_way
async def test_S7_a_long_drain_ends_with_the_last_handler(way: Way) -> None:
    held = Held()
    async with serve(held, 0, LOOPBACK) as server, peer_of(server), peer_of(server):
        await until(lambda: server.connections == 2)
        stopping = asyncio.create_task(server.stop(drain=1000))
        await turns(5)
        assert not stopping.done()
        held.let_go.set()
        assert await asyncio.wait_for(stopping, PATIENCE) == StopReport(drained=2, forced=0)
        assert held.ended == 2


class Lines:
    """Counts the lines of the server's file that this thread runs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> Lines | None:
        self.count += event == "line"  # one for each turn of a loop, too
        return self if frame.f_code.co_filename.endswith("_serve.py") else None


async def test_FA28_the_end_of_a_connection_costs_a_drain_as_much_among_many_as_among_few(way: Way) -> None:
    """FA28: stop(drain=) looked at all connections whenever one ended: 0.07 ms at 1,000, 0.29 ms at 9,000."""

    async def work(connections: int) -> float:
        """Lines for each connection that ends."""
        let_go = [asyncio.Event() for _ in range(connections)]
        waiting = iter(let_go)

        async def handler(client: AsyncSocket, _: Address) -> None:
            await next(waiting).wait()

        lines = Lines()
        async with serve(handler, 0, LOOPBACK) as server, contextlib.AsyncExitStack() as stack:
            for _ in let_go:
                await stack.enter_async_context(peer_of(server))
            await until(lambda: server.connections == connections)
            measuring = sys.gettrace()  # the coverage, perhaps
            sys.settrace(lines)
            try:
                stopping = asyncio.create_task(server.stop(1000))
                await turns(5)
                before = lines.count
                for event in let_go:
                    event.set()
                    await turns(3)
                await stopping
            finally:
                sys.settrace(measuring)
        assert lines.count > before
        return (lines.count - before) / connections

    assert await work(60) < 1.5 * await work(15)


@with_clock
async def test_S7_a_drain_lasts_as_long_as_it_was_asked_for(way: Way) -> None:
    held = Held()
    loop = spy()
    async with serve(held, 0, LOOPBACK) as server, peer_of(server) as peer:
        await until(lambda: server.connections)
        stopping = asyncio.create_task(server.stop(drain=100))
        await turns(5)
        loop.ahead += 99
        await turns(5)
        assert not stopping.done()
        assert server.connections == 1
        loop.ahead += 2
        assert await asyncio.wait_for(stopping, PATIENCE) == StopReport(drained=0, forced=1)
        assert await peer.recv(1, PATIENCE) == b""


@every_way
async def test_S7_a_stop_that_is_cancelled_leaves_the_handlers_and_another_goes_on(way: Way) -> None:
    held = Held()
    async with serve(held, 0, LOOPBACK) as server, peer_of(server):
        await until(lambda: server.connections)
        waiting = asyncio.create_task(server.wait())
        for _ in range(2):
            stopping = asyncio.create_task(server.stop(drain=1000))
            await turns(5)
            assert not stopping.done(), "one that was given up is not under way any more"
            assert server.connections == 1
            with pytest.raises(OSError, match=r"refused|Connect"):
                await dial(*server.local_addr, timeout=PATIENCE)
            stopping.cancel()
            await asyncio.wait([stopping])
            assert stopping.cancelled()
        assert not waiting.done()
        held.let_go.set()
        await until(lambda: held.ended)
        assert await server.stop() == StopReport(drained=0, forced=0)
        await asyncio.wait_for(waiting, PATIENCE)


@every_way
@pytest.mark.parametrize("number", range(1, 7))
async def test_S7_a_stop_that_is_cancelled_at_any_moment_can_be_repeated(way: Way, number: int) -> None:
    async with serve(read, 0, LOOPBACK) as server, peer_of(server) as one, peer_of(server) as other:
        await until(lambda: server.connections == 2)
        stopping = asyncio.create_task(server.stop())
        await turns(number - 1)
        stopping.cancel()
        await asyncio.wait([stopping])
        assert sum(await asyncio.wait_for(server.stop(), PATIENCE)) <= 2
        assert await one.recv(1, PATIENCE) == b""
        assert await other.recv(1, PATIENCE) == b""
        await until(lambda: not server.connections)


@every_way
@pytest.mark.parametrize("drain", [0, 1000])
@pytest.mark.parametrize("at_once", [True, False])
async def test_S7_a_handler_that_stops_its_own_server_is_not_counted_and_not_waited_for(
    way: Way, drain: float, at_once: bool
) -> None:
    reports = []

    async def handler(client: AsyncSocket, _: Address) -> None:
        if not at_once:
            await turns(1)
        reports.append(await server.stop(drain))
        await client.send(b"still here")

    async with serve(handler, 0, LOOPBACK) as server, peer_of(server) as peer:
        await asyncio.wait_for(server.wait(), PATIENCE)
        assert await peer.recv(10, PATIENCE) == b"still here"
        assert await server.stop() == StopReport(drained=0, forced=0)
    assert reports == [StopReport(drained=0, forced=0)]


@every_way
async def test_S7_several_handlers_stop_the_server_at_once(way: Way) -> None:
    all_here = asyncio.Event()
    reports: list[StopReport] = []

    async def handler(client: AsyncSocket, _: Address) -> None:
        await all_here.wait()
        reports.append(await server.stop(drain=PATIENCE))

    async with serve(handler, 0, LOOPBACK) as server, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(peer_of(server)) for _ in range(3)]
        await until(lambda: server.connections == 3)
        all_here.set()
        await server.wait(PATIENCE)
        for peer in peers:
            assert await peer.recv(1, PATIENCE) == b""
    assert sorted(reports) == [(0, 0), (0, 0), (2, 0)]


# Running a program.


def plainly(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def in_debug_mode(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main(), debug=True)


def on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(main())


def with_eager_tasks(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(asyncio.eager_task_factory)
        runner.run(main())


RUNS = [plainly, in_debug_mode, on_uvloop]
if sys.version_info >= (3, 12):
    RUNS.append(with_eager_tasks)

every_run = pytest.mark.parametrize("run", RUNS)


@every_run
def test_a_program_that_serves_and_stops(
    run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None], log: Log
) -> None:
    async def main() -> None:
        async with serve(echo, 0, LOOPBACK, max_connections=3) as server:
            async with asyncio.TaskGroup() as clients:
                for number in range(10):
                    clients.create_task(converse(server, b"%d" % number))
        assert server.connections == 0

    async def converse(server: Server, tag: bytes) -> None:
        async with peer_of(server) as peer:
            for _ in range(10):
                await ask(peer, tag)

    run(main)
    assert log.records == []


@every_run
def test_a_program_that_ends_without_stopping_its_server_leaves_nothing(
    run: Callable[[Callable[[], Coroutine[Any, Any, None]]], None], log: Log
) -> None:
    peers = []

    async def main() -> None:
        server = await serve(echo, 0, LOOPBACK)
        peers.append(await dial(*server.local_addr, timeout=PATIENCE))
        await ask(peers[0], b"hello")

    run(main)
    with contextlib.closing(peers.pop()) as peer:
        assert not peer.is_closed
    assert log.records == []


@every_way
async def test_cancelling_the_task_that_serves_stops_the_server(way: Way) -> None:
    servers: list[Server] = []

    async def run() -> None:
        async with serve(echo, 0, LOOPBACK) as server:
            servers.append(server)
            await server.wait()

    running = asyncio.create_task(run())
    await until(lambda: servers)
    async with peer_of(servers[0]) as peer:
        await ask(peer, b"hello")
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert await peer.recv(1, PATIENCE) == b""
        await servers[0].wait(PATIENCE)


async def test_task_names_have_their_purpose(way: Way) -> None:
    async with serve(read, 0, LOOPBACK) as server, peer_of(server) as peer:
        await until(lambda: server.connections)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert {
            f"wireline-serve-{server.local_addr.port}",
            f"wireline-client-{peer.local_addr.port}",
        } <= names


async def test_wait_tells_that_its_time_was_up(way: Way) -> None:
    async with serve(read, 0, LOOPBACK) as server:
        with pytest.raises(SocketTimeout, match=r"wait.*0\.002"):
            await server.wait(0.002)


async def test_C5_a_server_that_cannot_start_leaves_nothing(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_task(coroutine: Coroutine[Any, Any, None], _: str) -> None:
        coroutine.close()
        raise RuntimeError("no task to be had")

    monkeypatch.setattr(AsyncioTasks, "spawn", staticmethod(no_task))
    with pytest.raises(RuntimeError, match="no task"):
        await serve(echo, 0, LOOPBACK)


async def test_a_name_is_looked_up_without_blocking_the_loop(way: Way) -> None:
    async with serve(echo, 0, "localhost") as server, peer_of(server) as peer:
        await ask(peer, b"hello")
