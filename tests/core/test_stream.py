"""The stream core against a naive model, and those of its promises that are not about lines."""

from __future__ import annotations

import contextlib
import errno
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.cases import in_turn
from tests.core.model import (
    ENDS,
    FRAME_REQUESTS,
    FRAME_RUNS,
    FRAMED_TEXTS,
    PLAIN_LINE,
    REQUESTS,
    SOME,
    Failure,
    NaiveStream,
    Outcome,
    Pair,
    Request,
    ask,
    cut,
    framed_scripts,
    many_lines,
    small_thresholds,
)
from wireline._core.sizes import check_size
from wireline._core.stream import Direct, StreamCore
from wireline.errors import EndOfStreamError
from wireline.options import BUFFER_SIZE, SAFE_DISCONN, SocketFlag

PEEK = SocketFlag.PEEK
UNSAFE = SocketFlag(0)

PLACES = st.lists(st.integers(0, 4000), max_size=20)
"""Where data is cut, before it is known how long it is."""


def core_with(data: bytes, *, ended: bool = False, buffered: bool = True) -> StreamCore:
    core = StreamCore(buffered=buffered)
    if data:
        core.feed(data)
    if ended:
        core.feed(b"")
    return core


# ------------------------------------------------------------------------------------------------- the model


def drive(pieces: list[bytes], end: OSError | None, script: list[Request]) -> list[Outcome]:
    """Answer each request of ``script`` as a socket does: the next piece is fed when the answer is "not yet"."""
    pair = Pair()
    waiting = iter(pieces)
    outcomes: list[Outcome] = []
    for request in script:
        outcome: Outcome = None
        while outcome is None and (outcome := pair.ask(request)) is None:
            if piece := next(waiting, b""):
                outcome = pair.arrive(piece, request)
            else:
                pair.end(end)
        outcomes.append(outcome)
    return outcomes


@given(FRAMED_TEXTS, ENDS, framed_scripts(REQUESTS), PLACES)
@settings(max_examples=100)  # each runs a whole script, several times
@small_thresholds()
def test_a_script_has_the_same_answers_whole_byte_by_byte_and_in_every_cut(
    data: bytes, end: OSError | None, script: list[Request], places: list[int]
) -> None:
    everything = NaiveStream()
    everything.data, everything.ended, everything.error = data, True, end
    expected = [everything.answer(request) for request in script]
    for where in ([], range(len(data)), [place % (len(data) + 1) for place in places]):
        assert drive(list(cut(data, where)), end, script) == expected


@given(
    FRAMED_TEXTS,
    ENDS,
    st.lists(st.tuples(framed_scripts(REQUESTS | SOME), st.integers(0, 3)), max_size=6),
    PLACES,
)
@settings(max_examples=100)  # each runs a whole script, several times
@small_thresholds()
def test_R5_requests_that_are_given_up_at_any_moment_lose_nothing(
    data: bytes, end: OSError | None, parts: list[tuple[list[Request], int]], places: list[int]
) -> None:
    pair = Pair()
    pieces = cut(data, [place % (len(data) + 1) for place in places])
    for script, patience in parts:
        for request in script:
            for _ in range(patience):
                if pair.ask(request) is not None:
                    break
                pair.feed(next(pieces, b""))
    for piece in pieces:
        pair.feed(piece)
    pair.end(end)
    pair.ask(Request("recv", len(data)))


@given(FRAMED_TEXTS, ENDS, framed_scripts(REQUESTS | SOME), st.integers(1, 1000))
@settings(max_examples=100)  # each runs a whole script, several times
@small_thresholds()
def test_unbuffered_never_wants_more_than_the_request_may_consume(
    data: bytes, end: OSError | None, script: list[Request], one_call: int
) -> None:
    pair = Pair(buffered=False)
    kernel = data
    for request in script:
        while pair.ask(request) is None:
            assert 1 <= pair.core.recv_size <= pair.model.most(request)
            given_now = min(pair.core.recv_size, one_call)
            if kernel:
                pair.feed(kernel[:given_now])
                kernel = kernel[given_now:]
            else:
                pair.end(end)


class CoreAndModel(RuleBasedStateMachine):
    """Anything in any order: bytes also arrive when no request waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.patched = contextlib.ExitStack()
        self.patched.enter_context(small_thresholds())

    def teardown(self) -> None:
        self.patched.close()

    @precondition(lambda self: not self.pair.model.ended)
    @rule(data=FRAMED_TEXTS)
    def feed(self, data: bytes) -> None:
        self.pair.feed(data)

    @precondition(lambda self: not self.pair.model.ended)
    @rule(error=ENDS)
    def end(self, error: OSError | None) -> None:
        self.pair.end(error)

    @rule(request=REQUESTS | SOME | FRAME_REQUESTS)
    def ask(self, request: Request) -> None:
        self.pair.ask(request)

    @rule(count=st.integers(1, 100))
    def read_plain_lines(self, count: int) -> None:
        while count and self.pair.ask(PLAIN_LINE):
            count -= 1

    @rule(run=FRAME_RUNS)
    def read_frames(self, run: list[Request]) -> None:
        for request in run:
            self.pair.ask(request)

    @rule()
    def look_at_an_unfinished_line(self) -> None:
        assert self.pair.core.pending_line() == self.pair.model.data


TestCoreAndModel = CoreAndModel.TestCase
TestCoreAndModel.settings = settings(max_examples=50, stateful_step_count=40)

EVERY_KIND = [
    Request("recv", 700),
    Request("recv", 7, PEEK),
    Request("recv_some", 7),
    Request("recv_some", 10_000),
    Request("recv_some", 10_000, PEEK),
    Request("recv_some", 0),
    Request("recv_exactly", 9),
    Request("recv_until", 200, delimiter=b"c\n"),
    Request("recv_line", 3),
    Request("recv_line", 3, on_long="raise"),
    Request("recv_line", 50, PEEK),
    Request("skip", 5),
    PLAIN_LINE,
]


@in_turn("request_", EVERY_KIND)
@in_turn("terminator", [b"\n", b"\r\n"])
def test_the_fast_lane_agrees_with_every_other_request(terminator: bytes, request_: Request) -> None:
    pair = Pair()
    pair.feed(many_lines([terminator], 20, 200) + b"unfinished")
    for taken_from_the_lane in (0, 1, 2, 5, 1_000_000):
        while not pair.core.buffer.lines:
            pair.feed(many_lines([terminator], 20, 60))
            assert pair.ask(PLAIN_LINE)
        while pair.core.buffer.lines and taken_from_the_lane:
            pair.ask(PLAIN_LINE)
            taken_from_the_lane -= 1
        pair.ask(request_)
        pair.ask(Request("recv", 10, PEEK))
    pair.end()
    pair.ask(Request("recv", 1_000_000))


@in_turn("request_", EVERY_KIND)
@in_turn("taken", [0, 1])
def test_every_request_sees_lines_that_are_in_the_fast_lane_only(taken: int, request_: Request) -> None:
    pair = Pair()
    pair.feed(b"x" * 600 + b"\n" + b"a line\n" * 50)
    pair.ask(PLAIN_LINE)
    assert len(pair.core.buffer.lines) == 50
    for _ in range(taken):
        pair.ask(PLAIN_LINE)
    pair.ask(request_)
    pair.ask(Request("recv", 20))


# ------------------------------------------------------------------------------------------------ R1 and R2


def test_R1_buffered_recv_waits_for_all_of_it() -> None:
    core = StreamCore()
    for piece in (b"ab", b"c", b"d"):
        assert core.recv(5) is None
        core.feed(piece)
    assert core.recv(5) is None  # asked again, after a timeout: that changes nothing
    core.feed(b"ef")
    assert core.recv(5) == b"abcde"
    assert core.recv(5) is None


def test_R1_buffered_recv_is_short_only_at_the_end() -> None:
    core = core_with(b"abc")
    assert core.recv(5) is None
    core.feed(b"")
    assert [core.recv(5), core.recv(5)] == [b"abc", b""]


def test_R1_unbuffered_recv_is_what_one_system_call_gave() -> None:
    core = StreamCore(buffered=False)
    assert core.recv(5) is None
    core.feed(b"ab")
    assert core.recv(5) == b"ab"
    assert core.recv(5) is None


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("data", [b"", b"abc"])
def test_R1_recv_of_nothing_is_nothing_at_once(data: bytes, buffered: bool) -> None:
    core = core_with(data, buffered=buffered)
    assert [core.recv(0), core.recv_some(0), core.recv_exactly(0), core.skip(0)] == [b""] * 4
    assert len(core) == len(data)


@pytest.mark.parametrize("buffered", [True, False])
def test_R2_recv_some_answers_with_the_first_byte(buffered: bool) -> None:
    core = StreamCore(buffered=buffered)
    assert core.recv_some(5) is None
    core.feed(b"a")
    assert core.recv_some(5) == b"a"


def test_R2_recv_some_gives_the_buffer_first_and_no_more_than_asked() -> None:
    core = core_with(b"line\nabcdef")
    assert core.recv_line(10) == b"line"
    assert [core.recv_some(4), core.recv_some(4), core.recv_some(4)] == [b"abcd", b"ef", None]


# ------------------------------------------------------------------------------------------------------- R5

UNANSWERED = [
    Request("recv_exactly", 22),
    Request("skip", 22),
    Request("recv_until", 22, delimiter=b"\r\n\r\n"),
    Request("recv_line", 20),
    Request("recv_line", 20, PEEK),
]


@pytest.mark.parametrize("request_", UNANSWERED, ids=str)
@pytest.mark.parametrize("buffered", [True, False])
def test_R5_another_request_after_one_that_was_given_up_gets_every_byte(
    request_: Request, buffered: bool
) -> None:
    core = StreamCore(buffered=buffered)
    for byte in b"half a li":
        assert ask(core, request_) is None
        core.feed(bytes([byte]))
    assert ask(core, request_) is None
    assert core.recv_some(100) == b"half a li"


@in_turn("request_", [*UNANSWERED, Request("recv", 22)])
def test_R5_the_same_request_made_again_gets_every_byte(request_: Request) -> None:
    data = b"a line of 18 bytes\r\n\r\n"
    core = StreamCore()
    arriving = iter(data)
    while (answer := ask(core, request_)) is None:
        core.feed(bytes([next(arriving)]))
    assert answer == (data[:18] if request_.kind == "recv_line" else data)


# ------------------------------------------------------------------------------------------------------ R10


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "request_",
    [Request("recv", 4, PEEK), Request("recv_some", 4, PEEK), Request("recv_line", 4, PEEK)],
    ids=str,
)
def test_R10_peek_consumes_nothing_and_fills_a_drained_buffer(request_: Request, buffered: bool) -> None:
    core = core_with(b"x", buffered=buffered)
    assert core.recv_some(1) == b"x"
    for _ in range(2):
        assert ask(core, request_) is None  # "not yet", which is not the end
        assert core.recv_size >= 1
    core.feed(b"abcd\r\n")
    assert [ask(core, request_) for _ in range(3)] == [b"abcd"] * 3
    assert ask(core, request_._replace(flags=PEEK | SAFE_DISCONN)) == b"abcd"
    assert core.recv(6) == b"abcd\r\n"


@in_turn("kind", ["recv", "recv_some", "recv_line"])
def test_R10_peek_at_the_end_is_the_end(kind: str) -> None:
    core = core_with(b"", ended=True)
    assert [ask(core, Request(kind, 4, PEEK)) for _ in range(2)] == [b""] * 2


def test_R10_peek_of_an_empty_line_is_an_empty_line() -> None:
    core = core_with(b"\nb\n")
    assert [core.recv_line(9, flags=PEEK) for _ in range(2)] == [b"\r\n"] * 2
    assert [core.recv_line(9), core.recv_line(9)] == [b"\r\n", b"b"]


# ------------------------------------------------------------------------------------------------------ R12


def reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


@in_turn("kind", ["recv", "recv_some", "recv_line"])
@in_turn("flags, report", [(SAFE_DISCONN, b""), (UNSAFE, Failure(ConnectionResetError, errno.ECONNRESET))])
def test_R12_a_reset_is_reported_after_the_data_and_every_time(
    kind: str, flags: SocketFlag, report: Outcome
) -> None:
    core = core_with(b"line\n")
    core.fail(reset())
    assert core.ended
    size = 5 if kind != "recv_line" else 9
    answers = [ask(core, Request(kind, size, flags)) for _ in range(4)]
    assert answers == [b"line" if kind == "recv_line" else b"line\n", report, report, report]
    assert ask(core, Request(kind, size, flags | PEEK)) == report


def test_R12_a_short_result_precedes_the_reset() -> None:
    core = core_with(b"abc")
    core.fail(reset())
    assert core.recv(100, UNSAFE) == b"abc"
    with pytest.raises(ConnectionResetError):
        core.recv(100, UNSAFE)


def test_R12_a_reset_in_the_middle_of_a_line_keeps_its_bytes() -> None:
    core = core_with(b"line\nhalf")
    core.fail(reset())
    assert core.recv_line(9, flags=UNSAFE) == b"line"
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            core.recv_line(9, flags=UNSAFE)
    assert core.recv_line(9) == b""
    assert core.recv_some(9, UNSAFE) == b"half"


@in_turn(
    "call",
    [
        lambda core: core.recv_exactly(9),
        lambda core: core.skip(9),
        lambda core: core.recv_until(b"\n", 9),
    ],
)
def test_R12_a_reset_inside_a_whole_answer_is_the_cause_of_the_shortfall(
    call: Callable[[StreamCore], bytes | None],
) -> None:
    core = core_with(b"abc")
    error = reset()
    core.fail(error)
    for _ in range(3):
        with pytest.raises(EndOfStreamError) as caught:
            call(core)
        assert caught.value.partial == b"abc"
        assert caught.value.__cause__ is error
    assert core.recv_exactly(3) == b"abc"


@in_turn("flags", [SAFE_DISCONN, UNSAFE])
def test_R12_an_error_that_is_no_disconnection_is_never_a_quiet_end(flags: SocketFlag) -> None:
    core = core_with(b"abc")
    core.fail(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
    report = Failure(TimeoutError, errno.ETIMEDOUT)
    for request in (Request("recv_exactly", 9), Request("skip", 9), Request("recv_until", 9)):
        assert ask(core, request) == report
    assert ask(core, Request("recv", 9, flags)) == b"abc"
    for kind in ("recv", "recv_some", "recv_line"):
        assert ask(core, Request(kind, 9, flags)) == report


def test_R12_each_report_is_a_fresh_error_with_the_notes_of_the_first() -> None:
    core = StreamCore()
    error = reset()
    error.add_note("recv from 192.0.2.1 port 7")
    core.fail(error)
    reports = []
    for _ in range(3):
        with pytest.raises(ConnectionResetError, match="reset by peer") as caught:
            core.recv(1, UNSAFE)
        reports.append(caught.value)
        assert caught.value.__notes__ == ["recv from 192.0.2.1 port 7"]
    assert len({id(report) for report in [error, *reports]}) == 4
    assert len({len(traceback.extract_tb(report.__traceback__)) for report in reports}) == 1
    assert error.__traceback__ is None


# ----------------------------------------------------------------------------------------------------- want


@in_turn(
    "data, request_, want",
    [
        (b"", Request("recv", 7), 7),
        (b"", Request("recv", 7, PEEK), 7),
        (b"", Request("recv_some", 7), 7),
        (b"ab", Request("recv_exactly", 7), 5),
        (b"ab", Request("skip", 7), 5),
        (b"", Request("recv_line", 7), 1),
        (b"a\r", Request("recv_line", 7), 1),
        (b"abcdefg\r", Request("recv_line", 7), 1),
        (b"", Request("recv_until", 99, delimiter=b"\n"), 1),
        (b"", Request("recv_until", 99, delimiter=b"\r\n\r\n"), 4),
        (b"a\r", Request("recv_until", 99, delimiter=b"\r\n\r\n"), 3),
        (b"a\r\n", Request("recv_until", 99, delimiter=b"\r\n\r\n"), 2),
        (b"a\r\n\r", Request("recv_until", 99, delimiter=b"\r\n\r\n"), 1),
        (b"a\r\n\ra", Request("recv_until", 99, delimiter=b"\r\n\r\n"), 4),
        (b"\r\n\r\r\n", Request("recv_until", 99, delimiter=b"\r\n\r\n"), 2),
        (b"aaa", Request("recv_until", 5, delimiter=b"\r\n\r\n"), 2),
        (b"", Request("recv_exactly", 10**12), 2**20),
    ],
)
def test_the_receive_size_of_an_unbuffered_core(data: bytes, request_: Request, want: int) -> None:
    core = core_with(data, buffered=False)
    assert ask(core, request_) is None
    assert core.recv_size == want


@in_turn(
    "data, request_, want, whole",
    [
        (b"", Request("recv_line"), BUFFER_SIZE, False),
        (b"", Request("recv_until"), BUFFER_SIZE, False),
        (b"", Request("recv_some", 1), BUFFER_SIZE, False),
        (b"", Request("recv_some", BUFFER_SIZE), BUFFER_SIZE, False),
        (b"", Request("recv_some", BUFFER_SIZE + 1), BUFFER_SIZE + 1, False),
        (b"", Request("recv_some", 2**30), 2**20, False),
        (b"abc", Request("recv", 100), BUFFER_SIZE, False),
        (b"abc", Request("recv_exactly", 100), BUFFER_SIZE, False),
        (b"abc", Request("recv", 200_003), 200_000, True),
        (b"abc", Request("recv", 200_003, PEEK), 200_000, True),
        (b"abc", Request("recv_exactly", 200_003), 200_000, True),
        (b"abc", Request("skip", 200_003), 200_000, True),
        (b"abc", Request("recv_exactly", 10**12), 2**20, True),
    ],
)
def test_the_receive_size_of_a_buffered_core(data: bytes, request_: Request, want: int, whole: bool) -> None:
    core = core_with(data)
    assert ask(core, Request("skip", 10**6)) is None  # this request was given up, and its size with it
    assert ask(core, request_) is None
    assert (core.recv_size, core.direct is Direct.ALL) == (want, whole)


def take_inbox(core: StreamCore, data: bytes | OSError) -> bytes | None:
    core.inbox = data
    return core.accept_inbox()


@in_turn("data", [b"a line\r\n", b"x\n", b"no line", b"two\nlines\n", b"\n", b""])
@in_turn(
    "request_",
    [Request("recv_some", 6), Request("recv_line"), Request("recv_exactly", 7), Request("recv", 7)],
)
def test_what_may_be_interrupted_has_the_same_answer(data: bytes, request_: Request) -> None:
    plain, interruptible = StreamCore(), StreamCore()
    assert ask(plain, request_) is None is ask(interruptible, request_)
    answer = plain.accept(data)
    assert take_inbox(interruptible, data) == answer
    if answer is not None:
        assert interruptible.inbox is data  # until the caller has it
        assert interruptible.fast_recv_ok == plain.fast_recv_ok
    interruptible.done()
    assert (len(interruptible), interruptible.ended) == (len(plain), plain.ended)
    assert interruptible.buffer.received == plain.buffer.received == len(data)


def fast() -> StreamCore:
    """A core that has just answered a message with one receive as it was."""
    core = StreamCore()
    assert core.recv_some(BUFFER_SIZE) is None
    assert core.accept(b"message") == b"message"
    assert core.fast_recv_ok
    return core


@in_turn(
    "happens",
    [
        lambda core: core.feed(b"more"),
        lambda core: core.accept(bytes(BUFFER_SIZE + 1)),
        lambda core: core.accept(b""),
        lambda core: take_inbox(core, bytes(BUFFER_SIZE + 1)),
        lambda core: take_inbox(core, b""),
        lambda core: take_inbox(core, ConnectionResetError()),
        lambda core: core.feed(b""),
        lambda core: core.fail(ConnectionResetError()),
        lambda core: core.recv(200_000),
        lambda core: core.recv_some(BUFFER_SIZE + 1),
        lambda core: core.recv_exactly(200_000),
        lambda core: core.recv_line(100),
        lambda core: core.recv_until(b"x", 100),
    ],
)
def test_the_fast_receive_ends_when_anything_happens(happens: Callable[[StreamCore], object]) -> None:
    core = fast()
    happens(core)
    assert not core.fast_recv_ok


def test_a_core_in_the_fast_state_wants_what_recv_some_would() -> None:
    core = fast()
    assert (core.recv_size, core.direct, len(core), core.ended) == (BUFFER_SIZE, Direct.SOME, 0, False)
    for buffered, most in ((False, 100), (True, BUFFER_SIZE + 1)):
        core = StreamCore(buffered=buffered)
        assert core.recv_some(most) is None
        assert core.accept(b"message") == b"message"
        assert not core.fast_recv_ok


def test_an_unbuffered_recv_never_needs_all_that_it_wants() -> None:
    core = StreamCore(buffered=False)
    assert core.recv(2**20) is None
    assert core.direct is Direct.SOME
    assert core.recv_exactly(2**20) is None
    assert core.direct is Direct.ALL


# ------------------------------------------------------------------------------------------------ bad input

SIZED: dict[str, Callable[[StreamCore, int], bytes | None]] = {
    "recv": lambda core, size: core.recv(size),
    "recv_some": lambda core, size: core.recv_some(size),
    "recv_exactly": lambda core, size: core.recv_exactly(size),
    "skip": lambda core, size: core.skip(size),
    "recv_until": lambda core, size: core.recv_until(b"\n", size),
    "recv_line": lambda core, size: core.recv_line(size),
}


BAD_SIZES = [
    (-1, ValueError),
    (-(10**30), ValueError),
    (True, TypeError),
    (False, TypeError),
    (1.0, TypeError),
    (float("nan"), TypeError),
    ("1", TypeError),
    (b"1", TypeError),
    (None, TypeError),
    ([], TypeError),
]


@in_turn("method", SIZED)
@in_turn("ended", [False, True])
def test_a_bad_size_is_refused_and_takes_nothing(method: str, ended: bool) -> None:
    for size, error in BAD_SIZES:
        core = core_with(b"data\n", ended=ended)
        with pytest.raises(error, match=r"size|max_length"):
            SIZED[method](core, size)  # type: ignore[arg-type]
        assert len(core) == 5


class Integer:
    """An integer by protocol only, as those of numeric libraries are."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


@in_turn(
    "method, answer",
    [
        ("recv", b"dat"),
        ("recv_some", b"dat"),
        ("recv_exactly", b"dat"),
        ("skip", b"dat"),
        ("recv_line", b"dat"),
    ],
)
def test_a_size_may_be_anything_that_is_an_integer(method: str, answer: bytes) -> None:
    assert SIZED[method](core_with(b"data\n"), Integer(3)) == answer  # type: ignore[arg-type]


def test_check_size_names_the_parameter() -> None:
    assert check_size(0) == 0
    assert type(check_size(Integer(3))) is int  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^max_length must not be negative, got -2$"):
        check_size(-2, "max_length")
    with pytest.raises(TypeError, match=r"^size is a number of bytes, not str$"):
        check_size("2")  # type: ignore[arg-type]


def test_a_line_has_at_least_one_byte() -> None:
    with pytest.raises(ValueError, match="max_length must be at least 1"):
        core_with(b"data\n").recv_line(0)
    assert core_with(b"data\n").recv_line(Integer(1)) == b"d"  # type: ignore[arg-type]


@in_turn("on_long", ["", "Raise", "ignore", None, True, 1, b"raise"])
def test_a_bad_on_long_is_refused(on_long: str) -> None:
    core = core_with(b"data\n")
    with pytest.raises(ValueError, match="on_long is 'truncate' or 'raise', not"):
        core.recv_line(9, on_long)
    assert len(core) == 5


@in_turn(
    "delimiter, error",
    [
        (b"", ValueError),
        ("\n", TypeError),
        ("", TypeError),
        (10, TypeError),
        (0, TypeError),
        (None, TypeError),
    ],
)
@in_turn("data", [b"", b"data\n"])
def test_a_bad_delimiter_is_refused(data: bytes, delimiter: bytes, error: type[Exception]) -> None:
    core = core_with(data)
    with pytest.raises(error, match="the delimiter is"):
        core.recv_until(delimiter, 9)
    assert len(core) == len(data)


# ------------------------------------------------------------------------------------- one receive is the result


@in_turn("read", [StreamCore.recv, StreamCore.recv_exactly])
def test_a_read_of_all_bytes_from_an_empty_buffer_returns_one_receive_as_it_is(
    read: Callable[[StreamCore, int], bytes | None],
) -> None:
    core = StreamCore()
    assert read(core, 20_000) is None
    assert (core.direct, core.direct_limit, core.recv_size) == (Direct.ALL, 20_000, 20_000)
    assert read(core, 10**7) is None
    assert not core.direct_limit  # several receives
    core.feed(b"x")
    assert read(core, 20_000) is None
    assert (core.direct, core.direct_limit, core.recv_size) == (Direct.ALL, 0, 19_999)


def test_a_peek_is_never_one_receive_as_it_is() -> None:
    core = StreamCore()
    assert core.recv(20_000, PEEK) is None
    assert not core.direct_limit
