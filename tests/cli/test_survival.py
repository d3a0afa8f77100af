"""Bad surroundings of every command: a closed pipe, a full disk, no terminal, and bytes that are not text."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cases import few_in_sample
from tests.cli.command import PATIENCE, Command, accept, connect_unix, receive, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_help import commands
from tests.cli.test_relay_stats import connect_when_it_listens
from tests.tls import certificates

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def place(tmp_path: Path) -> str:
    """The path of a Unix socket: its address cannot be read from standard error if that is closed."""
    return f"unix:{tmp_path}/sock"


def play(command: str, start: Start, place: str, **streams: object) -> Command:
    """Run a command to its end, as far as possible."""
    match command:
        case "connect":
            with tcp_server() as (server, target):
                running = start("connect", target, **streams)
                with accept(server) as peer:
                    peer.sendall(EVERY_BYTE)
                running.process.wait(PATIENCE)
        case "listen":
            running = start("listen", place, **streams)
            with connect_when_it_listens(place.removeprefix("unix:")) as client:
                client.sendall(EVERY_BYTE)
                with contextlib.suppress(OSError):  # it has exited already if it could not write
                    client.shutdown(socket.SHUT_WR)
                running.process.wait(PATIENCE)
        case "relay":
            running = _play_relay(start, place, **streams)
        case "check":
            with tcp_server() as (_, target):
                running = start("check", target, **streams)
                running.process.wait(PATIENCE)
        case _:
            running = start("completion", "fish", **streams)
            running.process.wait(PATIENCE)
    return running


def _play_relay(start: Start, place: str, **streams: object) -> Command:
    with tcp_server() as (server, target):
        running = start("relay", "--stats", place, target, **streams)
        with connect_when_it_listens(place.removeprefix("unix:")) as client, accept(server) as peer:
            client.sendall(EVERY_BYTE)
            assert receive(peer, 256) == EVERY_BYTE
            peer.sendall(EVERY_BYTE)
            assert receive(client, 256) == EVERY_BYTE
        running.send_signal(signal.SIGINT)
        running.process.wait(PATIENCE)
    return running


def complaints(command: Command) -> list[str]:
    """The errors on standard error, without the announcement, the statistics and the message about the drain."""
    lines = command.end().err.splitlines()
    return [line for line in lines if line.startswith("wireline: ") and "Ctrl-C again" not in line]


WRITES = {"connect": True, "listen": True, "relay": False, "check": True, "twin": True, "completion": True}
"""The commands that write to standard output."""


def test_every_command_is_here() -> None:
    assert list(WRITES) == commands()


@pytest.mark.parametrize("command", WRITES)
def test_a_closed_pipe_is_quiet_and_exit_code_1(start: Start, place: str, command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        running = play(command, start, place, stdin=subprocess.DEVNULL, stdout=write)
    finally:
        os.close(write)
    assert (running.process.returncode, complaints(running)) == (int(WRITES[command]), [])


@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize(
    ("redirect", "reason"),
    [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
    ids=["full", "closed"],
)
def test_a_full_disk_is_reported_and_exit_code_1(
    start: Start, place: str, command: str, redirect: str, reason: str
) -> None:
    running = play(command, start, place, stdin=subprocess.DEVNULL, redirect=redirect)
    told = [f"wireline: cannot write to standard output: {reason}"] if WRITES[command] else []
    assert (running.process.returncode, complaints(running)) == (int(WRITES[command]), told)


NO_TERMINAL = ["< /dev/null", "<&-", "<&- 2>&-", "<&- 2> /dev/full"]


@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize("redirect", few_in_sample(NO_TERMINAL, "< /dev/null", "<&- 2>&-"))
def test_no_terminal_is_needed(start: Start, place: str, command: str, redirect: str) -> None:
    """There is no controlling terminal either: each command runs in its own session."""
    running = play(command, start, place, redirect=redirect, env={"TERM": ""})
    assert running.process.returncode == 0
    _, out, err = running.end()
    assert "\x1b" not in err
    match command:
        case "connect" | "listen":
            assert out == EVERY_BYTE
        case "relay":
            assert out == b""
        case _:
            assert out.isascii()
            assert b"\x1b" not in out


LOCALES = pytest.mark.parametrize(
    "env", [{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}]
)


@LOCALES
def test_connect_passes_any_byte(start: Start, env: dict[str, str]) -> None:
    with tcp_server() as (server, target):
        command = start("connect", target, env=env)
        command.type(EVERY_BYTE)
        with accept(server) as peer:
            peer.sendall(EVERY_BYTE[::-1])
            assert receive(peer, 256) == EVERY_BYTE
        assert command.finish(b"") == (0, EVERY_BYTE[::-1], "")


@LOCALES
def test_listen_passes_any_byte_also_in_a_path(start: Start, tmp_path: Path, env: dict[str, str]) -> None:
    path = f"{tmp_path}/s\udcff\udcfe"  # bytes of the command line that are not UTF-8
    command = start("listen", f"unix:{path}", env=env)
    assert command.process.stderr is not None
    assert command.process.stderr.readline().startswith(b"listening on unix:/")
    command.type(EVERY_BYTE)
    with connect_unix(path) as client:
        client.sendall(EVERY_BYTE[::-1])
        assert receive(client, 256) == EVERY_BYTE
    assert command.finish(b"") == (0, EVERY_BYTE[::-1], "")


@LOCALES
def test_relay_passes_any_byte_also_in_a_path(start: Start, tmp_path: Path, env: dict[str, str]) -> None:
    path = f"{tmp_path}/s\udcff\udcfe"
    running = _play_relay(start, f"unix:{path}", env=env)
    assert (running.process.returncode, complaints(running)) == (0, [])


@LOCALES
def test_bytes_that_are_no_name_are_refused(start: Start, env: dict[str, str]) -> None:
    code, out, err = start("check", "s\udcff\udcfe:80", env=env).finish()
    assert (code, out) == (2, b"")
    assert err.startswith(r"wireline: TARGET: 's\udcff\udcfe' is not a host name: ")
    assert err.count("\n") == 1


@LOCALES
def test_completion_refuses_bytes_that_are_not_a_shell(start: Start, env: dict[str, str]) -> None:
    code, out, err = start("completion", "s\udcff\udcfe", env=env).finish()
    assert (code, out) == (2, b"")
    assert err.startswith("wireline: SHELL: invalid choice: ")
    assert err.count("\n") == 1


def test_a_key_file_that_is_not_text_is_reported(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"me\xff:00ff\n")
    file.chmod(0o600)
    result = start("connect", "--psk-file", str(file), "tls://127.0.0.1:9").finish(b"")
    assert (result.code, result.out) == (1, b"")
    assert result.err == (
        f"wireline: cannot use TLS: {file} is not UTF-8 text: write a line IDENTITY:KEYHEX for each key\n"
    )


@pytest.mark.parametrize("words", [["--ca-file"], ["--cert"]])
def test_a_file_without_a_certificate_is_reported(start: Start, tmp_path: Path, words: list[str]) -> None:
    file = tmp_path / "file.pem"
    file.write_bytes(EVERY_BYTE)
    trusted = [] if "--ca-file" in words else ["--ca-file", certificates.ca_file()]
    result = start("connect", *trusted, *words, str(file), "tls://127.0.0.1:9").finish(b"")
    assert (result.code, result.out) == (1, b"")
    assert result.err.startswith("wireline: cannot use TLS: ")
    assert result.err.count("\n") == 1
