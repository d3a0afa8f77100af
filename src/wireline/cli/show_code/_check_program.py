"""``--show-code`` of ``check``."""

from __future__ import annotations

import argparse

from wireline.cli.show_code._fragments import client_context, open_stream
from wireline.cli.show_code._program import Name, Program, call


def check(options: argparse.Namespace) -> Program:
    """The program of ``check``."""
    program = Program(options)
    if options.starttls in ("smtp", "ftp"):
        program.define(_EXPECT)
    open_stream(program, tls=options.tls and not options.starttls)
    if options.starttls:
        _start_tls(program)
    if not options.tls:
        program.add('print("connected to", sock.peer_addr)', 1)
        return program
    program.use("datetime")
    program.add("now = datetime.datetime.now(datetime.UTC)", 1)
    program.add("print(sock.tls_info)", 1)
    program.add("for certificate in sock.get_peer_certificates():", 1)
    program.add("days = (certificate.not_valid_after - now).days", 2)
    program.add('print(certificate.subject, "issued by", certificate.issuer, days, "days left")', 2)
    if options.days:
        program.add(f"assert days >= {options.days}", 2)
    return program


def _start_tls(program: Program) -> None:
    options = program.options
    program.use("wireline.tls", "Handshake")
    program.add(_DIALOGUES[options.starttls], 1)
    client_context(program, options, 1)
    name = options.sni or options.target.host
    role = Name("Handshake.AS_CLIENT")
    handshake = call("context.wrap_connected_socket", Name("sock"), role, name, timeout=options.timeout)
    program.add(handshake, 1)


_EXPECT = """\
def expect(sock, code):
    line = first = sock.recv_line(timeout=10)
    while first[3:4] == b"-" and line and line[:4] != first[:3] + b" ":
        line = sock.recv_line(timeout=10)
    assert line.startswith(code), line"""

_DIALOGUES = {
    "smtp": r"""
expect(sock, b"220")
sock.send(b"EHLO [127.0.0.1]\r\n")
expect(sock, b"250")
sock.send(b"STARTTLS\r\n")
expect(sock, b"220")""",
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
    "ftp": r"""
expect(sock, b"220")
sock.send(b"AUTH TLS\r\n")
expect(sock, b"234")""",
    "postgres": r"""
sock.send(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest
assert sock.recv(1, timeout=10) == b"S"
""",
}
