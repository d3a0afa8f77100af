"""TLS in both flavours: a server of one talks to a client of the other; and a page over https."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

from examples import async_http_client, http_client
from examples.scenes.certificates import Authority
from examples.scenes.stage import Stage, example, wireline
from examples.scenes.web import web_server
from wireline.tls import SslContext, SslError

MESSAGE = bytes(range(256)) * 2000


def play_echo(stage: Stage) -> None:
    """Send bytes through an echo of each flavour."""
    authority = Authority(stage.directory)
    leaf = authority.issue("echo", "localhost")
    for program in ("tls_echo.py", "async_tls_echo.py"):
        with example(stage, program, "0", "--cert", leaf.cert, "--key", leaf.key) as server:
            port = server.listening_on(on_stdout=True).rpartition(":")[2]
            words = (
                "connect",
                "--at-eof",
                "half-close",
                "--ca-file",
                authority.file,
                f"tls://localhost:{port}",
            )
            with wireline(stage, *words, stdin=subprocess.PIPE) as client:
                stage.check_bytes(client.finish(MESSAGE), MESSAGE, f"{len(MESSAGE)} bytes were echoed")
            with wireline(stage, *words[:-1], f"tls://127.0.0.1:{port}") as client:
                code, said = client.fail()
            stage.check(code == 5, "the server is refused under another name", code)
            stage.check("(it was checked for '127.0.0.1')" in said, "and the message has that name", said)
            server.terminate()


def play_web(stage: Stage) -> None:
    """Get a page by https in both flavours, and from an impostor not at all."""
    page = Path(http_client.__file__).read_bytes()
    (stage.directory / "page.txt").write_bytes(page)
    authority, stranger = Authority(stage.directory), Authority(stage.directory, "another CA")
    trusting = SslContext(ca_file=authority.file)
    for issuer, is_trusted in ((authority, True), (stranger, False)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*issuer.issue("web", "localhost"))
        with web_server(stage.directory, context) as port:
            url = f"https://localhost:{port}/page.txt"
            if is_trusted:
                with example(stage, "http_client.py", "--ca-file", authority.file, url) as client:
                    stage.check_bytes(client.finish(), page, "the blocking client got the page")
                stage.show(f">>> await async_http_client.get('{url}')")
                response = asyncio.run(async_http_client.get(url, tls=trusting))
                stage.check_bytes(response.body, page, "the async client got the page")
            else:
                stage.show(f">>> http_client.get('{url}')   # another server, with a certificate of its own")
                stage.check(_is_refused(url, trusting), "an impostor is refused before any request")


def _is_refused(url: str, trusting: SslContext) -> bool:
    try:
        http_client.get(url, tls=trusting)
    except SslError:
        return True
    return False
