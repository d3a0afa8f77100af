"""``wireline listen ADDRESS``."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wireline import SOCK_DGRAM, SOCK_STREAM, Address, ClosedError, SocketTimeout, Target
from wireline.cli._binding import announce, bound, client_name
from wireline.cli._conversation import Conversation
from wireline.cli._datagram_targets import is_datagram
from wireline.cli._datagrams import REPLY_TIMEOUT, FirstSender, buffer_size, reply, sender_name
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import Failure, Stage, during, report
from wireline.cli._peer import NO_FLAGS, StreamPeer
from wireline.cli._services import ChatRoom, Service, discard, echo
from wireline.cli._stdio import Input, NoInput, Output
from wireline.net import Socket, serve

if TYPE_CHECKING:
    from wireline.cli._tls_handshakes import TlsServer

_DRAIN_TIMEOUT = 0.5
"""Seconds that clients get to finish after Ctrl-C. A guess: enough for a reply that is being sent."""

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
    many = options.keep or options.service == "chat"
    signals.expected = many or (datagrams and options.service is not None)
    if datagrams:
        _listen_for_datagrams(target, options, signals)
        return
    with _tls_server(options, signals) as tls:
        if many and options.service:
            _serve_concurrently(target, _service(options, signals), options.timeout, signals, tls)
        else:
            _serve_in_turn(target, _service(options, signals), options, signals, tls)


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


def _service(options: argparse.Namespace, signals: Signals) -> Service:
    match options.service:
        case "echo":
            return echo
        case "discard":
            return discard
        case "chat":
            return ChatRoom().serve
        case _:
            return _StandardStreams(signals, crlf=options.crlf).serve


class _StandardStreams:
    """Standard input and output for one client after another. The first one gets the input."""

    def __init__(self, signals: Signals, *, crlf: bool) -> None:
        self._signals = signals
        self._crlf = crlf
        self._source = Input()
        self._output = Output()

    def serve(self, client: Socket, name: str, timeout: float | None) -> None:
        source, self._source = self._source, NoInput()
        peer = StreamPeer(client, name, timeout)
        Conversation(peer, source, self._output, timeout=timeout, crlf=self._crlf).run(self._signals)


def _serve_concurrently(
    target: Target, service: Service, timeout: float | None, signals: Signals, tls: TlsServer | None
) -> None:
    """Serve any number of clients, each in its own thread, until a signal arrives."""

    def handle(client: Socket, address: Address) -> None:
        # `serve` would drop a client whose handshake fails; made here, the failure is reported.
        _serve_one(service, client, client_name(target, address), timeout, tls)

    def end_now() -> None:
        signals.expected = True  # a second signal only shortens the drain: the exit code stays 0
        server.request_stop()

    where = str(target) if target.path else target.host
    with signals.deferring_exit():  # otherwise a signal now would leave a socket file behind
        with during(Stage.LISTEN, target):
            server = serve(handle, target.port, where)
        # Not `stop`: it would block the thread that waits for the second signal.
        with server, signals.ended_by(lambda: server.request_stop(_DRAIN_TIMEOUT), force=end_now):
            announce(target, server.local_addr, tls)
            server.wait()


def _serve_in_turn(
    target: Target, service: Service, options: argparse.Namespace, signals: Signals, tls: TlsServer | None
) -> None:
    """Serve one client, or with ``--keep`` one after another."""
    with bound(target, SOCK_STREAM, signals, tls) as listener:
        while options.keep:
            client, address = _accept(listener, target, None)
            _serve_one(service, client, client_name(target, address), options.timeout, tls)
        client, address = _accept(listener, target, options.timeout)
        # Further clients are refused instead of waiting for an accept that never happens.
        listener.close()
        name = client_name(target, address)
        with client, during(Stage.TALK, name), signals.ended_by(client.close):
            if tls is not None:
                tls.handshake(client)
            _serve(service, client, name, options.timeout)


def _accept(listener: Socket, target: Target, timeout: float | None) -> tuple[Socket, Address]:
    with during(Stage.ACCEPT, target):
        return listener.accept_addr(timeout=timeout)


def _serve(service: Service, client: Socket, name: str, timeout: float | None) -> None:
    try:
        service(client, name, timeout)
    except (OSError, ValueError, Failure):
        # A graceful end would tell the client that all its data was received.
        client.close(linger=0)
        raise


def _serve_one(
    service: Service, client: Socket, name: str, timeout: float | None, tls: TlsServer | None
) -> None:
    """Serve one client of many. Its errors are reported, and do not affect the others."""
    try:
        with client, during(Stage.TALK, name):
            if tls is not None:
                tls.handshake(client)
            _serve(service, client, name, timeout)
    except ClosedError:
        # A signal ends the command, or the chat has disconnected this client and reported it.
        pass
    except Failure as failure:
        if failure.stage is not Stage.TALK:
            raise
        report(failure)


def _listen_for_datagrams(target: Target, options: argparse.Namespace, signals: Signals) -> None:
    size = buffer_size(target)
    with (
        bound(target, SOCK_DGRAM, signals, interface=options.interface) as sock,
        during(Stage.TALK, target),
    ):
        if options.service:
            _serve_datagrams(sock, target, options.timeout, echo=options.service == "echo")
        elif options.keep:
            output = Output()
            while True:
                output.write(sock.recv_from(size, NO_FLAGS).data)
        else:
            reply_timeout = REPLY_TIMEOUT if options.timeout is None else options.timeout
            with during(Stage.ACCEPT, target):
                peer = FirstSender(sock, target, options.timeout, reply_timeout)
            Conversation(peer, Input(), Output(), crlf=options.crlf).run(signals)


def _serve_datagrams(sock: Socket, target: Target, timeout: float | None, *, echo: bool) -> None:
    """Send each datagram back, or drop it, until none has arrived for ``timeout`` seconds."""
    size = buffer_size(target)
    while True:
        try:
            data, sender = sock.recv_from(size, NO_FLAGS, timeout)
        except SocketTimeout:
            return
        if echo:
            try:
                with during(Stage.TALK, sender_name(target, sender)):
                    reply(sock, sender, data, _ECHO_TIMEOUT)
            except Failure as failure:
                report(failure)
