"""``connect unix-dgram:`` to a receiver that reads nothing: a line says what it waits for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE
from tests.cli.test_progress import Terminal
from tests.cli.test_progress import terminal as terminal
from wireline.cli import _datagrams, _stderr, main
from wireline.cli._progress import Counters, show_progress


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """A bound datagram socket whose queue is full."""
    with (
        tempfile.TemporaryDirectory(prefix="wl-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        path = f"{directory}/server"
        server.bind(path)
        server.settimeout(PATIENCE)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"x", path)
        yield server


def sentence(target: str) -> str:
    return f"wireline: {target} accepts no data, its queue is full: waiting; --timeout sets a limit\n"


def test_it_says_once_that_it_waits_and_sends_when_there_is_room(
    full: socket.socket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    received = []

    def read_once_it_was_said(line: str) -> None:
        before(line)
        threading.Thread(target=read).start()

    def read() -> None:
        while (data := full.recv(100)) != b"the end\n":
            received.append(data)
        ended.set()

    ended = threading.Event()
    before = _stderr.put
    monkeypatch.setattr(_stderr, "put", read_once_it_was_said)
    monkeypatch.setattr(_datagrams, "SILENT_WAIT", 0.05)
    (tmp_path / "input").write_bytes(b"the end\n")
    target = f"unix-dgram:{full.getsockname()}"
    with (tmp_path / "input").open() as file:
        saved = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            assert main(["connect", "--quit-after", "0.1", target]) == 0
        finally:
            os.dup2(saved, 0)
            os.close(saved)
    assert ended.wait(PATIENCE)
    assert set(received) == {b"x"}
    assert capfd.readouterr() == ("", sentence(target))


def test_ctrl_c_ends_the_wait(full: socket.socket) -> None:
    target = f"unix-dgram:{full.getsockname()}"
    program = f"""
import sys
from wireline.cli import _datagrams, main
_datagrams.SILENT_WAIT = 0.05
sys.exit(main(["connect", {target!r}]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("x")
        process.stdin.flush()
        try:
            assert process.stderr.readline() == sentence(target)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_a_line_is_printed_above_the_progress_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")
    before = _stderr.put
    saved = os.dup(2)
    os.dup2(terminal.fd, 2)
    try:
        with os.fdopen(os.dup(2), "w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            with show_progress(Counters()):
                _stderr.print_stderr("a line of the command")
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert _stderr.put is before
    lines = [line.strip() for line in terminal.text().splitlines() if line.strip()]
    assert "a line of the command" in lines
    assert lines[-1].startswith("0 B sent")
