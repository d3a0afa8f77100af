"""``wireline relay LISTEN TARGET``.

Every connection has two threads, one for each direction, in a `wireline.testing.StreamRelay`. The main thread waits for
signals: the first one ends listening, and the second one whatever is still connected.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wireline import AF_UNIX, Address, ClosedError, Target
from wireline.cli._binding import announce, client_name
from wireline.cli._outcome import Failure, Stage, during, judge, say
from wireline.cli._relay_stats import Traffic, show_traffic
from wireline.cli._relay_words import listen_options, target_options
from wireline.cli._signals import Signals
from wireline.net import Socket, dial, serve
from wireline.testing import Faults, StreamRelay

if TYPE_CHECKING:
    from wireline.cli._tls import Client, Server
    from wireline.net import Server as Listener

_UNWIND = 0.5
"""Seconds that connections get to end once they were cut. A guess: only a name that is being looked up takes longer."""

_BRIEFLY = 0.2
"""Seconds in which connections may end without a word about it. A guess: nobody wonders yet why it takes so long."""

# Each side has words of its own for what `connect` and `listen` both call the same.
_WORDS_OF_TARGET = {"--cert": "--client-cert", "--key": "--client-key"}
_WORDS_OF_LISTEN = {"--psk-file": "--listen-psk-file"}


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Relay connections until a signal comes.

    Raises:
        Failure: there is nothing to listen on, or TLS cannot be had.
    """
    signals.expected = True
    with contextlib.ExitStack() as stack:
        # A signal that comes while files are being made must not leave them behind.
        with signals.noted(), during(Stage.SETUP, options.listen):
            client = _make_client(options)
            server = stack.enter_context(_serving(options))
        if signals.received is None:
            _Relay(options, client, server).run(signals)


def _make_client(options: argparse.Namespace) -> Client | None:
    if not options.target_tls:
        return None
    from wireline.cli._tls import Client

    return Client(target_options(options))


@contextlib.contextmanager
def _serving(options: argparse.Namespace) -> Iterator[Server | None]:
    if not options.listen_tls:
        yield None
        return
    from wireline.cli._tls import serving

    with serving(listen_options(options)) as server:
        yield server


class _Relay:
    """All connections."""

    def __init__(self, options: argparse.Namespace, client: Client | None, server: Server | None) -> None:
        self._listen: Target = options.listen
        self._target: Target = options.target
        self._timeout: float | None = options.timeout
        self._max: int | None = options.max
        self._faults: Faults = options.fault or Faults()
        self._stats: bool = options.stats
        self._client = client
        self._server = server
        self._traffic = Traffic()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[Socket, StreamRelay | None] = {}
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._cut = False

    def run(self, signals: Signals) -> None:
        """Listen until a signal comes, and let the connections end; cut them when another one comes."""
        where = str(self._listen) if self._listen.path else self._listen.host
        with signals.noted():  # a signal that comes now must not leave a socket file behind
            with during(Stage.LISTEN, self._listen):
                server = serve(self._handle, self._listen.port, where, max_connections=self._max)
            self._until_ended(server, signals)

    def _until_ended(self, server: Listener, signals: Signals) -> None:
        def drain() -> None:
            server.stop(math.inf)
            self._over.set()

        draining = threading.Thread(target=drain, name="wireline-drain", daemon=True)
        with signals.ended_by(self._stopping.set, hurry=self._cut_all):
            announce(self._listen, server.local_addr, self._server)
            with show_traffic(self._traffic, wanted=self._stats):
                self._stopping.wait()
                draining.start()
                if not self._over.wait(_BRIEFLY):
                    say(f"wireline: waiting for {_some(server.connections)} to end; Ctrl-C again cuts them")
                self._over.wait()
        draining.join(_UNWIND)

    def _cut_all(self) -> None:
        with self._lock:
            self._cut = True
            left = list(self._open.items())
        for client, relay in left:
            _abort(client, relay)
        self._over.set()

    # One connection, in its own thread.

    def _handle(self, client: Socket, address: Address) -> None:
        name = client_name(self._listen, address)
        with self._lock:
            number = next(self._numbers)
            self._open[client] = None
        try:
            self._relay(client, name, number)
        except ClosedError:
            pass  # it was cut
        except Failure as failure:
            client.close(linger=0)
            self._tell(failure)
        finally:
            with self._lock:
                del self._open[client]

    def _relay(self, client: Socket, name: str, number: int) -> None:
        with during(Stage.TALK, name):
            if self._server is not None:
                self._server.secure(client)
        with during(Stage.CONNECT, self._target):
            server = self._connect()
        with server:
            relay = StreamRelay(client, server, self._faults, number=number)
            with self._lock:
                self._open[client] = relay
                cut = self._cut
            if cut:
                relay.abort()
            with self._traffic.counted(name, relay):
                try:
                    relay.run()
                except (OSError, ValueError) as error:
                    if isinstance(error, ClosedError):
                        raise
                    culprit = name if relay.failed_socket is client else str(self._target)
                    raise Failure(Stage.TALK, error, culprit) from error

    def _connect(self) -> Socket:
        if self._client is not None:
            return self._client.connect(self._target, self._timeout)
        if not self._target.path:
            return dial(self._target.host, self._target.port, timeout=self._timeout)
        sock = Socket(AF_UNIX)
        try:
            sock.connect_unix(self._target.path, self._timeout)
        except BaseException:
            sock.close()
            raise
        return sock

    def _tell(self, failure: Failure) -> None:
        """Say what became of a connection, in the words of its side."""
        sentence = judge(failure).sentence
        words = _WORDS_OF_TARGET if failure.subject == str(self._target) else _WORDS_OF_LISTEN
        for word, ours in words.items():
            sentence = sentence.replace(word, ours)
        say(f"wireline: {sentence}")


def _abort(client: Socket, relay: StreamRelay | None) -> None:
    if relay is None:  # it is in its handshake, or the target is being connected to
        client.close(linger=0)
    else:
        relay.abort()


def _some(connections: int) -> str:
    return "a connection" if connections == 1 else f"{connections} connections"
