"""``wireline check`` without TLS: connections, reports and exit codes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.checked import the_report
from tests.cli.command import PATIENCE, tcp_server, unresponsive_listener
from tests.cli.conftest import Start
from tests.cli.test_signals import unanswered
from wireline.cli import main


def answers(*addresses: tuple[str, int]) -> object:
    """A resolver that knows one more name."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *others: int, **named: int) -> list[tuple[object, ...]]:
        if host != "many.test":
            return [*real(host, *others, **named)]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, own))
            for address, own in addresses
        ]

    return getaddrinfo


def test_a_plain_server_answers(start: Start) -> None:
    with tcp_server() as (_, target):
        code, out, err = start("check", target).finish()
    assert (code, err) == (0, "")
    assert re.fullmatch(
        rf"OK: {target}: connected in \d+\.\d ms\naddresses\n  {target} +\d+\.\d ms  connected\n",
        out.decode(),
    )


def test_ipv6(start: Start) -> None:
    with tcp_server("::1") as (_, target):
        code, out, err = start("check", target).finish()
    assert (code, err) == (0, "")
    assert f"  {target} " in out.decode()


def test_a_unix_socket_answers(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        code, out, err = start("check", f"unix:{path}").finish()
    assert (code, err) == (0, "")
    assert out.decode().splitlines()[2].startswith(f"  unix:{path} ")


def test_a_unix_socket_that_is_not_there_is_exit_code_3(start: Start, tmp_path: Path) -> None:
    code, out, err = start("check", f"unix:{tmp_path}/none").finish()
    assert code == 3
    assert b"No such file or directory" in out
    assert err == f"wireline: unix:{tmp_path}/none does not exist; start the server first\n"


def test_a_refused_connection_is_exit_code_3(start: Start) -> None:
    with tcp_server() as (server, target):
        server.close()
        code, out, err = start("check", target).finish()
    assert code == 3
    assert b"Connection refused" in out
    assert err.startswith(f"wireline: {target} refused the connection: nothing listens there;")


def test_no_answer_in_time_is_exit_code_4(start: Start) -> None:
    with unresponsive_listener() as (_, target):
        code, out, err = start("check", "--timeout", "0.2", target).finish()
    assert code == 4
    assert b"did not finish within 0.2 s" in out
    assert err.startswith(f"wireline: no answer from {target}: ")


def test_an_unknown_name_is_exit_code_3(start: Start) -> None:
    code, out, err = start("check", "no-such-host.invalid:80").finish()
    assert (code, out.splitlines()) == (3, [b"FAILED: " + err.removeprefix("wireline: ").strip().encode()])
    assert err.startswith("wireline: cannot find no-such-host.invalid:80: ")


def test_a_resolver_that_does_not_answer_is_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    release = threading.Event()

    def getaddrinfo(host: str, port: int, **_: int) -> list[object]:
        release.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert main(["check", "--timeout", "0.1", "many.test:80"]) == 4
    release.set()
    assert "its name was not resolved within 0.1 s" in capfd.readouterr().err


def test_every_address_is_tried_and_one_that_answers_is_enough(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with tcp_server() as (server, _):
        port = server.getsockname()[1]
        monkeypatch.setattr(
            socket, "getaddrinfo", answers(("127.0.0.2", port), ("::1", port), ("127.0.0.1", port))
        )
        assert main(["check", "--json", f"many.test:{port}"]) == 0
    found = the_report(capfd.readouterr().out)["addresses"]
    assert [(each["address"], each["connected"], each["error"]) for each in found] == [
        (f"127.0.0.2:{port}", False, "Connection refused"),
        (f"[::1]:{port}", False, "Connection refused"),
        (f"127.0.0.1:{port}", True, None),
    ]


def test_addresses_are_tried_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(unresponsive_listener())[0] for _ in range(2)]
        before = [unanswered(port) for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", answers(*(("127.0.0.1", port) for port in ports)))
        checking = threading.Thread(target=main, args=(["check", "--timeout", "20", "many.test:80"],))
        checking.start()
        limit = time.monotonic() + PATIENCE
        while any(unanswered(port) == count for port, count in zip(ports, before, strict=True)):
            assert time.monotonic() < limit
            threading.Event().wait(0.01)  # nothing signals that a connection was requested
    # The listeners are closed: the next attempts of both are refused.
    checking.join()
    assert capfd.readouterr().out.count("Connection refused") == 2


def test_each_address_is_shown_with_its_own_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        unresponsive_listener() as (one, _),
        unresponsive_listener() as (two, _),
        tcp_server() as (server, _),
    ):
        refusing = server.getsockname()[1]
        server.close()
        places = [("127.0.0.1", port) for port in (one, two, one, refusing)]
        monkeypatch.setattr(socket, "getaddrinfo", answers(*places))
        assert main(["check", "--timeout", "0.3", "many.test:80"]) == 3
    out, err = capfd.readouterr()
    rows = out.partition("addresses\n")[2]
    assert rows.count("did not finish within 0.3 s") == 2, "the same address is tried once"
    assert rows.count("Connection refused") == 1
    assert "127.0.0.1: no connection within 0.3 s" in err
    assert "127.0.0.1: Connection refused" in err


def test_all_addresses_dead_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with tcp_server() as (server, _):
        port = server.getsockname()[1]
    monkeypatch.setattr(socket, "getaddrinfo", answers(("127.0.0.1", port), ("127.0.0.2", port)))
    assert main(["check", f"many.test:{port}"]) == 3
    out, err = capfd.readouterr()
    assert out.count("Connection refused") == 2
    assert err.startswith(f"wireline: many.test:{port} refused the connection")


@in_turn(
    "words, complaint",
    [
        (["udp://127.0.0.1:9"], "udp:// has no connections"),
        (["--starttls", "smtp", "tls://127.0.0.1:9"], "write host:port"),
        (["--starttls", "gopher", "127.0.0.1:9"], "invalid choice: 'gopher'"),
        (["--days", "-1", "tls://127.0.0.1:9"], "'-1' is not a number of days"),
        (["--days", "many", "tls://127.0.0.1:9"], "'many' is not a number of days"),
        (["--ca-file", "ca.pem", "127.0.0.1:9"], "--ca-file is for TLS"),
        (["--key", "me.key", "tls://127.0.0.1:9"], "--key needs its certificate"),
        (["--tls", "unix:/run/app.sock"], "a Unix socket has none: give it with --sni NAME"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err.splitlines()[-1]


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_full_disk_is_reported(start: Start, words: tuple[str, ...]) -> None:
    with tcp_server() as (_, target):
        code, _, err = start("check", *words, target, redirect="> /dev/full").finish()
    assert (code, err) == (1, "wireline: cannot write to standard output: No space left on device\n")


def test_a_closed_pipe_is_quiet(start: Start) -> None:
    read, write = os.pipe()
    os.close(read)
    with tcp_server() as (_, target):
        command = start("check", target, stdout=write)
        os.close(write)
        assert command.finish().err == ""
    assert command.process.returncode == 1


def test_an_encoding_other_than_utf_8_is_no_failure(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s\u00f8ck"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        code, out, err = start("check", f"unix:{path}", env={"PYTHONIOENCODING": "ascii"}).finish()
    assert (code, err) == (0, "")
    assert b"s\\xf8ck" in out
