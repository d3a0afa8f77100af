"""``wireline connect TARGET``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wireline import IPPROTO_UDP, Target
from wireline.cli._conversation import Conversation
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import Stage, during
from wireline.cli._peer import REPLY_TIMEOUT, DatagramPeer, Peer, StreamPeer, dial_stream
from wireline.cli._stdio import Input, Output
from wireline.net import dial

if TYPE_CHECKING:
    from wireline.cli._tls_handshakes import TlsClient


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Send standard input to a peer, and write the received data to standard output.

    Raises:
        Failure: an error ended it.
        ClosedError: a signal ended it.
    """
    target: Target = options.target
    timeout: float | None = options.timeout
    tls = _make_tls_client(options) if options.tls else None
    with during(Stage.CONNECT, target):
        peer = _connect(target, timeout, tls)
    Conversation(peer, Input(), Output(), timeout=timeout, crlf=options.crlf).run(signals)


def _make_tls_client(options: argparse.Namespace) -> TlsClient:
    # Imports ssl: a third of the start-up time.
    from wireline.cli._tls_handshakes import TlsClient

    with during(Stage.SETUP, options.target):
        return TlsClient(options)


def _connect(target: Target, timeout: float | None, tls: TlsClient | None) -> Peer:
    if tls is not None:
        return StreamPeer(tls.connect(target, timeout), str(target), timeout)
    if target.scheme == "udp":
        sock = dial(target.host, target.port, IPPROTO_UDP, timeout=timeout)
        return DatagramPeer(sock, str(target), REPLY_TIMEOUT if timeout is None else timeout)
    return StreamPeer(dial_stream(target, timeout), str(target), timeout)
