"""``serve``: a thread accepts, and every connection gets a thread of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from wireline._core.backoff import Backoff
from wireline._core.deadline import check_timeout
from wireline._event_log import Blame, EventLog, blame, log
from wireline._os.process import process
from wireline._os.resolver import resolve
from wireline._server_common import (
    HandshakeConfig,
    ListenAddress,
    StopReport,
    StopRequest,
    StopRequests,
    check_callback,
    check_limit,
    check_wait_after_fork,
    open_listener,
)
from wireline._validation import require_int
from wireline.address import Address, IpAddress
from wireline.errors import ClosedError, SocketTimeout
from wireline.net._poll import start_deadline
from wireline.net._socket import Socket
from wireline.options import IPPROTO_TCP, SOCK_STREAM, SOMAXCONN

if TYPE_CHECKING:
    from wireline.tls import SslContext

__all__ = ["Handler", "Server", "serve"]

Handler = Callable[[Socket, Address], object]
ErrorHandler = Callable[[Exception, Socket], object]

# Seconds that handlers get to unwind once their connection was closed under them. A guess: they have nothing left to
# wait for, and one that does not end is not waited for any longer. The thread that accepts gets as much: a signal
# handler that calls `stop` may have interrupted code that holds a lock which that thread needs, say that of `logging`.
_UNWIND = 1.0

# Seconds that the main thread waits at a time. Python's signal handlers run in it, but the kernel may give a signal to
# another thread (it does when one signal comes right after the other), and then nothing ends the wait. A guess: short
# beside a human, and two wake-ups a second cost nothing.
_LOOK = 0.5


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
    on_error: ErrorHandler | None = None,
) -> Server:
    """Listen, and call ``handler(client, address)`` for every connection, each on its own.

    It binds and listens before it returns, and then accepts in the background. A client's socket is closed when its
    handler returns or raises; an exception ends its connection and no other. When the process is out of descriptors,
    its connections stay, and others are accepted again as soon as that is possible. An error or a
    cancellation before it returns leaves nothing behind.

    An exception is logged (logger ``wireline``). One that the client's socket raised for a reason that lies with the
    peer (a timeout, a reset, an end without ``close_notify``, a failed handshake) is one line at INFO, and its record
    has the attributes ``peer``, ``local`` and ``error`` (``str``), ``seconds`` since the client was accepted, and
    ``bytes_in`` and ``bytes_out`` as the network counts them (None where the system does not say). Any other exception
    is the program's own and logged at ERROR with its traceback; one of another socket, too. After ten lines of one kind
    in one second the others are counted in one line.

    Args:
        handler: what serves one connection.
        port: 0 lets the operating system choose; see the server's ``local_addr``.
        address: a name or an address; ``""`` is every interface, IPv6 and IPv4; ``"unix:/path"`` is a Unix socket,
            and on Linux ``"unix:@name"`` one with an abstract name.
        tls: a ``wireline.tls.SslContext``: every client has to make a TLS handshake before the handler is called.
        max_connections: how many may be served at a time; who comes then waits to be accepted. None is no limit.
        handshake_timeout: seconds that a client has for its handshake, which delays no other client.
        backlog: how many may wait to be accepted; the operating system has a limit of its own.
        reuse_port: let several processes listen on one port (``SO_REUSEPORT``).
        buffered: what the clients' sockets are, see ``Socket``.
        on_error: called as ``on_error(error, client)``, instead of the log line, with each exception that ends a
            connection, the peer's doing or the program's; the client is closed afterwards. In the async flavour it may
            be a coroutine function, which is awaited. An exception in it is logged, and nothing else comes of it.

    Returns:
        The running server.

    Raises:
        socket.gaierror: the name does not resolve.
        OSError: the address is in use, not ours, not permitted, ...
        TypeError, ValueError: an argument is of the wrong type, or out of its range.
    """
    check_callback("handler", "a socket and an address", handler)
    if on_error is not None:
        check_callback("on_error", "an exception and a socket", on_error)
    where = ListenAddress.from_arguments(address, port)
    limit = check_limit(max_connections)
    require_int("backlog", backlog)
    handshake_config = HandshakeConfig.from_arguments(tls, handshake_timeout)
    found = (
        resolve(where.host, where.port, 0, SOCK_STREAM, IPPROTO_TCP).result() if where.needs_lookup else []
    )
    listener = open_listener(Socket, where, found, backlog=backlog, reuse_port=reuse_port, buffered=buffered)
    return Server(listener, handler, limit, handshake_config, on_error)


class _Sleepers:
    """Threads that wait until a condition holds. Waking them takes no lock, so that a signal handler may do it.

    A ``threading.Condition`` does not fit: its lock may be held by the very code that a signal has interrupted. Here
    each thread that waits has a lock of its own, which it acquires twice; to wake it is to release that.
    """

    def __init__(self) -> None:
        self._locks: dict[threading.Lock, None] = {}

    def wake(self) -> None:
        """Let all look at their condition. It was changed before."""
        for lock in list(self._locks):  # a copy, made in one step
            with contextlib.suppress(RuntimeError):  # released by another thread: it is awake
                lock.release()

    def wait(self, condition: Callable[[], object], until: float | None) -> bool:
        """Wait until ``condition`` is true, or the clock shows ``until``; whether it is true."""
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


class Server:
    """A running server, made by ``serve``.

    Theory of operation. A stop may be asked for in any thread, at any moment, by a signal handler too, and while
    another one is under way in the code that the signal has interrupted. So there is no lock here: every decision is
    one operation on a dict, which is atomic. And a call of ``stop`` waits for handlers only, never for another call:
    each does all that is to be done, and the report of the first one that is through is the report of all. A call
    that has interrupted another one in the same thread leaves the work to it. What ``request_stop`` asks for is done
    by the thread that accepted.
    """

    def __init__(
        self,
        listener: Socket,
        handler: Handler,
        max_connections: int | None,
        handshake_config: HandshakeConfig | None,
        on_error: ErrorHandler | None,
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._handshake_config = handshake_config
        self._on_error = on_error
        self._limit = max_connections
        self._owner = process.epoch
        self._disowned = False
        self._active: dict[threading.Thread, Socket] = {}
        self._room = _Sleepers()  # the thread that accepts, if it waits for something else than a client
        self._changed = _Sleepers()
        self._accepting = True
        self._stopping = False
        self._stops = StopRequests()
        self._forcing = False
        self._reports: list[StopReport] = []  # the first one counts
        try:
            self._local_addr = listener.local_addr
            self._events = EventLog(self._local_addr)
            self._acceptor = threading.Thread(
                target=self._accept, name=f"wireline-serve-{self._local_addr.port}", daemon=True
            )
            self._acceptor.start()
        except BaseException:
            listener.close()
            raise

    @property
    def local_addr(self) -> Address:
        """Where the server listens; it stays known after ``stop``. A Unix socket has its path and port 0."""
        return self._local_addr

    @property
    def connections(self) -> int:
        """How many connections are being served now."""
        return len(self._active)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the server has been stopped.

        A timeout or a cancellation leaves the server as it is.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            SocketTimeout: it was not stopped in time.
            RuntimeError: a forked child waits for its parent's server, and has not let go of its copy with ``stop``.
            TypeError, ValueError: ``timeout`` is no number, or negative.
        """
        timeout = check_timeout(timeout)
        if self._owner is not process.epoch:
            check_wait_after_fork(stopped=self._disowned)
            return
        if not self._changed.wait(lambda: self._reports, _moment(timeout)):
            assert timeout is not None
            raise SocketTimeout("wait", timeout)

    def stop(self, drain: float = 0.0) -> StopReport:
        """Accept nobody any more, let the handlers finish, and close what is left.

        A handler whose connection is closed under it gets a ``ClosedError`` from the socket. A second call while one
        is under way ends the drain of both, whatever its own is: the connections are closed at once. In a signal
        handler that has interrupted the first call it leaves the rest to that, and returns ``StopReport(0, 0)`` at
        once. Stopping what is stopped is fine. A handler may stop its own server and is not waited for; it does not
        end the drain of another stop, and if there is one, its own returns ``StopReport(0, 0)`` at once. A cancellation
        or an exception during the wait leaves the listener closed and the handlers running, and another ``stop`` goes
        on.

        A server belongs to the process that made it. In a forked child this call waits for nothing and does nothing
        to the parent's server: it closes the child's copies of the descriptors, those of connections that the child
        has not gone on with included, and returns ``StopReport(0, 0)``.

        Args:
            drain: seconds that the handlers have to finish by themselves; None waits for as long as they take.

        Returns:
            A ``StopReport``: how many handlers finished in time, and how many connections were closed.

        Raises:
            TypeError, ValueError: ``drain`` is no number, or negative.
        """
        me = threading.current_thread()
        mine = StopRequest(_moment(check_timeout(drain)), self._active, me)
        if self._owner is not process.epoch:
            return self._disown()
        if self._reports:
            return self._reports[0]
        if self._stops.is_in_stop(me):
            # A signal handler: the call that it has interrupted goes on when this one has returned, and not before.
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
        self._acceptor.join(_UNWIND)
        return report

    def request_stop(self, drain: float = 0.0) -> None:
        """Ask the server to stop, and do not wait for it; see ``wait``.

        It is a plain call in both flavours, and may be made in a signal handler at any moment, and in any thread. What
        it asks for is done in the background, as ``stop(drain)`` would do it. A second request ends the drain of the
        first, whatever its own is: so a signal handler that does nothing but this call stops a server gracefully at
        the first signal and at once at the second. In a forked child it does what ``stop`` does there.

        Args:
            drain: seconds that the handlers have to finish by themselves; None waits for as long as they take.

        Raises:
            TypeError, ValueError: ``drain`` is no number, or negative.
        """
        mine = StopRequest(_moment(check_timeout(drain)), self._active)
        if self._owner is not process.epoch:
            self._disown()
        elif not self._reports:
            self._stops.request(mine)
            self._begin_to_stop()

    def _begin_to_stop(self) -> None:
        self._stopping = True
        try:
            self._listener.close()  # it wakes the thread that accepts
        finally:
            self._room.wake()
            self._changed.wake()

    def _end(self, request: StopRequest) -> StopReport:
        self._changed.wait(lambda: not self._accepting, time.monotonic() + _UNWIND)
        request.handlers.update(self._active)  # one may have been accepted at the last moment
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
        """Whether there is nothing left to wait for."""
        return len(self._active) <= len(self._stops.exempt) or bool(self._reports)

    def _close(self, client: Socket) -> None:
        """Close a connection under its handler. Whatever comes of it, the others are to be closed as well."""
        try:
            client.close()
        except OSError as error:  # of this connection; an exception of a signal handler is the caller's
            self._events.log_failure("a connection could not be closed", error)

    def _disown(self) -> StopReport:
        """Let go of the descriptors, in a forked child. The server and its threads are the parent's."""
        self._disowned = True
        self._listener.close()
        for client in self._active.copy().values():
            if client._is_foreign:  # else the child has gone on with it
                client.close()
        self._active.clear()
        return StopReport(0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # The thread that accepts.

    def _accept(self) -> None:
        try:
            self._accept_loop()
        finally:
            self._accepting = False
            self._begin_to_stop()
        # A call of `stop` does everything by itself, but it may be given up, and a request may follow.
        self._changed.wait(lambda: self._reports or self._stops.requested, None)
        request = self._stops.requested
        if request is not None and not self._reports:
            self._end(request)

    def _accept_loop(self) -> None:
        backoff = Backoff()
        while True:
            if self._limit is not None:
                self._room.wait(self._may_go_on, None)
            if self._stopping:
                return
            try:
                client, address = self._listener.accept_addr()
                self._start(client, address)
            except ClosedError:
                return
            except Exception as error:  # noqa: BLE001 -- nothing but a stop may end this loop
                # No descriptor, no memory, no thread to be had (S5).
                delay, count = backoff.failed(time.monotonic())
                if count:
                    log.error(
                        "cannot accept connections at %s (%d times): %s", self._local_addr, count, error
                    )
                self._room.wait(lambda: self._stopping, time.monotonic() + delay)
            else:
                backoff.succeeded()

    def _may_go_on(self) -> bool:
        return self._stopping or self._limit is None or len(self._active) < self._limit

    def _start(self, client: Socket, address: Address) -> None:
        thread = threading.Thread(
            target=self._run, args=(client, address), name=f"wireline-client-{address.port}", daemon=True
        )
        self._active[thread] = client
        if self._forcing:  # a stop did not wait for this one
            self._finish(thread, client)
            return
        try:
            thread.start()
        except BaseException:
            self._finish(thread, client)
            raise

    # The thread of one connection.

    def _run(self, client: Socket, address: Address) -> None:
        accepted = time.monotonic()
        in_handshake = self._handshake_config is not None
        try:
            if self._handshake_config is not None:
                secure = client._server_core(self._handshake_config.tls)
                client._upgrade_by(secure, start_deadline(self._handshake_config.timeout), "handshake")
                in_handshake = False
            self._handler(client, address)
        except Exception as error:  # noqa: BLE001 -- the handler's, whatever it is; it ends one connection
            # `stop` closed the connection under the handler. Any other time it is the handler's own mistake.
            if not (self._stopping and blame(error, client) is Blame.CLOSED):
                self._report_error(error, client, address, accepted, in_handshake)
        finally:
            self._finish(threading.current_thread(), client)

    def _report_error(
        self, error: Exception, client: Socket, address: Address, accepted: float, in_handshake: bool
    ) -> None:
        if self._on_error is None:
            seconds = time.monotonic() - accepted
            self._events.log_end(error, client, address, seconds, in_handshake=in_handshake)
            return
        try:
            self._on_error(error, client)
        except Exception as another:  # noqa: BLE001 -- it is logged, and never more
            self._events.log_failure("on_error failed", another)

    def _finish(self, thread: threading.Thread, client: Socket) -> None:
        try:
            client.close()
        finally:
            self._active.pop(thread, None)
            self._room.wake()
            # Not for each: a drain of thousands would look thousands of times.
            if self._stopping and self._is_over():
                self._changed.wake()


def _moment(seconds: float | None) -> float | None:
    """What the clock shows in so many seconds; None for never."""
    return None if seconds is None else time.monotonic() + seconds
