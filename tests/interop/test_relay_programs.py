"""``wireline relay`` between programs of others: redis, nginx, ``openssl``, and curl with a plain HTTP server."""

from __future__ import annotations

import http.server
import pathlib
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli import conftest
from tests.cli.command import Command, accept, connect, receive, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_tls import needs_psk, psk_file
from tests.cli.test_tls_openssl import KEY, s_client, s_server
from tests.interop import test_redis
from tests.interop.programs import PATIENCE
from tests.interop.responder import PAGES
from tests.interop.test_python import Pages, running
from tests.interop.test_redis import pipeline, read_reply
from tests.interop.web import nginx
from tests.tls import certificates
from tests.tls.memory import client_context
from tests.tools import require_tool
from wireline import Address
from wireline.net import dial
from wireline.tls import SslContext

pytestmark = pytest.mark.interop

start = conftest.start
redis = test_redis.redis

ANY = "127.0.0.1:0"
OWN = ["--cert", certificates.server().cert, "--key", certificates.server().key]
CA = ["--ca-file", certificates.ca_file()]


def ends_well(relay: Command, *, errors: str | None = "") -> None:
    """Ctrl-C, and then nothing is wrong, and only ``errors`` was printed; None for any errors."""
    relay.send_signal(signal.SIGINT)
    code, out, err = relay.end()
    # Connections that are just ending may be waited for.
    said = "".join(line for line in err.splitlines(True) if "Ctrl-C again" not in line)
    assert (code, out, said) == (0, b"", said if errors is None else errors)


# ----------------------------------------------------------------------------------------------------------- redis


@pytest.mark.parametrize("tls", [False, True], ids=["tcp to tcp", "tls to unix"])
def test_redis_answers_pipelines_of_many_clients(start: Start, redis: tuple[Address, str], tls: bool) -> None:
    where, path = redis
    words = [*OWN, "tls://127.0.0.1:0", f"unix:{path}"] if tls else [ANY, f"{where.host}:{where.port}"]
    relay = start("relay", *words)
    port = relay.port()
    commands, replies = pipeline(200)
    # Only the output that does not depend on the other clients.
    asked = [index for index, command in enumerate(commands) if b"counter" not in command]

    def talk(context: SslContext | None) -> list[object]:
        with dial("127.0.0.1", port, tls=context, timeout=PATIENCE) as sock:
            sock.send(b"".join(commands[index] for index in asked), timeout=PATIENCE)
            return [read_reply(sock) for _ in asked]

    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(talk, [client_context() if tls else None] * 8):
            assert got == [replies[index] for index in asked]
    ends_well(relay)


# ------------------------------------------------------------------------------------------------ nginx, and curl


def curl(*words: str) -> bytes:
    argv = [require_tool("curl", "curl"), "--silent", "--show-error", "--noproxy", "*", "--http1.1"]
    done = subprocess.run([*argv, *words], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def every_page(base: str, *words: str) -> None:
    """All pages over one connection."""
    got = curl(*words, *(f"{base}{page}" for page in PAGES))
    assert got == b"".join(PAGES.values())


def test_curl_and_nginx_in_clear(start: Start, tmp_path: pathlib.Path) -> None:
    with nginx(tmp_path) as port:
        relay = start("relay", ANY, f"127.0.0.1:{port}")
        base = f"http://127.0.0.1:{relay.port()}"
        every_page(base)
        many = [word for number in range(20) for word in ("--output", "-", f"{base}/page?{number}")]
        assert len(curl("--parallel", "--parallel-immediate", *many)) == 20 * len(PAGES["/page"])
        ends_well(relay)


def test_curl_in_clear_and_nginx_with_tls(start: Start, tmp_path: pathlib.Path) -> None:
    with nginx(tmp_path, certificates.chained()) as port:
        relay = start("relay", *CA, ANY, f"tls://localhost:{port}")
        every_page(f"http://127.0.0.1:{relay.port()}")
        # nginx does not send close_notify on a connection that it would have kept, and the relay reports that.
        ends_well(relay, errors=None)


def test_tls_of_curl_and_nginx_goes_through_as_it_is(start: Start, tmp_path: pathlib.Path) -> None:
    with nginx(tmp_path, certificates.server()) as port:
        relay = start("relay", ANY, f"127.0.0.1:{port}")
        every_page(f"https://localhost:{relay.port()}", "--cacert", certificates.ca_file())
        ends_well(relay)


@pytest.mark.parametrize("highest", ["1.2", "1.3"])
def test_tls_in_front_of_a_plain_http_server(start: Start, highest: str) -> None:
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)) as port:
        relay = start("relay", *OWN, "tls://127.0.0.1:0", f"127.0.0.1:{port}")
        base = f"https://localhost:{relay.port()}"
        every_page(base, "--cacert", certificates.ca_file(), "--tls-max", highest)
        ends_well(relay)


def test_curl_trusts_the_certificate_that_self_signed_prints(start: Start, tmp_path: pathlib.Path) -> None:
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)) as port:
        relay = start("relay", "--self-signed", "tls://localhost:0", f"127.0.0.1:{port}")
        base = f"https://localhost:{relay.port()}"
        assert relay.process.stderr is not None
        pem = b""
        while b"END CERTIFICATE" not in pem:
            pem += relay.process.stderr.readline()
        (tmp_path / "ca.pem").write_bytes(pem)
        assert b"a client needs this CA" in relay.process.stderr.readline()
        every_page(base, "--cacert", str(tmp_path / "ca.pem"))
        ends_well(relay)


# -------------------------------------------------------------------------------------------------------- openssl


@needs_psk
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_in_front_of_s_server_with_nothing_but_a_pre_shared_key(
    start: Start, version: str, tmp_path: pathlib.Path
) -> None:
    mine = psk_file(tmp_path, f"me:{KEY}")
    with s_server("-nocert", "-psk", KEY, "-psk_identity", "me", version) as (_, target):
        relay = start("relay", "--psk-file", mine, ANY, target)
        port = relay.port()
        for _ in range(2):  # one after the other: it serves no two at once
            with connect(port) as client:
                for line in (b"hello", b"a second line"):
                    client.sendall(line + b"\n")
                    assert receive(client, len(line) + 1) == line[::-1] + b"\n"
        ends_well(relay)


@needs_psk
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_in_front_of_s_server_with_another_key(start: Start, version: str, tmp_path: pathlib.Path) -> None:
    wrong = psk_file(tmp_path, f"me:{KEY[::-1]}")
    with s_server("-nocert", "-psk", KEY, "-psk_identity", "me", version) as (_, target):
        relay = start("relay", "--psk-file", wrong, ANY, target)
        # It may arrive so early that `connect` reports it.
        with pytest.raises(ConnectionResetError), connect(relay.port()) as client:
            client.recv(1)
        words = "it has another identity or another key: compare the line in the key file on both sides"
        ends_well(relay, errors=f"wireline: {target} refused the handshake: {words}\n")


@needs_psk
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_with_a_pre_shared_key_in_front_of_a_plain_server(
    start: Start, version: str, tmp_path: pathlib.Path
) -> None:
    keys = psk_file(tmp_path, f"other:00ff\nme:{KEY}")
    with tcp_server() as (server, target), ThreadPoolExecutor(1) as pool:
        relay = start("relay", "--listen-psk-file", keys, "tls://127.0.0.1:0", target)
        words = ["-psk", KEY, "-psk_identity", "me", version]
        client = pool.submit(s_client, relay.port(), *words, typed=b"hello\n")
        with accept(server) as peer:
            assert receive(peer, 6) == b"hello\n"
            assert peer.recv(1) == b""
        assert client.result().returncode == 0, client.result().stderr
        ends_well(relay)
