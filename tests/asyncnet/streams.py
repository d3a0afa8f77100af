"""Streams to give up on: pairs of sockets, and the ways in which a program stops waiting."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import sys
import time
import types
from collections.abc import Callable, Container, Coroutine, Generator, Iterator
from typing import Any, Final, TypeVar

from tests.asyncnet.loops import spy, turns
from wireline import AF_UNIX, SOCK_STREAM
from wireline.asyncnet import AsyncSocket

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which something that should have happened at once counts as never."""

LOOPBACK = "127.0.0.1"

QUIET = 6
"""Turns of the loop without a byte, after which none will arrive. An operation that goes on by itself takes four."""


@contextlib.contextmanager
def wire(**options: Any) -> Iterator[tuple[AsyncSocket, socket.socket]]:
    """A wireline socket, and a peer that does each step of the test at once and nothing else."""
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    with peer, contextlib.closing(AsyncSocket.from_socket(ours, **options)) as sock:
        yield sock, peer


@contextlib.contextmanager
def narrow_wire(size: int = 4096) -> Iterator[tuple[AsyncSocket, socket.socket]]:
    """The same with small buffers between them."""
    with wire() as (sock, peer):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            peer.setsockopt(socket.SOL_SOCKET, option, size)
            with socket.socket(fileno=os.dup(sock.fileno())) as twin:
                twin.setsockopt(socket.SOL_SOCKET, option, size)
        yield sock, peer


@contextlib.contextmanager
def listening(family: int = AF_UNIX) -> Iterator[AsyncSocket]:
    """A wireline listener."""
    with contextlib.closing(AsyncSocket(family, SOCK_STREAM)) as listener:
        if family == AF_UNIX:
            listener.bind_unix(f"\0wireline-{os.getpid()}-{os.urandom(8).hex()}")
        else:
            listener.bind_addr(0, LOOPBACK)
        listener.listen()
        yield listener


def knock(listener: AsyncSocket) -> socket.socket:
    """Connect to a listener, at once."""
    where = listener.local_addr
    is_unix = not where.port
    client = socket.socket(AF_UNIX if is_unix else socket.AF_INET, SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect(where.host if is_unix else where)
    return client


def drain(peer: socket.socket) -> bytes:
    """The bytes that have arrived at a raw peer."""
    data = bytearray()
    with contextlib.suppress(BlockingIOError):
        while piece := peer.recv(65536):
            data += piece
    return bytes(data)


async def drain_until(peer: socket.socket, done: Callable[[], bool]) -> bytes:
    """Read a raw peer in many small steps, until a condition holds and nothing more arrives."""
    data = b""
    idle = 0
    while idle < QUIET:
        is_done = done()
        piece = drain(peer)
        data += piece
        idle = idle + 1 if is_done and not piece else 0
        await turns(1)
    return data


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that nothing announces."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        await asyncio.sleep(0.001)


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes of which no part looks like another, so that one that is lost, doubled or moved is seen."""
    return random.Random(f"{size} {seed}").randbytes(size)


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


# ------------------------------------------------------------------------------------------ giving up


class Left:
    """The type of ``LEFT``: the call was given up and has given nothing."""

    def __repr__(self) -> str:
        return "LEFT"


LEFT: Final = Left()

HOWS = ("cancel", "timeout", "wait_for", "group", "own")
"""The ways to stop waiting: ``task.cancel()``, ``asyncio.timeout``, ``asyncio.wait_for``, the failure of another task
in the same ``TaskGroup``, and the method's own timeout."""

LONG = 1000.0
"""Seconds of a timeout that passes when the clock is put forward."""

SHORT = 0.002
"""Seconds of a timeout that passes by itself, on a loop whose clock cannot be put forward."""


class Aborted(Exception):
    """Another task of the group has failed."""


class GivenUp:
    """A call, made in a task of its own, that is given up at a moment of the test's choice."""

    def __init__(self, how: str, call: Callable[[float | None], Coroutine[Any, Any, Any]]) -> None:
        self._how = how
        self._call = call
        self._loop = spy()
        self._clock = self._loop.__class__.__name__ == "AsyncioLoop"
        self._seconds = LONG if self._clock else SHORT
        self._abort = asyncio.Event()
        self._scope = asyncio.timeout(None)
        self._begun = False
        self._result: Any = LEFT
        self._error: Exception | None = None
        self._task = asyncio.create_task(getattr(self, f"_by_{how}")())

    @property
    def done(self) -> bool:
        return self._task.done()

    async def give_up(self) -> None:
        """Stop waiting, now."""
        if self._how == "cancel":
            self._task.cancel()
            return
        while not (self._begun or self.done):  # a timeout of its own may pass before
            await turns(1)
        if self._how == "timeout":
            with contextlib.suppress(RuntimeError):  # it has left the block
                self._scope.reschedule(self._loop.time())
        elif self._how == "group":
            self._abort.set()
        elif self._clock:
            self._loop.ahead += 2 * LONG
        else:
            await asyncio.sleep(2 * SHORT)

    async def outcome(self) -> Any:
        """The result of the call, ``LEFT`` if it has none; its exception is raised, but for the giving up itself."""
        await asyncio.wait([self._task], timeout=PATIENCE)
        assert self._task.done(), f"{self._how} does not end {self._task}"
        if not self._task.cancelled():
            self._task.exception()  # seen
        if self._error is not None:
            raise self._error
        return self._result

    async def _made(self, timeout: float | None) -> None:
        self._begun = True
        # The result counts, even if its caller is gone a moment later.
        try:
            self._result = await self._call(timeout)
        except TimeoutError:
            if timeout is None:
                raise
        except Exception as error:  # noqa: BLE001 -- for `outcome`
            self._error = error

    async def _by_cancel(self) -> None:
        await self._made(None)

    async def _by_timeout(self) -> None:
        async with self._scope:
            await self._made(None)

    async def _by_wait_for(self) -> None:
        await asyncio.wait_for(self._made(None), self._seconds)

    async def _by_group(self) -> None:
        async with asyncio.TaskGroup() as group:
            made = group.create_task(self._made(None))
            abort = group.create_task(self._abort_when_told())
            await made
            abort.cancel()

    async def _abort_when_told(self) -> None:
        await self._abort.wait()
        raise Aborted

    async def _by_own(self) -> None:
        await self._made(self._seconds)


@types.coroutine
def stepped(coroutine: Coroutine[Any, Any, T], suspended: Callable[[int], None]) -> Generator[Any, Any, T]:
    """Await a coroutine, and call ``suspended(n)`` when it suspends for the n-th time, before it does."""
    step: Callable[[], Any] = functools.partial(coroutine.send, None)
    count = 0
    while True:
        try:
            awaited = step()
        except StopIteration as stop:
            result: T = stop.value
            return result
        count += 1
        suspended(count)
        try:
            yield awaited
        except BaseException as error:  # noqa: BLE001 -- it is the coroutine's
            step = functools.partial(coroutine.throw, error)
        else:
            step = functools.partial(coroutine.send, None)


async def cancelled_at(number: int, soon: bool, coroutine: Coroutine[Any, Any, T]) -> tuple[T | Left, int]:
    """Await a coroutine and cancel it at a suspension.

    Args:
        number: at which, counted from 1.
        soon: in the next turn of the loop, and not before it sleeps.
        coroutine: what to await.

    Returns:
        Its result, ``LEFT`` if it has none, and how often it was suspended.
    """
    count = 0

    def suspended(now: int) -> None:
        nonlocal count
        count = now
        task = asyncio.current_task()
        assert task is not None
        if now == number and soon:
            asyncio.get_running_loop().call_soon(task.cancel)
        elif now == number:
            task.cancel()

    async def in_a_task() -> T:
        return await stepped(coroutine, suspended)

    task = asyncio.create_task(in_a_task())
    await asyncio.wait([task])
    return (LEFT if task.cancelled() else task.result()), count


def is_interrupted_at_line(
    coroutine: Coroutine[Any, Any, Any], number: int, functions: Container[str]
) -> bool:
    """Run a coroutine to its first sleep, and raise ``KeyboardInterrupt`` before a line of some functions.

    Args:
        coroutine: what to begin. It is closed.
        number: the line, of all that these functions execute, counted from 0.
        functions: their qualified names.

    Returns:
        False if they execute fewer lines.
    """
    left = number

    def trace(frame: types.FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "call":
            return trace if frame.f_code.co_qualname in functions else None
        left -= event == "line"
        if left < 0:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        coroutine.send(None)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        coroutine.close()
    return False
