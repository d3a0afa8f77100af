"""``serve``: one task accepts, and every connection gets a task of its own."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import socket
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from wireline._core.backoff import AcceptBackoff
from wireline._core.connection_counts import Admission, Connection
from wireline._core.deadline import check_timeout
from wireline._event_log import Blame, EventLog, blame, log
from wireline._listeners import ListenConfig, close_all
from wireline._os.keep_alive import DEFAULT_KEEP_ALIVE, KeepAlive
from wireline._os.process import process
from wireline._os.resolver import resolve
from wireline._server_common import (
    HandshakeConfig,
    ServerTotals,
    StopReport,
    StopRequest,
    StopRequests,
    accept_failure,
    check_callback,
    check_wait_after_fork,
)
from wireline._server_limits import ConnectionLimiter, ServerLimits
from wireline._validation import SocketOption
from wireline.address import Address, IpAddress
from wireline.asyncnet._port import Task, Tasks, Timer, running_port, running_tasks
from wireline.asyncnet._socket import AsyncSocket
from wireline.asyncnet._sync import Notifier, wait_for_lookup
from wireline.errors import ClosedError, SocketTimeout
from wireline.options import IPPROTO_TCP, SAFE_DISCONN, SOCK_STREAM, SOMAXCONN, SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline._server_stats import ServerStats
    from wireline.tls import SslContext

__all__ = ["Handler", "Server", "StopEvent", "serve"]

Handler = Callable[[AsyncSocket, Address], Awaitable[object]]
ErrorHandler = Callable[[Exception, AsyncSocket], object]
"""A coroutine function is one, too: what it returns is awaited."""

# Seconds that handlers get to unwind once their connection was closed under them and they were cancelled. A guess: they
# have nothing left to wait for, and one that does not end is not waited for any longer.
_UNWIND = 1.0

# Turns of the loop in which an operation of its own ends after its descriptor was closed. A guess: two, and two more.
_TURNS_OF_AN_OPERATION = 4

# Clients that are accepted in a row before the other tasks get a turn. A guess; asyncio takes the backlog, 100.
_ACCEPTS_IN_A_ROW = 64


def serve(
    handler: Handler,
    port: int = 0,
    address: str | IpAddress = "",
    *,
    tls: SslContext | None = None,
    max_connections: int | None = None,
    handshake_timeout: float | None = 10.0,
    backlog: int = SOMAXCONN,
    reuse_port: bool = False,
    buffered: bool = True,
    on_error: ErrorHandler | None = None,
    sock: AsyncSocket | socket.socket | Sequence[AsyncSocket | socket.socket] | None = None,
    options: Iterable[SocketOption] = (),
    mode: int | None = None,
    keep_alive: KeepAlive | None = DEFAULT_KEEP_ALIVE,
    on_full: Literal["wait", "refuse"] = "wait",
    max_per_address: int | None = None,
    max_handshakes: int | None = None,
    first_byte_timeout: float | None = None,
    idle_timeout: float | None = None,
    lifetime: float | None = None,
    min_rate: float | None = None,
    default_flags: SocketFlag = SAFE_DISCONN,
) -> StartingServer:
    """Listen, and call ``handler(client, address)`` for each connection, in a thread or task of its own.

    The address is bound before the call returns; connections are accepted in the background. A client's socket is
    closed when its handler returns or raises; an exception ends this connection only. While the process is out of
    descriptors, its connections stay open, and new ones are accepted as soon as that is possible. An error or a
    cancellation before the call returns leaves nothing behind.

    Exceptions are logged (logger ``wireline``). An exception of the client's socket that the peer has caused (a
    timeout, a reset, an end without ``close_notify``, a failed handshake) is one line at INFO; its record has the
    attributes ``peer``, ``local`` and ``error`` (``str``), ``seconds`` since the client was accepted, and ``bytes_in``
    and ``bytes_out`` as counted on the network (None where the system does not count them). Any other exception, also
    one of another socket, is an error of the program, and is logged at ERROR with its traceback. After ten lines of one
    kind in one second the others of this kind are counted in one line.

    A connection that exceeds a time limit is closed: its handler gets a ``ClosedError`` from its read or send, or from
    the next one. This is one line at INFO. A connection counts against ``max_connections`` and ``max_per_address``
    until its descriptor is closed, also while it lingers after ``close``.

    Args:
        handler: the function that serves one connection.
        port: 0 lets the operating system choose; the server's ``local_addr`` has the port.
        address: a name or an address. Of a name every address is bound, with one port; a family that this host does not
            have is left out. ``""`` is every interface, IPv6 and IPv4; ``"unix:/path"`` is a Unix socket, and on Linux
            ``"unix:@name"`` one with an abstract name.
        tls: a ``wireline.tls.SslContext``: the handler is called after a TLS handshake.
        max_connections: the most connections at the same time; see ``on_full`` for further clients. None means no
            limit, here and below.
        handshake_timeout: seconds for the handshake of one client, which delays no other client.
        backlog: the most clients that wait to be accepted; the operating system has a limit of its own.
        reuse_port: let several processes listen on one port (``SO_REUSEPORT``).
        buffered: whether the clients' sockets are buffered, see ``Socket``.
        on_error: called as ``on_error(error, client)``, instead of the log line, with each exception that ends a
            connection, whether the peer or the program has caused it; the client is closed afterwards. In the async
            flavour it may be a coroutine function, which is awaited. An exception raised by it is logged and has no
            other effect. The error of a connection that the server has closed because of a time limit has a note that
            names the limit.
        sock: a listening socket, or a list of them, in place of ``port`` and ``address``: a ``Socket`` of this flavour
            or a ``socket.socket``, opened by systemd or for several processes. The server takes them over. At the end
            it closes its descriptors, and does nothing to the sockets, which other processes may use, nor to a Unix
            path. The sockets become non-blocking, for these processes too.
        options: tuples of level, option and value, set on the listening sockets before they are bound.
        mode: the permissions of the file of a Unix socket, for example ``0o600``. The file has no more than these at
            any moment.
        keep_alive: when silent TCP clients are asked whether they are still there; None changes nothing. It is set on
            the listening sockets, and Linux copies it to the accepted ones.
        on_full: ``"wait"`` leaves clients in the queue of the operating system while ``max_connections`` or
            ``max_handshakes`` is reached; ``"refuse"`` resets their connections at once.
        max_per_address: the most connections of one client address at the same time; further ones are reset. IPv6
            addresses count by network (/64). Unix clients are exempt.
        max_handshakes: the most clients that are in their TLS handshake at the same time.
        first_byte_timeout: seconds from the start of the handler to the first byte of the client.
        idle_timeout: seconds in which the handler waits for the client, and no byte moves in either direction. The
            connection is closed then, or up to a quarter of that time later. A client that reads slowly may
            acknowledge nothing for seconds: give it several.
        lifetime: seconds from the accept to the end of a connection, idle or busy.
        min_rate: the fewest bytes a second, as an average over 5 s, while a line, a frame or a read of a given size has
            begun and is not complete. A client that waits between two messages, or for the handler, is not slow.
        default_flags: the default of every ``flags`` parameter of the clients' sockets, see ``Socket``.

    Returns:
        The running server.

    Raises:
        socket.gaierror: the name does not resolve.
        OSError: the address is in use, does not belong to this host, is not permitted, ...
        TypeError, ValueError: an argument has the wrong type, or is out of range.
    """
    check_callback("handler", "a socket and an address", handler)
    if on_error is not None:
        check_callback("on_error", "an exception and a socket", on_error)
    limits = ServerLimits.check(
        max_connections,
        max_per_address,
        max_handshakes,
        on_full,
        first_byte_timeout,
        idle_timeout,
        lifetime,
        min_rate,
    )
    listen = ListenConfig.check(
        AsyncSocket,
        port,
        address,
        sock,
        options,
        mode,
        keep_alive,
        backlog,
        reuse_port,
        buffered,
        default_flags,
    )
    handshake_config = HandshakeConfig.from_arguments(tls, handshake_timeout)

    async def start(tasks: Tasks) -> Server:
        found = None
        if listen.needs_lookup:
            lookup = resolve(listen.host, listen.port, 0, SOCK_STREAM, IPPROTO_TCP)
            found = await wait_for_lookup(lookup, "serve", None, Notifier(running_port()))
        listeners = listen.open(AsyncSocket, found or [])
        return Server(listeners, handler, limits, handshake_config, on_error, tasks)

    return StartingServer(start)


class StartingServer:
    """What ``serve`` returns: ``server = await serve(...)``, or ``async with serve(...) as server:``."""

    def __init__(self, start: Callable[[Tasks], Awaitable[Server]]) -> None:
        self._start = start
        self._server: Server | None = None

    def __await__(self) -> Generator[object, None, Server]:
        return self._start(running_tasks()).__await__()

    async def __aenter__(self) -> Server:
        self._block = running_port().open_tasks()
        tasks = await self._block.__aenter__()
        try:
            self._server = await self._start(tasks)
        except BaseException as error:
            await self._block.__aexit__(type(error), error, None)
            raise
        return self._server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        try:
            await self._server.stop()
        except BaseException as failure:
            await self._block.__aexit__(type(failure), failure, None)
            raise
        await self._block.__aexit__(None, None, None)


class StopEvent:
    """Whether a server stops: the event ``Server.stopping``."""

    def __init__(self) -> None:
        self._is_set = False
        self._notifier = Notifier(running_port())

    def is_set(self) -> bool:
        """Return whether the server has begun to stop."""
        return self._is_set

    async def wait(self, timeout: Timeout = None) -> bool:
        """Wait until the server begins to stop.

        A timeout or a cancellation leaves the server as it is.

        Args:
            timeout: seconds; None means no limit.

        Returns:
            True if the server has begun to stop, False if the timeout expired first.

        Raises:
            TypeError, ValueError: ``timeout`` is not a number, or is negative.
        """
        seconds = check_timeout(timeout)
        port = self._notifier.port
        if port.raise_if_cancelled is not None:
            await port.raise_if_cancelled()
        now = port.time
        until = None if seconds is None else now() + seconds
        while not self._is_set and (until is None or now() < until):
            await self._notifier.wait(until)
        return self._is_set

    def _announce(self) -> None:
        """Be set; from any thread. ``_set`` follows on the loop, and wakes the tasks."""
        self._is_set = True

    def _set(self) -> None:
        self._is_set = True
        self._notifier.notify()


class Server:
    """A running server, made by ``serve``.

    Theory of operation. Everything but ``request_stop`` happens on the loop. A call of ``stop`` does all that is to be
    done, so that it may be cancelled and another goes on; the report of the first one that is through is the report of
    all. ``request_stop`` may interrupt the loop at any bytecode, as a signal handler does, or run in another thread: it
    notes the request, by one operation on a dict, and the task that accepted does the rest.
    """

    def __init__(
        self,
        listeners: list[AsyncSocket],
        handler: Handler,
        limits: ServerLimits,
        handshake_config: HandshakeConfig | None,
        on_error: ErrorHandler | None,
        tasks: Tasks,
    ) -> None:
        self._listeners = listeners
        self._handler = handler
        self._handshake_config = handshake_config
        self._on_error = on_error
        self._owner = process.epoch
        self._disowned = False
        self._active: dict[Task, AsyncSocket] = {}
        self._connections: dict[Task, Connection] = {}  # if there are limits
        self._totals = ServerTotals(contextlib.nullcontext())
        # One of each for all connections: a lambda and a context of its own would be 280 bytes for each of them.
        self._when_done = self._finish
        self._context = contextvars.copy_context()
        self._port = running_port()
        self._tasks = tasks
        self._changed = Notifier(self._port)
        self._stopping = StopEvent()
        self._stops = StopRequests()
        self._forcing = False
        self._report: StopReport | None = None
        try:
            self._local_addrs = tuple(listener.local_addr for listener in listeners)
            self._events = EventLog(self._local_addrs[0])
            self._limiter = self._make_limiter(limits) if limits.any else None
            self._timer: Timer | None = None
            self._accepting = len(listeners)
            # The first carries out what `request_stop` requests.
            self._acceptors: list[Task] = []
            for listener, where in zip(listeners, self._local_addrs, strict=True):
                accepting = self._accept(listener, where)
                self._acceptors.append(self._tasks.spawn(accepting, f"wireline-serve-{where.port}"))
        except BaseException:
            self._stopping._set()
            close_all(listeners)
            raise

    def _make_limiter(self, limits: ServerLimits) -> ConnectionLimiter:
        return ConnectionLimiter(
            limits,
            self._events,
            handshakes=self._handshake_config is not None,
            log_exceeded=self._on_error is None,
            on_release=self._released,
            lock=contextlib.nullcontext(),
        )

    @property
    def local_addr(self) -> Address:
        """The address that the server listens on, also after ``stop``; of a Unix socket the path, and port 0."""
        return self._local_addrs[0]

    @property
    def local_addrs(self) -> tuple[Address, ...]:
        """Every address that the server listens on, also after ``stop``; ``local_addr`` is the first of them."""
        return self._local_addrs

    @property
    def sockets(self) -> tuple[AsyncSocket, ...]:
        """The listening sockets, which ``stop`` closes."""
        return tuple(self._listeners)

    @property
    def connections(self) -> int:
        """The number of connections that are being served."""
        return len(self._active)

    @property
    def clients(self) -> tuple[AsyncSocket, ...]:
        """The sockets of the connections that are open, in the order of their accept."""
        return tuple(client for client in self._active.copy().values() if not client.is_closed)

    @property
    def stats(self) -> ServerStats:
        """The counts of connections and bytes since the server was started, also after ``stop``."""
        return self._totals.stats(self._active)

    @property
    def stopping(self) -> StopEvent:
        """An event that is set when the server begins to stop, before it closes the listening sockets.

        For a handler that waits for something other than its client, or that keeps a connection open for the next
        request: it can end by itself during the drain.
        """
        return self._stopping

    async def wait(self, timeout: Timeout = None) -> None:
        """Wait until the server has been stopped.

        A timeout or a cancellation leaves the server as it is.

        Args:
            timeout: seconds; None means no limit.

        Raises:
            SocketTimeout: the timeout expired before the server was stopped.
            RuntimeError: this is a forked child, which has not released its copy of its parent's server with ``stop``.
            TypeError, ValueError: ``timeout`` is not a number, or is negative.
        """
        timeout = check_timeout(timeout)
        if self._owner is not process.epoch:
            check_wait_after_fork(stopped=self._disowned)
            return
        if self._port.raise_if_cancelled is not None:
            await self._port.raise_if_cancelled()
        await self._until(lambda: self._report is not None, self._moment(timeout))
        if self._report is None and timeout is not None:
            raise SocketTimeout("wait", timeout)

    async def stop(self, drain: Timeout = 0.0) -> StopReport:
        """Stop accepting, let the handlers finish, and close the connections that are left.

        The socket of a connection that is closed here raises ``ClosedError`` in its handler. A second call during the
        first one ends the drain of both, with any ``drain`` of its own: the connections are closed at once. A call by a
        signal handler that has interrupted the first call does the same, leaves the rest to the first call, and returns
        ``StopReport(0, 0)`` at once. Stopping a stopped server has no effect. A handler may stop its own server, and is
        then not waited for. Its call does not end the drain of another call, and returns ``StopReport(0, 0)`` at once
        if another call is under way. A cancellation or an exception during the wait leaves the listener closed and the
        handlers running; another ``stop`` continues.

        A server belongs to the process that made it. In a forked child this call does not wait and does nothing to the
        parent's server: it closes the child's copies of the descriptors, except those of connections that the child has
        used itself, and returns ``StopReport(0, 0)``.

        Args:
            drain: seconds in which the handlers may finish by themselves; None means no limit.

        Returns:
            A ``StopReport``: how many handlers finished in time, and how many connections were closed.

        Raises:
            TypeError, ValueError: ``drain`` is not a number, or is negative.
        """
        seconds = check_timeout(drain)
        if self._owner is not process.epoch:
            return self._disown()
        if self._report is not None:
            return self._report
        mine = StopRequest(self._moment(seconds), self._active)
        me = self._tasks.current()
        try:
            if not self._stops.enter(mine, me if me in self._active else None):
                return StopReport(0, 0)
            self._begin_to_stop()
            report = await self._end(mine)
        finally:
            self._stops.leave(mine, me)
        await self._until(self._have_ended, self._moment(_UNWIND))  # the loop may be closed next
        return report

    def request_stop(self, drain: Timeout = 0.0) -> None:
        """Request a stop in the background, without waiting for it; see ``wait``.

        This is a plain call in both flavours. It may be made at any moment, in any thread and in a signal handler. The
        server then stops as with ``stop(drain)``. A second request ends the drain of the first, with any ``drain`` of
        its own: a signal handler that makes this call alone stops a server gracefully at the first signal and at once
        at the second. In a forked child the call does the same as ``stop``.

        Args:
            drain: seconds in which the handlers may finish by themselves; None means no limit.

        Raises:
            TypeError, ValueError: ``drain`` is not a number, or is negative.
        """
        seconds = check_timeout(drain)
        if self._owner is not process.epoch:
            self._disown()
        elif self._report is None:
            mine = StopRequest(self._moment(seconds), self._active)
            self._stops.request(mine)
            self._stopping._announce()
            with contextlib.suppress(RuntimeError):  # the loop was closed, and ended everything
                self._port.call_threadsafe(self._requested)

    def _have_ended(self) -> bool:
        return all(acceptor.done() for acceptor in self._acceptors)

    def _requested(self) -> None:
        self._begin_to_stop()
        first = self._acceptors[0]
        if first.done() and self._report is None:  # it has ended with a `stop` that was given up
            with contextlib.suppress(RuntimeError):  # on trio the block may be over, and has ended everything
                self._acceptors[0] = self._tasks.spawn(self._carry_out(), first.get_name())

    def _begin_to_stop(self) -> None:
        self._stopping._set()
        close_all(self._listeners)
        self._changed.notify()

    async def _end(self, request: StopRequest) -> StopReport:
        await self._until(lambda: not self._accepting, self._moment(_UNWIND))
        request.handlers.update(self._active)  # one may have been accepted at the last moment
        await self._until(lambda: request.drain_cancelled or self._is_over(), request.until)
        # One at a time closes connections; if that one is cancelled, another goes on in its place.
        await self._until(lambda: self._report is not None or not self._forcing, None)
        if self._report is not None:
            return self._report
        self._forcing = True
        try:
            if not self._is_over():
                await self._force()
            self._report = self._stops.report()
        finally:
            self._forcing = False
            self._changed.notify()
        self._cancel_look()
        self._events.flush()
        return self._report

    async def _force(self) -> None:
        """Close what is left, and give the handlers time to notice."""
        left = {task: client for task, client in self._active.items() if task not in self._stops.exempt}
        self._stops.forced |= left.keys()
        # A handler in a call of its socket gets a `ClosedError`, and time to unwind. One that waits for something else
        # would not notice.
        elsewhere = {task for task, client in left.items() if client.is_closed or not client._io.is_used()}
        for client in left.values():
            self._close(client)
        await self._port.sleep(0)
        await self._port.sleep(0)
        for tasks in (elsewhere, left.keys() - elsewhere):
            for task in tasks:
                task.cancel()
            await self._until(self._is_over, self._moment(_UNWIND))

    def _is_over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return len(self._active) <= len(self._stops.exempt) or self._report is not None

    def _close(self, client: AsyncSocket) -> None:
        """Close a connection under its handler. If that fails, the others are closed all the same."""
        try:
            client.close()
        except OSError as error:  # of this connection; an exception of a signal handler is the caller's
            self._events.log_failure("a connection could not be closed", error)

    def _disown(self) -> StopReport:
        """Let go of the descriptors, in a forked child. The server and its tasks are the parent's."""
        self._disowned = True
        close_all(self._listeners)
        for client in list(self._active.values()):
            if client._fd.is_foreign:  # else the child has gone on with it
                client.close()
        self._active.clear()
        return StopReport(0, 0)

    def _moment(self, seconds: float | None) -> float | None:
        """What the loop's clock shows in so many seconds; None for never."""
        return None if seconds is None else self._port.time() + seconds

    async def _until(self, condition: Callable[[], bool], until: float | None) -> None:
        """Wait until ``condition`` is true, or the loop's clock shows ``until``."""
        while not condition() and (until is None or self._port.time() < until):
            await self._changed.wait(until)

    # The tasks that accept, one for each listening socket.

    async def _accept(self, listener: AsyncSocket, where: Address) -> None:
        try:
            await self._accept_loop(listener, where)
        finally:
            self._accepting -= 1
            self._begin_to_stop()
        # Without `add_reader` an operation of the loop has the listener in its hands for some turns yet.
        for _ in range(_TURNS_OF_AN_OPERATION):
            if listener._fd.busy:
                await self._port.sleep(0)
        if listener is self._listeners[0]:
            await self._carry_out()
        else:
            self._changed.notify()

    async def _carry_out(self) -> None:
        """Do what ``request_stop`` asked for; a call of ``stop`` does everything by itself."""
        request = self._stops.requested
        if self._report is None and request is not None:
            await self._end(request)
        self._changed.notify()

    async def _accept_loop(self, listener: AsyncSocket, where: Address) -> None:
        backoff = AcceptBackoff()
        in_a_row = 0
        while True:
            await self._until(self._may_go_on, None)
            if self._stopping.is_set():
                return
            try:
                client, address = await listener.accept_addr()
                await self._admit(client, address)
            except ClosedError:
                return
            except Exception as error:  # noqa: BLE001 -- nothing but a stop may end this loop
                # No descriptor, no memory to be had (S5).
                delay, count = backoff.failed(self._port.time())
                if count:
                    log.error("%s", accept_failure(where, error, count))
                await self._until(self._stopping.is_set, self._moment(delay))
                continue
            backoff.succeeded()
            in_a_row += 1
            if in_a_row % _ACCEPTS_IN_A_ROW == 0:
                await self._port.sleep(0)

    def _may_go_on(self) -> bool:
        return self._stopping.is_set() or self._limiter is None or not self._limiter.must_wait()

    async def _admit(self, client: AsyncSocket, address: Address) -> None:
        if self._limiter is None:
            self._start(client, address, None)
            return
        connection = self._limiter.new(client, address, self._port.time())
        try:
            while (admission := self._limiter.admit(connection)) is not Admission.GRANTED:
                # The task of another listening socket may have taken the last place since this one looked.
                if admission is not Admission.FULL or self._limiter.limits.refuse or self._stopping.is_set():
                    self._totals.count_refused()
                    self._limiter.refuse(connection, address, admission, self._port.time())
                    return
                await self._until(self._may_go_on, None)
        except BaseException:
            client.close()
            raise
        self._start(client, address, connection)

    def _start(self, client: AsyncSocket, address: Address, connection: Connection | None) -> None:
        self._totals.count_accepted()
        serving = self._run(client, address, connection)
        try:
            task = self._tasks.spawn(serving, f"wireline-client-{address.port}")
        except BaseException:  # of the program's own task factory, say
            serving.close()
            client.close()
            self._let_go(connection)
            raise
        if not task.done():  # as an eager one may be
            # A task that is cancelled before its first step never runs, and so cannot clean up.
            self._active[task] = client
            if connection is not None:
                self._connections[task] = connection
            task.add_done_callback(self._when_done, context=self._context)

    # Limits. A timer looks at the connections.

    def _released(self) -> None:
        """A place may be free: in any thread, because a connection may have lingered."""
        if self._port.is_here():
            self._changed.notify()
        else:
            self._changed.notify_threadsafe()

    def _plan_look(self) -> None:
        self._cancel_look()
        at = None if self._limiter is None else self._limiter.next_look()
        if at is not None and self._report is None:
            self._timer = self._port.call_at(at, self._look)

    def _cancel_look(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        self._timer = None
        assert self._limiter is not None
        try:
            self._limiter.enforce(self._port.time())
        finally:
            self._plan_look()

    def _let_go(self, connection: Connection | None) -> None:
        if connection is not None and self._limiter is not None:
            self._limiter.end(connection)

    # The task of one connection.

    async def _run(self, client: AsyncSocket, address: Address, connection: Connection | None) -> None:
        me = self._tasks.current()
        self._active[me] = client  # here: an eager task runs before `spawn` returns
        if connection is not None:
            self._connections[me] = connection
        accepted = self._port.time()
        in_handshake = self._handshake_config is not None
        try:
            if self._handshake_config is not None:
                secure = self._handshake_config.tls._server_core(shared=False)
                await client._upgrade(secure, self._handshake_config.timeout, "handshake")
                in_handshake = False
            if connection is not None:
                self._begin(connection)
            await self._handler(client, address)
        except Exception as error:  # noqa: BLE001 -- the handler's, whatever it is; it ends one connection
            if in_handshake and not self._stopping.is_set():
                self._totals.count_failed_handshake()
            # `stop` closed the connection under the handler. Any other time it is the handler's own mistake.
            if not (blame(error, client) is Blame.CLOSED and self._is_ours(error, connection)):
                await self._report_error(error, client, address, accepted, in_handshake)
        finally:
            self._finish(me)

    def _begin(self, connection: Connection) -> None:
        assert self._limiter is not None
        if self._limiter.start(connection, self._port.time()):
            self._plan_look()

    def _is_ours(self, error: Exception, connection: Connection | None) -> bool:
        """Whether the server itself has closed a connection, and has reported it or need not."""
        reason = None if self._limiter is None or connection is None else self._limiter.reason(connection)
        if reason is None:
            return self._stopping.is_set()
        error.add_note(reason)
        return self._on_error is None

    async def _report_error(
        self, error: Exception, client: AsyncSocket, address: Address, accepted: float, in_handshake: bool
    ) -> None:
        if self._on_error is None:
            seconds = self._port.time() - accepted
            self._events.log_end(error, client, address, seconds, in_handshake=in_handshake)
            return
        try:
            result = self._on_error(error, client)
            if inspect.isawaitable(result):
                await result
        except Exception as another:  # noqa: BLE001 -- it is logged, and never more
            self._events.log_failure("on_error failed", another)

    def _finish(self, task: Task) -> None:
        client = self._active.get(task)
        if client is None:
            return
        self._totals.close(self._active, task, client)
        client.close()
        self._let_go(self._connections.pop(task, None))
        # Not for each: a drain of thousands would look thousands of times.
        if self._stopping.is_set() and self._is_over():
            self._changed.notify()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
