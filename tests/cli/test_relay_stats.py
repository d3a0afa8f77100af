"""The statistics of a relay: lines in a pipe, a table on a terminal."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE, accept, connect, read_all, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_progress import Terminal
from wireline.cli import _relay_stats
from wireline.cli._relay_stats import Moved, Rate, Traffic, show_traffic


def relay(to_server: int, to_client: int) -> Moved:
    moved = Moved()
    moved.show(to_server, to_client)
    return moved


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(_relay_stats, "monotonic", lambda: now[0])
    return now


def test_the_line_has_connections_bytes_and_rate(clock: list[float]) -> None:
    traffic = Traffic()
    assert traffic.line() == "0 open of 0, 0 B to the target, 0 B to the clients, 0 B/s"
    with traffic.counted("a", relay(1024, 10)):
        pass
    with traffic.counted("b", relay(512, 2048)):
        clock[0] += 1
        assert traffic.line() == "1 open of 2, 1.5 KiB to the target, 2.0 KiB to the clients, 3.5 KiB/s"
        clock[0] += 1
        traffic.line()
        clock[0] += 5
        assert traffic.line().endswith(" 0 B/s")


def test_a_rate_is_averaged_over_the_last_samples() -> None:
    rate = Rate()
    assert rate.update(1000, 0.0) == 0
    assert rate.update(2000, 1.0) == 1000
    assert rate.update(2000, 2.0) == 500
    assert rate.update(2000, 3.0) == 0
    assert rate.update(8000, 4.0) == 3000


def test_the_rows_are_the_newest_that_fit(clock: list[float]) -> None:
    traffic = Traffic()
    with (
        traffic.counted("a", relay(1, 1)),
        traffic.counted("b", relay(2, 2)),
        traffic.counted("c", relay(3000, 3)),
    ):
        clock[0] += 61
        assert list(traffic.rows(2)) == [
            ("c", "2.9 KiB", "3 B", "0 B/s", "1:01"),
            ("b", "2 B", "2 B", "0 B/s", "1:01"),
            ("and 1 more", "", "", "", ""),
            ("3 open of 3", "2.9 KiB", "6 B", "0 B/s", ""),
        ]


def test_without_a_terminal_there_is_one_line_per_second(start: Start) -> None:
    with tcp_server() as (server, target):
        relay = start("relay", "--stats", "127.0.0.1:0", target)
        with connect(relay.port()) as client, accept(server) as peer:
            client.sendall(bytes(2048))
            assert len(peer.recv(2048, 0x100)) == 2048  # MSG_WAITALL
            assert relay.process.stderr is not None
            lines = iter(relay.process.stderr.readline, b"")
            line = next(line.decode() for line in lines if b" 2.0 KiB" in line)
            assert re.fullmatch(r"1 open of 1, 2\.0 KiB to the target, 0 B to the clients, \S+ \S+/s\n", line)
        relay.send_signal(signal.SIGINT)
        result = relay.end()
    assert (result.code, result.out) == (0, b"")
    assert re.search(r"^0 open of 1, 2\.0 KiB to the target, 0 B to the clients, ", result.err, re.MULTILINE)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    yield terminal
    terminal.close()


def connect_when_it_listens(path: str) -> socket.socket:
    """Its output goes to the terminal, which is read later."""
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            with contextlib.ExitStack() as unless_it_works:
                sock = unless_it_works.enter_context(socket.socket(socket.AF_UNIX))
                sock.settimeout(PATIENCE)
                sock.connect(path)
                unless_it_works.pop_all()
                return sock
        except (FileNotFoundError, ConnectionRefusedError):
            assert time.monotonic() < limit
            threading.Event().wait(0.01)


@pytest.mark.parametrize("width", [80, 200])
def test_on_a_terminal_there_is_a_table(
    start: Start, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    path = str(tmp_path / "sock")
    with tcp_server() as (server, target):
        relay = start("relay", "--stats", f"unix:{path}", target, stderr=terminal.fd)
        with connect_when_it_listens(path) as client, accept(server) as peer:
            client.sendall(bytes(3000))
            assert len(peer.recv(3000, 0x100)) == 3000
            peer.close()
            client.shutdown(1)
            assert read_all(client) == b""
        relay.send_signal(signal.SIGINT)
        assert relay.end().code == 0
    lines = terminal.text().replace("\r", "").splitlines()
    assert f"listening on unix:{path}" in lines
    head = next(line for line in lines if "connection" in line)
    assert re.fullmatch(r"\s*connection\s+to target\s+to client\s+rate\s+time\s*", head)
    assert re.search(r"0 open of 1 +2\.9 KiB +0 B", "\n".join(lines[-4:]))
    assert max(len(line) for line in lines if path not in line) <= width


def test_without_rich_there_are_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_relay_stats.os, "isatty", lambda fd: True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    with show_traffic(Traffic(), wanted=True):
        pass
    assert capsys.readouterr().err.startswith("0 open of 0, ")


def test_without_stats_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with show_traffic(Traffic(), wanted=False):
        pass
    assert capsys.readouterr() == ("", "")
