"""``wireline check --starttls`` against scripted servers that ``openssl s_client`` accepts."""

from __future__ import annotations

import re
import socket
import subprocess

import pytest

from tests.cases import few_in_sample, in_turn
from tests.cli.checked import the_report, the_tls
from tests.cli.command import PATIENCE, accept, read_all, tcp_server
from tests.cli.conftest import Start
from tests.cli.scripted import (
    DIALOGUES,
    FEATURES,
    STREAM,
    Lines,
    answering,
    ldap,
    mysql_greeting,
    scripted,
    xmpp,
)
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
@pytest.mark.parametrize("protocol", few_in_sample(DIALOGUES, "smtp", "mysql"))
def test_openssl_accepts_the_scripted_servers(protocol: str) -> None:
    openssl = require_tool("openssl", "openssl")
    with scripted(DIALOGUES[protocol]) as port:
        words = ["-connect", f"127.0.0.1:{port}", "-starttls", protocol, "-CAfile", certificates.ca_file()]
        words += ["-xmpphost", "localhost"] if protocol == "xmpp" else []
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
    "lmtp that knows only EHLO": ("lmtp", answering("220 x\r\n", {"EHLO": "250 STARTTLS\r\n"})),
    "nntp without it": ("nntp", answering("201 x\r\n", {"STARTTLS": "580 no\r\n"})),
    "nntp of another kind": ("nntp", answering("+OK\r\n", {})),
    "sieve without it": ("sieve", answering('"SASL" "PLAIN"\r\nOK\r\n', {})),
    "sieve that has only the word": ("sieve", answering('"NOTIFY" "STARTTLS"\r\nOK\r\n', {})),
    "sieve that says goodbye": ("sieve", answering('BYE "later"\r\n', {})),
    "sieve that changes its mind": (
        "sieve",
        answering('"starttls"\r\nOK (X) "y"\r\n', {"STARTTLS": "NO {6}\r\nOK, no\r\n"}),
    ),
    "irc without it": ("irc", answering(":x NOTICE * :hello\r\n", {"STARTTLS": ":x 691 * :no\r\n"})),
    "irc that does not know it": ("irc", answering("", {"STARTTLS": ":x 421 * STARTTLS :what\r\n"})),
    "irc of a banned host": ("irc", answering("ERROR :banned\r\n", {})),
    "irc of another kind": ("irc", answering("HTTP/1.1 400 Bad\r\n", {})),
    "xmpp without it": ("xmpp", xmpp(STREAM + "<stream:features/>", "")),
    "xmpp with other features": (
        "xmpp",
        xmpp(STREAM + FEATURES.replace("<starttls", "<x").replace("starttls>", "x>"), ""),
    ),
    "xmpp that changes its mind": (
        "xmpp",
        xmpp(STREAM + FEATURES, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>"),
    ),
    "xmpp of another host": (
        "xmpp",
        xmpp(
            STREAM
            + "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            "",
        ),
    ),
    "xmpp of another kind": ("xmpp", xmpp("<html><body>", "")),
    "ldap without it": ("ldap", ldap(bytes.fromhex("30 0f 02 01 01 78 0a 0a 01 02 04 00 04 03 6e 6f 21"))),
    "ldap that ends": ("ldap", ldap(bytes.fromhex("30 0c 02 01 00 78 07 0a 01 00 04 00 04 00"))),
    "ldap with a bind response": ("ldap", ldap(bytes.fromhex("30 0c 02 01 01 61 07 0a 01 00 04 00 04 00"))),
    "ldap of another kind": ("ldap", ldap(b"HTTP/1.1 400 Bad\r\n")),
    "ldap with an indefinite length": ("ldap", ldap(bytes.fromhex("30 80 02 01 01 00 00"))),
    # Its decimal digits are more than `int` converts.
    "ldap with a result of 4000 bytes": (
        "ldap",
        ldap(bytes.fromhex("30 82 0f ab 02 01 01 78 82 0f a4 0a 82 0f a0") + b"\xff" * 4000),
    ),
    "ldap cut off inside": ("ldap", ldap(bytes.fromhex("30 08 02 01 01 78 7f 0a 01 00"))),
    "ldap with a length of its own length": ("ldap", ldap(bytes.fromhex("30 05 02 84 ff ff ff"))),
    "mysql without it": ("mysql", lambda sock: sock.sendall(mysql_greeting(0x801FF7DF))),
    "mysql that is full": (
        "mysql",
        lambda sock: sock.sendall(b"\x17\0\0\0\xff\x10\x04Too many \x1bconnections"),
    ),
    "mysql of another kind": ("mysql", lambda sock: sock.sendall(b"\x05\0\0\0hello")),
    "mysql cut off inside": ("mysql", lambda sock: sock.sendall(b"\x05\0\0\0\x0a8.0\0")),
}


@in_turn("case", REFUSALS)
def test_a_server_that_refuses_starttls_is_exit_code_5(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    protocol, talk = REFUSALS[case]
    with scripted(talk) as port:
        assert main([*CHECK, protocol, "--json", f"localhost:{port}"]) == 5
    out, err = capfd.readouterr()
    assert err.startswith(f"wireline: localhost:{port} ")
    silent = ("ldap that ends", "xmpp without it", "xmpp with other features")
    assert case in silent or re.search(": it sent ['\"]", err)
    assert "; " in err, "what to do"
    assert err.rstrip("\n").isprintable()
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
    words = (
        "sent more without TLS after it had agreed to TLS, which anyone on the network path may have inserted"
    )
    assert err == f"wireline: {target} {words}: it sent '+OK injected\\r\\n'\n"


LONG = {
    "sieve": (b'"X" {99999999}\r\n', "announces 99999999 bytes at once"),
    "ldap": (b"\x30\x84\x7f\xff\xff\xff", "announces 2147483647 bytes at once"),
    "mysql": (b"\xff\xff\xff\0", "announces 16777215 bytes at once"),
    "xmpp": (b"<stream:stream x='" + b">" * 20_000, "sent a line of more than 8192 bytes"),
    "irc": (b":x NOTICE * :hello\r\n" * 600, "does not come to TLS within 500 lines or messages"),
    "imap": (b"* OK " + b"x" * 20_000, "sent a line of more than 8192 bytes"),
    "ftp": (b"120 soon\r\n" * 600, "does not come to TLS within 500 lines or messages"),
}


@in_turn("protocol", LONG)
def test_a_server_that_sends_too_much_is_refused(protocol: str, capfd: pytest.CaptureFixture[str]) -> None:
    sent, words = LONG[protocol]
    with scripted(lambda sock: (sock.sendall(sent), read_all(sock))[0]) as port:  # type: ignore[func-returns-value]
        assert main([*CHECK, protocol, f"localhost:{port}"]) == 5
    err = capfd.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@in_turn("protocol", DIALOGUES)
def test_a_server_that_ends_at_any_moment_is_exit_code_6_or_5(
    protocol: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The end arrives in place of each answer in turn, the first included."""

    class Ending:
        def __init__(self, sock: socket.socket, left: int) -> None:
            self.sock, self.left = sock, left
            self.recv = sock.recv

        def sendall(self, data: bytes) -> None:
            if not self.left:
                raise ConnectionError
            self.left -= 1
            self.sock.sendall(data)

    for left in range(2):
        talk = DIALOGUES[protocol]
        with scripted(lambda sock, n=left, talk=talk: talk(Ending(sock, n))) as port:  # type: ignore[misc, arg-type]
            code = main([*CHECK, protocol, f"localhost:{port}"])
        err = capfd.readouterr().err
        if code == 0:  # the dialogue has one answer
            assert left == 1
            continue
        assert code == 6
        words = f"closed the connection before TLS; check that it speaks {protocol} on this port"
        assert err == f"wireline: localhost:{port} {words}\n"


def test_ldap_with_the_long_form_of_lengths(capfd: pytest.CaptureFixture[str]) -> None:
    """Active Directory writes all lengths in four bytes."""
    answer = "30 84 00 00 00 10 02 01 01 78 84 00 00 00 07 0a 01 00 04 00 04 00"
    with scripted(ldap(bytes.fromhex(answer))) as port:
        assert main([*CHECK, "ldap", f"localhost:{port}"]) == 0


@in_turn(
    "number, meaning",
    [
        (1, "operationsError, TLS is on already or another operation is not finished"),
        (10, "referral to another server"),
        (52, "unavailable, it cannot use TLS now"),
        (80, "80"),
    ],
)
def test_the_result_of_ldap_is_in_words(number: int, meaning: str, capfd: pytest.CaptureFixture[str]) -> None:
    answer = (
        bytes.fromhex("30 0f 02 01 01 78 0a 0a 01") + bytes([number]) + bytes.fromhex("04 00 04 03 6e 6f 21")
    )
    with scripted(ldap(answer)) as port:
        assert main([*CHECK, "ldap", f"localhost:{port}"]) == 5
    assert f"refuses StartTLS (result {meaning}): it sent 'no!'" in capfd.readouterr().err


def test_a_stream_of_xmpp_that_begins_with_a_message(capfd: pytest.CaptureFixture[str]) -> None:
    with scripted(xmpp(STREAM + "<message>", "")) as port:
        assert main([*CHECK, "xmpp", f"localhost:{port}"]) == 5
    assert "does not answer as an XMPP server" in capfd.readouterr().err


def test_sieve_with_a_literal_that_ends_like_the_size_of_another_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    greeting = '"IMPLEMENTATION" {3}\r\n{9}\r\n"STARTTLS"\r\nOK\r\n'
    with scripted(answering(greeting, {"STARTTLS": "OK\r\n"}, "STARTTLS")) as port:
        assert main([*CHECK, "sieve", f"localhost:{port}"]) == 0


def test_irc_with_notices_first(capfd: pytest.CaptureFixture[str]) -> None:
    talk = answering(
        "NOTICE AUTH :***\r\n:x NOTICE * :y\r\n", {"STARTTLS": ":x 670 * :go on\r\n"}, "STARTTLS"
    )
    with scripted(talk) as port:
        assert main([*CHECK, "irc", f"localhost:{port}"]) == 0


def test_xmpp_sends_the_name_that_is_checked(capfd: pytest.CaptureFixture[str]) -> None:
    def talk(sock: socket.socket) -> None:
        header.append(sock.recv(1000).decode())
        sock.sendall(STREAM.encode())
        raise ConnectionError

    for name, sent in (
        ("chat.example.com", "chat.example.com"),
        ("Chat.example.com.", "chat.example.com"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("fe80::1%a'b&<", "[fe80::1]"),
        ("b\u00fccher.example", "b\u00fccher.example"),
    ):
        header: list[str] = []
        with scripted(talk) as port:
            assert main([*CHECK, "xmpp", "--sni", name, f"localhost:{port}"]) == 6
        assert f"<stream:stream to='{sent}' " in header[0]


@in_turn("protocol", ["ldap", "mysql", "xmpp"])
def test_binary_data_after_the_answer_is_refused(protocol: str, capfd: pytest.CaptureFixture[str]) -> None:
    def talk(sock: socket.socket) -> None:
        if protocol == "mysql":
            sock.sendall(mysql_greeting(0xFFFF) + b"\x01\0\0\x01\0")
            read_all(sock)
        elif protocol == "ldap":
            ldap(bytes.fromhex("30 0c 02 01 01 78 07 0a 01 00 04 00 04 00") + b"more")(sock)
        else:
            xmpp(STREAM + FEATURES, "<proceed/><stream:features>")(sock)

    with scripted(talk) as port:
        assert main([*CHECK, protocol, f"localhost:{port}"]) == 5
    assert "sent more without TLS after it had agreed to TLS, which anyone" in capfd.readouterr().err


@pytest.mark.parametrize("flood", [b"220-" + b"x" * 10_000 + b"\r\n", b"220-x\r\n" * 1000])
def test_a_reply_that_is_too_long_is_refused(start: Start, flood: bytes) -> None:
    with tcp_server() as (server, target):
        command = start(*CHECK, "smtp", target)
        with accept(server) as peer:
            peer.sendall(flood)
            code, _, err = command.finish()
    assert code == 5
    words = "does not come to TLS within 500 lines or messages"
    assert (
        words in err or "sent a line of more than 8192 bytes; check that it speaks smtp on this port" in err
    )


def test_text_of_the_server_has_no_escape_sequences_on_the_terminal(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start(*CHECK, "smtp", target)
        with accept(server) as peer:
            peer.sendall(b"554 \x1b[2J\x07 \xff" + b"x" * 500 + b"\r\n")
            code, _, err = command.finish()
    assert code == 5
    assert err.isascii()
    assert all(character.isprintable() for character in err.rstrip("\n"))
    assert len(err) < 350
