"""The error tree: bases, attributes and texts, copies and pickles."""

from __future__ import annotations

import copy
import errno
import pickle
import socket
from collections.abc import Callable

from tests.cases import in_turn
from wireline import (
    BusyError,
    ClosedError,
    DialError,
    EndOfStreamError,
    FrameError,
    FrameTooLongError,
    LineTooLongError,
    SocketTimeout,
    WirelineError,
    errors,
)

ATTEMPTS = (
    (("2001:db8::1", 80, 0, 0), OSError(errno.ENETUNREACH, "Network is unreachable"), 0.0),
    (("192.0.2.1", 80), OSError(errno.ECONNREFUSED, "Connection refused"), 0.0123),
)
ALL = [
    (WirelineError("said by a test"), Exception),
    (ClosedError(), OSError),
    (DialError("example.com:80", ATTEMPTS), OSError),
    (SocketTimeout("recv", 1.5), TimeoutError),
    (SocketTimeout("send", 1.5, 65536), TimeoutError),
    (EndOfStreamError("recv_exactly", b"ab", "4 bytes"), EOFError),
    (LineTooLongError("recv_line", 10), ValueError),
    (FrameError("recv_frame", -4, 10), ValueError),
    (FrameTooLongError("frames", 2**32 - 1, 10), FrameError),
    (BusyError("recv: another thread is reading"), RuntimeError),
]


def test_every_error_has_the_root_and_the_nearest_built_in() -> None:
    for error, built_in in ALL:
        assert isinstance(error, WirelineError)
        assert isinstance(error, built_in)
    assert {type(error).__name__ for error, _ in ALL} == set(errors.__all__)
    # Right below the root, or below the one that is named here.
    above = {type(error): built_in for error, built_in in ALL if issubclass(built_in, WirelineError)}
    assert all({above.get(type(error), WirelineError)} & set(type(error).__bases__) for error, _ in ALL[1:])


def test_the_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__ is not None
    for error, built_in in ALL:
        line = next(line for line in errors.__doc__.splitlines() if type(error).__name__ in line)
        drawn = type(error) is WirelineError or issubclass(built_in, WirelineError)  # as a branch
        assert drawn or f"({built_in.__name__})" in line


def _pickled(error: WirelineError) -> WirelineError:
    twin = pickle.loads(pickle.dumps(error))
    assert isinstance(twin, WirelineError)
    return twin


@in_turn("duplicate", [copy.copy, copy.deepcopy, _pickled])
def test_errors_are_pickled(duplicate: Callable[[WirelineError], WirelineError]) -> None:
    for each, _ in ALL:
        error = copy.copy(each)
        error.add_note("while talking to 192.0.2.1")
        twin = duplicate(error)
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert repr(twin.__dict__) == repr(error.__dict__)
        assert twin.args == error.args
        assert getattr(twin, "errno", None) == getattr(error, "errno", None)


def test_a_users_own_subclass_is_pickled() -> None:
    twin = _pickled(OwnError(7))
    assert isinstance(twin, OwnError)
    assert (twin.number, twin.errno, str(twin)) == (7, errno.EIO, f"[Errno {errno.EIO}] number 7")


class OwnError(WirelineError, OSError):
    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(errno.EIO, f"number {number}")


def test_closed_error() -> None:
    assert ClosedError().errno == errno.EBADF
    assert ClosedError().strerror == "the socket is closed"
    assert ClosedError("the listener is closed").strerror == "the listener is closed"


def test_socket_timeout_names_the_operation() -> None:
    error = SocketTimeout("recv_line", 0.3)
    assert (error.operation, error.seconds, error.bytes_sent) == ("recv_line", 0.3, None)
    assert error.errno == errno.ETIMEDOUT
    assert error.strerror == "recv_line did not finish within 0.3 s"


def test_W3_socket_timeout_of_a_send_says_how_much_went_out() -> None:
    error = SocketTimeout("send", 2, bytes_sent=0)
    assert error.bytes_sent == 0
    assert error.strerror == "send did not finish within 2 s, 0 bytes had been sent"


def test_end_of_stream_error_keeps_the_bytes_that_arrived() -> None:
    error = EndOfStreamError("recv_exactly", b"ab", "4 bytes")
    assert error.partial == b"ab"
    assert str(error) == "recv_exactly: the stream ended after 2 bytes; expected 4 bytes"


def test_errors_of_long_lines_and_frames_have_the_limit() -> None:
    error = LineTooLongError("recv_line", 10)
    assert error.limit == 10
    assert str(error) == "recv_line: no end within the limit of 10 bytes"
    negative = FrameError("recv_frame", -4, 10)
    assert (negative.size, negative.limit) == (-4, 10)
    assert str(negative) == "recv_frame: the payload of the frame has -4 bytes, which is negative"
    longer = FrameTooLongError("frames", 2**32 - 1, 10)
    assert (longer.size, longer.limit) == (2**32 - 1, 10)
    assert str(longer) == "frames: the payload of the frame has 4294967295 bytes, the limit is 10"


def test_C1_dial_error_lists_every_attempt() -> None:
    error = DialError("example.com:80", ATTEMPTS)
    assert error.attempts == ATTEMPTS
    assert error.errno == errno.ENETUNREACH
    assert error.strerror == (
        "cannot connect to example.com:80 (('2001:db8::1', 80, 0, 0): Network is unreachable after 0.000 s;"
        " ('192.0.2.1', 80): Connection refused after 0.012 s)"
    )


@in_turn(
    "cause, code, words",
    [
        (OSError(errno.ECONNREFUSED, "refused"), errno.ECONNREFUSED, "refused"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), socket.EAI_NONAME, "unknown"),
        (TimeoutError("too late"), errno.EHOSTUNREACH, "too late"),
        (TimeoutError(), errno.EHOSTUNREACH, "TimeoutError"),
        (SocketTimeout("connect", 1.0), errno.ETIMEDOUT, "connect did not finish within 1 s"),
    ],
)
def test_dial_error_has_a_text_for_every_cause(cause: OSError, code: int, words: str) -> None:
    error = DialError("unix:@name", ((b"\0name", cause, 1.0),))
    assert error.errno == code
    assert error.strerror == rf"cannot connect to unix:@name (b'\x00name': {words} after 1.000 s)"


def test_dial_error_has_a_text_for_a_cause_with_a_number_only() -> None:
    cause = OSError("no words")
    cause.errno = errno.ECONNREFUSED
    assert "Connection refused after" in str(DialError("a:1", ((("a", 1), cause, 0.0),)))


def test_dial_error_without_an_address() -> None:
    error = DialError("example.com:80", ())
    assert error.attempts == ()
    assert error.errno == errno.EHOSTUNREACH
    assert error.strerror == "cannot connect to example.com:80 (no address to try)"
