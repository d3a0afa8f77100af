"""``wireline listen`` as a process, against sockets of the standard library."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE, connect, connect_unix, read_all, receive, reset, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_relay_stats import connect_when_it_listens
from wireline.cli import _listen
from wireline.cli._exit_signals import Signals
from wireline.cli.parser._parser import parse

# One connection to standard input and output.


def test_one_connection_then_exit(start: Start) -> None:
    command = start("listen", "127.0.0.1:0")
    port = command.port()
    with connect(port) as peer:
        peer.sendall(b"question")
        assert command.read(8) == b"question"
        # The listener is closed: no client waits for an accept that never happens.
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        command.type(b"answer")
        assert peer.recv(10) == b"answer"
    assert command.finish(b"") == (0, b"", "")


def test_half_close_in_the_other_direction(start: Start) -> None:
    command = start("listen", "127.0.0.1:0", stdin=subprocess.DEVNULL)
    with connect(command.port()) as peer:
        assert peer.recv(1) == b""
        peer.sendall(b"all of it")
        assert command.read(9) == b"all of it"
    assert command.finish().code == 0


def test_the_announcement_can_be_handed_to_connect(start: Start) -> None:
    listener = start("listen", "[::1]:0")
    target = listener.listening_on()
    assert target.startswith("[::1]:")
    connector = start("connect", target)
    connector.type(b"there")
    assert listener.read(5) == b"there"
    listener.type(b"and back")
    assert connector.read(8) == b"and back"
    assert connector.finish(b"").code == 0
    assert listener.finish(b"").code == 0


def test_every_interface_is_both_families(start: Start) -> None:
    command = start("listen", "--keep", "--echo", ":0")
    port = command.port()
    for host in ("127.0.0.1", "::1"):
        with connect(port, host) as peer:
            peer.sendall(b"x")
            assert peer.recv(1) == b"x"
    in_turn = start("listen", "--keep", "0", stdin=subprocess.DEVNULL)
    port = in_turn.port()
    for host in ("127.0.0.1", "::1"):
        with connect(port, host) as peer:
            peer.sendall(b"y")
        assert in_turn.read(1) == b"y"


def test_the_port_can_be_taken_again_at_once(start: Start) -> None:
    command = start("listen", "--discard", "127.0.0.1:0")
    port = command.port()
    with connect(port) as peer:
        peer.shutdown(socket.SHUT_WR)
        # The listener's side closes first, and keeps the port in TIME_WAIT.
        assert command.finish(b"").code == 0
    again = start("listen", "--discard", f"127.0.0.1:{port}")
    assert again.port() == port


def test_crlf(start: Start) -> None:
    command = start("listen", "--crlf", "127.0.0.1:0")
    with connect(command.port()) as peer:
        command.type(b"one\n")
        assert peer.recv(10) == b"one\r\n"
    assert command.finish(b"").code == 0


def test_keep_accepts_the_next_client_and_only_the_first_gets_the_input(start: Start) -> None:
    command = start("listen", "--keep", "127.0.0.1:0")
    port = command.port()
    with connect(port) as first:
        command.type(b"input")
        assert first.recv(10) == b"input"
        first.sendall(b"1")
        assert command.read(1) == b"1"
    with connect(port) as second:
        assert second.recv(1) == b""
        second.sendall(b"2")
        assert command.read(1) == b"2"
    command.send_signal(signal.SIGINT)
    assert command.end() == (0, b"", "")


def test_keep_survives_a_reset_and_reports_it(start: Start) -> None:
    command = start("listen", "--keep", "127.0.0.1:0", stdin=subprocess.DEVNULL)
    port = command.port()
    first = connect(port)
    first.sendall(b"1")
    assert command.read(1) == b"1"
    reset(first)
    with connect(port) as second:
        second.sendall(b"2")
        assert command.read(1) == b"2"
    command.send_signal(signal.SIGTERM)
    result = command.end()
    assert result.code == 0
    assert result.err.endswith("broke: Connection reset by peer; the data is incomplete\n")


def test_keep_ends_with_its_output(start: Start) -> None:
    command = start("listen", "--keep", "127.0.0.1:0", redirect="> /dev/full")
    with connect(command.port()) as peer:
        peer.sendall(b"data")
        assert command.end().code == 1


def test_a_reset_is_6(start: Start) -> None:
    command = start("listen", "127.0.0.1:0")
    peer = connect(command.port())
    peer.sendall(b"half")
    assert command.read(4) == b"half"
    reset(peer)
    assert command.end().code == 6


def test_no_client_in_time_is_4(start: Start) -> None:
    command = start("listen", "--timeout", "0.1", "127.0.0.1:0")
    command.listening_on()
    result = command.finish(b"")
    assert result.code == 4
    assert result.err.startswith("wireline: no client on 127.0.0.1:0: ")


def test_an_address_in_use_is_1_with_advice(start: Start) -> None:
    with tcp_server() as (_, target):
        result = start("listen", target).finish(b"")
        served = start("listen", "--echo", "--keep", target).finish(b"")
    for code, out, err in (result, served):
        assert (code, out) == (1, b"")
        assert err.startswith(
            f"wireline: cannot listen on {target}: Address already in use; stop the program"
        )


def test_a_name_that_does_not_resolve_is_3(start: Start) -> None:
    result = start("listen", "no..such.invalid:0").finish(b"")
    assert result.code == 3
    assert result.err.startswith("wireline: cannot find no..such.invalid:0: ")


def test_a_name(start: Start) -> None:
    command = start("listen", "localhost:0", stdin=subprocess.DEVNULL)
    host, _, port = command.listening_on().rpartition(":")
    with connect(int(port), host.strip("[]")) as peer:
        peer.sendall(b"hi")
    assert command.finish() == (0, b"hi", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_waiting_for_the_one_connection(start: Start, number: int, code: int) -> None:
    command = start("listen", "127.0.0.1:0")
    command.port()
    command.send_signal(number)
    assert command.end() == (code, b"", "")


# Unix sockets.


def test_unix_path_and_the_file_is_gone_afterwards(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = start("listen", f"unix:{path}", stdin=subprocess.DEVNULL)
    assert command.listening_on() == f"unix:{path}"
    with connect_unix(str(path)) as peer:
        peer.sendall(b"hello")
    assert command.finish() == (0, b"hello", "")
    assert not path.exists()


def test_the_socket_file_is_removed_when_the_command_is_terminated(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = start("listen", f"unix:{path}")
    command.listening_on()
    assert path.exists()
    command.send_signal(signal.SIGTERM)
    assert command.end().code == 143
    assert not path.exists()


def test_a_path_that_cannot_be_is_1(start: Start, tmp_path: Path) -> None:
    result = start("listen", f"unix:{tmp_path}/none/socket").finish(b"")
    assert result.code == 1
    assert "No such file or directory" in result.err


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
@pytest.mark.parametrize("words", [(), ("--keep",), ("--keep", "--echo")])
def test_unix_abstract_name(start: Start, words: tuple[str, ...]) -> None:
    name = f"wireline-{uuid.uuid4()}"
    command = start("listen", *words, f"unix:@{name}")
    assert command.listening_on() == f"unix:@{name}"
    with connect_unix(f"\0{name}") as peer:
        peer.sendall(b"hello")
        if "--echo" in words:
            assert peer.recv(10) == b"hello"
        else:
            assert command.read(5) == b"hello"
    command.send_signal(signal.SIGTERM)
    assert command.end().code == 0 if words else 143


# Echo and discard.


@pytest.mark.parametrize("words", [(), ("--keep",)])
def test_echo(start: Start, words: tuple[str, ...]) -> None:
    command = start("listen", "--echo", *words, "127.0.0.1:0")
    port = command.port()
    with connect(port) as peer:
        for data in (b"a", b"\n", os.urandom(100_000)):
            peer.sendall(data)
            received = b""
            while len(received) < len(data):
                received += peer.recv(1 << 16)
            assert received == data
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""
    if words:
        assert command.process.poll() is None
        command.send_signal(signal.SIGINT)
    assert command.end() == (0, b"", "")


def test_discard(start: Start) -> None:
    command = start("listen", "--discard", "127.0.0.1:0")
    with connect(command.port()) as peer:
        peer.sendall(bytes(1_000_000))
        peer.shutdown(socket.SHUT_WR)
        assert read_all(peer) == b""
    assert command.end() == (0, b"", "")


def test_echo_keep_serves_many_at_once_and_reports_the_broken_connection(
    start: Start, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    command = start("listen", "--echo", "--keep", "--timeout", "2", f"unix:{path}")
    assert command.listening_on() == f"unix:{path}"
    with connect_unix(path) as idle, connect_unix(path) as other:
        other.sendall(b"x")
        assert other.recv(1) == b"x"
        # Both have sent nothing for too long, and are disconnected.
        assert idle.recv(1) == b""
        assert other.recv(1) == b""
    command.send_signal(signal.SIGTERM)
    result = command.end()
    assert result.code == 0
    assert result.err.count(f"wireline: a client of unix:{path} timed out: ") == 2
    assert not Path(path).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets limits of another process")
def test_a_log_record_of_the_library_is_one_line_without_a_traceback(start: Start) -> None:
    command = start("listen", "--echo", "--keep", "127.0.0.1:0")
    port = command.port()
    pid = command.process.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, used))
    assert command.process.stderr is not None
    with connect(port):
        line = command.process.stderr.readline().decode()
    assert line == (
        f"wireline: cannot accept connections at 127.0.0.1:{port}: [Errno 24] Too many open files; raise the limit of "
        "open files with 'ulimit -n', or serve fewer clients at a time\n"
    )
    command.send_signal(signal.SIGINT)
    assert command.end().code == 0


def test_at_ctrl_c_a_client_may_finish(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    signals = Signals()
    words = ["listen", "--echo", "--keep", "--drain", f"{PATIENCE}", f"unix:{path}"]
    serving = threading.Thread(target=_listen.run, args=(parse(words), signals))
    serving.start()
    with connect_when_it_listens(path) as finishing:
        finishing.sendall(b"x")
        assert finishing.recv(1) == b"x"
        ending = threading.Thread(target=signals.receive, args=(signal.SIGINT,))
        ending.start()
        finishing.sendall(b"last")
        assert receive(finishing, 4) == b"last"
        finishing.shutdown(socket.SHUT_WR)
        assert finishing.recv(1) == b""
    ending.join()
    serving.join()
    assert signals.exit_code == 0


@pytest.mark.parametrize("before", [0.005, 1.0])
def test_threads_that_wait_for_the_interpreter_ask_seldom_while_it_serves(
    before: float, tmp_path: Path
) -> None:
    """Thousands of clients that leave at once cost ten times the processor time with Python's own interval."""
    own = sys.getswitchinterval()
    sys.setswitchinterval(before)
    try:
        path = f"{tmp_path}/socket"
        signals = Signals()
        words = ["listen", "--echo", "--keep", f"unix:{path}"]
        serving = threading.Thread(target=_listen.run, args=(parse(words), signals), daemon=True)
        serving.start()
        with connect_when_it_listens(path) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert sys.getswitchinterval() == pytest.approx(max(before, 0.05))
        signals.receive(signal.SIGINT)
        serving.join()
        assert sys.getswitchinterval() == pytest.approx(before)
    finally:
        sys.setswitchinterval(own)


def test_at_ctrl_c_a_client_that_does_not_finish_is_reset(start: Start) -> None:
    command = start("listen", "--echo", "--keep", "--drain", "0.1", "127.0.0.1:0")
    with connect(command.port()) as staying:
        staying.sendall(b"x")
        assert staying.recv(1) == b"x"
        command.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionResetError):
            staying.recv(1)
        assert command.end() == (0, b"", "wireline: reset 1 connection that had not ended after 0.1 s\n")


@pytest.mark.parametrize(("words", "code"), [((), 6), (("--timeout", "2"), 4)])
def test_a_single_client_of_echo_that_resets_is_an_error(
    start: Start, words: tuple[str, ...], code: int
) -> None:
    command = start("listen", "--echo", *words, "127.0.0.1:0")
    peer = connect(command.port())
    peer.sendall(b"x")
    assert peer.recv(1) == b"x"
    if code == 6:
        reset(peer)
    assert command.end().code == code
    peer.close()


# A listener that gives up.


@pytest.mark.parametrize("service", ["--echo", "--discard"])
def test_a_service_that_gives_up_resets_and_the_sender_fails(start: Start, service: str) -> None:
    listener = start("listen", service, "--timeout", "1", "127.0.0.1:0")
    sender = start("connect", "--at-eof", "wait", listener.listening_on())
    sender.type(b"data")
    result = sender.end()
    assert result.code == 6
    assert "Connection reset by peer; the data is incomplete" in result.err
    ended = listener.end()
    assert ended.code == 4
    assert "timed out: no data received " in ended.err


@pytest.mark.parametrize("last", [b"last", b""])
def test_a_listener_that_gives_up_resets_and_the_sender_fails(start: Start, last: bytes) -> None:
    listener = start("listen", "--timeout", "1", "127.0.0.1:0", stdin=subprocess.DEVNULL)
    sender = start("connect", listener.listening_on())
    sender.type(b"data")
    ended = listener.end()
    assert (ended.code, ended.out) == (4, b"data")
    assert "timed out: no data received " in ended.err
    assert sender.finish(last).code == 6


def test_a_listener_that_cannot_write_resets(start: Start) -> None:
    listener = start("listen", "127.0.0.1:0", redirect="> /dev/full")
    sender = start("connect", "--at-eof", "wait", listener.listening_on())
    sender.type(b"data")
    assert sender.end().code == 6
    assert listener.end().code == 1
