"""``wireline relay LISTEN TARGET...``.

Every connection has a thread, in which `wireline.net.relay` moves the bytes; with `--fault` or `--dump` it has two, of
`wireline.testing.StreamRelay`. The main thread waits for signals: the first one stops listening, the second one resets
the connections that are left.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from wireline import Address, ClosedError, Target
from wireline.cli._binding import announce, client_name
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import Failure, Outcome, ReportedFailure, Stage, classify, during, print_stderr
from wireline.cli._peer import dial_stream
from wireline.cli._relay_stats import show_traffic
from wireline.cli._relay_targets import ONE_OF_SEVERAL_TIMEOUT, Targets
from wireline.cli._relay_traffic import Moved, Traffic
from wireline.cli.parser._relay_tls_options import LISTEN, TARGET, Side
from wireline.net import Socket, relay, serve

if TYPE_CHECKING:
    from wireline.cli._dump import Dump
    from wireline.cli._tls_handshakes import TlsClient, TlsServer
    from wireline.net import Server
    from wireline.testing import Faults

_ABORT_TIMEOUT = 0.5
"""Seconds that connections get to end after a reset. A guess: only resolving a name takes longer."""

_QUIET_DRAIN = 0.2
"""Seconds after the first signal without a message about the connections that are left. A guess."""


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Relay connections until a signal arrives.

    Raises:
        Failure: the address cannot be used.
        ReportedFailure: the TLS options cannot be used.
    """
    signals.expected = True
    with contextlib.ExitStack() as stack:
        # The files of --self-signed are removed at the end of the block, after a signal too.
        with signals.deferring_exit():
            with _setting_up(TARGET):
                client = _make_client(options)
            with _setting_up(LISTEN):
                server = stack.enter_context(_serving(options))
        if signals.received is None:
            _Relay(options, client, server).run(signals)


@contextlib.contextmanager
def _setting_up(side: Side) -> Iterator[None]:
    """Report an error in the TLS options of a side with the names that they have here.

    Raises:
        ReportedFailure: it is one.
    """
    try:
        with during(Stage.SETUP, side.word):
            yield
    except Failure as failure:
        code, sentence = classify(failure)
        raise ReportedFailure(Outcome(code, side.renamed(sentence))) from failure


def _make_client(options: argparse.Namespace) -> TlsClient | None:
    if not options.target_tls:
        return None
    from wireline.cli._tls_handshakes import TlsClient

    return TlsClient(TARGET.options(options))


@contextlib.contextmanager
def _serving(options: argparse.Namespace) -> Iterator[TlsServer | None]:
    if not options.listen_tls:
        yield None
        return
    from wireline.cli._tls_handshakes import serving

    own = LISTEN.options(options)
    own.target = options.listen
    with serving(own) as server:
        yield server


def _make_dump(options: argparse.Namespace) -> Dump | None:
    if options.dump is None:
        return None
    from wireline.cli._dump import Dump

    return Dump(options.dump)


class _Relay:
    """All connections of the command."""

    def __init__(
        self, options: argparse.Namespace, tls_client: TlsClient | None, tls_server: TlsServer | None
    ) -> None:
        self._listen: Target = options.listen
        self._targets = Targets(options.relay_targets, options.balance, self._connect)
        self._timeout: float | None = options.timeout
        if self._timeout is None and len(options.relay_targets) > 1:
            self._timeout = ONE_OF_SEVERAL_TIMEOUT
        self._max: int | None = options.max
        self._faults: Faults | None = options.fault
        self._dump = _make_dump(options)
        self._options = options
        self._tls_client = tls_client
        self._tls_server = tls_server
        self._traffic = Traffic()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[Socket, Callable[[], object]] = {}
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._aborted = False

    def run(self, signals: Signals) -> None:
        """Listen until a signal arrives, then wait for the connections; the next signal resets them."""
        where = str(self._listen) if self._listen.path else self._listen.host
        with signals.deferring_exit():  # otherwise a signal now would leave a socket file behind
            with during(Stage.LISTEN, self._listen):
                server = serve(self._handle, self._listen.port, where, max_connections=self._max)
            self._run_until_ended(server, signals)

    def _run_until_ended(self, server: Server, signals: Signals) -> None:
        def drain() -> None:
            server.stop(math.inf)
            self._ended.set()

        draining = threading.Thread(target=drain, name="wireline-drain", daemon=True)
        with signals.ended_by(self._stopping.set, force=self._abort_all):
            announce(self._listen, server.local_addr, self._tls_server)
            with show_traffic(self._traffic, self._options):
                self._stopping.wait()
                draining.start()
                if not self._ended.wait(_QUIET_DRAIN):
                    count = server.connections
                    connections = "1 connection" if count == 1 else f"{count} connections"
                    print_stderr(f"wireline: waiting for {connections} to end; Ctrl-C again resets them")
                self._ended.wait()
        draining.join(_ABORT_TIMEOUT)

    def _abort_all(self) -> None:
        with self._lock:
            self._aborted = True
            left = list(self._open.values())
        for abort in left:
            abort()
        self._ended.set()

    # One connection, in its own thread.

    def _handle(self, client: Socket, address: Address) -> None:
        name = client_name(self._listen, address)
        with self._lock:
            number = next(self._numbers)
            self._open[client] = functools.partial(client.close, linger=0)
        try:
            self._relay(client, name, number)
        except ClosedError:
            pass  # it was aborted
        except (Failure, ReportedFailure) as failure:
            client.close(linger=0)
            side = LISTEN if getattr(failure, "subject", "") == name else TARGET
            print_stderr(f"wireline: {side.renamed(classify(failure).sentence)}")
        finally:
            with self._lock:
                del self._open[client]

    def _relay(self, client: Socket, name: str, number: int) -> None:
        with during(Stage.TALK, name):
            if self._tls_server is not None:
                self._tls_server.handshake(client)
        server, target = self._targets.connect(client)
        with server:
            if self._faults is None and self._dump is None:
                self._relay_at_once(client, server, name, target)
            else:
                self._relay_in_threads(client, server, name, target, number)

    def _relay_at_once(self, client: Socket, server: Socket, name: str, target: Target) -> None:
        def abort() -> None:
            client.close(linger=0)
            server.close(linger=0)

        moved = Moved()
        with self._running(client, abort), self._traffic.counted(name, str(target), moved):
            try:
                report = relay(client, server, progress=moved.show)
            except ClosedError:
                server.close(linger=0)  # before the end of its block, which would let the server see an end
                raise
            if report.error is not None:
                server.close(linger=0)  # neither side must mistake it for an end
                culprit = name if report.failed == "a" else str(target)
                raise Failure(Stage.TALK, report.error, culprit)

    def _relay_in_threads(
        self, client: Socket, server: Socket, name: str, target: Target, number: int
    ) -> None:
        from wireline.testing import Faults, StreamRelay

        dump = self._dump and self._dump.connection(number + 1, name, str(target), server)
        with dump or contextlib.nullcontext() as tap:
            link = StreamRelay(client, server, self._faults or Faults(), number=number, tap=tap)
            with self._running(client, link.abort), self._traffic.counted(name, str(target), link):
                try:
                    link.run()
                except ClosedError:
                    raise
                except (OSError, ValueError) as error:
                    culprit = name if link.failed_socket is client else str(target)
                    raise Failure(Stage.TALK, error, culprit) from error

    @contextlib.contextmanager
    def _running(self, client: Socket, abort: Callable[[], object]) -> Iterator[None]:
        """Let the second signal end the block by ``abort``."""
        with self._lock:
            self._open[client] = abort
            aborted = self._aborted
        if aborted:
            abort()
        yield

    def _connect(self, target: Target) -> Socket:
        if self._tls_client is not None:
            return self._tls_client.connect(target, self._timeout)
        return dial_stream(target, self._timeout)
