"""``wireline relay`` with TLS on either side, and with pre-shared keys."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE, accept, connect, tcp_server
from tests.cli.conftest import Start
from tests.tls import certificates
from wireline.net import dial, serve
from wireline.tls import SslContext, VerifyMode

ANY = "127.0.0.1:0"


def trusting(*certificate: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.ca_file())
    if certificate:
        context.load_cert_chain(*certificate)
    return context


def serving() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server())
    return context


def test_tls_outside_and_plain_inside(start: Start) -> None:
    cert, key = certificates.server()
    with tcp_server() as (server, target):
        relay = start("relay", "--cert", cert, "--key", key, "tls://127.0.0.1:0", target)
        with connect(relay.port()) as raw, trusting().wrap_socket(raw, server_hostname="localhost") as client:
            with accept(server) as peer:
                client.sendall(b"hello")
                assert peer.recv(5) == b"hello"
                peer.sendall(b"world")
                assert client.recv(5) == b"world"
                leaving = threading.Thread(target=client.unwrap)  # waits for the end of the other direction
                leaving.start()
                assert peer.recv(1) == b""
            leaving.join()


def test_plain_outside_and_tls_inside(start: Start) -> None:
    with tcp_server() as (server, target):
        inside = f"tls://localhost:{target.rpartition(':')[2]}"
        relay = start("relay", "--ca-file", certificates.ca_file(), ANY, inside)
        with connect(relay.port()) as client, accept(server) as raw:
            with serving().wrap_socket(raw, server_side=True) as peer:
                client.sendall(b"hello")
                assert peer.recv(5) == b"hello"
                peer.sendall(b"world")
                assert client.recv(5) == b"world"
                client.shutdown(socket.SHUT_WR)
                assert peer.recv(1) == b"", "an end of TCP is an end of TLS, with close_notify"


def test_self_signed_prints_the_command_of_a_client(start: Start) -> None:
    with tcp_server() as (server, target):
        relay = start("relay", "--self-signed", "tls://localhost:0", target)
        port = relay.port()
        assert relay.process.stderr is not None
        pem = ""
        while "END CERTIFICATE" not in pem:
            pem += relay.process.stderr.readline().decode()
        assert b"a client needs this CA: wireline connect --ca-file" in relay.process.stderr.readline()
        context = ssl.create_default_context(cadata=pem)
        with connect(port) as raw, context.wrap_socket(raw, server_hostname="localhost") as client:
            with accept(server) as peer:
                client.sendall(b"x")
                assert peer.recv(1) == b"x"


def test_pre_shared_keys_on_both_sides(start: Start, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text("alice:00112233445566778899aabbccddeeff\n")
    theirs.write_text("device:ffeeddccbbaa99887766554433221100\n")
    for each in (ours, theirs):
        each.chmod(0o600)
    context = SslContext(verify_mode=VerifyMode.NONE)
    context.server_get_psk = lambda identity: bytes.fromhex("ffeeddccbbaa99887766554433221100")
    client = SslContext(verify_mode=VerifyMode.NONE)
    client.client_get_psk = lambda hint: ("alice", bytes.fromhex("00112233445566778899aabbccddeeff"))

    def answer(sock: object, address: object) -> None:
        sock.send(sock.get_psk_identity().encode() + sock.recv(1))  # type: ignore[attr-defined]

    with serve(answer, 0, "127.0.0.1", tls=context) as server:
        relay = start(
            "relay",
            *("--listen-psk-file", str(ours), "--psk-file", str(theirs)),
            "tls://127.0.0.1:0",
            f"tls://127.0.0.1:{server.local_addr.port}",
        )
        with dial("127.0.0.1", relay.port(), tls=client, timeout=PATIENCE) as sock:
            sock.send(b"!")
            assert sock.recv(100, PATIENCE) == b"device!"


def test_a_client_certificate_is_asked_for_and_given(start: Start) -> None:
    cert, key = certificates.server()
    context = serving()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.ca_file())
    with tcp_server() as (server, target):
        relay = start(
            "relay",
            *("--cert", cert, "--key", key, "--client-ca", certificates.ca_file()),
            *("--ca-file", certificates.ca_file(), "--client-cert", cert, "--client-key", key),
            "tls://127.0.0.1:0",
            f"tls://{target}",
        )
        port = relay.port()
        mine = trusting(cert, key)
        with connect(port) as raw, mine.wrap_socket(raw, server_hostname="localhost") as client:
            with accept(server) as inner, context.wrap_socket(inner, server_side=True) as peer:
                client.sendall(b"x")
                assert peer.recv(1) == b"x"
        with connect(port) as raw, pytest.raises((ssl.SSLError, ConnectionResetError)):
            with trusting().wrap_socket(raw, server_hostname="localhost") as client:
                client.recv(1)
        relay.send_signal(signal.SIGINT)
        assert "it needs one of a CA in the file of --client-ca" in relay.end().err


def test_advice_names_the_options_of_relay(start: Start) -> None:
    """The server asks for a certificate, and the advice names the option of relay."""
    context = serving()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.ca_file())
    with tcp_server() as (server, target):
        relay = start("relay", "--ca-file", certificates.ca_file(), ANY, f"tls://{target}")
        with connect(relay.port()) as client, accept(server) as raw:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(raw, server_side=True)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert relay.process.stderr is not None
        line = relay.process.stderr.readline().decode()
    assert "give one with --client-cert and --client-key" in line


def test_a_wrong_certificate_is_reported_and_the_client_is_reset(start: Start) -> None:
    with tcp_server() as (server, target):
        relay = start(
            "relay", "--ca-file", certificates.ca_file(), "--sni", "elsewhere", ANY, f"tls://{target}"
        )
        with connect(relay.port()) as client, accept(server) as raw:
            with pytest.raises(ssl.SSLError):
                serving().wrap_socket(raw, server_side=True)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert relay.process.stderr is not None
        assert "is not for this name" in relay.process.stderr.readline().decode()


def test_tls_without_close_notify_is_not_an_end(start: Start) -> None:
    cert, key = certificates.server()
    with tcp_server() as (server, target):
        relay = start("relay", "--cert", cert, "--key", key, "tls://127.0.0.1:0", target)
        with connect(relay.port()) as raw:
            client = trusting().wrap_socket(raw, server_hostname="localhost")
            client.sendall(b"half")
            peer = accept(server)
            assert peer.recv(4) == b"half"
            client.close()  # without `unwrap`: no close_notify
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
            peer.close()
        assert relay.process.stderr is not None
        assert "closed the connection without ending TLS" in relay.process.stderr.readline().decode()


def test_drop_tls_close_of_tls_that_only_goes_through(start: Start) -> None:
    with tcp_server() as (server, target):
        relay = start("relay", "--fault", "drop-tls-close", ANY, target)
        with connect(relay.port()) as raw, accept(server) as inner:

            def answer() -> None:
                with serving().wrap_socket(inner, server_side=True, suppress_ragged_eofs=False) as peer:
                    peer.sendall(b"hello")
                    peer.setblocking(False)
                    try:
                        peer.unwrap()
                    except ssl.SSLWantReadError:
                        peer.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=answer)
            thread.start()
            with trusting().wrap_socket(
                raw, server_hostname="localhost", suppress_ragged_eofs=False
            ) as client:
                assert client.recv(5) == b"hello"
                with pytest.raises(ssl.SSLEOFError):
                    client.recv(1)
            thread.join()


def test_a_missing_file_is_reported_at_once(start: Start) -> None:
    result = start("relay", "--ca-file", "/nowhere/ca.pem", ANY, "tls://127.0.0.1:1").finish()
    assert result.code == 1
    assert result.err.startswith("wireline: cannot use TLS: /nowhere/ca.pem: ")
