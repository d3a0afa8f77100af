"""``--show-code`` of ``check``."""

from __future__ import annotations

import argparse

from wireline.cli.show_code._program import Program
from wireline.cli.show_code._starttls_dialogues import open_upgraded


def check(options: argparse.Namespace) -> Program:
    """The program of ``check``."""
    program = Program(options)
    open_upgraded(program)
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
