"""A mail server that knows nothing but STARTTLS (RFC 3207), in both flavours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.interop.programs import PATIENCE
from tests.scenarios.flavours import Flavour, Sock
from tests.tls.both import upgrade
from wireline import Address
from wireline.tls import Handshake, SslContext


@asynccontextmanager
async def mail_server(flavour: Flavour, tls: SslContext, inside: list[bytes]) -> AsyncIterator[int]:
    """Run it; yield its port, and add to ``inside`` the lines that are sent over TLS."""

    async def handler(client: Sock, _: Address) -> None:
        await client.send(b"220 localhost ready\r\n")
        async for line in client.lines(timeout=PATIENCE):
            if client.is_ssl:
                inside.append(line)
            if line.lower() == b"starttls":
                await client.send(b"220 go ahead\r\n")
                await upgrade(tls, client, Handshake.AS_SERVER, timeout=PATIENCE)
            elif line.lower() == b"quit":
                await client.send(b"221 goodbye\r\n")
                return
            else:
                await client.send(b"250-localhost\r\n250 STARTTLS\r\n")

    async with await flavour.serve(handler, 0, "127.0.0.1") as server:
        yield server.local_addr.port
