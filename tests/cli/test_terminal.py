"""On a terminal: tables and progress lines at two widths, and Ctrl-C."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import accept, connect, connect_unix, read_all, receive, tcp_server
from tests.cli.terminal import OnTerminal, on_terminal
from tests.cli.test_check_tls import serving
from tests.tls import certificates

WIDTHS = pytest.mark.parametrize("width", [80, 200])
LISTENING = r"listening on 127\.0\.0\.1:(\d+)\r\n"


# The screen.


@WIDTHS
def test_the_table_of_relay_is_drawn_in_its_place(width: int) -> None:
    with (
        tcp_server() as (server, target),
        on_terminal("relay", "--stats", "127.0.0.1:0", target, width=width) as relay,
    ):
        port = int(relay.see(LISTENING)[1])
        with connect(port) as first, accept(server) as behind:
            first.sendall(bytes(3000))
            assert len(receive(behind, 3000)) == 3000
            with connect(port) as second, accept(server) as other:
                other.sendall(bytes(5120))
                assert len(receive(second, 5120)) == 5120
                relay.see(r"2 open of 2 [^\n]*2\.9 KiB[^\n]*5\.0 KiB")
                lines = relay.frame()
                names = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (second, first)]
    assert lines[0] == f"listening on 127.0.0.1:{port}"
    patterns = [
        rf"target {target}",
        r"client +to target +rate +to client +rate +time",
        r"─+",
        rf"{names[0]} +0 B +0 B/s +5\.0 KiB +\S+ \S+/s +0:\d\d",
        rf"{names[1]} +2\.9 KiB +\S+ \S+/s +0 B +0 B/s +0:\d\d",
        r"",
        r"2 open of 2 +2\.9 KiB +\S+ \S+/s +5\.0 KiB +\S+ \S+/s",
    ]
    assert len(lines) == 1 + len(patterns)
    for line, pattern in zip(lines[1:], patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    # The numbers are aligned with the ends of their titles.
    ends = [lines[2].index(head) + len(head) for head in ("to target", "to client")]
    assert [lines[5][: ends[0]].endswith("2.9 KiB"), lines[4][: ends[1]].endswith("5.0 KiB")] == [True, True]


@pytest.fixture
def long_path() -> Iterator[str]:
    """A path that makes its row wider than a narrow terminal."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/".ljust(90, "x")


@WIDTHS
def test_a_long_name_is_cut_and_the_numbers_are_not(width: int, long_path: str) -> None:
    with (
        tcp_server() as (server, target),
        on_terminal("relay", "--stats", f"unix:{long_path}", target, width=width) as relay,
    ):
        relay.see("0 open of 0")
        with connect_unix(long_path) as client, accept(server) as peer:
            client.sendall(bytes(3000))
            receive(peer, 3000)
            relay.see(r"1 open of 1 [^\n]*2\.9 KiB")
            (line,) = [line for line in relay.frame() if "xxxx " in line and "KiB" in line]
    name, *numbers = re.split(r" {2,}", line)
    assert len(line) <= width
    assert (name.startswith("…"), name == f"a client of unix:{long_path}") == (width == 80, width == 200)
    assert (numbers[0], numbers[2]) == ("2.9 KiB", "0 B")
    assert re.fullmatch(r"0:\d\d", numbers[-1])


NOTHING = "closed the connection without sending a byte"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_progress_line_is_one_line(width: int) -> None:
    read, write = os.pipe()
    with tcp_server() as (server, target), on_terminal("connect", target, width=width, stdin=read) as command:
        os.close(read)
        with os.fdopen(write, "wb", 0) as stdin, accept(server) as peer:
            for shown in ("2.9 KiB", "5.9 KiB"):
                stdin.write(bytes(3000))
                receive(peer, 3000)
                command.see(re.escape(f"{shown} sent"))
                (line,) = command.frame()
                whole = rf"{re.escape(shown)} sent, 0 B received, \d[^,]*/s, 0:\d\d"
                # On a narrow terminal it is cut, and stays one line.
                assert re.fullmatch(whole, line) or (width == 40 and len(line) == 40 and line.endswith("…"))
        assert command.end() == 0
        assert re.fullmatch(f"wireline: .*{NOTHING}", "".join(command.screen()[1:]))
        assert command.raw.partition("wireline: ")[0].endswith("\x1b[?25h"), "the cursor is there again"


@WIDTHS
def test_the_progress_line_of_a_file_has_percent(width: int, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(300_000))
    with tcp_server() as (server, target), path.open("rb") as file:
        with on_terminal(
            "connect", "--at-eof", "half-close", target, width=width, stdin=file.fileno()
        ) as command:
            with accept(server) as peer:
                read_all(peer)
            assert command.end() == 0
            line, *rest = command.screen()
    assert re.fullmatch(f"wireline: .*{NOTHING}", "".join(rest))
    assert re.fullmatch(r"293 KiB sent, 0 B received, \d[^,]*/s, 0:\d\d, 100%", line)


@WIDTHS
def test_the_tables_of_check(width: int) -> None:
    words = ["check", "--ca-file", certificates.ca_file()]
    with serving(certificates.chained()) as target, on_terminal(*words, target, width=width) as command:
        assert command.end() == 0
        lines = command.screen()
    assert max(map(len, lines)) <= width
    assert any("\x1b[32m" in line for line in command.raw.splitlines()), "what is good is green"
    assert re.match(r"\x1b\[1;32mOK\x1b\[0m: tls://localhost:\d+: ", command.raw), "the verdict leads"
    assert [line for line in lines if line in ("addresses", "TLS", "certificates")] == [
        "addresses",
        "TLS",
        "certificates",
    ], "the titles are those of the plain text"
    # Each issuer is above the certificate that it signed, which is indented further.
    branches = [line.index("└── ") for line in lines if "└── " in line and "O=" in line]
    assert branches == sorted(set(branches))
    text = "\n".join(lines)
    for words_of_it in ("TLSv1.3", "matches: localhost", " days left", "EC secp256r1", "ECDSA with SHA-256"):
        assert words_of_it in text
    digests = re.findall(r"SHA-256 +([0-9a-f]+)(?:\n[ │]+([0-9a-f]{32})\b)?", text)
    assert len(digests) == 3
    assert {(len(first), len(second)) for first, second in digests} == {(64, 0)} | (
        {(32, 32)} if width == 80 else set()
    )


def test_check_prints_no_tables_with_NO_COLOR() -> None:
    words = ["check", "--ca-file", certificates.ca_file()]
    with serving(certificates.chained()) as target, on_terminal(*words, target, NO_COLOR="1") as command:
        assert command.end() == 0
        assert "\x1b" not in command.raw
        assert "  version       TLSv1.3" in command.screen()
        assert "┏" not in command.raw


def test_relay_draws_its_table_without_colour_with_NO_COLOR() -> None:
    words = ["relay", "--stats", "127.0.0.1:0", "127.0.0.1:9"]
    with on_terminal(*words, NO_COLOR="1") as relay:
        relay.see("0 open of 0")
        assert relay.frame()[2].startswith("client ")
        assert not re.search(r"\x1b\[[0-9;]*[34][0-9]", relay.raw)


# Ctrl-C.


def test_ctrl_c_ends_connect() -> None:
    with tcp_server() as (server, target), on_terminal("connect", target) as command:
        with accept(server) as peer:
            command.type("hello\n")
            assert receive(peer, 6) == b"hello\n"
            peer.sendall(b"world\n")
            command.see("world\r\n")
            command.ctrl_c()
            assert command.end() == 130
        assert command.screen()[:2] == ["hello", "world"]
        assert "Traceback" not in command.raw


def test_ctrl_c_in_the_middle_of_the_input() -> None:
    read, write = os.pipe()
    with tcp_server() as (server, target), on_terminal("connect", target, stdin=read) as command:
        os.close(read)
        with os.fdopen(write, "wb", 0) as stdin, accept(server) as peer:
            stdin.write(b"x")
            assert peer.recv(1) == b"x"
            command.see("1 B sent")
            command.ctrl_c()
            assert command.end() == 130
            with pytest.raises(ConnectionResetError):  # the input is incomplete, so the connection is reset
                peer.recv(1)
        assert "Traceback" not in command.raw


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["listen"], 130),
        (["listen", "--keep"], 0),
        (["listen", "--echo"], 130),
        (["listen", "--echo", "--keep"], 0),
        (["listen", "--chat"], 0),
        (["relay", "127.0.0.1:0"], 0),
        (["relay", "--stats", "127.0.0.1:0"], 0),
    ],
)
def test_ctrl_c_while_there_is_no_peer(words: list[str], code: int) -> None:
    address = "127.0.0.1:9" if words[0] == "relay" else "127.0.0.1:0"
    with on_terminal(*words, address) as command:
        command.see(LISTENING)
        command.ctrl_c()
        assert command.end() == code
    assert "Traceback" not in command.raw


def test_ctrl_c_during_a_check() -> None:
    with tcp_server() as (server, target), on_terminal("check", f"tls://{target}") as command:
        with accept(server) as peer:
            assert peer.recv(1) == b"\x16"  # the first byte of its handshake, which is not answered
            command.ctrl_c()
            assert command.end() == 130
    assert command.screen() in ([], ["^C"])


@pytest.fixture
def relaying() -> Iterator[tuple[OnTerminal, socket.socket, socket.socket]]:
    """A relay on a terminal, a client of it and the server's end of the same connection; Ctrl-C was typed once."""
    with (
        tcp_server() as (server, target),
        on_terminal("relay", "--stats", "127.0.0.1:0", target) as relay,
    ):
        with connect(int(relay.see(LISTENING)[1])) as client, accept(server) as peer:
            relay.see("1 open of 1")
            relay.ctrl_c()
            relay.see("waiting up to 10 s for 1 connection to end; Ctrl-C again resets them\r\n")
            yield relay, client, peer


def test_the_first_ctrl_c_waits_for_the_connections(
    relaying: tuple[OnTerminal, socket.socket, socket.socket],
) -> None:
    relay, client, peer = relaying
    with pytest.raises(ConnectionRefusedError):
        connect(client.getpeername()[1])
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert read_all(peer) == b"question"
    peer.sendall(b"answer")
    peer.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"answer"
    relay.see(r"0 open of 1[^\n]* 8 B[^\n]* 6 B")
    assert relay.end() == 0


def test_the_second_ctrl_c_resets_the_connections(
    relaying: tuple[OnTerminal, socket.socket, socket.socket],
) -> None:
    relay, client, peer = relaying
    relay.ctrl_c()
    for sock in (client, peer):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert relay.end() == 130
    assert "Traceback" not in relay.raw


def test_the_second_ctrl_c_does_not_wait_for_clients() -> None:
    with on_terminal("listen", "--echo", "--keep", "127.0.0.1:0") as command:
        with connect(int(command.see(LISTENING)[1])) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            command.ctrl_c()
            # The terminal shows ^C before the signal has arrived, and two that are pending are one.
            command.see("waiting up to 10 s for 1 connection to end; Ctrl-C again resets them\r\n")
            command.ctrl_c()
            assert command.end() == 130


def test_closing_the_terminal_ends_the_command() -> None:
    with tcp_server() as (server, target):
        command = OnTerminal("connect", target)
        with accept(server) as peer:
            command.type("x\n")
            assert receive(peer, 2) == b"x\n"
            command.terminal.close()
            assert command.process.wait(20) == 129, "as of any program in a shell, and nothing hangs"
        command.close()
