"""Frames in the core: what a format refuses, what is split ahead, what a hostile peer costs, and ``unread``."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.cases import in_turn, one_test_of
from tests.core.interrupts import Interruption, interrupted, switched
from tests.core.model import (
    FRAMINGS,
    Framing,
    Pair,
    Request,
    Work,
    cut,
    form_of,
    frame_of,
    many_frames,
    three_bytes,
    varint,
)
from wireline import MAX_FRAME_SIZE, EndOfStreamError, FrameError, FrameTooLongError
from wireline._core.buffer import ReceiveBuffer
from wireline._core.frames import MAX_HEADER_SIZE, Frame, FrameFormat, frame_format, struct_of
from wireline._core.stream import StreamCore
from wireline.options import BUFFER_SIZE, SAFE_DISCONN

SHORT = Framing("!H")


def core_with(data: bytes, *, buffered: bool = True) -> StreamCore:
    core = StreamCore(buffered=buffered)
    core.feed(data)
    return core


def quiet_frames(core: StreamCore) -> Callable[[FrameFormat], object]:
    return lambda form: core.frames(form, SAFE_DISCONN)


# ------------------------------------------------------------------------------------------------- arguments


@in_turn(
    "arguments, error",
    [
        ((7,), TypeError),
        ((None,), TypeError),
        ((bytearray(b"!H"),), TypeError),
        (("nonsense",), ValueError),
        (("",), ValueError),
        (("4x",), ValueError),
        (("!H", 1), ValueError),
        (("!H", -2), ValueError),
        (("!HB", 2), ValueError),
        (("!d",), TypeError),
        (("4s",), TypeError),
        (("c",), TypeError),
        (("?",), TypeError),
        (("0s",), TypeError),
        (("!H", True), TypeError),
        (("!H", "0"), TypeError),
        (("!H", -1, 1.0), TypeError),
        (("!H", -1, False), TypeError),
        (("!H", -1, 0, -1), ValueError),
        (("!H", -1, 0, None), TypeError),
        (("!H", -1, 0, True), TypeError),
        (("!H", [], 0, 10), TypeError),
    ],
)
def check_a_format_that_cannot_be_is_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    defaults = (None, -1, 0, 10)
    for _ in range(2):  # the second time a cache may answer
        with pytest.raises(error):
            frame_format(*arguments, *defaults[len(arguments) :])


def check_equal_arguments_give_one_format_and_a_function_is_not_kept() -> None:
    assert frame_format("!H", -1, 0, 9) is frame_format("!H", -1, 0, 9)
    assert frame_format("!H", -1, 0, 9) is not frame_format("!H", -1, 0, 8)
    assert frame_format(varint, -1, 0, 9) is not frame_format(varint, -1, 0, 9)
    form = struct.Struct("!H")
    assert struct_of(form) is form
    assert struct_of("!H") is struct_of("!H")


test_what_a_format_may_be = one_test_of(
    check_a_format_that_cannot_be_is_refused,
    check_equal_arguments_give_one_format_and_a_function_is_not_kept,
)


@in_turn(
    "returned, error",
    [
        (7, TypeError),
        ((1,), TypeError),
        ((1, 2, 3), TypeError),
        ([1, 2], TypeError),
        ((1.0, 2), TypeError),
        ((1, True), TypeError),
        ((1, None), TypeError),
        ((0, 5), ValueError),
        ((-1, 5), ValueError),
        ((MAX_HEADER_SIZE + 1, 5), ValueError),
        ((1, -1), FrameError),
        ((1, 1001), FrameTooLongError),
    ],
)
def check_what_a_header_function_may_not_return_takes_nothing(returned: Any, error: type[Exception]) -> None:
    form = frame_format(lambda _: returned, -1, 0, 1000)
    for _ in range(2):
        core = core_with(b"data")
        with pytest.raises(error) as caught:
            core.recv_frame(form)
        assert type(caught.value) is error
        assert core.recv_some(9) == b"data"


def check_a_header_function_sees_only_read_only_bytes_that_are_there_and_at_least_one() -> None:
    seen: list[tuple[memoryview, bytes]] = []

    def header(view: memoryview) -> tuple[int, int] | None:
        assert view.readonly
        seen.append((view, bytes(view)))
        return (2, 3) if len(view) > 5 else None

    core = StreamCore()
    form = frame_format(header, -1, 0, 10)
    for byte in b"abcdef":
        assert core.recv_frame(form) is None
        core.feed(bytes([byte]))
    assert core.recv_frame(form) == (b"ab", b"cde")
    assert min(len(content) for _, content in seen) == 1
    core.feed(b"x" * 100)
    assert all(view == content for view, content in seen)


def check_a_header_function_gets_64_kib_at_most_and_one_that_wants_more_is_refused() -> None:
    sizes: list[int] = []

    def header(view: memoryview) -> tuple[int, int] | None:
        sizes.append(len(view))
        return None

    core = core_with(b"x" * (MAX_HEADER_SIZE - 1))
    form = frame_format(header, -1, 0, 10)
    assert core.recv_frame(form) is None
    core.feed(b"y" * 100_000)
    with pytest.raises(FrameTooLongError, match="the header has 65536 bytes, the limit is 65536"):
        core.recv_frame(form)
    assert max(sizes) == MAX_HEADER_SIZE
    assert len(core) == MAX_HEADER_SIZE - 1 + 100_000


def check_a_header_function_is_not_asked_for_a_core_that_is_taken_or_closed() -> None:
    """Its exception was raised in place of a ``ClosedError`` or ``BusyError``."""
    core = core_with(b"data")

    def header(_: memoryview) -> tuple[int, int]:
        raise ZeroDivisionError

    form = frame_format(header, -1, 0, 10)
    assert core.buffer.ready_frame(form, ()) is None
    with pytest.raises(ZeroDivisionError):
        core.buffer.ready_frame(form, (core,))


def test_a_frame_of_the_format_of_the_last_one_is_ready_for_the_same_objects_only() -> None:
    """An equal argument may be of a wrong type, which is an error of the call."""
    core = core_with(b"\1a\1b\1c")
    slot, size, form = (core,), 1000, frame_format("B", -1, 0, 1000)
    assert core.buffer.ready_frame_of("B", -1, 0, size, slot) is None  # there was none
    assert core.recv_frame(form) == ((1,), b"a")
    wrong: list[tuple[Any, Any, Any, Any]] = [
        ("b", -1, 0, form.max_size),
        ("B", -1.0, 0, form.max_size),
        ("B", -1, False, form.max_size),
        ("B", -1, 0, float(size)),
    ]
    for arguments in wrong:
        assert core.buffer.ready_frame_of(*arguments, slot) is None
    assert core.buffer.ready_frame_of("B", -1, 0, form.max_size, ()) is None  # another call is reading
    assert core.buffer.ready_frame_of("B", -1, 0, form.max_size, slot) == ((1,), b"b")
    assert core.recv_frame(form) == ((1,), b"c")


test_what_a_header_function_gets_and_returns = one_test_of(
    check_what_a_header_function_may_not_return_takes_nothing,
    check_a_header_function_sees_only_read_only_bytes_that_are_there_and_at_least_one,
    check_a_header_function_is_not_asked_for_a_core_that_is_taken_or_closed,
    check_a_header_function_gets_64_kib_at_most_and_one_that_wants_more_is_refused,
)


# -------------------------------------------------------------------------------------------- hostile lengths

HOSTILE = [
    (Framing("!I", max_size=MAX_FRAME_SIZE), b"\xff\xff\xff\xff", FrameTooLongError, 2**32 - 1),
    (Framing("!I", -1, -4, MAX_FRAME_SIZE), b"\0\0\0\3", FrameError, -1),
    (Framing("!I", -1, -4, MAX_FRAME_SIZE), b"\xff\xff\xff\xff", FrameTooLongError, 2**32 - 5),
    (Framing("!i", max_size=MAX_FRAME_SIZE), b"\xff\xff\xff\xff", FrameError, -1),
    (Framing("!q", -1, 7, MAX_FRAME_SIZE), b"\x80" + bytes(7), FrameError, 7 - 2**63),
    (Framing("!Q", max_size=MAX_FRAME_SIZE), b"\xff" * 8, FrameTooLongError, 2**64 - 1),
    (Framing("!H", max_size=0), b"\0\1", FrameTooLongError, 1),
    (Framing(three_bytes, max_size=1000), b"\xff\xff\xff!", FrameTooLongError, 2**24 - 1),
]


@in_turn("framing, header, error, size", HOSTILE)
def check_a_hostile_length_allocates_nothing_and_consumes_nothing(
    framing: Framing, header: bytes, error: type[FrameError], size: int
) -> None:
    for before in (b"", frame_of(Framing("!I"), b"x")):
        for cut_at in range(len(header)):
            core = StreamCore()
            core.feed(before + header[:cut_at] if before or cut_at else header)
            if before:
                core.recv_exactly(len(before))
            if before or cut_at:
                assert core.recv_frame(form_of(framing)) is None
                assert core.recv_size <= BUFFER_SIZE
                core.feed(header[cut_at:])
            tracemalloc.start()
            try:
                for call in (core.recv_frame, quiet_frames(core), core.recv_frame):
                    with pytest.raises(error) as caught:
                        call(form_of(framing))
                    assert type(caught.value) is error
                    assert (caught.value.size, caught.value.limit) == (size, framing.max_size)
                assert tracemalloc.get_traced_memory()[1] < 20_000
            finally:
                tracemalloc.stop()
            assert core.recv_some(100) == header


@in_turn("framing, header, error, size", HOSTILE[:3])
def check_the_frames_before_a_hostile_length_are_delivered(
    framing: Framing, header: bytes, error: type[FrameError], size: int
) -> None:
    core = core_with(many_frames(framing, 20, 300) + header)
    form = form_of(framing)
    assert sum(isinstance(core.recv_frame(form), Frame) for _ in range(300)) == 300
    with pytest.raises(error):
        core.recv_frame(form)
    assert core.recv_some(100) == header


test_R16_a_hostile_length_costs_nothing_and_spoils_nothing = one_test_of(
    check_a_hostile_length_allocates_nothing_and_consumes_nothing,
    check_the_frames_before_a_hostile_length_are_delivered,
)


def check_an_exception_of_the_function_waits_until_its_frame_is_the_next() -> None:
    def header(view: memoryview) -> tuple[int, int]:
        if view[0] == 255:
            raise ZeroDivisionError
        return 1, view[0]

    form = frame_format(header, -1, 0, 300)
    core = core_with(b"\5hello" * 300 + b"\xff")
    for _ in range(300):
        assert core.recv_frame(form) == (b"\5", b"hello")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            core.recv_frame(form)
    assert core.recv_some(9) == b"\xff"


def check_an_exception_of_a_handler_is_not_taken_for_one_of_the_function() -> None:
    """It was lost if it was raised while frames were split ahead."""
    calls = 0

    def header(view: memoryview) -> tuple[int, int]:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Interruption  # as a handler does, which runs once
        return 1, view[0]

    for at in range(1, 400):
        calls = 0
        core = core_with(b"\5hello" * 200)
        form = frame_format(header, -1, 0, 300)
        taken = raised = 0
        while len(core):
            try:
                assert core.recv_frame(form) == (b"\5", b"hello")
                taken += 1
            except Interruption:
                raised += 1
        assert (taken, raised) == (200, int(calls >= at))


test_R16_P5_exceptions_while_frames_are_split_ahead = one_test_of(
    check_an_exception_of_the_function_waits_until_its_frame_is_the_next,
    check_an_exception_of_a_handler_is_not_taken_for_one_of_the_function,
)


# ------------------------------------------------------------------------------------------------ split ahead


def ahead_of(framing: Framing, count: int = 200) -> Pair:
    """A pair that has read frames, up to where some are split ahead."""
    pair = Pair()
    pair.feed(many_frames(framing, 20, count))
    while not pair.core.buffer.frames:
        assert pair.ask(Request("recv_frame", framing=framing))
    return pair


@in_turn("framing", [each for each in FRAMINGS if each.header != "!cI"])
def check_frames_are_split_ahead_and_every_other_request_sees_their_bytes(framing: Framing) -> None:
    others = [
        Request("recv", 7),
        Request("recv_some", 7),
        Request("recv_exactly", 7),
        Request("recv_line", 7),
        Request("recv_until", 300, delimiter=(b"c", b"dd")),
        Request("recv_struct", framing=Framing("!HB")),
        Request("recv_frame", framing=framing),
        Request("frames", framing=framing),
        Request("fill", 9, used=3),
        Request("fill", 0),
        Request("unread", data=b"\0\1"),
        Request("skip", 5),
    ]
    for other in others:
        for ready in (False, True):
            for taken in (0, 1, 3):
                pair = ahead_of(framing)
                for _ in range(taken):
                    pair.ask(Request("recv_frame", framing=framing, ready=ready))
                pair.ask(other._replace(ready=ready))
                pair.ask(Request("recv", 100))
                pair.feed(b"more")
                pair.ask(Request("recv", 100_000))
                pair.end()
                pair.ask(Request("recv", 100_000))


def check_frames_of_another_format_are_never_taken_from_those_split_ahead() -> None:
    pair = ahead_of(SHORT)
    pair.ask(Request("recv_frame", framing=Framing("!H", max_size=999)))
    pair.ask(Request("frames", framing=Framing(varint), ready=True))
    pair.ask(Request("recv_frame", framing=SHORT, ready=True))


@in_turn("kind", ["recv_exactly", "recv_line", "recv_struct", "fill", "unread", "recv_until"])
def check_frames_that_alternate_with_another_read_are_never_split_ahead(kind: str) -> None:
    pair = Pair()
    pair.feed((frame_of(SHORT, b"x" * 50) + b"one\n") * 300)
    for _ in range(300):
        pair.ask(Request("recv_frame", framing=SHORT, ready=True))
        assert not pair.core.buffer.frames
        pair.ask(Request(kind, 4, used=4, ready=True, framing=Framing("!HH")))
        if kind == "unread":
            break
        assert not pair.core.buffer.lines


def check_that_empty_frames_cost_little() -> None:
    """Of 64 KiB of them 8 MB were made."""
    for framing in (Framing("B"), Framing(varint)):
        core, form, most = core_with(bytes(100_000)), form_of(framing), 0
        for _ in range(100_000):
            frame = core.recv_frame(form)
            assert frame is not None
            assert frame.payload == b""
            most = max(most, len(core.buffer.frames))
        assert 1000 < most <= 4096
        assert not core


test_R16_R17_frames_split_ahead_and_other_reads = one_test_of(
    check_frames_are_split_ahead_and_every_other_request_sees_their_bytes,
    check_frames_of_another_format_are_never_taken_from_those_split_ahead,
    check_that_empty_frames_cost_little,
    check_frames_that_alternate_with_another_read_are_never_split_ahead,
)


# ------------------------------------------------------------------------------------------------ linear time


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def fresh(framing: Framing) -> FrameFormat:
    """A format of the module as the counter has changed it."""
    return FrameFormat(framing.header, framing.length_field, framing.length_adjust, framing.max_size)


LONG = Framing("!I", max_size=MAX_FRAME_SIZE)
LONG_BY_FUNCTION = Framing(three_bytes, max_size=MAX_FRAME_SIZE)


PIECES = ((1, (3_000, 30_000)), (1448, (1_000_000, 10_000_000)))
"""Bytes of a piece, and of all of them."""


def test_R15_R16_small_pieces_cost_linear_time(work: Work) -> None:
    """A function was asked for each piece, with a copy of 64 KiB; ``fill`` copied all that was there."""
    for piece, sizes in PIECES:
        for framing in (LONG, LONG_BY_FUNCTION):
            check_cost_of_a_long_frame(framing, piece, sizes, work)
        check_cost_of_a_large_fill(piece, sizes, work)


def check_cost_of_a_long_frame(framing: Framing, piece: int, sizes: tuple[int, int], work: Work) -> None:
    costs = []
    for size in sizes:
        core, form, data = StreamCore(), fresh(framing), frame_of(framing, b"x" * size)
        before = work.done
        for each in cut(data, range(piece, len(data), piece)):
            assert core.recv_frame(form) is None
            core.feed(work.bytes(each))
        assert core.recv_frame(form) is not None
        costs.append(work.done - before)
    assert costs[0] >= sizes[0]
    assert costs[1] <= 11 * costs[0]
    assert costs[1] <= 20 * sizes[1]


def check_cost_of_a_large_fill(piece: int, sizes: tuple[int, int], work: Work) -> None:
    costs = []
    for size in sizes:
        core = StreamCore()
        before = work.done
        for _ in range(0, size, piece):
            assert core.fill(size) is None
            core.feed(work.bytes(b"x" * piece))
        assert core.fill(size) is not None
        costs.append(work.done - before)
    assert costs[0] >= sizes[0]
    assert costs[1] <= 11 * costs[0]


def check_cost_of_several_delimiters(work: Work) -> None:
    for delimiters in ((b"\r\n\r\n", b"\n\n"), (b"a", b"bcd", b"xxxy")):
        for piece, size in ((1, 20_000), (1000, 2_000_000)):
            core = StreamCore()
            before = work.done
            for _ in range(0, size, piece):
                assert core.recv_until(delimiters, 10**9) is None
                core.feed(work.bytes((b"\r\n\rx" if piece > 1 else b"x") * max(piece // 4, 1)))
            assert work.done - before <= 20 * size * len(delimiters)


def test_R17_searches_and_alternating_reads_cost_linear_time(work: Work) -> None:
    check_cost_of_several_delimiters(work)
    unit = b"$100\r\n" + b"x" * 100 + b"\r\n" + frame_of(SHORT, b"y" * 30)
    form = fresh(SHORT)
    costs = []
    for count in (1_000, 10_000):
        core = StreamCore()
        core.feed(work.bytes(unit * count))
        before = work.done
        for _ in range(count):
            assert core.recv_line(100) == b"$100"
            assert core.recv_exactly(100) == b"x" * 100
            assert core.recv_until((b"\r\n", b"zz"), 100) == b"\r\n"
            assert core.recv_frame(form) == ((30,), b"y" * 30)
        costs.append(work.done - before)
        assert not core
    assert costs[1] <= 11 * costs[0]
    assert costs[1] <= 10 * 10_000 * len(unit)


def test_R15_unread_costs_linear_time(work: Work) -> None:
    check_cost_of_putting_back_what_was_read(work)
    check_cost_of_putting_back_again_and_again(work)


def check_cost_of_putting_back_what_was_read(work: Work) -> None:
    """``unread`` of one byte in front of 16 MiB, after another read, copied the 16 MiB each time."""
    reads: list[Callable[[StreamCore], object]] = [
        lambda core: core.recv_exactly(1),
        lambda core: core.recv_until(b"x", 1),
        lambda core: core.recv_line(1),
        lambda core: core.recv_struct(struct.Struct("c")),
        lambda core: core.buffer.ready_bytes(1, (core,)),
        lambda core: core.fill(1) and core.consume(1) == b"",
    ]
    core = StreamCore()
    core.feed(work.bytes(b"x" * MAX_FRAME_SIZE))
    for read in reads:
        before = work.done
        for _ in range(1000):
            assert read(core)
            core.unread(b"x")
        assert len(core) == MAX_FRAME_SIZE
        assert work.done - before < 100_000


def check_cost_of_putting_back_again_and_again(work: Work) -> None:
    core = StreamCore()
    core.feed(work.bytes(b"x" * 100_000))
    core.recv_exactly(1)
    costs = []
    for count in (10_000, 90_000):
        before = work.done
        for _ in range(count):
            core.unread(b"y")
        costs.append(work.done - before)
    assert costs[1] <= 11 * costs[0]
    assert core.recv_exactly(100_000) == b"y" * 100_000
    assert core.recv_exactly(99_999) == b"x" * 99_999


# ---------------------------------------------------------------------------------------------------- unread


def check_unread_cannot_grow_without_bound() -> None:
    core = core_with(b"x" * 1000)
    assert core.recv_exactly(600) == b"x" * 600
    megabyte = bytes(2**20)
    for _ in range(16):
        core.unread(megabyte)
    core.unread(b"y" * 600)
    for data in (b"z", megabyte):
        with pytest.raises(ValueError, match="unread: more than 16777216 bytes"):
            core.unread(data)
    core.unread(b"")
    assert len(core) == 1000 + MAX_FRAME_SIZE
    assert core.recv_exactly(601) == b"y" * 600 + b"\0"
    core.unread(b"z")
    with pytest.raises(ValueError, match="unread"):
        core.unread(b"y" * 601)
    assert core.recv_exactly(1) == b"z"


def check_every_byte_that_was_read_may_be_put_back() -> None:
    core = StreamCore()
    for _ in range(20):
        core.feed(bytes(2**20))
        core.recv_exactly(2**20)
    core.unread(bytes(36 * 2**20))
    with pytest.raises(ValueError, match="unread"):
        core.unread(b"x")
    assert len(core) == 36 * 2**20


@in_turn("shown", [b"abcdef", b"x" * 5000])
def check_a_view_never_changes_and_never_stands_in_the_way(shown: bytes) -> None:
    core = core_with(shown)
    views = []
    for step in range(40):
        core.fill(3)
        view = core.fill(3)
        assert view is not None
        views.append((view, bytes(view)))
        with pytest.raises(TypeError):
            view[0] = 0
        match step % 4:
            case 0:
                core.feed(b"%d" % step * 50)
            case 1:
                core.consume(2)
            case 2:
                core.unread(b"back %d" % step)
            case 3:
                core.recv_exactly(2)
        assert all(view == content for view, content in views)


def check_consume_takes_what_the_last_fill_has_shown_and_no_more() -> None:
    core = core_with(b"abcdef")
    with pytest.raises(ValueError, match="consume"):
        core.consume(1)
    core.fill(2)
    core.feed(b"more")
    with pytest.raises(ValueError, match="consume"):
        core.consume(7)
    core.consume(2)
    core.consume(4)
    with pytest.raises(ValueError, match="consume"):
        core.consume(1)
    assert core.recv(4) == b"more"


@in_turn(
    "read",
    [
        lambda core: core.recv_exactly(1),
        lambda core: core.recv_line(10),
        lambda core: core.buffer.ready_bytes(1, (core,)),
        lambda core: core.buffer.ready_line(10, (core,)),
        lambda core: core.recv_frame(frame_format("B", -1, -97, 10)),
        lambda core: core.unread(b"a"),
        lambda core: (core.recv_exactly(2), core.unread(b"ab")),
    ],
)
def check_consume_after_another_read_is_refused(read: Callable[[StreamCore], object]) -> None:
    core = core_with(b"a\n" * 10)
    core.fill(3)
    read(core)
    have = len(core)
    with pytest.raises(ValueError, match="another read"):
        core.consume(1)
    with pytest.raises(ValueError, match="another read"):
        core.consume(0) if have < 20 else core.consume(1)
    assert len(core) == have
    assert not core.buffer.ready_consume(1, (core,))


def check_peek_between_fill_and_consume_is_no_other_read() -> None:
    core = core_with(b"abc\n")
    core.fill(3)
    assert core.recv_exactly(0) == b""
    assert core.buffer.peek(2) == b"ab"
    core.consume(2)
    assert core.recv_some(9) == b"c\n"


def check_fill_waits_for_16_mib_at_most() -> None:
    core = StreamCore()
    assert core.fill(MAX_FRAME_SIZE) is None
    with pytest.raises(ValueError, match="MAX_FRAME_SIZE"):
        core.fill(MAX_FRAME_SIZE + 1)
    assert core.fill(0) == b""


@in_turn("size", [1, 5, 16_384, 100_000])
def check_an_unbuffered_core_receives_no_more_than_fill_asked_for(size: int) -> None:
    core = StreamCore(buffered=False)
    assert core.fill(size) is None
    assert core.recv_size == size
    core.feed(b"x")
    assert size == 1 or (core.fill(size) is None and core.recv_size == size - 1)


@in_turn(
    "read",
    [
        lambda core: core.unread(b"x"),
        lambda core: core.fill(1),
        lambda core: core.recv_frame(form_of(SHORT)),
        lambda core: core.frames(form_of(SHORT), SAFE_DISCONN),
        lambda core: core.recv_struct(struct.Struct("!Q")),
        lambda core: core.recv_until((b"a", b"b"), 10),
    ],
)
def check_the_fast_receive_of_a_socket_ends_with_a_framed_read(read: Callable[[StreamCore], object]) -> None:
    core = StreamCore()
    assert core.recv_some(BUFFER_SIZE) is None
    assert core.accept(b"message") == b"message"
    assert core.fast_recv_ok
    read(core)
    assert not core.fast_recv_ok


test_R15_fill_consume_and_unread = one_test_of(
    check_unread_cannot_grow_without_bound,
    check_every_byte_that_was_read_may_be_put_back,
    check_a_view_never_changes_and_never_stands_in_the_way,
    check_consume_takes_what_the_last_fill_has_shown_and_no_more,
    check_consume_after_another_read_is_refused,
    check_peek_between_fill_and_consume_is_no_other_read,
    check_the_fast_receive_of_a_socket_ends_with_a_framed_read,
    check_fill_waits_for_16_mib_at_most,
    check_an_unbuffered_core_receives_no_more_than_fill_asked_for,
)


@pytest.mark.long
def test_R5_fields_of_many_bytes_are_a_tuple() -> None:
    core, form = StreamCore(), struct.Struct("20000s")
    assert core.recv_struct(form) is None
    answer = core.accept(b"x" * 20_000)
    assert (core.recv_struct(form) if answer is None else answer) == (b"x" * 20_000,)


# ---------------------------------------------------------------------------------------------------- the end


@in_turn("framing, size", itertools.product([SHORT, Framing(three_bytes)], [0, 1, 3, 6]))
def test_R16_an_end_between_frames_is_the_end_and_one_inside_is_an_error(framing: Framing, size: int) -> None:
    whole = frame_of(framing, b"abcdef")
    core = core_with(whole * 2 + whole[:size])
    core.feed(b"")
    form = form_of(framing)
    assert [core.frames(form, SAFE_DISCONN)[1] for _ in range(2)] == [b"abcdef"] * 2
    for _ in range(2):
        with pytest.raises(EndOfStreamError) as caught:
            core.recv_frame(form)
        assert caught.value.partial == whole[:size]
        if size:
            with pytest.raises(EndOfStreamError, match="frames"):
                core.frames(form, SAFE_DISCONN)
        else:
            assert core.frames(form, SAFE_DISCONN) == b""
    assert core.recv(9) == whole[:size]


# ----------------------------------------------------------------------------------------------- interruptions

READY: dict[str, Callable[[ReceiveBuffer, tuple[StreamCore, ...]], object]] = {
    "ready_bytes": lambda buffer, slot: buffer.ready_bytes(7, slot),
    "ready_fields": lambda buffer, slot: buffer.ready_fields(struct.Struct("!HB"), slot),
    "ready_line": lambda buffer, slot: buffer.ready_line(99, slot),
    "ready_frame": lambda buffer, slot: buffer.ready_frame(form_of(SHORT), slot),
    "ready_frame by a function": lambda buffer, slot: buffer.ready_frame(form_of(Framing(varint)), slot),
    "ready_view": lambda buffer, slot: buffer.ready_view(5, slot),
    "consume": lambda buffer, slot: buffer.ready_consume(5, slot) or None,
}


HOW_MANY = {"ready_fields": 3, "ready_line": 5, "ready_frame by a function": 1, "ready_view": 0, "consume": 5}
"""Bytes that they take of ``DATA``, if they are not 7."""

DATA = b"\0\5he\nlo" * 100

FILES = ("_core/buffer.py", "_core/frames.py", "_core/lines.py")

NEVER = 10**9


def ready(name: str, core: StreamCore, slot: Sequence[StreamCore]) -> bool:
    """Call a method; whether it has an answer."""
    return READY[name](core.buffer, slot) not in (None, False)


@in_turn("name", READY)
def check_an_interruption_of_a_ready_method_takes_nothing(name: str) -> None:
    """At every moment at which a handler may run: with an exception the bytes are there, without it they are gone."""
    moments = 0
    for moment in (NEVER, *range(200)):
        core = core_with(DATA)
        core.fill(1)
        answers: list[bool] = []

        def call(core: StreamCore = core, answers: list[bool] = answers) -> None:
            answers.append(ready(name, core, (core,)))

        try:
            raised = interrupted(call, moment, *FILES)
        except Interruption:
            moments += 1
            assert core.recv_some(1000) == DATA
        else:
            assert not raised
            assert answers == [True]
            assert core.recv_some(1000) == DATA[HOW_MANY.get(name, 7) :]
            if moment != NEVER:
                break
    assert moments or name == "consume"  # which calls nothing


def check_an_interruption_of_unread_puts_nothing_back() -> None:
    """With nothing there, the put-back bytes could be read though they did not count."""
    for data in (b"x", b"ab", b"y" * 2000):
        for there in (b"", b"abcd", b"z" * 5000):
            for moment in (NEVER, *range(200)):
                buffer = ReceiveBuffer()
                buffer.feed(b"ab" + there)
                buffer.take(2)
                try:
                    interrupted(lambda buffer=buffer, data=data: buffer.unread(data), moment, *FILES)
                except Interruption:
                    assert len(buffer) == buffer.size == len(there)
                    assert buffer.peek(len(there)) == there
                    core = StreamCore()
                    buffer.take(len(there))
                    assert not buffer.ready_fields(struct.Struct("c"), (core,))
                else:
                    assert buffer.peek(len(buffer)) == data + there
                    if moment != NEVER:
                        break
            assert moment > 0


test_P5_an_interruption_takes_nothing_and_puts_nothing_back = one_test_of(
    check_an_interruption_of_a_ready_method_takes_nothing,
    check_an_interruption_of_unread_puts_nothing_back,
)


# ---------------------------------------------------------------------------------------- what others did first


@in_turn("name", READY)
def check_a_ready_method_takes_nothing_of_a_core_that_is_taken_or_must_recover(name: str) -> None:
    core = core_with(DATA)
    core.fill(1)
    assert not ready(name, core, ())
    core.note()
    assert not ready(name, core, (core,))
    core.done()
    assert ready(name, core, (core,))


def put_back_again(core: StreamCore) -> None:
    core.buffer.unread(core.buffer.take(14))


OTHERS: dict[str, Callable[[StreamCore, list[StreamCore]], object]] = {
    "takes": lambda core, _: core.buffer.take(7),
    "feeds": lambda core, _: core.buffer.feed(b"more"),
    "puts back": lambda core, _: put_back_again(core),
    "reads lines": lambda core, _: [core.recv_line(100) for _ in range(75)],
    "reads frames": lambda core, _: [core.recv_frame(form_of(SHORT)) for _ in range(75)],
    "is reading": lambda _, slot: slot.clear(),
    "was interrupted": lambda core, _: core.note(),
}


@in_turn("name", READY)
def check_a_ready_method_and_another_thread_take_each_byte_once(name: str) -> None:
    """At every moment at which the other thread may run, which has read, put back, split ahead, or is reading."""
    moments = 0
    for other in OTHERS.values():
        for moment in (NEVER, *range(200)):
            core = core_with(DATA)
            core.fill(1)
            slot = [core]
            answers: list[bool] = []
            left: list[int] = []

            def call(
                core: StreamCore = core, slot: list[StreamCore] = slot, answers: list[bool] = answers
            ) -> None:
                answers.append(ready(name, core, slot))

            def meanwhile(
                core: StreamCore = core,
                slot: list[StreamCore] = slot,
                left: list[int] = left,
                other: Callable[[StreamCore, list[StreamCore]], object] = other,
            ) -> None:
                other(core, slot)
                left.append(len(core))

            reached = switched(call, moment, meanwhile, *FILES)
            moments += reached
            size = HOW_MANY.get(name, 7) if answers == [True] else 0
            have = left[0] if left else len(DATA)
            assert len(core) == have - size, moment
            fed = DATA + b"more" * (have > len(DATA))
            assert core.recv_some(1000) == fed[len(fed) - have + size :]
            if moment != NEVER and not reached:
                break
    assert moments or name == "consume"


test_R11_ready_methods_beside_another_thread = one_test_of(
    check_a_ready_method_takes_nothing_of_a_core_that_is_taken_or_must_recover,
    check_a_ready_method_and_another_thread_take_each_byte_once,
)
