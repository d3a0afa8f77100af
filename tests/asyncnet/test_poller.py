"""The poller: one descriptor of the loop for all sockets, there only while it is needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.asyncnet.loops import WAYS, Way, spy, turns
from tests.asyncnet.streams import open_descriptors
from wireline.asyncnet import AsyncSocket, _poller
from wireline.asyncnet._asyncio import AsyncioPort, running_port

LOOPS = pytest.mark.parametrize("way", [way for way in WAYS if not way.portable], ids=lambda way: way.name)

pytestmark = LOOPS


def watch(sock: socket.socket, callback: Callable[[], object]) -> None:
    held.append(running_port())
    assert running_port().watch(sock, callback)


def unwatch(sock: socket.socket) -> None:
    running_port().forget(sock.fileno())


held: list[AsyncioPort] = []
"""As a socket holds it."""


@pytest.fixture(autouse=True)
def nothing_is_held() -> Iterator[None]:
    yield
    held.clear()


@contextlib.contextmanager
def pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connected pairs of plain sockets."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            one, other = socket.socketpair()
            made.append((stack.enter_context(one), stack.enter_context(other)))
        yield made


async def test_all_sockets_of_a_loop_share_one_registration(way: Way) -> None:
    loop = spy()
    with pairs(20) as made:
        log: list[int] = []
        for number, (ours, _) in enumerate(made):
            watch(ours, lambda number=number: log.append(number))
        assert loop.calls["add_reader"] == 1
        for _, peer in made:
            peer.send(b"x")
        await turns(2)
        assert sorted(set(log)) == list(range(20))
        for ours, _ in made:
            unwatch(ours)
        log.clear()
        await turns(2)
        assert loop.calls["remove_reader"] == 1
        assert log == []


async def test_it_is_there_only_while_something_is_watched(way: Way) -> None:
    loop = spy()
    before = open_descriptors()
    with pairs(1) as [(ours, _)]:
        for _ in range(3):
            watch(ours, print)
            assert len(loop.watched) == 1
            unwatch(ours)
            await turns(1)
            assert not loop.watched
    assert open_descriptors() == before


async def test_a_descriptor_that_cannot_be_watched_leaves_no_poller_behind(way: Way) -> None:
    loop = spy()
    port = running_port()
    with socket.socket() as ours:
        never = os.memfd_create("a regular file")  # which epoll(7) refuses
        os.dup2(never, ours.fileno())
        os.close(never)
        with pytest.raises(OSError):
            port.watch(ours, print)
    assert not port.watch(ours, print)
    await turns(1)
    assert not loop.watched


async def test_a_loop_that_refuses_the_poller_leaves_no_descriptor_behind(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("refused")

    loop = spy()
    before = open_descriptors()
    with pairs(1) as [(ours, _)]:
        with monkeypatch.context() as patch:
            patch.setattr(type(loop), "add_reader", refuse)
            with pytest.raises(RuntimeError, match="refused"):
                watch(ours, print)
        assert running_port()._readers == {}
    assert open_descriptors() == before


async def test_one_that_was_left_alone_in_the_same_turn_is_not_called(way: Way) -> None:
    with pairs(2) as made:
        log: list[str] = []

        def first_come(number: int) -> Callable[[], None]:
            def called() -> None:
                log.append("called")
                for ours, _ in made:
                    unwatch(ours)

            return called

        for number, (ours, _) in enumerate(made):
            watch(ours, first_come(number))
        for _, peer in made:
            peer.send(b"x")
        await turns(3)
        assert log == ["called"]


async def test_a_number_that_is_reused_in_the_middle_of_a_turn_harms_no_socket(way: Way) -> None:
    """An event for the descriptor before: the new owner finds nothing to read, and sleeps on."""
    with pairs(1) as [(ours, peer)]:
        first = AsyncSocket.from_socket(ours)
        victim, its_peer = socket.socketpair()
        second = AsyncSocket.from_socket(victim)
        number = second.fileno()
        heirs: list[tuple[AsyncSocket, socket.socket, asyncio.Task[bytes]]] = []

        async def take_over() -> None:
            await first.recv_some()
            second.close()
            its_peer.close()
            again, peer_of_heir = socket.socketpair()
            heir = AsyncSocket.from_socket(again)
            heirs.append((heir, peer_of_heir, asyncio.create_task(heir.recv_line())))

        tasks = [asyncio.create_task(take_over()), asyncio.create_task(second.recv_some())]
        await turns(3)
        peer.send(b"x")
        its_peer.send(b"for the one before")
        await asyncio.wait(tasks)
        tasks[0].result()
        heir, peer_of_heir, reading = heirs[0]
        assert heir.fileno() == number
        await turns(3)
        assert not reading.done()
        peer_of_heir.send(b"for the heir\n")
        assert await reading == b"for the heir"
        for sock in (first, heir, peer_of_heir):
            sock.close()
        assert isinstance(tasks[1].exception(), OSError | None)


async def test_an_error_behind_the_last_bytes_is_reported_too(way: Way) -> None:
    """libuv drops a watcher of its own without a word after such an event."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
        async with AsyncSocket.from_socket(ours) as sock:
            reading = asyncio.create_task(sock.recv_exactly(10))
            await turns(3)
            peer.send(b"last")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            with pytest.raises(EOFError) as caught:
                await asyncio.wait_for(reading, 5)
            assert caught.value.partial == b"last"  # type: ignore[attr-defined]


async def test_more_events_than_are_taken_at_once_come_in_the_next_turn(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_poller, "_EVENTS", 2)
    with pairs(7) as made:
        log: list[int] = []
        for number, (ours, peer) in enumerate(made):

            def come(number: int = number, ours: socket.socket = ours) -> None:
                log.append(number)
                ours.recv(1)

            watch(ours, come)
            peer.send(b"x")
        await turns(6)
        assert sorted(log) == list(range(7))
        for ours, _ in made:
            unwatch(ours)


async def test_without_epoll_the_loop_watches_every_descriptor(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(_poller.select, "epoll")
    loop = spy()
    with pairs(2) as made:
        log: list[int] = []
        for number, (ours, peer) in enumerate(made):
            watch(ours, lambda number=number: log.append(number))
            peer.send(b"x")
        assert loop.watched == {("reader", ours.fileno()) for ours, _ in made}
        await turns(2)
        assert set(log) == {0, 1}
        for ours, _ in made:
            unwatch(ours)


async def test_a_descriptor_that_other_code_closed_does_not_stop_the_close(way: Way) -> None:
    ours, peer = socket.socketpair()
    with peer:
        sock = AsyncSocket.from_socket(ours)
        reading = asyncio.create_task(sock.recv_some())
        await turns(3)
        os.close(sock.fileno())
        with contextlib.suppress(OSError):  # the descriptor is gone, and that may be said
            sock.close()
        with pytest.raises(OSError, match="closed"):
            await asyncio.wait_for(reading, 2)
        await turns(1)
        assert not spy().watched


def test_sockets_left_open_when_their_loop_ends_can_be_closed_afterwards(way: Way) -> None:
    before = open_descriptors()
    ours, peer = socket.socketpair()
    sock = AsyncSocket.from_socket(ours)
    loop = way.new_loop()

    async def read() -> bytes:
        return await sock.recv_exactly(5)

    peer.send(b"hello")
    assert loop.run_until_complete(read()) == b"hello"
    loop.close()
    sock.close()
    peer.close()
    assert open_descriptors() == before
