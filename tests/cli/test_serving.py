"""The options that ``listen`` and ``relay`` share: drain, limits, and the clients that are allowed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.cli.command import (
    PATIENCE,
    Command,
    accept,
    connect,
    connect_unix,
    read_all,
    receive,
    tcp_server,
    udp_socket,
    unresponsive_listener,
)
from tests.cli.conftest import Start
from wireline import Address
from wireline.cli import main
from wireline.cli._allowed import Allowed
from wireline.cli.parser._parser import parse

ANY = "127.0.0.1:0"

SERVERS = {
    "listen --keep": ["listen", "--keep"],
    "listen --echo --keep": ["listen", "--echo", "--keep"],
    "listen --chat": ["listen", "--chat"],
    "relay": ["relay"],
    "relay --fault": ["relay", "--fault", "chunk=100"],
}
servers = pytest.mark.parametrize("words", SERVERS.values(), ids=SERVERS)


@contextlib.contextmanager
def served(start: Start, words: list[str], *more: str) -> Iterator[tuple[Command, int]]:
    """A server with these words, and its port. The target of a relay sends everything back."""
    target = [start("listen", "--echo", "--keep", ANY).listening_on()] if words[0] == "relay" else []
    command = start(*words, *more, ANY, *target)
    yield command, command.port()


def become_served(command: Command, words: list[str], *peers: socket.socket) -> None:
    """Wait until the server serves these clients."""
    if "--chat" in words:
        for peer in peers:  # a member receives the lines of the next client
            hear_each_other(peer, connect(peer.getpeername()[1]))
        return
    for peer in peers:
        peer.sendall(b"x")
        if words == ["listen", "--keep"]:
            assert command.read(1) == b"x"
        else:
            assert peer.recv(1) == b"x"


def hear_each_other(member: socket.socket, other: socket.socket) -> None:
    """Wait until a client is a member of the chat."""
    with other:
        member.settimeout(0.05)
        heard = b""
        while not heard:
            other.sendall(b"?\n")
            with contextlib.suppress(TimeoutError):
                heard = member.recv(100)
        other.sendall(b"!\n")
        member.settimeout(PATIENCE)
        while not heard.endswith(b"!\n"):
            heard += member.recv(100)


def count_threads(command: Command) -> int:
    return len(os.listdir(f"/proc/{command.process.pid}/task"))


def read_line(command: Command) -> str:
    assert command.process.stderr is not None
    return command.process.stderr.readline().decode()


# The drain.


@servers
def test_what_is_open_may_end_during_the_drain(start: Start, words: list[str]) -> None:
    with served(start, words, "--drain", "20") as (command, port), connect(port) as peer:
        become_served(command, words, peer)
        command.send_signal(signal.SIGTERM)
        assert read_line(command) == (
            "wireline: waiting up to 20 s for 1 connection to end; Ctrl-C again resets them\n"
        )
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        if "--chat" not in words:
            become_served(command, words, peer)
        peer.shutdown(socket.SHUT_WR)
        assert read_all(peer) == b""
        assert command.end() == (0, b"", "")


@servers
def test_what_has_not_ended_is_reset_and_counted(start: Start, words: list[str]) -> None:
    clients = 1 if words == ["listen", "--keep"] else 3
    with served(start, words, "--drain", "0.3") as (command, port), contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect(port)) for _ in range(clients)]
        become_served(command, words, *peers)
        began = time.monotonic()
        command.send_signal(signal.SIGINT)
        for peer in peers:
            with pytest.raises(ConnectionResetError):
                read_all(peer)
        code, out, err = command.end()
        assert time.monotonic() - began < 5
        counted = "1 connection" if clients == 1 else "3 connections"
        assert (code, out) == (0, b"")
        assert err.endswith(f"wireline: reset {counted} that had not ended after 0.3 s\n")


@servers
def test_the_second_signal_ends_it_at_once(start: Start, words: list[str]) -> None:
    number, code = (signal.SIGINT, 130) if "--keep" in words else (signal.SIGTERM, 143)
    with served(start, words, "--drain", "100") as (command, port), connect(port) as peer:
        become_served(command, words, peer)
        command.send_signal(signal.SIGTERM)
        assert "waiting up to 100 s" in read_line(command)
        command.send_signal(number)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert command.end() == (code, b"", "")


def test_a_relay_that_cannot_reach_its_target_ends_with_the_drain(start: Start) -> None:
    """A handler that waits for something else than its client ends, too."""
    with unresponsive_listener() as (_, target):
        relay = start("relay", "--drain", "0.1", ANY, target)
        port = relay.port()
        before = count_threads(relay)
        with connect(port) as peer:
            while count_threads(relay) == before:
                time.sleep(0.01)  # nothing signals that another process has made a thread
            relay.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
            code, _, err = relay.end()
    assert code == 0
    assert "reset 1 connection" in err


@pytest.mark.parametrize("second", [False, True])
def test_many_connections_that_accept_nothing_are_reset_at_once(start: Start, second: bool) -> None:
    """A reset waits a moment for each send that is under way."""
    with tcp_server() as (server, target), contextlib.ExitStack() as stack:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.listen(100)
        drain = "100" if second else "0"
        relay = start("relay", "--fault", "chunk=1M", "--drain", drain, ANY, target)
        port = relay.port()
        ends = []
        for _ in range(60):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            ends += [client, stack.enter_context(accept(server))]
        data = bytes(1 << 18)
        for _ in range(3):  # what has been sent meanwhile leaves room for more
            for sock in ends:
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sock.send(data)
        began = time.monotonic()
        relay.send_signal(signal.SIGTERM)
        if second:
            read_line(relay)
            relay.send_signal(signal.SIGTERM)
        assert relay.process.wait(PATIENCE) == (143 if second else 0)
        assert time.monotonic() - began < 4


def test_standard_output_that_fails_ends_a_server(start: Start) -> None:
    command = start(
        "listen", "--keep", "--drain", "100", ANY, stdin=subprocess.DEVNULL, redirect="> /dev/full"
    )
    with connect(command.port()) as peer:
        peer.sendall(b"data")
        code, _, err = command.end()
    assert code == 1
    assert "cannot write to standard output: No space left on device" in err


# Limits.


def test_listen_lets_further_clients_wait(start: Start) -> None:
    with served(start, ["listen", "--echo", "--keep"], "--max", "1") as (_, port):
        with connect(port) as first, connect(port) as second:
            first.sendall(b"x")
            assert first.recv(1) == b"x"
            second.sendall(b"y")
            second.settimeout(0.2)
            with pytest.raises(TimeoutError):
                second.recv(1)
            second.settimeout(PATIENCE)
            first.close()
            assert second.recv(1) == b"y"


@pytest.mark.parametrize(
    "words", [["listen", "--echo", "--keep"], ["listen", "--keep"], ["relay"]], ids=" ".join
)
def test_a_full_server_may_refuse(start: Start, words: list[str]) -> None:
    with served(start, words, "--max", "1", "--on-full", "refuse") as (command, port):
        with connect(port) as first:
            become_served(command, words, first)
            with pytest.raises(ConnectionResetError), connect(port) as second:
                second.recv(1)
            become_served(command, words, first)


@servers
def test_an_idle_connection_is_ended_and_reported(start: Start, words: list[str]) -> None:
    with served(start, words, "--idle", "0.4") as (command, port), connect(port) as peer:
        become_served(command, words, peer)
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
        assert 0.2 < time.monotonic() - began < PATIENCE
        name = f"127.0.0.1:{peer.getsockname()[1]}"
        assert read_line(command) == f"wireline: {name} timed out: idle for 0.4 s\n"
        command.send_signal(signal.SIGTERM)
        assert command.end().code == 0


@pytest.mark.parametrize("fault", [[], ["--fault", "chunk=5000"]])
def test_a_relay_in_which_bytes_move_is_not_idle(start: Start, fault: list[str]) -> None:
    """In one direction only, with a client that never sends."""
    with tcp_server() as (server, target):
        relay = start("relay", "--idle", "0.5", *fault, ANY, target)
        with connect(relay.port()) as client, accept(server) as peer:
            for _ in range(12):
                peer.sendall(b"tick")
                assert receive(client, 4) == b"tick"
                client.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    client.recv(1)
                client.settimeout(PATIENCE)
            peer.close()
            assert client.recv(1) == b""


@pytest.mark.parametrize("service", [[], ["--echo"], ["--discard"]])
def test_one_idle_client_is_exit_code_4(start: Start, service: list[str]) -> None:
    command = start("listen", *service, "--idle", "0.3", ANY)
    with connect(command.port()) as peer:
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
        result = command.end()
    assert result.code == 4
    assert result.err.endswith(" timed out: idle for 0.3 s\n")


# The clients that are allowed.


@pytest.mark.parametrize(
    "words",
    [["listen", "--echo"], ["listen", "--echo", "--keep"], ["listen", "--keep"], ["relay"]],
    ids=" ".join,
)
def test_other_clients_are_refused(start: Start, words: list[str]) -> None:
    with served(start, words, "--allow", "192.0.2.0/24", "--allow", "127.0.0.8/29") as (command, port):
        with pytest.raises(ConnectionResetError), connect(port) as peer:
            peer.recv(1)
        assert "wireline: refused 127.0.0.1:" in read_line(command)
        with socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.9", 0)) as peer:
            become_served(command, words, peer)


def test_a_flood_of_refused_clients_is_a_line_a_second(start: Start) -> None:
    with served(start, ["listen", "--echo", "--keep"], "--allow", "192.0.2.1") as (command, port):
        for _ in range(200):
            with pytest.raises(ConnectionResetError), connect(port) as peer:
                peer.recv(1)
        command.send_signal(signal.SIGTERM)
        lines = command.end().err.splitlines()
    assert 1 <= len(lines) < 100
    assert all(line.startswith("wireline: refused 127.0.0.1:") for line in lines)
    assert all(" more before it: --allow does not include it" in line for line in lines[1:])


ADDRESSES: list[tuple[str, list[str], bool]] = [
    ("192.0.2.7", ["192.0.2.0/24"], True),
    ("192.0.3.7", ["192.0.2.0/24"], False),
    ("::ffff:192.0.2.7", ["192.0.2.0/24"], True),
    ("::ffff:c000:207", ["192.0.2.7/32"], True),
    ("::ffff:192.0.2.7", ["::/0"], False),
    ("fe80::1%lo", ["fe80::/10"], True),
    ("2001:db8::1", ["192.0.2.0/24", "2001:db8::/32"], True),
    ("2001:db9::1", ["192.0.2.0/24", "2001:db8::/32"], False),
    ("/run/socket", ["0.0.0.0/0"], False),
    ("", ["0.0.0.0/0"], False),
]


def test_an_address_is_in_a_network() -> None:
    for address, networks, expected in ADDRESSES:
        allowed = Allowed([ip_network(each) for each in networks])
        assert (Address(address, 1) in allowed) is expected, (address, networks)


NETWORKS = [
    ("10.0.0.0/8", "10.0.0.0/8"),
    ("10.1.2.3", "10.1.2.3/32"),
    ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ("::ffff:10.1.2.3", "10.1.2.3/32"),
    ("::ffff:0:0/96", "0.0.0.0/0"),
    ("::/0", "::/0"),
    ("2001:db8::1", "2001:db8::1/128"),
]


def test_a_network_of_the_command_line() -> None:
    for text, network in NETWORKS:
        assert parse(["listen", "--allow", text, ANY]).allow == [ip_network(network)]


def test_datagrams_of_other_senders_are_dropped(start: Start) -> None:
    for words in (["--echo"], ["--keep"], []):
        command = start("listen", *words, "--allow", "127.0.0.9", f"udp://{ANY}", stdin=subprocess.DEVNULL)
        port = command.port()
        with udp_socket() as (stranger, _), udp_socket("127.0.0.9") as (friend, _):
            stranger.sendto(b"no", ("127.0.0.1", port))
            assert read_line(command).startswith("wireline: refused udp://127.0.0.1:")
            friend.sendto(b"yes", ("127.0.0.1", port))
            if words == ["--echo"]:
                assert friend.recv(10) == b"yes"
                stranger.setblocking(False)
                with pytest.raises(BlockingIOError):
                    stranger.recv(10)
            else:
                assert command.read(3) == b"yes"
        command.send_signal(signal.SIGTERM)
        command.end()


def test_a_unix_socket_has_a_drain_and_limits(start: Start, tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    words = ["--max", "1", "--idle", "30", "--drain", "0"]
    command = start("listen", "--echo", "--keep", *words, f"unix:{path}")
    command.listening_on()
    with connect_unix(path) as peer:
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        command.send_signal(signal.SIGTERM)
        assert peer.recv(1) == b""  # a Unix socket has no reset
        assert command.end() == (0, b"", "wireline: reset 1 connection that had not ended after 0 s\n")
    assert not Path(path).exists()


# Usage.


USAGE: list[tuple[list[str], str]] = [
    (["listen", "--max", "3", ANY], "--max is for any number of connections: add --keep"),
    (["listen", "--echo", "--drain", "3", ANY], "--drain is for any number of connections"),
    (["listen", "--on-full", "wait", ANY], "--on-full is for any number of connections"),
    (["listen", "--keep", "--max", "2", ANY], "--max is 1, or add --echo or --discard"),
    (["listen", "--chat", "--on-full", "refuse", ANY], "--on-full refuse needs a limit: --max N"),
    (["relay", "--on-full", "refuse", ANY, "h:1"], "--on-full refuse needs a limit: --max N"),
    (["relay", "--on-full", "panic", ANY, "h:1"], "invalid choice"),
    (["listen", "--echo", "--max", "1", "udp://:0"], "--max is about connections, and udp:// has none"),
    (["listen", "--echo", "--idle", "1", "udp://:0"], "--idle is about connections, and udp:// has none"),
    (["listen", "--echo", "--drain", "1", "udp://:0"], "--drain is about connections"),
    (["listen", "--log-format", "text", "udp://:0"], "--log-format is about connections"),
    (["relay", "--drain", "-1", ANY, "h:1"], "--drain: '-1' is not a number of seconds"),
    (["relay", "--drain", "inf", ANY, "h:1"], "--drain: 'inf' is not a number of seconds"),
    (["relay", "--idle", "0", ANY, "h:1"], "--idle: '0' is not a number of seconds above 0"),
    (["listen", "--allow", "10.0.0.0/8", "unix:/x"], "clients of a Unix socket have none"),
    (["relay", "--allow", "10.0.0.0/8", "unix:/x", "h:1"], "clients of a Unix socket have none"),
    (
        ["listen", "--allow", "10.1.0.0/8", ANY],
        "bits set after the first 8: write 10.0.0.0/8 for the network, or 10.1.0.0 for the one address",
    ),
    (["listen", "--allow", "2001:db8::1/32", ANY], "write 2001:db8::/32 for the network"),
    (["listen", "--allow", "localhost", ANY], "'localhost' is not a network such as 192.0.2.0/24"),
    (["listen", "--allow", "10.0.0.0/255.0.0.0", ANY], "is not a network such as"),
    (["listen", "--allow", "10.0.0.0/33", ANY], "is not a network such as"),
    (["listen", "--allow", "010.0.0.0/8", ANY], "is not a network such as"),
    (["listen", "--allow", "", ANY], "is not a network such as"),
    (["listen", "--log-format", "xml", ANY], "invalid choice"),
    (["listen", "--show-code", "--log-format", "json", ANY], "--show-code cannot show --log-format"),
    (["listen", "--show-code", "--idle", "3", ANY], "--show-code shows --idle only"),
]


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words, complaint in USAGE:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert complaint in err
