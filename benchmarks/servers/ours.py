"""``wireline.asyncnet``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.servers.control import GREETING, TIMEOUT, announce, certificate, run
from wireline import Address
from wireline.asyncnet import AsyncSocket, serve

if TYPE_CHECKING:
    from wireline.tls import SslContext


async def echo(sock: AsyncSocket, _: Address) -> None:
    while data := await sock.recv_some():
        await sock.send(data)


async def echo_timeout(sock: AsyncSocket, _: Address) -> None:
    while data := await sock.recv_some(timeout=TIMEOUT):
        await sock.send(data)


async def lines(sock: AsyncSocket, _: Address) -> None:
    while line := await sock.recv_line():
        await sock.send(line + b"\n")


async def greet(sock: AsyncSocket, _: Address) -> None:
    await sock.send(GREETING)


HANDLERS = {"echo": echo, "echo-timeout": echo_timeout, "lines": lines, "greet": greet}


def tls_context() -> SslContext | None:
    """A server's context; None without TLS."""
    if not certificate():
        return None
    from wireline.tls import SslContext

    return SslContext(cert_file=certificate())


async def main() -> None:
    """Serve for ever."""
    async with serve(HANDLERS[sys.argv[1]], 0, "127.0.0.1", tls=tls_context()) as server:
        announce(server.local_addr.port)
        await server.wait()


if __name__ == "__main__":
    run(main())
