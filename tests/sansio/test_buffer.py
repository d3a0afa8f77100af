"""The receive buffer: a queue of bytes, the fast lane beside it, and what both cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sansio.model import (
    PLAIN_LINE,
    TEXTS,
    Failure,
    Outcome,
    Pair,
    Request,
    Work,
    ask,
    cut,
    many_lines,
    plain_line,
)
from wireline._sansio.buffer import ReceiveBuffer
from wireline._sansio.stream import StreamCore
from wireline.options import BUFFER_SIZE, MAX_LINE_LENGTH, SocketFlag

PEEK = SocketFlag.PEEK


def buffer_with(*pieces: bytes) -> ReceiveBuffer:
    buffer = ReceiveBuffer()
    for piece in pieces:
        buffer.feed(piece)
    return buffer


# ------------------------------------------------------------------------------------------------- the queue

# Pieces that leave the bytes in each of the places where they can be.
PLACES = pytest.mark.parametrize(
    "pieces", [(b"abcdef",), (b"abc", b"def"), (b"abcde", b"f"), (b"abcd", b"e", b"f")], ids=str
)


@PLACES
def test_every_view_of_the_same_bytes(pieces: tuple[bytes, ...]) -> None:
    buffer = buffer_with(*pieces)
    assert len(buffer) == 6
    assert buffer.find(b"d", 6) == 3
    assert buffer.find(b"d", 4) == 3
    assert buffer.find(b"d", 3) == -1
    assert buffer.find(b"de", 4) == -1
    assert buffer.find(b"de", 5) == 3
    assert [buffer.byte_at(offset) for offset in (0, 5)] == [ord("a"), ord("f")]
    assert [buffer.last(count) for count in (1, 3, 6, 9)] == [b"f", b"def", b"abcdef", b"abcdef"]
    assert [buffer.peek(size) for size in (0, 2, 6)] == [b"", b"ab", b"abcdef"]
    assert [buffer.take(size) for size in (0, 2, 3, 1)] == [b"", b"ab", b"cde", b"f"]
    assert len(buffer) == 0


@PLACES
def test_views_after_something_was_taken(pieces: tuple[bytes, ...]) -> None:
    buffer = buffer_with(*pieces)
    buffer.take(2)
    assert buffer.find(b"d", 2) == 1
    assert buffer.byte_at(1) == ord("d")
    assert buffer.last(9) == b"cdef"
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


def test_taking_starts_the_search_again() -> None:
    buffer = buffer_with(b"abcdef")
    assert buffer.find(b"\n", 99) == -1
    buffer.take(5)
    buffer.feed(b"\n")
    assert buffer.find(b"\n", 99) == 1


@given(TEXTS, st.lists(st.integers(0, 4000), max_size=20), st.data())
def test_any_script_agrees_with_a_bytes_object(data: bytes, places: list[int], draw: st.DataObject) -> None:
    buffer = ReceiveBuffer()
    model = b""
    for piece in cut(data, [place % (len(data) + 1) for place in places]):
        buffer.feed(piece)
        model += piece
        delimiter = draw.draw(st.sampled_from([b"\n", b"\r\n", b"END", b"a"]))
        limit, size = draw.draw(st.integers(0, 700)), draw.draw(st.integers(0, len(model)))
        assert buffer.find(delimiter, limit) == model[:limit].find(delimiter)
        assert buffer.last(size + 1) == model[-size - 1 :]
        assert buffer.peek(size) == model[:size]
        for _ in range(draw.draw(st.integers(0, 40))):
            model = check_next_line(buffer, model)
        size = min(size, len(model))
        assert len(buffer) == len(model)
        assert buffer.take(size) == model[:size]
        model = model[size:]


def check_next_line(buffer: ReceiveBuffer, model: bytes) -> bytes:
    """Take one line that ends at a newline, from the fast lane if there is one; what is left of ``model``."""
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


# --------------------------------------------------------------------------------------------- the fast lane


def lane_of(data: bytes) -> Pair:
    """A pair that read ``data``, up to where the fast lane came into use."""
    pair = Pair()
    pair.feed(data)
    while not pair.core.lines:
        assert pair.ask(PLAIN_LINE)
    return pair


@pytest.mark.parametrize("terminator", [b"\n", b"\r\n"])
def test_after_some_lines_the_next_are_split_ahead(terminator: bytes) -> None:
    pair = lane_of(many_lines([terminator], 20, 300))
    read = 300 * 10 + 300 * len(terminator) - len(pair.model.data)
    assert 512 <= read < 600
    ahead = len(pair.core.lines)
    assert ahead > 10
    while pair.core.lines:
        assert pair.ask(PLAIN_LINE)
    pair.ask(PLAIN_LINE)
    assert len(pair.core.lines) > 1.5 * ahead  # as far again as it came


@pytest.mark.parametrize(
    "other", [Request("recv", 3), Request("recv_until", 40), Request("recv_line", 40, PEEK)], ids=str
)
def test_whoever_alternates_lines_with_other_reads_stays_on_the_plain_path(other: Request) -> None:
    pair = Pair()
    pair.feed(many_lines([b"\n"], 20, 300))
    for _ in range(100):
        pair.ask(PLAIN_LINE)
        assert not pair.core.lines
        pair.ask(other)


@pytest.mark.parametrize("data", [b"a\nb\r\n" * 400, b"x" * 5000])
def test_nothing_is_split_ahead_where_it_would_gain_nothing(data: bytes) -> None:
    pair = Pair()
    pair.feed(data)
    for _ in range(600):
        pair.ask(Request("recv_line", 2))
        assert not pair.core.lines


def test_what_arrives_while_lines_are_split_ahead_comes_after_them() -> None:
    pair = lane_of(many_lines([b"\n"], 20, 100))
    pair.ask(PLAIN_LINE)
    pair.feed(b"more\n")
    while pair.ask(PLAIN_LINE):
        pass
    assert pair.model.data == b""


def test_R9_no_line_of_the_fast_lane_is_longer_than_a_plain_recv_line_may_return() -> None:
    core = StreamCore()
    # As much as this is there at once after a large request was given up.
    core.feed(b"a short line\n" * 100_000 + (b"x" * (MAX_LINE_LENGTH + 1) + b"\n") * 3 + b"last\n")
    for _ in range(100_000):
        assert plain_line(core) == b"a short line"
    lines = [plain_line(core) for _ in range(8)]
    assert lines == [b"x" * MAX_LINE_LENGTH, b"x"] * 3 + [b"last", None]


def test_the_fast_lane_is_short_even_when_lines_are_empty() -> None:
    core = StreamCore()
    core.feed(b"\n" * 300_000)
    longest = 0
    for _ in range(300_000):
        plain_line(core)
        longest = max(longest, len(core.lines))
    assert 1000 < longest <= BUFFER_SIZE


# ------------------------------------------------------------------------------------------------ linear time


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def serve(work: Work, data: bytes, piece_size: int, request: Request) -> int:
    """What it costs to answer ``request`` over and over, until ``data``, which comes in pieces, is used up."""
    core = StreamCore()
    pieces: Iterator[bytes] = (data[at : at + piece_size] for at in range(0, len(data), piece_size))
    before = work.done
    while True:
        outcome = ask(core, request)
        if outcome is None:
            piece = next(pieces, b"")
            if not piece:
                return work.done - before
            core.feed(work.bytes(piece))
        else:
            assert isinstance(outcome, bytes)
