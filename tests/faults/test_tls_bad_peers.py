"""Peers that use TLS wrongly: both flavours end them in time, and go on with the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable

import pytest

from tests.faults.peers import Talk, dribble, listening, pass_on, records, relay, throw
from tests.scenarios.flavours import Face, Flavour, Sock
from tests.scenarios.tls import only
from tests.tls import both
from tests.tls.both import PATIENCE, RecordedServer, recorded_server, serving
from tests.tls.memory import client_context, server_context
from wireline import Address, SocketTimeout
from wireline.tls import Handshake, SslError, TruncatedError

pytestmark = pytest.mark.anyio

flavour, anyio_backend = both.flavour, both.anyio_backend

LIMIT = 8.0
"""Seconds in which a peer has to be ended, where ten were allowed."""

HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

NO_HELLO = {
    "http": (HTTP, "http request"),
    "http through a proxy": (b"CONNECT localhost:443 HTTP/1.1\r\n\r\n", "https proxy request"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "wrong version number"),
    "zeros": (bytes(100), "wrong version number|unsupported protocol|record"),
    "0xff": (b"\xff" * 20_000, "wrong version number|unsupported protocol|record|length"),
    "a record that is too long": (b"\x16\x03\x01\xff\xff" + bytes(20_000), "packet length too long"),
    "empty records": (b"\x16\x03\x01\x00\x00" * 1000, "record|length|unexpected|bad"),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", "unexpected message"),
    "data": (b"\x17\x03\x03\x00\x05hello", "unexpected|data|record"),
    "no client's message": (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "unexpected message"),
    "a hello of nonsense": (
        b"\x16\x03\x01\x00\x28\x01\x00\x00\x24\x03\x03" + b"\xaa" * 34,
        "length|parse|decode",
    ),
}


async def is_well(flavour: Flavour, served: RecordedServer) -> None:
    """A client that there is nothing wrong with is served at once, and the handler saw no other."""
    tls = client_context()
    began = time.monotonic()
    async with await flavour.dial("localhost", served.port, tls=tls, timeout=PATIENCE) as sock:
        await sock.send(b"question\n", timeout=PATIENCE)
        assert await sock.recv_line(PATIENCE) == b"noitseuq"
    assert time.monotonic() - began < LIMIT
    assert (await served.connections.next()).lines == [b"question"]
    assert served.connections.seen.empty()


@pytest.fixture
def refusals(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The server's log records about clients that it closed."""
    caplog.set_level(logging.INFO, "wireline")

    def logged() -> list[str]:
        assert {record.levelno for record in caplog.records} <= {logging.INFO}
        return [record.getMessage() for record in caplog.records]

    return logged


# ------------------------------------------------------------------------------------------------ at a wireline server


@pytest.mark.parametrize("case", NO_HELLO)
async def test_bytes_that_are_no_hello_end_the_connection(
    flavour: Flavour, case: str, refusals: Callable[[], list[str]]
) -> None:
    data, reason = NO_HELLO[case]
    async with recorded_server(flavour) as served:
        began = time.monotonic()
        answer = await throw(served.port, data)
        assert time.monotonic() - began < LIMIT
        assert answer[:1] == (
            b"\x15" if data[1:2] == b"\x03" else b""
        )  # bytes that look like TLS get an alert
        (refusal,) = refusals()
        await is_well(flavour, served)
    assert re.search(f"(?i)no TLS handshake with .*127.0.0.1.* ({reason})", refusal), refusal


async def test_a_flood_of_nonsense_is_cut_off(flavour: Flavour, refusals: Callable[[], list[str]]) -> None:
    async with recorded_server(flavour) as served:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):  # a peer that does not read gets a reset
            await throw(served.port, b"\xff" * (32 << 20))
        assert time.monotonic() - began < LIMIT
        await is_well(flavour, served)
    assert len(refusals()) == 1


async def test_a_hello_may_be_cut_anywhere(flavour: Flavour, refusals: Callable[[], list[str]]) -> None:
    engine = client_context()._engine(Handshake.AS_CLIENT, "localhost")
    engine.handshake()
    hello = engine.take_output()
    places = [*range(8), *range(8, len(hello), 23), len(hello) - 1]
    async with recorded_server(flavour) as served:
        for place in places:
            assert await throw(served.port, hello[:place], half_close=True) == b""
        await is_well(flavour, served)
    # Ten lines a second, and lines that count the others (P8).
    counted = [re.match(r"(\d+) more at .* were left out: no TLS handshake", line) for line in refusals()]
    written = [line for line, count in zip(refusals(), counted, strict=True) if count is None]
    assert len(written) + sum(int(count[1]) for count in counted if count) == len(places)
    assert all("went away during the handshake" in line for line in written)


async def test_a_hello_may_come_byte_by_byte(flavour: Flavour) -> None:
    """Through a proxy that forwards every byte on its own."""
    async with recorded_server(flavour) as served, relay(served.port, dribble) as port:
        async with await flavour.dial(
            "127.0.0.1", port, tls=client_context(), hostname="localhost", timeout=PATIENCE
        ) as sock:
            await sock.send(b"question\n", timeout=PATIENCE)
            assert await sock.recv_line(PATIENCE) == b"noitseuq"


async def test_S6_a_silent_peer_is_closed_in_time_and_holds_up_no_other(
    flavour: Flavour, refusals: Callable[[], list[str]]
) -> None:
    async with recorded_server(flavour, handshake_timeout=1.0) as served:
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            silent = [tasks.create_task(throw(served.port, b"")) for _ in range(10)]
            await is_well(flavour, served)
        assert 1.0 <= time.monotonic() - began < LIMIT
    assert [task.result() for task in silent] == [b""] * 10
    assert len(refusals()) == 10
    assert all("handshake did not finish within 1 s" in refusal for refusal in refusals())


async def test_a_peer_that_sends_byte_by_byte_is_closed_in_time(flavour: Flavour) -> None:
    """The time is for the whole handshake and does not begin anew with every byte."""
    async with recorded_server(flavour, handshake_timeout=1.0) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        began = time.monotonic()
        ended = asyncio.create_task(reader.read())
        with contextlib.suppress(OSError):
            for byte in b"\x16\x03\x01\x02\x00" + bytes(1000):
                writer.write(bytes([byte]))
                await asyncio.wait({ended}, timeout=0.02)
                if ended.done():
                    break
        assert ended.done()
        assert time.monotonic() - began < LIMIT
        with contextlib.suppress(OSError):
            await ended
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await is_well(flavour, served)


async def test_a_peer_that_resets_does_no_harm(flavour: Flavour, refusals: Callable[[], list[str]]) -> None:
    async with recorded_server(flavour) as served:
        for data in (b"", b"\x16\x03\x01"):
            with socket.create_connection(("127.0.0.1", served.port)) as peer:
                peer.sendall(data)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await is_well(flavour, served)
        await served.server.stop(drain=PATIENCE)
    assert len(refusals()) == 2


@pytest.mark.parametrize(
    ("data", "error", "timeout"),
    [(HTTP, SslError, PATIENCE), (b"", SocketTimeout, 0.3)],
    ids=["http", "silence"],
)
async def test_accept_reports_a_peer_that_is_no_client_and_accepts_the_next(
    flavour: Flavour, data: bytes, error: type[OSError], timeout: float
) -> None:
    """A listener that is wrapped, without a server around it."""
    tls = server_context()
    async with flavour.socket() as listener:
        tls.wrap_socket(listener._sock if isinstance(listener, Face) else listener)
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        port = listener.local_addr.port
        bad = asyncio.create_task(throw(port, data))
        with pytest.raises(error):
            await listener.accept(timeout=timeout)
        assert await bad == b""  # OpenSSL does not send an alert to a peer that uses HTTP
        dialling = asyncio.create_task(
            flavour.dial("localhost", port, tls=client_context(), timeout=PATIENCE)
        )
        async with await listener.accept(timeout=PATIENCE) as client, await dialling as sock:
            await client.send(b"welcome\n", timeout=PATIENCE)
            assert await sock.recv_line(PATIENCE) == b"welcome"


# ------------------------------------------------------------------------------------------------ to a wireline client


def saying(data: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    return talk


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65536)
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


BAD_SERVERS: dict[str, tuple[Talk, type[Exception], str]] = {
    "plain echo": (echo, SslError, "unexpected message|wrong version|no ciphers|bad"),
    "plain http": (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), SslError, "wrong version number"),
    "plain smtp": (saying(b"220 localhost ready\r\n"), SslError, "wrong version number"),
    "hangs up": (saying(b""), TruncatedError, "went away during the handshake"),
    "resets": (reset, TruncatedError, "went away during the handshake"),
    "half a record": (
        saying(b"\x16\x03\x03\x00\x7a\x02\x00"),
        TruncatedError,
        "went away during the handshake",
    ),
    "an alert": (saying(b"\x15\x03\x03\x00\x02\x02\x28"), SslError, "alert handshake failure"),
    "empty records": (saying(b"\x16\x03\x03\x00\x00" * 1000), SslError, ""),
    "warnings": (saying(b"\x15\x03\x03\x00\x02\x01\x5a" * 1000), SslError, ""),
    "a record that is too long": (
        saying(b"\x16\x03\x03\xff\xff" + bytes(70_000)),
        SslError,
        "length too long",
    ),
}


@pytest.mark.parametrize("case", BAD_SERVERS)
async def test_a_server_that_does_not_speak_tls_is_an_error(flavour: Flavour, case: str) -> None:
    talk, error, reason = BAD_SERVERS[case]
    async with listening(talk) as port:
        began = time.monotonic()
        with pytest.raises(error, match=f"(?i){reason}"):
            await flavour.dial(
                "127.0.0.1", port, tls=client_context(), hostname="localhost", timeout=PATIENCE
            )
        assert time.monotonic() - began < LIMIT


async def test_a_server_that_says_nothing_is_a_timeout(flavour: Flavour) -> None:
    async with listening(silence) as port:
        began = time.monotonic()
        with pytest.raises(SocketTimeout, match="dial"):
            await flavour.dial("127.0.0.1", port, tls=client_context(), hostname="localhost", timeout=0.3)
        assert 0.3 <= time.monotonic() - began < LIMIT


# ------------------------------------------------------------------------------------------------- truncated replies


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_T3_a_reply_that_is_cut_anywhere_is_never_taken_for_whole(
    flavour: Flavour, version: str
) -> None:
    reply = b"a line\n" * 20

    async def handler(client: Sock, _: Address) -> None:
        await client.send(reply[:70], timeout=PATIENCE)
        await client.send(reply[70:], timeout=PATIENCE)

    async def fetch(port: int) -> bytes:
        tls = client_context()
        only(tls.ssl_context(Handshake.AS_CLIENT), ssl.TLSVersion[version.replace(".", "_")])
        got = b""
        async with await flavour.dial(
            "127.0.0.1", port, tls=tls, hostname="localhost", timeout=PATIENCE
        ) as sock:
            with pytest.raises(TruncatedError) if cut else contextlib.nullcontext():
                while piece := await sock.recv_some(timeout=PATIENCE):
                    got += piece
        return got

    cut = False
    whole: list[int] = []
    async with serving(flavour, handler, server_context()) as server:
        async with relay(server.local_addr.port, records(-1, 0, whole), pass_on) as port:
            assert await fetch(port) == reply
        cut = True
        lengths = set()
        for most in range(len(whole)):  # the last one is the close_notify
            for part in (0.0, 0.1, 0.5, 0.99):
                async with relay(server.local_addr.port, records(most, part, []), pass_on) as port:
                    try:
                        got = await fetch(port)
                    except TruncatedError:
                        continue  # in the handshake
                    assert reply.startswith(got)
                    lengths.add(len(got))
    assert {0, 70, len(reply)} == lengths
