"""``wireline relay LISTEN TARGET...``.

Every connection has a thread, in which `wireline.net.relay` moves the bytes; with `--fault` or `--dump` it has two, of
`wireline.testing.StreamRelay`. `Serving` has the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from wireline import ClosedError, Target
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import Failure, Outcome, ReportedFailure, Stage, classify, during
from wireline.cli._peer import dial_stream
from wireline.cli._relay_stats import show_traffic
from wireline.cli._relay_targets import ONE_OF_SEVERAL_TIMEOUT, Targets
from wireline.cli._relay_traffic import Moved, Traffic
from wireline.cli._serving import Connection, Serving, reloading
from wireline.cli.parser._relay_tls_options import LISTEN, TARGET, Side
from wireline.net import Socket, relay

if TYPE_CHECKING:
    from wireline.cli._dump import Dump
    from wireline.cli._tls_handshakes import TlsClient, TlsServer
    from wireline.testing import Faults


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
            with reloading(signals, _reload(LISTEN, server), _reload(TARGET, client)):
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


def _reload(side: Side, tls: TlsClient | TlsServer | None) -> Callable[[], None] | None:
    """What reads the files of a side again."""
    if tls is None:
        return None

    def reload() -> None:
        with _setting_up(side):
            tls.reload()

    return reload


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
        self._faults: Faults | None = options.fault
        self._dump = _make_dump(options)
        self._options = options
        self._tls_client = tls_client
        self._serving = Serving(
            options,
            self._listen,
            self._handle,
            tls_server,
            most=options.max,
            target=str(options.relay_targets[0]) if len(options.relay_targets) == 1 else None,
            explain=self._explain,
            abort=self._abort_all,
        )
        self._traffic = Traffic()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[Socket, Callable[[], object]] = {}
        self._aborted = False

    def run(self, signals: Signals) -> None:
        """Listen until a signal arrives, then let the connections end; see `Serving`."""
        self._serving.run(signals, show_traffic(self._traffic, self._options))

    def _abort_all(self) -> None:
        with self._lock:
            self._aborted = True
            left = list(self._open.values())
        # Each waits a moment for a send that is under way: one after the other, a thousand would take minutes.
        threads = [threading.Thread(target=abort, name="wireline-abort", daemon=True) for abort in left]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # One connection, in its own thread.

    def _handle(self, connection: Connection) -> None:
        client = connection.client
        with self._lock:
            number = next(self._numbers)
            self._open[client] = functools.partial(client.close, linger=0)
        try:
            self._relay(connection, number)
        finally:
            with self._lock:
                del self._open[client]

    def _relay(self, connection: Connection, number: int) -> None:
        client, name = connection.client, connection.name
        server, target = self._targets.connect(client)
        connection.target = str(target)
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

    def _explain(self, failure: Failure | ReportedFailure) -> str:
        """The sentence about the error of a connection, with the options of its side."""
        targets = map(str, self._options.relay_targets)
        is_client = isinstance(failure, Failure) and failure.subject not in targets
        return (LISTEN if is_client else TARGET).renamed(classify(failure).sentence)
