"""``--show-code``: the few lines of Python that do what a command line does, with public names only.

They do the work and leave out what the command adds to it: sentences instead of tracebacks, progress, signals.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from wireline import Target
from wireline.cli._program import Name, Program, call, literal
from wireline.cli._signals import Signals
from wireline.cli._stdio import Output

_KEY_VARIABLE = "WIRELINE_PSK"
"""The variable of the environment in which a program looks for the key of ``--psk``, as hexadecimal digits."""

Writer = Callable[[argparse.Namespace], Program]


def run(options: argparse.Namespace, signals: Signals) -> None:
    """Print the program instead of doing what it does.

    Raises:
        Failure: nobody takes it.
    """
    writer: Writer = options.program
    Output().write(f"{writer(options)}".encode())


# ---------------------------------------------------------------------------------------------------------- parts


def client_context(
    program: Program, options: argparse.Namespace, indent: int = 0, name: str = "context"
) -> None:
    """Make the context of a client as the words about TLS ask for it; ``name`` is what it is called."""
    program.use("wireline.tls", "SslContext")
    mode = None
    if options.no_verify or options.psk or options.psk_file:
        program.use("wireline.tls", "VerifyMode")
        mode = Name("VerifyMode.NONE")
    files = {"cert_file": options.cert, "key_file": options.key, "ca_file": options.ca_file}
    program.add(f"{name} = {call('SslContext', verify_mode=mode, **files, alpn=options.alpn)}", indent)
    if options.alpn:
        program.add(f"{name}.require_alpn = True", indent)
    if options.psk:
        identity, _ = options.psk
        program.use("os")
        # The printed program is copied, mailed and kept, so it must not have the key in it.
        program.add(
            f'key = bytes.fromhex(os.environ["{_KEY_VARIABLE}"])  # the key of --psk, which is not shown'
        )
        program.add(f"{name}.client_get_psk = lambda hint: ({literal(identity)}, key)")
    elif options.psk_file:
        _read_keys(program, options.psk_file)
        program.add("((identity, key),) = keys.items()")
        program.add(f"{name}.client_get_psk = lambda hint: (identity, bytes.fromhex(key))")


def server_context(program: Program, options: argparse.Namespace, name: str = "context") -> None:
    """The same for a server."""
    program.use("wireline.tls", "SslContext", "VerifyMode")
    mode = "VerifyMode.PEER" if options.client_ca else "VerifyMode.NONE"
    words = {"cert_file": options.cert, "key_file": options.key, "ca_file": options.client_ca}
    certs = "required" if options.client_ca else None
    program.add(f"{name} = {call('SslContext', verify_mode=Name(mode), **words, client_certs=certs)}")
    if options.psk_file:
        _read_keys(program, options.psk_file)
        program.add(f'{name}.server_get_psk = lambda identity: bytes.fromhex(keys.get(identity, ""))')


def _read_keys(program: Program, path: str) -> None:
    program.add(f"with {call('open', path)} as file:")
    program.add('lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]', 1)
    program.add('keys = dict(line.rsplit(":", 1) for line in lines)')


def open_stream(program: Program, *, tls: bool) -> None:
    """Begin a block with ``sock``, connected."""
    if tls:
        client_context(program, program.options)
        program.add("")
    program.add(connecting(program, program.options, "sock", "context" if tls else None))


def connecting(program: Program, options: argparse.Namespace, sock: str, context: str | None) -> str:
    """The lines that begin a block with a connected socket.

    Args:
        program: gets the imports that they need.
        options: ``target``, ``timeout`` and, for TLS, ``sni``.
        sock: what the socket is called.
        context: what the context of TLS is called; None for none.
    """
    target, timeout = options.target, options.timeout
    if not target.path:
        program.use("wireline.net", "dial")
        secure = {"tls": Name(context), "hostname": options.sni} if context else {}
        return f"with {call('dial', target.host, target.port, timeout=timeout, **secure)} as {sock}:"
    program.use("wireline", "AF_UNIX")
    program.use("wireline.net", "Socket")
    lines = [f"with Socket(AF_UNIX) as {sock}:"]
    if context:
        lines.append(f"    {call(f'{context}.wrap_socket', Name(sock), *filter(None, [options.sni]))}")
    lines.append(f"    {call(f'{sock}.connect_unix', target.path, timeout=timeout)}")
    return "\n".join(lines)


def serving(program: Program, target: Target, **words: object) -> None:
    """Begin a block with ``server``, which hands each connection to ``handle``, and wait in it for the end."""
    program.use("wireline.net", "serve")
    where = [str(target)] if target.path else list(filter(None, [target.host]))
    program.add(f"with {call('serve', Name('handle'), target.port, *where, **words)} as server:")
    announce(program, target, "server", 1)
    program.add("server.wait()", 1)


def announce(program: Program, target: Target, who: str, indent: int) -> None:
    """Say where ``who`` listens."""
    program.use("sys")
    if target.path:
        program.add(call("print", f"listening on {target}", file=Name("sys.stderr")), indent)
        return
    program.use("wireline", "Target")
    where = f"Target('{target.scheme}', *{who}.local_addr)"
    program.add(f'print(f"listening on {{{where}}}", file=sys.stderr)', indent)


# ------------------------------------------------------------------------------------------------------- commands


def connect(options: argparse.Namespace) -> Program:
    """The program of ``connect``."""
    program = Program(options)
    program.use("os")
    if options.target.scheme == "udp":
        return _connect_datagrams(program)
    program.use("sys")
    program.use("threading")
    program.define(_send_input(options))
    open_stream(program, tls=options.tls)
    program.add(_PUMP, 1)
    return program


def _send_input(options: argparse.Namespace) -> str:
    timeout = f", timeout={literal(options.timeout)}" if options.timeout is not None else ""
    chunk = r'chunk.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")' if options.crlf else "chunk"
    return f"""\
def send_input(sock):
    while chunk := os.read(0, 65536):
        sock.send({chunk}{timeout})
    sock.shutdown_write()"""


_PUMP = """\
sender = threading.Thread(target=send_input, args=(sock,), daemon=True)
sender.start()
while chunk := sock.recv_some():
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
sender.join(0.5)  # for the rest of the input; a terminal is not waited for"""


def _connect_datagrams(program: Program) -> Program:
    options = program.options
    silence = 1.0 if options.timeout is None else options.timeout
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
            os.write(1, sock.recv_from(65535, timeout={literal(silence)}).data)
    except SocketTimeout:
        pass  # nothing more is expected""")
    return program


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
    if options.target.scheme == "udp":
        return _listen_for_datagrams(program)
    many = options.service is not None and (options.keep or options.service == "chat")
    if options.service:
        program.define(_SERVICES[options.service])
    else:
        program.use("os")
        program.use("threading")
        program.define(_send_input(options))
    if options.tls:
        server_context(program, options)
        program.add("")
    if many:
        serving(program, options.target, tls=Name("context") if options.tls else None)
    else:
        _accept(program)
    return program


def _bind(program: Program, kind: str = "") -> None:
    """Begin a block with ``sock``, bound."""
    target: Target = program.options.target
    inet = "AF_INET6" if ":" in target.host or not target.host else "AF_INET"
    family = "AF_UNIX" if target.path else inet
    program.use("wireline", family, *([kind] if kind else []))
    program.use("wireline.net", "Socket")
    program.add(f"with {call('Socket', *map(Name, filter(None, (family, kind))))} as sock:")
    if target.path:
        program.add(call("sock.bind_unix", target.path), 1)
    else:
        if not kind:
            program.use("wireline", "SockOpt")
            program.add("sock.set_sock_opt(SockOpt.REUSE_ADDR, True)", 1)
        program.add(call("sock.bind_addr", target.port, *filter(None, [target.host])), 1)


def _accept(program: Program) -> None:
    options = program.options
    _bind(program)
    if options.tls:
        program.add("context.wrap_socket(sock)", 1)
    program.add("sock.listen()", 1)
    announce(program, options.target, "sock", 1)
    indent = 1
    if options.keep:
        program.add("while True:", 1)
        indent = 2
    patience = None if options.keep else options.timeout
    program.add(f"with {call('sock.accept', timeout=patience)} as client:", indent)
    inside = "handle(client, client.peer_addr)" if options.service else _PUMP.replace("sock", "client")
    program.add(inside, indent + 1)


def _listen_for_datagrams(program: Program) -> Program:
    options = program.options
    _bind(program, "SOCK_DGRAM")
    announce(program, options.target, "sock", 1)
    if options.service or options.keep:
        return _every_datagram(program)
    silence = 1.0 if options.timeout is None else options.timeout
    program.use("os")
    program.use("threading")
    program.use("wireline", "SocketTimeout")
    program.add(f"data, peer = {call('sock.recv_from', 65535, timeout=options.timeout)}", 1)
    program.add(
        f"""
def send_input():
    while chunk := os.read(0, 65507):
        sock.send_to(*peer, chunk)

threading.Thread(target=send_input, daemon=True).start()
try:
    while True:
        os.write(1, data)
        data, _ = sock.recv_from(65535, timeout={literal(silence)})
except SocketTimeout:
    pass  # nothing more is expected""",
        1,
    )
    return program


def _every_datagram(program: Program) -> Program:
    options = program.options
    receive = call("sock.recv_from", 65535, timeout=options.timeout if options.service else None)
    program.add("while True:", 1)
    program.add(f"data, sender = {receive}", 2)
    if options.service == "echo":
        program.add("sock.send_to(*sender, data)", 2)
    elif not options.service:
        program.use("os")
        program.add("os.write(1, data)", 2)
    return program


def check(options: argparse.Namespace) -> Program:
    """The program of ``check``."""
    program = Program(options)
    if options.starttls in ("smtp", "ftp"):
        program.define(_EXPECT)
    open_stream(program, tls=options.tls and not options.starttls)
    if options.starttls:
        _upgrade(program)
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


def _upgrade(program: Program) -> None:
    options = program.options
    program.use("wireline.tls", "Handshake")
    program.add(_DIALOGUES[options.starttls], 1)
    client_context(program, options, 1)
    name = options.sni or options.target.host
    role = Name("Handshake.AS_CLIENT")
    upgrade = call("context.wrap_connected_socket", Name("sock"), role, name, timeout=options.timeout)
    program.add(upgrade, 1)


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
