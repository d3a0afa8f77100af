"""``wireline.asyncnet``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.servers.control import GREETING, announce, certificate, run
from wireline import Address, ReadLineResult
from wireline.asyncnet import AsyncSocket, serve

if TYPE_CHECKING:
    from wireline.tls import SslContext

MOST_LINES = 1000
"""That are answered together."""


async def echo(sock: AsyncSocket, _: Address) -> None:
    while data := await sock.recv_some():
        await sock.send(data)


async def lines(sock: AsyncSocket, _: Address) -> None:
    while line := await sock.recv_line():
        await sock.send(line + b"\n")


async def lines_batch(sock: AsyncSocket, _: Address) -> None:
    """Answer all lines of one receive together."""
    rest = b""
    while data := await sock.recv_some():
        *lines, rest = (rest + data).split(b"\n")
        await sock.send_many([line + b"\n" for line in lines])


async def lines_try(sock: AsyncSocket, _: Address) -> None:
    """Wait for a line, take those that arrived with it, and answer them together."""
    while line := await sock.recv_line():
        answers = [line + b"\n"]
        while len(answers) < MOST_LINES:
            result, line = sock.try_recv_line()
            if result is not ReadLineResult.FULL_LINE:
                break
            answers.append(line + b"\n")
        await sock.send_many(answers)


async def greet(sock: AsyncSocket, _: Address) -> None:
    await sock.send(GREETING)


HANDLERS = {
    "echo": echo,
    "lines": lines,
    "lines-batch": lines_batch,
    "lines-try": lines_try,
    "greet": greet,
}


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
