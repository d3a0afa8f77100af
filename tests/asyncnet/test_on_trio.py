"""What trio asks of a library: checkpoints, its clock, its errors, and nothing that is left behind.

The promises of the scenarios run on trio in tests/scenarios. docs/howto/trio.md has the table of what is different.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from trio.lowlevel import checkpoint, current_statistics

from tests.asyncnet.streams import LOOPBACK, listening, narrow_wire, open_descriptors, wire
from wireline import AF_INET, AF_UNIX, SOCK_DGRAM, Address, Deadline, SocketTimeout
from wireline.asyncnet import AsyncSocket, Pool, as_streams, as_transport, dial, serve

PATIENCE = 10.0

Call = Callable[[], Awaitable[object]]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Every descriptor is closed again when a run is over, that of the poller included."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def run(main: Call, **options: Any) -> None:
    async def in_time() -> None:
        with trio.fail_after(PATIENCE):
            await main()

    trio.run(in_time, **options)


async def echo(client: AsyncSocket, _: Address) -> None:
    while data := await client.recv_some():
        await client.send(data)


def test_the_loop_is_found_by_the_call_and_only_that_one_is_imported() -> None:
    program = """
        import sys
        import wireline.asyncnet
        assert not {"asyncio", "trio"} & sys.modules.keys()
        import socket, trio
        sys.modules["asyncio"] = None  # an import of it fails
        async def main():
            ours, peer = socket.socketpair()
            with peer:
                async with wireline.asyncnet.AsyncSocket.from_socket(ours) as sock:
                    await sock.send(b"x")
                    peer.send(peer.recv(1))
                    print(await sock.recv_some(timeout=5))
        trio.run(main)
    """
    program = "\n".join(line[8:] for line in program.splitlines())
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("b'x'\n", "")


# Checkpoints.


@contextlib.asynccontextmanager
async def calls() -> AsyncIterator[dict[str, Call]]:
    """Calls of each kind that need not sleep."""
    with wire() as (sock, peer), listening() as listener, socket.socket(AF_UNIX) as client:
        client.connect(listener.local_addr.host)
        with contextlib.ExitStack() as stack:
            datagrams = stack.enter_context(contextlib.closing(AsyncSocket(AF_INET, SOCK_DGRAM)))
            datagrams.bind_addr(0, LOOPBACK)
            unconnected = stack.enter_context(contextlib.closing(AsyncSocket(AF_UNIX)))
            pool = stack.enter_context(contextlib.closing(Pool[AsyncSocket](connect_never)))
            await sock.send(b"it belongs to this run")
            peer.send(b"some bytes")
            yield {
                "send": lambda: sock.send(b"x"),
                "send_many": lambda: sock.send_many([b"x", b"y"]),
                "send_some": lambda: sock.send_some(b"x"),
                "shutdown_write": sock.shutdown_write,
                "recv without waiting": lambda: sock.recv_some(4, timeout=0),
                "accept": listener.accept,
                "connect": lambda: unconnected.connect_unix(listener.local_addr.host),
                "send_to": lambda: datagrams.send_to(LOOPBACK, datagrams.local_addr.port, b"x"),
                "recv_from": lambda: datagrams.recv_from(10, timeout=0),
                "dial": lambda: dial(LOOPBACK, 1),
                "acquire": lambda: pool.acquire().__aenter__(),
                "serve": lambda: serve(echo, 0, LOOPBACK).__aenter__(),
            }
            # None of them has done anything.
            assert peer.recv(100) == b"it belongs to this run"
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            assert await sock.recv_some() == b"some bytes"
            (await listener.accept(timeout=5)).close()
            assert not unconnected._closing.locked()
            with pytest.raises(SocketTimeout):
                await datagrams.recv_from(10, timeout=0)


async def connect_never(_: Deadline) -> AsyncSocket:
    raise AssertionError("it was cancelled before")


def test_R5_a_call_that_need_not_sleep_is_a_cancel_point_and_has_done_nothing() -> None:
    async def main() -> None:
        async with calls() as each:
            for name, call in each.items():
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught, name

    run(main)


def test_buffered_reads_are_cancelled_within_sixteen_and_lose_nothing() -> None:
    async def main() -> None:
        with wire() as (sock, peer):
            peer.send(b"".join(b"%d\n" % number for number in range(100)))
            assert await sock.recv_line() == b"0"
            got = []
            with trio.CancelScope() as scope:
                scope.cancel()
                while True:
                    got.append(await sock.recv_line())
            assert 1 < len(got) <= 16, "the docs say so"
            with trio.CancelScope() as scope:
                scope.cancel()
                async for line in sock.lines():
                    got.append(line)
            assert len(got) < 40
            got += [await sock.recv_line() for _ in range(99 - len(got))]
            assert got == [b"%d" % number for number in range(1, 100)]

    run(main)


def test_a_task_that_only_sends_lets_the_others_run() -> None:
    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        with wire() as (sock, peer):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                for _ in range(1600):
                    await sock.send(b"x")
                    if not _ % 100:
                        peer.recv(1000)
                nursery.cancel_scope.cancel()
        assert turns >= 90, "one turn for 16 sends, as the docs say"

    run(main)


async def repeat(work: Call, turns: int, done: Callable[[], bool]) -> None:
    """Cancel a call after so many turns of the loop, then after one more, until its work is done."""
    while not done():
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        turns += 1


async def converse(turns: int) -> None:
    text = b"".join(b"%d\n" % number for number in range(50))
    got: list[bytes] = []
    sent = 0
    with wire() as (ours, there), contextlib.closing(AsyncSocket.from_socket(there.dup())) as theirs:

        async def send() -> None:
            nonlocal sent
            while sent < len(text):
                try:
                    await theirs.send(text[sent : sent + 7])
                finally:
                    sent += theirs.last_bytes_sent

        async def read() -> None:
            while len(got) < 50:
                got.append(await ours.recv_line())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(repeat, read, turns, lambda: len(got) == 50)
            nursery.start_soon(repeat, send, turns, lambda: sent >= len(text))
    assert got == text.split(b"\n")[:-1]


def test_R5_reads_and_sends_cancelled_at_every_checkpoint_lose_nothing() -> None:
    async def main() -> None:
        for turns in range(20):
            await converse(turns)

    run(main)


# Cancel scopes, deadlines and the clock.


def test_timeouts_and_scopes_work_together_and_leave_nothing() -> None:
    async def main() -> None:
        await trio.testing.wait_all_tasks_blocked()
        before = current_statistics()
        with wire() as (sock, peer):
            with pytest.raises(SocketTimeout):
                with trio.fail_after(5):
                    await sock.recv_line(timeout=0.01)
            with trio.move_on_after(0.01) as scope:
                await sock.recv_line(timeout=5)
            assert scope.cancelled_caught
            with trio.move_on_after(0.01) as scope:
                with trio.CancelScope(shield=True), pytest.raises(SocketTimeout):
                    await sock.recv_line(timeout=0.05)  # the shield holds off the scope, not the timeout
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            with trio.CancelScope(deadline=trio.current_time() + 5) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sock.recv_line)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.deadline = trio.current_time()
            assert scope.cancelled_caught, "the deadline was moved while the task slept"
            deadline = Deadline(0.02)
            peer.send(b"line\n")
            assert await sock.recv_line(deadline) == b"line"
            with pytest.raises(SocketTimeout):
                await sock.recv_line(deadline)
        await trio.testing.wait_all_tasks_blocked()
        after = current_statistics()
        assert after.tasks_living == before.tasks_living
        assert after.seconds_to_next_deadline >= 5
        assert repr(after.io_statistics) == repr(before.io_statistics)

    run(main)


def test_timeouts_are_on_the_clock_of_the_run() -> None:
    async def main() -> None:
        with wire() as (sock, _), listening() as listener:
            day = 24 * 3600.0
            deadline = Deadline(day)
            began = trio.current_time()
            for call in (sock.recv_line, listener.accept):
                with pytest.raises(SocketTimeout):
                    await call(timeout=day / 4)  # type: ignore[operator]
            assert trio.current_time() - began == pytest.approx(day / 2)
            assert deadline.remaining() == pytest.approx(day / 2)
            with pytest.raises(SocketTimeout):
                await sock.recv_line(deadline)
            assert deadline.expired()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))


def test_the_ages_of_a_pool_are_on_the_clock_of_the_run() -> None:
    async def main() -> None:
        async with serve(echo, 0, LOOPBACK) as server:

            async def connect(deadline: Deadline) -> AsyncSocket:
                return await dial(LOOPBACK, server.local_addr.port, timeout=deadline)

            async with Pool(connect, idle_timeout=3600.0, max_lifetime=7200.0) as pool:
                for idle, made in ((0.0, 1), (3000.0, 1), (3000.0, 1), (3000.0, 2), (3601.0, 3)):
                    await trio.sleep(idle)
                    async with pool.acquire():
                        assert pool.stats.created == made

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))


# Loops.


def test_guest_mode_runs_both_loops_in_one_thread() -> None:
    async def exchange(sock: AsyncSocket, peer: socket.socket) -> bytes:
        await sock.send(b"x")
        peer.send(peer.recv(1))
        return await sock.recv_some(timeout=5)

    async def host() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        with wire() as (mine, my_peer), wire() as (guests, guests_peer):
            assert await exchange(mine, my_peer) == b"x"

            async def guest() -> None:
                assert await exchange(guests, guests_peer) == b"x"
                for call in (mine.recv_some, mine.recv_line, functools.partial(mine.recv, 5, 1)):
                    with pytest.raises(RuntimeError, match="another event loop"):
                        await call()

            trio.lowlevel.start_guest_run(
                guest,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=done.set_result,
                host_uses_signal_set_wakeup_fd=True,
            )
            assert await exchange(mine, my_peer) == b"x"
            (await done).unwrap()
            with pytest.raises(RuntimeError):
                await guests.recv_some()

    asyncio.run(host())


def test_close_wakes_a_task_that_waits_for_the_descriptor_itself() -> None:
    async def main() -> None:
        with wire() as (sock, _):

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(sock.fileno())

            async with trio.open_nursery() as nursery:
                with trio.move_on_after(0.001):
                    await sock.recv_some()
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                sock.close()

    run(main)


def test_an_exception_of_a_callback_belongs_to_the_task_that_waits() -> None:
    async def main() -> None:
        def measure(_: memoryview) -> None:
            raise SystemExit("in the callback of the poller")

        with wire() as (sock, peer):

            async def read() -> None:
                with pytest.raises(SystemExit):
                    await sock.recv_frame(measure_later)

            calls = 0

            def measure_later(view: memoryview) -> tuple[int, int] | None:
                nonlocal calls
                calls += 1
                return None if calls == 1 else measure(view)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                peer.send(b"abc")
                await trio.testing.wait_all_tasks_blocked()
                peer.send(b"abc")

    run(main)


def test_a_generator_that_is_cleaned_up_after_the_run_is_cancelled() -> None:
    seen: list[BaseException] = []
    with wire() as (sock, peer):

        async def generate() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                for shield in (False, True):
                    try:
                        with trio.CancelScope(shield=shield):
                            await sock.recv_some()
                    except (trio.Cancelled, RuntimeError) as error:
                        seen.append(error)
                await trio.lowlevel.checkpoint()

        generator = generate()

        async def main() -> None:
            peer.send(b"x")
            assert await sock.recv_some() == b"x"
            await anext(generator)

        run(main)
    assert [type(error) for error in seen] == [trio.Cancelled, RuntimeError]


# Servers.


def test_the_exceptions_of_a_servers_block_are_bare_and_those_of_handlers_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(client: AsyncSocket, _: Address) -> None:
        await client.recv_some()
        raise ZeroDivisionError("of the handler")

    async def main() -> None:
        with pytest.raises(KeyError):
            async with serve(fail, 0, LOOPBACK) as server:
                async with await dial(LOOPBACK, server.local_addr.port) as client:
                    await client.send(b"x")
                    assert await client.recv_some() == b""
                raise KeyError("of the block")

    run(main)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "ZeroDivisionError: of the handler" in (record.exc_text or "")


def test_a_handler_that_exits_ends_the_block() -> None:
    async def leave(client: AsyncSocket, _: Address) -> None:
        raise SystemExit(3)

    async def main() -> None:
        async with serve(leave, 0, LOOPBACK) as server:
            async with await dial(LOOPBACK, server.local_addr.port):
                await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert caught.group_contains(SystemExit)


def test_a_cancelled_block_ends_its_handlers_and_stop_ends_in_its_time() -> None:
    ended = []

    async def stay(client: AsyncSocket, _: Address) -> None:
        try:
            await client.send(b"hello")
            await trio.sleep_forever()
        finally:
            ended.append(client)
            if not client.is_closed:
                with trio.CancelScope(shield=True):  # without it the farewell would be cancelled, too
                    await client.send(b"bye")

    async def main() -> None:
        before = current_statistics().tasks_living
        for end in ("cancel", "stop"):
            with trio.CancelScope() as scope:
                async with serve(stay, 0, LOOPBACK) as server:
                    sock = await dial(LOOPBACK, server.local_addr.port)
                    assert await sock.recv_some() == b"hello"
                    if end == "cancel":
                        scope.cancel()
                    else:
                        with trio.fail_after(5):
                            assert await server.stop(drain=0.05) == (0, 1)
            assert sock.is_closed is False
            if end == "cancel":
                assert await sock.recv_some() == b"bye"
            sock.close()
        assert len(ended) == 2
        await trio.testing.wait_all_tasks_blocked()
        assert current_statistics().tasks_living == before

    run(main)


def test_a_task_of_a_handler_counts_as_the_handler_and_may_stop_the_server() -> None:
    async def main() -> None:
        reports = []

        async def handler(client: AsyncSocket, _: Address) -> None:
            async with trio.open_nursery() as nursery:

                async def stop() -> None:
                    reports.append(await server.stop(drain=5))

                nursery.start_soon(stop)
            await client.send(b"stopped")

        async with serve(handler, 0, LOOPBACK) as server:
            async with await dial(LOOPBACK, server.local_addr.port) as client:
                assert await client.recv_some() == b"stopped"
            await server.wait()
        assert reports == [(0, 0)]

    run(main)


def test_the_names_of_tasks_are_those_of_asyncio_and_leaving_a_block_is_no_checkpoint() -> None:
    names = []

    async def handler(client: AsyncSocket, address: Address) -> None:
        task = trio.lowlevel.current_task()
        names.append(task.name == f"wireline-client-{address.port}")

    async def main() -> None:
        async with serve(handler, 0, LOOPBACK) as server:
            with trio.CancelScope() as scope:
                async with await dial(LOOPBACK, server.local_addr.port) as client:
                    assert await client.recv_some() == b""
                    scope.cancel()
            assert client.is_closed
            assert not scope.cancelled_caught
            for bridge in (as_streams, functools.partial(as_transport, protocol=asyncio.Protocol())):
                other = await dial(LOOPBACK, server.local_addr.port)
                with contextlib.closing(other), pytest.raises(RuntimeError, match="asyncio"):
                    bridge(other)

    run(main)
    assert names[0]


def test_a_handler_that_does_not_end_is_waited_for_at_the_end_of_the_block() -> None:
    ended = False

    async def stubborn(client: AsyncSocket, _: Address) -> None:
        nonlocal ended
        await client.send(b"hello")
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        ended = True

    async def main() -> None:
        async with serve(stubborn, 0, LOOPBACK) as server:
            async with await dial(LOOPBACK, server.local_addr.port) as client:
                assert await client.recv_some() == b"hello"
                assert await server.stop() == (0, 1)
                assert not ended, "stop ends in its time"
        assert ended

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05))


def test_a_stop_that_is_requested_after_the_block_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for cancelled in (False, True):
            with trio.CancelScope() as scope:
                async with serve(echo, 0, LOOPBACK) as server:
                    if cancelled:
                        scope.cancel()
            server.request_stop()
            await trio.testing.wait_all_tasks_blocked()
            for call in (server.wait, server.stopping.wait):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught, "it need not sleep, and is a cancel point"

    run(main)
    assert caplog.records == []


def test_an_awaited_server_is_refused_and_names_the_block() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="async with serve"):
            await serve(echo, 0, LOOPBACK)

    run(main)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_P3_a_forked_child_that_closes_its_copies_leaves_the_parents_alone() -> None:
    async def main() -> None:
        with wire() as (sock, peer):
            async with trio.open_nursery() as nursery:
                got: list[bytes] = []

                async def read() -> None:
                    got.append(await sock.recv_some())

                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                child = os.fork()
                if not child:
                    sock.close()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222 - it ends at once
                peer.send(b"x")
            assert got == [b"x"]

    run(main)


def test_a_connection_that_waits_with_small_buffers_is_cancelled_in_its_send() -> None:
    async def main() -> None:
        with narrow_wire() as (sock, peer):
            data = bytes(range(256)) * 400
            with trio.move_on_after(0.02) as scope:
                await sock.send(data)
            assert scope.cancelled_caught
            sent = sock.last_bytes_sent
            assert 0 < sent < len(data)
            got = b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(functools.partial(sock.send, data[sent:]))
                while len(got) < len(data):
                    with contextlib.suppress(BlockingIOError):
                        got += peer.recv(65536)
                    await checkpoint()
            assert got == data

    run(main)
