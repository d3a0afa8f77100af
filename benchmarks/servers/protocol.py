"""asyncio's protocols and transports, on asyncio's loop or uvloop's: callbacks, nothing is awaited."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from benchmarks.servers.control import GREETING, announce, run, tls_context


class Echo(asyncio.Protocol):
    """Return the received bytes. The transport closes when the peer has ended, unless a protocol says otherwise."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Lines(Echo):
    """Return whole lines, all of one receive together, as a protocol gets them together."""

    rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.transport.writelines([line + b"\n" for line in lines])


class Greet(Echo):
    """Send a greeting and close."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(GREETING)
        self.transport.close()


PROTOCOLS = {"echo": Echo, "lines": Lines, "greet": Greet}


async def main() -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(PROTOCOLS[sys.argv[1]], "127.0.0.1", 0, ssl=tls_context())
    announce(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    run(main())
