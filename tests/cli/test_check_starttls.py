"""``wireline check --starttls`` against scripted servers that ``openssl s_client`` accepts."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.cli.checked import the_report, the_tls
from tests.cli.command import PATIENCE, accept, tcp_server
from tests.cli.conftest import Start
from tests.cli.scripted import DIALOGUES, Lines, answering, scripted
from tests.tls import certificates
from tests.tools import require_tool
from wireline.cli import main

CHECK = ["check", "--first", "--ca-file", certificates.ca_file(), "--starttls"]


@pytest.mark.parametrize("protocol", DIALOGUES)
def test_the_dialogue_leads_to_tls(start: Start, protocol: str) -> None:
    with scripted(DIALOGUES[protocol]) as port:
        code, out, err = start(*CHECK, protocol, "--json", f"localhost:{port}").finish()
    assert (code, err) == (0, "")
    found = the_report(out)
    assert (found["target"], found["starttls"]) == (f"localhost:{port}", protocol)
    tls = the_tls(out)
    assert tls["name_matches"] is tls["chain_trusted"] is tls["resumes"] is True


@pytest.mark.interop
@pytest.mark.parametrize("protocol", DIALOGUES)
def test_openssl_accepts_the_scripted_servers(protocol: str) -> None:
    openssl = require_tool("openssl", "openssl")
    with scripted(DIALOGUES[protocol]) as port:
        words = ["-connect", f"127.0.0.1:{port}", "-starttls", protocol, "-CAfile", certificates.ca_file()]
        ran = subprocess.run(
            [openssl, "s_client", *words, "-verify_return_error", "-brief"],
            input=b"",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr.decode()
    assert b"Verification: OK" in ran.stderr


def test_a_bad_certificate_after_starttls_is_exit_code_5(start: Start) -> None:
    with scripted(DIALOGUES["smtp"], certificates.expired()) as port:
        code, out, err = start(*CHECK, "smtp", f"localhost:{port}").finish()
    assert code == 5
    assert "has expired on" in err
    assert b"TLS after STARTTLS (smtp)\n" in out
    assert b"expired 2 days ago" in out or b"expired 1 day ago" in out


REFUSALS = {
    "smtp without it": ("smtp", answering("220 x\r\n", {"EHLO": "250-x\r\n250 HELP\r\n"})),
    "smtp that greets badly": ("smtp", answering("554 go away\r\n", {})),
    "smtp of the last century": ("smtp", answering("220 x\r\n", {})),
    "smtp that changes its mind": (
        "smtp",
        answering("220 x\r\n", {"EHLO": "250-x\r\n250 starttls\r\n", "STARTTLS": "454 not now\r\n"}),
    ),
    "imap without it": (
        "imap",
        answering("* OK x\r\n", {"CAPABILITY": "* CAPABILITY IMAP4\r\n{tag} OK\r\n"}),
    ),
    "imap that is authenticated": ("imap", answering("* PREAUTH x\r\n", {})),
    "imap that changes its mind": (
        "imap",
        answering(
            "* OK x\r\n",
            {"CAPABILITY": "* CAPABILITY STARTTLS\r\n{tag} OK\r\n", "STARTTLS": "{tag} BAD no\r\n"},
        ),
    ),
    "pop3 without it": ("pop3", answering("+OK\r\n", {"STLS": "-ERR no\r\n"})),
    "ftp without it": ("ftp", answering("120 soon\r\n220 x\r\n", {"AUTH": "534 no\r\n"})),
    "ftp of another kind": ("ftp", answering("* OK x\r\n", {})),
    "postgres without it": ("postgres", lambda sock: sock.sendall(b"N")),
    "postgres of another kind": ("postgres", lambda sock: sock.sendall(b"E")),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_server_that_refuses_starttls_is_exit_code_5(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    protocol, talk = REFUSALS[case]
    with scripted(talk) as port:
        assert main([*CHECK, protocol, "--json", f"localhost:{port}"]) == 5
    out, err = capfd.readouterr()
    assert err.startswith(f"wireline: localhost:{port} ")
    assert ": it sent " in err
    assert the_report(out)["addresses"][0]["tls"] is None


def test_a_server_that_closes_during_the_dialogue_is_exit_code_6(start: Start) -> None:
    def hang_up(sock: socket.socket) -> None:
        sock.sendall(b"220 x\r\n")
        Lines(sock).read()
        raise ConnectionError

    with scripted(hang_up) as port:
        code, _, err = start(*CHECK, "smtp", f"localhost:{port}").finish()
    advice = "check that it speaks smtp on this port"
    assert (code, err) == (6, f"wireline: localhost:{port} closed the connection before TLS; {advice}\n")


def test_a_server_that_sends_no_greeting_is_exit_code_4(start: Start) -> None:
    with tcp_server() as (_, target):
        code, _, err = start(*CHECK, "imap", "--timeout", "1", target).finish()
    assert code == 4
    assert err == f"wireline: {target} timed out: the imap dialogue before TLS did not finish within 1 s\n"


def test_plaintext_after_the_reply_is_refused(start: Start) -> None:
    """CVE-2011-0411 and similar: data injected before the handshake must not count as protected."""
    with tcp_server() as (server, target):
        command = start(*CHECK, "pop3", "--sni", "localhost", target)
        with accept(server) as peer:
            peer.sendall(b"+OK ready\r\n")
            assert Lines(peer).read() == "STLS"
            peer.sendall(b"+OK begin\r\n+OK injected\r\n")
            code, _, err = command.finish()
    assert code == 5
    assert err.startswith(f"wireline: the TLS handshake with {target} failed: ")


@pytest.mark.parametrize("flood", [b"220-" + b"x" * 10_000 + b"\r\n", b"220-x\r\n" * 1000])
def test_a_reply_that_is_too_long_is_refused(start: Start, flood: bytes) -> None:
    with tcp_server() as (server, target):
        command = start(*CHECK, "smtp", target)
        with accept(server) as peer:
            peer.sendall(flood)
            code, _, err = command.finish()
    assert code == 5
    assert "sent a reply of more than 200 lines" in err or "does not speak this protocol" in err


def test_text_of_the_server_has_no_escape_sequences_on_the_terminal(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start(*CHECK, "smtp", target)
        with accept(server) as peer:
            peer.sendall(b"554 \x1b[2J\x07 \xff" + b"x" * 500 + b"\r\n")
            code, _, err = command.finish()
    assert code == 5
    assert err.isascii()
    assert all(character.isprintable() for character in err.rstrip("\n"))
    assert len(err) < 300
