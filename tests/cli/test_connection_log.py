"""``--log-format``: the log of connections of ``listen`` and ``relay``."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cli.command import PATIENCE, Command, accept, connect, connect_unix, read_all, reset, tcp_server
from tests.cli.conftest import Start
from tests.tls import certificates
from wireline.cli._connection_log import ConnectionLog

ANY = "127.0.0.1:0"
FIELDS = ["time", "event", "peer", "local", "target", "bytes_in", "bytes_out", "seconds", "error"]
OWN = ["--cert", certificates.server().cert, "--key", certificates.server().key]


def next_event(command: Command) -> dict[str, Any]:
    assert command.process.stderr is not None
    event: dict[str, Any] = json.loads(command.process.stderr.readline())
    assert list(event) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
    return event


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def of(peer: socket.socket) -> str:
    host, port = peer.getsockname()
    return f"{host}:{port}"


def test_a_connection_is_an_open_and_a_close(start: Start) -> None:
    command = start("listen", "--echo", "--keep", "--log-format", "json", ANY)
    port = command.port()
    before = datetime.now(UTC)
    with connect(port) as peer:
        opened = next_event(command)
        peer.sendall(b"hello")
        peer.shutdown(socket.SHUT_WR)
        assert read_all(peer) == b"hello"
        closed = next_event(command)
        name = of(peer)
    assert abs(datetime.fromisoformat(opened["time"]) - before).total_seconds() < PATIENCE
    assert opened["seconds"] < 5
    del opened["time"], opened["seconds"]
    where = {"peer": name, "local": f"127.0.0.1:{port}", "target": None}
    assert opened == {"event": "open", **where, "bytes_in": 0, "bytes_out": 0, "error": None}
    assert 0 <= closed["seconds"] < PATIENCE
    del closed["time"], closed["seconds"]
    assert closed == {"event": "close", **where, "bytes_in": 5, "bytes_out": 5, "error": None}
    command.send_signal(signal.SIGTERM)
    assert command.end() == (0, b"", "")


@pytest.mark.parametrize("fault", [[], ["--fault", "chunk=7"]])
def test_a_relay_says_its_target_and_the_bytes_of_both_directions(start: Start, fault: list[str]) -> None:
    with tcp_server() as (server, target):
        command = start("relay", *fault, "--log-format", "json", ANY, target)
        with connect(command.port()) as client, accept(server) as peer:
            client.sendall(b"q" * 100)
            client.shutdown(socket.SHUT_WR)
            assert len(read_all(peer)) == 100
            peer.sendall(b"answer" * 100)
            peer.close()
            assert len(read_all(client)) == 600
            opened, closed = next_event(command), next_event(command)
    assert [opened["event"], closed["event"]] == ["open", "close"]
    assert opened["target"] == closed["target"] == target
    assert (closed["bytes_in"], closed["bytes_out"], closed["error"]) == (100, 600, None)


def test_why_it_ended_is_in_the_log_and_only_there(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start("relay", "--log-format", "json", ANY, target)
        with connect(command.port()) as client:
            client.sendall(b"x")
            peer = accept(server)
            assert peer.recv(1) == b"x"
            reset(peer)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert next_event(command)["event"] == "open"
        closed = next_event(command)
        assert closed["event"] == "close"
        assert closed["error"].startswith(f"the connection with {target} broke: ")
        server.close()
        with pytest.raises(ConnectionResetError), connect(int(closed["local"].rpartition(":")[2])) as client:
            client.recv(1)
        assert next_event(command)["event"] == "open"
        failed = next_event(command)
        assert failed["event"] == "connect-failed"
        assert failed["error"].startswith(f"{target} refused the connection")
        command.send_signal(signal.SIGTERM)
        assert command.end() == (0, b"", "")


def test_a_failed_handshake(start: Start) -> None:
    command = start("listen", "--echo", "--keep", *OWN, "--log-format", "json", f"tls://{ANY}")
    port = command.port()
    with connect(port) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert next_event(command)["event"] == "open"
        failed = next_event(command)
        assert (failed["event"], failed["peer"]) == ("handshake-failed", of(peer))
        assert "sent plain HTTP, and this is TLS" in failed["error"]
    context = ssl.create_default_context(cafile=certificates.ca_file())
    with context.wrap_socket(connect(port), server_hostname="localhost") as peer:
        peer.sendall(b"hello")
        assert peer.recv(5) == b"hello"
        peer.unwrap().close()
    assert next_event(command)["event"] == "open"
    closed = next_event(command)
    assert (closed["event"], closed["bytes_in"], closed["bytes_out"], closed["error"]) == (
        "close",
        5,
        5,
        None,
    )


def test_clients_that_are_refused(start: Start) -> None:
    words = ["--allow", "127.0.0.1", "--max", "1", "--on-full", "refuse", "--log-format", "json"]
    command = start("listen", "--echo", "--keep", *words, ANY)
    port = command.port()
    with pytest.raises(ConnectionResetError):
        with socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.9", 0)) as stranger:
            stranger.recv(1)
    refused = next_event(command)
    assert refused["event"] == "refused"
    assert refused["peer"].startswith("127.0.0.9:")
    assert (refused["error"], refused["bytes_in"]) == ("--allow does not include it", 0)
    with connect(port) as peer:
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        assert next_event(command)["event"] == "open"
        with pytest.raises(ConnectionResetError), connect(port) as second:
            second.recv(1)
        refused = next_event(command)
        assert (refused["event"], refused["error"]) == ("refused", "the server is full")
        assert refused["local"] == f"127.0.0.1:{port}"


def test_a_flood_of_refused_clients_is_counted(start: Start) -> None:
    words = ["--max", "1", "--on-full", "refuse", "--drain", "0", "--log-format", "json"]
    command = start("listen", "--echo", "--keep", *words, ANY)
    port = command.port()
    with connect(port) as peer:
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        for _ in range(100):
            with pytest.raises(ConnectionResetError), connect(port) as second:
                second.recv(1)
        command.send_signal(signal.SIGTERM)
        refused = [each for each in events(command.end().err) if each["event"] == "refused"]
    counts = [
        int(found[1]) for each in refused if (found := re.search(r"\((\d+) more clients\)", each["error"]))
    ]
    assert len(refused) - len(counts) + sum(counts) == 100
    assert len(refused) < 60


def test_limits_and_the_end_of_the_server(start: Start) -> None:
    command = start(
        "listen", "--echo", "--keep", "--idle", "0.3", "--drain", "0", "--log-format", "json", ANY
    )
    port = command.port()
    with connect(port) as peer:
        assert peer.recv(1) == b""
        assert next_event(command)["event"] == "open"
        closed = next_event(command)
        assert closed["error"] == f"{of(peer)} timed out: idle for 0.3 s"
        assert closed["seconds"] >= 0.3
    with connect(port):
        assert next_event(command)["event"] == "open"
        command.send_signal(signal.SIGTERM)
        last = command.end()
    assert last.code == 0
    assert [each["error"] for each in events(last.err)] == ["the server was stopped"]


def test_one_client_is_logged_too(start: Start) -> None:
    command = start("listen", "--log-format", "json", ANY, stdin=subprocess.DEVNULL)
    with connect(command.port()) as peer:
        peer.sendall(b"hello")
    assert [next_event(command)["event"] for _ in range(2)] == ["open", "close"]
    assert command.end() == (0, b"hello", "")


def test_text_has_the_same_fields(start: Start, tmp_path: object) -> None:
    path = f"{tmp_path}/a socket"
    command = start("listen", "--echo", "--keep", "--log-format", "text", f"unix:{path}")
    assert command.process.stderr is not None
    command.process.stderr.readline()
    with connect_unix(path) as peer:
        peer.sendall(b"hello")
        assert peer.recv(5) == b"hello"
    lines = [command.process.stderr.readline().decode() for _ in range(2)]
    local = re.escape(f'local="unix:{path}"')
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{stamp} open {local} bytes_in=0 bytes_out=0 seconds=0\.\d{{3}}\n", lines[0])
    assert re.fullmatch(rf"{stamp} close {local} bytes_in=5 bytes_out=5 seconds=\d+\.\d{{3}}\n", lines[1])


AWKWARD = 'a "b"\\ \x1b[31m\n\r\x7f\x85\u2028\udcff é 𝄞'


def test_unprintable_characters_are_escaped_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    ConnectionLog("text").write("close", {"error": AWKWARD})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.partition("error=")[2] == (r'"a \"b\"\\ \u001b[31m\u000a\u000d\u007f\u0085\u2028\udcff é 𝄞"')


def test_unprintable_characters_are_escaped_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    ConnectionLog("json").write("close", {"error": AWKWARD})
    text = capsys.readouterr().err
    assert text.endswith("}\n")
    assert text.rstrip("\n").isprintable()
    assert text.isascii()
    assert json.loads(text)["error"] == AWKWARD


def test_the_lines_of_many_connections_do_not_mix(start: Start) -> None:
    command = start("listen", "--echo", "--keep", "--log-format", "json", ANY)
    port = command.port()

    def visit() -> None:
        for _ in range(25):
            with connect(port) as peer:
                peer.sendall(b"x")
                assert peer.recv(1) == b"x"

    threads = [threading.Thread(target=visit) for _ in range(8)]
    for thread in threads:
        thread.start()
    found: dict[str, list[str]] = {}
    for _ in range(400):
        event = next_event(command)
        found.setdefault(event["peer"], []).append(event["event"])
    for thread in threads:
        thread.join()
    assert len(found) == 200
    assert all(each == ["open", "close"] for each in found.values())
    command.send_signal(signal.SIGTERM)
    assert command.end() == (0, b"", "")


# Standard error.


def echo_many(port: int, count: int) -> None:
    for _ in range(count):
        with connect(port) as peer:
            peer.sendall(b"x")
            assert peer.recv(1) == b"x"


def test_a_full_standard_error_does_not_stop_the_service(start: Start) -> None:
    read, write = os.pipe()
    command = start("listen", "--echo", "--keep", "--log-format", "json", ANY, stderr=write)
    os.close(write)
    with os.fdopen(read, "rb", 0) as reader:
        port = int(reader.readline().rpartition(b":")[2])
        echo_many(port, 1200)  # the pipe has room for a third of it, and the queue for half
        written = missing = 0
        while written + missing < 2400:  # each was written, or is counted
            line = reader.readline().decode()
            gap = re.fullmatch(r"wireline: (\d+) lines were left out: .*\n", line)
            if gap:
                missing += int(gap[1])
            else:
                written += json.loads(line)["event"] in ("open", "close")
        assert written + missing == 2400
        assert 0 < missing < 1400
        command.send_signal(signal.SIGTERM)
        assert command.process.wait(PATIENCE) == 0


def test_a_full_standard_error_does_not_delay_the_end(start: Start) -> None:
    read, write = os.pipe()
    command = start("listen", "--echo", "--keep", "--log-format", "text", ANY, stderr=write)
    os.close(write)
    with os.fdopen(read, "rb", 0) as reader:
        echo_many(int(reader.readline().rpartition(b":")[2]), 600)
        began = time.monotonic()
        command.send_signal(signal.SIGTERM)
        assert command.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
def test_a_standard_error_that_fails_does_not_stop_the_service(start: Start, redirect: str) -> None:
    with tcp_server() as (server, _):
        port = server.getsockname()[1]
    command = start(
        "listen", "--echo", "--keep", "--log-format", "json", f"127.0.0.1:{port}", redirect=redirect
    )
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            echo_many(port, 20)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < limit
            assert command.process.poll() is None
    command.send_signal(signal.SIGTERM)
    assert command.end() == (0, b"", "")


def test_a_reader_of_standard_error_may_leave(start: Start) -> None:
    read, write = os.pipe()
    command = start("listen", "--echo", "--keep", "--log-format", "json", ANY, stderr=write)
    os.close(write)
    with os.fdopen(read, "rb", 0) as reader:
        port = int(reader.readline().rpartition(b":")[2])
    echo_many(port, 20)
    command.send_signal(signal.SIGTERM)
    assert command.process.wait(PATIENCE) == 0
