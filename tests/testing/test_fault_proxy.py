"""Fault proxies, pairs of sockets, certificates, and the fixtures of the pytest plugin."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.cases import in_turn
from wireline import AF_UNIX, Address, ClosedError, Deadline, SocketFlag, SocketTimeout, testing
from wireline.net import Socket, dial, serve
from wireline.testing import Faults, TestCA, async_pair, fault_proxy, pair
from wireline.testing._pairs import Kind
from wireline.tls import SslContext, TruncatedError

PATIENCE = 10.0
NO_FLAGS = SocketFlag(0)


def shout(client: Socket, address: Address) -> None:
    for line in client.lines():
        client.send(line.upper() + b"\n")


def test_a_proxy_relays_with_faults() -> None:
    with serve(shout, 0, "127.0.0.1") as server:
        with fault_proxy(server.local_addr, "chunk=2") as address:
            for _ in range(2):
                with dial(*address, timeout=PATIENCE) as sock:
                    sock.send(b"hello\n")
                    assert sock.recv_line(PATIENCE) == b"HELLO"
        with pytest.raises(OSError):  # the error depends on the system
            dial(*address, timeout=PATIENCE)


def test_faults_can_be_an_object_and_the_server_a_target(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with serve(shout, 0, f"unix:{path}") as server:
        for spelling in (f"unix:{path}", server.local_addr):
            with fault_proxy(spelling, Faults(truncate_after=3)) as address:
                assert address.port == 0
                with Socket(AF_UNIX) as sock:
                    sock.connect_unix(address.host, PATIENCE)
                    sock.send(b"abcdef\n")
                    assert sock.recv(100, PATIENCE) == b""
        assert not os.path.exists(address.host)
    with serve(shout, 0) as server:
        with fault_proxy(server.local_addr, Faults()) as address, dial(*address, timeout=PATIENCE) as sock:
            sock.send(b"every interface\n")
            assert sock.recv_line(PATIENCE) == b"EVERY INTERFACE"


def test_open_connections_are_reset_at_the_end() -> None:
    with serve(shout, 0, "127.0.0.1") as server:
        with fault_proxy(server.local_addr, Faults()) as address:
            sock = dial(*address, timeout=PATIENCE)
            sock.send(b"x\n")
            assert sock.recv_line(PATIENCE) == b"X"
        with sock, pytest.raises(ConnectionResetError):
            sock.recv(1, PATIENCE, NO_FLAGS)


def test_a_server_that_refuses_is_a_reset() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with fault_proxy(closed.getsockname(), Faults()) as address:
            with pytest.raises(OSError) as caught:  # from `dial`, if the reset arrives early
                with dial(*address, timeout=PATIENCE) as sock:
                    sock.recv(1, PATIENCE, NO_FLAGS)
            assert caught.value.errno == errno.ECONNRESET


def test_tls_loses_its_close_notify() -> None:
    context = TestCA().context()

    def say(client: Socket, address: Address) -> None:
        client.send(b"hello, and good bye")

    with serve(say, 0, "127.0.0.1", tls=context) as server:
        for words, ends in (("", True), ("drop-tls-close", False), ("drop-tls-close,chunk=100", False)):
            with fault_proxy(server.local_addr, words) as address:
                with dial(*address, timeout=PATIENCE, tls=context, hostname="localhost") as sock:
                    assert sock.recv_exactly(19, PATIENCE) == b"hello, and good bye"
                    if ends:
                        assert sock.recv(1, PATIENCE) == b""
                    else:
                        with pytest.raises(TruncatedError):
                            sock.recv(1, PATIENCE)


def test_two_bytes_over_tls_are_not_dropped_as_close_notify() -> None:
    """They look like an alert, and the peer waits for them while nothing follows."""
    context = TestCA().context()
    with (
        serve(shout, 0, "127.0.0.1", tls=context) as server,
        fault_proxy(server.local_addr, "drop-tls-close") as address,
    ):
        with dial(*address, timeout=PATIENCE, tls=context, hostname="localhost") as sock:
            sock.send(b"x\n")
            assert sock.recv_line(PATIENCE) == b"X"


def test_the_client_of_a_proxy_may_be_async() -> None:
    from wireline.asyncnet import dial

    async def main(address: Address) -> bytes:
        async with await dial(*address, timeout=PATIENCE) as sock:
            await sock.send(b"hello\n")
            return await sock.recv_line(PATIENCE)

    with serve(shout, 0, "127.0.0.1") as server, fault_proxy(server.local_addr, "chunk=1") as address:
        assert asyncio.run(main(address)) == b"HELLO"


@in_turn(
    "server, faults, error",
    [
        ("nowhere", "", ValueError),
        ("udp://127.0.0.1:1", "", ValueError),
        (("127.0.0.1", 1), "lag=1", ValueError),
        (("127.0.0.1", 1), None, TypeError),
    ],
)
def test_arguments_are_checked(server: Any, faults: Any, error: type[Exception]) -> None:
    with pytest.raises(error), fault_proxy(server, faults):
        pass


# Pairs.


@in_turn("kind", ["tcp", "tcp6", "unix", "tls"])
def test_a_pair_is_connected_and_closed_at_the_end(kind: Kind) -> None:
    with pair(kind) as (client, server):
        client.send(b"one line\n")
        assert server.recv_line(PATIENCE) == b"one line"
        assert client.is_ssl is server.is_ssl is (kind == "tls")
    assert client.is_closed
    assert server.is_closed

    async def main() -> None:
        async with await async_pair(kind) as (client, server):
            await server.send(b"one line\n")
            assert await client.recv_line(PATIENCE) == b"one line"
        with pytest.raises(ClosedError):
            await client.recv(1)

    asyncio.run(main())


def test_a_pair_can_be_unbuffered_and_have_a_context_of_its_own() -> None:
    context = TestCA().context()
    with pair("tls", tls=context, buffered=False) as (client, server):
        client.send(b"ab")
        assert server.recv(10, PATIENCE) == b"ab"


def test_bad_arguments_of_pair() -> None:
    with pytest.raises(ValueError, match="a pair is tcp, tcp6, unix or tls, not 'udp'"):
        pair("udp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is for pair"):
        pair("tcp", tls=TestCA().context())
    with pytest.raises(TypeError, match="seconds is"):
        pair("tls", timeout="1")  # type: ignore[arg-type]


def test_a_failed_handshake_leaves_no_descriptor() -> None:
    """The certificate is for another name."""
    context = TestCA().context("elsewhere")
    with pytest.raises(OSError, match="localhost"):
        pair("tls", tls=context)

    async def main() -> None:
        with pytest.raises(TypeError, match="seconds is"):
            await async_pair("tls", timeout="1")  # type: ignore[arg-type]
        with pytest.raises(OSError, match="localhost"):
            await async_pair("tls", tls=context)

    asyncio.run(main())


def test_the_handshake_of_a_pair_has_a_time_limit(tmp_path: Path) -> None:
    files = TestCA().write(tmp_path)
    answer = threading.Event()

    def is_slow(_: object) -> None:
        answer.wait(0.2)

    context = SslContext(
        cert_file=files.cert, key_file=files.key, ca_file=files.ca, server_name_callback=is_slow
    )
    with pytest.raises(SocketTimeout):
        pair("tls", tls=context, timeout=Deadline(0.05))
    answer.set()
    with pair("tls", tls=context, timeout=None) as (client, _):
        assert client.got_handshake


# Certificates.


def test_the_files_of_a_ca_make_a_server_and_a_client(tmp_path: Path) -> None:
    files = TestCA().write(tmp_path, "example.test")
    context = SslContext(cert_file=files.cert, key_file=files.key, ca_file=files.ca)
    assert sorted(os.listdir(tmp_path)) == ["ca.pem", "server.key", "server.pem"]
    with serve(shout, 0, "127.0.0.1", tls=context) as server:
        with dial(*server.local_addr, tls=context, hostname="example.test", timeout=PATIENCE) as sock:
            assert [each.subject for each in sock.get_peer_certificates()] != []


def test_without_trustme_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ImportError, match="pip install trustme"):
        TestCA()


# The module, and the plugin.


def test_testing_loads_neither_asyncio_nor_ssl_nor_trustme_nor_pytest() -> None:
    heavy = ["asyncio", "ssl", "trustme", "pytest", "rich"]
    code = f"import sys, wireline.testing; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_every_public_name_of_testing_exists() -> None:
    for name in testing.__all__:
        assert getattr(testing, name).__doc__ or name == "CHECKS"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        testing.nothing  # noqa: B018


USERS_TESTS = """
from wireline.testing import CHECKS, TestCA  # -W error: pytest must not try to collect a class named Test...
import pytest

def test_pair(wireline_pair):
    client, server = wireline_pair("tls")
    client.send(b"x")
    assert server.recv(1, 5) == b"x"
    assert wireline_pair().client is not client

def test_fault_proxy(wireline_fault_proxy):
    from wireline.net import dial, serve
    def echo(client, address):
        client.send(client.recv_line())
    with serve(echo, 0, "127.0.0.1") as server:
        address = wireline_fault_proxy(server.local_addr, "chunk=1")
        with dial(*address, timeout=5) as sock:
            sock.send(b"hello\\n")
            assert sock.recv(5, 5) == b"hello"

def test_ca(wireline_ca):
    assert b"BEGIN CERTIFICATE" in wireline_ca.pem

@pytest.mark.parametrize("check", CHECKS[:2], ids=str)
def test_conformance(check, wireline_pair):
    check.run(wireline_pair)
"""


def test_the_plugin_in_a_separate_project(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["wireline.testing.pytest_plugin"]\n')
    (tmp_path / "test_users.py").write_text(USERS_TESTS)
    words = ["-W", "error", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(testing.__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stdout
    assert "5 passed" in result.stdout
