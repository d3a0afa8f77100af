"""``--fd``: sockets that a shell, systemd or inetd has opened."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE, Command, connect, connect_unix, read_all, receive, reset, tcp_server
from tests.cli.conftest import Start
from tests.tls import certificates
from tests.tools import require_tool
from wireline.cli import main

ANY = "127.0.0.1:0"

# Starts the command with these sockets as the descriptors from 3 on, as systemd does.
_LAUNCHER = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 100) for number in sys.argv[1].split(",")]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
if sys.argv[2]:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "wireline", *sys.argv[3:]])
"""


@contextmanager
def started(sockets: list[socket.socket], *words: str, listen_fds: int = 0) -> Iterator[Command]:
    """The command with these sockets as its descriptors from 3 on."""
    for sock in sockets:
        sock.set_inheritable(True)
    command = Command.__new__(Command)
    command.process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _LAUNCHER,
            ",".join(str(sock.fileno()) for sock in sockets),
            str(listen_fds or ""),
            *words,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=[sock.fileno() for sock in sockets],
        start_new_session=True,
    )
    try:
        yield command
    finally:
        command.abandon()


def echoes(peer: socket.socket) -> bool:
    with peer:
        peer.sendall(b"hello")
        peer.shutdown(socket.SHUT_WR)
        return read_all(peer) == b"hello"


@pytest.mark.parametrize(
    "words", [["listen", "--echo", "--keep"], ["listen", "--chat"], ["relay"]], ids=" ".join
)
def test_a_listening_socket_by_its_number(start: Start, words: list[str]) -> None:
    target = [start("listen", "--echo", "--keep", ANY).listening_on()] if words == ["relay"] else []
    with tcp_server() as (listener, address):
        with started([listener], *words, "--fd", "3", "--drain", "0", *target) as command:
            assert command.listening_on() == address
            port = listener.getsockname()[1]
            if "--chat" not in words:
                assert echoes(connect(port))
            command.send_signal(signal.SIGTERM)
            assert command.process.wait(PATIENCE) == 0
        # It belongs to the parent: a restarted server goes on with the clients in the queue.
        with connect(port) as waiting, started([listener], "listen", "--echo", "--fd", "3") as command:
            assert echoes(waiting)
            assert command.process.wait(PATIENCE) == 0


def test_standard_input_and_output_for_one_client() -> None:
    with tcp_server() as (listener, _), started([listener], "listen", "--fd=3") as command:
        with connect(command.port()) as peer:
            peer.sendall(b"question")
            assert command.read(8) == b"question"
            command.type(b"answer")
            assert receive(peer, 6) == b"answer"
        assert command.finish(b"") == (0, b"", "")


def test_a_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with started([listener], "listen", "--echo", "--keep", "--fd", "3") as command:
            assert command.listening_on() == f"unix:{path}"
            assert echoes(connect_unix(path))
            command.send_signal(signal.SIGTERM)
            assert command.process.wait(PATIENCE) == 0
        with started(
            [listener], "listen", "--echo", "--keep", "--allow", "127.0.0.1", "--fd", "3"
        ) as command:
            code, _, err = command.end()
        assert (code, "clients of a Unix socket have none" in err) == (2, True)
    assert Path(path).exists()


def test_tls_of_an_inherited_socket() -> None:
    cert, key = certificates.server()
    words = ["--tls", "--cert", cert, "--key", key]
    context = ssl.create_default_context(cafile=certificates.ca_file())
    with tcp_server() as (listener, address):
        with started([listener], "listen", "--echo", *words, "--fd", "3") as command:
            assert command.listening_on() == f"tls://{address}"
            with context.wrap_socket(connect(listener.getsockname()[1]), server_hostname="localhost") as peer:
                peer.sendall(b"x")
                assert peer.recv(1) == b"x"
                peer.unwrap().close()
            assert command.process.wait(PATIENCE) == 0


def test_all_sockets_of_systemd() -> None:
    with tcp_server() as (first, _), tcp_server("::1") as (second, _):
        words = ["listen", "--echo", "--keep", "--fd", "systemd"]
        with started([first, second], *words, listen_fds=2) as command:
            command.listening_on()
            assert echoes(connect(first.getsockname()[1]))
            assert echoes(connect(second.getsockname()[1], "::1"))


def test_systemd_itself(start: Start) -> None:
    activate = require_tool("systemd-socket-activate", "systemd")
    with tcp_server() as (server, address):
        port = server.getsockname()[1]
    command = Command.__new__(Command)
    command.process = subprocess.Popen(
        [activate, "-l", address, sys.executable, "-m", "wireline", "listen", "--echo", "--fd", "systemd"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    try:
        assert command.process.stderr is not None
        assert command.process.stderr.readline().startswith(b"Listening on ")
        assert echoes(connect(port))
        assert command.process.wait(PATIENCE) == 0
    finally:
        command.abandon()


# One connection, as inetd and a unit with Accept=yes pass it.


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection: the one for the command first."""
    with tcp_server() as (server, _), connect(server.getsockname()[1]) as peer:
        accepted, _ = server.accept()
        with accepted:
            yield accepted, peer


@pytest.mark.parametrize("words", [["listen", "--echo"], ["listen", "--discard"], ["relay"]], ids=" ".join)
def test_inetd_passes_a_connection_as_all_three_streams(start: Start, words: list[str]) -> None:
    target = [start("listen", "--echo", "--keep", ANY).listening_on()] if words == ["relay"] else []
    with connection() as (own, peer):
        command = start(
            *words, "--fd", "0", "--allow", "127.0.0.1", *target, stdin=own, stdout=own, stderr=own
        )
        own.close()
        peer.sendall(b"hello")
        peer.shutdown(socket.SHUT_WR)
        # Nothing but the reply: messages do not reach the client.
        assert read_all(peer) == (b"" if "--discard" in words else b"hello")
        assert command.process.wait(PATIENCE) == 0


def test_a_relay_of_inetd_adds_tls(start: Start) -> None:
    """As ``stunnel`` does it there."""
    target = start("listen", "--echo", "--keep", ANY).listening_on()
    cert, key = certificates.server()
    words = ["--listen-tls", "--cert", cert, "--key", key, "--fd", "0", target]
    context = ssl.create_default_context(cafile=certificates.ca_file())
    with connection() as (own, peer):
        command = start("relay", *words, stdin=own, stdout=own, stderr=own)
        own.close()
        with context.wrap_socket(peer, server_hostname="localhost") as secure:
            secure.sendall(b"hello")
            assert receive(secure, 5) == b"hello"
            secure.unwrap().close()
        assert command.process.wait(PATIENCE) == 0


def test_messages_do_not_reach_the_client_of_inetd(start: Start) -> None:
    with connection() as (own, peer):
        words = ["--fd", "0", "--timeout", "0.2", "--log-format", "text"]
        command = start("listen", "--echo", *words, stdin=own, stdout=own, stderr=own)
        own.close()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert command.process.wait(PATIENCE) == 4


def test_inetd_refuses_other_clients(start: Start) -> None:
    with connection() as (own, peer):
        command = start("listen", "--echo", "--fd", "0", "--allow", "192.0.2.0/24", stdin=own, stdout=own)
        own.close()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert command.process.wait(PATIENCE) == 0


def test_a_connection_by_its_number_has_standard_input_and_output() -> None:
    with connection() as (own, peer), started([own], "listen", "--fd", "3") as command:
        own.close()
        peer.sendall(b"question")
        assert command.read(8) == b"question"
        command.type(b"answer")
        assert receive(peer, 6) == b"answer"
        peer.close()
        assert command.finish(b"") == (0, b"", "")


def test_a_connection_that_breaks_is_6() -> None:
    with connection() as (own, peer), started([own], "listen", "--echo", "--fd", "3") as command:
        own.close()
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        reset(peer)
        assert command.process.wait(PATIENCE) == 6


def test_a_signal_ends_a_connection() -> None:
    with connection() as (own, peer), started([own], "listen", "--echo", "--fd", "3") as command:
        own.close()
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        command.send_signal(signal.SIGTERM)
        assert peer.recv(1) == b""
        assert command.process.wait(PATIENCE) == 143


def test_socat_as_inetd() -> None:
    """``socat`` starts a program for each connection, which is its standard input and output."""
    socat = require_tool("socat", "socat")
    with tcp_server() as (server, _):
        port = server.getsockname()[1]
    program = f"{sys.executable} -m wireline listen --echo --fd 0"
    process = subprocess.Popen(
        [socat, f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", f"EXEC:{program},nofork"],
        start_new_session=True,
    )
    try:
        for _ in range(2):
            assert echoes(connect_when_it_listens(port))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def connect_when_it_listens(port: int) -> socket.socket:
    while True:
        try:
            return connect(port)
        except ConnectionRefusedError:
            continue


# Descriptors that cannot be served.


def complaint(sockets: list[socket.socket], *words: str, listen_fds: int = 0) -> str:
    with started(sockets, *words, listen_fds=listen_fds) as command:
        code, out, err = command.end()
    assert (code, out) == (2, b"")
    return err


def test_descriptors_that_are_no_such_socket(start: Start, tmp_path: Path) -> None:
    file = start("listen", "--fd", "3", redirect=f"3> {tmp_path}/file").end()
    assert (file.code, "--fd 3: descriptor 3 is not a socket" in file.err) == (2, True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        assert "descriptor 3 is a datagram socket" in complaint([datagrams], "listen", "--fd", "3")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert "neither listens nor is connected" in complaint([bound], "listen", "--fd", "3")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets:
        packets.bind(f"{tmp_path}/packets")
        packets.listen()
        assert "no TCP or Unix stream socket" in complaint([packets], "listen", "--fd", "3")


def test_options_that_do_not_go_with_a_connection() -> None:
    with connection() as (own, _):
        for words, told in (
            (
                ["listen", "--echo", "--keep"],
                "descriptor 3 is one connection: --keep needs a listening socket",
            ),
            (["listen", "--chat"], "descriptor 3 is one connection: --chat needs a listening socket"),
            (["listen", "--echo", "--idle", "3"], "--idle is for a listening socket"),
            (["relay", "--max", "3"], "--max is for a listening socket, and descriptor 3 is one connection"),
        ):
            target = ["h:1"] if words[0] == "relay" else []
            assert told in complaint([own], *words, "--fd", "3", *target)


def test_a_connection_on_standard_input_needs_a_service(start: Start) -> None:
    with connection() as (own, _):
        result = start("listen", "--fd", "0", stdin=own).end()
    assert result.code == 2
    assert "add --echo or --discard" in result.err


def test_systemd_has_passed_nothing(start: Start) -> None:
    result = start("listen", "--fd", "systemd").finish()
    assert result.code == 2
    assert "--fd systemd: the environment has no LISTEN_FDS for this process" in result.err


def test_one_of_several_sockets_is_connected() -> None:
    with connection() as (own, _), tcp_server() as (listener, _):
        told = complaint([listener, own], "listen", "--fd", "systemd", listen_fds=2)
    assert "several sockets must all be listening ones" in told


USAGE = [
    (["listen", "--fd", "77"], "--fd 77: descriptor 77 is not open in this process"),
    (["listen", "--fd", "-1"], "'-1' is not the number of a descriptor, and not systemd"),
    (["listen", "--fd", "three"], "'three' is not the number of a descriptor"),
    (["listen", "--fd", "3", ANY], f"--fd takes the place of the address: leave out {ANY}"),
    (["relay", "--fd", "3"], "the following arguments are required: TARGET"),
    (["listen", "--fd"], "--fd: expected one argument"),
]


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in USAGE:
        assert main(words) == 2
        assert told in capsys.readouterr().err
