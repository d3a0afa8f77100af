"""What can happen to a command, what that is worth as an exit code, and the one sentence that the user gets.

Every ``OSError`` is raised to a `Failure` where it happens, because only there one knows what was being done: the
same "no such file" is an unreachable server when connecting, and a wrong path when listening. `judge` looks a
failure up in the one table below.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from wireline import ClosedError, DialError, LineTooLongError, Target

if TYPE_CHECKING:
    import ssl

    from wireline.tls import Certificate


class ExitCode(enum.IntEnum):
    """What a script may act on."""

    CLEAN = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4
    HANDSHAKE = 5
    TRUNCATED = 6


class Stage(enum.Enum):
    """What the command was doing when it failed."""

    SETUP = enum.auto()
    CONNECT = enum.auto()
    LISTEN = enum.auto()
    ACCEPT = enum.auto()
    TALK = enum.auto()
    INPUT = enum.auto()
    OUTPUT = enum.auto()


class Failure(Exception):
    """Something that the system, the network, the peer or the user did.

    Attributes:
        stage: what was being done.
        cause: the error that ended it.
        subject: the target or the peer, as the user would write it.
    """

    def __init__(self, stage: Stage, cause: Exception, subject: str = "") -> None:
        super().__init__(stage, cause, subject)
        self.stage = stage
        self.cause = _essence(cause)
        self.subject = subject


class HandshakeFailure(OSError):
    """No TLS came of a connection.

    Attributes:
        error: why, in the words of ``ssl``.
        server: whether we are the server.
        psk: whether there are pre-shared keys on our side.
        name: what the certificate was checked for.
        certificate: what the peer showed; None if it was nothing, or if that cannot be known.
    """

    def __init__(
        self,
        error: ssl.SSLError,
        *,
        server: bool,
        psk: bool = False,
        name: str = "",
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.server = server
        self.psk = psk
        self.name = name
        self.certificate = certificate


class InputRefused(ConnectionError):
    """The peer closed the connection before it had taken all of the input."""


class Outcome(NamedTuple):
    """An exit code, and a sentence for standard error; no sentence where silence is what users expect."""

    code: ExitCode
    sentence: str = ""


class Verdict(Exception):
    """What a command found out, and has told already, was not good.

    Attributes:
        outcome: what it is worth.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


_REFUSED = (
    "{subject} refused the connection: nothing listens there; check the address, or start the server first"
)
_NO_ANSWER = "no answer from {subject}: {reason}; check the address, or wait longer with --timeout"
_UNKNOWN_NAME = "cannot find {subject}: {reason}; check the name"

# The first row that fits counts. `{reason}` is the error's own words.
_TABLE: tuple[tuple[Stage, type[Exception], ExitCode, str], ...] = (
    (Stage.SETUP, Exception, ExitCode.FAILED, "cannot use TLS: {reason}"),
    (Stage.CONNECT, socket.gaierror, ExitCode.UNREACHABLE, _UNKNOWN_NAME),
    # No name at all: a label that is empty or too long, or letters that no name has.
    (Stage.CONNECT, UnicodeError, ExitCode.UNREACHABLE, _UNKNOWN_NAME),
    (Stage.CONNECT, TimeoutError, ExitCode.TIMEOUT, _NO_ANSWER),
    (Stage.CONNECT, ConnectionRefusedError, ExitCode.UNREACHABLE, _REFUSED),
    (
        Stage.CONNECT,
        FileNotFoundError,
        ExitCode.UNREACHABLE,
        "{subject} does not exist; start the server first",
    ),
    (Stage.CONNECT, Exception, ExitCode.UNREACHABLE, "cannot connect to {subject}: {reason}"),
    (Stage.LISTEN, socket.gaierror, ExitCode.UNREACHABLE, _UNKNOWN_NAME),
    (Stage.LISTEN, UnicodeError, ExitCode.UNREACHABLE, _UNKNOWN_NAME),
    (Stage.LISTEN, Exception, ExitCode.FAILED, "cannot listen on {subject}: {reason}"),
    (Stage.ACCEPT, TimeoutError, ExitCode.TIMEOUT, "nobody came to {subject}: {reason}"),
    (Stage.ACCEPT, Exception, ExitCode.FAILED, "cannot accept a connection on {subject}: {reason}"),
    (Stage.TALK, TimeoutError, ExitCode.TIMEOUT, "{subject} fell silent: {reason}"),
    (Stage.TALK, ConnectionRefusedError, ExitCode.UNREACHABLE, _REFUSED),
    (Stage.TALK, InputRefused, ExitCode.TRUNCATED, "{subject} hung up before it had taken all of the input"),
    (
        Stage.TALK,
        ConnectionError,
        ExitCode.TRUNCATED,
        "{subject} broke off: {reason}; the data is incomplete",
    ),
    (Stage.TALK, LineTooLongError, ExitCode.FAILED, "{subject} sent a line that is too long: {reason}"),
    (Stage.TALK, Exception, ExitCode.FAILED, "lost {subject}: {reason}"),
    (Stage.INPUT, Exception, ExitCode.FAILED, "cannot read standard input: {reason}"),
    # `| head -1` has what it wanted. curl says so and netcat dies of SIGPIPE; both are failures to a script.
    (Stage.OUTPUT, BrokenPipeError, ExitCode.FAILED, ""),
    (Stage.OUTPUT, Exception, ExitCode.FAILED, "cannot write to standard output: {reason}"),
)

_ADVICE = {
    errno.EADDRINUSE: "end the program that has it, or listen on port 0 to be given a free one",
    errno.EADDRNOTAVAIL: "use an address of this machine",
    errno.EACCES: "ports below 1024 and other users' files need privileges",
    errno.EMSGSIZE: "send less at a time",
    errno.EMFILE: "let it open more of them with 'ulimit -n'",
    errno.ENETUNREACH: "check the address, and this machine's network",
    errno.EHOSTUNREACH: "check the address, and this machine's network",
}

# Of a Unix socket it is a file that is there, or is not.
_ADVICE_ON_FILES = _ADVICE | {
    errno.EADDRINUSE: "end the program that listens there, or remove the file if there is none",
    errno.ENOENT: "make the directory first",
}


def judge(error: Exception) -> Outcome:
    """Say what the end of a command by ``error`` is worth."""
    if isinstance(error, Verdict):
        return error.outcome
    if isinstance(error, Failure):
        return _look_up(error)
    sentence = f"this is a bug in wireline: {type(error).__name__}: {error}; --debug shows where"
    return Outcome(ExitCode.FAILED, sentence)


def _look_up(failure: Failure) -> Outcome:
    cause = failure.cause
    if "ssl" in sys.modules:  # who did not ask for TLS has not loaded it
        from wireline.cli import _tls_outcome

        outcome = _tls_outcome.look_up(failure)
        if outcome is not None:
            return outcome
    code, template = next(
        (code, template)
        for stage, kind, code, template in _TABLE
        if stage is failure.stage and isinstance(cause, kind)
    )
    of_a_file = failure.stage is Stage.LISTEN and failure.subject.startswith("unix:")
    reason = _reason(cause, _ADVICE_ON_FILES if of_a_file else _ADVICE)
    return Outcome(code, template.format(subject=failure.subject, reason=reason))


def _essence(error: Exception) -> Exception:
    """The error itself, or what all attempts of a dial agree on."""
    if isinstance(error, DialError) and len({attempt.errno for _, attempt, _ in error.attempts}) == 1:
        return error.attempts[0][1]
    return error


def _reason(error: Exception, advice_on: Mapping[int, str]) -> str:
    """An error in words: without its number, with advice where there is some."""
    if isinstance(error, DialError):
        return "; ".join(f"{sockaddr[0]}: {_reason(failed, {})}" for sockaddr, failed, _ in error.attempts)
    if not isinstance(error, OSError):
        return str(error)
    words = error.strerror or str(error)
    if isinstance(error.filename, str) and error.errno:
        words = f"{error.filename}: {words}"
    advice = advice_on.get(error.errno or 0)
    return f"{words}; {advice}" if advice else words


@contextlib.contextmanager
def during(stage: Stage, subject: Target | str) -> Iterator[None]:
    """Raise an ``OSError`` of the block to a `Failure`, and a ``ValueError``, which is what a host may be refused with.

    So is what this interpreter cannot do, or lacks a package for. A socket that was closed on this side is no failure.
    """
    try:
        yield
    except ClosedError:
        raise
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        raise Failure(stage, error, str(subject)) from error


def report(error: Exception, *, debug: bool = False) -> ExitCode:
    """Tell the user on standard error, and return the exit code."""
    code, sentence = judge(error)
    if debug:
        say("".join(traceback.format_exception(error)).rstrip())
    if sentence:
        say(f"wireline: {sentence}")
    return code


def say(line: str) -> None:
    """Write a line to standard error, at once; to nobody if that is closed."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (AttributeError, OSError):
        # `2>&-` makes `sys.stderr` None. There is no better place to complain, and the exit code still tells.
        pass
