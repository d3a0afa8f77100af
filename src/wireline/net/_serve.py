"""``serve``: a thread accepts, and every connection gets a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from wireline import _promises
from wireline._arguments import require_int
from wireline._resolver import look_up
from wireline._sansio.backoff import Backoff
from wireline._sansio.deadline import check_timeout
from wireline._serving import ListenAt, StopReport, Welcome, check_limit, open_listener
from wireline.address import Address, IpAddress, spell_address
from wireline.errors import ClosedError, SocketTimeout
from wireline.net._socket import Socket
from wireline.net._wait import start_deadline
from wireline.options import IPPROTO_TCP, SOCK_STREAM, SOMAXCONN

if TYPE_CHECKING:
    from wireline.tls import SslContext

__all__ = ["Handler", "Server", "serve"]

Handler = Callable[[Socket, Address], object]

_log = logging.getLogger("wireline")

# Seconds that handlers get to unwind once their connection was closed under them. A guess: they have nothing left to
# wait for, and one that does not end is not waited for any longer.
_UNWIND = 1.0


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
) -> Server:
    if not callable(handler):
        raise TypeError(f"the handler is called with a socket and an address; {handler!r} cannot be")
    where = ListenAt.checked(address, port)
    limit = check_limit(max_connections)
    require_int("backlog", backlog)
    welcome = Welcome.checked(tls, handshake_timeout)
    found = (
        look_up(where.host, where.port, 0, SOCK_STREAM, IPPROTO_TCP).result() if where.needs_lookup else []
    )
    listener = open_listener(Socket, where, found, backlog=backlog, reuse_port=reuse_port, buffered=buffered)
    return Server(listener, handler, limit, welcome)


@_promises.documented(_promises.ServerPromises)
class Server:
    """A running server, made by ``serve``."""

    def __init__(
        self, listener: Socket, handler: Handler, max_connections: int | None, welcome: Welcome | None
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._welcome = welcome
        self._limit = max_connections
        self._active: dict[threading.Thread, Socket] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._ending = threading.Lock()
        self._report: StopReport | None = None
        try:
            self._local_addr = listener.local_addr
            self._acceptor = threading.Thread(
                target=self._accept_loop, name=f"wireline-serve-{self._local_addr.port}", daemon=True
            )
            self._acceptor.start()
        except BaseException:
            listener.close()
            raise

    @property
    def local_addr(self) -> Address:
        return self._local_addr

    @property
    def connections(self) -> int:
        return len(self._active)

    def wait(self, timeout: float | None = None) -> None:
        timeout = check_timeout(timeout)
        with self._changed:
            if not self._changed.wait_for(lambda: self._report is not None, timeout):
                assert timeout is not None
                raise SocketTimeout("wait", timeout)

    def stop(self, drain: float = 0.0) -> StopReport:
        deadline = start_deadline(check_timeout(drain))
        self._stopping.set()
        self._listener.close()
        with self._changed:
            self._changed.notify_all()
        self._acceptor.join()
        # A handler that stops its own server must not wait for who is waiting for it.
        if not self._ending.acquire(blocking=threading.current_thread() not in self._active):
            return StopReport(0, 0)
        try:
            if self._report is None:
                self._report = self._end(None if deadline is None else deadline.remaining(time.monotonic()))
                with self._changed:
                    self._changed.notify_all()
            return self._report
        finally:
            self._ending.release()

    def _end(self, seconds: float | None) -> StopReport:
        me = threading.current_thread()  # a handler may stop its own server, and is not waited for

        def others() -> list[Socket]:
            return [client for thread, client in self._active.items() if thread is not me]

        with self._changed:
            before = len(others())
            self._changed.wait_for(lambda: not others(), seconds)
            left = others()
        for client in left:
            client.close()
        with self._changed:
            self._changed.wait_for(lambda: not others(), _UNWIND)
        return StopReport(before - len(left), len(left))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # The thread that accepts.

    def _accept_loop(self) -> None:
        backoff = Backoff()
        while self._wait_for_room():
            try:
                client, address = self._listener.accept_addr()
                self._start(client, address)
            except ClosedError:
                return
            except (OSError, RuntimeError) as error:  # no descriptor, no memory, no thread to be had (S5)
                delay, count = backoff.failed(time.monotonic())
                if count:
                    _log.error(
                        "cannot accept connections at %s (%d times): %s", self._local_addr, count, error
                    )
                self._stopping.wait(delay)
            else:
                backoff.succeeded()

    def _wait_for_room(self) -> bool:
        """Wait until another connection is allowed; False when the server is stopping."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping.is_set() or self._limit is None or len(self._active) < self._limit
            )
        return not self._stopping.is_set()

    def _start(self, client: Socket, address: Address) -> None:
        thread = threading.Thread(
            target=self._run, args=(client, address), name=f"wireline-client-{address.port}", daemon=True
        )
        with self._changed:
            self._active[thread] = client
        try:
            thread.start()
        except BaseException:
            self._finish(thread, client)
            raise

    # The thread of one connection.

    def _run(self, client: Socket, address: Address) -> None:
        try:
            if self._welcome is None or self._shake_hands(self._welcome, client, address):
                self._handler(client, address)
        except ClosedError:
            # `stop` closed the connection under the handler. Any other time it is the handler's own mistake.
            if not self._stopping.is_set():
                _log.exception("the handler of %s used a closed socket", address)
        except Exception:  # noqa: BLE001 -- the handler's, whatever it is; it is logged and ends one connection
            _log.exception("the handler of %s failed", address)
        finally:
            self._finish(threading.current_thread(), client)

    def _shake_hands(self, welcome: Welcome, client: Socket, address: Address) -> bool:
        """Make the handshake with a client; False if it was none. That happens at every public port, all day."""
        try:
            secure = client._server_core(welcome.tls)
            client._upgrade_by(secure, start_deadline(welcome.seconds), "handshake")
        except ClosedError:
            raise
        except OSError as error:
            _log.info("no TLS handshake with %s: %s", spell_address(address), error)
            return False
        return True

    def _finish(self, thread: threading.Thread, client: Socket) -> None:
        try:
            client.close()
        finally:
            with self._changed:
                self._active.pop(thread, None)
                self._changed.notify_all()
