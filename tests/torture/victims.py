"""In a scene: sockets of the library under trial, connected to the peers (peers.py), and ways to look at both."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import random
import socket
import ssl
from collections.abc import Coroutine, Iterator
from typing import Any

import trio

from tests.torture import certificates
from tests.torture.stage import PEERS, Broken, expect
from wireline import AF_UNIX, asyncnet, net
from wireline.tls import SslContext

KINDS = ("tcp", "unix", "tls12", "tls13")
LOOPS = ("asyncio", "uvloop", "trio")

_names = itertools.count()


@functools.cache
def where() -> dict[str, Any]:
    """The addresses of the peers."""
    found: dict[str, Any] = json.loads(os.environ[PEERS])
    return found


def new_gate() -> str:
    """The name of a gate that is shut."""
    return f"gate-{os.getpid()}-{next(_names)}-{random.getrandbits(32):x}"


def open_gate(name: str) -> None:
    """Let the peer go on that waits for a gate."""
    with open(os.path.join(where()["directory"], name), "w"):
        return


def trusting() -> SslContext:
    """A client's context."""
    return SslContext(ca_file=certificates.server_files()[0])


def serving() -> SslContext:
    """A server's context."""
    cert, key = certificates.server_files()
    return SslContext(cert_file=cert, key_file=key)


def dial(kind: str, context: SslContext | None = None, timeout: float = 20.0) -> net.Socket:
    """A blocking socket, connected to a peer."""
    if kind == "unix":
        sock = net.Socket(AF_UNIX)
        sock.connect_unix(where()["unix"], timeout=timeout)
        return sock
    tls = (context or trusting()) if kind.startswith("tls") else None
    return net.dial("127.0.0.1", where()[kind], tls=tls, timeout=timeout)


async def dial_async(
    kind: str, context: SslContext | None = None, timeout: float = 20.0
) -> asyncnet.AsyncSocket:
    """An async socket, connected to a peer."""
    if kind == "unix":
        sock = asyncnet.AsyncSocket(AF_UNIX)
        await sock.connect_unix(where()["unix"], timeout=timeout)
        return sock
    tls = (context or trusting()) if kind.startswith("tls") else None
    return await asyncnet.dial("127.0.0.1", where()[kind], tls=tls, timeout=timeout)


def exchange(sock: net.Socket, word: bytes = b"hello", seconds: float = 6.0) -> None:
    """A line in both directions."""
    sock.send(word + b"\n", timeout=seconds)
    line = sock.recv_line(timeout=seconds)
    expect(line == word.upper(), f"the connection is broken: sent {word!r}, got {line!r} back")


async def exchange_async(sock: asyncnet.AsyncSocket, word: bytes = b"hello", seconds: float = 6.0) -> None:
    """A line in both directions."""
    await sock.send(word + b"\n", timeout=seconds)
    line = await sock.recv_line(timeout=seconds)
    expect(line == word.upper(), f"the connection is broken: sent {word!r}, got {line!r} back")


def shout(client: net.Socket, address: object) -> None:
    """A handler that sends lines back in capitals."""
    for line in client.lines(timeout=30):
        client.send(line.upper() + b"\n")


async def shout_async(client: asyncnet.AsyncSocket, address: object) -> None:
    """A handler that sends lines back in capitals."""
    async for line in client.lines(timeout=30):
        await client.send(line.upper() + b"\n")


def client_context(version: str = "") -> ssl.SSLContext:
    """The standard library's context for a client that looks at no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version:
        exact = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
        context.minimum_version = context.maximum_version = exact
    return context


def connect_raw(kind: str, address: Any, seconds: float = 10.0) -> socket.socket:
    """A socket of the standard library, connected to a wireline server; ``address`` is a port or a path."""
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(seconds)
        sock.connect(address)
        return sock
    sock = socket.create_connection(("127.0.0.1", address), seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if kind.startswith("tls"):
        version = {"tls12": "1.2", "tls13": "1.3"}.get(kind, "")
        return client_context(version).wrap_socket(sock)
    return sock


def exchange_raw(sock: socket.socket, word: bytes = b"hello") -> None:
    """A line in both directions, from the other side."""
    try:
        sock.sendall(word + b"\n")
        got = b""
        while not got.endswith(b"\n"):
            data = sock.recv(1000)
            expect(data, f"the server closed the connection of a client that had sent {word!r}")
            got += data
    except OSError as error:
        raise Broken(
            f"the server is of no use to a client that sent {word!r}: {type(error).__name__}: {error}"
        ) from error
    expect(got == word.upper() + b"\n", f"the server's connection is broken: sent {word!r}, got {got!r} back")


def report(key: str) -> dict[str, Any]:
    """How a connection ended at the peer."""
    with socket.create_connection(("127.0.0.1", where()["tcp"]), 45) as sock:
        sock.sendall(f"report {key}\n".encode())
        with sock.makefile("rb") as lines:
            found: dict[str, Any] = json.loads(lines.readline())
    return found


def expect_report(key: str, size: int, what: str) -> None:
    """All bytes arrived at the peer, and then a clean end."""
    got = report(key)
    expect(
        got["bytes"] == size and got["end"] == "clean",
        f"{what}: {got['bytes']:,} of {size:,} bytes arrived, and the end was {got['end']}",
    )


def run_loop(loop: str, main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on one of ``LOOPS``, in a loop of its own."""
    if loop == "trio":

        async def await_it() -> Any:
            return await main

        return trio.run(await_it)
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    return asyncio.run(main)


@contextlib.contextmanager
def dropped(*socks: Any) -> Iterator[None]:
    """Close the rest at the end."""
    try:
        yield
    finally:
        for sock in socks:
            sock.close()
