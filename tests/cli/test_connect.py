"""``wireline connect`` as a process, against sockets of the standard library."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE, accept, connect, read_all, reset, tcp_server, unresponsive_listener
from tests.cli.conftest import Start


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_input_to_the_peer_and_the_peer_to_output(start: Start, host: str) -> None:
    with tcp_server(host) as (server, target):
        command = start("connect", target)
        with accept(server) as peer:
            command.type(b"ping")
            assert peer.recv(10) == b"ping"
            peer.sendall(b"pong")
            assert command.read(4) == b"pong"
        assert command.finish(b"") == (0, b"", "")


def test_half_close_at_the_end_of_input_then_the_reply_is_received(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--at-eof", "half-close", target, stdin=subprocess.DEVNULL)
        with accept(server) as peer:
            assert peer.recv(1) == b""
            peer.sendall(b"late")
            assert command.read(4) == b"late"
            assert command.process.poll() is None
        assert command.finish().code == 0


def test_a_peer_that_half_closed_gets_the_whole_file(start: Start, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    with tcp_server() as (server, target), path.open("rb") as file:
        command = start("connect", target, stdin=file)
        with accept(server) as peer:
            peer.sendall(b"go")
            peer.shutdown(socket.SHUT_WR)
            assert command.read(2) == b"go"
            assert read_all(peer) == data
        assert command.finish().code == 0


def test_connect_ends_with_the_peer_while_the_input_is_open(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target)
        with accept(server) as peer:
            peer.sendall(b"bye")
        assert command.end() == (0, b"bye", "")


def test_megabytes_both_ways_at_once(start: Start, tmp_path: Path) -> None:
    data = os.urandom(8_000_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    with tcp_server() as (server, target), path.open("rb") as file, (tmp_path / "out").open("wb") as out:
        command = start("connect", "--at-eof", "half-close", target, stdin=file, stdout=out)
        with accept(server) as peer:
            while piece := peer.recv(1 << 16):
                peer.sendall(piece)
        assert command.finish().code == 0
    assert (tmp_path / "out").read_bytes() == data


def test_unix_path(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(PATIENCE)
        command = start("connect", f"unix:{path}")
        with accept(server) as peer:
            peer.sendall(b"hello")
        assert command.finish(b"") == (0, b"hello", "")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_unix_abstract_name(start: Start) -> None:
    name = f"wireline-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        server.settimeout(PATIENCE)
        command = start("connect", f"unix:@{name}")
        with accept(server) as peer:
            peer.sendall(b"hello")
        assert command.finish(b"") == (0, b"hello", "")


def test_crlf_across_chunks(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--crlf", target)
        with accept(server) as peer:
            received = b""
            for chunk, expected in ((b"a\nb\r", b"a\r\nb\r"), (b"\nc\n", b"\nc\r\n"), (b"\n", b"\r\n")):
                command.type(chunk)
                # Wait until it has arrived, so that the next write is a separate chunk.
                while len(received) < len(expected):
                    received += peer.recv(100)
                assert received == expected
                received = b""
        assert command.finish(b"").code == 0


# Exit codes.


def test_refused_is_3(start: Start) -> None:
    with socket.socket() as unlistened:
        unlistened.bind(
            ("127.0.0.1", 0)
        )  # bound and not listening: refused, and no other process can use the port
        port = unlistened.getsockname()[1]
        result = start("connect", f"127.0.0.1:{port}").finish(b"")
    assert result.code == 3
    assert result.out == b""
    assert result.err == (
        f"wireline: 127.0.0.1:{port} refused the connection: nothing listens there; "
        "check the address, or start the server first\n"
    )


def test_no_such_unix_socket_is_3(start: Start, tmp_path: Path) -> None:
    result = start("connect", f"unix:{tmp_path}/nothing").finish(b"")
    assert result.code == 3
    assert result.err.endswith("does not exist; start the server first\n")


def test_a_name_that_does_not_resolve_is_3(start: Start) -> None:
    # RFC 6761: names under .invalid never resolve; a name with an empty label is not sent to a name server.
    result = start("connect", "no..such.invalid:80").finish(b"")
    assert result.code == 3
    assert "no..such.invalid" in result.err
    assert result.err.endswith("; check the name\n")


def test_no_answer_in_time_is_4(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--at-eof", "half-close", "--timeout", "1", target)
        with accept(server):
            result = command.finish(b"")
    assert result == (4, b"", f"wireline: {target} timed out: no data received for 1 s\n")


def test_a_connection_that_does_not_come_about_in_time_is_4(start: Start) -> None:
    with unresponsive_listener() as (_, target):
        result = start("connect", "--timeout", "0.2", target).finish(b"")
    assert result.code == 4
    assert result.err.startswith(f"wireline: no answer from {target}: ")


def test_a_peer_that_accepts_no_data_is_4(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(20_000_000))
    with tcp_server() as (server, target), path.open("rb") as file:
        command = start("connect", "--timeout", "0.3", target, stdin=file)
        with accept(server):
            assert command.finish().code == 4


def test_a_reset_is_6_and_the_data_before_it_is_written(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target)
        peer = accept(server)
        peer.sendall(b"half")
        assert command.read(4) == b"half"
        reset(peer)
        result = command.end()
    assert result == (
        6,
        b"",
        f"wireline: the connection with {target} broke: Connection reset by peer; the data is incomplete\n",
    )


def test_input_that_the_peer_does_not_receive_is_6(start: Start) -> None:
    with open("/dev/zero", "rb") as endless, tcp_server() as (server, target):
        command = start("connect", target, stdin=endless)
        with accept(server) as peer:
            peer.sendall(b"enough")
            # Read some data, then close; only data in transit is unread.
            peer.recv(1 << 16)
        result = command.finish()
    assert result.code == 6
    assert f" {target} " in result.err


def test_a_full_disk_is_1_with_the_reason(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target, redirect="> /dev/full")
        with accept(server) as peer:
            peer.sendall(b"data")
            result = command.finish(b"")
    assert result == (1, b"", "wireline: cannot write to standard output: No space left on device\n")


def test_a_closed_output_pipe_ends_it_quietly_with_1(start: Start) -> None:
    read, write = os.pipe()
    with tcp_server() as (server, target):
        command = start("connect", target, stdout=write)
        os.close(write)
        os.close(read)
        with accept(server) as peer:
            peer.sendall(b"data")
            assert command.finish(b"") == (1, b"", "")


def test_input_that_cannot_be_read_to_its_end_is_a_reset_for_the_peer(start: Start) -> None:
    # Standard input is a connection, because reading it can fail in the middle.
    with tcp_server() as (server, target), tcp_server() as (source, _):
        feed = connect(source.getsockname()[1])
        with accept(source) as standard_input:
            command = start("connect", target, stdin=standard_input.fileno())
        with accept(server) as peer:
            feed.sendall(b"half")
            assert peer.recv(10) == b"half"
            reset(feed)
            with pytest.raises(ConnectionResetError):
                peer.recv(10)
            result = command.finish()
    assert result == (1, b"", "wireline: cannot read standard input: Connection reset by peer\n")


def test_debug_shows_the_traceback(start: Start) -> None:
    with socket.socket() as unlistened:
        unlistened.bind(("127.0.0.1", 0))
        command = start(
            "connect", "--debug", f"127.0.0.1:{unlistened.getsockname()[1]}", stdin=subprocess.DEVNULL
        )
        _, err = command.process.communicate(timeout=PATIENCE)
    assert command.process.returncode == 3
    assert err.startswith(b"Traceback")
    assert err.splitlines()[-1].startswith(b"wireline: ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_quietly(start: Start, number: int, code: int) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target)
        with accept(server) as peer:
            # Once data passes, the command has started.
            command.type(b"x")
            assert peer.recv(1) == b"x"
            command.send_signal(number)
            assert command.end() == (code, b"", "")


# Closed standard descriptors.


def test_closed_standard_input_is_the_end_of_input(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--at-eof", "half-close", target, redirect="<&-")
        with accept(server) as peer:
            assert peer.recv(1) == b""
            peer.sendall(b"hello")
        assert command.finish() == (0, b"hello", "")


def test_closed_standard_output_fails_as_soon_as_there_is_something_to_write(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target, redirect=">&-")
        with accept(server) as peer:
            peer.sendall(b"hello")
            result = command.finish(b"")
    assert result == (1, b"", "wireline: cannot write to standard output: Bad file descriptor\n")


def test_closed_standard_error_hides_only_the_message(start: Start) -> None:
    with socket.socket() as unlistened:
        unlistened.bind(("127.0.0.1", 0))
        command = start("connect", f"127.0.0.1:{unlistened.getsockname()[1]}", redirect="2>&-")
        assert command.finish(b"") == (3, b"", "")
