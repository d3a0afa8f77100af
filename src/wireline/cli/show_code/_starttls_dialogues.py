"""``--starttls`` in ``--show-code``: the dialogues in the fewest lines."""

from __future__ import annotations

from wireline.cli.show_code._fragments import client_context, open_stream
from wireline.cli.show_code._program import Name, Program, call, literal
from wireline.cli.starttls._xmpp import stream_domain


def open_upgraded(program: Program) -> None:
    """Add the beginning of a block with ``sock``, connected; with TLS, if the options ask for it."""
    options = program.options
    if not options.starttls:
        open_stream(program, tls=options.tls)
        return
    if options.starttls in ("smtp", "lmtp", "ftp"):
        program.define(_EXPECT)
    program.use("wireline.tls", "Handshake")
    client_context(program, options)
    program.add("")
    open_stream(program, tls=False)
    name = options.sni or options.target.host
    program.add(_DIALOGUES[options.starttls].replace("NAME", literal(stream_domain(name))), 1)
    role = Name("Handshake.AS_CLIENT")
    handshake = call("context.wrap_connected_socket", Name("sock"), role, name, timeout=options.timeout)
    program.add(handshake, 1)


_EXPECT = """\
def expect(sock, code):
    line = first = sock.recv_line(timeout=10)
    while first[3:4] == b"-" and line and line[:4] != first[:3] + b" ":
        line = sock.recv_line(timeout=10)
    assert line.startswith(code), line"""

_SMTP = r"""
expect(sock, b"220")
sock.send(b"EHLO [127.0.0.1]\r\n")
expect(sock, b"250")
sock.send(b"STARTTLS\r\n")
expect(sock, b"220")"""

_DIALOGUES = {
    "smtp": _SMTP,
    "lmtp": _SMTP.replace("EHLO", "LHLO"),
    "imap": r"""
sock.send(b"a1 STARTTLS\r\n")
for line in sock.lines(timeout=10):
    if line.startswith(b"a1 "):
        break
assert line.startswith(b"a1 OK"), line""",
    "pop3": r"""
assert sock.recv_line(timeout=10).startswith(b"+OK")
sock.send(b"STLS\r\n")
assert sock.recv_line(timeout=10).startswith(b"+OK")""",
    "sieve": r"""
for line in sock.lines(timeout=10):
    if line.startswith(b"OK"):
        break
sock.send(b"STARTTLS\r\n")
assert sock.recv_line(timeout=10).startswith(b"OK")""",
    "ftp": r"""
expect(sock, b"220")
sock.send(b"AUTH TLS\r\n")
expect(sock, b"234")""",
    "nntp": r"""
assert sock.recv_line(timeout=10).startswith(b"20")
sock.send(b"STARTTLS\r\n")
assert sock.recv_line(timeout=10).startswith(b"382")""",
    "irc": r"""
sock.send(b"STARTTLS\r\n")
for line in sock.lines(timeout=10):
    if b" 670 " in line or b" 691 " in line:
        break
assert b" 670 " in line, line""",
    "xmpp": r"""
name = NAME
stream = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
sock.send(f"<?xml version='1.0'?><stream:stream to='{name}' {stream}>".encode())
assert b"<starttls" in sock.recv_until(b"</stream:features>", timeout=10)
sock.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
assert b"<proceed" in sock.recv_until(b">", timeout=10)""",
    "ldap": r"""
sock.send(bytes.fromhex("30 1d 02 01 01 77 18 80 16") + b"1.3.6.1.4.1.1466.20037")  # StartTLS
size = sock.recv_exactly(2, timeout=10)[1]
if size > 127:
    size = int.from_bytes(sock.recv_exactly(size - 128, timeout=10))
assert b"\x0a\x01\x00" in sock.recv_exactly(size, timeout=10)  # success""",
    "postgres": r"""
sock.send(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest
assert sock.recv(1, timeout=10) == b"S"
""",
    "mysql": r"""
size = int.from_bytes(sock.recv_exactly(4, timeout=10)[:3], "little")
assert sock.recv_exactly(size, timeout=10)[0] == 10  # the version of the protocol
sock.send(bytes.fromhex("20 00 00 01 00 8a 08 00 00 00 00 01 21") + bytes(23))  # SSLRequest""",
}
