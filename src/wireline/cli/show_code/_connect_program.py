"""``--show-code`` of ``connect``."""

from __future__ import annotations

import argparse

from wireline.cli._datagram_targets import group_of, is_datagram
from wireline.cli._datagrams import buffer_size, reply_timeout
from wireline.cli._end_of_input import end_of_input
from wireline.cli.show_code._fragments import close_after, pump, send_input, source
from wireline.cli.show_code._program import Name, Program, call, literal
from wireline.cli.show_code._starttls_dialogues import open_upgraded


def connect(options: argparse.Namespace) -> Program:
    """The program of ``connect``."""
    program = Program(options)
    if is_datagram(options.target):
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
    program.use("wireline", "SocketTimeout")
    send = _open_datagrams(program)
    program.add(f"while chunk := os.read(0, 65507):\n    {send}", 1)
    receive = call("sock.recv_from", buffer_size(options.target), timeout=reply_timeout(options))
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
        os.write(1, {receive}.data){received}
except {ended}:
    pass  # no more replies""",
        1,
    )
    if options.expect_reply:
        program.add('if not received:\n    sys.exit("the peer sent nothing")', 1)
    return program


def _open_datagrams(program: Program) -> str:
    """Add the beginning of a block with ``sock``; return the line that sends ``chunk``."""
    target = program.options.target
    if target.path:
        return _open_unix(program)
    if group_of(target) is not None or target.host.endswith(".255"):
        return _open_group(program)
    program.use("socket")
    program.use("wireline", "IPPROTO_UDP")
    program.use("wireline.net", "dial")
    options = program.options
    where = call(
        "dial",
        target.host,
        target.port,
        Name("IPPROTO_UDP"),
        timeout=options.timeout,
        **source(program, options),
        options=Name("[(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)]"),
    )
    program.add(f"with {where} as sock:")
    return "sock.send(chunk)"


def _open_group(program: Program) -> str:
    """A socket that is not connected: the replies have the addresses of the members."""
    options = program.options
    target = options.target
    family = "AF_INET6" if ":" in target.host else "AF_INET"
    program.use("wireline", family, "SOCK_DGRAM")
    program.use("wireline.net", "Socket")
    program.add(f"with Socket({family}, SOCK_DGRAM) as sock:")
    if group_of(target) is None:
        program.use("wireline", "SockOpt")
        program.add("sock.set_sock_opt(SockOpt.BROADCAST, True)", 1)
    elif options.interface:
        program.add(f"sock.multicast_interface = {literal(options.interface)}", 1)
    host, port = options.source or ("", 0)
    program.add(call("sock.bind_addr", port, *filter(None, [host])), 1)
    return call("sock.send_to", target.host, target.port, Name("chunk"))


def _open_unix(program: Program) -> str:
    """A socket with a path of its own, to which the peer replies."""
    options = program.options
    program.use("tempfile")
    program.use("wireline", "AF_UNIX", "SOCK_DGRAM")
    program.use("wireline.net", "Socket")
    program.add("with tempfile.TemporaryDirectory() as directory, Socket(AF_UNIX, SOCK_DGRAM) as sock:")
    program.add('sock.bind_unix(os.path.join(directory, "client"))', 1)
    program.add(call("sock.connect_unix", options.target.path, timeout=options.timeout), 1)
    return call("sock.send", Name("chunk"), timeout=options.timeout)
