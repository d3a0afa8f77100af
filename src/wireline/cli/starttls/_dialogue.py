"""What a dialogue reads and sends, within limits: the server is not authenticated yet, and may send anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wireline import Deadline, LineTooLongError, SocketTimeout
from wireline.cli._outcome import ExitCode, UpgradeFailure
from wireline.cli._printable import sanitize_for_terminal

if TYPE_CHECKING:
    from wireline.net import Socket

_MAX_LINE = 8192
"""Bytes of a line, a tag of XML or a binary message: several times the limit of any of these protocols."""

_MAX_MESSAGES = 500
"""Lines, tags and messages of one dialogue. A guess: the greetings of FTP servers are the longest texts."""

_MAX_QUOTE = 120
"""Characters of a server's text in an error."""


class WrongProtocolError(Exception):
    """The server does not speak the protocol. The text is a predicate: "does not greet as an SMTP server"."""


class Dialogue:
    """The bytes in both directions until TLS starts, under one deadline.

    If the server ends the connection, each method raises an ``EOFError`` or a ``ConnectionError``.

    Attributes:
        server_name: the name of the server.
    """

    def __init__(self, sock: Socket, server_name: str, deadline: Deadline) -> None:
        self.server_name = server_name
        self._sock = sock
        self._deadline = deadline
        self._left = _MAX_MESSAGES

    @property
    def address_literal(self) -> str:
        """The address of this side as SMTP writes it (RFC 5321, 4.1.3)."""
        host = self._sock.local_addr.host.partition("%")[0]
        return f"[IPv6:{host}]" if ":" in host else f"[{host or '127.0.0.1'}]"

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self._sock.send(data, timeout=self._deadline)

    def read_line(self) -> str:
        """Read a line, without its end."""
        self._count()
        try:
            line = self._sock.recv_line(self._deadline, max_length=_MAX_LINE, on_long="raise")
        except LineTooLongError as error:
            raise _too_long() from error
        if not line:
            raise EOFError
        return _text(line.strip(b"\r\n"))

    def read_tag(self) -> str:
        """Skip to the next tag of XML, and read it: from ``<`` to the first ``>`` outside of quotes."""
        self._count()
        tag, quote = b"", 0
        try:
            while not tag or quote:
                piece = self._sock.recv_until(b">", _MAX_LINE - len(tag), self._deadline)
                piece = piece if tag else piece[piece.find(b"<") :]
                tag, quote = tag + piece, _open_quote(piece, quote)
                if len(tag) == _MAX_LINE:
                    raise _too_long()
        except LineTooLongError as error:
            raise _too_long() from error
        return _text(tag)

    def read_exactly(self, size: int) -> bytes:
        """Read ``size`` bytes, which a length of the server may have named."""
        self._count()
        if size > _MAX_LINE:
            raise WrongProtocolError(f"announces {size} bytes at once")
        return self._sock.recv_exactly(size, self._deadline)

    def end(self) -> None:
        """Check that nothing followed the server's last answer.

        The client begins TLS. Bytes of the server before that were not protected, and anyone on the network path may
        have inserted them: they must not count as an answer within TLS (CVE-2011-0411, CVE-2021-23222).
        """
        try:
            injected = self._sock.recv_some(_MAX_QUOTE, 0)
        except SocketTimeout:
            return
        if not injected:
            raise EOFError
        words = "sent more without TLS after it had agreed to TLS, which anyone on the network path may have inserted"
        raise UpgradeFailure(ExitCode.HANDSHAKE, _with_answer(words, _text(injected)))

    def _count(self) -> None:
        if not self._left:
            raise WrongProtocolError(f"does not come to TLS within {_MAX_MESSAGES} lines or messages")
        self._left -= 1


def require_protocol(condition: bool, problem: str, text: str) -> None:
    """Refuse to go on if an answer is not one of the protocol; ``text`` is the answer.

    Raises:
        WrongProtocolError: the condition is false.
    """
    if not condition:
        raise WrongProtocolError(_with_answer(problem, text))


def require_offer(condition: bool, text: str, problem: str = "does not offer STARTTLS") -> None:
    """Refuse to go on if the server does not offer TLS.

    Raises:
        UpgradeFailure: the condition is false.
    """
    if not condition:
        advice = "switch TLS on there, or try a port that begins with it (tls://host:port)"
        raise UpgradeFailure(ExitCode.HANDSHAKE, f"{_with_answer(problem, text)}; {advice}")


def require_agreement(condition: bool, problem: str, text: str) -> None:
    """Refuse to go on if the server does not agree to TLS now.

    Raises:
        UpgradeFailure: the condition is false.
    """
    if not condition:
        raise UpgradeFailure(
            ExitCode.HANDSHAKE, f"{_with_answer(problem, text)}; see its configuration or its log"
        )


def _with_answer(problem: str, text: str) -> str:
    return f"{problem}: it sent '{sanitize_for_terminal(text, _MAX_QUOTE)}'" if text else problem


def _too_long() -> WrongProtocolError:
    return WrongProtocolError(f"sent a line of more than {_MAX_LINE} bytes")


def _text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")


def _open_quote(tag: bytes, quote: int) -> int:
    """The quote that is open at the end of a part of a tag, 0 if none is; ``quote`` is open at its beginning."""
    for byte in tag:
        if byte == quote:
            quote = 0
        elif not quote and byte in b"'\"":
            quote = byte
    return quote
