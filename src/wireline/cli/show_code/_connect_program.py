"""``--show-code`` of ``connect``."""

from __future__ import annotations

import argparse

from wireline.cli._end_of_input import end_of_input
from wireline.cli._peer import reply_timeout
from wireline.cli.show_code._fragments import close_after, pump, send_input, source
from wireline.cli.show_code._program import Name, Program, call, literal
from wireline.cli.show_code._starttls_dialogues import open_upgraded


def connect(options: argparse.Namespace) -> Program:
    """The program of ``connect``."""
    program = Program(options)
    if options.target.scheme == "udp":
        return _connect_datagrams(program)
    at_eof = end_of_input(options)
    program.use("sys")
    if at_eof.quit_after is not None:
        program.use("contextlib")
        program.use("wireline", "ClosedError")
    send_input(program, at_eof)
    open_upgraded(program)
    program.add(pump(at_eof, expect_reply=options.expect_reply), 1)
    return program


def _connect_datagrams(program: Program) -> Program:
    options = program.options
    program.use("os")
    program.use("wireline", "IPPROTO_UDP", "SocketTimeout")
    program.use("wireline.net", "dial")
    where = call(
        "dial",
        options.target.host,
        options.target.port,
        Name("IPPROTO_UDP"),
        timeout=options.timeout,
        **source(program, options),
        options=Name("[(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)]"),
    )
    program.use("socket")
    program.add(f"""\
with {where} as sock:
    while chunk := os.read(0, 65507):
        sock.send(chunk)""")
    ended, received = "SocketTimeout", ""
    if options.quit_after:
        program.use("threading")
        program.use("wireline", "ClosedError")
        program.add(close_after(options.quit_after), 1)
        ended = "(SocketTimeout, ClosedError)"
    if options.expect_reply:
        program.use("sys")
        program.add("received = False", 1)
        received = "\n        received = True"
    program.add(
        f"""\
try:
    while True:
        os.write(1, sock.recv_from(65535, timeout={literal(reply_timeout(options))}).data){received}
except {ended}:
    pass  # no more replies""",
        1,
    )
    if options.expect_reply:
        program.add('if not received:\n    sys.exit("the peer sent nothing")', 1)
    return program
