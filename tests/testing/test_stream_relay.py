"""A relay between two sockets: every byte, every kind of end, and no descriptor left."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from wireline import ClosedError, EndOfStreamError, SocketFlag, SocketTimeout
from wireline.net import Socket
from wireline.testing import Faults, StreamRelay, _delay_line, pair
from wireline.testing._pairs import Kind
from wireline.tls import TruncatedError

PATIENCE = 10.0
NO_FLAGS = SocketFlag(0)


class Ends(NamedTuple):
    """A client and a server with a relay between them."""

    client: Socket
    server: Socket
    relay: StreamRelay
    outcome: Callable[[], Exception | None]


@contextlib.contextmanager
def linked(
    kind: Kind,
    faults: Faults | str = "",
    inner: Kind | None = None,
    tap: Callable[[Socket, bytes], object] | None = None,
) -> Iterator[Ends]:
    faults = Faults.parse(faults) if isinstance(faults, str) else faults
    with pair(kind) as near, pair(inner or kind) as far:
        relay = StreamRelay(near.server, far.client, faults, tap=tap)
        caught: list[Exception] = []

        def run() -> None:
            try:
                relay.run()
            except Exception as error:  # noqa: BLE001 - the test checks it
                caught.append(error)

        thread = threading.Thread(target=run, name="relay")
        thread.start()

        def outcome() -> Exception | None:
            thread.join(PATIENCE)
            assert not thread.is_alive()
            return caught[0] if caught else None

        try:
            yield Ends(near.client, far.server, relay, outcome)
        finally:
            relay.abort()
            outcome()
            assert near.server.is_closed
            assert far.client.is_closed


every_kind = pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
MANGLED = "delay=2ms,jitter=3ms,chunk=60000,rate=200M"


def send_all(sock: Socket, data: bytes) -> threading.Thread:
    def run() -> None:
        sock.send(data, NO_FLAGS, PATIENCE)
        sock.shutdown_write(PATIENCE)

    thread = threading.Thread(target=run, name="sender")
    thread.start()
    return thread


@pytest.mark.parametrize("faults", ["", MANGLED])
@pytest.mark.parametrize(
    ("kind", "inner"), [("tcp", "unix"), ("unix", "tls"), ("tls", "tcp"), ("tls", "tls")]
)
def test_every_byte_goes_both_ways_at_once(kind: Kind, inner: Kind, faults: str) -> None:
    up, down = random.Random(1).randbytes(1_200_000), random.Random(2).randbytes(900_000)
    with linked(kind, faults, inner) as (client, server, relay, outcome):
        senders = [send_all(client, up), send_all(server, down)]
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(server.recv(len(up) + 1, PATIENCE)))
        reader.start()
        assert client.recv(len(down) + 1, PATIENCE) == down
        for thread in (*senders, reader):
            thread.join()
        assert got == [up]
        assert outcome() is None
        assert (relay.to_server, relay.to_client) == (len(up), len(down))
        assert relay.failed_socket is None


@pytest.mark.parametrize("faults", ["", "delay=1ms"])
@every_kind
def test_a_half_close_goes_through_in_either_direction(kind: Kind, faults: str) -> None:
    for turned in (False, True):
        with linked(kind, faults) as ends:
            first, second = (ends.server, ends.client) if turned else (ends.client, ends.server)
            first.send(b"question")
            first.shutdown_write()
            assert second.recv(100, PATIENCE) == b"question"
            second.send(b"answer")
            assert first.recv(6, PATIENCE) == b"answer"
            second.send(b", and more")
            second.shutdown_write()
            assert first.recv(100, PATIENCE) == b", and more"
            assert ends.outcome() is None


@pytest.mark.parametrize("faults", ["", "delay=1ms"])
@every_kind
def test_a_slow_reader_holds_the_writer_back(kind: Kind, faults: str) -> None:
    with linked(kind, faults) as (client, server, relay, _):
        piece = bytes(1 << 16)
        sent = 0
        with pytest.raises(SocketTimeout):
            while True:
                client.send(piece, NO_FLAGS, 0.15)
                sent += len(piece)
                assert sent < 64 << 20, "the data is queued somewhere"
        assert relay.to_server <= sent
        assert server.recv(sent, PATIENCE) == bytes(sent)


def test_the_bytes_in_flight_are_limited() -> None:
    with linked("tcp", "delay=600s") as (client, _, relay, _):
        piece = bytes(1 << 20)
        sent = 0
        with pytest.raises(SocketTimeout):
            while True:
                client.send(piece, NO_FLAGS, 0.15)
                sent += len(piece)
                assert sent < 64 << 20, "the data is queued somewhere"
        assert relay.to_server == 0


def reset(sock: Socket) -> None:
    sock.close(linger=0)


@pytest.mark.parametrize("faults", ["", "delay=5ms"])
def test_data_before_a_reset_is_delivered_before_the_reset(faults: str) -> None:
    with linked("tcp", faults) as (client, server, relay, outcome):
        server.send(b"last words")
        assert client.recv(4, PATIENCE) == b"last"
        reset(server)
        assert client.recv(6, PATIENCE) == b" words"
        with pytest.raises(ConnectionResetError):
            client.recv(1, PATIENCE, NO_FLAGS)
        assert isinstance(outcome(), ConnectionResetError)
        assert relay.failed_socket is relay._server


def test_a_reset_waits_for_a_slow_reader() -> None:
    with linked("tcp") as (client, server, relay, outcome):
        with client._use("test") as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        server.send(bytes(500_000))
        limit = time.monotonic() + PATIENCE
        while relay.to_client < 500_000:  # nothing announces it
            assert time.monotonic() < limit
            threading.Event().wait(0.005)
        reset(server)
        assert client.recv(500_000, PATIENCE) == bytes(500_000)
        with pytest.raises(ConnectionResetError):
            client.recv(1, PATIENCE, NO_FLAGS)
        assert isinstance(outcome(), ConnectionResetError)


@pytest.mark.parametrize("again", range(5))  # which call gets the report of the reset is random
def test_the_answer_to_an_upload_that_is_refused_arrives_and_then_a_reset(again: int) -> None:
    """The server answers and closes with most of the upload unread: its kernel sends a reset."""
    with linked("tcp") as (client, server, _, outcome):
        with pytest.raises(SocketTimeout):
            client.send(bytes(64 << 20), NO_FLAGS, 0.1)
        assert server.recv(10, PATIENCE) == bytes(10)
        server.send(b"413 too large")
        server.close()
        assert client.recv(13, PATIENCE) == b"413 too large"
        with pytest.raises(ConnectionResetError):
            client.recv(1, PATIENCE, NO_FLAGS)
        assert isinstance(outcome(), ConnectionError)


def test_a_client_that_has_gone_ends_a_server_that_only_sends() -> None:
    with linked("tcp") as (client, server, relay, outcome):
        client.shutdown_write()
        assert server.recv(1, PATIENCE) == b""
        client.close()
        with pytest.raises(ConnectionError):
            while True:
                server.send(bytes(1 << 16), NO_FLAGS, PATIENCE)
        assert isinstance(outcome(), ConnectionError)
        assert relay.failed_socket is relay._client


def test_a_unix_peer_that_reads_no_more_can_still_send() -> None:
    with linked("unix") as (client, server, _, outcome):
        with server._use("test") as raw:
            raw.shutdown(0)  # SHUT_RD
        client.send(b"not read")
        server.send(b"but I talk")
        assert client.recv(10, PATIENCE) == b"but I talk"
        server.shutdown_write()
        assert client.recv(1, PATIENCE) == b""
        assert isinstance(outcome(), BrokenPipeError)


@every_kind
def test_abort_ends_everything_at_once(kind: Kind) -> None:
    with linked(kind) as (client, server, relay, outcome):
        client.send(b"x")
        assert server.recv(1, PATIENCE) == b"x"
        relay.abort()
        assert isinstance(outcome(), ClosedError)
        for sock in (client, server):
            with contextlib.suppress(OSError):
                assert sock.recv(1, PATIENCE, NO_FLAGS) == b""
        relay.abort()


@every_kind
def test_a_socket_that_is_closed_from_outside_ends_both_sides(kind: Kind) -> None:
    """A server with an idle limit does so; the other direction went on."""
    for faults in ("", "chunk=100", "delay=100s"):
        for side in ("_client", "_server"):
            with linked(kind, faults) as (client, server, relay, outcome):
                client.send(b"x")
                if faults != "delay=100s":
                    assert server.recv(1, PATIENCE) == b"x"
                getattr(relay, side).close()
                assert isinstance(outcome(), ClosedError)
                for sock in (client, server):
                    with contextlib.suppress(OSError):
                        assert sock.recv(1, PATIENCE, NO_FLAGS) == b""


def test_truncated_tls_is_no_end_for_the_other_side() -> None:
    with linked("tls", inner="tcp") as (client, server, _, outcome):
        client.send(b"half")
        assert server.recv(4, PATIENCE) == b"half"
        with client._use("test") as raw:
            raw.shutdown(1)  # SHUT_WR, below TLS
        with pytest.raises(ConnectionResetError):
            server.recv(1, PATIENCE, NO_FLAGS)
        assert isinstance(outcome(), TruncatedError)


# The tap.


@every_kind
@pytest.mark.parametrize("faults", ["", "chunk=30000"])
def test_a_tap_gets_every_byte_and_both_ends(kind: Kind, faults: str) -> None:
    up, down = random.Random(1).randbytes(300_000), random.Random(2).randbytes(200_000)
    seen: dict[Socket, list[bytes]] = {}
    with linked(kind, faults, tap=lambda sink, data: seen.setdefault(sink, []).append(data)) as ends:
        sending = [send_all(ends.client, up), send_all(ends.server, down)]
        assert ends.server.recv(len(up) + 1, PATIENCE) == up
        assert ends.client.recv(len(down) + 1, PATIENCE) == down
        for thread in sending:
            thread.join()
        assert ends.outcome() is None
        for sink, data in ((ends.relay._server, up), (ends.relay._client, down)):
            *pieces, end = seen[sink]
            assert (b"".join(pieces), end) == (data, b"")
            assert all(pieces)


@pytest.mark.parametrize("faults", ["", "delay=1ms"])
@pytest.mark.parametrize("turned", [False, True])
def test_an_exception_of_the_tap_resets_both_sides_and_leaves_run(turned: bool, faults: str) -> None:
    def refuse(sink: Socket, data: bytes) -> None:
        raise LookupError("not this")

    with linked("tcp", faults, tap=refuse) as (client, server, relay, outcome):
        first, second = (server, client) if turned else (client, server)
        first.send(b"x")
        assert isinstance(outcome(), LookupError)
        assert relay.failed_socket is None
        for sock in (first, second):
            with pytest.raises(ConnectionResetError):
                sock.recv(1, PATIENCE, NO_FLAGS)


# The faults.


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_reset_after(kind: Kind) -> None:
    with linked(kind, "reset-after=4k") as (client, server, relay, outcome):
        server.send(bytes(5000))
        assert client.recv(4096, PATIENCE) == bytes(4096)
        for sock in (client, server):
            with pytest.raises((ConnectionResetError, TruncatedError)):
                sock.recv(1, PATIENCE, NO_FLAGS)
        assert outcome() is None
        assert relay.to_client == 4096


def test_truncate_after() -> None:
    with linked("tcp", "truncate-after=1k") as (client, server, relay, outcome):
        server.send(bytes(2_000_000), NO_FLAGS, PATIENCE)  # lost data does not block the sender
        assert client.recv(4096, PATIENCE) == bytes(1024)
        client.send(b"the other way is open")
        client.shutdown_write()
        assert server.recv(100, PATIENCE) == b"the other way is open"
        server.shutdown_write()
        assert outcome() is None
        assert relay.to_client == 1024


@pytest.mark.parametrize("fault", ["truncate-after=5", "drop-tls-close"])
def test_over_tls_the_end_is_missing(fault: str) -> None:
    with linked("tls", fault) as (client, server, _, _):
        server.send(b"hello")
        server.shutdown_write()
        assert client.recv_exactly(5, PATIENCE) == b"hello"
        with pytest.raises(TruncatedError):
            client.recv(1, PATIENCE)


def test_chunk_is_what_a_read_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_delay_line, "PAUSE", 0.05)  # also on a busy machine
    with linked("tcp", "chunk=1") as (client, server, _, _):
        server.send(b"a line\n")
        assert client.recv_some(100, PATIENCE) == b"a"
        assert client.recv_line(PATIENCE) == b" line"


def test_delay_is_waited_for() -> None:
    with linked("tcp", "delay=300ms") as (client, server, _, _):
        server.send(b"x")
        with pytest.raises(SocketTimeout):
            client.recv(1, 0.02)
        assert client.recv(1, PATIENCE) == b"x"


def test_rate_is_not_exceeded() -> None:
    with linked("tcp", "rate=5k") as (client, server, _, _):
        server.send(bytes(2048))
        with pytest.raises(SocketTimeout):
            client.recv_exactly(2048, 0.02)
        assert client.recv_exactly(2048, PATIENCE) == bytes(2048)


def test_a_long_delay_does_not_hold_up_the_end() -> None:
    with linked("tcp", "delay=600s") as (client, server, _, outcome):
        client.send(b"x")
        client.shutdown_write()
        server.send(b"y")
        threading.Event().wait(0.05)  # for the end to arrive; no event reports it
    assert isinstance(outcome(), ClosedError)


def test_a_relay_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with linked("tcp") as (client, server, _, outcome):
        client.shutdown_write()
        server.shutdown_write()
        assert outcome() is None
        assert len(os.listdir("/proc/self/fd")) == before + 2
    with pytest.raises(EndOfStreamError), linked("tcp") as (client, server, _, _):
        server.close()
        client.recv_exactly(1, PATIENCE)
