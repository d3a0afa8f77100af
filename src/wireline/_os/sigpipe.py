"""Whether SIGPIPE can end the process: sendfile(2) and splice(2) have no flag against it, as ``send`` has."""

from __future__ import annotations

import signal

__all__ = ["sigpipe_is_ignored"]


def sigpipe_is_ignored() -> bool:
    """Whether a write to a connection whose peer is gone is only an error: so it is unless a program changes it."""
    number = getattr(signal, "SIGPIPE", None)
    return number is None or signal.getsignal(number) is signal.SIG_IGN
