"""The log lines of a server about connections that ended with an exception.

An error that the client's own socket raised was caused by the peer (a timeout, a reset, an early end, a failed
handshake): one line at INFO, with the facts in fields of the record. Any other exception is the program's fault: a
traceback at ERROR. The type does not decide, because a handler's own connection to its database may time out, too.

Theory of operation. The client's socket has raised if the traceback has a frame of this package whose ``self`` is the
client; connections that end well cost nothing. The kernel counts the bytes in and out. Ten lines a second of one kind
are written; one more line counts the rest, when the second is over and another event is logged, or when the server
stops. Several threads may log at one time, and a signal handler may stop the server while its thread is in here. So
there is no lock: each step that decides is one atomic operation.
"""

from __future__ import annotations

import enum
import itertools
import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from wireline._os.traffic import tcp_traffic
from wireline._socket_base import BaseSocket
from wireline.address import Address, format_address
from wireline.errors import ClosedError, LineTooLongError

__all__ = ["Blame", "EventLog", "blame", "log"]

log = logging.getLogger("wireline")

# Lines of one kind in one window. A guess: enough to see the problem, and 2 KB a second in the log.
_MAX_LINES = 10
# Seconds.
_WINDOW = 1.0

# The errors of a client's socket that the peer may cause. Others are misuse of the socket: a `BusyError`, say.
_PEER_ERRORS = (OSError, EOFError, LineTooLongError)

E = TypeVar("E", bound=BaseException)


class Blame(enum.Enum):
    """Why a connection ended with an exception."""

    PEER = "the peer"
    PROGRAM = "the program"
    CLOSED = "closed on this side"


def blame(error: BaseException, client: BaseSocket) -> Blame:
    """Decide which side caused the exception that ended the connection of ``client``; in a group every leaf counts."""
    found = {_blame_leaf(leaf, client) for leaf in _leaves(error)}
    if Blame.PROGRAM in found:
        return Blame.PROGRAM
    return Blame.PEER if Blame.PEER in found else Blame.CLOSED


def _blame_leaf(error: BaseException, client: BaseSocket) -> Blame:
    if isinstance(error, ClosedError):
        return Blame.CLOSED
    if isinstance(error, _PEER_ERRORS) and _raised_in(error.__traceback__, client):
        # A callback of the program (PSK, server name) may have failed the handshake: its exception is the cause.
        cause = error.__cause__
        own = isinstance(cause, Exception) and not isinstance(cause, OSError)
        return Blame.PROGRAM if own else Blame.PEER
    if type(error) is TimeoutError and error.__context__ is not None:
        # asyncio.timeout() around a read has cancelled it: the cancellation was raised in the client.
        cancelled = error.__context__
        if not isinstance(cancelled, Exception) and _raised_in(cancelled.__traceback__, client):
            return Blame.PEER
    return Blame.PROGRAM


def _raised_in(traceback: TracebackType | None, client: BaseSocket) -> bool:
    """Whether an exception was raised in a method of ``client``."""
    while traceback is not None:
        frame = traceback.tb_frame
        module = str(frame.f_globals.get("__name__", ""))
        # Methods of the socket's parts, and the iterator of an async `lines`, have it as `owner`.
        if module.startswith("wireline.") and client in (
            frame.f_locals.get("self"),
            frame.f_locals.get("owner"),
        ):
            return True
        traceback = traceback.tb_next
    return False


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


class _Window:
    """The events of one kind in ``_WINDOW`` seconds.

    Attributes:
        began: monotonic seconds.
        kind: in words.
        level: of the line that counts the events left out.
        numbers: ``next`` numbers the events from 0.
        closers: ``next`` returns 0 to the caller that closes the window.
        total: the number of events; None while the window is open.
    """

    __slots__ = ("began", "closers", "kind", "level", "numbers", "total")

    def __init__(self, began: float, kind: str, level: int) -> None:
        self.began = began
        self.kind = kind
        self.level = level
        self.numbers = itertools.count()
        self.closers = itertools.count()
        self.total: int | None = None


class EventLog:
    """Logs how the connections of one server ended."""

    def __init__(self, local: Address) -> None:
        """Log for the server that listens at ``local``."""
        self._local = local
        self._windows: dict[object, _Window] = {}

    def log_end(
        self, error: BaseException, client: BaseSocket, peer: Address, seconds: float, *, in_handshake: bool
    ) -> None:
        """Log that a connection ended with an exception, unless too many of the kind did.

        Args:
            error: the exception.
            client: the socket of the connection, open unless the handler has closed it.
            peer: the address of the other side.
            seconds: since it was accepted.
            in_handshake: the handler was not called yet.
        """
        cause = blame(error, client)
        if cause is not Blame.PEER:
            subject = "handshake with" if in_handshake else "handler of"
            what = "used a closed socket" if cause is Blame.CLOSED else "failed"
            self.log_failure(f"the {subject} {format_address(peer)} {what}", error)
            return
        kind = f"{'no TLS handshake' if in_handshake else 'connection ended'}: {type(error).__name__}"
        if not log.isEnabledFor(logging.INFO) or not self._admit(kind, kind, logging.INFO):
            return
        text = _one_line(error)
        fields = self._fields(client, peer, f"{type(error).__name__}: {text}", seconds)
        if in_handshake:
            log.info("no TLS handshake with %s: %s", fields["peer"], text, extra=fields)
        else:
            log.info("connection of %s ended: %s", fields["peer"], fields["error"], extra=fields)

    def _fields(self, client: BaseSocket, peer: Address, error: str, seconds: float) -> dict[str, object]:
        received, acknowledged = _traffic(client)
        return {
            "peer": format_address(peer),
            "local": format_address(self._local_of(client)),
            "error": error,
            "seconds": seconds,
            "bytes_in": received,
            "bytes_out": acknowledged,
        }

    def log_limit(self, event: str, client: BaseSocket, peer: Address, reason: str, seconds: float) -> None:
        """Log at INFO that a limit of the server has ended or refused a connection, unless too many of the kind were.

        Args:
            event: ``"ended"`` or ``"refused"``.
            client: the socket of the connection.
            peer: the address of the other side.
            reason: the limit, in words.
            seconds: since it was accepted.
        """
        kind = f"connection {event}: {reason}"
        if not log.isEnabledFor(logging.INFO) or not self._admit(kind, kind, logging.INFO):
            return
        fields = {**self._fields(client, peer, reason, seconds), "event": event}
        log.info("connection of %s %s: %s", fields["peer"], event, reason, extra=fields)

    def log_failure(self, text: str, error: BaseException) -> None:
        """Log a failure of the program with a traceback, unless too many of the kind were logged."""
        # Two errors of one type from two places are two kinds: a flood of one must not hide the other.
        kind = (type(error), *_raise_site(error))
        if self._admit(kind, f"handler failed: {type(error).__name__}", logging.ERROR):
            log.error("%s", text, exc_info=error)

    def flush(self) -> None:
        """Log the counts of the lines left out so far."""
        self._close_windows(None)

    def _admit(self, key: object, kind: str, level: int) -> bool:
        """Whether to log another line of this kind. Windows that are over are counted first."""
        now = time.monotonic()
        self._close_windows(now)
        while True:
            window = self._windows.get(key)
            if window is None:
                window = self._windows.setdefault(key, _Window(now, kind, level))
            number = next(window.numbers)
            # If the window was closed meanwhile, this event is in its total, or belongs to the next window.
            if window.total is None or number < window.total:
                return number < _MAX_LINES

    def _close_windows(self, now: float | None) -> None:
        for key, window in self._windows.copy().items():
            if now is not None and now - window.began < _WINDOW:
                continue
            if next(window.closers) == 0:
                del self._windows[key]
                window.total = next(window.numbers)
                self._count(window.kind, window.total - _MAX_LINES, window.level)

    def _count(self, kind: str, left_out: int, level: int) -> None:
        if left_out > 0:
            local = format_address(self._local)
            fields = {"local": local, "error": kind, "left_out": left_out}
            log.log(level, "%d more at %s were left out: %s", left_out, local, kind, extra=fields)

    def _local_of(self, client: BaseSocket) -> Address:
        try:
            return client.local_addr
        except OSError:  # closed already, by the handler
            return self._local


def _raise_site(error: BaseException) -> tuple[str, int]:
    """The file and line that raised an exception."""
    traceback = error.__traceback__
    if traceback is None:
        return "", 0
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno


def _one_line(error: BaseException) -> str:
    """The text of an error on one line: a peer that controls a part of it must not forge a log line."""
    leaves = list(_leaves(error))
    text = "; ".join(str(leaf) if leaf is error else f"{type(leaf).__name__}: {leaf}" for leaf in leaves)
    return "".join(character if character.isprintable() else " " for character in text)


def _traffic(client: BaseSocket) -> tuple[int | None, int | None]:
    """Bytes received, and sent bytes that the peer acknowledged (with TLS, of ciphertext); None if unknown."""
    try:
        with client._use("stats") as sock:
            return tcp_traffic(sock)
    except OSError:  # closed already, by the handler
        return None, None
