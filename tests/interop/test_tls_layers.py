"""T12: TLS inside TLS with real programs: ``openssl`` is the inner peer, and socat makes or ends the outer layer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.interop import openssl
from tests.interop.async_conversations import says
from tests.interop.openssl import KEY_UPDATE, VERSIONS, read
from tests.interop.programs import PATIENCE, Program
from tests.interop.test_tls_s_client import ask, leave, s_client
from tests.interop.test_tls_s_server import converse, dial, s_server
from tests.scenarios.flavours import Flavour, Sock
from tests.tls import both, certificates
from tests.tls.both import serving
from tests.tls.memory import client_context, server_context
from tests.tools import require_tool
from wireline import Address
from wireline.tls import Handshake

pytestmark = [pytest.mark.interop, pytest.mark.anyio, pytest.mark.full]

flavour, anyio_backend, version = both.flavour, both.anyio_backend, openssl.version


@contextlib.asynccontextmanager
async def socat(listen: str, target: str) -> AsyncIterator[int]:
    """Relay one connection after the other; yield the port."""
    words = ["-d", "-d", f"{listen},bind=127.0.0.1,reuseaddr,fork", target]
    with Program(require_tool("socat", "socat"), *words) as program:
        said = await says(program, rb"listening on .*127\.0\.0\.1:(\d+)")
        yield int(said[1])


async def test_T12_s_client_in_a_tunnel_of_socat_talks_to_our_server(flavour: Flavour, version: str) -> None:
    ended: asyncio.Queue[tuple[str, list[bytes]]] = asyncio.Queue()

    async def handler(client: Sock, _: Address) -> None:
        # The client in the tunnel begins at once.
        await client.start_tls(server_context(), Handshake.AS_SERVER, timeout=PATIENCE, leftover="tls")
        lines = []
        async for line in client.lines(timeout=PATIENCE):
            lines.append(line)
            await client.send(line[::-1] + b"\n", timeout=PATIENCE)
        ended.put_nowait((client.tls_info.version, lines))

    async with serving(flavour, handler, server_context()) as server:
        outer = f"OPENSSL:127.0.0.1:{server.local_addr.port},cafile={certificates.ca_file()}"
        async with socat("TCP-LISTEN:0", outer) as port:
            with s_client(port, "-brief", VERSIONS[version]) as program:
                said = await says(program, rb"Protocol version: (\S+)\n(?s:.*)Verification: (\w+)")
                assert said.groups() == (version.encode(), b"OK")
                for number in range(5):
                    await ask(program, b"question %d" % number)
                await leave(program)
        inner, lines = await asyncio.wait_for(ended.get(), PATIENCE)
    assert (inner, len(lines)) == (version, 5)


async def test_T12_we_talk_to_s_server_behind_the_tls_of_socat(flavour: Flavour, version: str) -> None:
    leaf = certificates.elsewhere()
    listen = f"OPENSSL-LISTEN:0,cert={leaf.cert},key={leaf.key},verify=0"
    async with (
        s_server("-rev", VERSIONS[version]) as (_, behind),
        socat(listen, f"TCP:127.0.0.1:{behind}") as port,
    ):
        async with await dial(flavour, port, client_context(), "elsewhere.test") as sock:
            assert sock.tls_info.server_name == "elsewhere.test"
            await sock.start_tls(client_context(), hostname="localhost", timeout=PATIENCE)
            for number in range(5):
                await converse(sock, b"question %d" % number)
            await converse(sock, b"x" * 10_000)
            assert (sock.tls_info.version, sock.tls_info.server_name) == (version, "localhost")
            chain = [each.to_pem() for each in sock.get_peer_certificates()]
    assert chain == read(certificates.server().cert, certificates.ca_file())


async def test_T12_s_server_updates_its_keys_inside_of_the_tls_of_socat(flavour: Flavour) -> None:
    leaf = certificates.server()
    listen = f"OPENSSL-LISTEN:0,cert={leaf.cert},key={leaf.key},verify=0"
    async with (
        s_server("-tls1_3", "-msg") as (program, behind),
        socat(listen, f"TCP:127.0.0.1:{behind}") as port,
        await dial(flavour, port, client_context()) as sock,
    ):
        await sock.start_tls(client_context(), hostname="localhost", timeout=PATIENCE)
        for number in range(3):
            program.type(b"K\n")  # a key update that asks for one
            await says(program, b">>> " + KEY_UPDATE, on_stdout=True)
            program.type(b"answer %d\n" % number)
            assert await sock.recv_line(PATIENCE) == b"answer %d" % number
            await sock.send(b"question\n", timeout=PATIENCE)
            await says(program, b"<<< " + KEY_UPDATE + b"(?s:.*)question", on_stdout=True)
