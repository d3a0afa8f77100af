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
_PATIENCE = 10.0
_A_WHILE = 0.05

# More than the kernel holds for a peer that does not read.
_MUCH = 8 << 20


class _Work(Protocol):
    """A call that was started."""

    async def is_waiting(self) -> bool:
        """Give it a moment to begin to wait, and say whether it does."""
        raise NotImplementedError

    async def result(self) -> Any:
        """Wait for its result, or its exception."""


class _Stage(Protocol):
    """What a check needs of a flavour."""

    def start(self, call: Callable[[], Any]) -> _Work:
        """Make a call beside what comes next."""
        raise NotImplementedError


_Body: TypeAlias = Callable[[_Stage, _Sock, _Sock], Coroutine[Any, Any, None]]


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
        stage = _Threads()
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
        stage = _Tasks()
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


async def _of(outcome: Any) -> Any:
    """The result of a call, of either flavour."""
    return await outcome if inspect.isawaitable(outcome) else outcome


# ------------------------------------------------------------------------------------------------ what runs beside


class _Threads:
    """For the blocking flavour."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, call: Callable[[], Any]) -> _Work:
        work = _InThread(call)
        self._threads.append(work.thread)
        return work

    def join(self) -> None:
        for thread in self._threads:
            thread.join(_PATIENCE)


class _InThread:
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
        self.thread.join(_A_WHILE)
        return self.thread.is_alive()

    async def result(self) -> Any:
        self.thread.join(_PATIENCE)
        return self._outcome.get(done=not self.thread.is_alive())


class _Tasks:
    """For the async flavour."""

    def __init__(self) -> None:
        self._works: list[_InTask] = []

    def start(self, call: Callable[[], Any]) -> _Work:
        work = _InTask(call)
        self._works.append(work)
        return work

    async def join(self) -> None:
        for work in self._works:
            await work.join(_PATIENCE)


class _InTask:
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
        if not self._done and seconds == _PATIENCE:
            self._task.cancel()

    async def is_waiting(self) -> bool:
        await self.join(_A_WHILE)
        return not self._done

    async def result(self) -> Any:
        await self.join(_PATIENCE)
        return self._outcome.get(done=self._done)


class _Outcome:
    """What came of a call."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = None

    def get(self, *, done: bool) -> Any:
        _expect(done, f"a call did not return within {_PATIENCE:g} s")
        if self.error is not None:
            raise self.error
        return self.value


# ------------------------------------------------------------------------------------------------ what is expected


def _expect(condition: bool, message: str) -> None:
    # No `assert`: it says too little where pytest does not rewrite it, and nothing with -O.
    if not condition:
        raise AssertionError(message)


def _same(what: str, seen: object, expected: object) -> None:
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
async def R1_recv_waits_until_all_the_bytes_are_there(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """A buffered ``recv(n)`` returns n bytes, however they come; what is more stays for the next call."""
    await _of(peer.send(b"ab"))
    reading = stage.start(lambda: sock.recv(5, timeout=_PATIENCE))
    _expect(await reading.is_waiting(), "recv(5) returned after two bytes")
    await _of(peer.send(b"cdef"))
    _same("recv(5)", await reading.result(), b"abcde")
    _same("the next recv(1)", await _of(sock.recv(1, timeout=_PATIENCE)), b"f")


@_check
async def R1_recv_returns_fewer_bytes_only_at_the_end(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """At the end of the stream ``recv(n)`` returns what is there, and then ``b""``, as often as it is called."""
    await _of(peer.send(b"abc"))
    await _of(peer.shutdown_write())
    _same("recv(5) of three bytes", await _of(sock.recv(5, timeout=_PATIENCE)), b"abc")
    for _ in range(2):
        _same("recv(5) at the end", await _of(sock.recv(5, timeout=_PATIENCE)), b"")


@_check
async def R2_recv_some_returns_what_is_there(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """``recv_some`` returns as soon as one byte is there, from the buffer first."""
    await _of(peer.send(b"line\nrest"))
    _same("recv_line()", await _of(sock.recv_line(timeout=_PATIENCE)), b"line")
    await _of(peer.shutdown_write())
    _same("recv_some(2)", await _of(sock.recv_some(2, timeout=_PATIENCE)), b"re")
    _same("recv_some()", await _of(sock.recv_some(timeout=_PATIENCE)), b"st")
    _same("recv_some() at the end", await _of(sock.recv_some(timeout=_PATIENCE)), b"")


@_check
async def R4_a_timeout_of_0_does_not_wait(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """With ``timeout=0`` a read takes what is there already, or raises ``TimeoutError``."""
    with _raises("recv_some(timeout=0) of nothing", TimeoutError):
        await _of(sock.recv_some(timeout=0))
    await _of(peer.send(b"abc\n"))
    _same("recv(1)", await _of(sock.recv(1, timeout=_PATIENCE)), b"a")
    _same("recv_line(timeout=0)", await _of(sock.recv_line(timeout=0)), b"bc")


@_check
async def R5_after_a_timeout_nothing_is_lost(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """A read that ran out of time takes nothing: the same call, or another one, gets every byte."""
    await _of(peer.send(b"par"))
    reads: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("recv_line", lambda: sock.recv_line(timeout=0.01)),
        ("recv", lambda: sock.recv(100, timeout=0.01)),
        ("recv_exactly", lambda: sock.recv_exactly(100, timeout=0.01)),
        ("recv_until", lambda: sock.recv_until(b"\0", timeout=0.01)),
    )
    for what, read in reads:
        with _raises(f"{what} of a part", SocketTimeout):
            await _of(read())
    await _of(peer.send(b"t\nx"))
    _same("recv_line() afterwards", await _of(sock.recv_line(timeout=_PATIENCE)), b"part")
    _same("recv(1) afterwards", await _of(sock.recv(1, timeout=_PATIENCE)), b"x")


@_check
async def R6_a_line_ends_at_either_newline(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """A line ends at LF or CR LF, which are not returned; a lone CR is data; an empty line is ``b"\\r\\n"``."""
    await _of(peer.send(b"one\r\ntwo\na\rb\r\nc\r\r\n\n\r\nlast\n"))
    await _of(peer.shutdown_write())
    for line in (b"one", b"two", b"a\rb", b"c\r", b"\r\n", b"\r\n", b"last", b""):
        _same("recv_line()", await _of(sock.recv_line(timeout=_PATIENCE)), line)


@_check
async def R7_a_line_that_is_there_waits_for_nothing(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """A complete line is returned while the peer says nothing more, whether it came whole or byte by byte."""
    for byte in b"ab\r\n":
        await _of(peer.send(bytes([byte])))
    _same("recv_line()", await _of(sock.recv_line(timeout=_PATIENCE)), b"ab")


@_check
async def R8_an_unfinished_line_is_still_readable(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """At the end of the stream ``recv_line`` returns ``b""``, and what it did not return can be read by ``recv``."""
    await _of(peer.send(b"whole\nunfinished"))
    await _of(peer.shutdown_write())
    _same("recv_line()", await _of(sock.recv_line(timeout=_PATIENCE)), b"whole")
    _same("recv_line() of half a line", await _of(sock.recv_line(timeout=_PATIENCE)), b"")
    with _raises("recv_exactly(100) of ten bytes", EndOfStreamError) as caught:
        await _of(sock.recv_exactly(100, timeout=_PATIENCE))
    _same("its .partial", getattr(caught[0], "partial", None), b"unfinished")
    _same("recv(100)", await _of(sock.recv(100, timeout=_PATIENCE)), b"unfinished")


@_check
async def R9_a_line_is_never_longer_than_allowed(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """``max_length`` bytes are a whole line with no phantom after it; a longer one comes in parts, or is an error."""
    await _of(peer.send(b"abcd\nabcdef\nnext\ntoo long\n"))

    def line(**options: str) -> Any:
        return sock.recv_line(timeout=_PATIENCE, max_length=4, **options)

    for expected in (b"abcd", b"abcd", b"ef", b"next"):
        _same("recv_line(max_length=4)", await _of(line()), expected)
    with _raises("recv_line(max_length=4, on_long='raise') of eight bytes", LineTooLongError):
        await _of(line(on_long="raise"))
    _same("recv_line() afterwards", await _of(sock.recv_line(timeout=_PATIENCE)), b"too long")


@_check
async def R11_a_second_reader_is_refused(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """While one read waits another one is a ``BusyError``, and the first is unharmed."""
    reading = stage.start(lambda: sock.recv_line(timeout=_PATIENCE))
    _expect(await reading.is_waiting(), "recv_line() did not wait for a line")
    with _raises("a second read", BusyError):
        await _of(sock.recv(1, timeout=_PATIENCE))
    await _of(peer.send(b"line\n"))
    _same("the first recv_line()", await reading.result(), b"line")


@_check
async def R13_close_wakes_who_waits(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """``close`` ends a read that waits, at once, with ``ClosedError``."""
    reading = stage.start(lambda: sock.recv(1, timeout=_PATIENCE / 2))
    _expect(await reading.is_waiting(), "recv(1) did not wait for a byte")
    sock.close()
    with _raises("a read that waited", ClosedError):
        await reading.result()


@_check
async def R14_after_close_every_call_is_refused(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """Use after ``close`` is a ``ClosedError``, and closing again is fine."""
    sock.close()
    sock.close()
    with _raises("recv after close", ClosedError):
        await _of(sock.recv(1, timeout=_PATIENCE))
    with _raises("send after close", ClosedError):
        await _of(sock.send(b"x", timeout=_PATIENCE))


@_check
async def W1_send_means_all_of_it(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """``send`` of more than the system takes at once waits for a slow reader, who gets every byte once and in order."""
    data = random.Random(_MUCH).randbytes(_MUCH)
    sending = stage.start(lambda: sock.send(data, timeout=_PATIENCE))
    _expect(await sending.is_waiting(), "send returned though nobody has read")
    _expect(await _of(peer.recv(len(data), timeout=_PATIENCE)) == data, "other bytes came than were sent")
    await sending.result()


@_check
async def W4_the_buffer_is_the_callers_again(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """What the caller does to its buffer once ``send`` has returned changes nothing of what was sent."""
    buffer = bytearray(b"before")
    await _of(sock.send(buffer, timeout=_PATIENCE))
    buffer[:] = b"after!"
    _same("what came", await _of(peer.recv(6, timeout=_PATIENCE)), b"before")


@_check
async def W6_sending_nothing_is_nothing(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """``send(b"")`` sends nothing, and is no end."""
    await _of(sock.send(b"", timeout=_PATIENCE))
    await _of(sock.send(b"x", timeout=_PATIENCE))
    _same("what came", await _of(peer.recv_some(timeout=_PATIENCE)), b"x")


@_check
async def half_close_ends_one_direction_only(stage: _Stage, sock: _Sock, peer: _Sock) -> None:
    """``shutdown_write`` tells the peer the end, and what the peer still sends can be read."""
    await _of(sock.send(b"question"))
    await _of(sock.shutdown_write())
    _same("the peer's recv(100)", await _of(peer.recv(100, timeout=_PATIENCE)), b"question")
    await _of(peer.send(b"answer"))
    await _of(peer.shutdown_write())
    _same("recv(100) after the half-close", await _of(sock.recv(100, timeout=_PATIENCE)), b"answer")


CHECKS: tuple[Check, ...] = tuple(Check(body.__name__, inspect.getdoc(body) or "", body) for body in _BODIES)
