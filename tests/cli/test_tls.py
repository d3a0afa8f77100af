"""TLS of the command as a process: both sides, every way to authenticate, and the same data as without TLS."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases import few_in_sample
from tests.cli.command import PATIENCE, Command, accept, connect, read_all, receive, reset, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_chat import chat_members
from tests.tls import certificates
from wireline.tls import SslContext

NO_CLOSE_NOTIFY = "closed the connection without ending TLS (no close_notify)"


def server_words(leaf: certificates.Leaf | None = None) -> list[str]:
    """The arguments of a server with a certificate."""
    cert, key = leaf or certificates.server()
    return ["listen", "--cert", cert, "--key", key]


def client_words() -> list[str]:
    """The arguments of a client that trusts it."""
    return ["connect", "--at-eof", "half-close", "--ca-file", certificates.ca_file()]


def plain_context() -> ssl.SSLContext:
    """A client of the standard library."""
    return ssl.create_default_context(cafile=certificates.ca_file())


def secured(port: int, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """A connection of the standard library, for which an end without close_notify is an error."""
    return (context or plain_context()).wrap_socket(
        connect(port), server_hostname="localhost", suppress_ragged_eofs=False
    )


@pytest.fixture
def listening() -> Iterator[tuple[socket.socket, str]]:
    """A plain listener for a TLS server, and its address as a target."""
    with tcp_server() as (server, target):
        yield server, f"tls://{target}"


def welcome(server: socket.socket, leaf: certificates.Leaf | None = None) -> ssl.SSLSocket:
    """Accept a connection and make the handshake with the standard library."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*(leaf or certificates.server()))
    return context.wrap_socket(accept(server), server_side=True)


def end_input(command: Command) -> None:
    """End the command's standard input."""
    assert command.process.stdin is not None
    command.process.stdin.close()
    command.process.stdin = None


# The same as without TLS.


def test_both_sides_are_the_command_and_bytes_arrive_as_they_were(start: Start) -> None:
    listener = start(*server_words(), "tls://127.0.0.1:0")
    target = listener.listening_on()
    assert target.startswith("tls://127.0.0.1:")
    connector = start(*client_words(), target)
    there, back = os.urandom(300_000), os.urandom(200_000)
    connector.type(there[:1000])
    assert listener.read(1000) == there[:1000]
    listener.type(back[:1000])
    assert connector.read(1000) == back[:1000]
    connector.type(there[1000:])
    assert listener.read(len(there) - 1000) == there[1000:]
    listener.type(back[1000:])
    assert connector.read(len(back) - 1000) == back[1000:]
    assert connector.finish(b"") == (0, b"", "")
    assert listener.finish(b"") == (0, b"", "")


def test_after_the_half_close_the_reply_is_received(
    start: Start, listening: tuple[socket.socket, str]
) -> None:
    server, target = listening
    command = start(*client_words(), target)
    with welcome(server) as peer:
        command.type(b"question")
        end_input(command)
        assert receive(peer, 100) == b"question"  # and then close_notify
        peer.sendall(b"answer")
        peer.unwrap().close()
    assert command.finish() == (0, b"answer", "")


@pytest.mark.parametrize("words", [("--echo",), ("--echo", "--keep"), ("--discard",)])
def test_echo_and_discard(start: Start, words: tuple[str, ...]) -> None:
    command = start(*server_words(), *words, "tls://127.0.0.1:0")
    target = command.listening_on()
    data = os.urandom(500_000)
    result = start(*client_words(), target).finish(data)
    reply = "" if "--echo" in words else f"wireline: {target} closed the connection without sending a byte\n"
    assert result == (0, data if "--echo" in words else b"", reply)
    if "--keep" in words:
        assert start(*client_words(), target).finish(b"again").out == b"again"
        command.send_signal(signal.SIGINT)
    assert command.end() == (0, b"", "")


def test_chat_mixes_clients(start: Start) -> None:
    command = start(*server_words(), "--chat", "tls://127.0.0.1:0")
    port = command.port()
    with chat_members(lambda: secured(port), 3) as (ann, bob, cyd):
        ann.sendall(b"hello\n")
        for other in (bob, cyd):
            assert receive(other, 6) == b"hello\n"
    command.send_signal(signal.SIGTERM)
    assert command.end().code == 0


def test_keep_accepts_the_next_client_after_a_failed_handshake_and_keeps_the_input(start: Start) -> None:
    command = start(*server_words(), "--keep", "tls://127.0.0.1:0")
    port = command.port()
    with connect(port) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        read_all(plain)
    with secured(port) as peer:
        command.type(b"input")
        assert receive(peer, 5) == b"input"
        peer.sendall(b"output")
        assert command.read(6) == b"output"
    command.send_signal(signal.SIGINT)
    result = command.end()
    assert result.code == 0
    assert re.match(
        r"wireline: 127\.0\.0\.1:\d+ sent plain HTTP, .* use https:// in the client\n", result.err
    )


def test_crlf(start: Start, listening: tuple[socket.socket, str]) -> None:
    server, target = listening
    command = start(*client_words(), "--crlf", target)
    with welcome(server) as peer:
        command.type(b"one\n")
        end_input(command)
        assert receive(peer, 100) == b"one\r\n"
        peer.unwrap().close()
    assert command.finish().code == 0


def test_a_unix_socket(start: Start, tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/socket"
    listener = start(*server_words(), "--tls", "--echo", path)
    assert listener.listening_on() == path
    result = start(*client_words(), "--tls", "--sni", "localhost", path).finish(b"through a file")
    assert result == (0, b"through a file", "")
    assert listener.end().code == 0


def test_tls_as_an_option_is_tls_as_a_scheme(start: Start) -> None:
    listener = start(*server_words(), "--tls", "--echo", "127.0.0.1:0")
    target = listener.listening_on()
    assert target.startswith("tls://")
    result = start(*client_words(), "--tls", target.removeprefix("tls://")).finish(b"x")
    assert result == (0, b"x", "")


# Names and certificates.


def test_the_name_to_check_may_be_another_than_the_host(start: Start) -> None:
    listener = start(*server_words(certificates.elsewhere()), "--echo", "tls://127.0.0.1:0")
    result = start(*client_words(), "--sni", "elsewhere.test", listener.listening_on()).finish(b"x")
    assert result == (0, b"x", "")


def test_no_verify_accepts_any_server_and_warns(start: Start) -> None:
    listener = start(*server_words(certificates.stranger()), "--echo", "tls://127.0.0.1:0")
    result = start("connect", "--at-eof", "half-close", "--no-verify", listener.listening_on()).finish(b"x")
    assert (result.code, result.out) == (0, b"x")
    assert re.fullmatch(
        r"wireline: warning: with --no-verify, anyone .* read and change all data\n", result.err
    )


def test_mutual_tls(start: Start) -> None:
    words = [*server_words(), "--client-ca", certificates.ca_file(), "--echo", "--keep", "tls://127.0.0.1:0"]
    listener = start(*words)
    target = listener.listening_on()
    known, unknown = certificates.client(), certificates.stranger()

    def as_client(leaf: certificates.Leaf) -> list[str]:
        return ["--cert", leaf.cert, "--key", leaf.key]

    assert start(*client_words(), *as_client(known), target).finish(b"it is me") == (0, b"it is me", "")
    refused = start(*client_words(), target).finish(b"no certificate")
    assert (refused.code, refused.out) == (5, b"")
    assert "refused the handshake: it requires a client certificate: give one with --cert" in refused.err
    refused = start(*client_words(), *as_client(unknown), target).finish(b"it is a stranger")
    assert (refused.code, refused.out) == (5, b"")
    assert "refused the handshake: it does not trust the CA of our certificate" in refused.err
    listener.send_signal(signal.SIGTERM)
    anonymous, untrusted = listener.end().err.splitlines()
    assert "sent no certificate: it needs one of a CA in the file of --client-ca" in anonymous
    assert "another CA" in untrusted  # the name of the CA in the certificate that was refused
    assert "not trusted here" in untrusted
    assert "--client-ca FILE names a CA to trust" in untrusted


def test_alpn(start: Start, listening: tuple[socket.socket, str]) -> None:
    server, target = listening
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server())
    context.set_alpn_protocols(["second"])
    command = start(*client_words(), "--alpn", "first,second", target)
    with context.wrap_socket(accept(server), server_side=True) as peer:
        assert peer.selected_alpn_protocol() == "second"
        end_input(command)
        peer.unwrap().close()
    assert command.finish().code == 0
    command = start(*client_words(), "--alpn", "third", target)
    with context.wrap_socket(accept(server), server_side=True):
        result = command.finish(b"")
    assert result.code == 5
    assert result.err == f"wireline: {target} supports none of the protocols of --alpn\n"


# Self-signed certificates.


def read_announcement(command: Command) -> tuple[str, str]:
    """The certificate of the CA, and the command of a client."""
    assert command.process.stderr is not None
    pem = ""
    for line in iter(lambda: command.process.stderr.readline().decode(), ""):  # type: ignore[union-attr]
        if line.startswith("a client needs this CA: "):
            return pem, line.removeprefix("a client needs this CA: ").rstrip()
        pem += line
    raise AssertionError(pem)


ADDRESSES = ["tls://127.0.0.1:0", "tls://[::1]:0", "tls://:0", "unix"]


@pytest.mark.parametrize("address", few_in_sample(ADDRESSES, "tls://:0", "unix"))
def test_self_signed_prints_the_command_of_a_client(start: Start, address: str, tmp_path: Path) -> None:
    words = ["--tls", f"unix:{tmp_path}/socket"] if address == "unix" else [address]
    command = start("listen", "--self-signed", "--echo", "--keep", *words)
    command.listening_on()
    pem, line = read_announcement(command)
    name, *client = shlex.split(line)
    assert name == "wireline"
    assert start(*client).finish(b"trusted") == (0, b"trusted", "")
    ca_file = Path(client[client.index("--ca-file") + 1])
    assert ca_file.read_text() == pem
    # The file of the key was removed.
    assert os.listdir(ca_file.parent) == ["ca.pem"]
    command.send_signal(signal.SIGTERM)
    assert command.end() == (0, b"", "")
    assert not ca_file.parent.exists()


def test_a_strict_client_accepts_the_self_signed_certificate(start: Start) -> None:
    command = start("listen", "--self-signed", "--echo", "tls://127.0.0.1:0")
    port = command.port()
    context = ssl.create_default_context(cadata=read_announcement(command)[0])
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with secured(port, context) as peer:
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        peer.unwrap().close()
    assert command.end().code == 0


# Pre-shared keys.

needs_psk = pytest.mark.skipif(
    not all(each.available for each in SslContext.available_features() if "pre-shared" in each.name),
    reason="this interpreter has no pre-shared keys",
)

KEYS = "# clients\n\nalice:" + "0b" * 32 + "\nbob:with:colons:" + "0c" * 16 + "\n"


def psk_file(tmp_path: Path, text: str, name: str = "keys.txt") -> str:
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


@needs_psk
def test_a_pre_shared_key_needs_no_certificate(start: Start, tmp_path: Path) -> None:
    keys = psk_file(tmp_path, KEYS)
    command = start("listen", "--psk-file", keys, "--echo", "--keep", "tls://127.0.0.1:0")
    target = command.listening_on()
    mine = psk_file(tmp_path, "bob:with:colons:" + "0c" * 16, "mine.txt")
    assert start("connect", "--at-eof", "half-close", "--psk-file", mine, target).finish(b"hello") == (
        0,
        b"hello",
        "",
    )
    for wrong in ("alice:" + "0c" * 32, "unknown:" + "0b" * 32):
        refused = start(
            "connect", "--at-eof", "half-close", "--psk-file", psk_file(tmp_path, wrong, "wrong.txt"), target
        ).finish(b"hello")
        assert (refused.code, refused.out) == (5, b"")
        assert "it has another identity or another key" in refused.err
    without = start(*client_words(), target).finish(b"hello")
    assert (without.code, without.out) == (5, b"")
    assert "or a pre-shared key (--psk-file)" in without.err
    command.send_signal(signal.SIGTERM)
    told = command.end().err.splitlines()
    assert len(told) == 3
    assert all(
        "does not have the pre-shared key of any identity in the file of --psk-file" in line for line in told
    )


@needs_psk
def test_a_server_that_does_not_know_the_key_is_refused(start: Start, tmp_path: Path) -> None:
    command = start(*server_words(), "--echo", "tls://127.0.0.1:0")
    mine = psk_file(tmp_path, "alice:0b0b")
    result = start("connect", "--at-eof", "half-close", "--psk-file", mine, command.listening_on()).finish(
        b"secret"
    )
    assert (result.code, result.out) == (5, b"")
    assert "does not use the pre-shared key" in result.err
    assert command.end().code == 5


def test_an_interpreter_without_pre_shared_keys_is_reported(start: Start, tmp_path: Path) -> None:
    words = ["connect", "--psk-file", psk_file(tmp_path, "alice:0b"), "tls://127.0.0.1:1"]
    result = start(*words, env={"WIRELINE_NO_BRIDGE": "1"}).finish(b"")
    if sys.version_info >= (3, 13):  # this interpreter has them
        assert result.code == 3
    else:
        assert result.code == 1
        assert result.err.startswith("wireline: cannot use TLS: PSK needs Python 3.13, or access to libssl: ")


# Connections that end without close_notify.


def test_a_truncated_reply_is_written_and_exit_code_6(
    start: Start, listening: tuple[socket.socket, str]
) -> None:
    server, target = listening
    command = start(*client_words(), target)
    with welcome(server) as peer:
        peer.sendall(b"half of it")
        peer.close()  # without close_notify
    result = command.finish(b"")
    assert (result.code, result.out) == (6, b"half of it")
    assert result.err == f"wireline: {target} {NO_CLOSE_NOTIFY}; the data may be incomplete\n"


def test_a_reset_is_6(start: Start, listening: tuple[socket.socket, str]) -> None:
    server, target = listening
    command = start(*client_words(), target)
    peer = welcome(server)
    peer.sendall(b"half")
    assert command.read(4) == b"half"
    reset(peer)
    assert command.finish(b"").code == 6


def test_a_client_that_goes_away_is_6_and_with_keep_a_line(start: Start) -> None:
    command = start(*server_words(), "--discard", "tls://127.0.0.1:0")
    secured(command.port()).close()
    result = command.end()
    assert result.code == 6
    assert NO_CLOSE_NOTIFY in result.err


def test_input_that_cannot_be_read_to_its_end_sends_no_close_notify(start: Start) -> None:
    command = start(*server_words(), "tls://127.0.0.1:0", stdout=subprocess.DEVNULL)
    with secured(command.port()) as peer:
        peer.sendall(b"x")
        command.type(b"half of the input")
        assert receive(peer, 17) == b"half of the input"
        command.send_signal(signal.SIGTERM)
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            peer.recv(1)
    assert command.end().code == 143


@pytest.mark.parametrize("keep", [False, True])
def test_a_client_that_sends_no_handshake_times_out(start: Start, keep: bool) -> None:
    words = ["--keep"] if keep else []
    command = start(*server_words(), "--echo", *words, "--timeout", "2", "tls://127.0.0.1:0")
    with connect(command.port()) as idle:
        idle.settimeout(PATIENCE)
        assert idle.recv(100) == b""
    if keep:
        command.send_signal(signal.SIGINT)
    result = command.end()
    assert result.code == (0 if keep else 4)
    assert result.err.endswith("timed out: no TLS handshake within 2 s\n")


def test_a_server_that_sends_no_handshake_is_4(start: Start, listening: tuple[socket.socket, str]) -> None:
    _, target = listening
    result = start(*client_words(), "--timeout", "0.3", target).finish(b"")
    assert result.code == 4
    assert result.err == (
        f"wireline: {target} accepted the connection and sent no TLS handshake within 0.3 s: "
        "it may not use TLS on this port; check the port, or wait longer with --timeout\n"
    )
