"""``wireline connect TARGET``."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from wireline import Target
from wireline.cli._conversation import Conversation
from wireline.cli._datagram_targets import is_datagram
from wireline.cli._end_of_input import end_of_input
from wireline.cli._exit_signals import Signals
from wireline.cli._outcome import ExitCode, Outcome, ReportedFailure, Stage, during
from wireline.cli._peer import Peer, Source, StreamPeer, dial_stream
from wireline.cli._stderr import print_stderr
from wireline.cli._stdio import Input, Output

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
    # A signal before the conversation would leave the file of our end of a Unix datagram socket behind.
    with signals.deferring_exit() if target.scheme == "unix-dgram" else contextlib.nullcontext():
        with during(Stage.CONNECT, target):
            peer = _connect(options, tls)
        conversation = Conversation(
            peer,
            Input(),
            Output(),
            timeout=timeout,
            crlf=options.crlf,
            at_eof=end_of_input(options),
            progress=not (options.verbose and is_datagram(target)),
        )
        conversation.run(signals)
    if not conversation.counters.received:
        _report_no_reply(conversation, peer, required=options.expect_reply)


def _report_no_reply(conversation: Conversation, peer: Peer, *, required: bool) -> None:
    """Say that nothing was received, if that may be a surprise; fail if a reply is required.

    Raises:
        ReportedFailure: a reply is required.
    """
    if conversation.quit or peer.reply_timeout is not None:
        outcome = Outcome(
            ExitCode.TIMEOUT, f"{peer.name} sent no reply in time; wait longer with --quit-after"
        )
        noteworthy = False
    else:
        outcome = Outcome(ExitCode.TRUNCATED, f"{peer.name} closed the connection without sending a byte")
        noteworthy = conversation.counters.sent > 0
    if required:
        raise ReportedFailure(outcome)
    if noteworthy:
        print_stderr(f"wireline: {outcome.sentence}")


def _make_tls_client(options: argparse.Namespace) -> TlsClient:
    # Imports ssl: a third of the start-up time.
    from wireline.cli._tls_handshakes import TlsClient

    with during(Stage.SETUP, options.target):
        return TlsClient(options)


def _connect(options: argparse.Namespace, tls: TlsClient | None) -> Peer:
    target, timeout = options.target, options.timeout
    source = Source(options.family, options.source, options.verbose)
    if tls is not None:
        return StreamPeer(tls.connect(target, timeout, source), str(target), timeout)
    if is_datagram(target):
        from wireline.cli._datagrams import open_peer  # takes as long to load as the conversation

        return open_peer(options, source)
    return StreamPeer(dial_stream(target, timeout, source), str(target), timeout)
