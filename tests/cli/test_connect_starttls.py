"""``wireline connect --starttls``: the conversation goes on over TLS."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import sys

import pytest

from tests.cases import few_in_sample, in_turn
from tests.cli.command import PATIENCE, accept, reset, tcp_server, unresponsive_listener
from tests.cli.conftest import Start
from tests.cli.scripted import DIALOGUES, SMTP, Lines, answering, scripted
from tests.tls import certificates
from wireline.cli import main
from wireline.cli.starttls._names import PROTOCOLS
from wireline.cli.starttls._starttls import DIALOGUES as IMPLEMENTED

CONNECT = ["connect", "--at-eof", "half-close", "--ca-file", certificates.ca_file(), "--starttls"]


def test_the_parser_has_the_protocols_that_are_implemented() -> None:
    assert tuple(IMPLEMENTED) == PROTOCOLS
    assert sorted(DIALOGUES) == sorted(PROTOCOLS)


@pytest.mark.parametrize("protocol", few_in_sample(DIALOGUES, "smtp", "mysql"))
def test_the_conversation_goes_on_over_tls(start: Start, protocol: str) -> None:
    with scripted(DIALOGUES[protocol], reply=b"250 over TLS\r\n") as port:
        result = start(*CONNECT, protocol, f"localhost:{port}").finish(b"EHLO me\r\n")
    assert result == (0, b"250 over TLS\r\n", "")


def test_verbose_says_what_tls_agreed_on(start: Start) -> None:
    with scripted(SMTP, reply=b"x") as port:
        result = start(*CONNECT, "smtp", "-v", f"localhost:{port}").finish(b"")
    assert result.code == 0
    assert "TLSv1.3, " in result.err


def test_the_certificate_is_verified(start: Start) -> None:
    with scripted(SMTP, certificates.elsewhere()) as port:
        result = start(*CONNECT, "smtp", f"localhost:{port}").finish(b"secret")
    assert result.code == 5
    assert "is not for this name (it was checked for 'localhost')" in result.err


REFUSED = answering("220 x\r\n", {"EHLO": "250-x\r\n250 HELP\r\n"})


def test_a_refusal_sends_no_input_in_clear(start: Start) -> None:
    heard: list[str] = []

    def talk(sock: socket.socket) -> None:
        sock.sendall(b"220 x\r\n")
        lines = Lines(sock)
        heard.append(lines.read())
        sock.sendall(b"250 x\r\n")
        heard.append(sock.recv(1000).decode())

    with scripted(talk) as port:
        result = start(*CONNECT, "smtp", f"localhost:{port}").finish(b"secret\r\n")
    advice = "switch TLS on there, or try a port that begins with it (tls://host:port)"
    assert result == (
        5,
        b"",
        f"wireline: localhost:{port} does not offer STARTTLS: it sent '250 x'; {advice}\n",
    )
    assert heard == ["EHLO [127.0.0.1]", ""]


def test_a_silent_server_is_exit_code_4(start: Start) -> None:
    with tcp_server() as (_, target):
        result = start(*CONNECT, "imap", "--timeout", "0.5", "--sni", "localhost", target).finish(b"")
    assert result.code == 4
    words = "timed out: the imap dialogue before TLS did not finish within 0.5 s"
    assert result.err == f"wireline: {target} {words}\n"


def test_a_server_that_sends_a_line_now_and_then_gets_no_more_time(start: Start) -> None:
    """The limit is for the whole dialogue, not for each read."""
    with tcp_server() as (server, target):
        command = start(*CONNECT, "smtp", "--timeout", "0.5", "--sni", "localhost", target)
        with accept(server) as peer, contextlib.suppress(ConnectionError):
            while not select.select([peer], [], [], 0.05)[0]:  # until the command has closed
                peer.sendall(b"220-x\r\n")
        result = command.finish(b"")
    assert (result.code, result.err.count("did not finish within 0.5 s")) == (4, 1)


def test_no_server_is_the_error_of_connecting(start: Start) -> None:
    with unresponsive_listener() as (_, target):
        result = start(*CONNECT, "imap", "--timeout", "0.5", target).finish(b"")
    assert (result.code, result.err.count("no answer from")) == (4, 1)


def test_the_time_limit_includes_the_handshake(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start(*CONNECT, "pop3", "--timeout", "1", "--sni", "localhost", target)
        with accept(server) as peer:
            peer.sendall(b"+OK\r\n")
            assert Lines(peer).read() == "STLS"
            peer.sendall(b"+OK\r\n")
            result = command.finish(b"")
    assert result.code == 4
    assert "sent no TLS handshake within 1 s" in result.err


def test_a_reset_during_the_dialogue_is_exit_code_6(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start(*CONNECT, "smtp", "--sni", "localhost", target)
        peer = accept(server)
        peer.sendall(b"220 x\r\n")
        Lines(peer).read()
        reset(peer)
        result = command.finish(b"")
    words = "closed the connection before TLS; check that it speaks smtp on this port"
    assert (result.code, result.err) == (6, f"wireline: {target} {words}\n")


def test_ctrl_c_during_the_dialogue(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start(*CONNECT, "smtp", target)
        with accept(server) as peer:
            command.send_signal(signal.SIGINT)
            assert command.end() == (130, b"", "")
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""


@in_turn(
    "words, error",
    [
        (["--starttls", "smtp", "tls://h:1"], "tls:// starts TLS with the first byte"),
        (["--starttls", "smtp", "udp://h:1"], "TLS needs a stream"),
        (["--starttls", "gopher", "h:1"], "--starttls: invalid choice: 'gopher'"),
        (["--starttls", "smtp", "unix:/x"], "the certificate is checked for a name"),
    ],
)
def test_wrong_usage(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", *words]) == 2
    assert error in capsys.readouterr().err


def test_connect_without_starttls_does_not_load_the_dialogues() -> None:
    program = "import sys; from wireline.cli import main; main(['connect', '--show-code', 'tls://h:1']); "
    program += "print([name for name in sys.modules if 'starttls._text' in name], file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=PATIENCE, check=True)
    assert ran.stderr.strip() == b"[]"
