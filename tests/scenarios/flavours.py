"""Each flavour of the library behind one asynchronous face, for the scenarios.

A scenario awaits each call that waits. The blocking flavour cannot be awaited, so ``Face`` runs those methods, and
only those, in threads. To add a flavour is to add an object with the members of ``Flavour`` to ``FLAVOURS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from tests.scenarios.asynchronous import ASYNCHRONOUS
from wireline import Address, Frame, net
from wireline.net import Accepted, Socket

T = TypeVar("T")

Sock: TypeAlias = Any
"""A socket of the flavour under test. Its methods are those of the contract, and those that wait are awaited."""

Server: TypeAlias = Any
"""A server of that flavour, likewise."""

Handler: TypeAlias = Callable[[Sock, Address], Awaitable[object]]

WAITING = frozenset(
    """
    connect connect_unix accept accept_addr send send_many send_some send_to
    recv recv_into recv_some recv_exactly recv_until recv_line recv_line_into recv_from recv_from_into skip
    recv_many_from send_many_to
    recv_struct recv_frame fill recv_some_into shutdown_write send_fds recv_fds wait_readable wait_writable
    start_tls
    """.split()
)
"""The methods that are awaited. ``lines`` and ``frames`` are the asynchronous iterators beside them."""


class Flavour(Protocol):
    """One flavour of the library."""

    name: str
    backend: object
    """The event loop to run the scenarios on, as ``anyio_backend`` takes it."""
    socket_type: type
    """The class behind ``socket``."""

    def in_place(self) -> contextlib.AbstractContextManager[None]:
        """The setting of a running scenario."""

    def socket(self, *args: Any, **options: Any) -> Sock: ...

    def from_socket(self, sock: socket.socket, **options: Any) -> Sock: ...

    def from_fd(self, fd: int, *args: Any, **options: Any) -> Sock: ...

    async def dial(self, *args: Any, **options: Any) -> Sock: ...

    async def serve(self, handler: Handler, *args: Any, **options: Any) -> Any: ...


# ------------------------------------------------------------------------------------------- threads


class _OwnThread:
    """The thread of a connection, lent to its handler.

    The handler itself runs on the test's loop; its calls that wait run in this thread, as in a blocking program.
    When it awaits two things at once, the second gets another thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._busy = False

    def run(self, handler: Coroutine[Any, Any, T]) -> T:
        """In the thread: work for ``handler`` until it is done."""
        outcome = asyncio.run_coroutine_threadsafe(self._handle(handler), self._loop)
        while (job := self._jobs.get()) is not None:
            job()
        return outcome.result()

    async def _handle(self, handler: Coroutine[Any, Any, T]) -> T:
        _own_thread.set(self)
        try:
            return await handler
        finally:
            self._busy = True
            self._jobs.put(None)

    def takes(self, job: Callable[[], None]) -> bool:
        """On the loop: run ``job`` in the thread, if it is free."""
        if self._busy:
            return False
        self._busy = True
        self._jobs.put(job)
        return True

    def is_free(self) -> None:
        """On the loop: the job is done."""
        self._busy = False


_own_thread: contextvars.ContextVar[_OwnThread | None] = contextvars.ContextVar("own_thread", default=None)

on_their_way: set[object] = set()
"""The calls that were handed to a thread which has not begun with them yet."""


async def in_thread(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Await a call that blocks. A cancelled caller leaves the thread alone: ``close`` ends the call."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    own = _own_thread.get()

    def settle(result: Any, error: BaseException | None) -> None:
        if own is not None and lent:
            own.is_free()
        if outcome.cancelled():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def job() -> None:
        result, failure = None, None
        on_their_way.discard(job)
        try:
            result = call(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - any exception belongs to the caller that awaits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: no task awaits it any more
            loop.call_soon_threadsafe(settle, result, failure)
        del failure  # it refers to this frame

    on_their_way.add(job)
    lent = own is not None and own.takes(job)
    if not lent:
        threading.Thread(target=job, name=f"face-{getattr(call, '__name__', 'call')}", daemon=True).start()
    return await outcome


# ---------------------------------------------------------------------------------- the blocking flavour


class Face:
    """A blocking socket whose waiting methods are awaited."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("multicast_"):
            setattr(self._sock, name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._sock, name)
        if name not in WAITING:
            return member

        async def waiting(*args: Any, **kwargs: Any) -> Any:
            return _with_face(await in_thread(member, *args, **kwargs))

        return waiting

    def try_accept_addr(self) -> Any:
        result, client, address = self._sock.try_accept_addr()
        return result, _with_face(client), address

    def lines(self, *args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        return _Iterator(self._sock.lines(*args, **kwargs))

    def frames(self, *args: Any, **kwargs: Any) -> AsyncIterator[Frame]:
        return _Iterator(self._sock.frames(*args, **kwargs))

    async def __aenter__(self) -> Face:
        self._sock.__enter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self._sock.__exit__(*exception)

    def __repr__(self) -> str:
        return repr(self._sock)


class _Iterator(AsyncIterator[T]):
    """The lines or frames of a blocking socket, likewise."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items

    async def __anext__(self) -> T:
        item = await in_thread(next, self._items, None)
        if item is None:
            raise StopAsyncIteration
        return cast(T, item)


class EventFace:
    """A blocking event, likewise."""

    def __init__(self, event: net.StopEvent) -> None:
        self._event = event

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self, *args: Any, **kwargs: Any) -> bool:
        return await in_thread(self._event.wait, *args, **kwargs)


class ServerFace:
    """A blocking server, likewise."""

    def __init__(self, server: net.Server) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    @property
    def stopping(self) -> EventFace:
        return EventFace(self._server.stopping)

    @property
    def clients(self) -> tuple[Face, ...]:
        return tuple(map(Face, self._server.clients))

    async def wait(self, *args: Any, **kwargs: Any) -> None:
        await in_thread(self._server.wait, *args, **kwargs)

    async def stop(self, *args: Any, **kwargs: Any) -> Any:
        return await in_thread(self._server.stop, *args, **kwargs)

    async def __aenter__(self) -> ServerFace:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await in_thread(self._server.__exit__, *exception)


def _with_face(result: Any) -> Any:
    if isinstance(result, Socket):
        return Face(result)
    if isinstance(result, Accepted):
        return Accepted(_with_face(result.client), result.address)
    return result


class Blocking:
    """``wireline.net``."""

    name = "blocking"
    backend = "asyncio"
    socket_type = Socket

    def in_place(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def socket(self, *args: Any, **options: Any) -> Sock:
        return Face(Socket(*args, **options))

    def from_socket(self, sock: socket.socket, **options: Any) -> Sock:
        return Face(Socket.from_socket(sock, **options))

    def from_fd(self, fd: int, *args: Any, **options: Any) -> Sock:
        return Face(Socket.from_fd(fd, *args, **options))

    async def dial(self, *args: Any, **options: Any) -> Sock:
        return Face(await in_thread(net.dial, *args, **options))

    async def serve(self, handler: Handler, *args: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()

        def in_its_thread(client: Socket, address: Address) -> object:
            return _OwnThread(loop).run(handler(Face(client), address))

        return ServerFace(await in_thread(net.serve, in_its_thread, *args, **options))


FLAVOURS: tuple[Flavour, ...] = (Blocking(), *ASYNCHRONOUS)
