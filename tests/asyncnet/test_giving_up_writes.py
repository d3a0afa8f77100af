"""W3, W5 by brute force: a send that is given up says how much it sent, and the next one continues from there."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import socket
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asyncnet.loops import ALL_WAYS, Way, turns
from tests.asyncnet.streams import HOWS, LEFT, GivenUp, drain, drain_until, narrow_wire, pattern
from tests.tls import certificates
from wireline import SocketTimeout
from wireline.asyncnet import AsyncSocket
from wireline.tls import Handshake, SslContext

every_way = pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)

FIRST = pattern(100_000, 1)
SECOND = pattern(30_000, 2)


async def finish(sock: AsyncSocket, peer: socket.socket, call: Coroutine[Any, Any, object]) -> bytes:
    """Make a call that needs the peer to read, and read until the end."""
    task = asyncio.ensure_future(call)
    data = await drain_until(peer, task.done)
    await task
    return data


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_W3_a_send_that_is_given_up_says_how_much_it_sent_and_the_next_continues_there(
    way: Way, how: str
) -> None:
    for stage, count in itertools.product(range(4), range(0, 6, 1 if way.has_a_clock_to_put_forward else 3)):
        with narrow_wire() as (sock, peer):
            went: list[int] = []
            said: list[int | None] = []

            async def send(timeout: float | None, sock=sock, went=went, said=said) -> None:  # type: ignore[no-untyped-def]
                try:
                    await sock.send(FIRST, timeout=timeout)
                except SocketTimeout as error:
                    said.append(error.bytes_sent)
                    raise
                finally:
                    went.append(sock.last_bytes_sent)

            call = GivenUp(how, send)
            await turns(2)
            arrived = b""
            for _ in range(stage):
                arrived += drain(peer)
                await turns(count)
            await call.give_up()
            outcome = await call.outcome()
            assert outcome is LEFT or went == [len(FIRST)]
            assert said in ([], went)
            arrived += await finish(sock, peer, sock.send(SECOND))
            assert sock.last_bytes_sent == len(SECOND)
            assert arrived == FIRST[: went[0]] + SECOND, (stage, count)


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_W11_a_sendfile_that_is_given_up_says_how_much_it_sent(way: Way, how: str) -> None:
    with tempfile.TemporaryFile() as real:
        real.write(FIRST)
        for file, stage in itertools.product((real, io.BytesIO(FIRST)), range(4)):
            with narrow_wire() as (sock, peer):
                file.seek(9)
                went: list[int] = []
                said: list[int | None] = []

                async def send(timeout: float | None, sock=sock, went=went, said=said, file=file) -> None:  # type: ignore[no-untyped-def]
                    try:
                        await sock.sendfile(file, 5, timeout=timeout)
                    except SocketTimeout as error:
                        said.append(error.bytes_sent)
                        raise
                    finally:
                        went.append(sock.last_bytes_sent)

                call = GivenUp(how, send)
                arrived = b""
                for _ in range(stage):
                    arrived += drain(peer)
                    await turns(stage)
                await call.give_up()
                outcome = await call.outcome()
                assert file.tell() == 9
                assert said in ([], went)
                rest = 5 + (went[0] if went else 0)  # it may never have begun
                assert outcome is LEFT or rest == len(FIRST)
                arrived += await finish(sock, peer, sock.sendfile(file, rest))
                assert arrived == FIRST[5:], stage


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_W5_a_queued_send_that_is_given_up_leaves_the_queue_in_order(way: Way, how: str) -> None:
    with narrow_wire() as (sock, peer):
        first = asyncio.create_task(sock.send(FIRST))
        await turns(2)
        messages = [pattern(5000, seed) for seed in range(5)]
        calls = [
            GivenUp(how if impatient else "cancel", lambda timeout, m=message: sock.send(m, timeout=timeout))
            for impatient, message in zip((1, 0, 1, 1, 0), messages, strict=True)
        ]
        await turns(2)
        for number in (0, 2, 3):
            await calls[number].give_up()
            assert await calls[number].outcome() is LEFT
        arrived = await drain_until(peer, lambda: first.done() and calls[1].done and calls[4].done)
        await first
        assert arrived == FIRST + messages[1] + messages[4]


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_W3_a_send_that_is_given_up_in_the_queue_has_sent_nothing_and_says_so(
    way: Way, how: str
) -> None:
    with narrow_wire() as (sock, peer):
        await finish(sock, peer, sock.send(SECOND))
        first = asyncio.create_task(sock.send(FIRST))
        await turns(2)
        went = []

        async def send(timeout: float | None) -> None:
            try:
                await sock.send(SECOND, timeout=timeout)
            finally:
                went.append(sock.last_bytes_sent)

        call = GivenUp(how, send)
        await turns(2)
        await call.give_up()
        assert await call.outcome() is LEFT
        assert went == [0]
        assert await finish(sock, peer, first) == FIRST
        assert sock.last_bytes_sent == len(FIRST)


@every_way
async def test_W5_a_permit_in_the_same_moment_as_a_cancellation_goes_to_the_next(way: Way) -> None:
    for count in range(6):
        with narrow_wire() as (sock, peer):
            first = asyncio.create_task(sock.send(FIRST))
            await turns(2)
            second = asyncio.create_task(sock.send(b"second"))
            third = asyncio.create_task(sock.send(b"third"))
            await turns(2)

            def cancel_soon(_: object, second: asyncio.Task[None] = second, count: int = count) -> None:
                asyncio.get_running_loop().call_soon(turn_by_turn, second, count)

            first.add_done_callback(cancel_soon)
            arrived = await drain_until(peer, third.done)
            await asyncio.wait([second])
            went = b"" if second.cancelled() else b"second"
            assert arrived == FIRST + went + b"third"


def turn_by_turn(task: asyncio.Task[None], count: int) -> None:
    """Cancel a task after so many turns."""
    if count:
        asyncio.get_running_loop().call_soon(turn_by_turn, task, count - 1)
    else:
        task.cancel()


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_a_half_close_that_is_given_up_in_the_queue_leaves_the_stream_open(way: Way, how: str) -> None:
    with narrow_wire() as (sock, peer):
        first = asyncio.create_task(sock.send(FIRST))
        await turns(2)
        call = GivenUp(how, sock.shutdown_write)
        await turns(2)
        await call.give_up()
        assert await call.outcome() is LEFT
        arrived = await finish(sock, peer, first) + await finish(sock, peer, sock.send(SECOND))
        assert arrived == FIRST + SECOND
        await sock.shutdown_write()
        assert peer.recv(1) == b""


@every_way
async def test_a_half_close_waits_for_running_sends_and_follows_them(way: Way) -> None:
    with narrow_wire() as (sock, peer):
        sending = [asyncio.create_task(sock.send(message)) for message in (FIRST, SECOND)]
        await turns(2)
        closing = asyncio.create_task(sock.shutdown_write())
        assert await drain_until(peer, closing.done) == FIRST + SECOND
        await asyncio.gather(*sending, closing)


@every_way
async def test_a_half_close_after_a_send_that_was_given_up_cuts_off_nothing_that_counts_as_sent(
    way: Way,
) -> None:
    with narrow_wire() as (sock, peer):
        call = GivenUp("cancel", lambda timeout: sock.send(FIRST, timeout=timeout))
        await turns(4)
        await call.give_up()
        assert await call.outcome() is LEFT
        went = sock.last_bytes_sent
        arrived = await finish(sock, peer, sock.shutdown_write())
        assert arrived == FIRST[:went]


@every_way
@pytest.mark.parametrize("how", HOWS)
async def test_one_low_level_send_that_is_given_up_has_sent_nothing(way: Way, how: str) -> None:
    with narrow_wire() as (sock, peer):
        while sock.try_send(bytes(1000)):
            pass
        drain(peer)
        sent = 0
        while sock.try_send(b"x"):  # to the last byte
            sent += 1
        call = GivenUp(how, lambda timeout: sock.send_some(FIRST, timeout=timeout))
        await turns(3)
        await call.give_up()
        assert await call.outcome() is LEFT
        assert await finish(sock, peer, turns(10)) == b"x" * sent
        assert await finish(sock, peer, sock.send(SECOND)) == SECOND


# ---------------------------------------------------------------------------------------- many, at random

SENDERS = st.lists(
    st.tuples(st.integers(0, 20_000), st.sampled_from(HOWS), st.none() | st.integers(0, 12)),
    min_size=1,
    max_size=8,
)
"""Senders: the size of the message, and how and after how many turns it is given up, if it is."""


@pytest.mark.parametrize("way", ALL_WAYS, ids=lambda way: way.name)
@given(senders=SENDERS, pauses=st.lists(st.integers(0, 4), min_size=1))
def test_W3_W5_senders_that_give_up_at_random_leave_prefixes_in_order_of_arrival(
    way: Way, senders: list[tuple[int, str, int | None]], pauses: list[int]
) -> None:
    # Where the clock cannot be put forward it runs for the others, too: there no other call has a timeout.
    clocks = ("own", "wait_for") if way.has_a_clock_to_put_forward else ()
    went: dict[int, int] = {}  # in order of arrival

    def sending(
        sock: AsyncSocket, number: int, size: int
    ) -> Callable[[float | None], Coroutine[Any, Any, None]]:
        async def send(timeout: float | None) -> None:
            went[number] = 0
            try:
                await sock.send(pattern(size, number), timeout=timeout)
            finally:
                went[number] = sock.last_bytes_sent

        return send

    async def main() -> None:
        went.clear()
        with narrow_wire() as (sock, peer):
            calls = []
            for number, (size, how, moment) in enumerate(senders):
                chosen = how if how in clocks or how not in ("own", "wait_for") else "cancel"
                calls.append((GivenUp(chosen, sending(sock, number, size)), moment))
            arrived = b""
            for moment in range(13):
                for call, when in calls:
                    if when == moment:
                        await call.give_up()
                await turns(pauses[moment % len(pauses)])
                arrived += drain(peer)
            arrived += await drain_until(peer, lambda: all(call.done for call, _ in calls))
            for call, moment in calls:
                outcome = await call.outcome()
                assert outcome is LEFT or moment is not None or outcome is None
            expected = [pattern(senders[number][0], number)[:size] for number, size in went.items()]
            assert arrived == b"".join(expected)

    way.run(main, thorough=False)


@every_way
async def test_W3_TLS_the_next_send_takes_the_rest_of_a_record_along(way: Way) -> None:
    """The peer reads again, and the socket stays open: all of the begun message and of the next one has to arrive."""
    leaf = certificates.server()
    server = SslContext(cert_file=leaf.cert, key_file=leaf.key)
    client = SslContext(ca_file=certificates.ca_file())
    near, far = (AsyncSocket.from_socket(sock) for sock in socket.socketpair())
    async with near, far:
        await asyncio.gather(
            server.wrap_connected_async(near, Handshake.AS_SERVER),
            client.wrap_connected_async(far, Handshake.AS_CLIENT, "localhost"),
        )
        with pytest.raises(SocketTimeout) as caught:
            await near.send(bytes(4_000_000), timeout=0)
        sent = caught.value.bytes_sent
        assert sent
        received = 0
        with contextlib.suppress(SocketTimeout):
            while True:
                received += len(await far.recv_some(timeout=0))
        assert received < sent, "a record was begun, and its end did not go out"
        await near.send(b"next", timeout=5)
        assert await far.recv_exactly(sent - received + 4, timeout=5) == bytes(sent - received) + b"next"
