"""The end of a TLS connection, and sends and handshakes that time out or are cancelled, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from tests.scenarios.every_flavour import anyio_backend, flavour
from tests.scenarios.flavours import Face, Flavour, Sock, in_thread
from tests.tls.both import upgrade
from tests.tls.memory import client_context, only, server_context
from wireline import Address, ClosedError, SocketFlag, SocketTimeout
from wireline.net import Socket
from wireline.tls import Handshake, SslContext, TruncatedError

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"
PATIENCE = 10.0
"""Seconds after which an operation counts as hanging."""

AT_ONCE = 5.0
"""Seconds allowed for an operation that does not wait for the peer, on a busy machine."""

A_MOMENT = 0.05
"""Seconds after which a call that was started is waiting."""

DATA = bytes(range(256)) * 782  # 200,192 bytes
BIG = DATA * 20
"""More bytes than the buffers of both kernels hold."""

SMALL = 32 * 1024
"""Bytes of a kernel's buffer, small so that it fills up quickly."""


__all__ = ["anyio_backend", "flavour"]


class Contexts(NamedTuple):
    client: SslContext
    server: SslContext


@functools.cache
def made(version: str) -> Contexts:
    """The contexts of all tests, shared so that sessions are resumed too."""
    contexts = Contexts(client_context(), server_context())
    only(version, *contexts)
    return contexts


@pytest.fixture
def contexts(version: str) -> Contexts:
    return made(version)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Make both ends of a TCP connection with small buffers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        listener.bind((LOOPBACK, 0))
        listener.listen()
        here = socket.socket()
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        here.connect(listener.getsockname())
        there, _ = listener.accept()
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return here, there


class Pair(NamedTuple):
    """Both ends of a TLS connection: the flavour under test, and a blocking peer that is used in threads."""

    sock: Sock
    peer: Socket

    async def peer_reads(self, size: int = 2**30) -> bytes:
        """Read everything up to the end, or ``size`` bytes."""
        return await in_thread(self.peer.recv, size, PATIENCE)


class Kind(NamedTuple):
    """The version, the role of our end, and how many layers of TLS are inside each other."""

    version: str
    role: Handshake
    layers: int = 1


KINDS = (
    Kind("TLSv1.2", Handshake.AS_SERVER),
    Kind("TLSv1.3", Handshake.AS_CLIENT),  # the end that gets session tickets, which may stay unread
    Kind("TLSv1.3", Handshake.AS_SERVER),
)
LAYERED = tuple(
    pytest.param(Kind("TLSv1.3", role, layers=2), marks=pytest.mark.full, id=f"layers-{role.name}")
    for role in Handshake
)

each_role = pytest.mark.parametrize("role", Handshake, ids=lambda role: role.name)


@pytest.fixture(params=[*KINDS, *LAYERED], ids=lambda kind: f"{kind.version}-{kind.role.name}")
async def pair(flavour: Flavour, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    version, role, layers = request.param
    contexts = made(version)
    here, there = tcp_pair()
    sock, peer = flavour.from_socket(here), Socket.from_socket(there)
    async with sock:
        with peer:
            ours, theirs = contexts if role is Handshake.AS_CLIENT else reversed(contexts)
            other = Handshake.AS_SERVER if role is Handshake.AS_CLIENT else Handshake.AS_CLIENT
            for _ in range(layers):
                await asyncio.gather(
                    upgrade(ours, sock, role, "localhost", timeout=PATIENCE),
                    in_thread(theirs.wrap_connected_socket, peer, other, "localhost", timeout=PATIENCE),
                )
            yield Pair(sock, peer)


class Stopwatch:
    """Fails if its block takes longer than ``AT_ONCE``."""

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            took = time.monotonic() - self._started
            assert took < AT_ONCE, f"it took {took:.1f} s"


async def begun(coroutine: object) -> asyncio.Task[object]:
    """Start a coroutine, and check after ``A_MOMENT`` that it waits."""
    task = asyncio.ensure_future(coroutine)  # type: ignore[arg-type]
    await asyncio.wait([task], timeout=A_MOMENT)
    assert not task.done(), "it does not wait"
    return task


async def ends_with(error: type[BaseException], task: asyncio.Task[object]) -> BaseException:
    with pytest.raises(error) as caught:
        await asyncio.wait_for(asyncio.shield(task), PATIENCE)
    return caught.value


# ------------------------------------------------------------------------------------------------- T4


@pytest.mark.stress
async def test_T4_200_000_bytes_and_a_close_arrive_one_hundred_times(
    flavour: Flavour, contexts: Contexts
) -> None:
    async def handler(client: Sock, _: Address) -> None:
        await client.send(DATA)  # and close with unread input and session tickets

    async with await flavour.serve(handler, 0, LOOPBACK, tls=contexts.server) as server:
        port = server.local_addr.port
        for _ in range(100):
            async with await flavour.dial("localhost", port, tls=contexts.client, timeout=PATIENCE) as client:
                await client.send(b"input that stays unread" * 1000)
                assert await client.recv(len(DATA) + 1, PATIENCE, SocketFlag(0)) == DATA


async def test_T4_ten_clients_send_fifty_lines_each_and_close(flavour: Flavour, contexts: Contexts) -> None:
    lines: list[bytes] = []
    ends: asyncio.Queue[None] = asyncio.Queue()

    async def handler(client: Sock, _: Address) -> None:
        async for line in client.lines():
            lines.append(line)
        ends.put_nowait(None)

    async def one(number: int, port: int) -> None:
        async with await flavour.dial("localhost", port, tls=contexts.client, timeout=PATIENCE) as client:
            for line in range(50):
                await client.send(b"%d %d\n" % (number, line))

    async with await flavour.serve(handler, 0, LOOPBACK, tls=contexts.server) as server:
        await asyncio.gather(*(one(number, server.local_addr.port) for number in range(10)))
        for _ in range(10):
            await asyncio.wait_for(ends.get(), PATIENCE)
    assert sorted(lines) == sorted(b"%d %d" % (number, line) for number in range(10) for line in range(50))


def bare(sock: Sock) -> Sock:
    """Return the socket that a context can wrap."""
    return sock._sock if isinstance(sock, Face) else sock


def has_output(sock: Sock) -> bool:
    """Whether there is ciphertext that was not sent."""
    return bool(bare(sock)._io.core.has_output)


async def filled(sock: Sock) -> int:
    """Send until the kernel's buffers are full; return the number of bytes."""
    taken = 0
    with contextlib.suppress(SocketTimeout):
        while True:
            taken += await sock.send_some(BIG[:50_000], A_MOMENT)
    return taken


async def test_T4_a_close_notify_is_sent_later_if_the_kernel_is_full(pair: Pair) -> None:
    taken = await filled(pair.sock)
    with Stopwatch():
        pair.sock.close()
    received = await pair.peer_reads()
    assert len(received) == taken
    assert pair.peer.recv(1, 0, SocketFlag(0)) == b""


async def test_T4_close_while_a_read_waits_is_clean_for_the_peer(pair: Pair) -> None:
    reading = await begun(pair.sock.recv(1))
    await pair.sock.send(b"the last words")
    with Stopwatch():
        pair.sock.close()
        await ends_with(ClosedError, reading)
    assert await pair.peer_reads() == b"the last words"


async def test_T4_nothing_is_lost_when_the_peer_is_still_sending(pair: Pair) -> None:
    # Its bytes arrive at a closed socket. A reset as the answer would destroy the last data.
    await pair.sock.send(DATA[:20_000])
    pair.sock.close()
    await in_thread(pair.peer.send, b"more" * 1000, SocketFlag(0), PATIENCE)
    assert await pair.peer_reads() == DATA[:20_000]


@pytest.mark.parametrize("reads", [False, True], ids=["idle", "during-a-read"])
async def test_T4_nothing_is_lost_when_the_peer_sends_first_and_reads_then(pair: Pair, reads: bool) -> None:
    reading = await begun(pair.sock.recv(1)) if reads else None
    taken = await filled(pair.sock)
    pair.sock.close()
    if reading is not None:
        await ends_with(ClosedError, reading)
    await in_thread(pair.peer.send, b"more" * 1000, SocketFlag(0), PATIENCE)
    await asyncio.sleep(A_MOMENT)
    assert len(await pair.peer_reads()) == taken


async def test_after_a_half_close_the_answer_arrives(pair: Pair) -> None:
    await pair.sock.send(b"the question")
    await pair.sock.shutdown_write()
    assert await pair.peer_reads() == b"the question"
    pair.peer.send(DATA[:30_000])
    pair.peer.close()
    assert await pair.sock.recv(2**20, PATIENCE) == DATA[:30_000]
    with pytest.raises(BrokenPipeError):
        await pair.sock.send(b"too late")
    assert not pair.sock.try_send(b"too late")


# ------------------------------------------------------------------------------------------------- T3


@pytest.mark.parametrize("abortive", [False, True], ids=["fin", "reset"])
async def test_T3_a_peer_that_is_cut_off_is_truncated(pair: Pair, abortive: bool) -> None:
    pair.peer.send(b"complete")
    assert await pair.sock.recv(8, PATIENCE) == b"complete"
    if abortive:
        pair.peer.close(linger=0)
    else:
        pair.peer._fd.sock.shutdown(socket.SHUT_WR)
    for flags in (SocketFlag.SAFE_DISCONN, SocketFlag(0)):
        with pytest.raises(TruncatedError):
            await pair.sock.recv(1, PATIENCE, flags)
    with pytest.raises(TruncatedError):
        await pair.sock.recv_line(PATIENCE)


async def test_T3_close_after_a_send_that_timed_out_is_not_a_clean_end_for_the_peer(
    flavour: Flavour, pair: Pair
) -> None:
    with pytest.raises(SocketTimeout):
        await pair.sock.send(BIG, timeout=A_MOMENT)
    sent = pair.sock.last_bytes_sent
    pair.sock.close()
    with pytest.raises(TruncatedError):
        await in_thread(pair.peer.recv_exactly, len(BIG), PATIENCE)
    received = await in_thread(pair.peer.recv_some, 2**30)
    if flavour.name == "portable":
        # An operation of the loop is sending bytes that count as sent, and `close` ends it.
        assert BIG[:sent].startswith(received)
    else:
        assert received == BIG[:sent]


async def test_T3_close_during_a_send_is_not_a_clean_end_for_the_peer(pair: Pair) -> None:
    sending = await begun(pair.sock.send(BIG))
    with Stopwatch():
        pair.sock.close()
        await ends_with(ClosedError, sending)
    with pytest.raises(TruncatedError):
        await in_thread(pair.peer.recv_exactly, len(BIG), PATIENCE)
    with contextlib.suppress(TruncatedError):  # the peer may have received nothing
        assert BIG.startswith(await in_thread(pair.peer.recv_some, 2**30))


# ------------------------------------------------------------------------------------------------- W3


async def test_W3_a_send_that_timed_out_can_be_continued(pair: Pair) -> None:
    with pytest.raises(SocketTimeout) as caught:
        await pair.sock.send(BIG, timeout=A_MOMENT)
    sent = caught.value.bytes_sent
    assert sent == pair.sock.last_bytes_sent
    assert sent is not None
    assert 0 < sent < len(BIG)
    more = b"more"
    try:
        await pair.sock.send(more, timeout=0)
    except SocketTimeout as error:
        more = more[: error.bytes_sent]
    reading = asyncio.ensure_future(pair.peer_reads())
    await pair.sock.send(BIG[sent:], timeout=PATIENCE)
    pair.sock.close()
    assert await reading == BIG[:sent] + more + BIG[sent:]


async def test_W3_a_send_that_was_cancelled_can_be_continued(flavour: Flavour, pair: Pair) -> None:
    if flavour.name == "blocking":
        return  # threads are not cancelled
    for _ in range(3):
        sending = await begun(pair.sock.send(BIG))
        sending.cancel()
        await ends_with(asyncio.CancelledError, sending)
        sent = pair.sock.last_bytes_sent
        assert 0 <= sent < len(BIG)
        if sent:
            received = await in_thread(pair.peer.recv_exactly, sent - 65_536) if sent > 65_536 else b""
            assert received == BIG[: len(received)]
            rest = asyncio.ensure_future(
                in_thread(pair.peer.recv_exactly, len(BIG) - len(received), PATIENCE)
            )
            await pair.sock.send(BIG[sent:])
            assert await rest == BIG[len(received) :]


async def test_send_some_leaves_no_half_record_behind(pair: Pair) -> None:
    # After half a record the peer cannot read the request, and a caller would wait for its answer forever.
    total = 0
    for _ in range(20):
        sending = asyncio.ensure_future(pair.sock.send_some(BIG[:60_000]))
        await asyncio.wait([sending], timeout=0.01)
        if sending.done():
            total += await sending
            assert not has_output(pair.sock)
            continue
        received = await in_thread(pair.peer.recv_exactly, total, PATIENCE)
        assert len(received) == total
        total = await asyncio.wait_for(sending, PATIENCE)
        assert await in_thread(pair.peer.recv_exactly, total, PATIENCE) == BIG[:total]
        return
    pytest.fail("the kernel takes everything")


@pytest.mark.parametrize(
    ("pair", "size"),
    [(KINDS[1], 1000), (KINDS[1], 60_000), (KINDS[1], 200_000), *((kind, len(BIG)) for kind in KINDS)],
    indirect=["pair"],
)
async def test_FB2_try_send_reports_how_much_was_sent(pair: Pair, size: int) -> None:
    """FB2: try_send returned False after it had sent a part, and last_bytes_sent was the previous call's."""
    sent: list[bytes] = []
    while pair.sock.try_send(BIG[:size]):
        assert pair.sock.last_bytes_sent == size
        sent.append(BIG[:size])
    part = pair.sock.last_bytes_sent
    assert 0 <= part <= size
    pair.sock.try_send(b"more")  # the kernel may have space again, or not
    more = b"more"[: pair.sock.last_bytes_sent]
    reading = asyncio.ensure_future(pair.peer_reads())
    await pair.sock.send(BIG[part:size], timeout=PATIENCE)
    assert pair.sock.last_bytes_sent == size - part
    pair.sock.close()
    assert await reading == b"".join(sent) + BIG[:part] + more + BIG[part:size]


async def test_FB2_a_failed_try_send_reports_that_nothing_was_sent(pair: Pair) -> None:
    """FB2: the same after an error."""
    await pair.sock.send(b"seven b")
    assert pair.sock.last_bytes_sent == 7
    pair.peer.close(linger=0)
    while pair.sock.try_send(b"more"):
        assert pair.sock.last_bytes_sent == 4
        await asyncio.sleep(0.001)
    assert pair.sock.last_bytes_sent == 0


async def test_try_send_on_a_full_socket_is_false_and_keeps_the_stream_well_formed(pair: Pair) -> None:
    sent = 0
    while pair.sock.try_send(BIG[:10_000]):
        sent += 10_000
    # The last one may have been sent in part: then it counts, and its rest is sent first.
    reading = asyncio.ensure_future(pair.peer_reads())
    await pair.sock.send(b"the end")
    pair.sock.close()
    received = await reading
    assert received.endswith(b"the end")
    assert len(received) - len(b"the end") in (sent, sent + 10_000)


# ------------------------------------------------------------------------------------------------- handshakes


def everything(sock: socket.socket) -> bytes:
    """Read up to the end or a reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(10_000):
            received += data
    return received


@asynccontextmanager
async def silent_peer(flavour: Flavour) -> AsyncIterator[tuple[Sock, socket.socket]]:
    here, there = tcp_pair()
    with there:
        there.settimeout(PATIENCE)
        async with flavour.from_socket(here) as sock:
            yield sock, there


@each_role
async def test_R13_close_ends_a_handshake(flavour: Flavour, role: Handshake) -> None:
    context = made("TLSv1.3")[0 if role is Handshake.AS_CLIENT else 1]
    for timeout in (None, PATIENCE):
        async with silent_peer(flavour) as (sock, peer):
            shaking = await begun(upgrade(context, sock, role, "localhost", timeout=timeout))
            with Stopwatch():
                sock.close()
                await ends_with(ClosedError, shaking)
                await in_thread(everything, peer)


async def test_R13_close_ends_a_connect_during_its_handshake(flavour: Flavour) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(PATIENCE)
        for timeout in (None, PATIENCE):
            sock = flavour.socket()
            made("TLSv1.3").client.wrap_socket(bare(sock))
            connecting = await begun(sock.connect("localhost", listener.getsockname()[1], timeout=timeout))
            peer, _ = await in_thread(listener.accept)
            with peer:
                peer.settimeout(PATIENCE)
                assert await in_thread(peer.recv, 1) == b"\x16", "a handshake record"
                with Stopwatch():
                    sock.close()
                    await ends_with(ClosedError, connecting)
                await in_thread(everything, peer)


async def test_C3_a_socket_whose_handshake_failed_may_connect_again(flavour: Flavour) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        async with flavour.socket() as sock:
            made("TLSv1.3").client.wrap_socket(bare(sock))
            for _ in range(2):
                connecting = await begun(
                    sock.connect("localhost", listener.getsockname()[1], timeout=PATIENCE)
                )
                peer, _ = await in_thread(listener.accept)
                assert await in_thread(peer.recv, 1) == b"\x16", "a handshake record"
                peer.close()
                await ends_with(TruncatedError, connecting)


async def test_R13_close_of_a_listener_ends_an_accept_during_its_handshake(flavour: Flavour) -> None:
    for timeout in (None, PATIENCE):
        listener = flavour.socket()
        made("TLSv1.3").server.wrap_socket(bare(listener))
        listener.bind_addr(0, LOOPBACK)
        listener.listen()
        with socket.create_connection(listener.local_addr) as silent:
            silent.settimeout(PATIENCE)
            accepting = await begun(listener.accept(timeout=timeout))
            with Stopwatch():
                listener.close()
                await ends_with(ClosedError, accepting)
                assert await in_thread(everything, silent) == b""


async def test_a_handshake_has_one_deadline_with_a_silent_and_with_a_slow_peer(
    flavour: Flavour,
) -> None:
    for drips in (False, True):
        async with silent_peer(flavour) as (sock, peer):
            with Stopwatch():
                shaking = asyncio.ensure_future(
                    upgrade(made("TLSv1.3").server, sock, Handshake.AS_SERVER, timeout=0.2)
                )
                hello = iter(b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03" + bytes(200))
                while drips and not shaking.done():
                    peer.send(bytes([next(hello)]))
                    await asyncio.wait([shaking], timeout=0.01)
                error = await ends_with(SocketTimeout, shaking)
            assert isinstance(error, SocketTimeout)
            assert error.seconds == 0.2


@pytest.mark.parametrize("how", ["timeout", "garbage", "cancel"])
@each_role
async def test_T6_nothing_is_sent_as_plaintext_after_a_failed_upgrade(
    flavour: Flavour, role: Handshake, how: str
) -> None:
    if how == "cancel" and flavour.name == "blocking":
        return  # threads are not cancelled
    context = made("TLSv1.3")[0 if role is Handshake.AS_CLIENT else 1]
    async with silent_peer(flavour) as (sock, peer):
        if how == "timeout":
            shaking = asyncio.ensure_future(upgrade(context, sock, role, "localhost", timeout=0.1))
        else:
            shaking = await begun(upgrade(context, sock, role, "localhost", timeout=PATIENCE))
        if how == "garbage":
            peer.send(b"220 ready when you are\r\n" * 10)
        elif how == "cancel":
            shaking.cancel()
        with pytest.raises(BaseException) as caught:
            await shaking
        assert isinstance(caught.value, SocketTimeout | asyncio.CancelledError | OSError)
        assert sock.is_ssl
        assert not sock.got_handshake
        for _ in range(2):
            with pytest.raises(OSError, match=r"(?i)tls|ssl"):
                await sock.send(b"secret")
            with pytest.raises(OSError, match=r"(?i)tls|ssl"):
                await sock.send_some(b"secret")
            assert not sock.try_send(b"secret")
            with pytest.raises(OSError, match=r"(?i)tls|ssl"):
                await sock.recv(1, PATIENCE)
        sock.close()
        wire = await in_thread(everything, peer)
        assert b"secret" not in wire
        assert wire[:1] in (b"", b"\x15", b"\x16")


async def test_a_client_that_leaves_during_its_handshake_does_not_affect_the_next_one(
    flavour: Flavour, contexts: Contexts
) -> None:
    listener = flavour.socket()
    async with listener:
        contexts.server.wrap_socket(bare(listener))
        listener.bind_addr(0, LOOPBACK)
        listener.listen()
        with socket.create_connection(listener.local_addr) as rude:
            rude.send(b"\x16\x03\x01")
        with pytest.raises(TruncatedError):
            await listener.accept(timeout=PATIENCE)
        accepting = asyncio.ensure_future(listener.accept(timeout=PATIENCE))
        async with await flavour.dial("localhost", listener.local_addr.port, tls=contexts.client) as client:
            async with await accepting as server:
                await server.send(b"fine")
                assert await client.recv(4, PATIENCE) == b"fine"
