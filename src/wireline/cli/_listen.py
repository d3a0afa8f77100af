"""``wireline listen ADDRESS``."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from wireline import SocketTimeout, Target
from wireline.cli._allowed import Allowed
from wireline.cli._binding import bound
from wireline.cli._conversation import Conversation
from wireline.cli._datagram_targets import is_datagram
from wireline.cli._datagrams import REPLY_TIMEOUT, FirstSender, reply, sender_name
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import Failure, Stage, during, report
from wireline.cli._peer import StreamPeer
from wireline.cli._services import ChatRoom, discard, echo
from wireline.cli._serving import Connection, Serving, reloading
from wireline.cli._stdio import Input, NoInput, Output
from wireline.cli.parser._listen_options import serves_many
from wireline.net import Socket

if TYPE_CHECKING:
    from wireline.cli._tls_handshakes import TlsServer

_ECHO_TIMEOUT = 1.0
"""Seconds in which the sender of a datagram must accept the echo, or it is dropped. Only Unix sockets can be full."""


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Wait for peers, and serve them as the options say.

    Raises:
        Failure: an error ended it.
        ClosedError: a signal ended it.
    """
    target: Target = options.target
    datagrams = is_datagram(target)
    many = serves_many(options)
    signals.expected = many or (datagrams and options.service is not None)
    if datagrams:
        _listen_for_datagrams(target, options, signals)
        return
    with _tls_server(options, signals) as tls, reloading(signals, tls.reload if tls else None):
        serve = _service(options, signals)
        most = options.max if options.service else 1
        Serving(options, target, serve, tls, one=not many, most=most).run(signals)


@contextlib.contextmanager
def _tls_server(options: argparse.Namespace, signals: Signals) -> Iterator[TlsServer | None]:
    if not options.tls:
        yield None
        return
    from wireline.cli._tls_handshakes import serving

    with contextlib.ExitStack() as stack:
        # The files of --self-signed are removed at the end of the block, after a signal too.
        stack.enter_context(signals.deferring_exit())
        with during(Stage.SETUP, options.target):
            server = stack.enter_context(serving(options))
        yield server


def _service(options: argparse.Namespace, signals: Signals) -> Callable[[Connection], None]:
    timeout: float | None = options.timeout
    match options.service:
        case "echo":
            return lambda connection: echo(connection.client, timeout)
        case "discard":
            return lambda connection: discard(connection.client, timeout)
        case "chat":
            return ChatRoom(timeout).serve
        case _:
            # The signals of a server for many let a conversation end by itself.
            own = Signals() if options.keep else signals
            return _StandardStreams(own, timeout, crlf=options.crlf).serve


class _StandardStreams:
    """Standard input and output for one client after another. The first one gets the input."""

    def __init__(self, signals: Signals, timeout: float | None, *, crlf: bool) -> None:
        self._signals = signals
        self._timeout = timeout
        self._crlf = crlf
        self._source = Input()
        self._output = Output()

    def serve(self, connection: Connection) -> None:
        source, self._source = self._source, NoInput()
        peer = StreamPeer(connection.client, connection.name, self._timeout)
        Conversation(peer, source, self._output, timeout=self._timeout, crlf=self._crlf).run(self._signals)


def _listen_for_datagrams(target: Target, options: argparse.Namespace, signals: Signals) -> None:
    allowed = Allowed(options.allow)
    with bound(target, signals, interface=options.interface) as sock, during(Stage.TALK, target):
        if options.service:
            _serve_datagrams(sock, target, allowed, options.timeout, echo=options.service == "echo")
        elif options.keep:
            output = Output()
            while True:
                output.write(allowed.receive(sock, target, None).data)
        else:
            reply_timeout = REPLY_TIMEOUT if options.timeout is None else options.timeout
            with during(Stage.ACCEPT, target):
                first = allowed.receive(sock, target, options.timeout)
            peer = FirstSender(sock, target, first, options.timeout, reply_timeout)
            Conversation(peer, Input(), Output(), crlf=options.crlf).run(signals)


def _serve_datagrams(
    sock: Socket, target: Target, allowed: Allowed, timeout: float | None, *, echo: bool
) -> None:
    """Send each datagram back, or drop it, until none has arrived for ``timeout`` seconds."""
    while True:
        try:
            data, sender = allowed.receive(sock, target, timeout)
        except SocketTimeout:
            return
        if echo:
            try:
                with during(Stage.TALK, sender_name(target, sender)):
                    reply(sock, sender, data, _ECHO_TIMEOUT)
            except Failure as failure:
                report(failure)
