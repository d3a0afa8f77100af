"""The reports of a call: the number of bytes sent, its name in errors; and no call blocks the loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, NoReturn

import pytest

from tests.asyncnet.loops import WAYS, Way, turns
from tests.asyncnet.streams import PATIENCE, drain, drain_until, narrow_wire, until, wire
from tests.asyncnet.test_fairness import POLLING, program
from wireline import AF_UNIX, SOCK_DGRAM, BusyError, ClosedError, SocketFlag, SocketTimeout
from wireline._validation import Buffer
from wireline.asyncnet import AsyncSocket
from wireline.testing import async_pair
from wireline.tls import SslContext, VerifyMode

polled = pytest.mark.parametrize("way", [way for way in WAYS if not way.portable], ids=lambda way: way.name)


@pytest.mark.parametrize("loop", POLLING)
@pytest.mark.parametrize(
    "call",
    [
        "await sock.send(bytes(10_000_000))",
        "[await sock.send(bytes(100_000)) for _ in range(100)]",
        "await sock.send_some(b'x'); await sock.send_many([bytes(10_000_000)])",
        "sock.try_send(bytes(10_000_000)); sock.try_send(b'x' * 1000000)",
        "await sock.recv_some()",
        "await sock.recv_line(0)",
        "sock.try_recv_line()",
        "await datagram.recv_from(10)",
        "await listener.accept()",
        "await unix_listener.accept()",
        "listener.try_accept_addr()",
        "await full.connect_unix(unix_listener.local_addr.host, 5)",
    ],
)
def test_W10_no_change_of_a_duplicate_makes_a_call_block_the_loop(loop: str, call: str) -> None:
    """FA16, W10: ``settimeout(None)`` on a duplicate of the descriptor made a ``send`` hold up the whole loop."""
    out = program(
        """
        import asyncio, contextlib, os, socket, sys
        from wireline import AF_UNIX, SOCK_DGRAM
        from wireline.asyncnet import AsyncSocket

        def spoil(sock):
            with socket.socket(fileno=os.dup(sock.fileno())) as twin:
                twin.settimeout(None)

        async def main():
            ours, peer = socket.socketpair()
            sock = AsyncSocket.from_socket(ours)
            datagram = AsyncSocket(sock_type=SOCK_DGRAM)
            datagram.bind_addr(0, "127.0.0.1")
            listener = AsyncSocket()
            listener.bind_addr(0, "127.0.0.1")
            listener.listen()
            unix_listener = AsyncSocket(AF_UNIX)
            unix_listener.bind_unix("\\0wireline-%d" % os.getpid())
            unix_listener.listen(0)
            full = AsyncSocket(AF_UNIX)
            if "full" in sys.argv[2]:
                clients = [socket.socket(AF_UNIX) for _ in range(3)]
                for client in clients:
                    client.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        client.connect(unix_listener.local_addr.host)
            for each in (sock, datagram, listener, unix_listener, full):
                spoil(each)

            async def call():
                CALL

            calling = asyncio.create_task(call())
            for _ in range(3):
                await asyncio.sleep(0.001)
            print("the loop goes on", flush=True)
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await calling
            os._exit(0)

        if sys.argv[1] == "uvloop":
            import uvloop
            uvloop.run(main())
        else:
            asyncio.run(main())
        """.replace("CALL", call),
        loop,
        call,
    )
    assert out == "the loop goes on\n"


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("make", ["from_socket", "from_fd"])
async def test_detach_returns_the_descriptor_as_it_was_given(way: Way, make: str, blocking: bool) -> None:
    """FA17: it stayed non-blocking."""
    ours, peer = socket.socketpair()
    with peer:
        ours.setblocking(blocking)
        sock = AsyncSocket.from_socket(ours) if make == "from_socket" else AsyncSocket.from_fd(ours.detach())
        peer.send(b"line\n")
        assert await sock.recv_line() == b"line"
        assert not os.get_blocking(sock.fileno())
        fd = sock.detach()
        assert os.get_blocking(fd) is blocking
        os.close(fd)


async def test_a_descriptor_in_use_is_not_detached(way: Way) -> None:
    async def refused(sock: AsyncSocket, call: Coroutine[Any, Any, object]) -> None:
        waiting = asyncio.create_task(call)
        await turns(2)
        with pytest.raises(OSError, match="another task") as caught:
            sock.detach()
        assert caught.value.errno == errno.EBUSY
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async with AsyncSocket(sock_type=SOCK_DGRAM) as datagrams:
        datagrams.bind_addr(0, "127.0.0.1")
        await refused(datagrams, datagrams.recv_from(10))
    with wire() as (sock, _):
        await refused(sock, sock.recv_some())


async def test_W1_send_some_that_waited_returns_its_count(way: Way) -> None:
    with narrow_wire() as (sock, peer):
        while sock.try_send(bytes(1000)):
            pass
        sending = asyncio.create_task(sock.send_some(b"x" * 100, timeout=PATIENCE))
        await turns(2)
        assert not sending.done()
        data = await drain_until(peer, sending.done)
        assert await sending == sock.last_bytes_sent == data.count(b"x") > 0


@pytest.mark.parametrize("way", [way for way in WAYS if way.portable], ids=lambda way: way.name)
async def test_W1_send_some_that_timed_out_sends_nothing_later(way: Way) -> None:
    with narrow_wire() as (sock, peer):
        while sock.try_send(bytes(1000)):
            pass
        with pytest.raises(SocketTimeout):
            await sock.send_some(b"x", timeout=0.01)
        assert b"x" not in await drain_until(peer, lambda: True)


async def test_an_operation_without_an_event_is_tried_again_after_pauses(way: Way) -> None:
    class Never:
        tries = 0

        def try_once(self) -> NoReturn:
            self.tries += 1
            assert self.tries < 50
            raise BlockingIOError

    with wire() as (sock, _):
        sock._fd.enter(sock)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sock._fd.retry_with_backoff(Never(), "send", None)


async def test_send_some_sends_the_rest_of_a_record_first(way: Way) -> None:
    async with await async_pair("tls") as (sock, peer):
        core = sock._io.core
        assert core is not None
        core.encrypt(b"first, ")
        assert core.pending_output()
        assert await sock.send_some(b"second") == 6
        assert await peer.recv_exactly(13, PATIENCE) == b"first, second"


async def test_T12_a_handshake_waits_for_a_full_send_buffer_of_a_socket_that_was_not_used(way: Way) -> None:
    """No call before it has bound the socket to the loop: ``'_NoLoop' object has no attribute 'completions'``."""
    client_tls = SslContext(verify_mode=VerifyMode.NONE)
    with narrow_wire() as (sock, peer):
        assert not sock.try_send(bytes(100_000))
        filler = sock.last_bytes_sent
        handshake = asyncio.create_task(sock.start_tls(client_tls))
        await turns(3)
        assert not handshake.done()
        arrived = bytearray()

        def client_hello_arrived() -> bool:
            arrived.extend(drain(peer))
            return len(arrived) > filler

        await until(client_hello_arrived)
        assert arrived[filler:].startswith(b"\x16\x03\x01")  # a handshake record
        handshake.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handshake


async def test_output_of_a_read_is_sent_when_the_write_lock_is_released(way: Way) -> None:
    async with await async_pair("tls") as (sock, peer):
        core = sock._io.core
        assert core is not None
        await sock._io.acquire_write_lock(sock, "send", None)
        core.close_notify()
        sock._io.send_output(sock)
        assert core.has_output
        sock._io.release_write_lock(sock)
        assert not core.has_output
        assert await peer.recv_some(timeout=PATIENCE) == b""


async def test_detach_of_a_descriptor_of_the_library_is_a_blocking_one(way: Way) -> None:
    """FA17: as ``socket.socket()`` is one."""
    async with AsyncSocket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        sock = AsyncSocket()
        await sock.connect(*listener.local_addr)
        for made in (sock, await listener.accept()):
            fd = made.detach()
            assert os.get_blocking(fd)
            os.close(fd)


# ----------------------------------------------------------------------------------------- last_bytes_sent


async def test_W9_try_send_is_a_plain_call_that_says_how_much_went_out(way: Way) -> None:
    """FB2, FB3: it was a coroutine, and so always true; and a part that went out was not counted."""
    with wire() as (sock, peer):
        assert sock.try_send(b"whole") is True
        assert sock.last_bytes_sent == 5
        assert sock.try_send(bytes(10_000_000)) is False
        part = sock.last_bytes_sent
        assert 0 < part < 10_000_000
        while sock.try_send(b"x"):
            part += 1
        assert sock.last_bytes_sent == 0
        assert len(drain(peer)) == part + 5
        assert sock.try_send(b"") is True
        assert sock.last_bytes_sent == 0
        sock.try_send(b"again")
        with pytest.raises(TypeError):
            sock.try_send("text")  # type: ignore[arg-type]
        assert sock.last_bytes_sent == 0


class Framed(AsyncSocket):
    """Its messages begin with their length."""

    async def send(
        self, data: Buffer, flags: SocketFlag = SocketFlag.SAFE_DISCONN, timeout: float | None = None
    ) -> None:
        await self.send_many([bytes([len(memoryview(data))]), data], flags, timeout)


async def test_send_many_sends_by_itself_and_a_subclass_may_send_by_it(way: Way) -> None:
    ours, peer = socket.socketpair()
    with contextlib.closing(Framed.from_socket(ours)) as sock, peer:
        await sock.send(b"abc")
        assert sock.last_bytes_sent == 4
        assert peer.recv(10) == b"\x03abc"


@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_socket_is_closed_without_the_collector_after_a_send_has_failed(
    way: Way, kind: Literal["tcp", "tls"]
) -> None:
    """The reset is kept for the next read: it must not keep the frames of the send."""
    sock, peer = await async_pair(kind)
    fd = sock.fileno()
    peer.close(linger=0)
    with pytest.raises(ConnectionResetError):
        await sock.send(b"x", SocketFlag(0), 5)
    gc.disable()
    try:
        with pytest.warns(ResourceWarning, match=f"unclosed <wireline.asyncnet.AsyncSocket fd={fd}"):
            del sock
    finally:
        gc.enable()


async def test_the_error_of_a_send_that_waited_does_not_name_the_attempt_before(way: Way) -> None:
    sock, peer = await async_pair("tcp")
    sending = asyncio.ensure_future(sock.send(bytes(20_000_000), SocketFlag(0)))
    await turns(3)
    assert sock._fd.open_write_queue().busy
    peer.close(linger=0)
    with contextlib.closing(sock), pytest.raises(ConnectionError) as caught:
        await sending
    assert not isinstance(caught.value.__context__, BlockingIOError)


def test_try_send_needs_no_loop() -> None:
    """FB3: it never waits."""
    with wire() as (sock, peer):
        assert sock.try_send(b"x") is True
        assert peer.recv(10) == b"x"


Failing = Callable[[AsyncSocket], Awaitable[object]]

FAILING: dict[str, tuple[type[BaseException], Failing]] = {
    "a str": (TypeError, lambda sock: sock.send("x")),  # type: ignore[arg-type]
    "bad flags": (TypeError, lambda sock: sock.send(b"x", 1)),  # type: ignore[arg-type]
    "a bad timeout": (ValueError, lambda sock: sock.send(b"x", timeout=-1)),
    "no parts": (TypeError, lambda sock: sock.send_many(5)),  # type: ignore[arg-type]
    "some of a str": (TypeError, lambda sock: sock.send_some("x")),  # type: ignore[arg-type]
    "send_to": (TypeError, lambda sock: sock.send_to("127.0.0.1", 9, b"x")),
}


@pytest.mark.parametrize("name", FAILING)
async def test_W9_last_bytes_sent_is_right_after_a_call_that_was_refused(way: Way, name: str) -> None:
    """FB2, W9: it was that of the call before."""
    error, call = FAILING[name]
    with wire() as (sock, _):
        await sock.send(b"12345")
        assert sock.last_bytes_sent == 5
        with pytest.raises(error):
            await call(sock)
        assert sock.last_bytes_sent == 0


async def test_W9_last_bytes_sent_is_right_after_every_kind_of_send(way: Way) -> None:
    """FB2, W9: ``send_some`` and datagrams did not count."""
    with narrow_wire() as (sock, peer):
        assert await sock.send_some(b"123") == sock.last_bytes_sent == 3
        await sock.send_many([b"12", b"34"])
        assert sock.last_bytes_sent == 4
        with pytest.raises(SocketTimeout) as caught:
            await sock.send_many([bytes(1_000_000)], timeout=0.001)
        assert sock.last_bytes_sent == caught.value.bytes_sent
        with pytest.raises(SocketTimeout):
            await sock.send_some(bytes(1_000_000), timeout=0.001)
        assert sock.last_bytes_sent == 0
        drain(peer)
        peer.close()
        await sock.send(b"12345")
        with contextlib.suppress(ConnectionError):
            await sock.send(b"12345", SocketFlag(0))
        assert sock.last_bytes_sent == 0
    with wire() as (sock, peer):
        await sock.send(b"123")
        assert sock.last_bytes_sent == 3
        peer.close()
        await sock.send(b"12345")
        assert sock.last_bytes_sent == 0
    for call in (sock.send_some(b"x"), sock.send(b"")):
        with pytest.raises(ClosedError):
            await call
        assert sock.last_bytes_sent == 0


async def test_W9_last_bytes_sent_of_datagrams(way: Way) -> None:
    """FB2, W9: they did not count."""
    with socket.socket(type=SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        async with AsyncSocket(sock_type=SOCK_DGRAM) as sock:
            assert await sock.send_to("127.0.0.1", peer.getsockname()[1], b"123") == sock.last_bytes_sent == 3
            with pytest.raises(OSError):
                await sock.send_to("127.0.0.1", peer.getsockname()[1], bytes(100_000))
            assert sock.last_bytes_sent == 0
            await sock.connect(*peer.getsockname())
            await sock.send(b"12345")
            assert sock.last_bytes_sent == 5
            assert await sock.send_some(b"1") == sock.last_bytes_sent == 1
            assert sock.try_send(b"12") is True
            assert sock.last_bytes_sent == 2
            assert sock.try_send(bytes(100_000)) is False
            assert sock.last_bytes_sent == 0


# -------------------------------------------------------------------------------------- names of operations

Timed = Callable[[AsyncSocket, float], Awaitable[object]]

TIMED: dict[str, Timed] = {
    "recv": lambda sock, seconds: sock.recv(5, seconds),
    "recv_into": lambda sock, seconds: sock.recv_into(bytearray(5), None, seconds),
    "recv_some": lambda sock, seconds: sock.recv_some(5, seconds),
    "recv_exactly": lambda sock, seconds: sock.recv_exactly(5, seconds),
    "recv_until": lambda sock, seconds: sock.recv_until(b"\n", 5, seconds),
    "recv_line": lambda sock, seconds: sock.recv_line(seconds),
    "recv_line_into": lambda sock, seconds: sock.recv_line_into(bytearray(), seconds),
    "lines": lambda sock, seconds: anext(sock.lines(timeout=seconds)),
    "skip": lambda sock, seconds: sock.skip(5, seconds),
}


@pytest.mark.parametrize("seconds", [0, 0.001])
@pytest.mark.parametrize("name", TIMED)
async def test_errors_of_a_read_name_the_call_that_was_made(way: Way, name: str, seconds: float) -> None:
    """FB6: ``SocketTimeout.operation`` was "recv" for ``recv_into``, and "recv_line" for ``lines``."""
    with wire() as (sock, peer):
        for _ in range(2):
            with pytest.raises(SocketTimeout) as caught:
                await TIMED[name](sock, seconds)
            assert (caught.value.operation, caught.value.seconds) == (name, seconds)
            peer.send(b"line\n")
            assert await sock.recv_line() == b"line"  # and then by the other way in
        first = asyncio.ensure_future(TIMED[name](sock, 50))
        await turns(2)
        with pytest.raises(BusyError, match=f"^{name}: "):
            await TIMED[name](sock, 50)
        sock.close()
        with pytest.raises(ClosedError, match=rf"\b{name}: "):
            await first


@pytest.mark.parametrize("name", ["send", "send_many", "send_some"])
async def test_errors_of_a_send_name_the_call_that_was_made(way: Way, name: str) -> None:
    """FB6: "send" for ``send_many``."""
    calls: dict[str, Callable[[AsyncSocket], Awaitable[object]]] = {
        "send": lambda sock: sock.send(bytes(1_000_000), SocketFlag(0), 0.001),
        "send_many": lambda sock: sock.send_many([bytes(1_000_000)], SocketFlag(0), 0.001),
        "send_some": lambda sock: sock.send_some(bytes(1_000_000), 0.001),
    }
    with narrow_wire() as (sock, peer):
        await sock.send(b"x")
        while sock.try_send(bytes(1000)):
            pass
        with pytest.raises(SocketTimeout) as caught:
            await calls[name](sock)
        assert caught.value.operation == name
        for _ in range(20):
            await turns(1)
        peer.close()
        with pytest.raises(ConnectionError) as lost:
            for _ in range(1000):
                with contextlib.suppress(SocketTimeout):  # of 1 ms, on a busy machine
                    await calls[name](sock)
        assert any(f"during {name} on" in note for note in lost.value.__notes__)


@pytest.mark.parametrize("name", ["accept", "accept_addr", "recv_from", "recv", "recv_some", "recv_into"])
async def test_errors_of_other_waits_name_the_call_that_was_made(way: Way, name: str) -> None:
    """FB6: the same for listeners and datagrams."""
    kind = SOCK_DGRAM if name.startswith("recv") else socket.SOCK_STREAM
    async with AsyncSocket(AF_UNIX, kind) as sock:
        sock.bind_unix(f"\0wireline-{os.urandom(8).hex()}")
        if kind != SOCK_DGRAM:
            sock.listen()
        arguments = {"recv_into": (bytearray(5),), "accept": (), "accept_addr": ()}.get(name, (5,))
        with pytest.raises(SocketTimeout) as caught:
            await getattr(sock, name)(*arguments, timeout=0.001)
        assert caught.value.operation == name
        waiting = asyncio.ensure_future(getattr(sock, name)(*arguments))
        await turns(2)
        sock.close()
        with pytest.raises(ClosedError, match=rf"\b{name}: "):
            await waiting
