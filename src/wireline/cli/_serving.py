"""The servers of ``listen`` and ``relay``: their sockets and limits, their log, and how they end.

`wireline.net.serve` accepts the clients and enforces the limits; each client has a thread, in which `Serving` makes the
handshake and calls the handler of the command. The main thread waits for a signal. The first one stops the listening,
and gives the open connections time to end; then they are reset, and so they are at the second signal.

A server for one client is the same with a limit of one connection, and stops listening when it has its client. Its
signals end it at once.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from wireline import Address, ClosedError, SocketTimeout, Target
from wireline.cli._allowed import Allowed
from wireline.cli._background_stderr import written_in_background
from wireline.cli._binding import announce, client_name, target_at
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import Failure, ReportedFailure, Stage, classify, during
from wireline.cli._stderr import print_stderr
from wireline.cli.parser._serving_options import DRAIN
from wireline.net import Socket, serve

if TYPE_CHECKING:
    from wireline.cli._connection_log import ConnectionLog
    from wireline.cli._inherited import Inherited
    from wireline.cli._tls_handshakes import TlsServer
    from wireline.net import Server

_SWITCH_INTERVAL = 0.05
"""Seconds after which a thread that waits for the interpreter asks the running one to let it go. Python's 0.005 is for
few threads. When 3,000 clients leave at once, their threads all wait, and the asking costs 10 s of CPU time; with this,
1.4. No thread here runs as long without a system call, which lets others go.
"""

_QUIET_DRAIN = 0.2
"""Seconds after the first signal without a message about the connections that are left. A guess."""


class Connection:
    """One connection of a server.

    Attributes:
        client: its socket.
        name: the client, in messages.
        target: what it is relayed to, for the log; None if it is not.
        failure: why this side has closed it, set before it is closed.
    """

    def __init__(self, client: Socket, address: Address, listen: Target, target: str | None) -> None:
        self.client = client
        self.name = client_name(listen, address)
        self.target = target
        self.failure: Failure | None = None
        self._since = monotonic()
        self._peer = _spelled(address)
        self._local = _spelled(client.local_addr)

    def fields(self, error: str | None) -> dict[str, str | int | float | None]:
        """What the log says about it."""
        stats = self.client.stats
        return {
            "peer": self._peer,
            "local": self._local,
            "target": self.target,
            "bytes_in": stats.bytes_received,
            "bytes_out": stats.bytes_sent,
            "seconds": monotonic() - self._since,
            "error": error,
        }


def _spelled(address: Address) -> str | None:
    """An address as a target; None for a Unix socket without a name, as clients have it."""
    return str(target_at(address)) if address.host else None


def reloading(
    signals: Signals, *reloads: Callable[[], object] | None
) -> contextlib.AbstractContextManager[None]:
    """Read the files of TLS again at each SIGHUP, while the block runs."""
    used = [each for each in reloads if each is not None]
    return signals.hangup_calls(lambda: _reload(used)) if used else contextlib.nullcontext()


def _reload(reloads: list[Callable[[], object]]) -> None:
    for reload in reloads:
        try:
            with during(Stage.SETUP, ""):
                reload()
        except Exception as error:  # noqa: BLE001 - the server goes on
            print_stderr(f"wireline: {classify(error).sentence}; the files that were read before stay in use")
            return
    print_stderr("wireline: the certificates and keys were read again")


AnyFailure: TypeAlias = "Failure | ReportedFailure"


def _stage(failure: AnyFailure) -> Stage:
    """Where it occurred; what was reported already is about the targets of a relay."""
    return failure.stage if isinstance(failure, Failure) else Stage.CONNECT


def _sentence(failure: AnyFailure) -> str:
    return classify(failure).sentence


class Serving:
    """All connections of one command."""

    def __init__(
        self,
        options: argparse.Namespace,
        listen: Target,
        handle: Callable[[Connection], None],
        tls: TlsServer | None = None,
        *,
        one: bool = False,
        most: int | None = None,
        target: str | None = None,
        explain: Callable[[AnyFailure], str] = _sentence,
        abort: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepare; ``run`` serves.

        Args:
            options: those of ``_serving_options``, and ``timeout``, for the first client of a server for one.
            listen: where to listen, unless ``options.inherited`` has the sockets.
            handle: serves one client, whose handshake is done; errors are raised as ``Failure`` or ``OSError``.
            tls: makes the handshakes.
            one: serve only one client.
            most: the most connections at a time.
            target: what connections are relayed to, for the log.
            explain: the sentence about a failure of a connection.
            abort: resets what belongs to open connections besides their clients.
        """
        self._options = options
        self._listen = listen
        self._handle = handle
        self._tls = tls
        self._one = one
        self._most = 1 if one else most
        self._target = target
        self._explain = explain
        self._abort = abort
        self._allowed = Allowed(options.allow)
        self._log = _make_log(options.log_format)
        self._server: Server | None = None
        self._announced = threading.Event()
        self._accepted = threading.Event()
        self._stopping = threading.Event()
        self._forced = False
        self._fatal: AnyFailure | None = None

    def run(self, signals: Signals, shown: contextlib.AbstractContextManager[None] | None = None) -> None:
        """Serve until a signal arrives, or the one client is done.

        Args:
            signals: of the command.
            shown: a block that shows the connections.

        Raises:
            Failure: it cannot listen, the one client failed, or the output of the command did.
        """
        inherited: Inherited | None = self._options.inherited
        shown = shown or contextlib.nullcontext()
        refusals = self._log.with_refusals() if self._log else contextlib.nullcontext()
        with _for_many_threads(), written_in_background(), refusals:
            if inherited is not None and inherited.connected:
                self._run_connected(inherited.sockets[0], signals, shown)
            else:
                self._run_listening(inherited, signals, shown)
        if self._fatal is not None:
            raise self._fatal

    def _run_connected(
        self, client: Socket, signals: Signals, shown: contextlib.AbstractContextManager[None]
    ) -> None:
        from wireline.cli._inherited import separate_from_standard_streams  # only --fd needs it

        separate_from_standard_streams(client)
        self._one = True
        with client, signals.ended_by(client.close), shown:
            self._announced.set()
            self._serve(client, client.peer_addr)

    def _run_listening(
        self, inherited: Inherited | None, signals: Signals, shown: contextlib.AbstractContextManager[None]
    ) -> None:
        with signals.deferring_exit():  # otherwise a signal now would leave a socket file behind
            with during(Stage.LISTEN, self._listen):
                server = self._server = self._open(inherited)
            try:
                if self._one:
                    self._wait_for_one(server, signals)
                else:
                    with signals.ended_by(self._stopping.set, force=self._force):
                        self._announce(server)
                        with shown:
                            self._stopping.wait()
                            self._drain(server)
            finally:
                server.stop()

    def _open(self, inherited: Inherited | None) -> Server:
        where = str(self._listen) if self._listen.path else self._listen.host
        return serve(
            self._serve,
            0 if inherited else self._listen.port,
            "" if inherited else where,
            sock=inherited.sockets if inherited else None,
            max_connections=self._most,
            on_full=self._options.on_full or "wait",
            idle_timeout=self._options.idle,
        )

    def _announce(self, server: Server) -> None:
        announce(self._listen, server.local_addr, self._tls)
        self._announced.set()

    def _wait_for_one(self, server: Server, signals: Signals) -> None:
        def end() -> None:
            self._stopping.set()
            self._accepted.set()
            for client in server.clients:
                client.close()
            server.request_stop()

        timeout: float | None = self._options.timeout
        with signals.ended_by(end):
            self._announce(server)
            if not self._accepted.wait(timeout):
                assert timeout is not None
                raise Failure(Stage.ACCEPT, SocketTimeout("accept", timeout), str(self._listen))
            server.wait()

    # The end.

    def _drain(self, server: Server) -> None:
        """Let the connections end, and reset those that have not when the time is over."""
        drain = DRAIN if self._options.drain is None else self._options.drain
        if self._fatal is not None:
            drain = 0.0
        server.request_stop(None)
        if _has_stopped(server, min(_QUIET_DRAIN, drain)):
            return
        if drain > _QUIET_DRAIN and server.clients:
            connections = _count(len(server.clients))
            print_stderr(
                f"wireline: waiting up to {drain:g} s for {connections} to end; Ctrl-C again resets them"
            )
        if not _has_stopped(server, max(0.0, drain - _QUIET_DRAIN)):
            count = self._reset_all(server)
            if count and not self._forced:
                print_stderr(f"wireline: reset {_count(count)} that had not ended after {drain:g} s")

    def _force(self) -> None:
        assert self._server is not None
        self._forced = True
        self._reset_all(self._server)
        self._server.request_stop()

    def _reset_all(self, server: Server) -> int:
        clients = server.clients
        self._abort()
        for client in clients:
            # A graceful end would tell the client that all its data was received.
            with contextlib.suppress(OSError):
                client.close(linger=0)
        return len(clients)

    # One connection, in its own thread.

    def _serve(self, client: Socket, address: Address) -> None:
        self._announced.wait()
        connection = Connection(client, address, self._listen, self._target)
        if address not in self._allowed:
            client.close(linger=0)
            if self._log is None:
                self._allowed.report(connection.name)
            else:
                self._log.write("refused", connection.fields("--allow does not include it"))
            return
        if self._one:
            self._accepted.set()
            if self._server is not None:
                # Further clients are refused instead of waiting for an accept that never happens.
                self._server.request_stop(None)
        self._write("open", connection, None)
        self._serve_allowed(connection)

    def _serve_allowed(self, connection: Connection) -> None:
        event = "close"
        failure: AnyFailure | None = None
        error = None
        try:
            with during(Stage.TALK, connection.name):
                if self._tls is not None:
                    event = "handshake-failed"
                    self._tls.handshake(connection.client)
                    event = "close"
                self._handle(connection)
        except ClosedError:
            failure = connection.failure or self._limit_exceeded(connection.name)
            error = "the server was stopped" if failure is None else None
        except (Failure, ReportedFailure) as raised:
            failure = raised
            if event != "handshake-failed":  # then an alert says why, and a reset could overtake it
                connection.client.close(linger=0)
                event = "connect-failed" if _stage(raised) is Stage.CONNECT else "close"
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
            raise
        finally:
            self._report(event, connection, failure, error)

    def _limit_exceeded(self, name: str) -> Failure | None:
        """Why the server has closed a connection: there is one limit that does so."""
        if self._stopping.is_set() or self._options.idle is None:
            return None
        return Failure(Stage.TALK, TimeoutError(f"idle for {self._options.idle:g} s"), name)

    def _report(
        self, event: str, connection: Connection, failure: AnyFailure | None, error: str | None
    ) -> None:
        if failure is not None:
            error = self._explain(failure)
            if self._one or _stage(failure) not in (Stage.TALK, Stage.CONNECT):
                self._fatal = failure
                self._stopping.set()
            elif self._log is None:
                print_stderr(f"wireline: {error}")
        self._write(event, connection, error)

    def _write(self, event: str, connection: Connection, error: str | None) -> None:
        if self._log is not None:
            self._log.write(event, connection.fields(error))


@contextlib.contextmanager
def _for_many_threads() -> Iterator[None]:
    """Let threads that wait for the interpreter sleep longer while the block runs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(max(before, _SWITCH_INTERVAL))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _make_log(log_format: str | None) -> ConnectionLog | None:
    if log_format is None:
        return None
    from wireline.cli._connection_log import ConnectionLog  # only --log-format needs it

    return ConnectionLog(log_format)


def _has_stopped(server: Server, seconds: float) -> bool:
    """Wait for the end of all connections, at most this long."""
    try:
        server.wait(seconds)
    except SocketTimeout:
        return False
    return True


def _count(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"
