"""Errors of a command, their exit codes, and the one sentence that is printed for each.

Every ``OSError`` becomes a `Failure` where it is raised, because its meaning depends on the place: "no such
file" is an unreachable server when connecting, and a wrong path when listening. `classify` finds the exit code
and the sentence of a failure in the table below.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from wireline import ClosedError, DialError, LineTooLongError, SocketTimeout, Target
from wireline.cli import OUT_OF_DESCRIPTORS
from wireline.cli._printable import sanitize_for_terminal
from wireline.cli._stderr import print_stderr

if TYPE_CHECKING:
    import ssl

    from wireline.tls import Certificate


class ExitCode(enum.IntEnum):
    """The exit codes, as ``wireline --help`` lists them."""

    CLEAN = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMEOUT = 4
    HANDSHAKE = 5
    TRUNCATED = 6


class Stage(enum.Enum):
    """The part of a command in which an error occurred."""

    SETUP = enum.auto()
    CONNECT = enum.auto()
    LISTEN = enum.auto()
    ACCEPT = enum.auto()
    TALK = enum.auto()
    INPUT = enum.auto()
    OUTPUT = enum.auto()


class Failure(Exception):
    """An error caused by the system, the network, the peer or the user.

    Attributes:
        stage: the part of the command in which it occurred.
        cause: the error itself.
        subject: the target or the peer, as the user would write it.
    """

    def __init__(self, stage: Stage, cause: Exception, subject: str = "") -> None:
        super().__init__(stage, cause, subject)
        self.stage = stage
        self.cause = _root_cause(cause)
        self.subject = subject


class HandshakeFailure(OSError):
    """A TLS handshake failed.

    Attributes:
        error: the error that ``ssl`` raised.
        server: whether this side is the server.
        psk: whether this side has pre-shared keys.
        name: the name that the certificate was checked for.
        sent: the certificates that the peer sent, its own first; empty if they are not known.
        chain: the chain that OpenSSL built of them and refused; empty if it is not known.
        at_fault: the index in the chain of the certificate that OpenSSL refused; None if it is not known yet.
    """

    def __init__(
        self,
        error: ssl.SSLError,
        *,
        server: bool,
        psk: bool = False,
        name: str = "",
        sent: tuple[Certificate, ...] = (),
        chain: tuple[Certificate, ...] = (),
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.server = server
        self.psk = psk
        self.name = name
        self.sent = sent
        self.chain = chain
        self.at_fault: int | None = None

    @property
    def certificate(self) -> Certificate | None:
        """The peer's own certificate; None if it is not known."""
        return self.sent[0] if self.sent else None


class HandshakeTimeout(TimeoutError):
    """The peer accepted the connection and did not answer the TLS handshake in time."""


class UpgradeFailure(OSError):
    """The dialogue of ``--starttls`` did not lead to TLS. The text is a predicate: "does not offer STARTTLS".

    Attributes:
        code: the exit code.
    """

    def __init__(self, code: ExitCode, predicate: str) -> None:
        super().__init__(predicate)
        self.code = code


class InputRefused(ConnectionError):
    """The peer closed the connection before it received all of the input."""


class Outcome(NamedTuple):
    """An exit code, and a sentence for standard error; it is empty where users expect no message."""

    code: ExitCode
    sentence: str = ""


class ReportedFailure(Exception):
    """A command failed, and its outcome is known already.

    Attributes:
        outcome: the exit code, and a sentence that is still to be printed, if any.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


_REFUSED = (
    "{subject} refused the connection: nothing listens there; check the address, or start the server first"
)
_NO_ANSWER = "no answer from {subject}: {reason}; check the address, or wait longer with --timeout"
_NO_HANDSHAKE = (
    "{subject} accepted the connection and sent no TLS handshake {reason}: it may not use TLS on this port; "
    "check the port, or wait longer with --timeout"
)
_UNKNOWN_NAME = "cannot find {subject}: {reason}; check the name"

# The first row that matches counts. `{reason}` is the text of the error.
_TABLE: tuple[tuple[Stage, type[Exception], ExitCode, str], ...] = (
    (Stage.SETUP, Exception, ExitCode.FAILED, "cannot use TLS: {reason}"),
    (Stage.CONNECT, socket.gaierror, ExitCode.UNREACHABLE, _UNKNOWN_NAME),
    # Not a valid name: an empty or too long label, or characters that IDNA does not encode.
    (Stage.CONNECT, UnicodeError, ExitCode.UNREACHABLE, _UNKNOWN_NAME),
    (
        Stage.CONNECT,
        HandshakeTimeout,
        ExitCode.TIMEOUT,
        _NO_HANDSHAKE,
    ),
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
    (
        Stage.ACCEPT,
        TimeoutError,
        ExitCode.TIMEOUT,
        "no client on {subject}: {reason}; wait longer with --timeout",
    ),
    (Stage.ACCEPT, Exception, ExitCode.FAILED, "cannot accept a connection on {subject}: {reason}"),
    (Stage.TALK, TimeoutError, ExitCode.TIMEOUT, "{subject} timed out: {reason}"),
    (Stage.TALK, ConnectionRefusedError, ExitCode.UNREACHABLE, _REFUSED),
    (
        Stage.TALK,
        InputRefused,
        ExitCode.TRUNCATED,
        "{subject} closed the connection before it received all of the input",
    ),
    (
        Stage.TALK,
        ConnectionError,
        ExitCode.TRUNCATED,
        "the connection with {subject} broke: {reason}; the data is incomplete",
    ),
    (Stage.TALK, LineTooLongError, ExitCode.FAILED, "{subject} sent a line that is too long: {reason}"),
    (Stage.TALK, Exception, ExitCode.FAILED, "communication with {subject} failed: {reason}"),
    (Stage.INPUT, Exception, ExitCode.FAILED, "cannot read standard input: {reason}"),
    # With `| head -1` the user has seen enough. curl prints an error and netcat dies of SIGPIPE: both are failures.
    (Stage.OUTPUT, BrokenPipeError, ExitCode.FAILED, ""),
    (Stage.OUTPUT, Exception, ExitCode.FAILED, "cannot write to standard output: {reason}"),
)

_ADVICE = {
    errno.EADDRINUSE: "stop the program that uses it, or listen on port 0 to get a free port",
    errno.EADDRNOTAVAIL: "use an address of this machine",
    errno.EMSGSIZE: "send less at a time",
    errno.ENODEV: "name the interface of the multicast group with --interface",
    errno.EMFILE: "raise the limit of open files with 'ulimit -n'",
    errno.ENETUNREACH: "check the address, and the network of this machine",
    errno.EHOSTUNREACH: "check the address, and the network of this machine",
}

_LISTEN_ADVICE = _ADVICE | {
    errno.EACCES: "ports below 1024 need privileges: listen on a higher one",
    errno.EINVAL: "an address that begins with fe80: needs its interface, as in [fe80::1%eth0]:80",
}

_CONNECT_ADVICE = _ADVICE | {
    errno.EADDRNOTAVAIL: "--source needs an address of this machine, and of the same kind as the target's",
    errno.EADDRINUSE: "another connection uses the port of --source",
    errno.EACCES: "a firewall of this machine forbids it",
    errno.EINVAL: "an address that begins with fe80: needs its interface, as in [fe80::1%eth0]:80",
}
_ADVICE_AT = {Stage.LISTEN: _LISTEN_ADVICE, Stage.CONNECT: _CONNECT_ADVICE}

# On a Unix socket these errors are about its file.
_UNIX_SOCKET_ADVICE = _ADVICE | {
    errno.ENOTDIR: "a part of the path is a file",
    errno.EACCES: "this user may not use the file, or a directory above it",
    errno.EADDRINUSE: "stop the program that listens there, or remove its socket if there is none; choose another path "
    "if the file is no socket",
    errno.ENOENT: "make the directory first",
    errno.EPROTOTYPE: "streams are unix:, datagrams are unix-dgram:",
}


# What did not happen during a method of the library, whose name says nothing to a user.
_MISSED = {
    "recv_some": "no data received",
    "recv_from": "no datagram received",
    "send": "no data accepted",
    "send_to": "no data accepted",
    "accept": "no connection",
    "accept_addr": "no connection",
    "dial": "no connection",
    "connect": "no connection",
}


def classify(error: Exception) -> Outcome:
    """Return the exit code and the sentence of an error that ended a command."""
    if isinstance(error, ReportedFailure):
        return error.outcome
    if isinstance(error, Failure):
        return _classify_failure(error)
    if is_out_of_descriptors(error):
        return Outcome(ExitCode.FAILED, OUT_OF_DESCRIPTORS)
    sentence = f"this is a bug in wireline: {type(error).__name__}: {error}; --debug shows where"
    return Outcome(ExitCode.FAILED, sentence)


def _classify_failure(failure: Failure) -> Outcome:
    cause = failure.cause
    if isinstance(cause, UpgradeFailure):
        return Outcome(cause.code, f"{failure.subject} {cause}")
    if "ssl" in sys.modules:  # without TLS it is not imported, and then the error is not about TLS
        from wireline.cli import _tls_failures

        outcome = _tls_failures.classify(failure)
        if outcome is not None:
            return outcome
    code, template = next(
        (code, template)
        for stage, kind, code, template in _TABLE
        if stage is failure.stage and isinstance(cause, kind)
    )
    if is_out_of_descriptors(cause):  # whatever the peer is like
        code = ExitCode.FAILED
    reason = _reason(cause, _advice(failure))
    return Outcome(code, template.format(subject=failure.subject, reason=reason))


def is_out_of_descriptors(error: Exception) -> bool:
    """Whether the process has too many open files. The file that was one too many may be any, such as a module."""
    return isinstance(error, OSError) and error.errno == errno.EMFILE


def _advice(failure: Failure) -> Mapping[int, str]:
    if failure.subject.startswith(("unix:", "unix-dgram:")) and failure.stage in (
        Stage.LISTEN,
        Stage.CONNECT,
    ):
        return _UNIX_SOCKET_ADVICE
    return _ADVICE_AT.get(failure.stage, _ADVICE)


def _root_cause(error: Exception) -> Exception:
    """The error of every attempt of a dial, if all are the same; otherwise the error itself."""
    if isinstance(error, DialError) and len({attempt.errno for _, attempt, _ in error.attempts}) == 1:
        return error.attempts[0][1]
    return error


def _reason(error: Exception, advice_on: Mapping[int, str]) -> str:
    """The text of an error without its number, and with advice if there is some."""
    if isinstance(error, DialError):
        return "; ".join(f"{sockaddr[0]}: {_reason(failed, {})}" for sockaddr, failed, _ in error.attempts)
    if isinstance(error, UnicodeError):  # the text of the codec names positions
        return "between two dots there is nothing, or more than 63 characters"
    if not isinstance(error, OSError):
        return str(error)
    if isinstance(error, SocketTimeout):
        return f"{_MISSED.get(error.operation, 'nothing')} within {error.seconds:g} s"
    words = error.strerror or str(error)
    if words.startswith("local_addr "):  # the name in the library
        return "--source is an address of another kind (IPv4, IPv6) than the target's"
    if isinstance(error.filename, str) and error.errno and not is_out_of_descriptors(error):
        words = f"{error.filename}: {words}"
    advice = advice_on.get(error.errno or 0)
    return f"{words}; {advice}" if advice else words


@contextlib.contextmanager
def during(stage: Stage, subject: Target | str) -> Iterator[None]:
    """Raise an error of the block as a `Failure` of this stage.

    That is an ``OSError``; a ``ValueError``, for a host that is not valid; an ``ImportError`` or
    ``NotImplementedError``, for a missing package or feature. ``ClosedError`` is not a failure: this side closed the
    socket.
    """
    try:
        yield
    except ClosedError:
        raise
    except (OSError, ValueError, ImportError, NotImplementedError) as error:
        raise Failure(stage, error, str(subject)) from error


def report(error: Exception, *, debug: bool = False) -> ExitCode:
    """Print the sentence of an error on standard error, and return the exit code."""
    code, sentence = classify(error)
    if debug:
        import traceback  # only --debug needs it

        print_stderr("".join(traceback.format_exception(error)).rstrip())
    if sentence:
        print_stderr(f"wireline: {sanitize_for_terminal(sentence)}")
    return code
