"""``serve``: one thread accepts, and each connection has a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVarTuple

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
from wireline.errors import ClosedError, SocketTimeout
from wireline.net._socket import Socket
from wireline.options import IPPROTO_TCP, SAFE_DISCONN, SOCK_STREAM, SOMAXCONN, SocketFlag
from wireline.timing import Timeout

if TYPE_CHECKING:
    from wireline._server_stats import ServerStats
    from wireline.tls import SslContext

__all__ = ["Handler", "Server", "StopEvent", "serve"]

Handler = Callable[[Socket, Address], object]
Ts = TypeVarTuple("Ts")

ErrorHandler = Callable[[Exception, Socket], object]

# Seconds that `stop` waits for handlers to return after it has closed their connections. A guess: no call on the
# connection blocks them any more. The accept thread has the same limit: a signal handler that calls `stop` may have
# interrupted code that holds a lock which that thread needs, for example that of `logging`.
_UNWIND = 1.0

# The longest wait of the main thread, in seconds. Python runs signal handlers in the main thread, but the kernel may
# deliver a signal to another thread (it does for two signals in quick succession), which does not end the wait. A
# guess: a short delay for a human, and two wake-ups a second cost nothing.
_LOOK = 0.5


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
    sock: Socket | socket.socket | Sequence[Socket | socket.socket] | None = None,
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
) -> Server:
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
        Socket,
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
    found = (
        resolve(listen.host, listen.port, 0, SOCK_STREAM, IPPROTO_TCP).result() if listen.needs_lookup else []
    )
    return Server(listen.open(Socket, found), handler, limits, handshake_config, on_error)


class _Sleepers:
    """Threads that wait until a condition is true. Waking them takes no lock, so that a signal handler may do it.

    A ``threading.Condition`` does not fit: the code that a signal has interrupted may hold its lock. Here each waiting
    thread has a lock of its own, which it acquires twice; releasing this lock wakes the thread.
    """

    def __init__(self) -> None:
        self._locks: dict[threading.Lock, None] = {}

    def wake(self) -> None:
        """Make every thread check its condition again. Call this after the change."""
        for lock in list(self._locks):  # an atomic copy
            with contextlib.suppress(RuntimeError):  # another thread has released it: the thread is awake
                lock.release()

    def wait(self, condition: Callable[[], object], until: float | None) -> bool:
        """Wait until ``condition`` is true or the time ``until`` is reached; return whether it is true."""
        if condition():
            return True
        lock = threading.Lock()
        lock.acquire()
        try:
            self._locks[lock] = None
            most = _LOOK if threading.current_thread() is threading.main_thread() else threading.TIMEOUT_MAX
            while not condition():
                seconds = most if until is None else min(most, until - time.monotonic())
                if seconds <= 0:
                    return False
                lock.acquire(timeout=seconds)
            return True
        finally:
            self._locks.pop(lock, None)


class StopEvent:
    """The event ``Server.stopping``: it is set when the server begins to stop."""

    def __init__(self) -> None:
        self._is_set = False
        self._sleepers = _Sleepers()

    def is_set(self) -> bool:
        """Return whether the server has begun to stop."""
        return self._is_set

    def wait(self, timeout: Timeout = None) -> bool:
        """Wait until the server begins to stop.

        A timeout or a cancellation leaves the server as it is.

        Args:
            timeout: seconds; None means no limit.

        Returns:
            True if the server has begun to stop, False if the timeout expired first.

        Raises:
            TypeError, ValueError: ``timeout`` is not a number, or is negative.
        """
        return self._sleepers.wait(self.is_set, _moment(check_timeout(timeout)))

    def _set(self) -> None:
        self._is_set = True
        self._sleepers.wake()


class Server:
    """A running server, made by ``serve``.

    Theory of operation. ``stop`` may be called in any thread, at any moment, also by a signal handler that has
    interrupted another call of ``stop``. So there is no lock here: every decision is one operation on a dict, which is
    atomic. And a call of ``stop`` waits for handlers only, never for another call: each call does the whole work, and
    the report of the first one to finish is the report of all. A call that has interrupted another one in the same
    thread leaves the work to that one. The first accept thread does the work of ``request_stop``.
    """

    def __init__(
        self,
        listeners: list[Socket],
        handler: Handler,
        limits: ServerLimits,
        handshake_config: HandshakeConfig | None,
        on_error: ErrorHandler | None,
    ) -> None:
        self._listeners = listeners
        self._handler = handler
        self._handshake_config = handshake_config
        self._on_error = on_error
        self._owner = process.epoch
        self._disowned = False
        self._active: dict[threading.Thread, Socket] = {}
        self._totals = ServerTotals(threading.Lock())
        self._room = _Sleepers()  # the accept threads, while they wait for anything but a client
        self._changed = _Sleepers()
        self._stopping = StopEvent()
        self._stops = StopRequests()
        self._forcing = False
        self._reports: list[StopReport] = []  # the first one counts
        try:
            self._local_addrs = tuple(listener.local_addr for listener in listeners)
            self._events = EventLog(self._local_addrs[0])
            self._limiter = self._make_limiter(limits) if limits.any else None
            # The first carries out what `request_stop` requests.
            self._acceptors = [
                _daemon(f"wireline-serve-{where.port}", self._accept, listener, where)
                for listener, where in zip(listeners, self._local_addrs, strict=True)
            ]
            self._accepting = dict.fromkeys(self._acceptors)  # those that have not ended
            self._threads = list(self._acceptors)
            if self._limiter is not None and self._limiter.looks:
                name = f"wireline-limits-{self._local_addrs[0].port}"
                self._threads.append(_daemon(name, self._enforce, self._limiter))
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._stopping._set()
            self._reports.append(StopReport(0, 0))  # so that the threads that did start end
            self._changed.wake()
            close_all(listeners)
            raise

    def _make_limiter(self, limits: ServerLimits) -> ConnectionLimiter:
        return ConnectionLimiter(
            limits,
            self._events,
            handshakes=self._handshake_config is not None,
            log_exceeded=self._on_error is None,
            on_release=self._room.wake,
            lock=threading.Lock(),
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
    def sockets(self) -> tuple[Socket, ...]:
        """The listening sockets, which ``stop`` closes."""
        return tuple(self._listeners)

    @property
    def connections(self) -> int:
        """The number of connections that are being served."""
        return len(self._active)

    @property
    def clients(self) -> tuple[Socket, ...]:
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

    def wait(self, timeout: Timeout = None) -> None:
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
        if not self._changed.wait(lambda: self._reports, _moment(timeout)):
            assert timeout is not None
            raise SocketTimeout("wait", timeout)

    def stop(self, drain: Timeout = 0.0) -> StopReport:
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
        me = threading.current_thread()
        mine = StopRequest(_moment(check_timeout(drain)), self._active, me)
        if self._owner is not process.epoch:
            return self._disown()
        if self._reports:
            return self._reports[0]
        if self._stops.is_in_stop(me):
            # A signal handler: the interrupted call continues only after this one has returned.
            self._stops.cancel_drains()
            self._changed.wake()
            return StopReport(0, 0)
        try:
            if not self._stops.enter(mine, me if me in self._active else None):
                return StopReport(0, 0)
            self._begin_to_stop()
            report = self._end(mine)
        finally:
            self._stops.leave(mine, me)
        for thread in self._threads:
            thread.join(_UNWIND)
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
        mine = StopRequest(_moment(check_timeout(drain)), self._active)
        if self._owner is not process.epoch:
            self._disown()
        elif not self._reports:
            self._stops.request(mine)
            self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        self._stopping._set()
        try:
            close_all(self._listeners)  # wakes the accept threads
        finally:
            self._room.wake()
            self._changed.wake()

    def _end(self, request: StopRequest) -> StopReport:
        self._changed.wait(lambda: not self._accepting, time.monotonic() + _UNWIND)
        request.handlers.update(self._active)  # also the client accepted last
        self._changed.wait(lambda: request.drain_cancelled or self._is_over(), request.until)
        self._forcing = True
        if not self._is_over():
            for thread, client in self._active.copy().items():
                if thread not in self._stops.exempt:
                    self._stops.forced.add(thread)
                    self._close(client)
            self._changed.wait(self._is_over, time.monotonic() + _UNWIND)
        self._reports.append(self._stops.report())
        self._changed.wake()
        self._events.flush()
        return self._reports[0]

    def _is_over(self) -> bool:
        """Whether `stop` has no handler left to wait for."""
        return len(self._active) <= len(self._stops.exempt) or bool(self._reports)

    def _close(self, client: Socket) -> None:
        """Close a connection while its handler runs. An error must not keep the other connections open."""
        try:
            client.close()
        except OSError as error:  # of this connection; an exception of a signal handler reaches the caller
            self._events.log_failure("a connection could not be closed", error)

    def _disown(self) -> StopReport:
        """Close the descriptors, in a forked child. The server and its threads belong to the parent."""
        self._disowned = True
        close_all(self._listeners)
        for client in self._active.copy().values():
            if client._fd.is_foreign:  # otherwise the child has used it, and owns it
                client.close()
        self._active.clear()
        return StopReport(0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # The accept threads, one for each listening socket.

    def _accept(self, listener: Socket, where: Address) -> None:
        me = threading.current_thread()
        try:
            self._accept_loop(listener, where)
        finally:
            self._accepting.pop(me, None)
            self._begin_to_stop()
        if me is not self._acceptors[0]:
            return
        # A call of `stop` does the whole work, but it may be cancelled, and a request may follow.
        self._changed.wait(lambda: self._reports or self._stops.requested, None)
        request = self._stops.requested
        if request is not None and not self._reports:
            self._end(request)

    def _accept_loop(self, listener: Socket, where: Address) -> None:
        backoff = AcceptBackoff()
        while True:
            if self._limiter is not None:
                self._room.wait(self._may_go_on, None)
            if self._stopping.is_set():
                return
            try:
                client, address = listener.accept_addr()
                self._admit(client, address)
            except ClosedError:
                return
            except Exception as error:  # noqa: BLE001 -- only a stop may end this loop
                # Out of descriptors, memory or threads (S5).
                delay, count = backoff.failed(time.monotonic())
                if count:
                    log.error("%s", accept_failure(where, error, count))
                self._room.wait(self._stopping.is_set, time.monotonic() + delay)
            else:
                backoff.succeeded()

    def _may_go_on(self) -> bool:
        return self._stopping.is_set() or self._limiter is None or not self._limiter.must_wait()

    def _admit(self, client: Socket, address: Address) -> None:
        if self._limiter is None:
            self._start(client, address, None)
            return
        connection = self._limiter.new(client, address, time.monotonic())
        while (admission := self._limiter.admit(connection)) is not Admission.GRANTED:
            # The accept thread of another listening socket may have taken the last place since this one looked.
            if admission is not Admission.FULL or self._limiter.limits.refuse or self._stopping.is_set():
                self._totals.count_refused()
                self._limiter.refuse(connection, address, admission, time.monotonic())
                return
            self._room.wait(self._may_go_on, None)
        self._start(client, address, connection)

    def _start(self, client: Socket, address: Address, connection: Connection | None) -> None:
        thread = _daemon(f"wireline-client-{address.port}", self._run, client, address, connection)
        self._active[thread] = client
        self._totals.count_accepted()
        if self._forcing:  # too late: a stop is closing the connections
            self._finish(thread, client, connection)
            return
        try:
            thread.start()
        except BaseException:
            self._finish(thread, client, connection)
            raise

    # The thread that looks at the connections, if there are time limits.

    def _enforce(self, limiter: ConnectionLimiter) -> None:
        while not self._reports:
            limiter.enforce(time.monotonic())
            planned = limiter.next_look()

            def must_look(planned: float | None = planned) -> bool:
                earliest = limiter.next_look()
                sooner = earliest is not None and (planned is None or earliest < planned)
                return sooner or bool(self._reports)

            self._changed.wait(must_look, planned)

    # The thread of one connection.

    def _run(self, client: Socket, address: Address, connection: Connection | None) -> None:
        accepted = time.monotonic()
        in_handshake = self._handshake_config is not None
        try:
            if self._handshake_config is not None:
                secure = self._handshake_config.tls._server_core(shared=True)
                client._upgrade(secure, self._handshake_config.timeout, "handshake")
                in_handshake = False
            if connection is not None:
                self._begin(connection)
            self._handler(client, address)
        except Exception as error:  # noqa: BLE001 -- any exception of the handler ends one connection
            if in_handshake and not self._stopping.is_set():
                self._totals.count_failed_handshake()
            # `stop` has closed the connection. At any other time the error is the handler's own.
            if not (blame(error, client) is Blame.CLOSED and self._is_ours(error, connection)):
                self._report_error(error, client, address, accepted, in_handshake)
        finally:
            self._finish(threading.current_thread(), client, connection)

    def _begin(self, connection: Connection) -> None:
        assert self._limiter is not None
        if self._limiter.start(connection, time.monotonic()):
            self._changed.wake()

    def _is_ours(self, error: Exception, connection: Connection | None) -> bool:
        """Whether the server itself has closed a connection, and has reported it or need not."""
        reason = None if self._limiter is None or connection is None else self._limiter.reason(connection)
        if reason is None:
            return self._stopping.is_set()
        error.add_note(reason)
        return self._on_error is None

    def _report_error(
        self, error: Exception, client: Socket, address: Address, accepted: float, in_handshake: bool
    ) -> None:
        if self._on_error is None:
            seconds = time.monotonic() - accepted
            self._events.log_end(error, client, address, seconds, in_handshake=in_handshake)
            return
        try:
            self._on_error(error, client)
        except Exception as another:  # noqa: BLE001 -- it is only logged
            self._events.log_failure("on_error failed", another)

    def _finish(self, thread: threading.Thread, client: Socket, connection: Connection | None) -> None:
        try:
            client.close()
        finally:
            if connection is not None and self._limiter is not None:
                self._limiter.end(connection)
            self._totals.close(self._active, thread, client)
            # Only the last one wakes them: a drain of thousands would check thousands of times.
            if self._stopping.is_set() and self._is_over():
                self._changed.wake()


def _daemon(name: str, target: Callable[[*Ts], None], *args: *Ts) -> threading.Thread:
    return threading.Thread(target=target, args=args, name=name, daemon=True)


def _moment(seconds: float | None) -> float | None:
    """Return the time ``seconds`` from now; None for no limit."""
    return None if seconds is None else time.monotonic() + seconds
