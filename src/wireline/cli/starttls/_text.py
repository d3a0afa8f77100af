"""The dialogues of protocols that have lines. Each is the shortest that its specification allows."""

from __future__ import annotations

import re

from wireline.cli.starttls._dialogue import Dialogue, require_agreement, require_offer, require_protocol


def smtp(server: Dialogue, hello: str = "EHLO", name: str = "an SMTP server") -> None:
    """RFC 3207."""
    greeting = _read_reply(server)[-1]
    _check_greeting(greeting, ("220",), name)
    server.send(f"{hello} {server.address_literal}\r\n".encode())
    lines = _read_reply(server)
    require_offer(lines[-1].startswith("250"), lines[-1], f"does not know {hello}, and has no STARTTLS")
    offered = any(line[4:].strip().upper() == "STARTTLS" for line in lines[1:])
    require_offer(offered, lines[-1])
    server.send(b"STARTTLS\r\n")
    answer = _read_reply(server)[-1]
    require_agreement(answer.startswith("220"), "refuses STARTTLS", answer)


def lmtp(server: Dialogue) -> None:
    """RFC 2033, 4.1: as SMTP, with LHLO in place of EHLO."""
    smtp(server, "LHLO", "an LMTP server")


def ftp(server: Dialogue) -> None:
    """RFC 4217."""
    greeting = _read_reply(server)[-1]
    while greeting.startswith("120"):  # "service ready in nnn minutes"
        greeting = _read_reply(server)[-1]
    _check_greeting(greeting, ("220",), "an FTP server")
    server.send(b"AUTH TLS\r\n")
    answer = _read_reply(server)[-1]
    require_agreement(answer.startswith("234"), "refuses AUTH TLS", answer)


def _check_greeting(greeting: str, codes: tuple[str, ...], name: str) -> None:
    is_refusal = re.match(r"[45]\d\d\b", greeting) is not None
    require_agreement(not is_refusal, "refuses the connection", greeting)
    require_protocol(greeting[:3] in codes, f"does not greet as {name}", greeting)


def _read_reply(server: Dialogue) -> list[str]:
    """A reply of SMTP or FTP. Its last line begins with the code of the first and a space (RFC 959, 4.2)."""
    lines = [server.read_line()]
    last = lines[0][:3] + " "
    if lines[0][3:4] == "-":
        while not lines[-1].startswith(last):
            lines.append(server.read_line())
    return lines


def imap(server: Dialogue) -> None:
    """RFC 9051, 6.2.1."""
    greeting = server.read_line()
    # After PREAUTH the connection is authenticated, and STARTTLS is not allowed any more.
    is_open = greeting.upper().startswith("* OK")
    require_protocol(is_open, "does not greet as an IMAP server that has STARTTLS", greeting)
    server.send(b"a1 CAPABILITY\r\n")
    lines = _read_until_tag(server, "a1")
    offered = any("STARTTLS" in line.upper().split() for line in lines if line.startswith("* "))
    require_offer(offered, lines[0])
    server.send(b"a2 STARTTLS\r\n")
    answer = _read_until_tag(server, "a2")[-1]
    require_agreement(answer.upper().startswith("A2 OK"), "refuses STARTTLS", answer)


def _read_until_tag(server: Dialogue, tag: str) -> list[str]:
    """A response of IMAP. Its last line begins with the tag (RFC 9051, 2.2.2)."""
    lines = [server.read_line()]
    while not lines[-1].startswith(f"{tag} "):
        lines.append(server.read_line())
    return lines


def pop3(server: Dialogue) -> None:
    """RFC 2595, 4."""
    greeting = server.read_line()
    require_protocol(greeting.startswith("+OK"), "does not greet as a POP3 server", greeting)
    server.send(b"STLS\r\n")
    answer = server.read_line()
    require_agreement(answer.startswith("+OK"), "refuses STLS", answer)


def nntp(server: Dialogue) -> None:
    """RFC 4642, 2.2."""
    greeting = server.read_line()
    _check_greeting(greeting, ("200", "201"), "an NNTP server")
    server.send(b"STARTTLS\r\n")
    answer = server.read_line()
    require_agreement(answer.startswith("382"), "refuses STARTTLS", answer)


def sieve(server: Dialogue) -> None:
    """ManageSieve: RFC 5804, 1.7 and 2.2. The server sends its capabilities first."""
    *capabilities, greeting = _read_response(server)
    require_protocol(greeting.upper().startswith("OK"), "does not greet as a ManageSieve server", greeting)
    offered = any(re.fullmatch(r'"STARTTLS"\s*', line, re.IGNORECASE) for line in capabilities)
    require_offer(offered, capabilities[-1] if capabilities else greeting)
    server.send(b"STARTTLS\r\n")
    answer = _read_response(server)[-1]
    require_agreement(answer.upper().startswith("OK"), "refuses STARTTLS", answer)


def _read_response(server: Dialogue) -> list[str]:
    """A response of ManageSieve. Its last line begins with a word, the others with a quote (RFC 5804, 4)."""
    lines: list[str] = []
    while not lines or lines[-1].startswith(('"', "{")):
        line = part = server.read_line()
        # A literal: its size ends the line, and the line goes on after it.
        while size := re.search(r"\{(\d{1,10})\+?\}$", part):
            text = server.read_exactly(int(size[1])).decode("ascii", "backslashreplace")
            part = server.read_line()
            line += text + part
        lines.append(line)
    return lines


_IRC_REFUSALS = ("421", "451", "691")
"""Unknown command, "you have not registered", and the refusal of STARTTLS itself."""


def irc(server: Dialogue) -> None:
    """The extension ``tls`` of IRCv3: the numerics 670 and 691. Servers send notices before that."""
    server.send(b"STARTTLS\r\n")
    numeric = ""
    while numeric != "670":
        line = server.read_line()
        words = re.sub(r"^:\S* +", "", line).split()
        numeric = words[0].upper() if words else ""
        is_irc = numeric in ("NOTICE", "PING", "670", "ERROR", "CAP") or re.fullmatch(r"\d{3}", numeric)
        require_protocol(bool(is_irc), "does not answer as an IRC server", line)
        require_agreement(numeric not in (*_IRC_REFUSALS, "ERROR"), "refuses STARTTLS", line)
