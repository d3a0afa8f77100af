"""The progress line: its text, and where it must not appear."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.command import accept, read_all, tcp_server
from tests.cli.conftest import Start
from wireline.cli import _progress
from wireline.cli._progress import Counters, show_progress


class Terminal:
    """A pseudo-terminal with a screen that shows the output to ``fd``."""

    def __init__(self) -> None:
        self._master, self.fd = pty.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def text(self) -> str:
        """The text that was written, without cursor movements."""
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", self.screen())

    def screen(self) -> str:
        """All text that was written, after the last writer has closed the terminal."""
        self._close_ours()
        data = b""
        while True:
            try:
                piece = os.read(self._master, 4096)
            except OSError:  # EIO: Linux reports that the last writer has closed
                break
            if not piece:
                break
            data += piece
        return data.decode()

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def _close_ours(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self._close_ours()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    yield terminal
    terminal.close()


def counters(monkeypatch: pytest.MonkeyPatch, seconds: float, total: int | None = None) -> Counters:
    clock = [100.0]
    monkeypatch.setattr(_progress, "monotonic", lambda: clock[0])
    made = Counters(total)
    clock[0] += seconds
    return made


@in_turn(
    "taken, sent, received, seconds, total, text",
    [
        (0, 0, 0, 0.0, None, "0 B sent, 0 B received, 0 B/s, 0:00"),
        (0, 0, 0, 0.0, 0, "0 B sent, 0 B received, 0 B/s, 0:00, 100%"),
        (512, 512, 1023, 1.0, 1024, "512 B sent, 1023 B received, 1.5 KiB/s, 0:01, 50%"),
        (999, 999, 0, 61.0, 1000, "999 B sent, 0 B received, 16 B/s, 1:01, 99%"),
        (0, 3 << 20, 1 << 20, 4.0, None, "3.0 MiB sent, 1.0 MiB received, 1.0 MiB/s, 0:04"),
        (0, 0, 5 << 40, 3725.0, None, "0 B sent, 5120 GiB received, 1.4 GiB/s, 1:02:05"),
    ],
)
def test_the_progress_line_has_bytes_rate_time_and_percent(
    monkeypatch: pytest.MonkeyPatch,
    taken: int,
    sent: int,
    received: int,
    seconds: float,
    total: int | None,
    text: str,
) -> None:
    made = counters(monkeypatch, seconds, total)
    made.taken, made.sent, made.received = taken, sent, received
    assert made.describe() == text


def test_on_a_terminal_there_is_a_line_with_percent(start: Start, terminal: Terminal, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    with tcp_server() as (server, target), path.open("rb") as file:
        command = start("connect", target, stdin=file, stderr=terminal.fd)
        with accept(server) as peer:
            assert read_all(peer) == data
            peer.sendall(b"thanks")
        assert command.finish()[:2] == (0, b"thanks")
    last = terminal.text().rstrip().splitlines()[-1]
    assert re.search(r"293 KiB sent, 6 B received, \S+ \S+/s, 0:0\d, 100%", last)


def test_without_a_known_size_there_is_no_percentage(start: Start, terminal: Terminal) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target, stderr=terminal.fd)
        with accept(server) as peer:
            peer.sendall(b"hello")
            assert command.read(5) == b"hello"
        assert command.finish(b"").code == 0
    screen = terminal.text()
    assert "5 B received" in screen
    assert "%" not in screen


def test_without_a_terminal_there_is_no_progress_line(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    # These variables make other programs draw on a pipe.
    monkeypatch.setenv("FORCE_COLOR", "1")
    with tcp_server() as (server, target):
        command = start("connect", target)
        with accept(server) as peer:
            peer.sendall(b"hello")
        assert command.finish(b"") == (0, b"hello", "")


def test_the_progress_line_is_cleared_before_received_data(start: Start, terminal: Terminal) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target, stdout=terminal.fd, stderr=terminal.fd)
        with accept(server) as peer:
            command.type(b"x")
            assert peer.recv(1) == b"x"
            peer.sendall(b"hello")
        assert command.finish(b"").code == 0
    screen = terminal.screen()
    before, _, after = screen.partition("hello")
    assert "sent" in before
    assert "\x1b[2K" in before  # erased
    assert "sent" not in after


def test_there_is_no_progress_line_while_a_user_types(start: Start, terminal: Terminal) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target, stdin=terminal.fd, stdout=terminal.fd, stderr=terminal.fd)
        with accept(server) as peer:
            terminal.type(b"hello\n")
            assert peer.recv(10) == b"hello\n"
            peer.sendall(b"world")
        # The terminal stays open, and the command does not wait for it.
        assert command.finish().code == 0
    screen = terminal.text()
    assert "world" in screen
    assert "sent" not in screen


def test_an_error_is_printed_below_the_progress_line(start: Start, terminal: Terminal) -> None:
    with tcp_server() as (server, target):
        command = start("connect", "--timeout", "0.1", target, stderr=terminal.fd)
        with accept(server):
            assert command.finish(b"").code == 4
    assert terminal.text().rstrip().splitlines()[-1].startswith("wireline: ")


def test_without_rich_everything_else_works(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    with show_progress(Counters()) as clear:
        clear()
    assert capfd.readouterr() == ("", "")
