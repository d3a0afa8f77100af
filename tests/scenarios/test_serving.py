"""S7, and the other promises of ``serve``: a handler for every connection, and an orderly end."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.scenarios import tasks, tls
from tests.scenarios.flavours import Server, Sock, in_thread
from tests.scenarios.scene import (
    A_WHILE,
    PATIENCE,
    TOO_LONG,
    Scene,
    Stopwatch,
    all_of,
    begin,
    eventually,
    in_clear,
    no_descriptor_is_lost,
    over,
    over_every_stream,
    over_one,
    pattern,
    read_all,
    read_exactly,
    reset,
    soon,
    turns,
)
from wireline import Address, BusyError, SocketFlag, SocketTimeout, parse_ip_address
from wireline.net import ServerStats

pytestmark = pytest.mark.anyio

tcp = over("tcp4", "tcp6")
unix = over("unix")


async def echo(client: Sock, _: Address) -> None:
    while data := await client.recv_some():
        await client.send(data)


async def echo_lines(client: Sock, _: Address) -> None:
    async for line in client.lines():
        await client.send(line + b"\n")


class Held:
    """A handler that answers ``hello``, and then stays until it is let go."""

    def __init__(self) -> None:
        self.let_go = tasks.Event()
        self.begun = 0
        self.ended = 0

    async def __call__(self, client: Sock, _: Address) -> None:
        self.begun += 1
        await client.send(b"hello")
        await self.let_go.wait()
        self.ended += 1


async def begin_to_stop(server: Server, drain: float | None) -> tasks.Task[tuple[int, int]]:
    """Let ``stop`` get as far as counting its handlers. No event reports it; this is long enough."""
    stopping = await begin(server.stop(drain=drain))
    await tasks.sleep(0.1)
    assert not stopping.done()
    return stopping


# The work of a server.


async def test_serve_calls_the_handler_for_every_connection(scene: Scene) -> None:
    server = await scene.serve(echo)
    peers = [scene.raw_connect(server.local_addr) for _ in range(10)]
    for number, peer in enumerate(peers):
        peer.sendall(b"%d" % number)
    for number, peer in enumerate(peers):
        assert await soon(in_thread(read_exactly, peer, 1)) == b"%d" % number
    assert server.connections == 10
    for peer in peers:
        peer.shutdown(socket.SHUT_WR)
        assert await soon(all_of(peer)) == b""
    await eventually(lambda: server.connections == 0)


async def test_serve_is_there_when_it_returns_and_tells_where(scene: Scene) -> None:
    server = await scene.serve(echo)
    assert isinstance(server.local_addr, Address)
    scene.raw_connect(server.local_addr)
    where = server.local_addr
    await soon(server.stop())
    assert server.local_addr == where


async def test_S2_the_handler_gets_the_true_peer(scene: Scene) -> None:
    seen = tasks.Queue()

    async def handler(client: Sock, address: Address) -> None:
        await seen.put((address, client.peer_addr))

    server = await scene.serve(handler)
    sock = scene.bound()
    await scene.connect(sock, server.local_addr)
    assert await soon(seen.get()) == (sock.local_addr, sock.local_addr)


async def test_S3_a_served_connection_is_not_inheritable(scene: Scene) -> None:
    seen = tasks.Queue()

    async def handler(client: Sock, _: Address) -> None:
        await seen.put(os.get_inheritable(client.fileno()))

    server = await scene.serve(handler)
    scene.raw_connect(server.local_addr)
    assert await soon(seen.get()) is False


async def test_S1_many_clients_at_once_get_their_own_bytes(scene: Scene) -> None:
    server = await scene.serve(echo_lines)

    async def talk(number: int) -> None:
        sock = await scene.connected(server.local_addr)
        for count in range(10):
            await sock.send(b"%d-%d\n" % (number, count))
            assert await sock.recv_line() == b"%d-%d" % (number, count)
        sock.close()

    await soon(tasks.gather(*(talk(number) for number in range(10))))


async def test_the_client_is_closed_when_the_handler_returns(scene: Scene) -> None:
    clients: list[Sock] = []

    async def handler(client: Sock, _: Address) -> None:
        clients.append(client)
        await client.send(b"bye")

    server = await scene.serve(handler)
    assert await soon(all_of(scene.raw_connect(server.local_addr))) == b"bye"
    assert clients[0].is_closed


@pytest.mark.parametrize("buffered", [True, False])
async def test_buffering_is_as_it_was_asked_for(scene: Scene, buffered: bool) -> None:
    seen = tasks.Queue()

    async def handler(client: Sock, _: Address) -> None:
        await client.recv(1)
        await seen.put(client.has_data_buffered)

    server = await scene.serve(handler, buffered=buffered)
    scene.raw_connect(server.local_addr).sendall(b"abc")
    assert await soon(seen.get()) is buffered


# Handlers that fail.


async def test_S7_an_exception_of_a_handler_closes_its_connection_and_is_logged(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(client: Sock, _: Address) -> None:
        line = await client.recv_line()
        if line == b"fail":
            raise ZeroDivisionError("a mistake in the handler")
        await client.send(line)

    server = await scene.serve(handler)
    bystander = scene.raw_connect(server.local_addr)
    failing = scene.raw_connect(server.local_addr)
    failing.sendall(b"fail\n")
    assert await soon(all_of(failing)) == b""
    await eventually(lambda: server.connections == 1)
    (record,) = caplog.records
    assert record.name == "wireline"
    assert record.levelno == logging.ERROR
    assert "a mistake in the handler" in (record.exc_text or "")
    bystander.sendall(b"fine\n")
    assert await soon(all_of(bystander)) == b"fine"
    another = scene.raw_connect(server.local_addr)
    another.sendall(b"as before\n")
    assert await soon(all_of(another)) == b"as before"
    assert len(caplog.records) == 1


async def test_S7_a_peer_that_resets_harms_no_other(scene: Scene) -> None:
    server = await scene.serve(echo)
    peer = scene.raw_connect(server.local_addr)
    peer.sendall(b"x")
    await soon(in_thread(peer.recv, 1))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    await eventually(lambda: server.connections == 0)
    other = scene.raw_connect(server.local_addr)
    other.sendall(b"y")
    assert await soon(in_thread(read_exactly, other, 1)) == b"y"


# Stopping.


@pytest.mark.parametrize("drain", [PATIENCE, None])
async def test_S7_stop_lets_handlers_finish(scene: Scene, drain: float | None) -> None:
    held = Held()
    server = await scene.serve(held)
    peers = [scene.raw_connect(server.local_addr) for _ in range(3)]
    for peer in peers:
        assert await soon(in_thread(read_exactly, peer, 5)) == b"hello"
    stopping = await begin_to_stop(server, drain)
    with pytest.raises(OSError):
        scene.raw_connect(server.local_addr)
    held.let_go.set()
    assert await soon(stopping) == (3, 0)
    assert held.ended == 3
    for peer in peers:
        assert await soon(all_of(peer)) == b""


@pytest.mark.parametrize("drain", [0.0, 0.05])
async def test_S7_stop_closes_the_remaining_connections_at_the_deadline(scene: Scene, drain: float) -> None:
    server = await scene.serve(echo)
    peers = [scene.raw_connect(server.local_addr) for _ in range(3)]
    for peer in peers:
        peer.sendall(b"x")
        assert await soon(in_thread(read_exactly, peer, 1)) == b"x"
    with Stopwatch() as took:
        report = await soon(server.stop(drain))
    assert report == (0, 3)
    assert (report.drained, report.forced) == (0, 3)
    assert took.seconds < TOO_LONG
    assert server.connections == 0
    for peer in peers:
        assert await soon(all_of(peer)) == b""


async def test_S7_some_finish_and_some_do_not(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    server = await scene.serve(echo)
    done, stays = (scene.raw_connect(server.local_addr) for _ in range(2))
    for peer in (done, stays):
        peer.sendall(b"x")
        assert await soon(in_thread(read_exactly, peer, 1)) == b"x"
    stopping = await begin_to_stop(server, 1.0)
    done.close()
    assert await soon(stopping) == (1, 1)
    assert caplog.records == [], "what stop closed under its handler is no mistake of the handler's"


async def test_S7_stopping_a_server_without_connections(scene: Scene) -> None:
    server = await scene.serve(echo)
    with Stopwatch() as took:
        assert await soon(server.stop(drain=PATIENCE)) == (0, 0)
    assert took.seconds < TOO_LONG
    assert await soon(server.stop()) == (0, 0)


async def test_S7_every_call_of_stop_gets_the_same_report(scene: Scene) -> None:
    held = Held()
    server = await scene.serve(held)
    peer = scene.raw_connect(server.local_addr)
    await soon(in_thread(read_exactly, peer, 5))
    first = await begin_to_stop(server, PATIENCE)
    second = await begin(server.stop(drain=PATIENCE))
    assert await soon(first) == await soon(second) == (0, 1)
    assert await soon(server.stop()) == (0, 1)
    held.let_go.set()


async def test_S7_a_handler_may_stop_its_own_server(scene: Scene) -> None:
    reports = tasks.Queue()

    async def handler(client: Sock, _: Address) -> None:
        if await client.recv_line() == b"stop":
            await reports.put(await server.stop(drain=0.05))
            await client.send(b"stopped")

    server = await scene.serve(handler)
    other, stopper = (scene.raw_connect(server.local_addr) for _ in range(2))
    await eventually(lambda: server.connections == 2)
    stopper.sendall(b"stop\n")
    assert await soon(all_of(stopper)) == b"stopped"
    assert await soon(reports.get()) == (0, 1)
    assert await soon(all_of(other)) == b""
    await soon(server.wait())


async def test_S7_the_end_of_a_block_stops_the_server(scene: Scene) -> None:
    async with await scene.serve(echo) as server:
        peer = scene.raw_connect(server.local_addr)
        peer.sendall(b"x")
        assert await soon(in_thread(read_exactly, peer, 1)) == b"x"
    assert await soon(all_of(peer)) == b""
    with pytest.raises(OSError):
        scene.raw_connect(server.local_addr)


async def test_S7_wait_lasts_until_the_server_is_stopped(scene: Scene) -> None:
    server = await scene.serve(echo)
    for timeout in (0, 0.02):
        with pytest.raises(SocketTimeout) as caught:
            await server.wait(timeout)
        assert caught.value.seconds == timeout
    waiting = await begin(server.wait())
    assert not waiting.done()
    await soon(server.stop())
    await soon(waiting)
    await soon(server.wait(0))


async def test_S7_clients_that_were_not_accepted_see_the_end(scene: Scene) -> None:
    held = Held()
    server = await scene.serve(held, max_connections=1)
    first = scene.raw_connect(server.local_addr)
    await soon(in_thread(read_exactly, first, 5))
    queued = scene.raw_connect(server.local_addr)
    held.let_go.set()
    await soon(server.stop(1))
    with contextlib.suppress(ConnectionResetError):  # that is an end too
        assert read_all(queued) in (b"", b"hello")


async def test_S10_handlers_learn_that_the_server_stops(scene: Scene) -> None:
    async def handler(client: Sock, _: Address) -> None:
        while not await server.stopping.wait(PATIENCE):
            pass
        await client.send(b"good-bye")

    server = await scene.serve(handler)
    peers = [scene.raw_connect(server.local_addr) for _ in range(10)]
    await eventually(lambda: server.connections == 10)
    assert not server.stopping.is_set()
    for wrong in (-1, "1", True, float("nan")):
        with pytest.raises((TypeError, ValueError)):
            await server.stopping.wait(wrong)
    for timeout in (0, 0.02):
        assert await server.stopping.wait(timeout) is False
    assert await soon(server.stop(drain=PATIENCE)) == (10, 0)
    assert server.stopping.is_set()
    assert await server.stopping.wait(0) is True
    for peer in peers:
        assert await soon(all_of(peer)) == b"good-bye"


@pytest.mark.parametrize("how", ["stop", "request_stop"])
async def test_S10_the_event_is_set_before_the_listening_sockets_are_closed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    seen: list[bool] = []
    server = await scene.serve(echo)
    close = scene.flavour.socket_type.close

    def closing(sock: Sock, *args: object, **options: object) -> None:
        if sock in server.sockets:
            seen.append(server.stopping.is_set())
        close(sock, *args, **options)

    monkeypatch.setattr(scene.flavour.socket_type, "close", closing)
    if how == "stop":
        await soon(server.stop())
    else:
        server.request_stop()
        assert server.stopping.is_set(), "at once"
        await soon(server.wait())
    assert seen
    assert all(seen)


async def test_the_clients_of_a_server_are_those_that_are_open(scene: Scene) -> None:
    held = Held()
    server = await scene.serve(held)
    assert server.clients == ()
    peers = [scene.raw_connect(server.local_addr) for _ in range(3)]
    for peer in peers:
        await soon(in_thread(read_exactly, peer, 5))
    assert len(server.clients) == 3
    first, *others = server.clients
    assert not first.is_closed
    first.close()
    assert len(server.clients) == 2
    if not scene.transport.is_unix:
        assert {each.peer_addr for each in others} == {peer.getsockname()[:2] for peer in peers[1:]}
    held.let_go.set()
    await soon(server.stop(PATIENCE))
    assert server.clients == ()


@over_every_stream
async def test_the_statistics_of_a_server_have_closed_connections_too(scene: Scene) -> None:
    server = await scene.serve(echo_lines)
    nothing = {"refused": 0, "handshakes_failed": 0}
    for count in range(1, 4):
        sock = await scene.connected(server.local_addr)
        await sock.send(b"hello\n")
        assert await soon(sock.recv_line()) == b"hello"
        expected = {"accepted": count, "open": 1, "bytes_received": 6 * count, "bytes_sent": 6 * count}
        # The client may have the answer before the thread that has sent it goes on.
        await eventually(lambda expected=expected: server.stats == ServerStats(**expected, **nothing))
        sock.close()
        await eventually(lambda: server.connections == 0)
    if scene.transport.tls is not None:
        with socket.create_connection(server.local_addr, PATIENCE) as peer:
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            await soon(all_of(peer))
        await eventually(lambda: server.connections == 0)
    await soon(server.stop())
    handshakes = int(scene.transport.tls is not None)
    assert server.stats == ServerStats(
        accepted=3 + handshakes,
        refused=0,
        handshakes_failed=handshakes,
        open=0,
        bytes_received=18,
        bytes_sent=18,
    )


# Asking for a stop.


async def test_P4_a_request_to_stop_is_made_at_once_and_lets_handlers_finish(scene: Scene) -> None:
    """FA6: there was no way to ask for a stop that could not hang a signal handler."""
    held = Held()
    server = await scene.serve(held)
    peer = scene.raw_connect(server.local_addr)
    await soon(in_thread(read_exactly, peer, 5))
    waiting = await begin(server.wait())
    with Stopwatch() as took:
        assert server.request_stop(drain=PATIENCE) is None
    assert took.seconds < TOO_LONG
    await tasks.sleep(A_WHILE)
    assert not waiting.done()
    with pytest.raises(OSError):
        scene.raw_connect(server.local_addr)
    held.let_go.set()
    await soon(waiting)
    assert held.ended == 1
    assert await soon(server.stop()) == (1, 0)
    server.request_stop()


@pytest.mark.parametrize("first", ["stop", "request_stop"])
@pytest.mark.parametrize("second", ["stop", "request_stop"])
async def test_P4_a_second_request_ends_the_drain_of_the_first(scene: Scene, first: str, second: str) -> None:
    """FA6: a second stop() waited for as long as the first had to drain; "now" could not be said."""
    held = Held()
    server = await scene.serve(held)
    peer = scene.raw_connect(server.local_addr)
    await soon(in_thread(read_exactly, peer, 5))
    waiting = await begin(server.wait())
    stopping = []
    with Stopwatch() as took:
        for name in (first, second):
            if name == "request_stop":
                server.request_stop(drain=1000)
            else:
                stopping.append(await begin(server.stop(drain=1000), A_WHILE))
        await soon(waiting)
    assert took.seconds < TOO_LONG
    assert {await soon(stop) for stop in stopping} <= {(0, 1)}
    assert await soon(server.stop()) == (0, 1)
    held.let_go.set()


async def test_P4_a_request_of_a_handler_is_done_without_it(scene: Scene) -> None:
    async def handler(client: Sock, _: Address) -> None:
        server.request_stop(drain=PATIENCE)
        await client.send(b"stopping")
        await client.recv(1)

    server = await scene.serve(handler)
    peer = scene.raw_connect(server.local_addr)
    assert await soon(in_thread(read_exactly, peer, 8)) == b"stopping"
    peer.shutdown(socket.SHUT_WR)
    await soon(server.wait())
    assert await soon(server.stop()) == (1, 0)


@over_one
@pytest.mark.parametrize("drain", [-1, "1", float("nan"), True])
async def test_a_bad_drain_is_refused_and_stops_nothing(scene: Scene, drain: object) -> None:
    server = await scene.serve(echo)
    with pytest.raises((TypeError, ValueError)):
        server.request_stop(drain)
    peer = scene.raw_connect(server.local_addr)
    peer.sendall(b"x")
    assert await soon(in_thread(read_exactly, peer, 1)) == b"x"


# The log (P8).


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """The log records of the library, from INFO on."""
    caplog.set_level(logging.INFO, "wireline")
    return lambda: [record for record in caplog.records if record.name == "wireline"]


Log = Callable[[], list[logging.LogRecord]]


async def test_P8_a_client_that_falls_silent_is_one_line(scene: Scene, log: Log) -> None:
    """FA15: each client that was idle for the timeout cost the log a traceback of 30 lines."""

    async def shout(client: Sock, _: Address) -> None:
        async for line in client.lines(timeout=0.1):
            await client.send(line.upper() + b"\r\n")

    server = await scene.serve(shout)
    peer = scene.raw_connect(server.local_addr)
    peer.sendall(b"one\n")
    assert await soon(all_of(peer)) == b"ONE\r\n"
    await eventually(lambda: server.connections == 0)
    (record,) = log()
    assert record.levelno == logging.INFO
    assert record.exc_info is None
    assert "\n" not in record.getMessage()
    assert "SocketTimeout" in record.getMessage()
    fields = vars(record)
    assert re.fullmatch(r"SocketTimeout: .*(recv_line|lines) did not finish within 0.1 s", fields["error"])
    assert 0.05 < fields["seconds"] < PATIENCE
    if scene.transport.is_unix:
        assert (fields["bytes_in"], fields["bytes_out"]) == (None, None)
    else:
        assert fields["peer"].endswith(f":{peer.getsockname()[1]}")
        assert fields["local"].endswith(f":{server.local_addr.port}")
        assert (fields["bytes_in"], fields["bytes_out"]) == (4, 5)


@in_clear
async def test_P8_a_reset_that_a_handler_wants_to_know_of_is_one_line(scene: Scene, log: Log) -> None:
    async def handler(client: Sock, _: Address) -> None:
        await client.send(b"hello")
        await client.recv_some(flags=SocketFlag(0))

    server = await scene.serve(handler)
    peer = scene.raw_connect(server.local_addr)
    if scene.transport.is_unix:
        await soon(
            in_thread(read_exactly, peer, 1)
        )  # a Unix socket resets when it is closed with bytes unread
        peer.close()
    else:
        await soon(in_thread(read_exactly, peer, 5))
        reset(peer)
    await eventually(lambda: log())
    (record,) = log()
    assert record.levelno == logging.INFO
    assert "ConnectionResetError" in vars(record)["error"]


@over("tls12", "tls13")
async def test_P8_a_python_client_that_leaves_without_close_notify_is_one_line(
    scene: Scene, log: Log
) -> None:
    """FA15: an ordinary Python client closes TLS without close_notify, and cost the log 21 lines each time."""
    server = await scene.serve(echo_lines)

    def converse() -> bytes:
        context = ssl.create_default_context(cafile=tls.certificates.ca_file())
        raw = socket.create_connection(server.local_addr, PATIENCE)
        with context.wrap_socket(raw, server_hostname="localhost") as sock:
            sock.sendall(b"hello\n")
            return sock.recv(100)

    assert await soon(in_thread(converse)) == b"hello\n"
    await eventually(lambda: log())
    (record,) = log()
    assert record.levelno == logging.INFO
    assert record.exc_info is None
    assert "TruncatedError" in vars(record)["error"]
    assert vars(record)["bytes_in"] > len(b"hello\n")


@over("tls12", "tls13")
async def test_P8_a_handshake_that_fails_is_one_line(scene: Scene, log: Log) -> None:
    server = await scene.serve(echo_lines)
    peer = socket.create_connection(server.local_addr, PATIENCE)
    with peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        await soon(all_of(peer))
    await eventually(lambda: log())
    (record,) = log()
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("no TLS handshake with 127.0.0.1:")
    assert vars(record)["peer"] in record.getMessage()


@over("tls12")
async def test_P8_a_callback_that_fails_in_a_handshake_is_the_programs_fault(scene: Scene, log: Log) -> None:
    def choose(*_: object) -> None:
        raise ZeroDivisionError("a mistake in the callback")

    leaf = tls.certificates.server()
    context = tls.SslContext(cert_file=leaf.cert, key_file=leaf.key, server_name_callback=choose)
    server = await scene.serve(echo_lines, tls=context)
    with pytest.raises(OSError):
        await scene.connected(server.local_addr)
    await eventually(lambda: log())
    (record,) = log()
    assert record.levelno == logging.ERROR
    assert "a mistake in the callback" in logging.Formatter().format(record)


async def ask_refusing(scene: Scene, client: Sock) -> None:
    sock = scene.socket()
    where = scene.refusing().getsockname()
    await scene.connect(sock, Address(where, 0) if isinstance(where, str) else Address(*where[:2]))


async def ask_silent(scene: Scene, client: Sock) -> None:
    listener = scene.raw_listener()
    sock = scene.flavour.socket(scene.transport.family)
    with contextlib.closing(sock):
        where = listener.getsockname()
        await scene.connect(sock, Address(where, 0) if isinstance(where, str) else Address(*where[:2]))
        await sock.recv(1, timeout=0.02)


async def run_out_of_time(scene: Scene, client: Sock) -> None:
    raise TimeoutError("a mistake in the handler")


async def give_other_reason(scene: Scene, client: Sock) -> None:
    try:
        await client.recv(1, timeout=0.02)
    except SocketTimeout as error:
        raise KeyError("a mistake in the handler") from error


async def misuse(scene: Scene, client: Sock) -> None:
    await client.send("text")


async def fail_in_both(scene: Scene, client: Sock) -> None:
    try:
        await client.recv(1, timeout=0.02)
    except SocketTimeout as error:
        mistake = KeyError("a mistake in the handler")
        raise ExceptionGroup("of two tasks", [error, mistake]) from None


@over_one
@pytest.mark.parametrize(
    "fail", [ask_refusing, ask_silent, run_out_of_time, give_other_reason, misuse, fail_in_both]
)
async def test_P8_an_error_of_another_socket_is_the_programs_fault(
    scene: Scene, log: Log, fail: Callable[[Scene, Sock], Awaitable[None]]
) -> None:
    """FA15: which socket raised decides, not the type: a handler's failed connection to its own database has failed."""

    async def handler(client: Sock, _: Address) -> None:
        await fail(scene, client)

    server = await scene.serve(handler)
    peer = await scene.connected(server.local_addr)
    assert await soon(peer.recv(1)) == b""
    await eventually(lambda: log())
    (record,) = log()
    assert record.levelno == logging.ERROR
    assert "failed" in record.getMessage()
    assert "Traceback" in logging.Formatter().format(record)


async def test_P8_an_error_of_the_clients_socket_is_the_peers_doing_in_a_group_too(
    scene: Scene, log: Log
) -> None:
    async def handler(client: Sock, _: Address) -> None:
        async with tasks.TaskGroup() as group:
            group.create_task(client.recv(1, timeout=0.02))

    server = await scene.serve(handler)
    peer = await scene.connected(server.local_addr)
    assert await soon(peer.recv(1)) == b""
    await eventually(lambda: log())
    (record,) = log()
    assert record.levelno == logging.INFO, logging.Formatter().format(record)
    assert "Timeout" in record.getMessage()


@over("tcp4", "tls13")
async def test_P8_many_clients_that_fail_alike_are_ten_lines_a_second_and_a_count(
    scene: Scene, log: Log
) -> None:
    """FA18: 28,500 resets made 2.4 MB of log."""

    begun = 0

    async def handler(client: Sock, _: Address) -> None:
        nonlocal begun
        begun += 1
        await client.recv_exactly(1)

    many = 60
    server = await scene.serve(handler)
    with Stopwatch() as took:
        for _ in range(many):
            (await scene.connected(server.local_addr)).close()
        await eventually(lambda: begun == many and server.connections == 0)
    await soon(server.stop())
    left_out = [vars(record)["left_out"] for record in log() if hasattr(record, "left_out")]
    written = len(log()) - len(left_out)
    assert written + sum(left_out) == many
    assert written <= 10 * (took.seconds + 1)
    assert all(record.levelno == logging.INFO for record in log())


async def test_P8_the_programs_own_faults_are_limited_too(scene: Scene, log: Log) -> None:
    async def handler(client: Sock, _: Address) -> None:
        raise ZeroDivisionError("a mistake in the handler")

    many = 25
    server = await scene.serve(handler)
    with Stopwatch() as took:
        for _ in range(many):
            assert await soon((await scene.connected(server.local_addr)).recv(1)) == b""
        await eventually(lambda: server.connections == 0)
    await soon(server.stop())
    with_traceback = [record for record in log() if record.exc_info]
    left_out = [vars(record)["left_out"] for record in log() if hasattr(record, "left_out")]
    assert len(with_traceback) + sum(left_out) == many
    assert len(with_traceback) <= 10 * (took.seconds + 1)
    assert {record.levelno for record in log()} == {logging.ERROR}


async def test_on_error_is_called_instead_of_the_log_line(scene: Scene, log: Log) -> None:
    seen: list[tuple[Exception, bool]] = []

    async def handler(client: Sock, _: Address) -> None:
        if await client.recv_line(timeout=0.1) == b"fail":
            raise ZeroDivisionError("a mistake in the handler")

    server = await scene.serve(handler, on_error=lambda error, client: seen.append((error, client.is_closed)))
    for line in (b"fail\n", b"", b"fine\n"):
        peer = await scene.connected(server.local_addr)
        await peer.send(line)
        assert await soon(peer.recv(1)) == b""
    await eventually(lambda: server.connections == 0)
    assert [(type(error), closed) for error, closed in seen] == [
        (ZeroDivisionError, False),
        (SocketTimeout, False),
    ]
    assert log() == []


async def test_an_exception_in_on_error_is_logged_and_never_more(scene: Scene, log: Log) -> None:
    def on_error(error: Exception, client: object) -> None:
        raise KeyError("a mistake in on_error")

    async def handler(client: Sock, _: Address) -> None:
        await client.send(b"%d" % (1 // int(await client.recv_line())))

    server = await scene.serve(handler, on_error=on_error)
    for line in (b"0\n", b"1\n"):
        peer = await scene.connected(server.local_addr)
        await peer.send(line)
        assert await soon(peer.recv(1)) == (b"" if line == b"0\n" else b"1")
    (record,) = log()
    assert record.levelno == logging.ERROR
    assert "on_error" in record.getMessage()
    assert "a mistake in on_error" in logging.Formatter().format(record)


async def test_a_connection_that_stop_closes_is_no_error(scene: Scene, log: Log) -> None:
    seen: list[Exception] = []
    server = await scene.serve(echo, on_error=lambda error, client: seen.append(error))
    peer = scene.raw_connect(server.local_addr)
    peer.sendall(b"x")
    assert await soon(in_thread(read_exactly, peer, 1)) == b"x"
    server.request_stop()
    await soon(server.wait())
    assert seen == []
    assert log() == []


async def test_an_error_handler_that_is_not_callable_is_a_type_error(scene: Scene) -> None:
    with no_descriptor_is_lost(), pytest.raises(TypeError, match="on_error"):
        await scene.serve(echo, on_error="log")


# Limits.


async def test_max_connections_holds_the_next_client_back(scene: Scene) -> None:
    held = Held()
    server = await scene.serve(held, max_connections=2)
    peers = [scene.raw_connect(server.local_addr) for _ in range(3)]
    for peer in peers[:2]:
        assert await soon(in_thread(read_exactly, peer, 5)) == b"hello"
    third = await begin(in_thread(read_exactly, peers[2], 5))
    assert held.begun == server.connections == 2
    assert not third.done()
    held.let_go.set()
    assert await soon(third) == b"hello"
    await eventually(lambda: server.connections == 0)


async def test_a_server_loses_no_descriptor(scene: Scene) -> None:
    with no_descriptor_is_lost():
        server = await scene.serve(echo)
        for _ in range(5):
            peer = scene.raw_connect(server.local_addr)
            peer.sendall(b"x")
            assert await soon(in_thread(read_exactly, peer, 1)) == b"x"
            peer.close()
        await soon(server.stop(1))
        await turns()


@over_one
@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_is_a_value_error(scene: Scene, limit: int) -> None:
    with no_descriptor_is_lost(), pytest.raises(ValueError):
        await scene.serve(echo, max_connections=limit)


# Where it listens.


@tcp
async def test_an_address_that_is_taken_is_the_operating_systems_error(scene: Scene) -> None:
    taken = scene.raw_listener()
    with no_descriptor_is_lost(), pytest.raises(OSError, match="in use"):
        await scene.flavour.serve(echo, taken.getsockname()[1], scene.transport.host)


@tcp
async def test_an_address_object_is_an_address(scene: Scene) -> None:
    server = await scene.flavour.serve(echo, 0, parse_ip_address(scene.transport.host))
    async with server:
        assert server.local_addr.host == scene.transport.host


@tcp
async def test_reuse_port_lets_several_listen_on_one_port(scene: Scene) -> None:
    first = await scene.serve(echo, reuse_port=True)
    second = await scene.flavour.serve(echo, first.local_addr.port, scene.transport.host, reuse_port=True)
    async with second:
        assert second.local_addr == first.local_addr


@over("tcp4", "tcp6")
async def test_A3_the_empty_address_is_every_interface(scene: Scene) -> None:
    async with await scene.flavour.serve(echo, 0) as server:
        sock = scene.socket()
        await soon(sock.connect(scene.transport.host, server.local_addr.port))
        await soon(sock.send(b"x"))
        assert await soon(sock.recv(1)) == b"x"


@unix
async def test_S8_a_server_at_a_path_removes_it(scene: Scene) -> None:
    server = await scene.serve(echo)
    path = Path(server.local_addr.host)
    assert path.is_socket()  # noqa: ASYNC240 - a look at a path holds up no test
    with pytest.raises(OSError, match="in use"):
        await scene.flavour.serve(echo, 0, f"unix:{path}")
    await soon(server.stop())
    assert not path.exists()  # noqa: ASYNC240


@unix
async def test_a_server_at_an_abstract_name(scene: Scene) -> None:
    name = scene.path()
    async with await scene.flavour.serve(echo, 0, f"unix:@{name}") as server:
        assert server.local_addr == (f"\0{name}", 0)
        sock = scene.socket()
        await soon(sock.connect_unix(f"\0{name}"))
        await soon(sock.send(b"x"))
        assert await soon(sock.recv(1)) == b"x"


# The rights of a handler over its connection.


async def test_R11_a_handler_reads_and_writes_at_the_same_time(scene: Scene) -> None:
    data = pattern(2_000_000)

    async def handler(client: Sock, _: Address) -> None:
        got, _ = await tasks.gather(client.recv_exactly(len(data)), client.send(data))
        await client.send(b"as sent" if got == data else b"spoiled")

    server = await scene.serve(handler)
    peer = scene.raw_connect(server.local_addr)
    sending = await begin(in_thread(peer.sendall, data))
    assert await soon(in_thread(read_exactly, peer, len(data))) == data
    await soon(sending)
    assert await soon(all_of(peer)) == b"as sent"


async def test_R11_two_tasks_of_a_handler_that_read_are_one_too_many(scene: Scene) -> None:
    refused = tasks.Event()

    async def handler(client: Sock, _: Address) -> None:
        first = await begin(client.recv_line(), A_WHILE)
        with pytest.raises(BusyError):
            await client.recv_line()
        refused.set()
        await client.send(b"busy with " + await first)

    server = await scene.serve(handler)
    peer = scene.raw_connect(server.local_addr)
    reading = await begin(all_of(peer))
    await soon(refused.wait())
    peer.sendall(b"this\n")
    assert await soon(reading) == b"busy with this"
