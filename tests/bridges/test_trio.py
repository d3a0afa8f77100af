"""The adapter of trio passes trio's own checks of a stream, and serves as trio's own listeners do."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.scenarios import tls
from tests.scenarios.scene import A_DELAYED_ACK
from tests.tls import certificates
from wireline import AF_INET, AF_UNIX, SOCK_DGRAM, ClosedError
from wireline.adapters.trio import Listener, Stream
from wireline.asyncnet import AsyncSocket, dial
from wireline.tls import Handshake, SslContext

pytestmark = pytest.mark.sampled

VERSIONS = {"tls12": ssl.TLSVersion.TLSv1_2, "tls13": ssl.TLSVersion.TLSv1_3}

CHECKS = [
    trio.testing.check_one_way_stream,
    trio.testing.check_two_way_stream,
    trio.testing.check_half_closeable_stream,
]


def run(main: Callable[[], Awaitable[object]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(40):
            await main()

    trio.run(bounded)


def listening(family: int = AF_INET) -> AsyncSocket:
    listener = AsyncSocket(family)
    if family == AF_UNIX:
        with tempfile.TemporaryDirectory(prefix="wl-") as directory:
            listener.bind_unix(f"\0{os.path.basename(directory)}")
    else:
        listener.bind_addr(0, "127.0.0.1")
    listener.listen()
    return listener


async def connected(transport: str) -> tuple[Stream, Stream]:
    with contextlib.closing(listening(AF_UNIX if transport == "unix" else AF_INET)) as listener:
        client = AsyncSocket(AF_UNIX if transport == "unix" else AF_INET)
        if transport == "unix":
            await client.connect_unix(listener.local_addr.host)
        else:
            await client.connect("127.0.0.1", listener.local_addr.port)
        server = await listener.accept()
    if transport in VERSIONS:
        wrap = tls.context(VERSIONS[transport]).wrap_connected_async
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(wrap, client, Handshake.AS_CLIENT, "localhost"))
            nursery.start_soon(wrap, server, Handshake.AS_SERVER)
    return Stream(client), Stream(server)


async def clogged(transport: str) -> tuple[Stream, Stream]:
    """Two streams that take not one byte more, in either direction."""
    streams = await connected(transport)
    for stream in streams:
        sock, progress = stream._sock, True
        core = sock._io.core
        assert core is not None
        while progress:  # TCP frees the buffer of what the peer's kernel has acknowledged
            progress, unsent = False, len(core.unsent)
            while sock.try_send(bytes(65536)) or sock.last_bytes_sent:
                progress = True
            progress = progress or len(core.unsent) != unsent  # the rest of a record
            select.select([], [sock], [], A_DELAYED_ACK)
    return streams


@pytest.mark.parametrize("has_clogged", [False, True], ids=["", "clogged"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "transport",
    [
        "tcp",
        "unix",
        # A closed TLS stream goes on in the background until the peer has everything, which these checks wait for.
        pytest.param("tls12", marks=pytest.mark.full),
        pytest.param("tls13", marks=pytest.mark.full),
    ],
)
def test_trios_own_checks(transport: str, check: Any, has_clogged: bool) -> None:
    maker = functools.partial(clogged, transport) if has_clogged else None
    run(lambda: check(functools.partial(connected, transport), maker))


@pytest.mark.parametrize("transport", ["tcp", "tls13"])
def test_serve_listeners_serves_each_client_and_a_silent_one_delays_no_other(transport: str) -> None:
    async def echo(stream: Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the silent one
            async with stream:
                async for data in stream:
                    await stream.send_all(data)

    async def main() -> None:
        context = tls.context(VERSIONS[transport]) if transport in VERSIONS else None
        sock = listening()
        listener = Listener(sock, tls=context)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, echo, [listener])
            silent = await dial("127.0.0.1", sock.local_addr.port)
            for _ in range(2):
                client = await dial("localhost", sock.local_addr.port, tls=context)
                async with Stream(client) as stream:
                    await stream.send_all(b"hello")
                    assert await stream.receive_some(2) == b"he"
                    assert await stream.receive_some() == b"llo"
                    await stream.send_eof()
                    assert await stream.receive_some() == b""
            silent.close()
            await listener.aclose()
            nursery.cancel_scope.cancel()

    run(main)


def test_a_failed_handshake_breaks_the_stream_and_closes_it() -> None:
    async def main() -> None:
        leaf = certificates.server()
        sock = listening()
        async with Listener(sock, tls=SslContext(cert_file=leaf.cert, key_file=leaf.key)) as listener:
            with contextlib.closing(await dial("127.0.0.1", sock.local_addr.port)) as client:
                stream = await listener.accept()
                await client.send(b"this is no handshake")
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await stream.do_handshake()
                assert isinstance(caught.value.__cause__, ssl.SSLError)
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some()

    run(main)


def test_close_wakes_accept() -> None:
    async def main() -> None:
        listener = Listener(listening())

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError) as caught:
                await listener.accept()
            assert isinstance(caught.value.__cause__, ClosedError)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()

    run(main)


def test_arguments_are_checked() -> None:
    with (
        contextlib.closing(AsyncSocket()) as fresh,
        contextlib.closing(AsyncSocket(AF_INET, SOCK_DGRAM)) as gram,
    ):
        with pytest.raises(OSError, match="connected"):
            Stream(fresh)
        with pytest.raises(ValueError, match="listens"):
            Listener(fresh)
        for kind in (Stream, Listener):
            with pytest.raises(TypeError, match="datagram"):
                kind(gram)
            with pytest.raises(TypeError, match="AsyncSocket"):
                kind("a socket")  # type: ignore[arg-type]
    with pytest.raises(ClosedError):
        Stream(fresh)


def test_a_reset_is_broken_and_not_the_end() -> None:
    async def main() -> None:
        ours, theirs = await connected("tcp")
        async with ours:
            theirs._sock.close(linger=0)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await ours.receive_some()
            assert isinstance(caught.value.__cause__, ConnectionResetError)

    run(main)
