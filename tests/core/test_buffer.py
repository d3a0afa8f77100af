"""The receive buffer: a queue of bytes, the fast lane beside it, and what both cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from tests.core.model import (
    PLAIN_LINE,
    TEXTS,
    Pair,
    Request,
    Work,
    ask,
    cut,
    many_lines,
    plain_line,
    small_thresholds,
)
from wireline._core.buffer import ReceiveBuffer
from wireline._core.stream import StreamCore
from wireline.options import BUFFER_SIZE, MAX_LINE_LENGTH, SocketFlag

PEEK = SocketFlag.PEEK


LF_LINES = many_lines([b"\n"], 18, 30_000)
CRLF_LINES = many_lines([b"\r\n"], 18, 30_000)
BOTH_LINES = many_lines([b"\n", b"\r\n"], 18, 30_000)


def buffer_with(*pieces: bytes | list[bytes]) -> ReceiveBuffer:
    """A buffer that was fed; each list is one feed."""
    buffer = ReceiveBuffer()
    for piece in pieces:
        if isinstance(piece, list):
            buffer.feed_pieces(piece.copy())  # it is given away
        else:
            buffer.feed(piece)
    return buffer


# ------------------------------------------------------------------------------------------------- the queue

# Pieces that leave the bytes in each of the places where they can be.
PLACES = in_turn(
    "pieces",
    [
        (b"abcdef",),
        (b"abc", b"def"),
        (b"abcde", b"f"),
        (b"abcd", b"e", b"f"),
        ([b"abc", b"def"],),
        (b"a", [b"bc", b"def"]),
        ([b"abcd"], [b"ef"]),
        (b"abcd", b"e", [b"f"]),
    ],
)
FIRST_VIEWS = in_turn(
    "first",
    [
        lambda buffer: buffer.find(b"d", 6) == 3,
        lambda buffer: buffer.peek(4) == b"abcd",
        lambda buffer: buffer.take(0) == b"",
        lambda buffer: len(buffer) == 6,
    ],
)


@PLACES
@FIRST_VIEWS
@small_thresholds()
def test_every_view_of_the_same_bytes(
    pieces: tuple[bytes | list[bytes], ...], first: Callable[[ReceiveBuffer], bool]
) -> None:
    buffer = buffer_with(*pieces)
    assert first(buffer)
    assert len(buffer) == 6
    assert buffer.find(b"d", 6) == 3
    assert buffer.find(b"d", 4) == 3
    assert buffer.find(b"d", 3) == -1
    assert buffer.find(b"de", 4) == -1
    assert buffer.find(b"de", 5) == 3
    assert [buffer.byte_at(offset) for offset in (0, 5)] == [ord("a"), ord("f")]
    assert [buffer.tail(count) for count in (1, 3, 6, 9)] == [b"f", b"def", b"abcdef", b"abcdef"]
    assert [buffer.peek(size) for size in (0, 2, 6)] == [b"", b"ab", b"abcdef"]
    assert [buffer.take(size) for size in (0, 2, 3, 1)] == [b"", b"ab", b"cde", b"f"]
    assert len(buffer) == 0


@PLACES
@small_thresholds()
def test_views_after_something_was_taken(pieces: tuple[bytes | list[bytes], ...]) -> None:
    buffer = buffer_with(*pieces)
    buffer.take(2)
    assert buffer.find(b"d", 2) == 1
    assert buffer.byte_at(1) == ord("d")
    assert buffer.tail(9) == b"cdef"
    buffer.feed(b"g")
    assert buffer.find(b"g", 9) == 4
    assert buffer.take(5) == b"cdefg"


def test_a_buffer_is_true_while_it_has_something() -> None:
    buffer = ReceiveBuffer()
    assert not buffer
    buffer.feed(b"ab")
    assert buffer
    buffer.feed(b"c")
    assert buffer
    buffer.take(3)
    assert not buffer


def test_a_search_goes_on_where_it_stopped_but_not_for_another_delimiter() -> None:
    buffer = buffer_with(b"a\r\nb\r")
    assert buffer.find(b"\r\n\r\n", 99) == -1
    assert buffer.find(b"b", 99) == 3
    assert buffer.find(b"\r\n\r\n", 99) == -1
    buffer.feed(b"\n\r")
    assert buffer.find(b"\r\n\r\n", 99) == -1
    buffer.feed(b"\n")
    assert buffer.find(b"\r\n\r\n", 99) == 4


def test_a_search_with_a_small_limit_does_not_hide_what_lies_behind_it() -> None:
    buffer = buffer_with(b"abc\ndef")
    assert [buffer.find(b"\n", limit) for limit in (2, 3, 4, 99, 3, 4)] == [-1, -1, 3, 3, -1, 3]


@in_turn("taken", [1, 5, 6])
def test_taking_starts_the_search_again(taken: int) -> None:
    buffer = buffer_with(b"abcdef")
    assert buffer.find(b"\n", 99) == -1
    buffer.take(taken)
    buffer.feed(b"\n")
    assert buffer.find(b"\n", 99) == 6 - taken


@given(TEXTS, st.lists(st.integers(0, 4000), max_size=20), st.data())
@small_thresholds()
def test_any_script_agrees_with_a_bytes_object(data: bytes, places: list[int], draw: st.DataObject) -> None:
    buffer = ReceiveBuffer()
    model = b""
    for piece in cut(data, [place % (len(data) + 1) for place in places]):
        buffer.feed(piece)
        model += piece
        for _ in range(draw.draw(st.sampled_from([0, 1, 5, 60]))):
            model = check_next_line(buffer, model)
        model = check_every_view(buffer, model, draw.draw(st.integers(0, 700)), draw.draw(st.integers(0, 50)))


@given(st.lists(st.lists(st.binary(min_size=1, max_size=9), max_size=4), max_size=6), st.data())
@small_thresholds()
def test_taking_from_pieces_agrees_with_a_bytes_object(fed: list[list[bytes]], draw: st.DataObject) -> None:
    buffer = ReceiveBuffer()
    model = b""
    for together in fed:
        if len(together) == 1 and draw.draw(st.booleans()):
            buffer.feed(together[0])
        else:
            buffer.feed_pieces(together)
        model += b"".join(together)
        for _ in range(draw.draw(st.integers(0, 3))):
            assert len(buffer) == len(model)
            size = draw.draw(st.integers(0, len(model)))
            assert buffer.take(size) == model[:size]
            model = model[size:]
            if draw.draw(st.sampled_from([True, False, False])):
                assert buffer.find(b"\0", 99) == model.find(b"\0", 0, 99)
    assert buffer.peek(len(model)) == model


def test_large_pieces_are_copied_once_and_small_ones_joined() -> None:
    large = [bytes([number]) * 16_384 for number in range(4)]
    buffer = buffer_with(large[:])
    assert buffer.take(16_384) is not None
    assert buffer._pieces == large[1:]
    assert buffer.take(2 * 16_384) == large[1] + large[2]
    assert [piece is large[3] for piece in buffer._pieces] == [True]
    buffer.feed_pieces([b"x"] * 1000)
    assert not buffer._pieces
    assert buffer.take(17_384) == large[3] + b"x" * 1000


def check_every_view(buffer: ReceiveBuffer, model: bytes, limit: int, size: int) -> bytes:
    """Compare everything else that ``buffer`` can do; return the rest of ``model``."""
    size = min(size, len(model))
    assert len(buffer) == len(model)
    assert buffer.peek(size) == model[:size]
    for delimiter in (b"\r\n", b"END", b"\n")[: limit % 4]:
        assert buffer.find(delimiter, limit) == model[:limit].find(delimiter)
        assert buffer.tail(size + 1) == model[-size - 1 :]
    assert buffer.take(size) == model[:size]
    return model[size:]


def check_next_line(buffer: ReceiveBuffer, model: bytes) -> bytes:
    """Take one line that ends at a newline, from the fast lane if there is one; return the rest of ``model``."""
    line, newline, left = model.partition(b"\n")
    if not newline:
        return model
    bare = line.removesuffix(b"\r")
    if buffer.lines:
        assert buffer.lines.pop() == (bare or b"\r\n")
    else:
        assert buffer.find(b"\n", len(model)) == len(line)
        assert buffer.take_line(len(bare), len(line) + 1) == bare
    return left


def test_a_state_is_restored_without_the_search_and_the_split_lines_after_it() -> None:
    buffer = buffer_with(b"a")
    state = buffer.state()
    buffer.feed(b"bcdef")
    assert buffer.find(b"\n", 100) == -1
    buffer.restore(state)
    buffer.feed(b"\n")
    assert buffer.find(b"\n", 100) == 1
    buffer.take(1)
    buffer.restore(buffer.state())
    assert buffer.find(b"\n", 100) == 0

    buffer, left = buffer_with(LF_LINES[:3000]), LF_LINES[:3000]
    state = buffer.state()
    while not buffer.lines:
        left = check_next_line(buffer, left)
    with_lines = buffer.state()
    check_next_line(buffer, left)
    buffer.restore(with_lines)
    assert not buffer.lines
    assert buffer.take(len(buffer)) == left
    buffer.restore(state)
    assert buffer.take(len(buffer)) == LF_LINES[:3000]


# --------------------------------------------------------------------------------------------- the fast lane


def lane_of(data: bytes) -> Pair:
    """A pair that read ``data``, up to where the fast lane came into use."""
    pair = Pair()
    pair.feed(data)
    while not pair.core.buffer.lines:
        assert pair.ask(PLAIN_LINE)
    return pair


@in_turn("terminator", [b"\n", b"\r\n"])
def test_after_some_lines_the_next_are_split_ahead(terminator: bytes) -> None:
    pair = lane_of(many_lines([terminator], 20, 300))
    read = 300 * 10 + 300 * len(terminator) - len(pair.model.data)
    assert 512 <= read < 600
    ahead = len(pair.core.buffer.lines)
    assert ahead > 10
    while pair.core.buffer.lines:
        assert pair.ask(PLAIN_LINE)
    pair.ask(PLAIN_LINE)
    assert len(pair.core.buffer.lines) > 1.5 * ahead  # as many again


@in_turn("other", [Request("recv", 3), Request("recv_until", 40), Request("skip", 3)])
def test_lines_between_other_reads_stay_on_the_plain_path(other: Request) -> None:
    pair = Pair()
    pair.feed(many_lines([b"\n"], 20, 300))
    for _ in range(100):
        pair.ask(PLAIN_LINE)
        assert not pair.core.buffer.lines
        pair.ask(other)


@in_turn("data", [b"a\nb\r\n" * 400, b"x" * 5000])
def test_nothing_is_split_ahead_where_it_would_gain_nothing(data: bytes) -> None:
    pair = Pair()
    pair.feed(data)
    for _ in range(600):
        pair.ask(Request("recv_line", 2))
        assert not pair.core.buffer.lines


def test_bytes_that_arrive_while_lines_are_split_ahead_follow_them() -> None:
    pair = lane_of(many_lines([b"\n"], 20, 100))
    pair.ask(PLAIN_LINE)
    pair.feed(b"more\n")
    while pair.ask(PLAIN_LINE):
        pass
    assert pair.model.data == b""


@in_turn("taken", [0, 1, 3])
@in_turn("size", [0, 1, 5, 100])
def test_every_other_view_begins_with_the_lines_that_were_not_taken(taken: int, size: int) -> None:
    def after_lines() -> tuple[ReceiveBuffer, bytes]:
        buffer, left = buffer_with(LF_LINES[:3000]), LF_LINES[:3000]
        while not buffer.lines:
            left = check_next_line(buffer, left)
        for _ in range(taken):
            left = check_next_line(buffer, left)
        return buffer, left

    buffer, left = after_lines()
    assert len(buffer) == len(left)
    assert buffer.peek(size) == left[:size]
    buffer, left = after_lines()
    assert buffer.take(size) == left[:size]
    assert buffer.take(100) == left[size : size + 100]
    buffer, left = after_lines()
    assert buffer.find(b"\n", size) == left[:size].find(b"\n")
    assert len(buffer) == len(left)
    buffer, left = after_lines()
    buffer.feed(b"more")
    assert buffer.take(len(left) + 4) == left + b"more"
    assert not buffer


def test_R9_no_line_of_the_fast_lane_is_longer_than_a_plain_recv_line_may_return() -> None:
    core = StreamCore()
    # As much as this is there at once after a large request was given up.
    core.feed(b"a short line\n" * 100_000 + (b"x" * (MAX_LINE_LENGTH + 1) + b"\n") * 3 + b"last\n")
    for _ in range(100_000):
        assert plain_line(core) == b"a short line"
    for expected in [b"x" * MAX_LINE_LENGTH, b"x"] * 3 + [b"last", None]:
        assert max(map(len, core.buffer.lines), default=0) <= MAX_LINE_LENGTH
        assert plain_line(core) == expected


def test_the_fast_lane_is_short_even_when_lines_are_empty() -> None:
    core = StreamCore()
    core.feed(b"\n" * 300_000)
    longest = 0
    for _ in range(300_000):
        plain_line(core)
        longest = max(longest, len(core.buffer.lines))
    assert 1000 < longest <= BUFFER_SIZE


# ----------------------------------------------------------------------------------------------- linear time


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def cost_of(work: Work, data: bytes, piece_size: int, request: Request) -> int:
    """Bytes searched and copied until ``request``, made over and over, has handed out all of ``data``."""
    core = StreamCore()
    before = work.done
    for piece in cut(data, range(piece_size, len(data), piece_size)):
        core.feed(work.bytes(piece))
        while ask(core, request):
            pass
    assert len(core) == 0
    return work.done - before


def one_line(size: int) -> bytes:
    return b"x" * (size - 1) + b"\n"


def near_misses(size: int) -> bytes:
    """Data that ends with ``\\r\\n\\r\\n`` and has three quarters of it everywhere."""
    return b"\r\n\ra" * (size // 4 - 1) + b"\r\n\r\n"


@pytest.mark.parametrize("kind", ["recv_line", "recv_until", "recv_exactly", "recv", "skip"])
def test_R9_10_MB_in_1_KiB_pieces_cost_no_more_than_ten_times_1_MB(kind: str, work: Work) -> None:
    make = near_misses if kind == "recv_until" else one_line
    small, large = (
        cost_of(work, make(size), 1024, Request(kind, size, delimiter=b"\r\n\r\n"))
        for size in (1_000_000, 10_000_000)
    )
    assert small >= 1_000_000
    assert large <= 10 * small


@pytest.mark.parametrize(
    ("data", "piece_size", "request_"),
    [
        pytest.param(one_line(30_000), 1, Request("recv_line"), id="a line in pieces of 1 byte"),
        pytest.param(
            one_line(30_000), 1, Request("recv_exactly", 30_000), id="recv_exactly in pieces of 1 byte"
        ),
        pytest.param(
            near_misses(30_000),
            1,
            Request("recv_until", delimiter=b"\r\n\r\n"),
            id="recv_until in pieces of 1 byte",
        ),
        pytest.param(LF_LINES[:30_000] + b"\n", 1, PLAIN_LINE, id="short lines in pieces of 1 byte"),
        pytest.param(LF_LINES, BUFFER_SIZE, PLAIN_LINE, id="short lines, a buffer at a time"),
        pytest.param(CRLF_LINES, 1_000_000, PLAIN_LINE, id="short lines, all there at once"),
        pytest.param(BOTH_LINES, 1_000_000, PLAIN_LINE, id="short lines with both terminators"),
        pytest.param(LF_LINES, 1_000_000, Request("recv_line", 90), id="short lines with a limit"),
        pytest.param(one_line(300_000), 1_000_000, Request("recv_line", 8), id="a long line in small parts"),
        pytest.param(one_line(300_000), 1_000_000, Request("recv", 10), id="small reads of much"),
    ],
)
def test_R9_every_byte_is_searched_and_copied_a_bounded_number_of_times(
    data: bytes, piece_size: int, request_: Request, work: Work
) -> None:
    assert cost_of(work, data, piece_size, request_) <= 20 * len(data)


@pytest.mark.parametrize("size", [1, 100, 16_384, 60_000])
def test_R9_taking_from_pieces_copies_what_is_taken(size: int, work: Work) -> None:
    buffer = ReceiveBuffer()
    for _ in range(10):
        buffer.feed_pieces([work.bytes(bytes(16_384)) for _ in range(4)])
    before = work.done
    while buffer:
        buffer.take(min(size, buffer.size))
    assert work.done - before <= 2 * 655_360


def test_to_know_whether_there_is_anything_costs_nothing(work: Work) -> None:
    core = StreamCore()
    core.feed(work.bytes(LF_LINES))
    while len(core.buffer.lines) < 1000:
        plain_line(core)
    before = work.done
    assert core
    assert work.done - before < 10


# ---------------------------------------------------------------------------------------------------- memory


@in_turn(
    "request_",
    [
        Request("recv_line", 200_000),
        Request("recv_line", 200_000, on_long="raise"),
        Request("recv_line", 200_000, PEEK),
        Request("recv_until", 200_000, delimiter=b"\r\n\r\n"),
    ],
)
def test_R9_a_peer_that_never_ends_its_line_costs_max_length_and_one_buffer(request_: Request) -> None:
    core = StreamCore()
    answers = 0
    while answers < 3:
        if ask(core, request_) is None:
            assert core.recv_size <= BUFFER_SIZE
            core.feed(b"x" * core.recv_size)
        else:
            answers += 1
        assert len(core) <= request_.size + BUFFER_SIZE


def held_by(job: Callable[[], object]) -> int:
    """Bytes of memory that are still held by the result of ``job``."""
    tracemalloc.start()
    try:
        result = job()
        held = tracemalloc.get_traced_memory()[0]
        del result
        return held
    finally:
        tracemalloc.stop()


def test_R9_the_memory_is_that_of_the_bytes() -> None:
    limit = 500_000

    def refuse_a_line() -> StreamCore:
        core = StreamCore()
        while ask(core, Request("recv_line", limit, on_long="raise")) is None:
            core.feed(b"x" * core.recv_size)
        return core

    # A bytearray that grows keeps an eighth in reserve.
    assert limit < held_by(refuse_a_line) < (limit + BUFFER_SIZE) * 9 / 8 + 4096


@in_turn("request_", [PLAIN_LINE, Request("recv", 1000), Request("recv_until", delimiter=b"\n")])
def test_a_core_that_waits_with_nothing_unread_holds_no_memory(request_: Request) -> None:
    def read_all() -> StreamCore:
        core = StreamCore()
        for _ in range(10):
            core.feed((b"x" * 99 + b"\n") * 1000)
            while ask(core, request_):
                pass
        return core

    assert held_by(read_all) < 8192
