"""The dialogue of XMPP: RFC 6120, 5.4.2.

No parser of XML is needed: only the names of tags are read, and what is misread here does no harm. A handshake that
begins too early fails, and TLS authenticates the server afterwards.
"""

from __future__ import annotations

import re

from wireline import parse_hostname
from wireline.cli.starttls._dialogue import Dialogue, require_agreement, require_offer, require_protocol

_TLS = "urn:ietf:params:xml:ns:xmpp-tls"
_HEADER = (
    "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xml:lang='en' xmlns='jabber:client' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)


def xmpp(server: Dialogue) -> None:
    """RFC 6120, 5.4.2."""
    # Without the zone of an address, which may be anything, no character is left that XML escapes.
    server.send(_HEADER.format(stream_domain(server.server_name)).encode())
    tag = server.read_tag()
    if tag.startswith("<?xml"):
        tag = server.read_tag()
    require_protocol(_name(tag) == "stream", "does not greet as an XMPP server", tag)
    tag = server.read_tag()
    if _name(tag) == "error":
        require_agreement(False, "refuses the stream", server.read_tag())
    require_protocol(_name(tag) == "features", "does not answer as an XMPP server", tag)
    offered = False
    while not (tag.endswith("/>") and _name(tag) == "features") and _name(tag) != "/features":
        tag = server.read_tag()
        offered |= _name(tag) == "starttls"
    require_offer(offered, "")
    server.send(f"<starttls xmlns='{_TLS}'/>".encode())
    answer = server.read_tag()
    require_agreement(_name(answer) == "proceed", "refuses STARTTLS", answer)
    if not answer.endswith("/>"):
        server.read_tag()  # its end


def stream_domain(server_name: str) -> str:
    """The name of a server as XMPP writes it (RFC 7622, 3.2): IPv6 in brackets, and each label in its own script."""
    name = parse_hostname(server_name) if server_name else ""  # a Unix socket has none
    if ":" in name:
        return f"[{name}]"
    if "xn--" not in name:
        return name
    try:
        import idna  # of the extra `idna`

        return idna.decode(name)
    except (ImportError, ValueError):
        return name


def _name(tag: str) -> str:
    """The name of a tag without its prefix: ``features`` of ``<stream:features>``, and ``/features`` of its end."""
    found = re.match(r"<(/?)(?:[^\s/>:]*:)?([^\s/>]+)", tag)
    return f"{found[1]}{found[2]}" if found else ""
