"""``--starttls`` with real servers: MariaDB, PostgreSQL, and aiosmtpd as SMTP and LMTP."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP

from tests.bridges import servers
from tests.cli import conftest
from tests.cli.checked import the_tls
from tests.cli.conftest import Start
from tests.tls import certificates

start = conftest.start

TRUST = ("--ca-file", certificates.ca_file())


def test_mysql_of_mariadb(start: Start, mariadb: str) -> None:
    words = (*TRUST, "--starttls", "mysql", "--sni", "localhost", f"unix:{mariadb}")
    code, out, err = start("check", "--json", *words).finish()
    assert (code, err) == (0, "")
    assert the_tls(out)["chain_trusted"] is True
    # An empty user cannot log in: the answer is an error packet, over TLS.
    flags = (1 << 9 | 1 << 11 | 1 << 15 | 1 << 19).to_bytes(4, "little")
    body = (
        flags + (1 << 24).to_bytes(4, "little") + b"\x21" + bytes(23) + b"nobody\0\0mysql_native_password\0"
    )
    packet = len(body).to_bytes(3, "little") + b"\x02" + body
    # MariaDB then closes without close_notify, so the exit code is 6.
    assert b"Access denied" in start("connect", *words).finish(packet).out


def test_postgres(start: Start, postgres: servers.Postgres) -> None:
    words = (*TRUST, "--starttls", "postgres", f"localhost:{postgres.port}")
    code, out, err = start("check", "--first", "--json", *words).finish()
    assert (code, err) == (0, "")
    assert the_tls(out)["chain_trusted"] is True
    startup = (196608).to_bytes(4) + b"user\0postgres\0\0"
    packet = (len(startup) + 4).to_bytes(4) + startup
    code, out, _ = start("connect", "-4", "--quit-after", "2", "--expect-reply", *words).finish(packet)
    assert code == 0
    assert b"SCRAM-SHA-256" in out


@contextlib.contextmanager
def mail_server(factory: Callable[[], SMTP]) -> Iterator[int]:
    """Serve in a thread of its own; yields the port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()


@pytest.mark.sampled
@pytest.mark.parametrize(("protocol", "kind"), [("smtp", SMTP), ("lmtp", LMTP)])
def test_mail(start: Start, protocol: str, kind: type[SMTP]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificates.server())

    with mail_server(lambda: kind(object(), tls_context=context, hostname="mail.test")) as port:
        words = (*TRUST, "--starttls", protocol, "--sni", "localhost", f"127.0.0.1:{port}")
        code, out, err = start("check", "--json", *words).finish()
        assert (code, err) == (0, "")
        assert the_tls(out)["chain_trusted"] is True
        hello = b"LHLO" if protocol == "lmtp" else b"EHLO"
        code, out, _ = start("connect", "--crlf", *words).finish(hello + b" me\nQUIT\n")
        assert code == 0
        assert out.startswith(b"250-mail.test\r\n")
        assert b"STARTTLS" not in out, "TLS is on"
        assert out.endswith(b"221 Bye\r\n")
