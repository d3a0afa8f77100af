"""``wireline connect TARGET``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wireline import AF_UNIX, IPPROTO_UDP, Target
from wireline.cli._conversation import Conversation
from wireline.cli._outcome import Stage, during
from wireline.cli._peer import DEFAULT_SILENCE, DatagramPeer, Peer, StreamPeer
from wireline.cli._signals import Signals
from wireline.cli._stdio import Input, Output
from wireline.net import Socket, dial

if TYPE_CHECKING:
    from wireline.cli._tls import Client


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Carry standard input to a peer, and the peer to standard output.

    Raises:
        Failure: it did not end well.
    """
    target: Target = options.target
    timeout: float | None = options.timeout
    tls = _make_tls(options) if options.tls else None
    with during(Stage.CONNECT, target):
        peer = _open(target, timeout, tls)
    Conversation(peer, Input(), Output(), timeout=timeout, crlf=options.crlf).run(signals)


def _make_tls(options: argparse.Namespace) -> Client:
    # A third of the start-up time, for those who need it.
    from wireline.cli._tls import Client

    with during(Stage.SETUP, options.target):
        return Client(options)


def _open(target: Target, timeout: float | None, tls: Client | None) -> Peer:
    if tls is not None:
        return StreamPeer(tls.connect(target, timeout), str(target), timeout)
    if target.scheme == "udp":
        sock = dial(target.host, target.port, IPPROTO_UDP, timeout=timeout)
        return DatagramPeer(sock, str(target), DEFAULT_SILENCE if timeout is None else timeout)
    sock = (
        _dial_unix(target.path, timeout)
        if target.scheme == "unix"
        else dial(target.host, target.port, timeout=timeout)
    )
    return StreamPeer(sock, str(target), timeout)


def _dial_unix(path: str, timeout: float | None) -> Socket:
    sock = Socket(AF_UNIX)
    try:
        sock.connect_unix(path, timeout)
    except BaseException:
        sock.close()
        raise
    return sock
