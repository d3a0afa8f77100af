"""R5, C3, C5 by brute force: an accept, a connect or a dial that is given up loses no connection and no descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asyncnet.loops import ALL_WAYS, Way, spy, turns
from tests.asyncnet.streams import (
    HOWS,
    LEFT,
    LOOPBACK,
    PATIENCE,
    GivenUp,
    cancelled_at,
    knock,
    listening,
    open_descriptors,
)
from tests.scenarios.names import Names
from wireline import AF_INET, AF_UNIX, IPPROTO_UDP, SOCK_DGRAM, AcceptResult
from wireline.asyncnet import AsyncSocket, dial, serve

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
# uvloop has no `sock_recvfrom`, and so no second way in for datagrams.
every_way_for_datagrams = pytest.mark.parametrize(
    "way", [way for way in ALL_WAYS if way.name != "portable-uvloop"], ids=lambda way: way.name
)
every_family = pytest.mark.parametrize("family", [AF_UNIX, AF_INET], ids=["unix", "tcp"])

TURNS = range(7)
"""Turns of the loop between an arrival and the giving up. The portable way takes four to deliver an arrival."""


def moments(way: Way) -> range:
    """All of them, but fewer where a timeout passes by itself and so costs real time."""
    return TURNS if way.has_a_clock_to_put_forward else TURNS[::3]


@contextlib.contextmanager
def no_descriptor_more() -> Iterator[None]:
    """Count descriptors before the block and at its end, at once."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Names that resolve to the addresses of the test."""
    with Names().in_place(monkeypatch) as names:
        yield names


# ------------------------------------------------------------------------------------------------ accept


@every_way
@every_family
@pytest.mark.parametrize("how", HOWS)
async def test_R5_an_accept_that_is_given_up_at_any_moment_loses_no_connection(
    way: Way, how: str, family: int
) -> None:
    with listening(family) as listener:
        for count, early in itertools.product(moments(way), (False, True)):
            call = GivenUp(how, lambda timeout: listener.accept(timeout=timeout))
            await turns(0 if early else 3)
            client = knock(listener)
            await turns(count)
            await call.give_up()
            accepted = await call.outcome()
            if accepted is LEFT:
                accepted = await listener.accept(timeout=PATIENCE)
            client.send(b"tag")
            assert await accepted.recv(3, PATIENCE) == b"tag"
            accepted.close()
            client.close()


@every_way
async def test_R5_accepts_that_queue_and_give_up_leave_the_connections_to_the_others(way: Way) -> None:
    with listening() as listener:
        for giving_up in itertools.product((False, True), repeat=3):
            calls = [GivenUp("cancel", lambda timeout: listener.accept(timeout=timeout)) for _ in giving_up]
            await turns(2)
            clients = [knock(listener) for _ in giving_up]
            for call, impatient in zip(calls, giving_up, strict=True):
                if impatient:
                    await call.give_up()
            outcomes = [await call.outcome() for call in calls]
            for position, outcome in enumerate(outcomes):
                if outcome is LEFT:
                    outcomes[position] = await listener.accept(timeout=PATIENCE)
            for number, client in enumerate(clients):
                client.send(bytes([number]))
            tags = [await accepted.recv(1, PATIENCE) for accepted in outcomes]
            assert sorted(tags) == [b"\0", b"\1", b"\2"]
            for sock in (*outcomes, *clients):
                sock.close()


@every_way
async def test_R5_the_client_of_an_accept_that_was_given_up_is_there_for_one_that_does_not_wait(
    way: Way,
) -> None:
    with listening() as listener:
        for count in TURNS:
            call = GivenUp("cancel", lambda timeout: listener.accept(timeout=timeout))
            await turns(3)
            await call.give_up()
            assert await call.outcome() is LEFT
            with knock(listener):
                await turns(count)
                result, client, _ = listener.try_accept_addr()
                if client is None:  # it is on its way
                    await turns(6)
                    result, client, _ = listener.try_accept_addr()
                assert result is AcceptResult.SUCCESS
                assert client is not None
                client.close()


@every_way
async def test_C5_closing_a_listener_leaves_nothing_of_an_accept_that_was_given_up(way: Way) -> None:
    for count in TURNS:
        with no_descriptor_more():
            with listening() as listener:
                call = GivenUp("cancel", lambda timeout, listener=listener: listener.accept(timeout=timeout))
                await turns(3)
                await call.give_up()
                assert await call.outcome() is LEFT
                knock(listener).close()
                await turns(count)
            await turns(5)


# ----------------------------------------------------------------------------------------------- connect


@every_way
@every_family
@pytest.mark.parametrize("soon", [False, True], ids=["now", "soon"])
async def test_C3_a_connect_that_is_cancelled_at_any_suspension_may_be_made_again(
    way: Way, names: Names, family: int, soon: bool
) -> None:
    with listening(family) as listener:
        names.add("here", (LOOPBACK, listener.local_addr.port))

        def connect(sock: AsyncSocket) -> Coroutine[Any, Any, None]:
            where = listener.local_addr
            return sock.connect_unix(where.host) if family == AF_UNIX else sock.connect("here", where.port)

        for number in itertools.count(1):
            with no_descriptor_more():
                sock = AsyncSocket(family)
                outcome, suspensions = await cancelled_at(number, soon, connect(sock))
                if outcome is LEFT:
                    with contextlib.closing(await accepted_if_any(listener)):
                        await connect(sock)
                other = await listener.accept(timeout=PATIENCE)
                await sock.send(b"tag")
                assert await other.recv(3, PATIENCE) == b"tag"
                sock.close()
                other.close()
                await turns(5)
            if suspensions < number:
                break


async def accepted_if_any(listener: AsyncSocket) -> AsyncSocket:
    """The server's side of a connection, or any socket if the connection was not made."""
    await turns(5)
    return listener.try_accept_addr()[1] or AsyncSocket()


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_C5_a_connect_without_an_answer_that_is_given_up_leaves_the_socket_usable(
    way: Way, how: str
) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(
            socket.socket()
        )  # a listener that drops clients that do not fit into its queue
        full.bind((LOOPBACK, 0))
        full.listen(0)
        stack.enter_context(socket.create_connection(full.getsockname()))
        listener = stack.enter_context(listening(AF_INET))
        sock = stack.enter_context(contextlib.closing(AsyncSocket()))
        before = open_descriptors()
        for count in moments(way):
            call = GivenUp(how, lambda timeout: sock.connect(*full.getsockname(), timeout=timeout))
            await turns(count)
            await call.give_up()
            assert await call.outcome() is LEFT
            await turns(5)
            assert open_descriptors() == before
        await sock.connect(*listener.local_addr, timeout=PATIENCE)
        other = stack.enter_context(contextlib.closing(await listener.accept(timeout=PATIENCE)))
        await other.send(b"tag")
        assert await sock.recv(3, PATIENCE) == b"tag"


# -------------------------------------------------------------------------------------------------- dial


@every_way
@pytest.mark.parametrize("soon", [False, True], ids=["now", "soon"])
@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, IPPROTO_UDP], ids=["tcp", "udp"])
async def test_C5_a_dial_that_is_cancelled_at_any_suspension_leaves_nothing(
    way: Way, names: Names, protocol: int, soon: bool
) -> None:
    with socket.socket() as listener, socket.socket() as refusing:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        refusing.bind((LOOPBACK, 0))
        names.add("several", refusing.getsockname(), listener.getsockname())
        for number in itertools.count(1):
            with no_descriptor_more():
                outcome, suspensions = await cancelled_at(number, soon, dial("several", 1, protocol))
                assert (outcome is LEFT) is (suspensions >= number) or soon
                if isinstance(outcome, AsyncSocket):
                    outcome.close()
                await turns(5)
            if suspensions < number:
                break
        assert number > 1  # where nothing has to be waited for, a dial still waits for the lookup


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_C5_a_dial_without_an_answer_that_is_given_up_leaves_nothing(
    way: Way, how: str, names: Names
) -> None:
    with contextlib.ExitStack() as stack:
        full = [stack.enter_context(socket.socket()) for _ in range(2)]
        for listener in full:
            listener.bind((LOOPBACK, 0))
            listener.listen(0)
            stack.enter_context(socket.create_connection(listener.getsockname()))
        names.add("silent", *(listener.getsockname() for listener in full))
        for count in moments(way):
            with no_descriptor_more():
                call = GivenUp(how, lambda timeout: dial("silent", 1, timeout=timeout))
                await turns(count)
                await call.give_up()
                assert await call.outcome() is LEFT
                await turns(5)


@every_way
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("what", ["dial", "connect", "send_to"])
async def test_C2_a_lookup_that_hangs_does_not_outlive_the_callers_timeout(
    way: Way, how: str, what: str, names: Names
) -> None:
    names.add_silent("nowhere")
    sock = AsyncSocket(AF_INET, SOCK_DGRAM) if what == "send_to" else AsyncSocket()
    calls: dict[str, Callable[[float | None], Coroutine[Any, Any, object]]] = {
        "dial": lambda timeout: dial("nowhere", 1, timeout=timeout),
        "connect": lambda timeout: sock.connect("nowhere", 1, timeout),
        "send_to": lambda timeout: sock.send_to("nowhere", 1, b"x", timeout=timeout),
    }
    with contextlib.closing(sock), no_descriptor_more():
        call = GivenUp(how, calls[what])
        await turns(3)
        await call.give_up()
        assert await call.outcome() is LEFT


@pytest.mark.parametrize("what", ["dial", "connect"])
async def test_C2_a_timeout_between_two_ticks_of_the_clock_does_not_block_the_loop(
    way: Way, what: str, names: Names
) -> None:
    # uvloop's timers tick in milliseconds, and one may go off before its time.
    names.add_silent("nowhere")
    with contextlib.closing(AsyncSocket()) as sock:
        for timeout in (0.0004, 0.0104, 0.0051, 0.0062):
            with pytest.raises(TimeoutError):
                await (
                    dial("nowhere", 1, timeout=timeout)
                    if what == "dial"
                    else sock.connect("nowhere", 1, timeout)
                )


# ------------------------------------------------------------------------------------------------- serve


@every_way
@pytest.mark.parametrize("soon", [False, True], ids=["now", "soon"])
async def test_C5_a_serve_that_is_cancelled_at_any_suspension_leaves_nothing(
    way: Way, names: Names, soon: bool
) -> None:
    names.add("here", (LOOPBACK, 0))

    async def start() -> None:
        async with serve(lambda client, address: turns(1), 0, "here"):
            await turns(1)

    for number in itertools.count(1):
        with no_descriptor_more():
            _, suspensions = await cancelled_at(number, soon, start())
            await turns(8)
        if suspensions < number:
            break
    assert number > 2


# --------------------------------------------------------------------------------------------- datagrams


@contextlib.contextmanager
def datagrams(family: int) -> Iterator[tuple[AsyncSocket, socket.socket]]:
    """A wireline datagram socket, and a plain one that sends to it."""
    with contextlib.ExitStack() as stack:
        sender = stack.enter_context(socket.socket(family, SOCK_DGRAM))
        if family == AF_UNIX:
            ours, other = socket.socketpair(AF_UNIX, SOCK_DGRAM)
            stack.enter_context(other)
            sock = stack.enter_context(contextlib.closing(AsyncSocket.from_socket(ours)))
            yield sock, other
            return
        sock = stack.enter_context(contextlib.closing(AsyncSocket(family, SOCK_DGRAM)))
        sock.bind_addr(0, LOOPBACK)
        sender.connect(sock.local_addr)
        yield sock, sender


async def recv_from_into(sock: AsyncSocket, timeout: float | None) -> list[bytes]:
    buffer = bytearray(10)
    size, _ = await sock.recv_from_into(buffer, timeout=timeout)
    return [bytes(buffer[:size])]


async def recv_from(sock: AsyncSocket, timeout: float | None) -> list[bytes]:
    return [(await sock.recv_from(10, timeout=timeout)).data]


async def recv_many_from(sock: AsyncSocket, timeout: float | None) -> list[bytes]:
    return [datagram.data for datagram in await sock.recv_many_from(timeout=timeout)]


@every_way_for_datagrams
@every_family
@pytest.mark.parametrize("how", HOWS)
async def test_R5_a_receive_that_is_given_up_at_any_moment_takes_no_datagram_away(
    way: Way, family: int, how: str
) -> None:
    for count, receive in itertools.product(moments(way), (recv_from, recv_from_into, recv_many_from)):
        with datagrams(family) as (sock, sender):
            call = GivenUp(how, lambda timeout, sock=sock, receive=receive: receive(sock, timeout))
            await turns(3)
            sender.send(b"first")
            await turns(count)
            await call.give_up()
            outcome = await call.outcome()
            sender.send(b"")
            sender.send(b"third")
            seen = [] if outcome is LEFT else outcome
            while len(seen) < 3:
                seen += await receive(sock, PATIENCE)
            assert seen == [b"first", b"", b"third"]


async def received(receiver: socket.socket, count: int, call: GivenUp | None = None) -> list[bytes]:
    """Receive so many datagrams, and let the other tasks run. There are fewer if ``call``, which sends them, ends."""
    got: list[bytes] = []
    while len(got) < count:
        ended = call is not None and call.done
        try:
            got.append(receiver.recv(9))
        except BlockingIOError:
            if ended:
                break
        await asyncio.sleep(0)
    return got


@every_way_for_datagrams
async def test_W9_a_batch_that_is_given_up_says_how_much_of_it_was_sent(way: Way, tmp_path: Path) -> None:
    numbers = [b"%03d" % number for number in range(60)]  # more than the queue of a Unix socket holds
    for count, how in itertools.product(moments(way), HOWS):
        with (
            socket.socket(AF_UNIX, SOCK_DGRAM) as receiver,
            contextlib.closing(AsyncSocket(AF_UNIX, SOCK_DGRAM)) as sock,
        ):
            receiver.bind(str(tmp_path / f"{how}{count}"))
            receiver.setblocking(False)
            outgoing = [(data, receiver.getsockname(), 0) for data in numbers]
            call = GivenUp(how, lambda timeout, sock=sock, all=outgoing: sock.send_many_to(all, timeout))
            got = await received(receiver, 5, call)  # a timeout of 2 ms may pass before the first is sent
            await turns(count)
            await call.give_up()
            outcome = await call.outcome()
            sent = sock.last_bytes_sent // 3
            assert outcome in (LEFT, sent)
            assert len(got) <= sent < 60
            rest = asyncio.create_task(sock.send_many_to(outgoing[sent:]))
            assert got + await received(receiver, 60 - len(got)) == numbers
            assert await rest == 60 - sent


@every_way_for_datagrams
async def test_a_receive_on_the_way_keeps_its_registration(way: Way) -> None:
    with datagrams(AF_INET) as (sock, sender):
        for number in range(20):
            receiving = asyncio.create_task(sock.recv_from(10))
            await turns(3)
            sender.send(bytes([number]))
            assert (await receiving).data == bytes([number])
        if not way.portable:
            assert spy().calls["add_reader"] == 1


# -------------------------------------------------------------------- numbers that are used again at once


@every_way
async def test_C5_the_number_of_a_dial_that_was_given_up_serves_the_next_at_once(
    way: Way, names: Names
) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind((LOOPBACK, 0))
        full.listen(0)
        stack.enter_context(socket.create_connection(full.getsockname()))
        listener = stack.enter_context(listening(AF_INET))
        names.add("silent", full.getsockname())
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await dial("silent", 1, timeout=0.002)
            async with await dial(*listener.local_addr, timeout=PATIENCE) as sock:
                async with await listener.accept(timeout=PATIENCE) as other:
                    await other.send(b"tag")
                    assert await sock.recv(3, PATIENCE) == b"tag"


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_C5_the_number_of_a_socket_that_is_closed_serves_the_next_at_once(way: Way, how: str) -> None:
    for _ in range(5):
        ours, peer = socket.socketpair()
        sock = AsyncSocket.from_socket(ours)
        number = sock.fileno()
        call = GivenUp(how, sock.recv_line)
        await turns(3)
        await call.give_up()
        assert await call.outcome() is LEFT
        sock.close()
        peer.close()
        again, peer = socket.socketpair()
        async with AsyncSocket.from_socket(again) as sock:
            assert sock.fileno() == number or way.portable
            reading = asyncio.create_task(sock.recv_line())
            await turns(4)
            peer.send(b"tag\n")
            assert await asyncio.wait_for(reading, PATIENCE) == b"tag"
        peer.close()
