"""curl, nginx and socat at the other end of TLS, in both flavours."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.interop import openssl
from tests.interop.async_conversations import hold_a_conversation, says
from tests.interop.programs import PATIENCE, Program, on_a_free_port
from tests.interop.responder import PAGES
from tests.interop.test_async_curl import bodies, respond
from tests.scenarios.flavours import Flavour, Server, Sock
from tests.scenarios.tls import only
from tests.tls import both, certificates
from tests.tls.both import serving
from tests.tls.memory import client_context, server_context
from tests.tools import require_tool
from wireline import Address
from wireline.tls import Handshake, SslContext, SslError, TlsInfo

pytestmark = [pytest.mark.interop, pytest.mark.anyio]

flavour, anyio_backend, version = both.flavour, both.anyio_backend, openssl.version

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

# ------------------------------------------------------------------------------------------------------------ curl


@pytest.fixture
async def responder(flavour: Flavour) -> AsyncIterator[Server]:
    async with serving(flavour, respond, server_context(alpn=["http/1.1"])) as server:
        yield server


async def curl(*words: str, code: int = 0, ca_file: str | None = None) -> bytes:
    argv = [require_tool("curl", "curl"), "--silent", "--show-error", "--noproxy", "*", "--http1.1"]
    argv += ["--cacert", ca_file or certificates.ca_file()]
    done = await asyncio.to_thread(
        subprocess.run, [*argv, *words], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


async def test_curl_verifies_us_and_gets_a_page(responder: Server, version: str) -> None:
    highest = ["--tls-max", version.removeprefix("TLSv")]
    for page, body in PAGES.items():
        assert await curl(*highest, f"https://localhost:{responder.local_addr.port}{page}") == body
    assert await curl(*highest, f"https://127.0.0.1:{responder.local_addr.port}/page") == PAGES["/page"]


async def test_curl_posts_a_body(responder: Server, tmp_path: pathlib.Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(PAGES["/large"])
    where = f"https://localhost:{responder.local_addr.port}/echo"
    assert await curl("--header", "Expect:", "--data-binary", f"@{sent}", where) == PAGES["/large"]


async def test_curl_gets_twenty_pages_at_once(responder: Server, tmp_path: pathlib.Path) -> None:
    words = ["--parallel", "--parallel-immediate"]
    for number in range(20):
        words += [
            "--output",
            str(tmp_path / str(number)),
            f"https://localhost:{responder.local_addr.port}/large?{number}",
        ]
    await curl(*words)
    assert bodies(tmp_path) == [PAGES["/large"]] * 20


async def test_curl_refuses_us_when_it_trusts_another_ca(responder: Server) -> None:
    where = f"https://localhost:{responder.local_addr.port}/small"
    await curl(where, code=60, ca_file=certificates.other_ca_file())  # CURLE_PEER_FAILED_VERIFICATION
    assert await curl(where) == PAGES["/small"]


async def test_curl_shows_its_certificate_and_resumes(flavour: Flavour, version: str) -> None:
    tls = server_context(client_certs="required", ca_file=certificates.ca_file())
    seen: list[tuple[TlsInfo, int]] = []

    async def look_and_respond(client: Sock, address: Address) -> None:
        seen.append((client.tls_info, len(client.get_peer_certificates())))
        await respond(client, address)

    ours = certificates.client()
    async with serving(flavour, look_and_respond, tls) as server:
        where = f"https://localhost:{server.local_addr.port}/small"
        words = ["--tls-max", version.removeprefix("TLSv"), "--cert", ours.cert, "--key", ours.key]
        assert await curl(*words, where, where) == PAGES["/small"] * 2
        await curl(
            *words[:2], where, code=56 if version == "TLSv1.3" else 35
        )  # in TLS 1.3 the refusal arrives afterwards
    assert [info.resumed for info, _ in seen] == [False, True]
    assert {info.version for info, _ in seen} == {version}
    assert all(count for _, count in seen)


# ----------------------------------------------------------------------------------------------------------- nginx

CONFIGURATION = """
daemon off;
master_process off;
pid {where}/pid;
error_log stderr notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {where}/body;
    proxy_temp_path {where}/proxy;
    fastcgi_temp_path {where}/fastcgi;
    uwsgi_temp_path {where}/uwsgi;
    scgi_temp_path {where}/scgi;
    ssl_session_cache shared:sessions:1m;
    ssl_protocols TLSv1.2 TLSv1.3;
    root {where};
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name localhost;
        ssl_certificate {server.cert};
        ssl_certificate_key {server.key};
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name elsewhere.test;
        ssl_certificate {elsewhere.cert};
        ssl_certificate_key {elsewhere.key};
        ssl_client_certificate {ca_file};
        ssl_verify_client on;
    }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """nginx with the responder's pages as files: a server for all clients, and one for those with a certificate."""
    # On Debian it is where only root looks.
    program = shutil.which("nginx", path="/usr/sbin") or require_tool("nginx", "nginx")
    where = tmp_path_factory.mktemp("nginx")
    for page, body in PAGES.items():
        (where / page[1:]).write_bytes(body)

    def start(port: int) -> Program:
        names = {"server": certificates.server(), "elsewhere": certificates.elsewhere()}
        text = CONFIGURATION.format(where=where, port=port, ca_file=certificates.ca_file(), **names)
        (where / "nginx.conf").write_text(text)
        return Program(program, "-e", "stderr", "-c", str(where / "nginx.conf"))

    with on_a_free_port(start, rb"event method") as (_, port):
        yield port


async def get(sock: Sock, page: str, host: str = "localhost") -> tuple[bytes, bytes]:
    """Ask for a page and keep the connection; return status and body."""
    await sock.send(f"GET {page} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), timeout=PATIENCE)
    status = await sock.recv_line(PATIENCE)
    size = 0
    while (line := await sock.recv_line(PATIENCE)) != b"\r\n":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            size = int(value)
    return status, await sock.recv_exactly(size, PATIENCE)


async def dial(flavour: Flavour, port: int, tls: SslContext, hostname: str = "localhost") -> Sock:
    return await flavour.dial("127.0.0.1", port, tls=tls, hostname=hostname, timeout=PATIENCE)


async def test_nginx_serves_every_page_on_one_connection(nginx: int, flavour: Flavour, version: str) -> None:
    tls = client_context()
    only(tls.ssl_context(Handshake.AS_CLIENT), VERSIONS[version])
    async with await dial(flavour, nginx, tls) as sock:
        for page, body in PAGES.items():
            assert await get(sock, page) == (b"HTTP/1.1 200 OK", body)
        assert sock.tls_info.version == version


async def test_nginx_ends_a_connection_as_one_should(nginx: int, flavour: Flavour) -> None:
    async with await dial(flavour, nginx, client_context()) as sock:
        await sock.send(b"GET /large HTTP/1.0\r\n\r\n", timeout=PATIENCE)
        pieces = []
        while piece := await sock.recv_some(timeout=PATIENCE):
            pieces.append(piece)
    assert b"".join(pieces).endswith(PAGES["/large"])


async def test_we_resume_our_session_with_nginx(nginx: int, flavour: Flavour) -> None:
    tls = client_context()
    for resumed in (False, True, True):
        async with await dial(flavour, nginx, tls) as sock:
            assert await get(sock, "/small") == (b"HTTP/1.1 200 OK", PAGES["/small"])
            assert sock.tls_info.resumed is resumed
            assert len(sock.get_peer_certificates()) == 2


async def test_nginx_chooses_by_name_and_asks_for_our_certificate(nginx: int, flavour: Flavour) -> None:
    leaf = certificates.client()
    host = "elsewhere.test"
    tls = client_context(cert_file=leaf.cert, key_file=leaf.key)
    async with await dial(flavour, nginx, tls, host) as sock:
        assert await get(sock, "/small", host) == (b"HTTP/1.1 200 OK", PAGES["/small"])
    async with await dial(flavour, nginx, client_context(), host) as sock:
        status, _ = await get(sock, "/small", host)
        assert status == b"HTTP/1.1 400 Bad Request"  # it asks, and tells in HTTP that nothing was shown
    with pytest.raises(SslError, match="certificate"):
        await dial(flavour, nginx, client_context(), "unknown.test")


# ----------------------------------------------------------------------------------------------------------- socat


def socat(address: str) -> Program:
    # `-d -d` makes it say where it listens; `-t` is how long it lets one direction go on after the other has ended.
    return Program(require_tool("socat", "socat"), "-d", "-d", "-t", str(PATIENCE), "-", address)


async def test_socat_connects(flavour: Flavour) -> None:
    over = asyncio.Event()

    async def handler(client: Sock, _: Address) -> None:
        await hold_a_conversation(program, client)
        over.set()

    async with serving(flavour, handler, server_context()) as server:
        words = [f"OPENSSL:127.0.0.1:{server.local_addr.port}", f"cafile={certificates.ca_file()}"]
        with socat(",".join([*words, "commonname=localhost", "snihost=localhost"])) as program:
            await asyncio.wait_for(over.wait(), PATIENCE)


async def test_socat_listens(flavour: Flavour) -> None:
    leaf, ours = certificates.server(), certificates.client()
    words = ["OPENSSL-LISTEN:0", "bind=127.0.0.1", f"cert={leaf.cert}", f"key={leaf.key}"]
    tls = client_context(cert_file=ours.cert, key_file=ours.key)
    with socat(",".join([*words, f"cafile={certificates.ca_file()}"])) as program:
        port = int((await says(program, rb"listening on .*:(\d+)\n"))[1])
        async with await dial(flavour, port, tls) as sock:
            await hold_a_conversation(program, sock)
