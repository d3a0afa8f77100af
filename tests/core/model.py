"""Shared by the tests of the core: an obviously right stream, data that is hard for readers of lines, a counter.

``NaiveStream`` keeps all input in one ``bytes`` and looks at all of it for every request. ``StreamCore``
must agree with it, request by request, "not yet" and exceptions included. ``Work`` counts bytes that are searched and
copied, so that a test can tell linear from quadratic without a clock.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st

from wireline._core import buffer as buffer_module
from wireline._core import stream as stream_module
from wireline._core.stream import ALL, StreamCore
from wireline.errors import EndOfStreamError, LineTooLongError
from wireline.options import MAX_LINE_LENGTH, SAFE_DISCONN, SocketFlag

# ------------------------------------------------------------------------------------------------ requests


class Request(NamedTuple):
    """One read. ``size`` is what that read calls size, max_size or max_length."""

    kind: str
    size: int = MAX_LINE_LENGTH
    flags: SocketFlag = SAFE_DISCONN
    delimiter: bytes = b"\n"
    on_long: str = "truncate"


class Failure(NamedTuple):
    """An exception, in a form that compares: its class, and its partial bytes, limit or errno."""

    error: type[Exception]
    detail: bytes | int | None


Outcome = bytes | Failure | None
"""Bytes, an exception, or None for "not yet"."""

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
    except OSError as error:
        return Failure(type(error), error.errno)


def plain_line(core: StreamCore, max_length: int = MAX_LINE_LENGTH) -> bytes | None:
    """The step of a socket's ``recv_line(max_length=...)``."""
    if core.lines and len(core.lines[-1]) <= max_length:
        return core.lines.pop()
    return core.recv_line(max_length)


_ASK: dict[str, Callable[[StreamCore, Request], bytes | None]] = {
    "recv": lambda core, request: core.recv(request.size, request.flags),
    "recv_some": lambda core, request: core.recv_some(request.size, request.flags),
    "recv_exactly": lambda core, request: core.recv_exactly(request.size),
    "skip": lambda core, request: core.skip(request.size),
    "recv_until": lambda core, request: core.recv_until(request.delimiter, request.size),
    "recv_line": lambda core, request: core.recv_line(request.size, request.on_long, request.flags),
    "plain_line": lambda core, request: plain_line(core, request.size),
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
            delimiter = request.delimiter
            missing = next(n for n in itertools.count(1) if (self.data + delimiter[-n:]).endswith(delimiter))
            return min(missing, request.size - len(self.data))
        return request.size - len(self.data)

    def fewest(self, request: Request) -> int:
        """The fewest bytes that could answer ``request``, which answers "not yet". The end aside."""
        whole = request.kind in ("recv_exactly", "skip") or (request.kind == "recv" and self.buffered)
        return request.size - len(self.data) if whole else 1

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
        end = self.data.find(request.delimiter) + len(request.delimiter)
        if request.delimiter in self.data and end <= request.size:
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

    def _some(self, request: Request) -> tuple[Outcome, int]:
        if self.data or request.size == 0:
            return self.data[: request.size], request.size
        return self._end(request), 0

    def _end(self, request: Request) -> Outcome:
        if self.error is None or (self._is_reset() and SAFE_DISCONN in request.flags):
            return b""
        return Failure(type(self.error), self.error.errno)

    def _shortfall(self) -> Failure:
        if self.error is None or self._is_reset():
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
}


class Pair:
    """A core and a model that get the same input and the same requests, and must answer the same."""

    def __init__(self, *, buffered: bool = True) -> None:
        self.core = StreamCore(buffered=buffered)
        self.model = NaiveStream(buffered=buffered)

    def feed(self, data: bytes) -> None:
        if data:
            self.core.feed(data)
            self.model.data += data

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

SOME = st.tuples(st.just("recv_some"), SIZES, FLAGS).map(lambda words: Request(*words))
"""Requests whose answers do."""

PLAIN_LINES = st.sampled_from([1, 3, 10, 60]).map(lambda count: [PLAIN_LINE] * count)

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
    steps = st.one_of(requests.map(lambda request: [request]), PLAIN_LINES, PLAIN_LINES)
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
        monkeypatch.setattr(buffer_module, "bytes", self.bytes, raising=False)
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
            def __new__(cls, source: bytes = b"") -> Bytes:
                work.done += len(source)
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
