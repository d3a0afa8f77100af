"""The engine, in memory: with any damage to its ciphertext, and with any order of ends."""

from __future__ import annotations

import errno
import functools
import random
import ssl
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import in_turn
from tests.tls.memory import Pair, client_context, connect, engines, server_context
from wireline._core.tls_engine import TlsEngine, TruncatedError
from wireline.errors import WirelineError
from wireline.tls import Handshake, SslContext

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
both_versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
versions = st.sampled_from(VERSIONS)

# One record at most is left behind by a feed: 16 KiB, what encryption adds, and a header (RFC 8446, 5.2).
ONE_RECORD = 16_384 + 256 + 5


@functools.cache
def contexts(version: ssl.TLSVersion, *, ragged_eof: bool = False) -> tuple[SslContext, SslContext]:
    """A client's and a server's."""
    server = server_context()
    server.ssl_context(Handshake.AS_SERVER).maximum_version = version
    return client_context(ragged_eof=ragged_eof), server


def new_pair(version: ssl.TLSVersion, *, ragged_eof: bool = False) -> Pair:
    """Both ends, before their handshake. No session is kept."""
    return engines(*contexts(version, ragged_eof=ragged_eof), port=0)


def connected(version: ssl.TLSVersion, *, ragged_eof: bool = False) -> Pair:
    pair = connect(*contexts(version, ragged_eof=ragged_eof), port=0)
    assert pair.client.obj.version() == version.name.replace("_", ".")
    return pair


def pieces(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """``data`` cut at some places, each taken modulo its length."""
    cuts = sorted({place % len(data) for place in places} | {0}) if data else [0]
    for start, end in pairwise([*cuts, len(data)]):
        yield data[start:end]


def everything(engine: TlsEngine, data: bytes, *, at_end: bool = False) -> bytes:
    """The plaintext that ``feed`` returns."""
    taken: list[bytes] = []
    engine.feed(data, taken.append, at_end=at_end)
    return b"".join(taken)


def said(engine: TlsEngine, *messages: bytes) -> bytes:
    for message in messages:
        engine.encrypt(message)
    return engine.take_output()


# ------------------------------------------------------------------------------------------------- cuts


@given(
    versions,
    st.lists(st.integers(0, 20_000), max_size=5),
    st.lists(st.integers(0, 100_000), max_size=30),
)
@settings(max_examples=40)  # each is a handshake
def test_any_split_of_the_records_gives_the_same_plaintext(
    version: ssl.TLSVersion, sizes: list[int], places: list[int]
) -> None:
    client, server = connected(version)
    messages = [random.Random(size).randbytes(size) for size in sizes]
    wire = said(client, *messages)
    taken: list[bytes] = []
    for piece in pieces(wire, places):
        server.feed(piece, taken.append)
        assert server.incoming.pending <= ONE_RECORD
    assert b"".join(taken) == b"".join(messages)
    assert all(taken)


@both_versions
def test_byte_by_byte_gives_the_same_plaintext_each_record_as_soon_as_it_is_there(
    version: ssl.TLSVersion,
) -> None:
    client, server = connected(version)
    for message in (b"x", b"a message", bytes(600)):
        wire = said(client, message)
        for position in range(len(wire) - 1):
            assert everything(server, wire[position : position + 1]) == b""
        assert everything(server, wire[-1:]) == message


class Wire:
    """A connection whose server sends data and close_notify, and the client's result for the first bytes of it.

    Attributes:
        taken: the plaintext that the client got.
        error: the error that ended it.
        server_sent: bytes of the server, all in all.
        goodbye: where in these ``close_notify`` ends; the last byte.
    """

    def __init__(
        self,
        version: ssl.TLSVersion,
        limit: int | None = None,
        *,
        one_by_one: bool = False,
        ragged_eof: bool = False,
    ) -> None:
        self.client, self.server = new_pair(version, ragged_eof=ragged_eof)
        self._limit = limit
        self._one_by_one = one_by_one
        self._finished = False
        self.server_sent = 0
        self.taken = b""
        self.error: ssl.SSLError | None = None
        try:
            self._run()
        except ssl.SSLError as error:
            self.error = error

    def _run(self) -> None:
        while not self.client.handshake():
            self._to_client(self._from_server(self.client.take_output()))
        self._to_client(self._from_server(self.client.take_output()))
        assert self._finished

    def _from_server(self, wire: bytes) -> bytes:
        if not self.server.established:
            self.server.feed_handshake(wire)
            self.server.handshake()
        if self.server.established and not self._finished:
            self._finished = True
            self.server.encrypt(b"hello ")
            self.server.encrypt(b"world")
            self.server.close_notify()
        return self.server.take_output()

    def _to_client(self, wire: bytes) -> None:
        if self._limit is not None:
            wire = wire[: self._limit - self.server_sent]
        self.server_sent += len(wire)
        at_end = self.server_sent == self._limit
        for piece in pieces(wire, range(len(wire)) if self._one_by_one else ()):
            self._feed(piece)
        if at_end:
            self._feed(b"", at_end=True)

    def _feed(self, data: bytes, *, at_end: bool = False) -> None:
        if not self.client.established:
            self.client.feed_handshake(data)
            if not self.client.handshake(at_end=at_end):
                return
            data = b""
        self.client.feed(data, self._take, at_end=at_end)

    def _take(self, data: bytes) -> None:
        self.taken += data


@both_versions
def test_a_handshake_and_what_follows_it_byte_by_byte(version: ssl.TLSVersion) -> None:
    wire = Wire(version, one_by_one=True)
    assert wire.error is None
    assert wire.taken == b"hello world"
    assert wire.client.ended


def cut_at(version: ssl.TLSVersion, offsets: Callable[[int], Iterable[int]]) -> None:
    whole = Wire(version).server_sent
    for offset in offsets(whole):
        # A signature in it may be some bytes shorter or longer each time, so the end is found by itself.
        wire = Wire(version, offset)
        if wire.client.ended:
            assert offset >= whole - 12
            assert wire.error is None
            assert wire.taken == b"hello world"
        else:
            assert isinstance(wire.error, TruncatedError), offset
            assert b"hello world".startswith(wire.taken)


@both_versions
def test_T3_cut_anywhere_it_is_truncated_and_never_clean_before_close_notify(version: ssl.TLSVersion) -> None:
    # The stress test below has all of them.
    cut_at(version, lambda whole: (*range(0, whole - 100, 41), *range(whole - 100, whole + 12, 3)))


@pytest.mark.stress
@pytest.mark.parametrize("part", [0, 1])
@both_versions
def test_T3_cut_at_every_single_offset(version: ssl.TLSVersion, part: int) -> None:
    cut_at(version, lambda whole: range(part, whole + 12, 2))


@in_turn("ragged_eof", [False, True])
@both_versions
def test_T3_after_the_handshake_every_offset_and_whole_records_are_read_first(
    version: ssl.TLSVersion, ragged_eof: bool
) -> None:
    records, end = [b"hello ", b"world", b""], 0
    while True:
        client, server = connected(version, ragged_eof=ragged_eof)
        wires = [said(server, record) for record in records[:-1]]
        server.close_notify()
        wires.append(server.take_output())
        stream, taken = b"".join(wires), list[bytes]()
        if end == len(stream) or ragged_eof:
            client.feed(stream[:end], taken.append, at_end=True)
            assert client.ended
        else:
            with pytest.raises(TruncatedError):
                client.feed(stream[:end], taken.append, at_end=True)
            assert not client.ended
        whole = [
            record for position, record in enumerate(records) if len(b"".join(wires[: position + 1])) <= end
        ]
        assert b"".join(taken) == b"".join(whole)
        if end == len(stream):
            break
        end += 1


# ------------------------------------------------------------------------------------------------- the end


@both_versions
def test_bytes_after_close_notify_are_ignored(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    server.close_notify()
    goodbye = server.take_output()
    assert everything(client, goodbye + b"whatever" * 100_000, at_end=True) == b""
    assert client.ended
    assert everything(client, b"whatever" * 100_000) == b""
    assert client.incoming.pending <= 2 * ONE_RECORD


@both_versions
def test_half_close_the_other_direction_goes_on(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    client.close_notify()
    assert everything(server, client.take_output()) == b""
    assert server.ended
    assert everything(client, said(server, b"the reply", bytes(100_000))) == b"the reply" + bytes(100_000)
    assert not client.ended
    server.close_notify()
    assert everything(client, server.take_output(), at_end=True) == b""
    assert client.ended


@both_versions
def test_half_close_in_the_middle_of_a_record_that_arrives(version: ssl.TLSVersion) -> None:
    for cut in (1, 3, 5, 6, 20, -1):
        client, server = connected(version)
        wire = said(server, b"a message")
        assert everything(client, wire[:cut]) == b""
        client.close_notify()
        assert everything(client, wire[cut:]) == b"a message"
        assert everything(server, client.take_output()) == b""
        assert server.ended


@in_turn("order", ["cs", "sc", "ccs", "cscs", "simultaneous"])
@both_versions
def test_closing_in_all_orders(version: ssl.TLSVersion, order: str) -> None:
    pair = connected(version)
    if order == "simultaneous":
        for engine in pair:
            engine.close_notify()
        crossing = [engine.take_output() for engine in pair]
        everything(pair.server, crossing[0], at_end=True)
        everything(pair.client, crossing[1], at_end=True)
    else:
        for who in order:
            sender, receiver = pair if who == "c" else (pair.server, pair.client)
            sender.close_notify()
            everything(receiver, sender.take_output(), at_end=True)
    for engine in pair:
        assert engine.ended
        assert not engine.has_output
        with pytest.raises(BrokenPipeError) as caught:
            engine.encrypt(b"too late")
        assert caught.value.errno == errno.EPIPE


@both_versions
def test_close_notify_before_the_handshake_and_after_an_error_does_nothing(version: ssl.TLSVersion) -> None:
    client, _ = new_pair(version)
    client.close_notify()
    assert not client.has_output
    client, _ = connected(version)
    with pytest.raises(ssl.SSLError):
        everything(client, b"garbage in clear")
    client.take_output()
    client.close_notify()
    assert not client.has_output


@both_versions
def test_truncation_of_reading_leaves_writing_alone(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    for _ in range(2):
        with pytest.raises(TruncatedError):
            everything(client, b"", at_end=True)
    assert everything(server, said(client, b"still here")) == b"still here"


# ------------------------------------------------------------------------------------------------- sizes


@both_versions
def test_nothing_is_sent_for_nothing(version: ssl.TLSVersion) -> None:
    client, _ = connected(version)
    for nothing in (b"", memoryview(b"")):
        client.encrypt(nothing)
    assert client.take_output() == b""
    assert everything(client, b"") == b""


@both_versions
def test_three_MiB_in_one_feed(version: ssl.TLSVersion) -> None:
    client, server = connected(version)
    data = random.Random(3).randbytes(3 * 2**20)
    view = memoryview(data)
    wire = b"".join(said(client, view[start : start + 65536]) for start in range(0, len(data), 65536))
    assert everything(server, wire) == data


# ------------------------------------------------------------------------------------------------- errors


def depth(error: BaseException) -> int:
    return len(list(traceback.walk_tb(error.__traceback__)))


def failed(version: ssl.TLSVersion) -> TlsEngine:
    client, server = connected(version)
    wire = bytearray(said(server, b"good", b"bad"))
    wire[-1] ^= 1
    taken: list[bytes] = []
    with pytest.raises(ssl.SSLError) as caught:
        client.feed(bytes(wire), taken.append)
    assert taken == [b"good"]
    assert caught.value.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    alert = client.take_output()
    with pytest.raises(ssl.SSLError) as caught:
        everything(server, alert)
    assert "ALERT_BAD_RECORD_MAC" in str(caught.value)
    return client


@both_versions
def test_an_error_is_raised_again_and_its_traceback_does_not_grow(version: ssl.TLSVersion) -> None:
    client = failed(version)
    uses: list[Callable[[], object]] = [
        lambda: client.feed(b"", print),
        lambda: client.feed(b"more", print, at_end=True),
        lambda: client.encrypt(b"data"),
        lambda: client.encrypt(b""),
        client.handshake,
    ]
    for use in uses:
        depths = set()
        for _ in range(3):
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC") as caught:
                use()
            assert caught.value.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
            depths.add(depth(caught.value))
        assert len(depths) == 1
    assert client.take_output() == b""


@both_versions
def test_notes_on_an_error_do_not_add_up(version: ssl.TLSVersion) -> None:
    client, server = contexts(version)
    pair = engines(client, server, "elsewhere.test", 0)
    with pytest.raises(ssl.SSLCertVerificationError) as first:
        while True:
            pair.client.handshake()
            pair.server.feed_handshake(pair.client.take_output())
            pair.server.handshake()
            pair.client.feed_handshake(pair.server.take_output())
    expected = ["the certificate was checked for 'elsewhere.test'"]
    assert first.value.__notes__ == expected
    first.value.add_note("during something")
    for _ in range(3):
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            pair.client.handshake()
        assert caught.value.__notes__ == expected
        caught.value.add_note("during something")
    assert pair.client.has_output  # the alert
    pair.server.feed_handshake(pair.client.take_output())
    # In TLS 1.3 the server has nothing more to wait for than this very answer.
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        pair.server.handshake()


def test_a_truncated_error_is_what_the_sockets_and_ssl_know() -> None:
    error = TruncatedError()
    assert isinstance(error, WirelineError)
    assert isinstance(error, ssl.SSLError)
    assert error.reason == "UNEXPECTED_EOF_WHILE_READING"
    assert error.errno == ssl.SSL_ERROR_EOF


@both_versions
def test_a_failed_handshake_is_final(version: ssl.TLSVersion) -> None:
    client, _ = new_pair(version)
    client.handshake()
    error = client.fail_handshake(TimeoutError("too slow"))
    assert client.fail_handshake(ValueError()) is error
    assert "too slow" in str(error)
    for use in (client.handshake, lambda: client.encrypt(b"in clear?"), lambda: client.feed(b"", print)):
        with pytest.raises(ssl.SSLError, match="too slow"):
            use()


# ------------------------------------------------------------------------------------------------- bad input

HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
GARBAGE = (
    HTTP,
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    bytes(100),
    b"\x16\x03\x01\x00\x00" * 100,  # empty handshake records
    b"\x16\x03\x01\xff\xff" + bytes(70_000),  # a record that is too long
    b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + bytes(70_000),  # a hello that is too long
    b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
    b"\x15\x03\x01\x00\x02\x01\x00",  # close_notify
    b"\x80\x2e\x01\x00\x02" + bytes(41),  # SSLv2
)


@in_turn("garbage", GARBAGE)
@in_turn("end", [0, 1])
def test_garbage_instead_of_a_hello_is_an_error(end: int, garbage: bytes) -> None:
    engine = new_pair(ssl.TLSVersion.TLSv1_3)[end]
    engine.handshake()
    engine.take_output()
    with pytest.raises(ssl.SSLError):
        for piece in pieces(garbage, range(0, len(garbage), 32_768)):
            engine.feed_handshake(piece)
            engine.handshake()
        engine.handshake(at_end=True)
    assert not engine.established


@both_versions
def test_C4_a_hello_cut_anywhere_is_truncated(version: ssl.TLSVersion) -> None:
    client, _ = new_pair(version)
    client.handshake()
    hello = client.take_output()
    for end in range(len(hello)):
        _, server = new_pair(version)
        server.feed_handshake(hello[:end])
        assert not server.handshake()
        with pytest.raises(TruncatedError):
            server.handshake(at_end=True)
        assert not server.has_output


def survives(engine: TlsEngine, wire: bytes, places: Iterable[int]) -> None:
    """Feed anything: the result may be an ``SSLError``, nothing, or an end. Not more memory than a record."""
    try:
        for piece in pieces(wire, places):
            if engine.established:
                engine.feed(piece, lambda _: None)
            else:
                engine.feed_handshake(piece)
                engine.handshake()
            assert engine.ended or engine.incoming.pending <= ONE_RECORD
    except TruncatedError:
        pytest.fail("an end without a close_notify")
    except ssl.SSLError:
        with pytest.raises(ssl.SSLError):
            engine.encrypt(b"more")
        return
    if not engine.ended:
        with pytest.raises(TruncatedError):
            if engine.established:
                engine.feed(b"", lambda _: None, at_end=True)
            else:
                engine.handshake(at_end=True)


ANYTHING = st.one_of(
    st.binary(max_size=300),
    # Something that looks like records.
    st.lists(
        st.builds(
            lambda kind, body: bytes((kind, 3, 3)) + len(body).to_bytes(2, "big") + body,
            st.sampled_from((20, 21, 22, 23, 24)),
            st.binary(max_size=60),
        ),
        max_size=6,
    ).map(b"".join),
)
PLACES = st.lists(st.integers(0, 1000), max_size=5)


@given(versions, st.sampled_from((0, 1)), st.booleans(), ANYTHING, PLACES)
def test_random_bytes_do_no_harm(
    version: ssl.TLSVersion, end: int, established: bool, wire: bytes, places: list[int]
) -> None:
    engine = (connected if established else new_pair)(version)[end]
    if not established:
        engine.handshake()
    survives(engine, wire, places)


class Damage:
    """The ways to damage a stream."""

    def __init__(self, kind: str, place: int, junk: bytes) -> None:
        self._kind, self._place, self._junk = kind, place, junk

    def __repr__(self) -> str:
        return f"Damage({self._kind!r}, {self._place}, {self._junk!r})"

    def to(self, wire: bytes) -> bytes:
        place = self._place % len(wire)
        before, after = wire[:place], wire[place:]
        match self._kind:
            case "insert":
                return before + self._junk + after
            case "drop":
                return before + after[len(self._junk) :]
            case "swap":
                return after + before
            case "repeat":
                return wire + wire
            case _:
                return before + self._junk + after[len(self._junk) :]


damages = st.builds(
    Damage,
    st.sampled_from(("insert", "drop", "swap", "repeat", "overwrite")),
    st.integers(0, 5000),
    st.binary(min_size=1, max_size=20),
)


@given(versions, st.sampled_from((0, 1)), damages, PLACES)
def test_a_damaged_stream_gives_a_prefix_of_the_plaintext(
    version: ssl.TLSVersion, end: int, damage: Damage, places: list[int]
) -> None:
    pair = connected(version)
    receiver, sender = pair[end], pair[1 - end]
    messages = [b"one", bytes(500), b"three"]
    wire = damage.to(said(sender, *messages))
    taken: list[bytes] = []
    try:
        for piece in pieces(wire, places):
            receiver.feed(piece, taken.append)
        receiver.feed(b"", taken.append, at_end=True)
    except ssl.SSLError:
        pass
    else:
        pytest.fail("a clean end without close_notify")
    assert b"".join(messages).startswith(b"".join(taken))


# A name in the hello that is no ASCII: `_ssl` refuses it, and tells `sys.unraisablehook` by itself (CPython to 3.13).
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(versions, st.sampled_from((0, 1)), st.integers(0, 2), damages)
def test_a_damaged_handshake_is_never_completed_with_a_doubt(
    version: ssl.TLSVersion, end: int, step: int, damage: Damage
) -> None:
    pair = new_pair(version)
    me, wire, errors = 0, b"", 0
    for turn in range(8):
        engine = pair[me]
        if turn == 2 * step + end and wire:
            wire = damage.to(wire)
        try:
            if engine.established:
                engine.feed(wire, lambda _: None)
            else:
                engine.feed_handshake(wire)
                engine.handshake()
        except ssl.SSLError:
            errors += 1
        wire, me = engine.take_output(), 1 - me
    if errors == 0 and pair.client.established and pair.server.established:
        # The damage changed nothing (it was past the last packet), or only made one end wait.
        pair.client.encrypt(b"x")
        taken: list[bytes] = []
        try:
            pair.server.feed(pair.client.take_output(), taken.append)
        except ssl.SSLError:
            return
        assert b"".join(taken) in (b"", b"x")


# ------------------------------------------------------------------------------------------------- T7


@both_versions
def test_T7_data_in_the_same_packet_as_the_end_of_the_handshake(version: ssl.TLSVersion) -> None:
    client, server = new_pair(version)
    # The client finishes first in TLS 1.3 and the server in TLS 1.2: the last one to finish gets a message at once.
    first, last = (client, server) if version is ssl.TLSVersion.TLSv1_3 else (server, client)
    wire, me, other = b"", client, server
    while not first.established:
        me.feed_handshake(wire)
        me.handshake()
        wire, me, other = me.take_output(), other, me
    wire += said(first, b"at once", bytes(40_000))
    assert not last.established
    last.feed_handshake(wire)
    assert last.handshake()
    assert everything(last, b"") == b"at once" + bytes(40_000)
