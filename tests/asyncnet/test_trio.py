"""The seam for event loops holds: sockets echo, time out, are cancelled and closed under ``trio.run``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.asyncnet.streams import LOOPBACK, is_interrupted_at_line, narrow_wire, open_descriptors
from wireline import ClosedError, SocketTimeout
from wireline.asyncnet import AsyncSocket, dial, serve
from wireline.asyncnet._port import running_port
from wireline.asyncnet._sync import WriteLock

PATIENCE = 10.0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Every descriptor is closed again when a run is over, that of the poller included."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        with trio.fail_after(PATIENCE):
            await main()

    trio.run(in_time)


@contextmanager
def pair() -> Iterator[tuple[AsyncSocket, socket.socket]]:
    """A socket, and its peer."""
    ours, peer = socket.socketpair()
    with peer, closing(AsyncSocket.from_socket(ours)) as sock:
        peer.setblocking(False)
        yield sock, peer


async def echo_all(listener: AsyncSocket) -> None:
    client = await listener.accept()
    with closing(client):
        while data := await client.recv_some():
            await client.send(data)


def test_it_echoes_over_TCP_in_pieces_that_have_to_wait() -> None:
    async def main() -> None:
        data = bytes(range(256)) * 8192
        with closing(AsyncSocket()) as listener, closing(AsyncSocket()) as sock:
            listener.bind_addr(0, LOOPBACK)
            listener.listen()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo_all, listener)
                await sock.connect(LOOPBACK, listener.local_addr.port, timeout=5)
                nursery.start_soon(sock.send, data)
                assert await sock.recv_exactly(len(data)) == data
                await sock.shutdown_write()
                assert await sock.recv_some() == b""

    run(main)


def test_lines_are_read_one_by_one_and_from_the_buffer() -> None:
    async def main() -> None:
        with pair() as (sock, peer):
            peer.send(b"one\r\ntwo\nthr")
            assert await sock.recv_line() == b"one"
            assert await sock.recv_line(timeout=5) == b"two"
            async with trio.open_nursery() as nursery:

                async def finish() -> None:
                    peer.send(b"ee\n")
                    peer.shutdown(socket.SHUT_WR)

                nursery.start_soon(finish)
                assert [line async for line in sock.lines()] == [b"three"]

    run(main)


def test_R5_a_cancelled_read_loses_nothing() -> None:
    async def main() -> None:
        with pair() as (sock, peer):
            for number in range(200):
                line = b"line %d\n" % number
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(sock.recv_exactly, len(line))
                        await trio.lowlevel.checkpoint()
                        peer.send(line[: number % len(line)])
                        if number % 3:
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
                assert scope.cancelled_caught or not number % len(line)
                peer.send(line[number % len(line) :])
                assert await sock.recv_line() == line[:-1]

    run(main)


def test_R5_a_read_that_is_woken_and_cancelled_in_the_same_moment_loses_nothing() -> None:
    async def main() -> None:
        with pair() as (sock, peer):
            got: list[bytes] = []

            async def read(scope: trio.CancelScope) -> None:
                with scope:
                    got.append(await sock.recv_line())
                    await trio.lowlevel.checkpoint()

            for number in range(50):
                scope = trio.CancelScope()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read, scope)
                    await trio.testing.wait_all_tasks_blocked()
                    waiter = sock._fd.read_waiter
                    assert waiter is not None
                    peer.send(b"%d\n" % number)
                    waiter()  # the poller's callback: from here on the task cannot be cancelled out of its sleep
                    scope.cancel()
            assert got == [b"%d" % number for number in range(50)]

    run(main)


def test_a_lock_that_is_handed_over_in_the_moment_of_a_cancellation_is_taken() -> None:
    async def main() -> None:
        lock = WriteLock()
        scope = trio.CancelScope()
        acquired = []

        async def acquire() -> None:
            with scope:
                acquired.append(await lock.acquire(running_port(), None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(acquire)
            await trio.testing.wait_all_tasks_blocked()
            lock.release()
            scope.cancel()
        assert acquired == [True]
        lock.release()
        assert not lock.locked

    run(main)


def test_R13_close_wakes_a_waiting_read_and_a_waiting_send() -> None:
    async def main() -> None:
        with narrow_wire() as (sock, _):
            async with trio.open_nursery() as nursery:

                async def expect_closed(call: Callable[[], Awaitable[object]]) -> None:
                    with pytest.raises(ClosedError):
                        await call()

                nursery.start_soon(expect_closed, sock.recv_line)
                nursery.start_soon(expect_closed, lambda: sock.send(bytes(1_000_000)))
                await trio.testing.wait_all_tasks_blocked()  # trio starts tasks in any order
                nursery.start_soon(expect_closed, lambda: sock.send(b"behind the first"))
                await trio.testing.wait_all_tasks_blocked()
                sock.close()
            with pytest.raises(ClosedError):
                await sock.recv_line()

    run(main)


def test_R13_another_thread_may_close() -> None:
    async def main() -> None:
        with pair() as (sock, _):
            closer = threading.Timer(0.05, sock.close)
            closer.start()
            with pytest.raises(ClosedError):
                await sock.recv_line()
            closer.join()

    run(main)


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_R5_a_timeout_says_so_and_loses_nothing(seconds: float) -> None:
    async def main() -> None:
        with pair() as (sock, peer):
            peer.send(b"half a ")
            for _ in range(3):
                with pytest.raises(SocketTimeout):
                    await sock.recv_line(timeout=seconds)
            peer.send(b"line\n")
            assert await sock.recv_line(timeout=5) == b"half a line"

    run(main)


def test_a_socket_belongs_to_one_run() -> None:
    ours, peer = socket.socketpair()
    with peer, closing(AsyncSocket.from_socket(ours)) as sock:

        async def read() -> None:
            assert await sock.recv_some() == b"x"

        peer.send(b"x")
        run(read)
        with pytest.raises(RuntimeError, match="another event loop"):
            run(read)


def test_dial_races_and_serve_refuses() -> None:
    async def main() -> None:
        with closing(AsyncSocket()) as listener:
            listener.bind_addr(0, LOOPBACK)
            listener.listen()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo_all, listener)
                with closing(await dial(LOOPBACK, listener.local_addr.port, timeout=5)) as sock:
                    await sock.send(b"hello\n")
                    assert await sock.recv_line(5) == b"hello"
        with pytest.raises(RuntimeError, match="async with serve"):
            await serve(lambda client, _: client.send(b"never"), 0, LOOPBACK)

    run(main)


def test_many_tasks_that_are_woken_together_answer_in_one_step_each() -> None:
    """Their sends are no sends of one task: a budget for all of them was spent after 16."""
    steps = 0

    class CountSteps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            steps += task.name == "answer"

    async def answer(sock: AsyncSocket) -> None:
        while data := await sock.recv_some():
            await sock.send(data)

    async def main() -> None:
        nonlocal steps
        with ExitStack() as stack:
            pairs = [stack.enter_context(pair()) for _ in range(50)]
            async with trio.open_nursery() as nursery:
                for sock, _ in pairs:
                    nursery.start_soon(answer, sock, name="answer")
                await trio.testing.wait_all_tasks_blocked()
                steps = 0
                trio.lowlevel.add_instrument(CountSteps())
                for _, peer in pairs:
                    peer.send(b"ping")
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert steps == len(pairs)
                assert [peer.recv(10) for _, peer in pairs] == [b"ping"] * len(pairs)
                for _, peer in pairs:
                    peer.close()

    run(main)


def test_P5_an_exception_at_every_line_before_an_accept_sleeps_leaves_nobody_in_the_queue() -> None:
    """``KeyboardInterrupt``: the next client woke the task that was gone, and the run was a ``TrioInternalError``."""
    lines = 0

    async def main() -> None:
        nonlocal lines
        functions = ("OperationQueue.wait", "TrioPort.park", "_message_to_sleep")
        with closing(AsyncSocket()) as listener:
            listener.bind_addr(0, LOOPBACK)
            listener.listen()
            interrupted = True
            while interrupted:
                # The whole budget: the call goes on until it waits for a client.
                await running_port().checkpoint()
                interrupted = is_interrupted_at_line(listener.accept(), lines, functions)
                with socket.create_connection((LOOPBACK, listener.local_addr.port)):
                    (await listener.accept(timeout=5)).close()
                lines += 1

    run(main)
    assert lines > 15
