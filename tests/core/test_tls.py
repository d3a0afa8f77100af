"""A stream core with TLS inside: the same answers as a plain one, an end that is never quiet, and its output."""

from __future__ import annotations

import errno
import itertools
import os
import random
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import NoReturn, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import in_turn
from tests.core.model import FRAMED_TEXTS, REQUESTS, NaiveStream, Outcome, Request, ask, framed_scripts
from tests.core.test_tls_engine import both_versions, contexts, depth, pieces, versions
from wireline._core.frames import frame_format, struct_of
from wireline._core.locked_tls import LockedTlsCore
from wireline._core.stream import StreamCore
from wireline._core.tls import SEND_CHUNK, TlsCore
from wireline._core.tls_engine import RECORD
from wireline.errors import EndOfStreamError
from wireline.options import SAFE_DISCONN, SocketFlag
from wireline.tls import TruncatedError

UNSAFE = SocketFlag(0)

T = TypeVar("T")
U = TypeVar("U")


one_loop_or_shared = pytest.mark.parametrize("shared", [False, True], ids=["one loop", "shared"])


def new_pair(
    version: ssl.TLSVersion, *, ragged_eof: bool = False, buffered: bool = True, shared: bool = False
) -> list[TlsCore]:
    client, server = contexts(version, ragged_eof=ragged_eof)
    pair = [client._client_core("localhost", 0, shared=shared), server._server_core(shared=shared)]
    for core in pair:
        core.buffered = buffered
    return pair


def out(core: TlsCore) -> bytes:
    """All output that is to be sent."""
    wire = b""
    while data := bytes(core.pending_output()):
        wire += data
        core.sent(len(data))
    assert not core.has_output
    return wire


def shake(client: TlsCore, server: TlsCore) -> None:
    """Shake hands as the sockets do, to the last byte."""
    done = [False, False]
    ends = (client, server)
    me = 0
    while not all(done):
        if not done[me]:
            ends[me].handshake_input()
            done[me] = ends[me].handshake()
        if wire := out(ends[me]):
            ends[1 - me].feed(wire)
        me = 1 - me


def connected(
    version: ssl.TLSVersion,
    *,
    ragged_eof: bool = False,
    buffered: bool = True,
    shared: bool = False,
    layers: int = 1,
) -> list[TlsCore]:
    """Two cores, with so many layers of TLS between them, one inside the other."""
    pair = new_pair(version, ragged_eof=ragged_eof, buffered=buffered, shared=shared)
    shake(*pair)
    for _ in range(1, layers):
        inner = new_pair(version, ragged_eof=ragged_eof, buffered=buffered, shared=shared)
        for core, outer in zip(inner, pair, strict=True):
            core.enter_layer(outer)
        shake(*inner)
        pair = inner
    return pair


def arrive(core: TlsCore, data: bytes) -> bytes | None:
    """Give received bytes to a core as its socket does."""
    if not isinstance(core, LockedTlsCore):
        return core.accept(data)
    core.inbox = data
    answer = core.accept_inbox()
    core.done()
    return answer


def said(core: TlsCore, data: bytes) -> bytes:
    wire = b""
    for start in range(0, len(data), SEND_CHUNK):
        core.encrypt(data[start : start + SEND_CHUNK])
        wire += out(core)
    return wire


# ------------------------------------------------------------------------------------------------- requests


def drive(core: TlsCore, wire: Iterable[bytes], end: OSError | None, script: list[Request]) -> list[Outcome]:
    """Answer each request as a socket does: the next piece is fed when the answer is "not yet"."""
    waiting = iter(wire)
    outcomes: list[Outcome] = []
    for request in script:
        outcome: Outcome = None
        while outcome is None and (outcome := ask(core, request)) is None:
            assert core.recv_size > 0
            if piece := next(waiting, b""):
                outcome = arrive(core, piece)  # they may be the answer as they are
            elif end is None:
                core.feed(b"")
            else:
                core.fail(end)
        outcomes.append(outcome)
    return outcomes


@given(
    versions,
    st.lists(st.sampled_from((b"\n", b"a\r\n", b"word", b"\r", b"x" * 200)), max_size=30).map(b"".join)
    | FRAMED_TEXTS,
    framed_scripts(REQUESTS),
    st.lists(st.integers(0, 5000), max_size=20),
    st.booleans(),
    st.sampled_from((1, 1, 2, 3)),
)
@settings(max_examples=60)  # each is two handshakes for each layer
def test_a_script_has_the_same_answers_as_in_clear(
    version: ssl.TLSVersion, data: bytes, script: list[Request], places: list[int], shared: bool, layers: int
) -> None:
    plain = NaiveStream()
    plain.data, plain.ended = data, True
    expected = [plain.answer(request) for request in script]
    for where in (places, range(5000)):
        client, server = connected(version, shared=shared, layers=layers)
        wire = said(server, data)
        server.close_notify()
        wire += out(server)
        assert drive(client, pieces(wire, where), None, script) == expected


READS: dict[str, Callable[[StreamCore], bytes | memoryview | None]] = {
    "recv": lambda core: core.recv(100),
    "recv_unsafe": lambda core: core.recv(100, UNSAFE),
    "recv_peek": lambda core: core.recv(100, SocketFlag.PEEK | SAFE_DISCONN),
    "recv_some": lambda core: core.recv_some(100),
    "recv_exactly": lambda core: core.recv_exactly(100),
    "recv_until": lambda core: core.recv_until(b"\n", 100),
    "recv_line": lambda core: core.recv_line(100),
    "skip": lambda core: core.skip(100),
    "recv_struct": lambda core: bytes(core.recv_struct(struct_of("100s")) or b""),
    "recv_frame": lambda core: bytes(core.recv_frame(frame_format("!I", -1, 0, 100)) or b""),
    "frames": lambda core: bytes(core.frames(frame_format("!I", -1, 0, 100), SAFE_DISCONN) or b""),
    "fill": lambda core: core.fill(100),
}
RESETS = [None, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED]


@in_turn("code", RESETS)
@both_versions
def test_T3_a_cut_is_truncated_in_every_read_after_the_data_before_it(
    version: ssl.TLSVersion, code: int | None
) -> None:
    client, server = connected(version)
    wire = said(server, b"complete") + said(server, b"incomplete")[:-1]
    client.feed(wire)
    if code is None:
        client.feed(b"")
    else:
        client.fail(OSError(code, "gone"))
    assert client.recv_some(100) == b"complete"
    for name in [*READS, *READS, *READS]:
        with pytest.raises(TruncatedError) as caught:
            READS[name](client)
        cause = caught.value.__cause__
        assert (cause is None) if code is None else (isinstance(cause, OSError) and cause.errno == code)


@both_versions
def test_T3_R8_the_bytes_of_a_request_that_was_cut_stay_readable(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    client.feed(said(server, b"unfinished"))
    client.feed(b"")
    for name in ("recv_exactly", "recv_until", "skip", "recv_line", "recv_struct", "fill"):
        with pytest.raises(TruncatedError):
            READS[name](client)
    assert client.recv_some(100) == b"unfinished"


@in_turn("code", RESETS)
@both_versions
def test_an_end_that_was_announced_is_clean_with_any_input_after_it(
    version: ssl.TLSVersion, code: int | None
) -> None:
    client, server = connected(version)
    server.close_notify()
    client.feed(said_nothing(server))
    assert client.ended
    if code is None:
        client.feed(b"")
    else:
        client.fail(OSError(code, "gone"))
    for _ in range(2):
        assert client.recv(10, UNSAFE) == b""
        with pytest.raises(EndOfStreamError):
            client.recv_exactly(1)


def said_nothing(core: TlsCore) -> bytes:
    wire = out(core)
    assert wire
    return wire


@both_versions
def test_ragged_eof_takes_a_cut_for_an_end_knowingly(version: ssl.TLSVersion) -> None:
    for code in RESETS:
        client, server = connected(version, ragged_eof=True)
        client.feed(said(server, b"some") + said(server, b"more")[:-1])
        if code is None:
            client.feed(b"")
        else:
            client.fail(OSError(code, "gone"))
        assert client.recv(100) == b"some"
        assert client.recv(100, UNSAFE) == b""


@both_versions
def test_an_error_that_is_no_end_is_reported_as_it_is(version: ssl.TLSVersion) -> None:
    client, _ = connected(version)
    client.fail(OSError(errno.EHOSTUNREACH, "no route"))
    for _ in range(2):
        with pytest.raises(OSError, match="no route") as caught:
            client.recv(1)
        assert caught.value.errno == errno.EHOSTUNREACH


@both_versions
def test_errors_are_sticky_and_their_traceback_does_not_grow(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    wire = bytearray(said(server, b"x"))
    wire[-1] ^= 1
    client.feed(bytes(wire))
    assert client.has_output  # the alert
    depths = set()
    for _ in range(3):
        client.feed(b"whatever else")
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC") as caught:
            client.recv(1)
        depths.add(depth(caught.value))
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            client.encrypt(b"more")
    assert len(depths) == 1
    alert = out(client)
    client.feed(b"whatever else")
    assert not client.has_output
    server.feed(alert)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        server.recv(1)


def test_a_failed_handshake_keeps_no_frames_alive() -> None:
    # They would keep the socket alive, and it its descriptor.
    core = new_pair(ssl.TLSVersion.TLSv1_3)[1]
    core.feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError, match="HTTP_REQUEST") as caught:
        core.handshake()
    for kept in (core._error, core.engine.error):
        assert kept is not caught.value
        assert kept is not None
        assert kept.__traceback__ is None


# ------------------------------------------------------------------------------------------------- handshake


@both_versions
def test_C4_a_handshake_that_is_cut_is_truncated_and_nothing_can_be_sent_or_read(
    version: ssl.TLSVersion,
) -> None:
    for end in (None, ConnectionResetError(errno.ECONNRESET, "reset"), OSError(errno.ETIMEDOUT, "lost")):
        client, server = new_pair(version)
        assert not client.handshake()
        server.feed(out(client)[:100])
        assert server.handshake_input() == b"input"
        assert not server.handshake()
        assert server.handshake_input() is None
        if end is None:
            server.feed(b"")
        else:
            server.fail(end)
        assert server.handshake_input() == b"input"
        with pytest.raises(TruncatedError) as caught:
            server.handshake()
        assert caught.value.__cause__ is end
        server.fail_handshake(caught.value)
        with pytest.raises(TruncatedError):
            server.recv(1)
        with pytest.raises(ssl.SSLError):
            server.encrypt(b"in clear")
        assert not server.has_output


@both_versions
def test_nothing_is_sent_after_a_handshake_that_was_given_up(version: ssl.TLSVersion) -> None:
    client, _ = new_pair(version)
    client.handshake()
    out(client)
    client.fail_handshake(TimeoutError("too slow"))
    for use in (lambda: client.encrypt(b"in clear"), lambda: client.recv(1), lambda: client.recv_line(10)):
        with pytest.raises(ssl.SSLError, match="too slow"):
            use()
    client.close_notify()
    assert client.final_bytes() == b""


@both_versions
def test_abandon_does_nothing_to_a_handshake_that_is_done(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    client.fail_handshake(TimeoutError("flushing took too long"))
    server.feed(said(client, b"fine"))
    assert server.recv_some(10) == b"fine"


def up_to_the_last_flight(version: ssl.TLSVersion) -> tuple[TlsCore, TlsCore]:
    """Return the core whose handshake is done, and the one that lacks the last flight: its own output is sent."""
    client, server = new_pair(version)
    client.handshake()
    server.feed(out(client))
    server.handshake()
    client.feed(out(server))
    first, last = (client, server) if client.handshake() else (server, client)
    if last is client:
        server.feed(out(client))
        assert server.handshake()
    return first, last


@both_versions
def test_T7_data_and_an_end_in_the_last_packet_of_the_handshake_are_read(version: ssl.TLSVersion) -> None:
    first, last = up_to_the_last_flight(version)
    wire = out(first) + said(first, b"early")
    first.close_notify()
    last.feed(wire + out(first))
    last.feed(b"")
    assert last.handshake()
    assert last.recv(10) == b"early"
    assert last.recv(10) == b""


@both_versions
def test_T7_a_cut_in_the_last_packet_of_the_handshake_is_reported_after_the_data(
    version: ssl.TLSVersion,
) -> None:
    first, last = up_to_the_last_flight(version)
    last.feed(out(first) + said(first, b"early"))
    last.fail(ConnectionResetError(errno.ECONNRESET, "reset"))
    assert last.handshake()
    assert last.recv_some(10) == b"early"
    with pytest.raises(TruncatedError):
        last.recv_some(10)


# ------------------------------------------------------------------------------------------------- sending


class Taker:
    """The end of a socket that takes everything."""

    def __init__(self) -> None:
        self.taken = b""

    def send(self, data: bytes | memoryview, _: int) -> int:
        self.taken += data
        return len(data)


@one_loop_or_shared
def test_a_sender_takes_a_chunk_at_a_time(shared: bool) -> None:
    for size in (1, SEND_CHUNK - 1, SEND_CHUNK, SEND_CHUNK + 1, 3 * SEND_CHUNK, 3 * SEND_CHUNK + 7):
        data = random.Random(size).randbytes(size)
        for payload in (data, memoryview(data)):
            client, server = connected(ssl.TLSVersion.TLSv1_3, shared=shared)
            taker = Taker()
            sender = client.sender(taker)  # type: ignore[arg-type]
            sent = 0
            while sent < size:
                taken = sender.send(memoryview(payload)[sent:], 0)
                assert 0 < taken <= SEND_CHUNK
                sent += taken
                assert not client.has_output
            server.feed(taker.taken)
            assert server.recv_exactly(size) == data


@given(versions, st.lists(st.integers(1, 3000), min_size=1, max_size=20), st.integers(1, 50_000))
@settings(max_examples=30)  # each is a handshake
def test_output_taken_in_any_portions_is_the_same_stream(
    version: ssl.TLSVersion, portions: list[int], size: int
) -> None:
    client, server = connected(version)
    data = random.Random(size).randbytes(size)
    client.encrypt(data)
    turn = 0
    while client.has_output:
        portion = bytes(client.pending_output()[: portions[turn % len(portions)]])
        server.feed(portion)
        client.sent(len(portion))
        turn += 1
        if turn == 1:
            client.encrypt(b"and more")  # while a record is half sent
    assert server.recv_exactly(size + 8) == data + b"and more"


@both_versions
def test_T4_the_final_bytes_are_the_rest_of_a_record_and_close_notify(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    client.encrypt(b"the last words")
    begun = bytes(client.pending_output()[:7])
    client.sent(7)
    server.feed(begun + client.final_bytes())
    assert server.recv(100, UNSAFE) == b"the last words"
    assert server.recv(100, UNSAFE) == b""


@both_versions
def test_T3_the_final_bytes_inside_a_message_are_no_end(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    client.message_incomplete = True
    client.encrypt(b"the first half")
    server.feed(client.final_bytes())
    server.feed(b"")
    assert server.recv_some(100) == b"the first half"
    with pytest.raises(TruncatedError):
        server.recv(100)
    client.message_incomplete = False
    client.send_in_flight = True
    assert client.final_bytes() == b""


@both_versions
def test_a_send_after_close_notify_is_a_broken_pipe_and_reading_goes_on(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    client.close_notify()
    client.close_notify()
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            client.encrypt(b"too late")
    server.feed(out(client))
    assert server.recv(1) == b""
    client.feed(said(server, b"the answer"))
    assert client.recv_some(100) == b"the answer"


@one_loop_or_shared
def test_a_record_of_one_byte_is_not_the_answer_of_a_read_that_needs_more(shared: bool) -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3, shared=shared)
    client.feed(said(server, b"begin"))
    assert client.recv_some(5) == b"begin"
    assert client.recv_until(b"\r\n", 100) is None
    for byte in (b"a", b"\r", b"\n"):
        assert arrive(client, said(server, byte)) is None
    assert client.recv_until(b"\r\n", 100) == b"a\r\n"
    assert client.recv(3) is None
    for byte in (b"1", b"2", b"3"):
        assert arrive(client, said(server, byte)) is None
    assert client.recv(3) == b"123"


@in_turn("size", [1, RECORD + 1, 5 * RECORD])
def test_an_error_of_an_encryption_is_final_and_its_bytes_do_not_count(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: object) -> int:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, "[SSL: BAD_LENGTH] bad length")

    client, _ = connected(ssl.TLSVersion.TLSv1_3)
    client.encrypt(b"accepted")
    out(client)
    accepted = client.accepted
    monkeypatch.setattr(client.engine, "write", fail)
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match="BAD_LENGTH"):
            client.encrypt(bytes(size))
    assert client.accepted == accepted


def test_on_output_is_called_only_when_a_read_has_made_output() -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3)
    calls: list[bool] = []
    client.on_output = lambda: calls.append(client.has_output)
    client.feed(said(server, b"nothing to answer"))
    assert calls == []
    client.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert calls == [True]


GULP = 4 * (16_384 + 22)


def test_a_receive_asks_for_four_whole_records_and_returns_64_KiB() -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3)
    assert client.recv_some(10) is None
    assert client.recv_size == GULP
    client.feed(said(server, b"first"))  # the first has tickets before it
    assert client.recv_some(10) == b"first"
    wire = said(server, bytes(2**17))
    assert len(wire) == 2 * GULP
    client.feed(wire[:GULP])
    assert len(client) == 2**16
    assert client.recv_exactly(2**17) is None
    client.feed(wire[GULP:])
    assert client.recv_exactly(2**17) == bytes(2**17)


def test_bulk_is_asked_for_in_ever_larger_reads_up_to_512_KiB() -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3)
    client.feed(said(server, b"first"))  # the first has tickets before it
    assert client.recv_some(10) == b"first"
    wire = said(server, bytes(2**21))
    asked = []
    while wire:
        assert client.recv_some(2**16) is None
        asked.append(client.recv_size)
        client.feed(wire[: client.recv_size])
        wire = wire[client.recv_size :]
        while client:
            assert client.recv_some(2**16) == bytes(2**16)
    assert asked == [GULP, 2 * GULP, 4 * GULP, 8 * GULP, 8 * GULP, 8 * GULP, 8 * GULP][: len(asked)]
    assert len(asked) >= 6


@in_turn("feed", [TlsCore.feed, lambda core, data: core.feed_some(data, 2**16)])
def test_a_small_read_or_a_small_receive_asks_for_64_KiB(
    feed: Callable[[TlsCore, bytes], bytes | None],
) -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3)
    client.feed(said(server, bytes(2**18)))
    assert client.recv_exactly(2**18) == bytes(2**18)
    assert client.recv_line(10**6) is None
    assert client.recv_size == GULP
    assert client.recv_some(2**16) is None
    assert client.recv_size > GULP
    answer = feed(client, said(server, b"little"))
    if answer is not None:
        assert client.recv_size == GULP  # the next does not ask the core, whose answer is known
    assert (answer or client.recv_some(2**16)) == b"little"
    assert client.recv_some(2**16) is None
    assert client.recv_size == GULP


def some(core: TlsCore, wire: Iterable[bytes], most: int) -> bytes:
    """Read to the end with ``recv_some``, as a reader does, with ``feed_some`` where the buffer was empty."""
    waiting = iter(wire)
    received = [b""]
    while True:
        answer = core.recv_some(most)
        if answer is None:
            piece = next(waiting, b"")
            answer = core.feed_some(piece, most) if piece else core.feed(piece)
            while answer is None and (answer := core.recv_some(most)) is None:
                core.feed(next(waiting, b""))
        if not answer:
            return b"".join(received)
        assert len(answer) <= most
        received.append(answer)


@given(
    versions,
    st.integers(1, 40_000),
    st.lists(st.integers(0, 50_000), max_size=20),
    st.integers(1, 40_000),
    st.booleans(),
)
@settings(max_examples=60)  # each is a handshake
def test_R1_results_that_bypass_the_buffer_are_the_same_stream(
    version: ssl.TLSVersion, size: int, places: list[int], most: int, shared: bool
) -> None:
    client, server = connected(version, shared=shared)
    data = random.Random(size).randbytes(size)
    wire = said(client, data)
    client.close_notify()
    wire += out(client)
    assert some(server, pieces(wire, places), most) == data


@both_versions
@one_loop_or_shared
def test_R12_an_end_or_an_error_in_the_same_receive_is_reported_after_the_data(
    version: ssl.TLSVersion, shared: bool
) -> None:
    client, server = connected(version, shared=shared)
    wire = said(client, b"data")
    client.close_notify()
    assert (server.feed_some(wire + out(client), 100) or server.recv_some(100)) == b"data"
    assert server.recv_some(100) == b""

    client, server = connected(version, shared=shared)
    calls: list[bool] = []
    server.on_output = lambda: calls.append(server.has_output)
    wire = said(client, b"data") + b"\x17\x03\x03\x00\x20" + bytes(32)
    assert (server.feed_some(wire, 100) or server.recv_some(100)) == b"data"
    assert calls == [True]
    with pytest.raises(ssl.SSLError):
        server.recv_some(100)


@one_loop_or_shared
def test_R2_records_of_one_receive_are_all_read(shared: bool) -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3, shared=shared)
    client.feed(said(server, b"the first has tickets before it"))
    assert client.recv_some(100)
    wire = said(server, b"one") + said(server, b"two") + said(server, b"three")[:-1]
    answer = client.feed_some(wire, 100) or b""
    while client:
        answer += client.recv_some(100) or b""
    assert answer == b"onetwo"


@one_loop_or_shared
def test_output_of_a_read_that_returns_data_is_announced(shared: bool) -> None:
    """As when a key update stands before the data."""
    client, server = connected(ssl.TLSVersion.TLSv1_3, shared=shared)
    client.feed(said(server, b"the first has tickets before it"))
    assert client.recv_some(100)
    calls: list[bool] = []
    client.on_output = lambda: calls.append(client.has_output)
    client.outgoing.write(b"the answer")
    assert (client.feed_some(said(server, b"data"), 100) or client.recv_some(100)) == b"data"
    assert calls == [True]


@one_loop_or_shared
def test_W3_a_record_made_while_another_is_unsent_follows_it(shared: bool) -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3, shared=shared)
    begun = bytes(client.seal(b"one"))
    assert not client.sent(7)
    assert bytes(client.seal(b"two")) == begun[7:]
    server.feed(begun[:7] + out(client))
    assert server.recv_exactly(6) == b"onetwo"


@in_turn("how", ["failed", "ended"])
def test_OpenSSL_is_not_asked_again_when_a_connection_is_over(how: str) -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3)
    client.feed(said(server, b"first"))
    assert client.recv_some(100) == b"first"
    if how == "failed":
        assert client.feed_some(b"\x17\x03\x03\x00\x20" + bytes(32), 100) is None
    else:
        server.close_notify()
        assert client.feed_some(out(server), 100) is None

    def forbidden(_: object) -> NoReturn:
        raise AssertionError("it was asked")

    client.engine.opened = map(forbidden, itertools.repeat(RECORD))
    assert client.feed_some(b"\x17\x03\x03\x00\x20" + bytes(32), 100) is None
    if how == "failed":
        client.engine.write = forbidden
        with pytest.raises(ssl.SSLError):
            client.seal(b"too late")
        with pytest.raises(ssl.SSLError):
            client.recv_some(100)
    else:
        assert client.recv_some(100) == b""


@in_turn("size, portions, records", [(64, 1, 1), (2**14, 1, 1), (2**15, 1, 2), (SEND_CHUNK, 2, 4)])
def test_the_calls_of_OpenSSL_for_one_message(size: int, portions: int, records: int) -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3)
    server.feed(said(client, b"the first has tickets before it"))
    calls: list[str] = []

    def counted(name: str, call: Callable[[T], U]) -> Callable[[T], U]:
        def counting(argument: T) -> U:
            calls.append(name)
            return call(argument)

        return counting

    client.engine.write = counted("write", client.engine.write)
    server.engine.opened = map(counted("read", server.engine.read), itertools.repeat(RECORD))
    server.feed(client.seal(bytes(size)))
    assert len(server.recv_some(2**20) or b"") == size + 31
    # As many records as can be asked for at once are no more reads: none of them finds nothing.
    assert calls == ["write"] * portions + ["read"] * records


def test_a_question_may_be_asked_while_another_thread_uses_the_engine() -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3, shared=True)
    stop = threading.Event()
    answers: list[str | None] = []

    def questions() -> None:
        while not stop.is_set():
            answers.append(client.with_ssl_object(lambda obj: obj.version()))

    asking = threading.Thread(target=questions)
    asking.start()
    for _ in range(200):
        server.feed(said(client, bytes(5000)))
        assert len(server.recv_exactly(5000) or b"") == 5000
    stop.set()
    asking.join()
    assert set(answers) <= {"TLSv1.3"}


class Watched:
    """A lock, and calls that are allowed only while it is locked."""

    def __init__(self) -> None:
        self.inside = 0
        self.calls = 0

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(self, *_: object) -> None:
        self.inside -= 1

    def call(self, function: Callable[..., T]) -> Callable[..., T]:
        def watched(*args: object) -> T:
            assert self.inside
            self.calls += 1
            return function(*args)

        return watched


class WatchedBio:
    """A memory BIO that is read only while the lock is held."""

    def __init__(self, bio: ssl.MemoryBIO, lock: Watched) -> None:
        self._bio = bio
        self.read = lock.call(bio.read)

    @property
    def pending(self) -> int:
        return self._bio.pending


def test_T5_OpenSSL_is_called_only_inside_the_lock_of_a_shared_core() -> None:
    pair = connected(ssl.TLSVersion.TLSv1_3, shared=True)
    locks = [Watched(), Watched()]
    for core, lock in zip(pair, locks, strict=True):
        engine = core.engine
        assert isinstance(core, LockedTlsCore)
        core._lock = lock
        engine.write = lock.call(engine.write)
        engine.opened = map(lock.call(engine.read), itertools.repeat(RECORD))
        engine.outputs = map(lock.call(engine.outgoing.read), itertools.repeat(-1))
        engine.outgoing = WatchedBio(engine.outgoing, lock)  # type: ignore[assignment]
    client, server = pair
    for size in (64, 20_000, 100_000):
        wire = said(client, bytes(size))
        assert len(wire) > size
        server.feed(wire)
        assert server.recv_exactly(size) == bytes(size)
        wire = bytes(client.seal(bytes(64)))
        client.sent(len(wire))
        assert server.feed_some(wire, 100) == bytes(64)
    client.close_notify()
    assert client.final_bytes()
    assert server.with_ssl_object(lambda _: locks[1].inside) == 1
    assert [lock.inside for lock in locks] == [0, 0]
    assert min(lock.calls for lock in locks) > 10


@in_turn("how", ["feed", "feed_some", "fail"])
def test_output_of_a_read_is_sent_outside_of_the_lock(how: str) -> None:
    client, server = connected(ssl.TLSVersion.TLSv1_3, shared=True)
    assert isinstance(client, LockedTlsCore)
    client.feed(said(server, b"first"))
    client._lock = lock = Watched()
    calls: list[int] = []
    client.on_output = lambda: calls.append(lock.inside)
    garbage = b"\x17\x03\x03\x00\x20" + bytes(32)
    if how == "feed":
        client.feed(garbage)
    elif how == "feed_some":
        assert client.feed_some(garbage, 100) is None
    else:
        client.engine.decrypt_all(garbage)
        client.fail(ConnectionResetError(errno.ECONNRESET, "reset"))
    assert calls == [0]


# ------------------------------------------------------------------------------------------------- memory

MEMORY = """
import ssl, sys
from tests.core.test_tls import connected, said

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def push(sender, receiver, data):
    wire = memoryview(said(sender, data))
    while wire:
        receiver.recv_some(65536)
        receiver.feed(bytes(wire[: receiver.recv_size]))
        wire = wire[receiver.recv_size :]
        while receiver:
            receiver.recv_some(65536)

version = ssl.TLSVersion[sys.argv[1]]
data = bytes(3 * 2**20)
warm = connected(version)
push(*warm, data), push(*reversed(warm), data)
before = resident()
pairs = [connected(version) for _ in range(100)]
for pair in pairs:
    push(*pair, data), push(*reversed(pair), data)
print((resident() - before) // 200)
"""


@pytest.mark.long
@pytest.mark.stress
@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="this system does not say how much memory is used"
)
@both_versions
def test_3_MiB_both_ways_through_each_of_100_connections_leaves_each_end_under_100_kB(
    version: ssl.TLSVersion,
) -> None:
    # Of a process of its own: OpenSSL's memory is not Python's, and memory that was freed before would be used again.
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, version.name], capture_output=True, text=True, timeout=25, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 100_000
