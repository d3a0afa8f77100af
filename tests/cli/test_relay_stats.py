"""The statistics of a relay: lines in a pipe, a table on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.command import PATIENCE, accept, connect, read_all, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_progress import Terminal
from wireline import parse_target
from wireline.cli import _relay_stats, _relay_traffic
from wireline.cli._relay_stats import _Table, head, line, show_traffic
from wireline.cli._relay_traffic import Flow, Moved, Rate, Traffic
from wireline.testing import Faults


def relay(to_server: int, to_client: int) -> Moved:
    moved = Moved()
    moved.show(to_server, to_client)
    return moved


def asked_for(
    *targets: str, fault: str = "", stats: bool = True, dump: str | None = None
) -> argparse.Namespace:
    return argparse.Namespace(
        relay_targets=[parse_target(target) for target in targets or ("h:1",)],
        balance="first",
        fault=Faults.parse(fault) if fault else None,
        stats=stats,
        dump=dump,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    for module in (_relay_stats, _relay_traffic):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_the_line_has_connections_bytes_and_both_rates(clock: list[float]) -> None:
    traffic = Traffic()
    assert line(traffic) == "0 open of 0, to target 0 B, rate 0 B/s, to client 0 B, rate 0 B/s"
    with traffic.counted("a", "t", relay(1024, 10)):
        pass
    with traffic.counted("b", "t", relay(512, 2048)):
        clock[0] += 1
        assert line(traffic) == (
            "1 open of 2, to target 1.5 KiB, rate 1.5 KiB/s, to client 2.0 KiB, rate 2.0 KiB/s"
        )
        clock[0] += 1
        line(traffic)
        clock[0] += 5
        assert line(traffic).endswith("to target 1.5 KiB, rate 0 B/s, to client 2.0 KiB, rate 0 B/s")


def test_rates_are_averaged_over_the_last_samples() -> None:
    rate = Rate()
    assert rate.update(Flow(1000, 0), 0.0) == (0, 0)
    assert rate.update(Flow(2000, 10), 1.0) == (1000, 10)
    assert rate.update(Flow(2000, 10), 2.0) == (500, 5)
    assert rate.update(Flow(2000, 30), 3.0) == (0, 10)
    assert rate.update(Flow(8000, 30), 4.0) == (3000, 10)


def test_what_is_in_force_is_above(clock: list[float]) -> None:
    assert head(asked_for("tls://h:1", fault="delay=200ms,rate=64k")) == [
        ("target", "tls://h:1"),
        ("fault", "delay=200ms,rate=64k"),
    ]
    assert head(asked_for("h:1", "unix:/x")) == [("targets", "h:1, unix:/x (first)")]


def drawn(traffic: Traffic, options: argparse.Namespace, width: int, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(_Table(traffic, options, console)._draw())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [row.rstrip() for row in text.splitlines()]


def test_the_table_has_the_newest_that_fit(clock: list[float]) -> None:
    traffic = Traffic()
    with contextlib.ExitStack() as stack:
        for name, up, down in (("127.0.0.1:1001", 1, 1), ("127.0.0.1:1002", 2, 2), ("[::1]:1003", 3000, 3)):
            stack.enter_context(traffic.counted(name, "h:1", relay(up, down)))
        clock[0] += 61
        assert drawn(traffic, asked_for(fault="chunk=1"), 80, height=9) == [
            "target h:1",
            "fault chunk=1",
            "client          to target        rate  to client        rate     time",
            "─" * 69,
            "[::1]:1003        2.9 KiB       0 B/s        3 B       0 B/s     1:01",
            "127.0.0.1:1002        2 B       0 B/s        2 B       0 B/s     1:01",
            "and 1 more",
            "",
            "3 open of 3       2.9 KiB       0 B/s        6 B       0 B/s",
        ]


def test_a_connection_that_has_ended_is_shown_for_three_seconds(clock: list[float]) -> None:
    traffic = Traffic()
    with traffic.counted("a:1", "h:1", relay(5, 6)):
        clock[0] += 2
    with contextlib.suppress(ConnectionResetError), traffic.counted("a:2", "h:1", relay(7, 8)):
        raise ConnectionResetError
    clock[0] += 3
    assert drawn(traffic, asked_for(), 80)[3:5] == [
        "a:2                7 B                    8 B      failed     0:00",
        "a:1                5 B                    6 B      closed     0:02",
    ]
    clock[0] += 0.1
    assert [row for row in drawn(traffic, asked_for(), 80) if "a:" in row] == []


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_with_several_targets_each_connection_has_its_target(clock: list[float], width: int) -> None:
    traffic = Traffic()
    options = asked_for("127.0.0.1:8081", "backend-with-a-long-name.example.com:8082")
    with traffic.counted("[2001:db8:1234:5678::1]:50123", str(options.relay_targets[1]), relay(1, 1)):
        _, titles, rule, row, _, total = drawn(traffic, options, width)
    assert titles.split() == ["client", "target", *["to", "target", "rate", "to", "client", "rate"]] + (
        ["time"] if width >= 100 else []
    )
    assert "50123 " in row, "what is cut of a name is not its port"
    assert ":8082 " in row
    assert "1 B" in row
    assert total.startswith("1 open of 1" if width > 60 else "…")
    assert max(map(len, (titles, rule, row, total))) <= width


def test_without_a_terminal_there_is_one_line_per_second(start: Start) -> None:
    with tcp_server() as (server, target):
        relay = start("relay", "--stats", "127.0.0.1:0", target)
        with connect(relay.port()) as client, accept(server) as peer:
            client.sendall(bytes(2048))
            assert len(peer.recv(2048, 0x100)) == 2048  # MSG_WAITALL
            assert relay.process.stderr is not None
            assert relay.process.stderr.readline().decode() == f"target {target}\n"
            lines = iter(relay.process.stderr.readline, b"")
            line = next(line.decode() for line in lines if b" 2.0 KiB" in line)
            assert re.fullmatch(
                r"1 open of 1, to target 2\.0 KiB, rate \S+ \S+/s, to client 0 B, rate 0 B/s\n", line
            )
        relay.send_signal(signal.SIGINT)
        result = relay.end()
    assert (result.code, result.out) == (0, b"")
    assert re.search(
        r"^0 open of 1, to target 2\.0 KiB, rate .*, to client 0 B, rate ", result.err, re.MULTILINE
    )


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
    assert f"target {target}" in lines
    titles = next(line for line in lines if "client " in line)
    assert titles.split() == ["client", "to", "target", "rate", "to", "client", "rate", "time"]
    assert re.search(r"0 open of 1 +2\.9 KiB +\S+ \S+/s +0 B +0 B/s", "\n".join(lines[-4:]))
    assert max(len(line) for line in lines if path not in line) <= width


def test_without_rich_there_are_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_relay_stats.os, "isatty", lambda fd: True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    with show_traffic(Traffic(), asked_for()):
        pass
    assert capsys.readouterr().err.startswith("target h:1\n0 open of 0, ")


def test_with_a_dump_there_are_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_relay_stats.os, "isatty", lambda fd: True)
    with show_traffic(Traffic(), asked_for(dump="hex")):
        pass
    assert capsys.readouterr().err.startswith("target h:1\n0 open of 0, ")


def test_without_stats_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with show_traffic(Traffic(), asked_for(stats=False)):
        pass
    assert capsys.readouterr() == ("", "")
