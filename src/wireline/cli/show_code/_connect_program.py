"""``--show-code`` of ``connect``."""

from __future__ import annotations

import argparse

from wireline.cli._peer import REPLY_TIMEOUT
from wireline.cli.show_code._fragments import PUMP, open_stream, send_input
from wireline.cli.show_code._program import Name, Program, call, literal


def connect(options: argparse.Namespace) -> Program:
    """The program of ``connect``."""
    program = Program(options)
    program.use("os")
    if options.target.scheme == "udp":
        return _connect_datagrams(program)
    program.use("sys")
    program.use("threading")
    program.define(send_input(options))
    open_stream(program, tls=options.tls)
    program.add(PUMP, 1)
    return program


def _connect_datagrams(program: Program) -> Program:
    options = program.options
    reply_timeout = REPLY_TIMEOUT if options.timeout is None else options.timeout
    program.use("wireline", "IPPROTO_UDP", "SocketTimeout")
    program.use("wireline.net", "dial")
    where = call(
        "dial", options.target.host, options.target.port, Name("IPPROTO_UDP"), timeout=options.timeout
    )
    program.add(f"""\
with {where} as sock:
    while chunk := os.read(0, 65507):
        sock.send(chunk)
    try:
        while True:
            os.write(1, sock.recv_from(65535, timeout={literal(reply_timeout)}).data)
    except SocketTimeout:
        pass  # no more replies""")
    return program
