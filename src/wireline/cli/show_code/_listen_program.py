"""``--show-code`` of ``listen``."""

from __future__ import annotations

import argparse
from textwrap import indent

from wireline import Target
from wireline.cli._datagram_targets import group_of, is_datagram
from wireline.cli._datagrams import REPLY_TIMEOUT, buffer_size
from wireline.cli._end_of_input import EndOfInput
from wireline.cli.parser._listen_options import serves_many
from wireline.cli.show_code._fragments import (
    announce,
    define_handler,
    define_is_allowed,
    pump,
    send_input,
    server_context,
    serving,
)
from wireline.cli.show_code._program import Name, Program, call, literal

_ECHO = """\
def handle(client, address):
    while chunk := client.recv_some():
        client.send(chunk)"""

_DISCARD = """\
def handle(client, address):
    while client.recv_some():
        pass"""

_CHAT = """\
clients = set()


def handle(client, address):
    clients.add(client)
    try:
        for line in client.lines():
            for other in clients - {client}:
                other.try_send(line + b"\\n")
    finally:
        clients.discard(client)"""

_SERVICES = {"echo": _ECHO, "discard": _DISCARD, "chat": _CHAT}


def listen(options: argparse.Namespace) -> Program:
    """The program of ``listen``."""
    program = Program(options)
    define_is_allowed(program)
    if is_datagram(options.target):
        return _listen_for_datagrams(program)
    many = serves_many(options)
    if not options.service:
        send_input(program, EndOfInput())
    if options.service or many:
        handler = _SERVICES.get(options.service) or _conversation(program)
        (define_handler if many else Program.define)(program, handler)
    if options.tls:
        server_context(program, options)
        program.add("")
    if many:
        most = options.max if options.service else 1
        serving(
            program,
            options.target,
            tls=Name("context") if options.tls else None,
            max_connections=most,
        )
    else:
        _accept(program)
    return program


def _conversation(program: Program) -> str:
    """The handler for standard input and output."""
    program.use("sys")
    return f"def handle(client, address):\n{indent(pump(EndOfInput(), 'client'), '    ')}"


def _bind(program: Program, kind: str = "") -> None:
    """Add the beginning of a block with ``sock``, bound."""
    target: Target = program.options.target
    inet = "AF_INET6" if ":" in target.host or not target.host else "AF_INET"
    family = "AF_UNIX" if target.path else inet
    program.use("wireline", family, *([kind] if kind else []))
    program.use("wireline.net", "Socket")
    program.add(f"with {call('Socket', *map(Name, filter(None, (family, kind))))} as sock:")
    if target.path:
        program.add(call("sock.bind_unix", target.path), 1)
    else:
        is_group = group_of(target) is not None
        if not kind or is_group:
            program.use("wireline", "SockOpt")
            program.add("sock.set_sock_opt(SockOpt.REUSE_ADDR, True)", 1)
        program.add(call("sock.bind_addr", target.port, *filter(None, [target.host])), 1)
        if is_group:
            program.add(call("sock.join_group", target.host, interface=program.options.interface), 1)


def _accept(program: Program) -> None:
    """Add the block that serves one client."""
    options = program.options
    if options.fd is None:
        _bind(program)
    else:
        program.use("wireline.net", "Socket")
        program.add(f"with Socket.from_fd({int(options.fd)}) as sock:")
    if options.tls:
        program.add("context.wrap_socket(sock)", 1)
    if options.fd is None:
        program.add("sock.listen()", 1)
    announce(program, options.target, "sock", 1)
    accept = call("sock.accept_addr" if options.allow else "sock.accept", timeout=options.timeout)
    if options.allow:
        program.add(f"client, address = {accept}", 1)
        program.add("while not is_allowed(address):", 1)
        program.add("client.close(linger=0)", 2)
        program.add(f"client, address = {accept}", 2)
    program.add("with client:" if options.allow else f"with {accept} as client:", 1)
    body = "handle(client, client.peer_addr)" if options.service else pump(EndOfInput(), "client")
    program.add(body, 2)


def _listen_for_datagrams(program: Program) -> Program:
    options = program.options
    _bind(program, "SOCK_DGRAM")
    announce(program, options.target, "sock", 1)
    if options.service or options.keep:
        return _all_datagrams(program)
    size = buffer_size(options.target)
    reply_timeout = REPLY_TIMEOUT if options.timeout is None else options.timeout
    program.use("os")
    program.use("threading")
    program.use("wireline", "SocketTimeout")
    receive = call("sock.recv_from", size, timeout=options.timeout)
    program.add(f"data, peer = {receive}", 1)
    if options.allow:
        program.add("while not is_allowed(peer):", 1)
        program.add(f"data, peer = {receive}", 2)
    program.add(
        f"""
def send_input():
    while chunk := os.read(0, 65507):
        sock.send_to(*peer, chunk)

threading.Thread(target=send_input, daemon=True).start()
try:
    while True:
        os.write(1, data)
        data, _ = sock.recv_from({size}, timeout={literal(reply_timeout)})
except SocketTimeout:
    pass  # no more datagrams""",
        1,
    )
    return program


def _all_datagrams(program: Program) -> Program:
    options = program.options
    receive = call(
        "sock.recv_from",
        buffer_size(options.target),
        timeout=options.timeout if options.service else None,
    )
    program.add("while True:", 1)
    program.add(f"data, sender = {receive}", 2)
    if options.allow:
        program.add("if not is_allowed(sender):", 2)
        program.add("continue", 3)
    if options.service == "echo":
        if options.target.path:
            program.add("if sender.host:  # else it has no address", 2)
        program.add("sock.send_to(*sender, data)", 3 if options.target.path else 2)
    elif not options.service:
        program.use("os")
        program.add("os.write(1, data)", 2)
    return program
