"""The dialogue before TLS in protocols that start without it (STARTTLS).

Each dialogue is the shortest that its specification allows: RFC 3207 (SMTP), RFC 9051 section 6.2.1 (IMAP), RFC 2595
section 4 (POP3), RFC 4217 (FTP), and "SSL Session Encryption" in the chapter "Message Flow" of PostgreSQL's manual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wireline import Deadline, LineTooLongError, SocketTimeout

if TYPE_CHECKING:
    from wireline.net import Socket

_MAX_LINE = 8192
"""Bytes: several times the limit of any of these protocols."""

_MAX_REPLY_LINES = 200
"""Lines of one reply. A guess: the greetings of FTP servers are the longest replies."""

_MAX_QUOTE = 120
"""Characters of a server's line in an error."""

_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
"""The length, 8, and the number 80877103 where other messages have the version of the protocol."""


class UpgradeRefusedError(OSError):
    """The server refuses TLS, or does not speak the protocol. The text is a predicate: "does not offer STARTTLS"."""


class DisconnectedError(ConnectionError):
    """The server closed the connection during the dialogue."""


def begin(sock: Socket, protocol: str, timeout: float) -> None:
    """Talk to the server until both sides are ready for the handshake.

    Args:
        sock: connected; nothing was read from it.
        protocol: one of `PROTOCOLS`.
        timeout: seconds for the whole dialogue.

    Raises:
        UpgradeRefusedError: the server refuses TLS.
        DisconnectedError: the server closed the connection.
        TimeoutError: the dialogue took too long.
    """
    try:
        _DIALOGUES[protocol](_Dialogue(sock, timeout))
    except SocketTimeout as error:
        raise TimeoutError(
            f"the {protocol} dialogue before TLS did not finish within {timeout:g} s"
        ) from error


class _Dialogue:
    """Lines in both directions, under one deadline."""

    def __init__(self, sock: Socket, timeout: float) -> None:
        self._sock = sock
        self._deadline = Deadline(timeout)

    @property
    def address_literal(self) -> str:
        """The address of this side as SMTP writes it (RFC 5321, 4.1.3)."""
        host = self._sock.local_addr.host.partition("%")[0]
        return f"[IPv6:{host}]" if ":" in host else f"[{host or '127.0.0.1'}]"

    def send(self, data: bytes) -> None:
        self._sock.send(data, timeout=self._deadline)

    def read_line(self) -> str:
        try:
            line = self._sock.recv_line(self._deadline, max_length=_MAX_LINE, on_long="raise")
        except LineTooLongError as error:
            raise UpgradeRefusedError(f"does not speak this protocol: {error}") from error
        if not line:
            raise DisconnectedError("closed the connection before TLS")
        return line.strip(b"\r\n").decode("ascii", "backslashreplace")

    def read_byte(self) -> bytes:
        data = self._sock.recv_some(1, self._deadline)
        if not data:
            raise DisconnectedError("closed the connection before TLS")
        return data

    def read_reply(self) -> list[str]:
        """A reply of SMTP or FTP. Its last line begins with the code of the first and a space (RFC 959, 4.2)."""
        lines = [self.read_line()]
        last = lines[0][:3] + " "
        if lines[0][3:4] == "-":
            while not lines[-1].startswith(last):
                self._append_line(lines)
        return lines

    def read_until_tag(self, tag: str) -> list[str]:
        """A response of IMAP. Its last line begins with the tag (RFC 9051, 2.2.2)."""
        lines = [self.read_line()]
        while not lines[-1].startswith(f"{tag} "):
            self._append_line(lines)
        return lines

    def _append_line(self, lines: list[str]) -> None:
        if len(lines) == _MAX_REPLY_LINES:
            raise UpgradeRefusedError(
                f"sent a reply of more than {_MAX_REPLY_LINES} lines: {_quoted(lines[0])} and so on"
            )
        lines.append(self.read_line())


def _require(condition: bool, problem: str, line: str) -> None:
    if not condition:
        raise UpgradeRefusedError(f"{problem}: it sent {_quoted(line)}")


def _quoted(line: str) -> str:
    from wireline.cli._stdio import sanitize_for_terminal

    return repr(sanitize_for_terminal(line, _MAX_QUOTE))


def _smtp(server: _Dialogue) -> None:
    greeting = server.read_reply()[-1]
    _require(greeting.startswith("220"), "does not greet as an SMTP server", greeting)
    server.send(f"EHLO {server.address_literal}\r\n".encode())
    lines = server.read_reply()
    _require(lines[-1].startswith("250"), "does not know EHLO", lines[-1])
    offered = any(line[4:].strip().upper() == "STARTTLS" for line in lines[1:])
    _require(offered, "does not offer STARTTLS", lines[-1])
    server.send(b"STARTTLS\r\n")
    answer = server.read_reply()[-1]
    _require(answer.startswith("220"), "refuses STARTTLS", answer)


def _imap(server: _Dialogue) -> None:
    greeting = server.read_line()
    # After PREAUTH the connection is authenticated, and STARTTLS is not allowed any more.
    _require(
        greeting.upper().startswith("* OK"), "does not greet as an IMAP server that has STARTTLS", greeting
    )
    server.send(b"a1 CAPABILITY\r\n")
    lines = server.read_until_tag("a1")
    offered = any("STARTTLS" in line.upper().split() for line in lines if line.startswith("* "))
    _require(offered, "does not offer STARTTLS", lines[0])
    server.send(b"a2 STARTTLS\r\n")
    answer = server.read_until_tag("a2")[-1]
    _require(answer.upper().startswith("A2 OK"), "refuses STARTTLS", answer)


def _pop3(server: _Dialogue) -> None:
    greeting = server.read_line()
    _require(greeting.startswith("+OK"), "does not greet as a POP3 server", greeting)
    server.send(b"STLS\r\n")
    answer = server.read_line()
    _require(answer.startswith("+OK"), "refuses STLS", answer)


def _ftp(server: _Dialogue) -> None:
    greeting = server.read_reply()[-1]
    while greeting.startswith("120"):  # "service ready in nnn minutes"
        greeting = server.read_reply()[-1]
    _require(greeting.startswith("220"), "does not greet as an FTP server", greeting)
    server.send(b"AUTH TLS\r\n")
    answer = server.read_reply()[-1]
    _require(answer.startswith("234"), "refuses AUTH TLS", answer)


def _postgres(server: _Dialogue) -> None:
    server.send(_SSL_REQUEST)
    # Only one byte: further plaintext must not be taken for decrypted data (CVE-2021-23222).
    answer = server.read_byte().decode("ascii", "backslashreplace")
    _require(answer != "N", "has TLS switched off", answer)
    _require(answer == "S", "does not answer as a PostgreSQL server", answer)


_DIALOGUES: dict[str, Callable[[_Dialogue], None]] = {
    "smtp": _smtp,
    "imap": _imap,
    "pop3": _pop3,
    "ftp": _ftp,
    "postgres": _postgres,
}

PROTOCOLS = tuple(_DIALOGUES)
"""The protocols of `begin`."""
