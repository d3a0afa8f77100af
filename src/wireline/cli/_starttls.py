"""The few words before TLS begins, where a protocol begins in clear (STARTTLS).

Each dialogue is the shortest that its document allows: RFC 3207 (SMTP), RFC 9051 section 6.2.1 (IMAP), RFC 2595
section 4 (POP3), RFC 4217 (FTP), and "SSL Session Encryption" in PostgreSQL's manual, part "Message Flow".
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from wireline import LineTooLongError, SocketTimeout
from wireline.net import Socket

_LONGEST_LINE = 8192
"""Bytes. Several times what any of these protocols allows."""

_MOST_LINES = 200
"""Of one reply. A guess: greetings of FTP servers are the longest there are."""

_LONGEST_QUOTE = 120

_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
"""Its length, 8, and the number 80877103 in place of a version of the protocol."""


class UpgradeRefusedError(OSError):
    """The server does not want TLS, or does not speak the protocol; the message completes "SERVER ..."."""


class HungUpError(ConnectionError):
    """The server ended the connection in the middle of the dialogue."""


def begin(sock: Socket, protocol: str, timeout: float) -> None:
    """Talk to the server until both sides are ready for the handshake.

    Args:
        sock: connected, nothing was read from it yet.
        protocol: one of `PROTOCOLS`.
        timeout: seconds for all of it.

    Raises:
        UpgradeRefusedError: the server does not want to.
        HungUpError: it went away.
        TimeoutError: the time is up.
    """
    try:
        _DIALOGUES[protocol](_Dialogue(sock, timeout))
    except SocketTimeout as error:
        raise TimeoutError(f"nothing was agreed on by {protocol} within {timeout:g} s") from error


class _Dialogue:
    """Lines there and back, under one deadline."""

    def __init__(self, sock: Socket, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self._end = monotonic() + timeout

    @property
    def here(self) -> str:
        """This side's address, as SMTP writes those that have no name (RFC 5321, 4.1.3)."""
        host = self._sock.local_addr.host.partition("%")[0]
        return f"[IPv6:{host}]" if ":" in host else f"[{host or '127.0.0.1'}]"

    def say(self, data: bytes) -> None:
        self._sock.send(data, timeout=self._left())

    def line(self) -> str:
        try:
            line = self._sock.recv_line(self._left(), max_length=_LONGEST_LINE, on_long="raise")
        except LineTooLongError as error:
            raise UpgradeRefusedError(f"does not speak this protocol: {error}") from error
        if not line:
            raise HungUpError("hung up before TLS")
        return line.strip(b"\r\n").decode("ascii", "backslashreplace")

    def byte(self) -> bytes:
        data = self._sock.recv_some(1, self._left())
        if not data:
            raise HungUpError("hung up before TLS")
        return data

    def reply(self) -> list[str]:
        """A reply of SMTP or FTP: lines up to one that begins with the first one's code and a blank (RFC 959, 4.2)."""
        lines = [self.line()]
        last = lines[0][:3] + " "
        if lines[0][3:4] == "-":
            while not lines[-1].startswith(last):
                self._grow(lines)
        return lines

    def tagged(self, tag: str) -> list[str]:
        """An answer of IMAP: lines up to the one with the tag (RFC 9051, 2.2.2)."""
        lines = [self.line()]
        while not lines[-1].startswith(f"{tag} "):
            self._grow(lines)
        return lines

    def _grow(self, lines: list[str]) -> None:
        if len(lines) == _MOST_LINES:
            raise UpgradeRefusedError(
                f"does not come to an end: {_quoted(lines[0])} and {_MOST_LINES} lines more"
            )
        lines.append(self.line())

    def _left(self) -> float:
        left = self._end - monotonic()
        if left <= 0:
            raise SocketTimeout("the dialogue before TLS", self._timeout)
        return left


def _expect(holds: bool, what: str, line: str) -> None:
    if not holds:
        raise UpgradeRefusedError(f"{what}: it said {_quoted(line)}")


def _quoted(line: str) -> str:
    clean = "".join(character if character.isprintable() else "?" for character in line)
    return repr(clean if len(clean) <= _LONGEST_QUOTE else f"{clean[:_LONGEST_QUOTE]}...")


def _smtp(server: _Dialogue) -> None:
    greeting = server.reply()[-1]
    _expect(greeting.startswith("220"), "does not greet as an SMTP server", greeting)
    server.say(f"EHLO {server.here}\r\n".encode())
    lines = server.reply()
    _expect(lines[-1].startswith("250"), "does not know EHLO", lines[-1])
    offered = any(line[4:].strip().upper() == "STARTTLS" for line in lines[1:])
    _expect(offered, "does not offer STARTTLS", lines[-1])
    server.say(b"STARTTLS\r\n")
    answer = server.reply()[-1]
    _expect(answer.startswith("220"), "refuses STARTTLS", answer)


def _imap(server: _Dialogue) -> None:
    greeting = server.line()
    # After PREAUTH it is too late: STARTTLS is for who is not authenticated yet.
    _expect(
        greeting.upper().startswith("* OK"), "does not greet as an IMAP server that has STARTTLS", greeting
    )
    server.say(b"a1 CAPABILITY\r\n")
    lines = server.tagged("a1")
    offered = any("STARTTLS" in line.upper().split() for line in lines if line.startswith("* "))
    _expect(offered, "does not offer STARTTLS", lines[0])
    server.say(b"a2 STARTTLS\r\n")
    answer = server.tagged("a2")[-1]
    _expect(answer.upper().startswith("A2 OK"), "refuses STARTTLS", answer)


def _pop3(server: _Dialogue) -> None:
    greeting = server.line()
    _expect(greeting.startswith("+OK"), "does not greet as a POP3 server", greeting)
    server.say(b"STLS\r\n")
    answer = server.line()
    _expect(answer.startswith("+OK"), "refuses STLS", answer)


def _ftp(server: _Dialogue) -> None:
    greeting = server.reply()[-1]
    while greeting.startswith("120"):  # ready in so many minutes
        greeting = server.reply()[-1]
    _expect(greeting.startswith("220"), "does not greet as an FTP server", greeting)
    server.say(b"AUTH TLS\r\n")
    answer = server.reply()[-1]
    _expect(answer.startswith("234"), "refuses AUTH TLS", answer)


def _postgres(server: _Dialogue) -> None:
    server.say(_SSL_REQUEST)
    # One byte and no more: what comes behind it in clear must not be taken for something that was protected.
    answer = server.byte().decode("ascii", "backslashreplace")
    _expect(answer != "N", "has TLS switched off", answer)
    _expect(answer == "S", "does not answer as a PostgreSQL server", answer)


_DIALOGUES: dict[str, Callable[[_Dialogue], None]] = {
    "smtp": _smtp,
    "imap": _imap,
    "pop3": _pop3,
    "ftp": _ftp,
    "postgres": _postgres,
}

PROTOCOLS = tuple(_DIALOGUES)
"""What `begin` knows."""
