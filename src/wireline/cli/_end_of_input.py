"""What a conversation does once its input has ended: ``--at-eof`` and ``--quit-after``."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from wireline.cli._datagram_targets import is_datagram

SILENCE = 2.0
"""Seconds that the peer must send nothing before the sending direction is closed. A guess, above a slow reply's pauses.

A reverse proxy drops the request of a client that closes this direction, and a server on asyncio's TLS drops the
connection. Without the half-close at all, a peer that reads to the end would never answer.
"""


class EndOfInput(NamedTuple):
    """The times after the end of input, each in seconds.

    Attributes:
        half_close_after: silence of the peer after which the sending direction is closed; None leaves it open.
        quit_after: the end of the conversation, whatever the peer does; None waits for the peer's end.
    """

    half_close_after: float | None = 0.0
    quit_after: float | None = None


def end_of_input(options: argparse.Namespace) -> EndOfInput:
    """The times that the options of ``connect`` stand for."""
    if is_datagram(options.target):
        return EndOfInput(0.0, options.quit_after)  # nothing is closed, and the wait for replies begins
    match options.at_eof:
        case "half-close":
            return EndOfInput(0.0, options.quit_after)
        case "wait":
            return EndOfInput(None, options.quit_after)
        case "close":
            return EndOfInput(None, 0.0)
        case _:
            return EndOfInput(SILENCE, options.quit_after)
