"""The promises as checks that anybody can run: on our sockets, or on something that wraps them.

Every check is written once, as a coroutine. Of the async flavour it is awaited; of the blocking flavour nothing in it
ever suspends, so that it runs through in one step. What a check does beside something else is a thread there, and a
task here: `_Stage` makes it.
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

# Something like one of our sockets, of either flavour: that is what is being found out.
_Sock: TypeAlias = Any

# Seconds after which what should have happened at once counts as never; seconds in which nothing should happen.
_TIMEOUT = 10.0
_WAIT_TIME = 0.05

# More than the kernel holds for a peer that does not read.
_MORE_THAN_BUFFERED = 8 << 20


class _StartedCall(Protocol):
    """A call that was started."""

    async def is_waiting(self) -> bool:
        """Give it a moment to begin to wait, and say whether it does."""
        raise NotImplementedError

    async def result(self) -> Any:
        """Wait for its result, or its exception."""


class _Runner(Protocol):
    """What a check needs of a flavour."""

    def start(self, call: Callable[[], Any]) -> _StartedCall:
        """Make a call beside what comes next."""
        raise NotImplementedError


_Body: TypeAlias = Callable[[_Runner, _Sock, _Sock], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Check:
    """One promise, as something that can be run.

    Attributes:
        name: what is promised, ``R6_a_line_ends_at_either_newline`` for example.
        description: the same as a sentence.
    """

    name: str
    description: str
    _body: _Body

    def run(self, make_pair: Callable[[], tuple[object, object]]) -> None:
        """Check a socket of the blocking flavour.

        Args:
            make_pair: makes the socket that is checked and one that is connected to it, as `pair` does. Both have the
                methods of ``wireline.net.Socket``, and are closed at the end.

        Raises:
            AssertionError: the promise is not kept; the message says what was seen.
            Exception: whatever the socket raises that it should not.
        """
        sock, peer = make_pair()
        stage = _ThreadRunner()
        try:
            self._body(stage, sock, peer).send(None)
        except StopIteration:
            return
        finally:
            _close(sock, peer)
            stage.join()
        raise TypeError(f"{type(sock).__name__} is to be awaited: use run_async")

    async def run_async(self, make_pair: Callable[[], Awaitable[tuple[object, object]]]) -> None:
        """Check a socket of the async flavour.

        Args:
            make_pair: makes the same, awaited, as `async_pair` does; the methods are those of
                ``wireline.asyncnet.AsyncSocket``.

        Raises:
            AssertionError, Exception: as for ``run``.
        """
        sock, peer = await make_pair()
        stage = _TaskRunner()
        try:
            await self._body(stage, sock, peer)
        finally:
            _close(sock, peer)
            await stage.join()

    def __str__(self) -> str:
        """The name, which is what pytest shows."""
        return self.name


def _close(*socks: _Sock) -> None:
    for sock in socks:
        sock.close()


async def _result(outcome: Any) -> Any:
    """The result of a call, of either flavour."""
    return await outcome if inspect.isawaitable(outcome) else outcome


# ------------------------------------------------------------------------------------------------ what runs beside


class _ThreadRunner:
    """For the blocking flavour."""

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
    """For the async flavour."""

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
        # Who checks the blocking flavour loads no asyncio.
        from wireline.asyncnet._asyncio import running_loop, spawn
        from wireline.asyncnet._sync import Signal

        self._call = call
        self._outcome = _Outcome()
        self._done = False
        self._changed = Signal(running_loop())
        self._task = spawn(self._run(), "wireline-check")

    async def _run(self) -> None:
        try:
            self._outcome.value = await self._call()
        except Exception as error:  # noqa: BLE001 - it is raised in the check
            self._outcome.error = error
        finally:
            self._done = True
            self._changed.ring()

    async def join(self, seconds: float) -> None:
        until = self._changed.now() + seconds
        while not self._done and self._changed.now() < until:
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
    """What came of a call."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None

    def get(self, *, done: bool) -> Any:
        _expect(done, f"a call did not return within {_TIMEOUT:g} s")
        if self.error is not None:
            raise self.error
        return self.value


# ------------------------------------------------------------------------------------------------ what is expected


def _expect(condition: bool, message: str) -> None:
    # No `assert`: it says too little where pytest does not rewrite it, and nothing with -O.
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
    """Expect one of these; the list holds it afterwards."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kinds as error:
        caught.append(error)
    else:
        raise AssertionError(
            f"{what}: expected {' or '.join(kind.__name__ for kind in kinds)}, and nothing was raised"
        )


# ------------------------------------------------------------------------------------------------------- the checks

_BODIES: list[_Body] = []


def _check(body: _Body) -> _Body:
    _BODIES.append(body)
    return body


@_check
async def R1_recv_waits_until_all_the_bytes_are_there(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A buffered ``recv(n)`` returns n bytes, however they come; what is more stays for the next call."""
    await _result(peer.send(b"ab"))
    reading = stage.start(lambda: sock.recv(5, timeout=_TIMEOUT))
    _expect(await reading.is_waiting(), "recv(5) returned after two bytes")
    await _result(peer.send(b"cdef"))
    _expect_equal("recv(5)", await reading.result(), b"abcde")
    _expect_equal("the next recv(1)", await _result(sock.recv(1, timeout=_TIMEOUT)), b"f")


@_check
async def R1_recv_returns_fewer_bytes_only_at_the_end(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """At the end of the stream ``recv(n)`` returns what is there, and then ``b""``, as often as it is called."""
    await _result(peer.send(b"abc"))
    await _result(peer.shutdown_write())
    _expect_equal("recv(5) of three bytes", await _result(sock.recv(5, timeout=_TIMEOUT)), b"abc")
    for _ in range(2):
        _expect_equal("recv(5) at the end", await _result(sock.recv(5, timeout=_TIMEOUT)), b"")


@_check
async def R2_recv_some_returns_what_is_there(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``recv_some`` returns as soon as one byte is there, from the buffer first."""
    await _result(peer.send(b"line\nrest"))
    _expect_equal("recv_line()", await _result(sock.recv_line(timeout=_TIMEOUT)), b"line")
    await _result(peer.shutdown_write())
    _expect_equal("recv_some(2)", await _result(sock.recv_some(2, timeout=_TIMEOUT)), b"re")
    _expect_equal("recv_some()", await _result(sock.recv_some(timeout=_TIMEOUT)), b"st")
    _expect_equal("recv_some() at the end", await _result(sock.recv_some(timeout=_TIMEOUT)), b"")


@_check
async def R4_a_timeout_of_0_does_not_wait(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """With ``timeout=0`` a read takes what is there already, or raises ``TimeoutError``."""
    with _raises("recv_some(timeout=0) of nothing", TimeoutError):
        await _result(sock.recv_some(timeout=0))
    await _result(peer.send(b"abc\n"))
    _expect_equal("recv(1)", await _result(sock.recv(1, timeout=_TIMEOUT)), b"a")
    _expect_equal("recv_line(timeout=0)", await _result(sock.recv_line(timeout=0)), b"bc")


@_check
async def R5_after_a_timeout_nothing_is_lost(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A read that ran out of time takes nothing: the same call, or another one, gets every byte."""
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
async def R6_a_line_ends_at_either_newline(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A line ends at LF or CR LF, which are not returned; a lone CR is data; an empty line is ``b"\\r\\n"``."""
    await _result(peer.send(b"one\r\ntwo\na\rb\r\nc\r\r\n\n\r\nlast\n"))
    await _result(peer.shutdown_write())
    for line in (b"one", b"two", b"a\rb", b"c\r", b"\r\n", b"\r\n", b"last", b""):
        _expect_equal("recv_line()", await _result(sock.recv_line(timeout=_TIMEOUT)), line)


@_check
async def R7_a_line_that_is_there_waits_for_nothing(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """A complete line is returned while the peer says nothing more, whether it came whole or byte by byte."""
    for byte in b"ab\r\n":
        await _result(peer.send(bytes([byte])))
    _expect_equal("recv_line()", await _result(sock.recv_line(timeout=_TIMEOUT)), b"ab")


@_check
async def R8_an_unfinished_line_is_still_readable(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """At the end of the stream ``recv_line`` returns ``b""``, and what it did not return can be read by ``recv``."""
    await _result(peer.send(b"whole\nunfinished"))
    await _result(peer.shutdown_write())
    _expect_equal("recv_line()", await _result(sock.recv_line(timeout=_TIMEOUT)), b"whole")
    _expect_equal("recv_line() of half a line", await _result(sock.recv_line(timeout=_TIMEOUT)), b"")
    with _raises("recv_exactly(100) of ten bytes", EndOfStreamError) as caught:
        await _result(sock.recv_exactly(100, timeout=_TIMEOUT))
    _expect_equal("its .partial", getattr(caught[0], "partial", None), b"unfinished")
    _expect_equal("recv(100)", await _result(sock.recv(100, timeout=_TIMEOUT)), b"unfinished")


@_check
async def R9_a_line_is_never_longer_than_allowed(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``max_length`` bytes are a whole line with no phantom after it; a longer one comes in parts, or is an error."""
    await _result(peer.send(b"abcd\nabcdef\nnext\ntoo long\n"))

    def line(**options: str) -> Any:
        return sock.recv_line(timeout=_TIMEOUT, max_length=4, **options)

    for expected in (b"abcd", b"abcd", b"ef", b"next"):
        _expect_equal("recv_line(max_length=4)", await _result(line()), expected)
    with _raises("recv_line(max_length=4, on_long='raise') of eight bytes", LineTooLongError):
        await _result(line(on_long="raise"))
    _expect_equal("recv_line() afterwards", await _result(sock.recv_line(timeout=_TIMEOUT)), b"too long")


@_check
async def R11_a_second_reader_is_refused(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """While one read waits another one is a ``BusyError``, and the first is unharmed."""
    reading = stage.start(lambda: sock.recv_line(timeout=_TIMEOUT))
    _expect(await reading.is_waiting(), "recv_line() did not wait for a line")
    with _raises("a second read", BusyError):
        await _result(sock.recv(1, timeout=_TIMEOUT))
    await _result(peer.send(b"line\n"))
    _expect_equal("the first recv_line()", await reading.result(), b"line")


@_check
async def R13_close_wakes_who_waits(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``close`` ends a read that waits, at once, with ``ClosedError``."""
    reading = stage.start(lambda: sock.recv(1, timeout=_TIMEOUT / 2))
    _expect(await reading.is_waiting(), "recv(1) did not wait for a byte")
    sock.close()
    with _raises("a read that waited", ClosedError):
        await reading.result()


@_check
async def R14_after_close_every_call_is_refused(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """Use after ``close`` is a ``ClosedError``, and closing again is fine."""
    sock.close()
    sock.close()
    with _raises("recv after close", ClosedError):
        await _result(sock.recv(1, timeout=_TIMEOUT))
    with _raises("send after close", ClosedError):
        await _result(sock.send(b"x", timeout=_TIMEOUT))


@_check
async def W1_send_means_all_of_it(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``send`` of more than the system takes at once waits for a slow reader, who gets every byte once and in order."""
    data = random.Random(_MORE_THAN_BUFFERED).randbytes(_MORE_THAN_BUFFERED)
    sending = stage.start(lambda: sock.send(data, timeout=_TIMEOUT))
    _expect(await sending.is_waiting(), "send returned though nobody has read")
    _expect(await _result(peer.recv(len(data), timeout=_TIMEOUT)) == data, "other bytes came than were sent")
    await sending.result()


@_check
async def W4_the_buffer_is_the_callers_again(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """What the caller does to its buffer once ``send`` has returned changes nothing of what was sent."""
    buffer = bytearray(b"before")
    await _result(sock.send(buffer, timeout=_TIMEOUT))
    buffer[:] = b"after!"
    _expect_equal("what came", await _result(peer.recv(6, timeout=_TIMEOUT)), b"before")


@_check
async def W6_sending_nothing_is_nothing(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``send(b"")`` sends nothing, and is no end."""
    await _result(sock.send(b"", timeout=_TIMEOUT))
    await _result(sock.send(b"x", timeout=_TIMEOUT))
    _expect_equal("what came", await _result(peer.recv_some(timeout=_TIMEOUT)), b"x")


@_check
async def half_close_ends_one_direction_only(stage: _Runner, sock: _Sock, peer: _Sock) -> None:
    """``shutdown_write`` tells the peer the end, and what the peer still sends can be read."""
    await _result(sock.send(b"question"))
    await _result(sock.shutdown_write())
    _expect_equal("the peer's recv(100)", await _result(peer.recv(100, timeout=_TIMEOUT)), b"question")
    await _result(peer.send(b"answer"))
    await _result(peer.shutdown_write())
    _expect_equal(
        "recv(100) after the half-close", await _result(sock.recv(100, timeout=_TIMEOUT)), b"answer"
    )


CHECKS: tuple[Check, ...] = tuple(Check(body.__name__, inspect.getdoc(body) or "", body) for body in _BODIES)
