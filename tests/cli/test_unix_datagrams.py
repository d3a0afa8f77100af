"""The command with ``unix-dgram:`` targets."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.command import PATIENCE
from tests.cli.conftest import Start
from tests.tools import require_tool
from wireline.cli import main


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path, for sockets."""
    path = Path(tempfile.mkdtemp(prefix="wl-"))
    (path / "tmp").mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(place: Path) -> Iterator[socket.socket]:
    """A bound datagram socket of the standard library."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(place / "server"))
        sock.settimeout(PATIENCE)
        yield sock


def environment(place: Path) -> dict[str, str]:
    """The command makes its own files here."""
    return {"TMPDIR": str(place / "tmp")}


def left(place: Path) -> list[str]:
    return os.listdir(place / "tmp")


def test_connect_sends_datagrams_and_prints_the_replies(
    start: Start, place: Path, server: socket.socket
) -> None:
    command = start("connect", "--timeout", "0.2", f"unix-dgram:{place}/server", env=environment(place))
    command.type(b"one\ntwo\n")
    data, path = server.recvfrom(100)
    assert data == b"one\ntwo\n"  # a chunk is a datagram
    assert Path(path).parent.parent == place / "tmp"
    for reply in (b"a", b"", b"b"):
        server.sendto(reply, path)
    assert command.read(2) == b"ab"
    command.type(b"three")
    assert server.recv(100) == b"three"
    assert command.finish(b"") == (0, b"", "")
    assert left(place) == []


def test_a_server_of_another_user_may_reply_and_no_other_socket(
    start: Start, place: Path, server: socket.socket
) -> None:
    command = start("connect", "--timeout", "0.2", f"unix-dgram:{place}/server", env=environment(place))
    command.type(b"x")
    path = Path(server.recvfrom(100)[1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711  # the name of the socket is not shown
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, pytest.raises(PermissionError):
        stranger.sendto(b"forged", str(path))
    assert command.finish(b"") == (0, b"", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_the_file(
    number: signal.Signals, start: Start, place: Path, server: socket.socket
) -> None:
    command = start("connect", f"unix-dgram:{place}/server", env=environment(place))
    command.type(b"x")
    assert server.recv(10) == b"x"
    command.send_signal(number)
    assert command.end().code == 128 + number
    assert left(place) == []


def test_a_signal_in_the_moment_when_the_file_is_made(
    start: Start, place: Path, server: socket.socket
) -> None:
    for _ in range(3):
        command = start("connect", f"unix-dgram:{place}/server", env=environment(place))
        while not left(place):
            assert command.process.poll() is None
        command.send_signal(signal.SIGTERM)
        assert command.end().code == 143
        assert left(place) == []


def test_a_signal_removes_the_file_of_a_command_that_is_blocked(
    start: Start, place: Path, server: socket.socket
) -> None:
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(write, bytes(65536))
        os.set_blocking(write, True)
        command = start("connect", f"unix-dgram:{place}/server", stdout=write, env=environment(place))
        command.type(b"x")
        _, path = server.recvfrom(10)
        server.sendto(b"no space for this", path)
        command.send_signal(signal.SIGTERM)
        assert command.end().code == 143
    finally:
        os.close(read)
        os.close(write)
    assert left(place) == []


def test_a_server_that_is_gone_is_3(start: Start, place: Path, server: socket.socket) -> None:
    target = f"unix-dgram:{place}/server"
    command = start("connect", target, env=environment(place))
    command.type(b"x")
    assert server.recv(10) == b"x"
    server.close()
    result = command.finish(b"more")
    assert result.code == 3
    assert result.err.startswith(f"wireline: {target} refused the connection: nothing listens there")
    assert left(place) == []


def test_a_server_that_takes_nothing_is_4(start: Start, place: Path, server: socket.socket) -> None:
    data = place / "data"
    data.write_bytes(bytes(100 * 65507))  # more than the queue of the server and our send buffer hold
    target = f"unix-dgram:{place}/server"
    with data.open("rb") as file:
        command = start("connect", "--timeout", "0.2", target, stdin=file, env=environment(place))
        result = command.finish()
    assert (result.code, result.err) == (4, f"wireline: {target} timed out: no data accepted within 0.2 s\n")
    assert left(place) == []


def test_connecting_to_something_else_is_an_error(start: Start, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(place / "stream"))
        stream.listen()
        for name, words in (
            ("stream", f"cannot connect to unix-dgram:{place}/stream: Protocol wrong type for socket; "),
            ("nothing", f"unix-dgram:{place}/nothing does not exist; start the server first"),
        ):
            result = start("connect", f"unix-dgram:{place}/{name}", env=environment(place)).finish(b"x")
            assert result.code == 3
            assert words in result.err
    assert left(place) == []


def test_a_long_path_of_the_temporary_directory(start: Start, place: Path, server: socket.socket) -> None:
    long = place / ("x" * 100)
    long.mkdir()
    result = start("connect", f"unix-dgram:{place}/server", env={"TMPDIR": str(long)}).finish(b"")
    assert result.code == 3
    assert "set TMPDIR to a directory with a shorter path" in result.err
    assert os.listdir(long) == []


def test_without_a_temporary_directory(
    place: Path,
    server: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    target = f"unix-dgram:{place}/server"
    assert main(["connect", target]) == 3
    sentence = "cannot make a temporary directory: No usable temporary directory found"
    assert capfd.readouterr() == ("", f"wireline: cannot connect to {target}: {sentence}\n")


def test_listen_exchanges_data_with_the_first_sender_only(
    start: Start, place: Path, server: socket.socket
) -> None:
    command = start("listen", f"unix-dgram:{place}/listener")
    assert command.listening_on() == f"unix-dgram:{place}/listener"
    server.sendto(b"hello", str(place / "listener"))
    assert command.read(5) == b"hello"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"me too", str(place / "listener"))
    server.sendto(b"x" * 100_000, str(place / "listener"))  # larger than a UDP datagram
    assert command.read(100_000) == b"x" * 100_000
    command.type(b"answer")
    assert server.recv(100) == b"answer"
    assert command.finish(b"") == (0, b"", "")
    assert not (place / "listener").exists()


def test_listen_cannot_answer_a_sender_without_an_address(start: Start, place: Path) -> None:
    target = f"unix-dgram:{place}/listener"
    for answer, code in ((b"", 0), (b"answer", 1)):
        command = start("listen", "--timeout", "5", target)
        command.listening_on()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", str(place / "listener"))
        assert command.read(5) == b"hello"
        if answer:
            result = command.finish(answer)
            sentence = (
                f"wireline: communication with a client of {target} failed: it has no address to reply to\n"
            )
            assert (result.code, result.err) == (code, sentence)
        else:
            command.send_signal(signal.SIGTERM)
            assert command.end().code == 143


def test_listen_keep_prints_the_datagrams_of_all_senders(start: Start, place: Path) -> None:
    command = start("listen", "--keep", f"unix-dgram:{place}/log", stdin=subprocess.DEVNULL)
    command.listening_on()
    for line in (b"1", b"2"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(line, str(place / "log"))
        assert command.read(1) == line
    command.send_signal(signal.SIGINT)
    assert command.end() == (0, b"", "")
    assert not (place / "log").exists()


def test_echo_survives_senders_that_cannot_be_replied_to(
    start: Start, place: Path, server: socket.socket
) -> None:
    path = str(place / "echo")
    command = start("listen", "--echo", f"unix-dgram:{path}")
    command.listening_on()
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text(encoding="ascii"))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf,
    ):
        nameless.sendto(b"x", path)
        deaf.bind("")  # an abstract name
        for _ in range(queue + 2):  # one more than its own queue holds, which it does not read
            deaf.sendto(b"x", path)
        server.sendto(b"hello", path)
        assert server.recv(10) == b"hello"
    command.send_signal(signal.SIGINT)
    result = command.end()
    name = f"a client of unix-dgram:{path}"
    first, *others = result.err.splitlines()
    assert first == f"wireline: communication with {name} failed: it has no address to reply to"
    assert others
    assert set(others) == {f"wireline: {name} timed out: no data accepted within 1 s"}
    assert result.code == 0


def test_an_abstract_name(start: Start, place: Path) -> None:
    name = f"@{place.name}"
    command = start("listen", "--echo", f"unix-dgram:{name}")
    assert command.listening_on() == f"unix-dgram:{name}"
    command = start("connect", "--timeout", "0.2", "-v", f"unix-dgram:{name}")
    command.type(b"hello")
    assert command.read(5) == b"hello"
    assert command.finish(b"") == (0, b"", f"wireline: sending to unix-dgram:{name}\n")


def test_socat_as_the_peer(start: Start, place: Path) -> None:
    socat = require_tool("socat", "socat")
    command = start("listen", "--echo", f"unix-dgram:{place}/echo")
    command.listening_on()
    ran = subprocess.run(
        [socat, "-t", "0.3", "-", f"UNIX-SENDTO:{place}/echo,bind={place}/socat"],
        input=b"hello",
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    assert ran.stdout == b"hello"


@in_turn(
    "words, sentence",
    [
        (["relay", "unix-dgram:/a", "127.0.0.1:1"], "unix-dgram: has no connections"),
        (["check", "unix-dgram:/a"], "unix-dgram: has no connections"),
        (["connect", "--tls", "unix-dgram:/a"], "TLS needs a stream, and unix-dgram: has none"),
        (["listen", "--cert", "x", "unix-dgram:/a"], "--cert is for TLS: unix-dgram: has none"),
        (["connect", "--at-eof", "close", "unix-dgram:/a"], "and unix-dgram: has none: use --timeout"),
        (["connect", "--source", ":1", "unix-dgram:/a"], "a Unix socket has none"),
        (["connect", "--source", "unix-dgram:/a", "h:1"], "is not HOST:PORT, HOST or :PORT"),
        (["connect", "--interface", "lo", "unix-dgram:/a"], "--interface is for multicast groups"),
        (["connect", "unix-dgram:"], "path cannot be empty"),
        (["connect", "--at-eof", "close", "unix-dgram:https"], "and unix-dgram: has none"),
    ],
)
def test_wrong_usage(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert sentence in capsys.readouterr().err
