"""``wireline relay --dump``: all data is shown, and none of it changes."""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import signal
import socket
import threading
from collections import defaultdict
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from tests.cli.command import PATIENCE, Command, accept, connect, read_all, receive, reset, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_relay import send_and_end, through
from tests.cli.test_relay_tls import serving, trusting
from tests.tls import certificates
from wireline.cli import _dump, main
from wireline.net import Socket

ANY = "127.0.0.1:0"
TIME = r"\d\d:\d\d:\d\d\.\d{6}"

Pieces = dict[tuple[str, str], bytearray]


def parsed(text: str) -> Pieces:
    """The bytes of a hexadecimal dump, for each connection and direction; every other line has a known form."""
    found: Pieces = defaultdict(bytearray)
    for line in text.splitlines():
        row = re.fullmatch(r"#(\d+) ([<>]) ([0-9a-f]{6,})  ([0-9a-f ]{47})  (.{1,16})", line)
        if row:
            key, data = (row[1], row[2]), bytes.fromhex(row[4])
            assert int(row[3], 16) == len(found[key])
            assert row[5] == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
            found[key] += data
        else:
            events = r"[<>] \d+ bytes|end [<>] after \d+ bytes|\S+ > \S+|closed|reset"
            assert re.fullmatch(rf"(?:{TIME} #\d+ (?:{events})|listening on \S+)", line), line
    return found


@in_turn(
    "data, text",
    [
        (b"GET / HTTP/1.1\r\n", r"GET / HTTP/1.1\r\n"),
        ("grüße €".encode(), "grüße €"),
        (b"\x1b[2J\x07\x00\x7f", r"\x1b[2J\x07\x00\x7f"),
        (b"\\x1b", r"\\x1b"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("\u202eabc\x85\ud7ff".encode(), r"\xe2\x80\xaeabc\xc2\x85\xed\x9f\xbf"),
        (b"\tcolumn", r"\tcolumn"),
    ],
)
def test_what_is_not_printable_is_escaped(data: bytes, text: str) -> None:
    assert _dump._escaped(data) == text


@given(st.binary(max_size=5000) | st.text().map(str.encode))
def test_every_line_fits_a_block_and_has_all_bytes(data: bytes) -> None:
    lines = list(_dump._text_rows("#1 >", 0, data))
    texts = [line.partition(" > ")[2] for line in lines]
    unescaped = {r"\\": b"\\", r"\n": b"\n", r"\r": b"\r", r"\t": b"\t"}
    found = b""
    for part in re.findall(r"\\x[0-9a-f]{2}|\\.|[^\\]", "".join(texts)):
        found += unescaped.get(part) or (bytes.fromhex(part[2:]) if part.startswith(r"\x") else part.encode())
    assert found == data
    assert all(len(line.encode()) <= _dump._BLOCK for line in lines)
    assert all(line.isprintable() for line in lines)


def test_hex_shows_both_directions_and_the_ends(start: Start) -> None:
    with tcp_server() as (server, target):
        relay = start("relay", "--dump", "hex", ANY, target)
        with connect(relay.port()) as client:
            name = "{}:{}".format(*client.getsockname())
            client.sendall(b"question\n")
            client.shutdown(socket.SHUT_WR)
            with accept(server) as peer:
                assert read_all(peer) == b"question\n"
                peer.sendall(b"\x1b[31m an answer that has two lines")
            read_all(client)
        relay.send_signal(signal.SIGTERM)
        result = relay.end()
    assert (result.code, result.out) == (0, b"")
    lines = [re.sub(TIME, "TIME", line) for line in result.err.splitlines() if "Ctrl-C again" not in line]
    assert lines == [
        f"TIME #1 {name} > {target}",
        "TIME #1 > 9 bytes",
        "#1 > 000000  71 75 65 73 74 69 6f 6e 0a                       question.",
        "TIME #1 end > after 9 bytes",
        "TIME #1 < 34 bytes",
        "#1 < 000000  1b 5b 33 31 6d 20 61 6e 20 61 6e 73 77 65 72 20  .[31m an answer ",
        "#1 < 000010  74 68 61 74 20 68 61 73 20 74 77 6f 20 6c 69 6e  that has two lin",
        "#1 < 000020  65 73                                            es",
        "TIME #1 end < after 34 bytes",
        "TIME #1 closed",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("fault", [(), ("--fault", "chunk=50000,jitter=1ms")])
def test_many_bytes_of_many_connections_are_unchanged_and_all_shown(
    start: Start, tmp_path: Path, fault: tuple[str, ...]
) -> None:
    data = [random.Random(seed).randbytes(100_000) for seed in range(6)]
    arrived: dict[int, bytes] = {}

    def converse(number: int) -> None:
        with connect(port) as client, accept(server) as peer:
            sending = [send_and_end(client, data[number]), send_and_end(peer, data[number][::-1])]
            reading = threading.Thread(target=lambda: arrived.update({number: read_all(peer)}))
            reading.start()
            back = read_all(client)
            for thread in (*sending, reading):
                thread.join()
            # `accept` may have returned the connection of another client.
            assert back in [each[::-1] for each in data]

    with open(tmp_path / "dump", "wb") as dump, tcp_server() as (server, target):
        server.listen(16)
        relay = start("relay", "--dump", "hex", *fault, ANY, target, stderr=dump.fileno())
        port = _port_in(tmp_path / "dump", relay)
        threads = [threading.Thread(target=converse, args=(number,)) for number in range(len(data))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        relay.send_signal(signal.SIGTERM)
        assert relay.process.wait(PATIENCE) == 0
    assert sorted(arrived.values()) == sorted(data)
    text = "".join(
        line for line in (tmp_path / "dump").read_text().splitlines(True) if "Ctrl-C again" not in line
    )
    shown = parsed(text)
    assert sorted(each for (_, arrow), each in shown.items() if arrow == ">") == sorted(data)
    assert sorted(each[::-1] for (_, arrow), each in shown.items() if arrow == "<") == sorted(data)
    assert text.count(" closed\n") == len(data)


def _port_in(file: Path, relay: Command) -> int:
    """The port of a relay whose standard error is a file."""
    while "\n" not in file.read_text():
        assert relay.process.poll() is None
        threading.Event().wait(0.01)
    return int(file.read_text().splitlines()[0].rpartition(":")[2])


def test_tls_is_shown_in_clear(start: Start) -> None:
    cert, key = certificates.server()
    with tcp_server() as (listener, target):
        words = ("--cert", cert, "--key", key, "--ca-file", certificates.ca_file())
        relay = start("relay", "--dump", "text", *words, "tls://127.0.0.1:0", f"tls://{target}")
        with trusting().wrap_socket(connect(relay.port()), server_hostname="localhost") as client:
            with serving().wrap_socket(accept(listener), server_side=True) as peer:
                client.sendall(b"hello\n")
                assert receive(peer, 6) == b"hello\n"
                assert relay.process.stderr is not None
                assert re.fullmatch(
                    rf"{TIME} #1 \S+ > tls://{target}\n", relay.process.stderr.readline().decode()
                )
                assert relay.process.stderr.readline().decode().endswith(" #1 > hello\\n\n")


def test_a_reset_is_shown_as_one(start: Start) -> None:
    with through(start, "--dump", "text") as (relay, client, peer):
        peer.sendall(b"half")
        assert receive(client, 4) == b"half"
        reset(peer)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        relay.send_signal(signal.SIGTERM)
        err = relay.end().err
    assert re.search(rf"^{TIME} #1 reset\n", err, re.MULTILINE)
    assert "the connection with" in err


def test_a_fault_is_shown_as_it_arrives(start: Start) -> None:
    with through(start, "--dump", "hex", "--fault", "chunk=3,truncate-after=7") as (relay, client, peer):
        client.sendall(b"0123456789")
        assert read_all(peer) == b"0123456"
        client.shutdown(socket.SHUT_WR)
        peer.close()
        assert read_all(client) == b""
        relay.send_signal(signal.SIGTERM)
        err = relay.end().err
    assert re.findall(r"> (\d+) bytes", err) == ["3", "3", "1"]
    assert "#1 end > after 7 bytes" in err
    assert parsed(err)["1", ">"] == b"0123456"


# Standard error that is slow, full or closed.


@pytest.mark.parametrize("form", ["hex", "text"])
def test_a_slow_reader_of_the_dump_slows_the_relay_down_and_changes_nothing(start: Start, form: str) -> None:
    data = random.Random(3).randbytes(500_000)
    with through(start, "--dump", form) as (relay, client, peer):
        sending = send_and_end(client, data)
        peer.settimeout(0.3)
        got = b""
        with contextlib.suppress(TimeoutError):
            while len(got) < len(data):
                got += peer.recv(1 << 16)
        assert len(got) < len(data), "more is relayed than is shown"
        assert relay.process.stderr is not None
        draining = threading.Thread(target=relay.process.stderr.read)
        draining.start()
        peer.settimeout(PATIENCE)
        assert got + read_all(peer) == data
        sending.join()
        peer.close()
        assert read_all(client) == b""
        relay.send_signal(signal.SIGTERM)
        assert relay.process.wait(PATIENCE) == 0
        draining.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_end_a_relay_whose_dump_nothing_reads(start: Start, number: int) -> None:
    with through(start, "--dump", "hex") as (relay, client, peer):
        sending = threading.Thread(target=_send_until_it_fails, args=(client,))
        sending.start()
        peer.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while peer.recv(1 << 16):
                pass
        relay.send_signal(signal.SIGTERM)
        threading.Event().wait(0.3)  # two signals at the same time are one
        relay.send_signal(number)
        assert relay.process.wait(PATIENCE) == 128 + number
        sending.join()


def _send_until_it_fails(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(bytes(1 << 16))


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "left"])
def test_a_dump_that_cannot_be_written_changes_nothing(start: Start, tmp_path: Path, redirect: str) -> None:
    data = random.Random(4).randbytes(300_000)
    path = str(tmp_path / "sock")
    with tcp_server() as (server, target):
        left = redirect == "left"
        relay = start("relay", "--dump", "hex", f"unix:{path}", target, redirect="" if left else redirect)
        if left:
            relay.listening_on()
            assert relay.process.stderr is not None
            relay.process.stderr.close()
        while not os.path.exists(path):
            assert relay.process.poll() is None
            threading.Event().wait(0.01)
        with socket.socket(socket.AF_UNIX) as client:
            _connect(client, path)
            with accept(server) as peer:
                sending = send_and_end(client, data)
                assert read_all(peer) == data
                sending.join()
                send_and_end(peer, data).join()
            assert read_all(client) == data
        relay.send_signal(signal.SIGTERM)
        assert relay.process.wait(PATIENCE) == 0


def _connect(sock: socket.socket, path: str) -> None:
    """Connect; the file exists a moment before the socket listens."""
    sock.settimeout(PATIENCE)
    while True:
        try:
            sock.connect(path)
            return
        except ConnectionRefusedError:
            threading.Event().wait(0.01)


def test_a_block_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe takes a block as a whole or not at all: no other line gets in between."""
    written: list[bytes] = []
    dump = _dump.Dump("text")
    monkeypatch.setattr(dump._output, "write", written.append)
    server = cast("Socket", object())
    with dump.connection(1, "client", "target", server) as tap:
        tap(server, b"short\n" * 5000 + b"\x00" * 20_000 + b"x" * 20_000)
    assert all(len(block) <= select.PIPE_BUF and block.endswith(b"\n") for block in written)
    assert len(written) > 50


# Usage.


def test_the_form_is_hex_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "--dump", "octal", ANY, "h:1"]) == 2
    assert "--dump: invalid choice: 'octal'" in capsys.readouterr().err
