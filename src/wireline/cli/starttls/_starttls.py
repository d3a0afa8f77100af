"""From a connection without TLS to the moment at which both sides are ready for the handshake."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wireline import Deadline, SocketTimeout
from wireline.cli._outcome import ExitCode, UpgradeFailure
from wireline.cli.starttls import _binary, _text, _xmpp
from wireline.cli.starttls._dialogue import Dialogue, WrongProtocolError

if TYPE_CHECKING:
    from wireline.net import Socket

TIMEOUT = 60.0
"""Seconds for a dialogue without ``--timeout``: against spam, mail servers delay their greeting by half a minute."""

DIALOGUES: dict[str, Callable[[Dialogue], None]] = {
    "smtp": _text.smtp,
    "lmtp": _text.lmtp,
    "imap": _text.imap,
    "pop3": _text.pop3,
    "sieve": _text.sieve,
    "ftp": _text.ftp,
    "nntp": _text.nntp,
    "irc": _text.irc,
    "xmpp": _xmpp.xmpp,
    "ldap": _binary.ldap,
    "postgres": _binary.postgres,
    "mysql": _binary.mysql,
}


def begin(
    sock: Socket, protocol: str, server_name: str, timeout: float | None, deadline: Deadline | None = None
) -> None:
    """Talk to the server until both sides are ready for the handshake.

    Args:
        sock: connected; nothing was read from it.
        protocol: one of `DIALOGUES`.
        server_name: the name of the server, which XMPP sends.
        timeout: seconds for the whole dialogue; None means `TIMEOUT`.
        deadline: earlier than ``timeout``, if connecting has begun it.

    Raises:
        UpgradeFailure: the server refuses TLS, does not speak the protocol, ended the connection, or took too long.
    """
    seconds = TIMEOUT if timeout is None else timeout
    dialogue = Dialogue(sock, server_name, Deadline(seconds) if deadline is None else deadline)
    check = f"check that it speaks {protocol} on this port"
    try:
        DIALOGUES[protocol](dialogue)
        dialogue.end()
    except SocketTimeout as error:
        words = f"timed out: the {protocol} dialogue before TLS did not finish within {seconds:g} s"
        raise UpgradeFailure(ExitCode.TIMEOUT, words) from error
    except (ConnectionError, EOFError) as error:
        raise UpgradeFailure(ExitCode.TRUNCATED, f"closed the connection before TLS; {check}") from error
    except WrongProtocolError as error:
        raise UpgradeFailure(ExitCode.HANDSHAKE, f"{error}; {check}") from error
