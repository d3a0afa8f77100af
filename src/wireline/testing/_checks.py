"""The promises as checks, to be run on our sockets or on sockets that wrap them.

Each check is written once, as a coroutine. For the async flavour it is awaited. For the blocking flavour it never
suspends, so one step runs it to its end. A call that has to run at the same time is a task or a thread: see `_Runner`.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from wireline import BusyError, ClosedError, EndOfStreamError, LineTooLongError, SocketTimeout

__all__ = ["CHECKS", "Check"]

# Has the methods of one of our sockets, of either flavour: the checks find out whether it does.
_Sock: TypeAlias = Any

# Seconds that a call may take which should return at once. A guess.
_TIMEOUT = 10.0
# Seconds after which a call counts as waiting. A guess.
_WAIT_TIME = 0.05

# Bytes: more than the send and receive buffers of the kernel hold.
_MORE_THAN_BUFFERED = 8 << 20


class _StartedCall(Protocol):
    """A call that was started in a thread or a task."""

    async def is_waiting(self) -> bool:
        """Give it a moment; return whether it has not returned."""
        ...

    async def result(self) -> Any:
        """Wait for its result, or raise its exception."""
        ...


class _Runner(Protocol):
    """Starts calls: the only part of a check that differs between the flavours."""

    def start(self, call: Callable[[], Any]) -> _StartedCall:
        """Start a call, and do not wait for it."""
        ...


_Body: TypeAlias = Callable[[_Runner, _Sock, _Sock], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Check:
    """A check of one promise.

    Attributes:
        name: such as ``R6_a_line_ends_at_either_newline``.
        description: the promise in a sentence.
    """

    name: str
    description: str
    _body: _Body

    def run(self, make_pair: Callable[[], tuple[object, object]]) -> None:
        """Check a socket of the blocking flavour.

        Args:
            make_pair: returns the socket to check and a socket that is connected to it, as `pair` does. Both have the
                methods of ``wireline.net.Socket``. The check closes them.

        Raises:
            AssertionError: the promise is not kept; the message says how.
            Exception: an unexpected error of the socket.
        """
        sock, peer = make_pair()
        runner = _ThreadRunner()
        try:
            self._body(runner, sock, peer).send(None)
        except StopIteration:
            return
        finally:
            _close(sock, peer)
            runner.join()
        raise TypeError(f"{type(sock).__name__} has to be awaited: use run_async")

    async def run_async(self, make_pair: Callable[[], Awaitable[tuple[object, object]]]) -> None:
        """Check a socket of the async flavour.

        Args:
            make_pair: is awaited and returns two sockets, as `async_pair` does. Both have the methods of
                ``wireline.asyncnet.AsyncSocket``. The check closes them.

        Raises:
            AssertionError, Exception: as for ``run``.
        """
        sock, peer = await make_pair()
        runner = _TaskRunner()
        try:
            await self._body(runner, sock, peer)
        finally:
            _close(sock, peer)
            await runner.join()

    def __str__(self) -> str:
        """The name, which pytest shows."""
        return self.name


def _close(*socks: _Sock) -> None:
    for sock in socks:
        sock.close()


async def _result(outcome: Any) -> Any:
    """Return the result of a call of either flavour."""
    return await outcome if inspect.isawaitable(outcome) else outcome


# ------------------------------------------------------------------------------------------------ concurrent calls


class _ThreadRunner:
    """Starts threads, for the blocking flavour."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, call: Callable[[], Any]) -> _StartedCall:
        work = _ThreadCall(call)
        self._threads.append(work.thread)
        return work

    def join(self) -> None:
        for thread in self._threads:
            thread.join(_TIMEOUT)


class _ThreadCall:
    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._outcome = _Outcome()
        self.thread = threading.Thread(target=self._run, name="wireline-check", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._outcome.value = self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised in the check
            self._outcome.error = error

    async def is_waiting(self) -> bool:
        self.thread.join(_WAIT_TIME)
        return self.thread.is_alive()

    async def result(self) -> Any:
        self.thread.join(_TIMEOUT)
        return self._outcome.get(done=not self.thread.is_alive())


class _TaskRunner:
    """Starts tasks, for the async flavour."""

    def __init__(self) -> None:
        self._works: list[_TaskCall] = []

    def start(self, call: Callable[[], Any]) -> _StartedCall:
        work = _TaskCall(call)
        self._works.append(work)
        return work

    async def join(self) -> None:
        for work in self._works:
            await work.join(_TIMEOUT)


class _TaskCall:
    def __init__(self, call: Callable[[], Any]) -> None:
        # Here, so that a check of the blocking flavour does not load asyncio.
        from wireline.asyncnet._port import running_port, running_tasks
        from wireline.asyncnet._sync import Notifier

        self._call = call
        self._outcome = _Outcome()
        self._done = False
        self._changed = Notifier(running_port())
        self._task = running_tasks().spawn(self._run(), "wireline-check")

    async def _run(self) -> None:
        try:
            self._outcome.value = await self._call()
        except Exception as error:  # noqa: BLE001 - it is raised in the check
            self._outcome.error = error
        finally:
            self._done = True
            self._changed.notify()

    async def join(self, seconds: float) -> None:
        now = self._changed.port.time
        until = now() + seconds
        while not self._done and now() < until:
            await self._changed.wait(until)
        if not self._done and seconds == _TIMEOUT:
            self._task.cancel()

    async def is_waiting(self) -> bool:
        await self.join(_WAIT_TIME)
        return not self._done

    async def result(self) -> Any:
        await self.join(_TIMEOUT)
        return self._outcome.get(done=self._done)


class _Outcome:
    """The result or the exception of a call."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None

    def get(self, *, done: bool) -> Any:
        _expect(done, f"a call did not return within {_TIMEOUT:g} s")
        if self.error is not None:
            raise self.error
        return self.value


# ------------------------------------------------------------------------------------------------ assertions


def _expect(condition: bool, message: str) -> None:
    # Not `assert`: its message is poor without pytest's rewriting, and with -O it does nothing.
    if not condition:
        raise AssertionError(message)


def _expect_equal(what: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise AssertionError(f"{what}: expected {_brief(expected)}, got {_brief(seen)}")


def _brief(value: object) -> str:
    text = repr(value)
    return (
        text
        if len(text) <= 80
        else f"{text[:60]}... ({len(value) if isinstance(value, bytes) else '?'} bytes)"
    )


@contextlib.contextmanager
def _raises(what: str, *kinds: type[BaseException]) -> Iterator[list[BaseException]]:
    """Expect one of these exceptions; it is in the list afterwards."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kinds as error:
        caught.append(error)
    else:
        raise AssertionError(
            f"{what}: expected {' or '.join(kind.__name__ for kind in kinds)}, but no exception was raised"
        )


# ------------------------------------------------------------------------------------------------------- the checks

_BODIES: list[_Body] = []


def _check(body: _Body) -> _Body:
    _BODIES.append(body)
    return body


@_check
async def R1_recv_waits_until_all_the_bytes_are_there(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A buffered ``recv(n)`` returns n bytes, in however many pieces; further bytes stay for the next call."""
    await _result(peer.send(b"ab"))
    reading = runner.start(lambda: sock.recv(5, timeout=_TIMEOUT))
    _expect(await reading.is_waiting(), "recv(5) returned after two bytes")
    await _result(peer.send(b"cdef"))
    _expect_equal("recv(5)", await reading.result(), b"abcde")
    _expect_equal("the next recv(1)", await _result(sock.recv(1, timeout=_TIMEOUT)), b"f")


@_check
async def R1_recv_returns_fewer_bytes_only_at_the_end(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """At the end of the stream ``recv(n)`` returns the bytes that are left, and from then on ``b""``."""
    await _result(peer.send(b"abc"))
    await _result(peer.shutdown_write())
    _expect_equal("recv(5) of three bytes", await _result(sock.recv(5, timeout=_TIMEOUT)), b"abc")
    for _ in range(2):
        _expect_equal("recv(5) at the end", await _result(sock.recv(5, timeout=_TIMEOUT)), b"")


@_check
async def R2_recv_some_returns_what_is_there(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``recv_some`` returns as soon as there is one byte, first from the buffer."""
    await _result(peer.send(b"line\nrest"))
    _expect_equal("recv_line()", await _result(sock.recv_line(timeout=_TIMEOUT)), b"line")
    await _result(peer.shutdown_write())
    _expect_equal("recv_some(2)", await _result(sock.recv_some(2, timeout=_TIMEOUT)), b"re")
    _expect_equal("recv_some()", await _result(sock.recv_some(timeout=_TIMEOUT)), b"st")
    _expect_equal("recv_some() at the end", await _result(sock.recv_some(timeout=_TIMEOUT)), b"")


@_check
async def R4_a_timeout_of_0_does_not_wait(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """With ``timeout=0`` a read returns bytes that are available, or raises ``TimeoutError``."""
    with _raises("recv_some(timeout=0) of nothing", TimeoutError):
        await _result(sock.recv_some(timeout=0))
    await _result(peer.send(b"abc\n"))
    _expect_equal("recv(1)", await _result(sock.recv(1, timeout=_TIMEOUT)), b"a")
    _expect_equal("recv_line(timeout=0)", await _result(sock.recv_line(timeout=0)), b"bc")


@_check
async def R5_after_a_timeout_nothing_is_lost(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A read whose timeout passes consumes nothing: the same call, or another one, gets every byte."""
    await _result(peer.send(b"par"))
    reads: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("recv_line", lambda: sock.recv_line(timeout=0.01)),
        ("recv", lambda: sock.recv(100, timeout=0.01)),
        ("recv_exactly", lambda: sock.recv_exactly(100, timeout=0.01)),
        ("recv_until", lambda: sock.recv_until(b"\0", timeout=0.01)),
    )
    for what, read in reads:
        with _raises(f"{what} of a part", SocketTimeout):
            await _result(read())
    await _result(peer.send(b"t\nx"))
    _expect_equal("recv_line() afterwards", await _result(sock.recv_line(timeout=_TIMEOUT)), b"part")
    _expect_equal("recv(1) afterwards", await _result(sock.recv(1, timeout=_TIMEOUT)), b"x")


@_check
async def R6_a_line_ends_at_either_newline(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A line ends at LF or CR LF, which are not returned; a lone CR is data; an empty line is ``b"\\r\\n"``."""
    await _result(peer.send(b"one\r\ntwo\na\rb\r\nc\r\r\n\n\r\nlast\n"))
    await _result(peer.shutdown_write())
    for line in (b"one", b"two", b"a\rb", b"c\r", b"\r\n", b"\r\n", b"last", b""):
        _expect_equal("recv_line()", await _result(sock.recv_line(timeout=_TIMEOUT)), line)


@_check
async def R7_a_line_that_is_there_waits_for_nothing(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A complete line is returned without waiting for more, whether it arrived whole or byte by byte."""
    for byte in b"ab\r\n":
        await _result(peer.send(bytes([byte])))
    _expect_equal("recv_line()", await _result(sock.recv_line(timeout=_TIMEOUT)), b"ab")


@_check
async def R8_an_unfinished_line_is_still_readable(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """At the end of the stream ``recv_line`` returns ``b""``, and ``recv`` returns the unfinished line."""
    await _result(peer.send(b"whole\nunfinished"))
    await _result(peer.shutdown_write())
    _expect_equal("recv_line()", await _result(sock.recv_line(timeout=_TIMEOUT)), b"whole")
    _expect_equal("recv_line() of half a line", await _result(sock.recv_line(timeout=_TIMEOUT)), b"")
    with _raises("recv_exactly(100) of ten bytes", EndOfStreamError) as caught:
        await _result(sock.recv_exactly(100, timeout=_TIMEOUT))
    _expect_equal("its .partial", getattr(caught[0], "partial", None), b"unfinished")
    _expect_equal("recv(100)", await _result(sock.recv(100, timeout=_TIMEOUT)), b"unfinished")


@_check
async def R9_a_line_is_never_longer_than_allowed(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A line of ``max_length`` bytes is complete; a longer one is returned in parts, or is an error."""
    await _result(peer.send(b"abcd\nabcdef\nnext\ntoo long\n"))

    def line(**options: str) -> Any:
        return sock.recv_line(timeout=_TIMEOUT, max_length=4, **options)

    for expected in (b"abcd", b"abcd", b"ef", b"next"):
        _expect_equal("recv_line(max_length=4)", await _result(line()), expected)
    with _raises("recv_line(max_length=4, on_long='raise') of eight bytes", LineTooLongError):
        await _result(line(on_long="raise"))
    _expect_equal("recv_line() afterwards", await _result(sock.recv_line(timeout=_TIMEOUT)), b"too long")


@_check
async def R11_a_second_reader_is_refused(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """While one read waits a second one raises ``BusyError``, and the first goes on."""
    reading = runner.start(lambda: sock.recv_line(timeout=_TIMEOUT))
    _expect(await reading.is_waiting(), "recv_line() did not wait for a line")
    with _raises("a second read", BusyError):
        await _result(sock.recv(1, timeout=_TIMEOUT))
    await _result(peer.send(b"line\n"))
    _expect_equal("the first recv_line()", await reading.result(), b"line")


@_check
async def R13_close_wakes_a_waiting_read(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``close`` ends a waiting read at once with ``ClosedError``."""
    reading = runner.start(lambda: sock.recv(1, timeout=_TIMEOUT / 2))
    _expect(await reading.is_waiting(), "recv(1) did not wait for a byte")
    sock.close()
    with _raises("a read that waited", ClosedError):
        await reading.result()


@_check
async def R14_after_close_every_call_is_refused(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """Use after ``close`` raises ``ClosedError``; a second ``close`` does nothing."""
    sock.close()
    sock.close()
    with _raises("recv after close", ClosedError):
        await _result(sock.recv(1, timeout=_TIMEOUT))
    with _raises("send after close", ClosedError):
        await _result(sock.send(b"x", timeout=_TIMEOUT))


@_check
async def W1_send_means_all_of_it(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``send`` of more than the kernel buffers waits for a slow reader, which gets every byte once and in order."""
    data = random.Random(_MORE_THAN_BUFFERED).randbytes(_MORE_THAN_BUFFERED)
    sending = runner.start(lambda: sock.send(data, timeout=_TIMEOUT))
    _expect(await sending.is_waiting(), "send returned before the peer has read")
    received = await _result(peer.recv(len(data), timeout=_TIMEOUT))
    _expect(received == data, "the peer received other bytes than were sent")
    await sending.result()


@_check
async def W4_the_buffer_is_the_callers_again(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """When ``send`` has returned, the caller may change its buffer: the sent bytes do not change."""
    buffer = bytearray(b"before")
    await _result(sock.send(buffer, timeout=_TIMEOUT))
    buffer[:] = b"after!"
    _expect_equal("the peer's read", await _result(peer.recv(6, timeout=_TIMEOUT)), b"before")


@_check
async def W6_sending_nothing_is_nothing(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``send(b"")`` sends nothing, and does not end the stream."""
    await _result(sock.send(b"", timeout=_TIMEOUT))
    await _result(sock.send(b"x", timeout=_TIMEOUT))
    _expect_equal("the peer's read", await _result(peer.recv_some(timeout=_TIMEOUT)), b"x")


@_check
async def half_close_ends_one_direction_only(runner: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``shutdown_write`` ends the stream to the peer; data from the peer can still be read."""
    await _result(sock.send(b"question"))
    await _result(sock.shutdown_write())
    _expect_equal("the peer's recv(100)", await _result(peer.recv(100, timeout=_TIMEOUT)), b"question")
    await _result(peer.send(b"answer"))
    await _result(peer.shutdown_write())
    _expect_equal(
        "recv(100) after the half-close", await _result(sock.recv(100, timeout=_TIMEOUT)), b"answer"
    )


CHECKS: tuple[Check, ...] = tuple(Check(body.__name__, inspect.getdoc(body) or "", body) for body in _BODIES)
