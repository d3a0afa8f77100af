"""``serve``: one task accepts, and every connection gets a task of its own."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from wireline import _promises
from wireline._arguments import require_int
from wireline._resolver import look_up, outcome
from wireline._sansio.backoff import Backoff
from wireline._sansio.deadline import check_timeout
from wireline._serving import ListenAt, StopReport, Welcome, check_limit, open_listener
from wireline.address import Address, IpAddress, spell_address
from wireline.asyncnet._asyncio import Task, current_task, pause, running_loop, spawn
from wireline.asyncnet._signals import Signal, lookup_result
from wireline.asyncnet._socket import AsyncSocket
from wireline.errors import ClosedError, SocketTimeout
from wireline.options import IPPROTO_TCP, SOCK_STREAM, SOMAXCONN

if TYPE_CHECKING:
    from wireline.tls import SslContext

__all__ = ["Handler", "Server", "serve"]

Handler = Callable[[AsyncSocket, Address], Awaitable[object]]

_log = logging.getLogger("wireline")

# Seconds that handlers get to unwind once their connection was closed under them and they were cancelled. A guess: they
# have nothing left to wait for, and one that does not end is not waited for any longer.
_UNWIND = 1.0

# Clients that are accepted in a row before the other tasks get a turn. A guess; asyncio takes the backlog, 100.
_ACCEPTS_IN_A_ROW = 64


@_promises.documented(_promises.serve)
def serve(
    handler: Handler,
    port: int,
    address: str | IpAddress = "",
    *,
    tls: SslContext | None = None,
    max_connections: int | None = None,
    handshake_timeout: float | None = 10.0,
    backlog: int = SOMAXCONN,
    reuse_port: bool = False,
    buffered: bool = True,
) -> Starting:
    if not callable(handler):
        raise TypeError(f"the handler is called with a socket and an address; {handler!r} cannot be")
    where = ListenAt.checked(address, port)
    limit = check_limit(max_connections)
    require_int("backlog", backlog)
    welcome = Welcome.checked(tls, handshake_timeout)

    async def start() -> Server:
        found = []
        if where.needs_lookup:
            lookup = look_up(where.host, where.port, 0, SOCK_STREAM, IPPROTO_TCP)
            await lookup_result(lookup, Signal(running_loop()), "serve", None)
            found = outcome(lookup)
        listener = open_listener(
            AsyncSocket, where, found, backlog=backlog, reuse_port=reuse_port, buffered=buffered
        )
        return Server(listener, handler, limit, welcome)

    return Starting(start)


class Starting:
    """What ``serve`` returns: ``server = await serve(...)``, or ``async with serve(...) as server:``."""

    def __init__(self, start: Callable[[], Awaitable[Server]]) -> None:
        self._start = start
        self._server: Server | None = None

    def __await__(self) -> Generator[object, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        self._server = await self._start()
        return self._server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.stop()


@_promises.documented(_promises.ServerPromises)
class Server:
    """A running server, made by ``serve``."""

    def __init__(
        self, listener: AsyncSocket, handler: Handler, max_connections: int | None, welcome: Welcome | None
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._welcome = welcome
        self._limit = max_connections
        self._active: dict[Task, AsyncSocket] = {}
        # One of each for all connections: a lambda and a context of its own would be 280 bytes for each of them.
        self._when_done = self._finish
        self._context = contextvars.copy_context()
        self._loop = running_loop()
        self._changed = Signal(self._loop)
        self._stopping = False
        self._ending = False
        self._report: StopReport | None = None
        try:
            self._local_addr = listener.local_addr
            self._acceptor = spawn(self._accept_loop(), f"wireline-serve-{self._local_addr.port}")
        except BaseException:
            listener.close()
            raise

    @property
    def local_addr(self) -> Address:
        return self._local_addr

    @property
    def connections(self) -> int:
        return len(self._active)

    async def wait(self, timeout: float | None = None) -> None:
        timeout = check_timeout(timeout)
        await self._until(lambda: self._report is not None, timeout)
        if self._report is None and timeout is not None:
            raise SocketTimeout("wait", timeout)

    async def stop(self, drain: float = 0.0) -> StopReport:
        seconds = check_timeout(drain)
        self._stopping = True
        self._listener.close()
        self._changed.ring()
        me = current_task()
        while self._ending:
            # A handler that stops its own server must not wait for who is waiting for it.
            if me in self._active:
                return StopReport(0, 0)
            await self._changed.wait(None)
        if self._report is None:
            self._ending = True
            try:
                self._report = await self._end(seconds, me)
            finally:
                self._ending = False
                self._changed.ring()
        return self._report

    async def _end(self, seconds: float | None, me: Task) -> StopReport:
        def others() -> dict[Task, AsyncSocket]:
            return {task: client for task, client in self._active.items() if task is not me}

        def over() -> bool:
            return not others() and self._acceptor.done()

        before = len(others())
        await self._until(over, seconds)
        left = others()
        # Who is at its socket gets a `ClosedError`, and time to unwind. Who waits for something else would not notice.
        elsewhere = {task for task, client in left.items() if client.is_closed or not client._in_use}
        for client in left.values():
            client.close()
        await pause(0)
        await pause(0)
        for tasks in (elsewhere, left.keys() - elsewhere):
            for task in tasks:
                task.cancel()
            await self._until(over, _UNWIND)
        return StopReport(before - len(left), len(left))

    async def _until(self, condition: Callable[[], bool], seconds: float | None) -> None:
        """Wait until ``condition`` is true, at most for so many seconds."""
        until = None if seconds is None else self._loop.time() + seconds
        while not condition() and (until is None or self._loop.time() < until):
            await self._changed.wait(until)

    # The task that accepts.

    async def _accept_loop(self) -> None:
        try:
            backoff = Backoff()
            in_a_row = 0
            while not self._stopping:
                await self._until(self._has_room, None)
                try:
                    client, address = await self._listener.accept_addr()
                except ClosedError:
                    return
                except OSError as error:  # no descriptor, no memory to be had (S5)
                    delay, count = backoff.failed(self._loop.time())
                    if count:
                        _log.error(
                            "cannot accept connections at %s (%d times): %s", self._local_addr, count, error
                        )
                    await self._until(lambda: self._stopping, delay)
                    continue
                backoff.succeeded()
                self._start(client, address)
                in_a_row += 1
                if in_a_row % _ACCEPTS_IN_A_ROW == 0:
                    await pause(0)
        finally:
            self._listener.close()
            self._changed.ring()

    def _has_room(self) -> bool:
        return self._stopping or self._limit is None or len(self._active) < self._limit

    def _start(self, client: AsyncSocket, address: Address) -> None:
        task = spawn(self._run(client, address), f"wireline-client-{address.port}")
        if not task.done():  # as an eager one may be
            # A task that is cancelled before its first step never runs, and so cannot clean up.
            self._active[task] = client
            task.add_done_callback(self._when_done, context=self._context)

    # The task of one connection.

    async def _run(self, client: AsyncSocket, address: Address) -> None:
        self._active[current_task()] = client  # here, as an eager task runs before anybody else knows it
        try:
            if self._welcome is None or await self._shake_hands(self._welcome, client, address):
                await self._handler(client, address)
        except Exception as error:  # noqa: BLE001 -- the handler's, whatever it is; it ends one connection
            self._log_failure(error, address)
        finally:
            self._finish(current_task())

    async def _shake_hands(self, welcome: Welcome, client: AsyncSocket, address: Address) -> bool:
        """Make the handshake with a client; False if it was none. That happens at every public port, all day."""
        try:
            secure = client._server_core(welcome.tls)
            await client._upgrade_by(secure, client._deadline(welcome.seconds), "handshake")
        except ClosedError:
            raise
        except OSError as error:
            _log.info("no TLS handshake with %s: %s", spell_address(address), error)
            return False
        return True

    def _log_failure(self, error: Exception, address: Address) -> None:
        closed = _says_closed(error)
        # `stop` closes the connection under the handler. Any other time it is the handler's own mistake.
        if not (closed and self._stopping):
            what = "used a closed socket" if closed else "failed"
            _log.error("the handler of %s %s", address, what, exc_info=error)

    def _finish(self, task: Task) -> None:
        client = self._active.pop(task, None)
        if client is not None:
            client.close()
            self._changed.ring()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


def _says_closed(error: Exception) -> bool:
    """Whether it is a ``ClosedError``, or a task group's bundle of nothing else."""
    if isinstance(error, ExceptionGroup):
        return error.split(ClosedError)[1] is None
    return isinstance(error, ClosedError)
