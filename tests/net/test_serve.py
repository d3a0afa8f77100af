"""S5, S7: ``serve`` on a machine without free resources, and its end."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from wireline import AF_INET6, SAFE_DISCONN, Address, ClosedError, SocketTimeout
from wireline._listeners import ListenConfig
from wireline.net import Server, Socket, StopReport, _serve, serve

LOCALHOST = "127.0.0.1"
PATIENCE = 5.0


def echo(client: Socket, _: Address) -> None:
    while data := client.recv_some():
        client.send(data)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(server.local_addr, PATIENCE)


def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition that no event announces."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        threading.Event().wait(0.001)


class FailingAccept:
    """Makes ``accept`` fail for as long as the test asks for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: BaseException | None = None
        self.attempts = 0
        accept = socket.socket._accept  # type: ignore[attr-defined]

        def failing(sock: socket.socket) -> Any:
            self.attempts += 1
            if self.error is not None:
                raise self.error
            return accept(sock)

        monkeypatch.setattr(socket.socket, "_accept", failing)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> FailingAccept:
    return FailingAccept(monkeypatch)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(echo, 0, LOCALHOST) as server:
        yield server


# S5.


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_S5_out_of_resources_it_keeps_its_clients_and_recovers(
    failing: FailingAccept, server: Server, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    with connect(server) as kept:
        kept.sendall(b"1")
        assert kept.recv(1) == b"1"
        failing.error = OSError(code, "none left")
        before = failing.attempts
        with connect(server) as waiting:
            eventually(lambda: failing.attempts >= before + 4)
            kept.sendall(b"2")
            assert kept.recv(1) == b"2"
            (record,) = caplog.records
            assert record.levelno == logging.ERROR
            assert "none left" in record.getMessage()
            assert str(server.local_addr.port) in record.getMessage()
            failing.error = None
            waiting.sendall(b"3")
            assert waiting.recv(1) == b"3"
            assert len(caplog.records) == 1


def test_S5_it_tries_less_and_less_often_and_reports_once_a_second(
    failing: FailingAccept, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    eventually(lambda: failing.attempts)
    began = time.monotonic()
    failing.error = OSError(errno.EMFILE, "none left")
    with connect(server):
        start = time.process_time()
        threading.Event().wait(0.4)  # 5, 10, 20, 40, 80, 160 ms: the test is about the time itself
        assert failing.attempts <= 12
        assert time.process_time() - start < 0.2
        assert 1 <= len(caplog.records) <= 1 + time.monotonic() - began
        stop = time.monotonic()
        server.stop()
        assert time.monotonic() - stop < PATIENCE, "a server that waits is stopped like any other"


def test_S5_accept_itself_raises_it(failing: FailingAccept) -> None:
    failing.error = OSError(errno.EMFILE, "none left")
    with Socket() as listener:
        listener.bind_addr(0, LOCALHOST)
        listener.listen()
        for _ in range(2):
            with pytest.raises(OSError, match="none left") as caught:
                listener.accept(timeout=0)
            assert caught.value.errno == errno.EMFILE


def test_S5_without_a_thread_the_connection_is_closed_and_the_next_one_served(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def no_client_thread(thread: threading.Thread) -> None:
        if thread.name.startswith("wireline-client"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", no_client_thread)
        with connect(server) as refused:
            assert refused.recv(1) == b""
    eventually(lambda: "new thread" in caplog.text)
    assert server.connections == 0
    with connect(server) as peer:
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"


def test_C5_a_server_that_cannot_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(RuntimeError, match="new thread"):
        serve(echo, 0, LOCALHOST)


def test_S5_nothing_but_a_stop_ends_the_thread_that_accepts(
    failing: FailingAccept, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Any other exception than an OSError in accept ended the thread, and the server listened on in vain."""
    eventually(lambda: failing.attempts)
    failing.error = MemoryError("none left")
    with connect(server) as waiting:
        eventually(lambda: caplog.records)
        failing.error = None
        waiting.sendall(b"x")
        assert waiting.recv(1) == b"x"
    assert "none left" in caplog.text


# P4: asking for a stop.


def test_P4_a_request_goes_on_in_place_of_a_stop_that_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that an exception has ended leaves the handlers running; a request, or another stop, goes on."""
    let_go = threading.Event()
    server = serve(lambda client, address: let_go.wait(PATIENCE), 0, LOCALHOST)
    with connect(server):
        eventually(lambda: server.connections)
        with monkeypatch.context() as interrupted:
            interrupted.setattr(Server, "_is_over", lambda _: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                server.stop(drain=1000)
        assert server.connections == 1
        with pytest.raises(SocketTimeout):
            server.wait(0)
        server.request_stop(drain=1000)
        with pytest.raises(SocketTimeout):
            server.wait(0.02)
        let_go.set()
        server.wait(PATIENCE)
        assert server.stop() == StopReport(drained=1, forced=0)


def test_P4_requests_by_many_threads_at_once() -> None:
    for _ in range(20):
        server = serve(echo, 0, LOCALHOST)
        with connect(server) as peer:
            eventually(lambda: server.connections)  # noqa: B023 -- likewise
            all_here = threading.Barrier(4)

            def ask(number: int) -> None:
                all_here.wait(PATIENCE)  # noqa: B023 -- they are through before the next
                (server.stop if number % 2 else server.request_stop)(1000)  # noqa: B023

            threads = [threading.Thread(target=ask, args=[number]) for number in range(4)]
            for thread in threads:
                thread.start()
            server.wait(PATIENCE)
            for thread in threads:
                thread.join(PATIENCE)
            assert peer.recv(1) == b""
            assert sum(server.stop()) <= 1


# S7: handlers.


def refuses(server: Server) -> bool:
    try:
        connect(server).close()
    except ConnectionError:
        return True
    return False


class Lines:
    """Counts the lines of the server's file that all threads run."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> Lines | None:
        self.count += event == "line"  # one for each turn of a loop, too
        return self if frame.f_code.co_filename.endswith("_serve.py") else None


def test_FA28_the_end_of_a_connection_costs_a_drain_as_much_among_many_as_among_few() -> None:
    """FA28: stop(drain=) looked at all connections whenever one ended: 0.07 ms at 1,000, 0.29 ms at 9,000."""

    def work(connections: int) -> float:
        """Lines for each connection that ends."""
        let_go = [threading.Event() for _ in range(connections)]
        waiting = iter(let_go)
        lines = Lines()
        measuring = threading.gettrace()  # of the coverage, perhaps
        threading.settrace(lines)
        try:
            server = serve(lambda client, address: next(waiting).wait(PATIENCE), 0, LOCALHOST)
            with contextlib.ExitStack() as stack:
                for _ in let_go:
                    stack.enter_context(connect(server))
                eventually(lambda: server.connections == connections)
                stopping = threading.Thread(target=server.stop, args=[1000])
                stopping.start()
                eventually(lambda: refuses(server))
                before = lines.count
                for left, event in enumerate(let_go, 1):
                    event.set()
                    eventually(lambda: server.connections == connections - left)  # noqa: B023 -- at once
                stopping.join(PATIENCE)
        finally:
            threading.settrace(measuring)  # type: ignore[arg-type]
        assert lines.count > before
        return (lines.count - before) / connections

    assert work(60) < 1.5 * work(15)


def test_S7_a_handler_that_uses_its_own_closed_socket_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def careless(client: Socket, _: Address) -> None:
        client.close()
        client.recv(1)

    with serve(careless, 0, LOCALHOST) as server:
        with connect(server) as peer:
            assert peer.recv(1) == b""
        eventually(lambda: not server.connections)
    (record,) = caplog.records
    assert "closed socket" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ClosedError


def test_S7_a_handler_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serve, "_UNWIND", 0.02)
    let_go = threading.Event()
    server = serve(lambda client, address: let_go.wait(2 * PATIENCE), 0, LOCALHOST)
    with connect(server) as peer:
        eventually(lambda: server.connections)
        start = time.monotonic()
        assert server.stop() == StopReport(drained=0, forced=1)
        assert time.monotonic() - start < PATIENCE
        assert peer.recv(1) == b"", "but its connection is closed"
    let_go.set()
    eventually(lambda: not server.connections)


def test_S7_handlers_that_unwind_are_waited_for() -> None:
    unwound = threading.Event()

    def handler(client: Socket, _: Address) -> None:
        try:
            client.recv(1)
        finally:
            threading.Event().wait(0.03)
            unwound.set()

    server = serve(handler, 0, LOCALHOST)
    with connect(server):
        eventually(lambda: server.connections)
        server.stop()
    assert unwound.is_set()


def test_S7_several_handlers_stop_the_server_at_once() -> None:
    all_here = threading.Barrier(3)
    reports: list[StopReport] = []

    def handler(client: Socket, _: Address) -> None:
        all_here.wait(PATIENCE)
        reports.append(server.stop(drain=PATIENCE))

    server = serve(handler, 0, LOCALHOST)
    peers = [connect(server) for _ in range(3)]
    server.wait(PATIENCE)
    for peer in peers:
        assert peer.recv(1) == b""
        peer.close()
    eventually(lambda: len(reports) == 3)
    assert all(report.forced == 0 for report in reports)


def test_S7_stop_may_wait_forever(server: Server) -> None:
    with connect(server) as peer:
        eventually(lambda: server.connections)
        closer = threading.Timer(0.03, peer.shutdown, [socket.SHUT_WR])
        closer.start()
        assert server.stop(float("inf")) == (1, 0)
        closer.join()


@pytest.mark.parametrize("timeout", [1e12, float("inf"), None])
def test_wait_may_last_very_long(server: Server, timeout: float | None) -> None:
    stopper = threading.Timer(0.02, server.stop)
    stopper.start()
    server.wait(timeout)
    stopper.join()


def test_thread_names_have_their_purpose(server: Server) -> None:
    with connect(server) as peer:
        eventually(lambda: server.connections)
        names = {thread.name for thread in threading.enumerate()}
        assert {
            f"wireline-serve-{server.local_addr.port}",
            f"wireline-client-{peer.getsockname()[1]}",
        } <= names


@pytest.mark.parametrize("handler", [None, "echo", 1])
def test_a_handler_that_is_not_callable_is_a_type_error(handler: object) -> None:
    with pytest.raises(TypeError):
        serve(handler, 0)  # type: ignore[arg-type]


# Where it listens.


def test_without_ipv6_every_interface_is_every_interface_of_ipv4() -> None:
    class OnlyFour(Socket):
        def __init__(self, domain: int, sock_type: int, **options: Any) -> None:
            if domain == AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no such family")
            super().__init__(domain, sock_type, **options)

    config = ListenConfig.check(Socket, 0, "", None, (), None, None, 5, False, True, SAFE_DISCONN)
    (listener,) = config.open(OnlyFour, [])
    with listener:
        assert listener.local_addr.host == "0.0.0.0"
