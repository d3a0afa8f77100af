"""P8: the number of lines of one kind is limited, and the count of the rest is exact."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from wireline import Address, BusyError, ClosedError, SocketTimeout
from wireline._event_log import Blame, EventLog, blame
from wireline._server_common import accept_failure
from wireline.net import Socket

HERE, THERE = Address("127.0.0.1", 80), Address("127.0.0.1", 5000)


@pytest.fixture
def client() -> Iterator[Socket]:
    ours, theirs = socket.socketpair()
    with Socket.from_socket(ours) as sock, theirs:
        yield sock


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "wireline")
    return caplog


class Clock:
    """A clock that stands still until the test advances it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def timed_out(client: Socket) -> Exception:
    """Raise the error in a method of the client."""
    with pytest.raises(SocketTimeout) as caught:
        client.recv(1, timeout=0)
    return caught.value


def counted(log: pytest.LogCaptureFixture) -> list[int]:
    """The counts of the lines left out."""
    return [vars(record)["left_out"] for record in log.records if hasattr(record, "left_out")]


def test_ten_lines_of_one_kind_and_then_a_count_when_the_second_is_over(
    client: Socket, log: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """FA18: the log grew by 300 bytes with each client that reset its connection."""
    events = EventLog(HERE)
    for _ in range(15):
        events.log_end(timed_out(client), client, THERE, 1.0, in_handshake=False)
    assert len(log.records) == 10
    assert counted(log) == []
    clock.now += 0.9
    events.log_end(timed_out(client), client, THERE, 1.0, in_handshake=False)
    assert len(log.records) == 10
    clock.now += 0.2
    events.log_end(timed_out(client), client, THERE, 1.0, in_handshake=False)
    assert counted(log) == [6]
    assert len(log.records) == 12
    assert "6 more at 127.0.0.1:80 were left out: connection ended: SocketTimeout" in log.text


def test_another_event_logs_the_count_too(
    client: Socket, log: pytest.LogCaptureFixture, clock: Clock
) -> None:
    events = EventLog(HERE)
    for _ in range(11):
        events.log_end(timed_out(client), client, THERE, 1.0, in_handshake=False)
    clock.now += 2
    events.log_end(timed_out(client), client, THERE, 1.0, in_handshake=True)
    assert counted(log) == [1]
    assert log.records[-1].getMessage().startswith("no TLS handshake with 127.0.0.1:5000: ")


def test_each_kind_has_its_own_limit(client: Socket, log: pytest.LogCaptureFixture, clock: Clock) -> None:
    events = EventLog(HERE)
    for _ in range(20):
        events.log_end(timed_out(client), client, THERE, 1.0, in_handshake=False)
        events.log_end(timed_out(client), client, THERE, 1.0, in_handshake=True)
        events.log_end(KeyError(), client, THERE, 1.0, in_handshake=False)
    assert [record.levelno for record in log.records].count(logging.ERROR) == 10
    assert len(log.records) == 30
    events.flush()
    assert counted(log) == [10, 10, 10]
    events.flush()
    assert counted(log) == [10, 10, 10], "each is counted once"


def test_a_disabled_level_costs_nothing(client: Socket, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "wireline")
    events = EventLog(HERE)
    for _ in range(20):
        events.log_end(timed_out(client), client, THERE, 1.0, in_handshake=False)
    events.flush()
    assert caplog.records == []


def test_concurrent_threads_lose_no_event(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wireline._event_log._WINDOW", 0.0005)
    monkeypatch.setattr("wireline._event_log._MAX_LINES", 2)
    many, threads = 300, 4
    events = EventLog(HERE)
    all_here = threading.Barrier(threads)

    def fail() -> None:
        ours, theirs = socket.socketpair()
        with Socket.from_socket(ours) as client, theirs:
            errors = [timed_out(client) for _ in range(many)]
            all_here.wait(5)
            for error in errors:
                events.log_end(error, client, THERE, 1.0, in_handshake=False)

    runners = [threading.Thread(target=fail) for _ in range(threads)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    events.flush()
    written = len(log.records) - len(counted(log))
    assert written + sum(counted(log)) == many * threads
    assert counted(log)


def test_text_from_a_peer_stays_on_one_line(client: Socket, log: pytest.LogCaptureFixture) -> None:
    error = timed_out(client)
    error.args = ("a path\nERROR made up\x1b[2J",)
    EventLog(HERE).log_end(error, client, Address("/tmp/a\nERROR made up", 0), 1.0, in_handshake=False)
    (record,) = log.records
    assert record.getMessage().isprintable()
    assert vars(record)["error"].isprintable()


def test_a_client_that_its_handler_has_closed_has_fewer_facts(
    client: Socket, log: pytest.LogCaptureFixture
) -> None:
    error = timed_out(client)
    client.close()
    EventLog(HERE).log_end(error, client, THERE, 1.5, in_handshake=False)
    (record,) = log.records
    fields = vars(record)
    assert (fields["local"], fields["seconds"]) == ("127.0.0.1:80", 1.5)
    assert (fields["bytes_in"], fields["bytes_out"]) == (None, None)


def test_which_side_caused_the_exception(client: Socket) -> None:
    ours, theirs = socket.socketpair()
    with Socket.from_socket(ours) as other, theirs:
        his, another = timed_out(client), timed_out(other)
    with pytest.raises(ClosedError) as closed:
        other.recv(1)
    assert blame(his, client) is Blame.PEER
    assert blame(another, client) is Blame.PROGRAM, "it is of another socket"
    assert blame(closed.value, client) is Blame.CLOSED
    assert blame(SocketTimeout("recv", 1), client) is Blame.PROGRAM, "no socket has raised it"
    assert blame(BusyError(), client) is Blame.PROGRAM
    assert blame(ExceptionGroup("", [his, closed.value]), client) is Blame.PEER
    assert blame(ExceptionGroup("", [closed.value]), client) is Blame.CLOSED
    assert blame(ExceptionGroup("", [his, ExceptionGroup("", [another])]), client) is Blame.PROGRAM


def test_the_first_line_about_clients_that_cannot_be_accepted_says_what_helps() -> None:
    full = OSError(errno.EMFILE, "Too many open files")
    text = "cannot accept connections at 127.0.0.1:80: [Errno 24] Too many open files"
    advice = "raise the limit of open files with 'ulimit -n', or serve fewer clients at a time"
    where = Address("127.0.0.1", 80)
    assert accept_failure(where, full, 1) == f"{text}; {advice}"
    assert accept_failure(where, full, 8) == f"{text} (8 times)"
    assert accept_failure(where, OSError(errno.ENOMEM, "no memory"), 1).endswith(": [Errno 12] no memory")
