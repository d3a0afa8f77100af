"""``wireline relay`` as a process, between sockets of the standard library."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.command import (
    PATIENCE,
    Command,
    accept,
    connect,
    connect_unix,
    read_all,
    receive,
    reset,
    tcp_server,
)
from tests.cli.conftest import Start
from wireline.cli import main
from wireline.cli._exit_signals import Signals

ANY = "127.0.0.1:0"


def send_and_end(sock: socket.socket, data: bytes) -> threading.Thread:
    def run() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@contextlib.contextmanager
def through(start: Start, *words: str) -> Iterator[tuple[Command, socket.socket, socket.socket]]:
    """A relay with these arguments, a client, and the server's end of the same connection."""
    with tcp_server() as (server, target):
        relay = start("relay", *words, ANY, target)
        with connect(relay.port()) as client, accept(server) as peer:
            yield relay, client, peer


def end(relay: Command, number: int = signal.SIGINT) -> tuple[int, str]:
    relay.send_signal(number)
    result = relay.end()
    assert result.out == b""
    # The relay may report that it waits for connections that are just ending.
    return result.code, "".join(line for line in result.err.splitlines(True) if "Ctrl-C again" not in line)


def test_bytes_and_half_closes_pass_in_both_directions(start: Start) -> None:
    up, down = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(2_000_000)
    with through(start) as (relay, client, peer):
        senders = [send_and_end(client, up), send_and_end(peer, down)]
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_all(peer)))
        reader.start()
        assert read_all(client) == down
        for thread in (*senders, reader):
            thread.join()
        assert got == [up]
        assert end(relay) == (0, "")


@pytest.mark.parametrize("turned", [False, True])
def test_half_close(start: Start, turned: bool) -> None:
    with through(start) as (_, client, peer):
        first, second = (peer, client) if turned else (client, peer)
        first.sendall(b"question")
        first.shutdown(socket.SHUT_WR)
        assert read_all(second) == b"question"
        second.sendall(b"answer")
        second.shutdown(socket.SHUT_WR)
        assert read_all(first) == b"answer"


def test_unix_on_both_sides_and_the_file_goes(start: Start, tmp_path: Path) -> None:
    outside, inside = str(tmp_path / "out"), str(tmp_path / "in")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(inside)
        server.listen()
        relay = start("relay", f"unix:{outside}", f"unix:{inside}")
        assert relay.listening_on() == f"unix:{outside}"
        with connect_unix(outside) as client, accept(server) as peer:
            client.sendall(b"x")
            assert peer.recv(1) == b"x"
            client.close()
            assert peer.recv(1) == b""
            peer.close()
        assert end(relay, signal.SIGTERM) == (0, "")
    assert not os.path.exists(outside)


def test_a_reset_is_passed_on_and_reported_and_the_next_client_is_served(start: Start) -> None:
    with tcp_server() as (server, target):
        relay = start("relay", ANY, target)
        port = relay.port()
        with connect(port) as client:
            peer = accept(server)
            peer.sendall(b"half")
            assert client.recv(4) == b"half"
            reset(peer)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with connect(port) as client, accept(server) as peer:
            client.sendall(b"x")
            assert peer.recv(1) == b"x"
            client.close()
            assert peer.recv(1) == b""
        code, err = end(relay)
    assert code == 0
    assert (
        err
        == f"wireline: the connection with {target} broke: Connection reset by peer; the data is incomplete\n"
    )


def test_a_slow_reader_holds_the_writer_back(start: Start) -> None:
    with through(start) as (relay, client, peer):
        client.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += client.send(bytes(1 << 16))
        assert sent < 64 << 20, "the relay or the command buffers it"
        with open(f"/proc/{relay.process.pid}/status") as status:
            memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        assert memory < 80_000  # kB
        client.shutdown(socket.SHUT_WR)
        assert len(read_all(peer)) == sent


def test_a_target_that_refuses_is_reported_and_the_client_is_reset(start: Start) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{closed.getsockname()[1]}"
        relay = start("relay", ANY, target)
        # The reset may arrive during `connect`.
        with pytest.raises(ConnectionResetError), connect(relay.port()) as client:
            client.recv(1)
        code, err = end(relay)
    assert code == 0
    assert err.startswith(f"wireline: {target} refused the connection")


def test_max_is_how_many_at_a_time(start: Start) -> None:
    with tcp_server() as (server, target):
        relay = start("relay", "--max", "1", ANY, target)
        port = relay.port()
        with connect(port) as first, connect(port) as second, accept(server) as peer:
            second.sendall(b"second")
            first.sendall(b"first")
            assert peer.recv(5) == b"first"
            server.settimeout(0.1)
            with pytest.raises(TimeoutError):
                server.accept()
            server.settimeout(PATIENCE)
            first.close()
            assert peer.recv(1) == b""
            peer.close()
            with accept(server) as peer:
                assert peer.recv(6) == b"second"


def descriptors(relay: Command) -> int:
    return len(os.listdir(f"/proc/{relay.process.pid}/fd"))


def test_two_hundred_at_once_and_nothing_is_left(start: Start) -> None:
    with tcp_server() as (server, target), contextlib.ExitStack() as stack:
        server.listen(256)
        relay = start("relay", ANY, target)
        port = relay.port()
        before = descriptors(relay)
        clients = [stack.enter_context(connect(port)) for _ in range(200)]
        peers = [stack.enter_context(accept(server)) for _ in range(200)]
        for number, client in enumerate(clients):
            client.sendall(number.to_bytes(2))
        asked = [receive(peer, 2) for peer in peers]
        assert sorted(asked) == [number.to_bytes(2) for number in range(200)]
        for question, peer in zip(asked, peers, strict=True):
            peer.sendall(question + b" for you")
        for number, client in enumerate(clients):
            assert receive(client, 10) == number.to_bytes(2) + b" for you"
        for sock in (*clients, *peers):
            sock.close()
        limit = time.monotonic() + PATIENCE
        while (
            descriptors(relay) > before + 2
        ):  # it may have waited for its first client since, with a pair of sockets
            assert time.monotonic() < limit
            threading.Event().wait(0.02)  # nothing signals that a process has closed a descriptor
        assert len(os.listdir(f"/proc/{relay.process.pid}/task")) < 8
        assert end(relay) == (0, "")


# Signals.


def test_the_first_signal_waits_for_the_connections(start: Start) -> None:
    with through(start) as (relay, client, peer):
        port = client.getpeername()[1]
        relay.send_signal(signal.SIGINT)
        assert relay.process.stderr is not None
        assert relay.process.stderr.readline() == (
            b"wireline: waiting up to 10 s for 1 connection to end; Ctrl-C again resets them\n"
        )
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        client.sendall(b"still here")
        assert peer.recv(10) == b"still here"
        for sock in (client, peer):
            sock.shutdown(socket.SHUT_WR)
        assert relay.end() == (0, b"", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_one_cuts_them(start: Start, number: int, code: int, tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with tcp_server() as (server, target):
        relay = start("relay", f"unix:{path}", target)
        relay.listening_on()
        with connect_unix(path), accept(server) as peer:
            relay.send_signal(signal.SIGINT)
            assert relay.process.stderr is not None
            relay.process.stderr.readline()
            relay.send_signal(number)
            assert relay.end() == (code, b"", "")
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
    assert not os.path.exists(path)


def test_with_force_there_is_no_time_limit_until_the_second_signal() -> None:
    hurried: list[str] = []
    signals = Signals()
    signals.expected = True
    assert signals.exit_timeout
    with signals.ended_by(lambda: None, force=lambda: hurried.append("now")):
        signals.receive(signal.SIGINT)
        assert (signals.exit_timeout, signals.exit_code, hurried) == (None, 0, [])
        signals.receive(signal.SIGTERM)
        assert signals.exit_timeout
        assert (signals.exit_code, hurried) == (143, ["now"])


# Usage.


@in_turn(
    "words, complaint",
    [
        (["udp://:1", "127.0.0.1:1"], "udp:// has no connections"),
        ([ANY, "udp://127.0.0.1:1"], "udp:// has no connections"),
        ([ANY], "the following arguments are required: TARGET"),
        (["--fault", "lag=1", ANY, ANY], "there is no fault 'lag'"),
        (
            ["--fault", "delay=200", ANY, ANY],
            "--fault: delay=200 has no unit: write delay=200ms or delay=200s",
        ),
        (["--fault", "rate=1Mb", ANY, ANY], "--fault: rate=1Mb may be bits or bytes"),
        (["--fault", "chunk=0", ANY, "127.0.0.1:1"], "chunk is at least 1"),
        (["--max", "0", ANY, "127.0.0.1:1"], "is not a number of connections above 0"),
        (["--cert", "x", ANY, "127.0.0.1:1"], "--cert is for TLS: write tls:// in LISTEN, or --listen-tls"),
        (["--ca-file", "x", ANY, "127.0.0.1:1"], "--ca-file is for TLS: write tls:// in TARGET, or --tls"),
        (["tls://127.0.0.1:0", "127.0.0.1:1"], "(and --key FILE), --self-signed, or --listen-psk-file"),
        (["--key", "x", "tls://127.0.0.1:0", "127.0.0.1:1"], "--key needs its certificate"),
        (["--client-key", "x", ANY, "tls://127.0.0.1:1"], "--client-key needs its certificate"),
        (["--self-signed", "--cert", "x", "tls://:0", "127.0.0.1:1"], "use one of them"),
        (
            ["--listen-psk-file", "x", "--client-ca", "y", "tls://:0", "h:1"],
            "--client-ca needs a certificate",
        ),
        (["--tls", ANY, "unix:/nowhere"], "give it with --sni NAME"),
        (["--tls", "--sni", "x", ANY, "h:1", "unix:/nowhere", "udp://h:1"], "udp:// has no connections"),
        (
            [ANY, "tls://h:1", "h:2"],
            "tls://h:1 uses TLS and h:2 does not: write tls:// in each TARGET, or --tls",
        ),
        (["--balance", "random", ANY, "h:1"], "--balance: invalid choice: 'random'"),
        (["--psk-file", "x", "--no-verify", ANY, "tls://h:1"], "not allowed with"),
    ],
)
def test_usage(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err


def test_the_address_is_taken(start: Start) -> None:
    with tcp_server() as (_, target):
        result = start("relay", target, target).finish()
    assert result.code == 1
    assert result.err.startswith(f"wireline: cannot listen on {target}: ")


def test_help_has_examples_and_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "--help"]) == 0
    text = capsys.readouterr().out
    assert "\nexamples:\n  wireline relay " in text
    for word in "delay jitter rate chunk reset-after truncate-after".split():
        assert f"  {word}=" in text
    assert "  drop-tls-close " in text
    assert max(map(len, text.splitlines())) <= 120
