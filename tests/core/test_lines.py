"""The definition of a line: promises R6 to R9, on the core that a socket asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from tests.core.model import (
    PLAIN_LINE,
    TERMINATORS,
    Failure,
    Outcome,
    Pair,
    Request,
    cut,
    many_lines,
)
from wireline._core.buffer import ReceiveBuffer
from wireline._core.lines import EMPTY_LINE, Line, find_line, split_lines
from wireline._core.stream import StreamCore
from wireline.errors import EndOfStreamError, LineTooLongError
from wireline.options import SAFE_DISCONN, SocketFlag

PEEK = SocketFlag.PEEK


def fed(data: bytes, *, ended: bool = False) -> Iterator[Pair]:
    """A core and a model that got ``data``: at once, and byte by byte with a try for a line before each."""
    everywhere: Iterable[int] = range(len(data))
    for places in ([], everywhere):
        pair = Pair()
        for piece in cut(data, places):
            pair.ask(Request("recv_line", 3, PEEK))
            pair.feed(piece)
        if ended:
            pair.end()
        yield pair


# ------------------------------------------------------------------------------------------------------- R6


@in_turn(
    "data, line, left",
    [
        (b"a\n", b"a", b""),
        (b"a\r\n", b"a", b""),
        (b"a\rb\r\n", b"a\rb", b""),
        (b"a\rb\n", b"a\rb", b""),
        (b"a\r\r\n", b"a\r", b""),
        (b"\ra\n", b"\ra", b""),
        (b"\r\r\n", b"\r", b""),
        (b"\n", b"\r\n", b""),
        (b"\r\n", b"\r\n", b""),
        (b"a\n\r\n", b"a", b"\r\n"),
        (b"a\r\n\n", b"a", b"\n"),
        (b"a\n\rb\n", b"a", b"\rb\n"),
        (b"\0\xff\x85\x0b\n", b"\0\xff\x85\x0b", b""),  # data here, and line ends for str.splitlines
    ],
)
def test_R6_a_line_ends_at_lf_or_crlf_and_a_lone_cr_is_data(data: bytes, line: bytes, left: bytes) -> None:
    for pair in fed(data):
        assert pair.ask(PLAIN_LINE) == line
        assert pair.core.recv_some(len(data)) == (left or None)


@in_turn("data", [b"\n" * 900, b"\r\n" * 900, b"\n\r\n" * 450])
def test_R6_an_empty_line_is_never_taken_for_the_end(data: bytes) -> None:
    for pair in fed(data, ended=True):
        assert [pair.ask(PLAIN_LINE) for _ in range(902)] == [b"\r\n"] * 900 + [b""] * 2


def test_R6_crlf_split_between_pieces_is_one_terminator() -> None:
    core = StreamCore()
    core.feed(b"a\r")
    assert core.recv_line(10) is None
    core.feed(b"\nb\r")
    assert core.recv_line(10) == b"a"
    assert core.recv_line(10) is None
    core.feed(b"c\n")
    assert core.recv_line(10) == b"b\rc"


# ------------------------------------------------------------------------------------------------ R7 and R8


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("data", [b"a line\n", b"a line\r\n"])
def test_R7_a_complete_line_waits_for_nothing_after_it(data: bytes, buffered: bool) -> None:
    core = StreamCore(buffered=buffered)
    for byte in data:
        assert core.recv_line(6) is None
        core.feed(bytes([byte]))
    assert core.recv_line(6) == b"a line"
    assert len(core) == 0


@in_turn("unfinished", [b"half a line", b"half\r", b"\rhal", b"a\rbcd"])
def test_R8_the_end_in_the_middle_of_a_line_keeps_its_bytes(unfinished: bytes) -> None:
    core = StreamCore()
    core.feed(b"a line\n" + unfinished)
    assert core.recv_line(20) == b"a line"
    assert core.recv_line(20) is None
    core.feed(b"")
    assert [core.recv_line(20), core.recv_line(20)] == [b"", b""]
    assert core.pending_line() == unfinished
    assert core.recv_some(4) == unfinished[:4]
    assert core.recv(20) == unfinished[4:]
    assert core.recv(20) == b""


@in_turn(
    "request_, wanted",
    [
        (Request("recv_exactly", 9), "9 bytes"),
        (Request("skip", 9), "9 bytes"),
        (Request("recv_until", 9, delimiter=b"\0"), r"the delimiter b'\x00'"),
    ],
)
@in_turn("data", [b"", b"abc"])
def test_R8_an_end_inside_a_whole_answer_is_an_error_with_the_partial_bytes(
    data: bytes, request_: Request, wanted: str
) -> None:
    for pair in fed(data, ended=True):
        for _ in range(3):  # every time, and never an endless loop
            assert pair.ask(request_) == Failure(EndOfStreamError, data)
            with pytest.raises(EndOfStreamError) as caught:
                if request_.kind == "recv_until":
                    pair.core.recv_until(request_.delimiter, request_.size)
                else:
                    getattr(pair.core, request_.kind)(request_.size)
            assert str(caught.value).endswith(f" bytes; expected {wanted}")
        assert pair.core.recv(9) == data


def test_R8_the_error_has_the_wanted_and_the_received_size() -> None:
    core = StreamCore()
    core.feed(b"abc")
    core.feed(b"")
    with pytest.raises(EOFError, match=r"^skip: the stream ended after 3 bytes; expected 9 bytes$"):
        core.skip(9)
    with pytest.raises(
        EndOfStreamError, match=r"^recv_until: .*; expected the delimiter b'\\r\\n'$"
    ) as caught:
        core.recv_until(b"\r\n", 9)
    assert caught.value.__cause__ is None


# ------------------------------------------------------------------------------------------------------- R9


@in_turn("terminator", [b"\n", b"\r\n"])
@in_turn("size", [1, 2, 3, 7])
def test_R9_a_line_of_exactly_max_length_is_whole_and_no_phantom_line_follows(
    size: int, terminator: bytes
) -> None:
    for pair in fed(b"x" * size + terminator + b"next\n"):
        assert pair.ask(Request("recv_line", size)) == b"x" * size
        assert pair.ask(PLAIN_LINE) == b"next"


@in_turn("terminator", [b"\n", b"\r\n"])
@in_turn(
    "size, parts",
    [(2, [b"xx"]), (3, [b"xxx"]), (4, [b"xxx", b"x"]), (6, [b"xxx", b"xxx"]), (7, [b"xxx", b"xxx", b"x"])],
)
def test_R9_truncation_gives_a_long_line_in_parts(size: int, parts: list[bytes], terminator: bytes) -> None:
    for pair in fed(b"x" * size + terminator + b"yes\n", ended=True):
        got = [pair.ask(Request("recv_line", 3)) for _ in range(len(parts) + 2)]
        assert got == [*parts, b"yes", b""]


EDGES: list[tuple[bytes, bool, bytes | None, bytes]] = [
    # the input, whether it ended, the result of recv_line(max_length=3), the bytes that are left then
    (b"xxx", False, None, b"xxx"),
    (b"xxx", True, b"", b"xxx"),
    (b"xxx\r", False, None, b"xxx\r"),  # it may be the first half of a terminator
    (b"xxx\r", True, b"xxx", b"\r"),  # it was not
    (b"xxx\r\r", False, b"xxx", b"\r\r"),
    (b"xxx\rx", False, b"xxx", b"\rx"),
    (b"xxx\r\n", False, b"xxx", b""),
    (b"xxx\n", False, b"xxx", b""),
    (b"xxxx", False, b"xxx", b"x"),
    (b"xxxx", True, b"xxx", b"x"),
    (b"xxxx\n", False, b"xxx", b"x\n"),
    (b"xxxx\r\n", False, b"xxx", b"x\r\n"),
    (b"xxx\r\r\n", False, b"xxx", b"\r\r\n"),
    (b"xx\r\r\n", False, b"xx\r", b""),
    (b"xx\r\n", False, b"xx", b""),
    (b"xx\rx\n", False, b"xx\r", b"x\n"),
    (b"\r\r\r\r", False, None, b"\r\r\r\r"),
    (b"\r\r\r\r\r", False, b"\r\r\r", b"\r\r"),
    (b"\r\r\r\r\n", False, b"\r\r\r", b""),
]


@in_turn("data, ended, answer, left", EDGES)
def test_R9_the_edge_of_max_length(data: bytes, ended: bool, answer: bytes | None, left: bytes) -> None:
    for pair in fed(data, ended=ended):
        assert pair.ask(Request("recv_line", 3, PEEK)) == answer
        assert pair.ask(Request("recv_line", 3)) == answer
        assert pair.core.pending_line() == left


@in_turn("data", [b"xxxx", b"xxxx\n", b"xxx\rx", b"xxxxxx\r\n"])
@in_turn("flags", [SAFE_DISCONN, PEEK])
def test_R9_on_long_raise_consumes_nothing(data: bytes, flags: SocketFlag) -> None:
    for pair in fed(data):
        for _ in range(2):
            with pytest.raises(LineTooLongError, match=r"recv_line: .* 3 bytes") as caught:
                pair.core.recv_line(3, "raise", flags)
            assert caught.value.limit == 3
        assert pair.core.pending_line() == data


@in_turn(
    "data, answer",
    [
        (b"ab--", b"ab--"),
        (b"--ab", b"--"),
        (b"abc--", Failure(LineTooLongError, 4)),
        (b"abc-", Failure(LineTooLongError, 4)),
        (b"abc", None),
        (b"", None),
    ],
)
def test_R9_recv_until_counts_the_delimiter_in_max_length(data: bytes, answer: Outcome) -> None:
    for pair in fed(data):
        assert pair.ask(Request("recv_until", 4, delimiter=b"--")) == answer


# ------------------------------------------------------------------------------------------ the two functions


@in_turn(
    "data, line",
    [
        (b"ab", None),
        (b"ab\n", Line(size=2, consumed=3, too_long=False)),
        (b"ab\r\n", Line(size=2, consumed=4, too_long=False)),
        (b"\r\n", Line(size=0, consumed=2, too_long=False)),
        (b"abcd\n", Line(size=3, consumed=3, too_long=True)),
        (b"abcd", Line(size=3, consumed=3, too_long=True)),
    ],
)
def test_find_line_measures_and_takes_nothing(data: bytes, line: Line | None) -> None:
    buffer = ReceiveBuffer()
    buffer.feed(data)
    assert find_line(buffer, 3, ended=False) == line
    assert len(buffer) == len(data)


@in_turn(
    "text, split",
    [
        (b"a\nb\n", ([b"a", b"b"], 1)),
        (b"a\r\nb\r\n", ([b"a", b"b"], 2)),
        (b"\n\n", ([EMPTY_LINE, EMPTY_LINE], 1)),
        (b"\r\na\r\n", ([EMPTY_LINE, b"a"], 2)),
        (b"a\r\r\n", ([b"a\r"], 2)),
        (b"a\rb\r\n", ([b"a\rb"], 2)),
        (b"a\nb\r\n", None),
        (b"a\r\n\n", None),
    ],
)
def test_split_lines(text: bytes, split: tuple[list[bytes], int] | None) -> None:
    assert split_lines(text) == split


@given(TERMINATORS, st.integers(0, 9), st.integers(1, 50))
def test_split_lines_gives_the_lines_that_were_found_one_by_one(
    terminators: list[bytes], width: int, count: int
) -> None:
    text = many_lines(terminators, width, count)
    core = StreamCore()
    core.feed(text)
    split = split_lines(text)
    if split is None:
        assert 0 < text.count(b"\r\n") < text.count(b"\n")
    else:
        lines, terminator = split
        assert lines == [core.recv_line(100) for _ in range(count)]
        assert terminator == (2 if b"\r\n" in text else 1)
