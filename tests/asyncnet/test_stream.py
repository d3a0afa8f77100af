"""Faults that only an asynchronous socket can have: loops, threads that close it, tasks that share it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tests.asyncnet.loops import ALL_WAYS, Way, spy, turns
from tests.asyncnet.streams import (
    LOOPBACK,
    PATIENCE,
    drain,
    drain_until,
    knock,
    listening,
    narrow_wire,
    open_descriptors,
    pattern,
    wire,
)
from tests.scenarios.names import Names
from wireline import AF_INET, SOCK_DGRAM, SOCK_STREAM, Address, BusyError, ClosedError, SocketTimeout
from wireline.asyncnet import AsyncSocket, serve

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
with_clock = pytest.mark.parametrize(
    "way", [way for way in ALL_WAYS if way.has_a_clock_to_put_forward], ids=lambda way: way.name
)

Call = Callable[[AsyncSocket], Coroutine[Any, Any, object]]

FULL = pattern(1_000_000)
"""More than fits into a connection whose peer does not read."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Names that resolve to the addresses of the test."""
    with Names().in_place(monkeypatch) as names:
        yield names


@contextlib.contextmanager
def unconnected() -> Iterator[tuple[AsyncSocket, socket.socket]]:
    """A socket that is about to connect to an address that does not answer."""
    with socket.socket() as full, contextlib.closing(AsyncSocket()) as sock:
        full.bind((LOOPBACK, 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            yield sock, full


@contextlib.contextmanager
def datagram() -> Iterator[tuple[AsyncSocket, None]]:
    with contextlib.closing(AsyncSocket(AF_INET, SOCK_DGRAM)) as sock:
        sock.bind_addr(0, LOOPBACK)
        yield sock, None


@contextlib.contextmanager
def listener() -> Iterator[tuple[AsyncSocket, None]]:
    with listening() as sock:
        yield sock, None


async def fill(sock: AsyncSocket) -> None:
    """Send some, again and again."""
    while True:
        await sock.send_some(FULL)


async def both(sock: AsyncSocket) -> None:
    """Read meanwhile."""
    await asyncio.gather(sock.recv(1), fill(sock))


async def send_behind_another(sock: AsyncSocket) -> None:
    first = asyncio.create_task(sock.send(FULL))
    await turns(2)
    try:
        await sock.send(b"queued")
    finally:
        first.cancel()
        with contextlib.suppress(ClosedError, asyncio.CancelledError):
            await first


WAITS: dict[str, tuple[Callable[[], Any], Callable[[AsyncSocket, Any], Coroutine[Any, Any, object]]]] = {
    "recv": (wire, lambda sock, _: sock.recv(1)),
    "recv with a timeout": (wire, lambda sock, _: sock.recv_line(50)),
    "send": (wire, lambda sock, _: sock.send(FULL)),
    "send with a timeout": (wire, lambda sock, _: sock.send(FULL, timeout=50)),
    "a queued send": (wire, lambda sock, _: send_behind_another(sock)),
    "accept": (listener, lambda sock, _: sock.accept()),
    "connect": (unconnected, lambda sock, full: sock.connect(*full.getsockname())),
    "connect by name": (unconnected, lambda sock, _: sock.connect("nowhere", 1)),
    "recv_from": (datagram, lambda sock, _: sock.recv_from(10)),
}
"""Calls that wait, and the condition that they wait for."""

every_wait = pytest.mark.parametrize(("make", "call"), WAITS.values(), ids=WAITS)


# ---------------------------------------------------------------------------------------------- closing


@every_way
@every_wait
@pytest.mark.parametrize("from_thread", [False, True], ids=["here", "thread"])
async def test_R13_close_ends_every_wait_at_once(
    way: Way, make: Any, call: Any, from_thread: bool, names: Names
) -> None:
    if way.name == "portable-uvloop" and make is datagram:
        return  # uvloop has no `sock_recvfrom`
    names.add_silent("nowhere")
    with make() as (sock, peer):
        task = asyncio.create_task(call(sock, peer))
        await turns(4)
        assert not task.done()
        if from_thread:
            thread = threading.Thread(target=sock.close)
            thread.start()
            thread.join()
            assert sock.fileno() == -1
        else:
            sock.close()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(task, PATIENCE)


@every_way
async def test_R14_a_read_during_the_close_by_another_thread_does_not_give_the_core_back(way: Way) -> None:
    with wire() as (sock, peer):
        reading = asyncio.create_task(sock.recv_line())
        await turns(3)
        peer.send(b"a line\nand more")
        await turns(1)  # in the next turn this task runs first, and then the event
        thread = threading.Thread(target=sock.close)
        thread.start()
        thread.join()
        with contextlib.suppress(ClosedError):  # either of the two may be first
            assert await reading == b"a line"
        await turns(3)
        for again in (sock.recv_line, lambda: sock.recv(1), lambda: sock.send(b"x"), lambda: sock.send(b"")):
            with pytest.raises(ClosedError):
                await again()
        with pytest.raises(ClosedError):
            sock.try_recv_line()


@every_way
@pytest.mark.parametrize("from_thread", [False, True], ids=["here", "thread"])
@pytest.mark.parametrize("busy", ["none", "reader", "writer", "filler", "both"])
async def test_R14_nothing_is_sent_after_close(way: Way, busy: str, from_thread: bool) -> None:
    with wire() as (sock, peer):
        call: dict[str, Call] = {
            "none": lambda sock: sock.send(b""),
            "reader": lambda sock: sock.recv(1),
            "writer": lambda sock: sock.send(FULL),
            "filler": fill,
            "both": both,
        }
        task = asyncio.ensure_future(call[busy](sock))
        await turns(3)
        if from_thread:
            thread = threading.Thread(target=sock.close)
            thread.start()
            thread.join()
        else:
            sock.close()
        for _ in range(6):
            for again in (sock.send, sock.send_some):
                with pytest.raises(ClosedError):
                    await again(b"too late")
            assert not sock.try_send(b"too late")
            await turns(1)
        await asyncio.wait([task])
        assert (task.exception() is None) is (busy == "none")
        assert b"too late" not in await drain_until(peer, task.done)


@every_wait
def test_a_socket_can_be_closed_when_its_loop_has_been_closed_under_a_call(
    way: Way, make: Any, call: Any, names: Names
) -> None:
    names.add_silent("nowhere")
    before = open_descriptors()
    loop = way.new_loop()
    with way.chosen(), make() as (sock, peer):

        async def begin() -> asyncio.Task[object]:
            task = asyncio.create_task(call(sock, peer))
            await turns(4)
            return task

        task = loop.run_until_complete(begin())
        loop.close()
        sock.close()
        assert sock.is_closed
        # This test is not about asyncio's warning for a task whose loop was closed.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # the call unwinds, and its loop is gone
            task.get_coro().close()  # type: ignore[union-attr]
        del task
    gc.collect()
    if not way.portable:  # the loop's own operations hold descriptors until the loop is gone
        assert open_descriptors() == before


@every_way
def test_closed_by_a_thread_in_the_moment_in_which_its_loop_is_closed(way: Way) -> None:
    loop = way.new_loop()
    with way.chosen(), wire() as (sock, peer):
        loop.run_until_complete(sock.send(b"x"))
        with contextlib.suppress(SocketTimeout):
            loop.run_until_complete(sock.recv(1, timeout=0.001))
        is_closed = loop.is_closed
        loop.close()
        loop.is_closed = lambda: False  # type: ignore[method-assign]  # not yet, when it is asked
        loop.is_running = lambda: True  # type: ignore[method-assign]
        loop.call_soon_threadsafe = _no_more(loop, is_closed)  # type: ignore[method-assign]
        thread = threading.Thread(target=sock.close)
        thread.start()
        thread.join()
        assert sock.is_closed
        assert drain(peer) == b"x"
        assert peer.recv(1) == b"", "and its descriptor is closed"


def _no_more(loop: Any, is_closed: Callable[[], bool]) -> Callable[..., None]:
    """The ``call_soon_threadsafe`` of a loop that is closed."""

    def refuse(*_: object, **__: object) -> None:
        loop.is_closed = is_closed
        loop.is_running = lambda: False
        raise RuntimeError("Event loop is closed")

    return refuse


@every_way
async def test_closing_in_a_block_and_twice(way: Way) -> None:
    ours, peer = socket.socketpair()
    with peer:
        async with AsyncSocket.from_socket(ours) as sock:
            await sock.send(b"x")
        assert sock.is_closed
        sock.close()
        assert peer.recv(10) == b"x"
        assert peer.recv(10) == b""


# ------------------------------------------------------------------------------------------------- loops


@every_way
@every_wait
def test_a_socket_belongs_to_the_loop_of_its_first_wait(way: Way, make: Any, call: Any, names: Names) -> None:
    if way.name == "portable-uvloop" and make is datagram:
        return  # uvloop has no `sock_recvfrom`
    names.add_silent("nowhere")

    def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=way.new_loop) as runner:
            runner.run(main())

    with way.chosen(), make() as (sock, peer):  # made before a loop runs

        async def first() -> None:
            task = asyncio.create_task(call(sock, peer))
            await turns(4)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClosedError):
                await task

        async def second() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                await call(sock, peer)

        run(first)
        run(second)
        run(second)


# ------------------------------------------------------------------------------------------- one deadline


@with_clock
async def test_W3_one_deadline_covers_the_queue_and_the_send(way: Way) -> None:
    loop = spy()
    with narrow_wire() as (sock, peer):
        size = 50_000
        first = asyncio.create_task(sock.send(bytes(size)))
        await turns(2)
        second = asyncio.create_task(sock.send(FULL, timeout=10))
        third = asyncio.create_task(sock.send_some(FULL, timeout=10))
        await turns(2)
        loop.ahead += 6
        while not first.done():
            with contextlib.suppress(BlockingIOError):
                peer.recv(2000)
            await turns(1)
        assert not second.done()
        loop.ahead += 6
        await turns(5)
        for task in (second, third):
            assert task.done(), "the time in the queue does not count"
            with pytest.raises(SocketTimeout) as caught:
                task.result()
            assert caught.value.seconds == 10
        drain(peer)


@with_clock
@every_wait
async def test_a_timeout_names_the_seconds_that_were_given(
    way: Way, make: Any, call: Any, names: Names
) -> None:
    names.add_silent("nowhere")
    calls: dict[Any, Callable[[AsyncSocket, Any], Coroutine[Any, Any, object]]] = {
        wire: lambda sock, _: sock.recv_some(timeout=12.5),
        listener: lambda sock, _: sock.accept(timeout=12.5),
        unconnected: lambda sock, full: sock.connect(*full.getsockname(), timeout=12.5),
        datagram: lambda sock, _: sock.recv_from(10, timeout=12.5),
    }
    loop = spy()
    with make() as (sock, peer):
        task = asyncio.create_task(calls[make](sock, peer))
        await turns(4)
        loop.ahead += 12.4
        await turns(4)
        assert not task.done()
        loop.ahead += 0.2
        with pytest.raises(SocketTimeout) as caught:
            await task
        assert caught.value.seconds == 12.5
        assert "within 12.5 s" in str(caught.value)


# ------------------------------------------------------------------------------------------------ buffers


@every_way
async def test_W4_the_buffer_is_the_callers_as_soon_as_a_send_is_over(way: Way) -> None:
    with narrow_wire() as (sock, peer):
        data = bytearray(FULL[:100_000])
        went = 0
        try:
            await sock.send(data, timeout=0.003)
        except SocketTimeout as error:
            went = error.bytes_sent or 0
            del data[:went]  # right here, and not after the block
        assert went
        sending = asyncio.create_task(sock.send(data))
        arrived = await drain_until(peer, sending.done)
        await sending
        data.clear()
        assert arrived == FULL[:100_000]


@every_way
async def test_W4_the_buffer_is_the_callers_after_a_cancellation(way: Way) -> None:
    with narrow_wire() as (sock, peer):
        data = bytearray(FULL[:100_000])
        sending = asyncio.create_task(sock.send(data))
        await turns(3)
        sending.cancel()
        await asyncio.wait([sending])
        went = sock.last_bytes_sent
        data[:] = bytes(len(data))
        data.clear()
        assert await drain_until(peer, sending.done) == FULL[:went]


@every_way
async def test_a_timeout_leaves_the_readers_buffer_as_it_was(way: Way) -> None:
    with wire() as (sock, peer):
        peer.send(b"some")
        buffer = bytearray(b"before")
        with pytest.raises(SocketTimeout):
            await sock.recv_into(buffer, timeout=0.002)
        with pytest.raises(SocketTimeout):
            await sock.recv_line_into(buffer, 0.002)
        assert buffer == b"before"
        buffer.clear()


# --------------------------------------------------------------------------------------------- iterating


@every_way
async def test_lines_ends_with_the_stream_and_stays_ended(way: Way) -> None:
    with wire() as (sock, peer):
        peer.send(b"one\n\ntwo\r\nunfinished")
        peer.shutdown(socket.SHUT_WR)
        lines = sock.lines()
        assert [line async for line in lines] == [b"one", b"", b"two"]
        assert [line async for line in lines] == []
        assert await sock.recv(100) == b"unfinished"


@every_way
async def test_C3_without_a_new_descriptor_the_next_connect_makes_one(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, calls = AsyncSocket._replace_fd, 0

    def fail_once(sock: AsyncSocket) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.EMFILE, "out of descriptors")
        renew(sock)

    monkeypatch.setattr(AsyncSocket, "_replace_fd", fail_once)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with AsyncSocket() as sock:
            with pytest.raises(ConnectionRefusedError):
                await sock.connect(*bound.getsockname())
            await sock.connect(*listener.getsockname(), timeout=5)
            assert calls == 2


async def test_R14_lines_that_were_split_off_ahead_are_gone_after_close(way: Way) -> None:
    with wire() as (sock, peer):
        peer.send(b"line\n" * 1000)
        while not sock._io.buffer.lines:
            assert await sock.recv_line() == b"line"
        sock.close()
        for timeout in (None, 5):
            with pytest.raises(ClosedError):
                await sock.recv_line(timeout)


async def test_lines_ends_with_a_timeout_and_another_goes_on(way: Way) -> None:
    with wire() as (sock, peer):
        peer.send(b"one\ntw")
        lines = sock.lines(timeout=0.1)
        assert await anext(lines) == b"one"
        with pytest.raises(SocketTimeout):
            await anext(lines)
        peer.send(b"o\n")
        assert await anext(lines, None) is None, "as in the blocking flavour"
        assert await anext(sock.lines()) == b"two"


@every_way
async def test_R11_a_second_task_that_iterates_is_refused_and_the_first_is_unharmed(way: Way) -> None:
    with wire() as (sock, peer):
        lines = sock.lines()
        first = asyncio.ensure_future(anext(lines))
        await turns(3)
        for second in (lines, sock.lines()):
            with pytest.raises(BusyError):
                await anext(second)
        peer.send(b"one\ntwo\n")
        assert await first == b"one"
        assert await anext(lines) == b"two"


# ------------------------------------------------------------------------------------------ it is not closed


def fresh(protocol: int) -> AsyncSocket:
    """A socket that nothing will close."""
    sock = AsyncSocket(AF_INET, protocol)
    sock.bind_addr(0, LOOPBACK)
    if protocol == SOCK_STREAM:
        sock.listen()
    return sock


def adopted(sock: socket.socket) -> AsyncSocket:
    """The same for a duplicate of the test's descriptor."""
    return AsyncSocket.from_socket(sock.dup())


FORGOTTEN: dict[str, tuple[Callable[[socket.socket], AsyncSocket], Call | None]] = {
    "unused": (lambda _: AsyncSocket(), None),
    "connected": (adopted, None),
    "recv": (adopted, lambda sock: sock.recv_line(timeout=0.002)),
    "send": (adopted, lambda sock: sock.send(FULL, timeout=0.002)),
    "accept": (lambda _: fresh(SOCK_STREAM), lambda sock: sock.accept(timeout=0.002)),
    "recv_from": (lambda _: fresh(SOCK_DGRAM), lambda sock: sock.recv_from(9, timeout=0.002)),
}


@every_way
@pytest.mark.parametrize(("make", "call"), FORGOTTEN.values(), ids=FORGOTTEN)
async def test_a_socket_that_is_not_closed_is_named_in_the_warning_and_closed(
    way: Way, make: Callable[[socket.socket], AsyncSocket], call: Call | None
) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        before = open_descriptors()
        sock = make(ours)
        if call is not None and (way.name, call) != ("portable-uvloop", FORGOTTEN["recv_from"][1]):
            with pytest.raises(SocketTimeout):
                await call(sock)
        name = repr(sock)
        assert f"fd={sock.fileno()}" in name
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del sock
            gc.collect()
            await turns(6)
        assert f"unclosed {name}" in [str(each.message) for each in caught]
        assert {each.category for each in caught} == {ResourceWarning}
        if "portable" in way.name and (make, call) == FORGOTTEN["send"]:
            peer.close()  # while there is a peer, bytes that count as sent may still be sent
            before -= 1
            await turns(6)
        assert open_descriptors() == before


# ------------------------------------------------------------------------------------- many tasks, no reader


@every_way
async def test_W5_the_messages_of_fifty_tasks_arrive_whole_and_in_order_of_the_calls(way: Way) -> None:
    with narrow_wire(16384) as (sock, peer):
        messages = [b"%02d" % number + pattern(100 * number + 1, number) for number in range(50)]
        sending = [asyncio.create_task(sock.send(message)) for message in messages]
        arrived = await drain_until(peer, lambda: all(task.done() for task in sending))
        await asyncio.gather(*sending)
        assert arrived == b"".join(messages)


@every_way
async def test_W7_a_peer_that_does_not_read_holds_the_sender_back_and_its_memory_stays(way: Way) -> None:
    block = bytes(65536)
    sent = 0
    with wire() as (sock, peer):

        async def pour() -> None:
            nonlocal sent
            while True:
                await sock.send(block)
                sent += 1

        pouring = asyncio.create_task(pour())
        await turns(20)
        held_back_at = sent
        gc.collect()
        tracemalloc.start()
        try:
            await turns(500)
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sent == held_back_at
        assert grown < 100_000
        assert len(drain(peer)) >= held_back_at * len(block)
        await turns(5)
        assert sent > held_back_at
        sock.close()
        with pytest.raises(ClosedError):
            await asyncio.wait_for(pouring, PATIENCE)


async def test_W7_clients_that_do_not_read_cost_a_server_nothing_more(way: Way) -> None:
    poured: dict[Address, int] = {}

    async def pour(client: AsyncSocket, address: Address) -> None:
        poured[address] = 0
        while True:
            await client.send(bytes(65536))
            poured[address] += 1

    async with serve(pour, 0, LOOPBACK) as server:
        clients = [socket.create_connection(server.local_addr) for _ in range(10)]
        before: list[int] = []
        while (now := sorted(poured.values())) != before or len(now) < 10:
            before = now
            await asyncio.sleep(0.02)
        tracemalloc.start()
        try:
            await turns(200)
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert grown < 200_000
        assert server.connections == 10
        for client in clients:
            client.close()


async def test_a_reader_beside_fifty_writers(way: Way) -> None:
    with wire() as (sock, peer), contextlib.closing(AsyncSocket.from_socket(peer)) as echo:

        async def reflect() -> None:
            while data := await echo.recv_some():
                await echo.send(data)

        reflecting = asyncio.create_task(reflect())
        lines = [b"%d" % number * 100 for number in range(50)]
        writing = [asyncio.create_task(sock.send(line + b"\n")) for line in lines]
        assert [await sock.recv_line(PATIENCE) for _ in lines] == lines
        await asyncio.gather(*writing)
        await sock.shutdown_write()
        await reflecting


@every_way
async def test_it_lives_beside_streams_and_subprocesses_of_asyncio(way: Way) -> None:
    with listening(AF_INET) as server:

        async def answer() -> None:
            async with await server.accept(timeout=PATIENCE) as client:
                async for line in client.lines():
                    await client.send(line.upper() + b"\n")

        answering = asyncio.create_task(answer())
        reader, writer = await asyncio.open_connection(*server.local_addr)
        writer.write(b"from a stream\n")
        assert await reader.readline() == b"FROM A STREAM\n"
        child = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        with knock(server), contextlib.closing(await server.accept(timeout=PATIENCE)) as other:
            waiting = asyncio.create_task(other.recv(1))
            output, _ = await child.communicate(b"through a process")
            assert output == b"through a process"
            assert not waiting.done()
            other.close()
            with pytest.raises(ClosedError):
                await waiting
        writer.close()
        await writer.wait_closed()
        await answering
        del child
