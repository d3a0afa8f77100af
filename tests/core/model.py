"""Shared by the tests of the core: an obviously right stream, data that is hard for readers of lines, a counter.

``NaiveStream`` keeps all input in one ``bytes`` and looks at all of it for every request. ``StreamCore``
must agree with it, request by request, "not yet" and exceptions included. ``Work`` counts bytes that are searched and
copied, so that a test can tell linear from quadratic without a clock.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st

from wireline._core import buffer as buffer_module
from wireline._core import frames as frames_module
from wireline._core import stream as stream_module
from wireline._core.frames import Frame, FrameFormat, frame_format
from wireline._core.stream import ALL, StreamCore
from wireline.errors import EndOfStreamError, FrameError, FrameTooLongError, LineTooLongError
from wireline.options import MAX_LINE_LENGTH, SAFE_DISCONN, SocketFlag

# ------------------------------------------------------------------------------------------------ requests


class Framing(NamedTuple):
    """The arguments of ``recv_frame``."""

    header: str | Callable[[memoryview], tuple[int, int] | None]
    length_field: int = -1
    length_adjust: int = 0
    max_size: int = 1000


class Request(NamedTuple):
    """One read. ``size`` is what that read calls size, max_size or max_length."""

    kind: str
    size: int = MAX_LINE_LENGTH
    flags: SocketFlag = SAFE_DISCONN
    delimiter: bytes | tuple[bytes, ...] = b"\n"
    on_long: str = "truncate"
    framing: Framing = Framing("!H")
    """For ``recv_frame`` and ``frames``; its header is the format of ``recv_struct``."""
    data: bytes = b""
    """For ``unread``."""
    used: int = 0
    """For ``fill``: how many of ``size`` bytes are consumed."""
    ready: bool = False
    """As the blocking socket does it: first without a request."""


class Failure(NamedTuple):
    """An exception, in a form that compares: its class, and its partial bytes, limit, size or errno."""

    error: type[Exception]
    detail: bytes | int | None


Outcome = bytes | tuple[Any, ...] | Failure | None
"""Bytes, fields, a frame, an exception, or None for "not yet"."""

PLAIN_LINE = Request("plain_line")
"""``recv_line()`` as a socket does it: from the fast lane when there is something in it."""


def ask(core: StreamCore, request: Request) -> Outcome:
    """Make ``request`` of the core."""
    try:
        return _ASK[request.kind](core, request)
    except EndOfStreamError as error:
        return Failure(EndOfStreamError, error.partial)
    except LineTooLongError as error:
        return Failure(LineTooLongError, error.limit)
    except FrameError as error:
        return Failure(type(error), error.size)
    except Refused:
        return Failure(Refused, None)
    except OSError as error:
        return Failure(type(error), error.errno)


def plain_line(core: StreamCore, max_length: int = MAX_LINE_LENGTH) -> bytes | None:
    """The step of a socket's ``recv_line(max_length=...)``."""
    if core.buffer.lines and len(core.buffer.lines[-1]) <= max_length:
        return core.buffer.lines.pop()
    return core.recv_line(max_length)


def form_of(framing: Framing) -> FrameFormat:
    """The format, the same one for equal arguments, as of an iterator."""
    if framing not in _forms:
        _forms[framing] = frame_format(*framing)
    return _forms[framing]


_forms: dict[Framing, FrameFormat] = {}


def _line(core: StreamCore, request: Request) -> bytes | None:
    if request.ready and not core.buffer.lines:
        line = core.buffer.ready_line(request.size, (core,))
        if line is not None:
            return line
    return plain_line(core, request.size)


def _exactly(core: StreamCore, request: Request) -> bytes | None:
    data = core.buffer.ready_bytes(request.size, (core,)) if request.ready else None
    return core.recv_exactly(request.size) if data is None else data


def _struct(core: StreamCore, request: Request) -> tuple[Any, ...] | None:
    form = frames_module.struct_of(request.framing.header)  # type: ignore[arg-type] # it is no function
    fields = core.buffer.ready_fields(form, (core,)) if request.ready else None
    return core.recv_struct(form) if fields is None else fields


def _frame(core: StreamCore, request: Request) -> Frame | None:
    form = form_of(request.framing)
    frame = core.buffer.ready_frame_of(*request.framing, (core,)) if request.ready else None
    return core.recv_frame(form) if frame is None else frame


def _frames(core: StreamCore, request: Request) -> Frame | bytes | None:
    form = form_of(request.framing)
    if request.ready and core.buffer.frames and core.buffer.frame_format is form:
        frame: Frame = core.buffer.frames.pop()  # type: ignore[attr-defined] # a list, because it is not empty
        return frame
    return core.frames(form, request.flags)


def _fill(core: StreamCore, request: Request) -> bytes | None:
    """Fill and consume. What more than ``size`` bytes the view has depends on how the data is cut."""
    view = core.buffer.ready_view(request.size, (core,)) if request.ready else None
    if view is None and (view := core.fill(request.size)) is None:
        return None
    assert view.readonly
    assert type(view.obj) is bytes
    assert len(view) == len(core)
    shown = bytes(view)
    for part in (request.used // 2, request.used - request.used // 2):
        assert (request.ready and core.buffer.ready_consume(part, (core,))) or not core.consume(part)
    assert core.buffer.peek(len(shown) - request.used) == shown[request.used :]
    assert view == shown
    return shown[: request.size]


_ASK: dict[str, Callable[[StreamCore, Request], Outcome]] = {
    "recv": lambda core, request: core.recv(request.size, request.flags),
    "recv_some": lambda core, request: core.recv_some(request.size, request.flags),
    "recv_exactly": _exactly,
    "skip": lambda core, request: core.skip(request.size),
    "recv_until": lambda core, request: core.recv_until(request.delimiter, request.size),
    "recv_line": lambda core, request: core.recv_line(request.size, request.on_long, request.flags),
    "plain_line": _line,
    "recv_struct": _struct,
    "recv_frame": _frame,
    "frames": _frames,
    "fill": _fill,
    "unread": lambda core, request: core.unread(request.data),
}


# --------------------------------------------------------------------------------------------------- model


class NaiveStream:
    """A byte stream: the bytes that arrived and were not taken, and how it ended."""

    def __init__(self, *, buffered: bool = True) -> None:
        self.buffered = buffered
        self.data = b""
        self.ended = False
        self.error: OSError | None = None

    def answer(self, request: Request) -> Outcome:
        """Answer ``request`` from the bytes that are there."""
        outcome, consumed = _ANSWER[request.kind](self, request)
        if SocketFlag.PEEK not in request.flags:
            self.data = self.data[consumed:]
        return outcome

    def most(self, request: Request) -> int:
        """The most that an unbuffered socket may take from the kernel for ``request``, which answers "not yet"."""
        if request.kind in ("recv_line", "plain_line"):
            return 1
        if request.kind == "recv_until":
            missing = min(
                next(n for n in itertools.count(1) if (self.data + delimiter[-n:]).endswith(delimiter))
                for delimiter in several(request.delimiter)
            )
            return min(missing, request.size - len(self.data))
        return self._size(request) - len(self.data)

    def fewest(self, request: Request) -> int:
        """The fewest bytes that could answer ``request``, which answers "not yet". The end aside."""
        if request.kind in WHOLE or (request.kind == "recv" and self.buffered):
            return self._size(request) - len(self.data)
        return 1

    def _size(self, request: Request) -> int:
        """Bytes of the answer, as far as is known. The fewest for a frame whose header is not whole."""
        if request.kind == "recv_struct":
            return struct.calcsize(request.framing.header)  # type: ignore[arg-type] # it is no function
        if request.kind not in ("recv_frame", "frames"):
            return request.size
        measured = measure(request.framing, self.data)
        if measured is not None:
            return sum(measured)
        header = request.framing.header
        return struct.calcsize(header) if isinstance(header, str) else len(self.data) + 1

    def recv(self, request: Request) -> tuple[Outcome, int]:
        enough = request.size if self.buffered else min(request.size, 1)
        if len(self.data) >= enough or self.ended:
            return self._some(request)
        return None, 0

    def recv_some(self, request: Request) -> tuple[Outcome, int]:
        if self.data or self.ended or request.size == 0:
            return self._some(request)
        return None, 0

    def recv_exactly(self, request: Request) -> tuple[Outcome, int]:
        if len(self.data) >= request.size:
            return self.data[: request.size], request.size
        return (self._shortfall() if self.ended else None), 0

    def recv_until(self, request: Request) -> tuple[Outcome, int]:
        ends = [
            self.data.index(delimiter) + len(delimiter)
            for delimiter in several(request.delimiter)
            if delimiter in self.data
        ]
        if ends and (end := min(ends)) <= request.size:
            return self.data[:end], end
        if len(self.data) >= request.size:
            return Failure(LineTooLongError, request.size), 0
        return (self._shortfall() if self.ended else None), 0

    def recv_line(self, request: Request) -> tuple[Outcome, int]:
        line, newline, _ = self.data.partition(b"\n")
        if newline or not self.ended:
            line = line.removesuffix(b"\r")  # part of the terminator, or it may turn out to be
        if len(line) > request.size:
            if request.on_long == "raise":
                return Failure(LineTooLongError, request.size), 0
            return self.data[: request.size], request.size
        if newline:
            return line or b"\r\n", self.data.index(b"\n") + 1
        return (self._end(request) if self.ended else None), 0

    def recv_struct(self, request: Request) -> tuple[Outcome, int]:
        size = self._size(request)
        if len(self.data) >= size:
            return struct.unpack(request.framing.header, self.data[:size]), size  # type: ignore[arg-type]
        return (self._shortfall() if self.ended else None), 0

    def fill(self, request: Request) -> tuple[Outcome, int]:
        outcome, consumed = self.recv_exactly(request)
        return outcome, request.used if consumed else 0

    def unread(self, request: Request) -> tuple[Outcome, int]:
        self.data = request.data + self.data
        return b"", 0

    def recv_frame(self, request: Request) -> tuple[Outcome, int]:
        framing = request.framing
        try:
            measured = measure(framing, self.data)
        except Refused:
            return Failure(Refused, None), 0
        if measured is not None:
            header_size, payload_size = measured
            if not 0 <= payload_size <= framing.max_size:
                return Failure(FrameTooLongError if payload_size > 0 else FrameError, payload_size), 0
            end = sum(measured)
            if end <= len(self.data):
                header, payload = self.data[:header_size], self.data[header_size:end]
                is_struct = isinstance(framing.header, str)
                return (struct.unpack(framing.header, header) if is_struct else header, payload), end  # type: ignore[arg-type]
        return (self._shortfall(request.flags) if self.ended else None), 0

    def frames(self, request: Request) -> tuple[Outcome, int]:
        if self.ended and not self.data:
            return self._end(request), 0
        return self.recv_frame(request)

    def _some(self, request: Request) -> tuple[Outcome, int]:
        if self.data or request.size == 0:
            return self.data[: request.size], request.size
        return self._end(request), 0

    def _end(self, request: Request) -> Outcome:
        if self.error is None or (self._is_reset() and SAFE_DISCONN in request.flags):
            return b""
        return Failure(type(self.error), self.error.errno)

    def _shortfall(self, flags: SocketFlag = SAFE_DISCONN) -> Failure:
        if self.error is None or (self._is_reset() and SAFE_DISCONN in flags):
            return Failure(EndOfStreamError, self.data)
        return Failure(type(self.error), self.error.errno)

    def _is_reset(self) -> bool:
        return isinstance(self.error, ConnectionError)


_ANSWER: dict[str, Callable[[NaiveStream, Request], tuple[Outcome, int]]] = {
    "recv": NaiveStream.recv,
    "recv_some": NaiveStream.recv_some,
    "recv_exactly": NaiveStream.recv_exactly,
    "skip": NaiveStream.recv_exactly,
    "recv_until": NaiveStream.recv_until,
    "recv_line": NaiveStream.recv_line,
    "plain_line": NaiveStream.recv_line,
    "recv_struct": NaiveStream.recv_struct,
    "recv_frame": NaiveStream.recv_frame,
    "frames": NaiveStream.frames,
    "fill": NaiveStream.fill,
    "unread": NaiveStream.unread,
}

WHOLE = frozenset(("recv_exactly", "skip", "recv_struct", "recv_frame", "frames", "fill"))
"""Requests that need every byte of their answer."""


def several(delimiter: bytes | tuple[bytes, ...]) -> tuple[bytes, ...]:
    return delimiter if isinstance(delimiter, tuple) else (delimiter,)


def measure(framing: Framing, data: bytes) -> tuple[int, int] | None:
    """The sizes of the header and of the payload of the first frame; None if the header is not whole."""
    header = framing.header
    if not isinstance(header, str):
        return header(memoryview(data)) if data else None
    size = struct.calcsize(header)
    if len(data) < size:
        return None
    return size, struct.unpack(header, data[:size])[framing.length_field] + framing.length_adjust


class Pair:
    """A core and a model that get the same input and the same requests, and must answer the same."""

    def __init__(self, *, buffered: bool = True) -> None:
        self.core = StreamCore(buffered=buffered)
        self.model = NaiveStream(buffered=buffered)

    def feed(self, data: bytes) -> None:
        if data:
            self.core.feed(data)
            self.model.data += data

    def arrive(self, data: bytes, request: Request) -> Outcome:
        """Let bytes arrive for a request that had no answer, as a socket does: they may be the answer as they are."""
        self.model.data += data
        answer = self.core.accept(data)
        if answer is not None:
            assert answer == self.model.answer(request)
            assert len(self.core) == len(self.model.data)
        return answer

    def end(self, error: OSError | None = None) -> None:
        self.model.ended, self.model.error = True, error
        if error is None:
            self.core.feed(b"")
        else:
            self.core.fail(error)

    def ask(self, request: Request) -> Outcome:
        expected = self.model.answer(request)
        assert ask(self.core, request) == expected
        assert len(self.core) == len(self.model.data)
        assert bool(self.core) is (self.model.data != b"")
        if expected is None and self.core.direct is ALL:
            assert self.core.recv_size <= self.model.fewest(request)
        return expected


# ---------------------------------------------------------------------------------------------------- data


def many_lines(terminators: list[bytes], width: int, count: int) -> bytes:
    """``count`` lines of 0 to ``width`` bytes whose terminators alternate."""
    ends = itertools.cycle(terminators)
    return b"".join(bytes([97 + n % 26]) * (n % (width + 1)) + next(ends) for n in range(count))


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The pieces of ``data`` between ``places``. An empty piece would be the end of the stream: there is none."""
    for start, stop in itertools.pairwise([0, *sorted(places), len(data)]):
        if data[start:stop]:
            yield data[start:stop]


TERMINATORS = st.sampled_from([[b"\n"], [b"\r\n"], [b"\n", b"\r\n"], [b"\r\n", b"\r\r\n"]])

TEXTS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\r", b"a", b"bc", b"\0", b"EN", b"END"])
    | st.builds(many_lines, TERMINATORS, st.integers(0, 20), st.integers(10, 100)),
    max_size=12,
).map(b"".join)
"""Data rich in terminators and halves of them, with runs of lines for the fast lane."""


class Refused(Exception):
    """What a header function raises for bytes that are no header."""


def varint(view: memoryview) -> tuple[int, int] | None:
    """A length of seven bits a byte, as in MQTT, of two bytes at most."""
    if view[0] < 128:
        return 1, view[0]
    return (2, (view[0] & 127) + 128 * view[1]) if len(view) > 1 else None


def three_bytes(view: memoryview) -> tuple[int, int] | None:
    """A length of three bytes and a byte, as in MySQL and HTTP/2."""
    return (4, int.from_bytes(view[:3], "big")) if len(view) >= 4 else None


def letters(view: memoryview) -> tuple[int, int] | None:
    """One byte less than in the alphabet; every other first byte is refused."""
    if not 97 <= view[0] <= 122:
        raise Refused
    return 1, view[0] - 97


def many_frames(framing: Framing, width: int, count: int) -> bytes:
    """``count`` frames with payloads of 0 to ``width`` bytes."""
    return b"".join(frame_of(framing, bytes([97 + n % 26]) * (n % (width + 1))) for n in range(count))


def frame_of(framing: Framing, payload: bytes) -> bytes:
    """One frame; the other fields of its header are zeroes."""
    header, size = framing.header, len(payload) - framing.length_adjust
    if isinstance(header, str):
        fields = list(struct.unpack(header, bytes(struct.calcsize(header))))
        fields[framing.length_field] = size
        return struct.pack(header, *fields) + payload
    if header is varint:
        return bytes([size] if size < 128 else [128 + size % 128, size // 128]) + payload
    return (bytes([97 + size]) if header is letters else size.to_bytes(3, "big") + b"!") + payload


FRAMINGS = [
    Framing("!H"),
    Framing("<BHc", 1, -4, 300),  # the length counts the header
    Framing("!hb", 0, 3),
    Framing("b", max_size=20),  # negative ones too
    Framing("!cI"),  # any text is a length above the limit
    Framing(varint),
    Framing(three_bytes, max_size=600),
    Framing(letters),
]

FRAMED = st.builds(many_frames, st.sampled_from(FRAMINGS), st.integers(0, 20), st.integers(1, 60))

FRAMED_TEXTS = st.lists(TEXTS | FRAMED, max_size=5).map(b"".join)
"""The same with runs of frames."""

FLAGS = st.sampled_from(
    [SAFE_DISCONN, SocketFlag(0), SocketFlag.PEEK, SocketFlag.PEEK | SocketFlag.SAFE_DISCONN]
)

SIZES = st.integers(0, 12) | st.sampled_from([40, 511, 512, 600, 3000])

_LENGTHS = st.integers(1, 8) | st.sampled_from([40, 600, MAX_LINE_LENGTH])

_DELIMITERS = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"END", b"\r\n\r\n", b"a\na"])

REQUESTS = st.one_of(
    st.tuples(st.just("recv"), SIZES, FLAGS),
    st.tuples(st.sampled_from(["recv_exactly", "skip"]), SIZES),
    st.tuples(st.just("plain_line"), _LENGTHS),
    st.tuples(st.just("recv_until"), SIZES, st.just(SAFE_DISCONN), _DELIMITERS),
    st.tuples(st.just("recv_line"), _LENGTHS, FLAGS, st.just(b""), st.sampled_from(["truncate", "raise"])),
).map(lambda words: Request(*words))
"""Requests whose answers do not depend on how the data is cut."""

_SEVERAL = st.lists(_DELIMITERS | st.sampled_from([b"D", b"c\n"]), min_size=1, max_size=3).map(tuple)


def _requests(**words: st.SearchStrategy[Any]) -> st.SearchStrategy[Request]:
    return st.fixed_dictionaries(words).map(lambda given: Request(**given))


def _fill_request(size: int, used: int, ready: bool) -> Request:
    return Request("fill", size, used=min(size, used), ready=ready)


_READY = st.booleans()

FRAME_REQUESTS = st.one_of(
    _requests(kind=st.just("recv_frame"), framing=st.sampled_from(FRAMINGS), ready=_READY),
    _requests(
        kind=st.just("frames"),
        flags=st.sampled_from([SAFE_DISCONN, SocketFlag(0)]),
        framing=st.sampled_from(FRAMINGS),
        ready=_READY,
    ),
    _requests(
        kind=st.just("recv_struct"),
        framing=st.sampled_from(["!HB", "B", "<Q3s", "", "5x"]).map(Framing),
        ready=_READY,
    ),
    st.tuples(SIZES, SIZES, _READY).map(lambda words: _fill_request(*words)),
    _requests(kind=st.just("unread"), data=st.sampled_from([b"", b"b", b"bc\n", b"\0\2ab", b"x" * 30])),
    _requests(kind=st.just("recv_exactly"), size=SIZES, ready=st.just(True)),
    _requests(kind=st.just("plain_line"), size=_LENGTHS, ready=st.just(True)),
    _requests(kind=st.just("recv_until"), size=SIZES, delimiter=_SEVERAL),
)
"""The same for framed reads."""

SOME = st.tuples(st.just("recv_some"), SIZES, FLAGS).map(lambda words: Request(*words))
"""Requests whose answers do."""

PLAIN_LINES = st.sampled_from([1, 3, 10, 60]).map(lambda count: [PLAIN_LINE] * count)

FRAME_RUNS = st.builds(
    lambda framing, kind, ready, count: [Request(kind, framing=framing, ready=ready)] * count,
    st.sampled_from(FRAMINGS),
    st.sampled_from(["recv_frame", "frames"]),
    st.booleans(),
    st.sampled_from([3, 10, 40]),
)

ENDS = st.sampled_from([None, ConnectionResetError(104, "reset"), OSError(110, "timed out")])


@contextlib.contextmanager
def small_thresholds() -> Iterator[None]:
    """Let small examples reach the fast lane, and count as large requests and large pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffer_module, "_JOIN_BELOW", 3)
        patch.setattr(buffer_module, "PRESPLIT_AFTER", 8)
        patch.setattr(stream_module, "_LARGE", 8)
        yield


def scripts(requests: st.SearchStrategy[Request]) -> st.SearchStrategy[list[Request]]:
    """Sequences of ``requests`` with runs of plain lines between them."""
    return _with_runs(requests, PLAIN_LINES)


def framed_scripts(requests: st.SearchStrategy[Request]) -> st.SearchStrategy[list[Request]]:
    """The same with runs of frames."""
    return _with_runs(requests | FRAME_REQUESTS, PLAIN_LINES | FRAME_RUNS)


def _with_runs(
    requests: st.SearchStrategy[Request], runs: st.SearchStrategy[list[Request]]
) -> st.SearchStrategy[list[Request]]:
    steps = st.one_of(requests.map(lambda request: [request]), runs, runs)
    return st.lists(steps, max_size=12).map(lambda parts: list(itertools.chain(*parts)))


# ---------------------------------------------------------------------------------------------------- work


class Work:
    """Counts the bytes that the receive buffer searches and copies, and the lines that it walks along.

    It shadows ``bytes`` and ``bytearray`` in the buffer's module by classes that count. What arrives must be given
    as ``Work.bytes`` too.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = 0
        self.bytes = self._counting_bytes()
        for module in (buffer_module, frames_module):
            monkeypatch.setattr(module, "bytes", self.bytes, raising=False)
        monkeypatch.setattr(buffer_module, "bytearray", self._counting_bytearray(), raising=False)

    def measure(self, job: Callable[[], None]) -> int:
        """Do ``job`` and return what it cost."""
        before = self.done
        job()
        return self.done - before

    def _searched(self, size: int, found: int, needle: int, start: int, end: int | None) -> int:
        end = size if end is None else min(size, end)
        self.done += found + needle - start if found >= 0 else max(0, end - start)
        return found

    def _counting_bytes(self) -> type[bytes]:
        work = self

        class Bytes(bytes):
            def __new__(cls, source: Any = b"") -> Bytes:
                work.done += source if isinstance(source, int) else len(source)
                return super().__new__(cls, source)

            def __len__(self) -> int:
                work.done += 1
                return super().__len__()

            def __add__(self, other: Any) -> Bytes:
                return Bytes(super().__add__(other))

            def __getitem__(self, key: Any) -> Any:
                got = super().__getitem__(key)
                return Bytes(got) if isinstance(got, bytes) else got

            def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
                return work._searched(len(self), super().find(sub, start, end), len(sub), start, end)

            def rfind(self, sub: Any, start: Any = 0, end: Any = None) -> int:
                found = super().rfind(sub, start, end)
                work.done += min(len(self), end) - (found if found >= 0 else start)
                return found

            def count(self, *args: Any) -> int:
                work.done += len(self)
                return super().count(*args)

            def split(self, *args: Any) -> Any:
                return [Bytes(line) for line in super().split(*args)]

        return Bytes

    def _counting_bytearray(self) -> type[bytearray]:
        work = self

        class Bytearray(bytearray):
            def __iadd__(self, other: Any) -> Bytearray:  # type: ignore[misc]  # it is never added to
                work.done += len(other)
                super().__iadd__(other)
                return self

            def __getitem__(self, key: Any) -> Any:
                got = super().__getitem__(key)
                work.done += 1 if isinstance(got, int) else len(got)
                return got

            def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
                return work._searched(len(self), super().find(sub, start, end), len(sub), start, end)

        return Bytearray
