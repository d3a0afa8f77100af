"""``wireline listen --chat``: the lines of each client to all others."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE, connect, connect_unix, read_all, receive
from tests.cli.conftest import Start
from wireline import ClosedError, EndOfStreamError
from wireline.cli._services import ChatRoom
from wireline.cli._serving import Connection


@contextlib.contextmanager
def chat_members(enter: Callable[[], socket.socket], people: int) -> Iterator[list[socket.socket]]:
    """Connect clients one after another, each when the previous one is a member.

    A client that receives a line is a member, and so is its sender.
    """
    with contextlib.ExitStack() as stack:
        first, second = present = [stack.enter_context(enter()), stack.enter_context(enter())]
        first.settimeout(0.05)
        heard = b""
        probes = 0
        while not heard:
            probes += 1
            second.sendall(b"%d\n" % probes)
            with contextlib.suppress(TimeoutError):
                heard = first.recv(1000)
        first.settimeout(PATIENCE)
        while not heard.endswith(b"%d\n" % probes):
            heard += first.recv(1000)
        while len(present) < people:
            newcomer = stack.enter_context(enter())
            newcomer.sendall(b"me\n")
            for peer in present:
                assert receive(peer, 3) == b"me\n"
            present.append(newcomer)
        yield present


def test_all_other_clients_get_the_line_unchanged(start: Start) -> None:
    command = start("listen", "--chat", "--drain", "0", "127.0.0.1:0")
    port = command.port()
    with chat_members(lambda: connect(port), 3) as (ann, bob, cyd):
        ann.sendall(b"hello\r\n\nthere\n")
        for other in (bob, cyd):
            assert receive(other, 14) == b"hello\r\n\nthere\n"
        bob.sendall(b"in two ")
        bob.sendall(b"parts\n")
        for other in (ann, cyd):
            assert receive(other, 13) == b"in two parts\n"
        # A last line without a line end gets one.
        cyd.sendall(b"bye")
        cyd.shutdown(socket.SHUT_WR)
        assert cyd.recv(1) == b""
        for other in (ann, bob):
            assert receive(other, 4) == b"bye\n"
        command.send_signal(signal.SIGINT)
        assert command.end() == (0, b"", "wireline: reset 2 connections that had not ended after 0 s\n")


def test_a_client_that_reads_nothing_is_disconnected_and_the_others_lose_no_line(
    start: Start, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    lines = b"".join(b"%0999d\n" % number for number in range(1000))
    command = start("listen", "--chat", "--drain", "0", "--timeout", "2", f"unix:{path}")
    command.listening_on()
    with chat_members(lambda: connect_unix(path), 3) as (ann, bob, slow):
        talking = threading.Thread(target=ann.sendall, args=(lines,))
        talking.start()
        assert receive(bob, len(lines)) == lines
        talking.join()
        # The lines sent before are still there, and then the end.
        with contextlib.suppress(ConnectionResetError):
            assert lines.startswith(read_all(slow))
        bob.sendall(b"still here\n")
        assert receive(ann, 11) == b"still here\n"
        command.send_signal(signal.SIGINT)
        result = command.end()
    assert result.code == 0
    first, last = result.err.splitlines()
    assert first.startswith(f"wireline: a client of unix:{path} timed out: no data accepted within 2 s")
    assert last == "wireline: reset 2 connections that had not ended after 0 s"


def test_a_client_that_never_ends_a_line_is_disconnected(start: Start) -> None:
    command = start("listen", "--chat", "--drain", "0", "127.0.0.1:0")
    port = command.port()
    with chat_members(lambda: connect(port), 3) as (ann, bob, endless):
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            endless.sendall(bytes(1_100_000))
            read_all(endless)
            endless.sendall(bytes(100_000))
        ann.sendall(b"quiet now\n")
        assert receive(bob, 10) == b"quiet now\n"
        command.send_signal(signal.SIGINT)
        result = command.end()
    assert result.code == 0
    assert "sent a line that is too long" in result.err


class LeavingClient:
    """Leaves during a send to it."""

    def __init__(self) -> None:
        self.is_in = threading.Event()
        self.leaves = threading.Event()
        self.has_left = threading.Event()
        self.closed = False

    def recv_until(self, delimiter: bytes) -> bytes:
        self.is_in.set()
        assert self.leaves.wait(PATIENCE)
        raise EndOfStreamError("recv_until", b"", "a line")

    def send(self, data: bytes, flags: object, timeout: float) -> None:
        self.leaves.set()
        assert self.has_left.wait(PATIENCE)
        raise ClosedError

    def close(self, **_: float) -> None:
        self.closed = True


class OneLineClient(LeavingClient):
    """Sends one line and leaves."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = [b"hello\n"]

    def recv_until(self, delimiter: bytes) -> bytes:
        if self._lines:
            return self._lines.pop()
        raise EndOfStreamError("recv_until", b"", "a line")


def connection_of(client: LeavingClient) -> Connection:
    connection = Connection.__new__(Connection)
    connection.client, connection.name, connection.failure = client, "a client", None  # type: ignore[assignment]
    return connection


def test_a_client_that_leaves_during_a_send_is_not_reported() -> None:
    chat = ChatRoom()
    leaving = LeavingClient()
    connection = connection_of(leaving)

    def attend() -> None:
        chat.serve(connection)
        leaving.has_left.set()

    thread = threading.Thread(target=attend)
    thread.start()
    assert leaving.is_in.wait(PATIENCE)
    chat.serve(connection_of(OneLineClient()))
    thread.join()
    assert not leaving.closed
    assert connection.failure is None
