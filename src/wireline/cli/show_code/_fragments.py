"""Fragments that several programs share: TLS contexts, connecting, serving, moving bytes."""

from __future__ import annotations

import argparse
import socket
from textwrap import indent

from wireline import Target
from wireline.cli._end_of_input import EndOfInput
from wireline.cli._secrets import is_descriptor
from wireline.cli.show_code._program import Name, Program, call, literal


def client_context(
    program: Program, options: argparse.Namespace, indent: int = 0, name: str = "context"
) -> None:
    """Add the TLS context of a client, in a variable called ``name``."""
    program.use("wireline.tls", "SslContext")
    mode = None
    if options.no_verify or options.psk_file:
        program.use("wireline.tls", "VerifyMode")
        mode = Name("VerifyMode.NONE")
    files = {"cert_file": options.cert, "key_file": options.key, "ca_file": options.ca_file}
    program.add(
        f"{name} = {call('SslContext', verify_mode=mode, **files, alpn=options.alpn, **_settings(program, options))}",
        indent,
    )
    if options.alpn:
        program.add(f"{name}.require_alpn = True", indent)
    if options.psk_file:
        _read_keys(program, options.psk_file)
        program.add("((identity, key),) = keys.items()")
        program.add(f"{name}.client_get_psk = lambda hint: (identity, bytes.fromhex(key))")


def server_context(program: Program, options: argparse.Namespace, name: str = "context") -> None:
    """Add the TLS context of a server."""
    program.use("wireline.tls", "SslContext", "VerifyMode")
    mode = "VerifyMode.PEER" if options.client_ca else "VerifyMode.NONE"
    files = {"cert_file": options.cert, "key_file": options.key, "ca_file": options.client_ca}
    certs = "required" if options.client_ca else None
    settings = {"alpn": getattr(options, "alpn", None), **_settings(program, options)}
    program.add(
        f"{name} = {call('SslContext', verify_mode=Name(mode), **files, client_certs=certs, **settings)}"
    )
    if options.psk_file:
        _read_keys(program, options.psk_file)
        program.add(f'{name}.server_get_psk = lambda identity: bytes.fromhex(keys.get(identity, ""))')


def _settings(program: Program, options: argparse.Namespace) -> dict[str, object]:
    """The arguments that clients and servers share."""
    settings: dict[str, object] = {"keylog_file": getattr(options, "keylog", None)}
    for argument, option in (("min_version", "tls_min"), ("max_version", "tls_max")):
        if version := getattr(options, option, None):
            program.use("ssl")
            settings[argument] = Name(f"ssl.TLSVersion.TLSv{version.replace('.', '_')}")
    older, newer = getattr(options, "ciphers", None) or ("", "")
    if newer and not older:
        program.use("ssl")
        settings["min_version"] = Name("ssl.TLSVersion.TLSv1_3")
    settings |= {"cipher_list": older, "ciphersuites": newer, "pinned": getattr(options, "pin", None)}
    if password := getattr(options, "key_password", None):
        settings["password"] = _password(program, password)
    return settings


def _password(program: Program, source: str) -> Name:
    """The expression that reads a password: the program is copied and mailed, and must not contain it."""
    kind, _, name = source.partition(":")
    if kind == "prompt":
        program.use("getpass")
        return Name("getpass.getpass")
    if kind == "env":
        program.use("os")
        return Name(f"os.environ[{literal(name)}]")
    return Name(f'open({_opened(source if kind == "fd" else name)}).read().removesuffix("\\n")')


def _opened(path: str) -> str:
    """The argument of ``open`` for a path, or for ``fd:N``."""
    return path.removeprefix("fd:") if is_descriptor(path) else literal(path)


def _read_keys(program: Program, path: str) -> None:
    program.add(f"with open({_opened(path)}) as file:")
    program.add('lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]', 1)
    program.add('keys = dict(line.rsplit(":", 1) for line in lines)')


def open_stream(program: Program, *, tls: bool) -> None:
    """Add the beginning of a block with ``sock``, connected."""
    if tls:
        client_context(program, program.options)
        program.add("")
    program.add(connecting(program, program.options, "sock", "context" if tls else None))


def connecting(program: Program, options: argparse.Namespace, sock: str, context: str | None) -> str:
    """The line that begins a block with a connected socket.

    Args:
        program: receives the imports that the line needs.
        options: ``target``, ``timeout`` and, for TLS, ``sni``.
        sock: the variable of the socket.
        context: the variable of the TLS context; None without TLS.
    """
    target = options.target
    program.use("wireline.net", "dial")
    where = [str(target)] if target.path else [target.host, target.port]
    tls = {"tls": Name(context), "hostname": options.sni} if context else {}
    own = source(program, options)
    return f"with {call('dial', *where, timeout=options.timeout, **own, **tls)} as {sock}:"


def source(program: Program, options: argparse.Namespace) -> dict[str, object]:
    """The arguments of ``dial`` for ``-4``, ``-6`` and ``--source``, which only ``connect`` has."""
    arguments: dict[str, object] = {}
    if family := getattr(options, "family", 0):
        name = "AF_INET6" if family == socket.AF_INET6 else "AF_INET"
        program.use("wireline", name)
        arguments["family"] = Name(name)
    if address := getattr(options, "source", None):
        arguments["local_addr"] = Name(f"({literal(address.host)}, {address.port})")
    return arguments


def serving(program: Program, target: Target, **arguments: object) -> None:
    """Add a block with ``server``, which calls ``handle`` for each connection, until it is stopped."""
    options = program.options
    program.use("wireline.net", "serve")
    where: list[object] = [target.port, *([str(target)] if target.path else filter(None, [target.host]))]
    if options.fd is not None:
        where, arguments["sock"] = [], _inherited(program)
    arguments |= {"on_full": options.on_full, "idle_timeout": options.idle}
    program.add(f"with {call('serve', Name('handle'), *where, **arguments)} as server:")
    if options.drain is not None:
        program.use("signal")
        program.add("for number in (signal.SIGINT, signal.SIGTERM):", 1)
        program.add(f"signal.signal(number, lambda *_: server.request_stop({literal(options.drain)}))", 2)
    announce(program, target, "server", 1)  # after the handlers: a program that reads it may send a signal
    program.add("server.wait()", 1)


def _inherited(program: Program) -> Name:
    """The listening sockets of ``--fd``."""
    if program.options.fd == "systemd":
        program.use("wireline.net", "listeners_from_environment")
        return Name("[sock for _, sock in listeners_from_environment()]")
    program.use("socket")
    return Name(f"socket.socket(fileno={int(program.options.fd)})")


def define_is_allowed(program: Program) -> None:
    """Add the function that checks the address of a client, if clients are limited."""
    networks = program.options.allow
    if not networks:
        return
    program.use("ipaddress")
    listed = ", ".join(f'"{network}"' for network in networks)
    program.define(f"""\
ALLOWED = [ipaddress.ip_network(text) for text in ({listed},)]


def is_allowed(address):
    ip = ipaddress.ip_address(address.host.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in network for network in ALLOWED)""")


def define_handler(program: Program, text: str) -> None:
    """Add the function ``handle``, which refuses the clients that are not allowed."""
    if program.options.allow:
        check = "    if not is_allowed(address):\n        client.close(linger=0)\n        return\n"
        text = text.replace("def handle(client, address):\n", f"def handle(client, address):\n{check}")
    program.define(text)


def announce(program: Program, target: Target, listener: str, indent: int) -> None:
    """Add the line that prints the address of ``listener``."""
    program.use("sys")
    if target.path or program.options.fd is not None:
        fd = program.options.fd
        where = (
            target if target.path else f"descriptor {fd}" if fd != "systemd" else "the sockets of LISTEN_FDS"
        )
        program.add(call("print", f"listening on {where}", file=Name("sys.stderr")), indent)
        return
    program.use("wireline", "Target")
    where = f"Target('{target.scheme}', *{listener}.local_addr)"
    program.add(f'print(f"listening on {{{where}}}", file=sys.stderr)', indent)


def send_input(program: Program, at_eof: EndOfInput) -> None:
    """Add the function that sends standard input, in a thread, and ends the sending direction."""
    options = program.options
    timeout = f", timeout={literal(options.timeout)}" if options.timeout is not None else ""
    chunk = r'chunk.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")' if options.crlf else "chunk"
    lines = [
        "def send_input(sock):",
        "    while chunk := os.read(0, 65536):",
        f"        sock.send({chunk}{timeout})",
    ]
    if at_eof.quit_after == 0:
        lines.append("    sock.close()")
    elif at_eof.quit_after:
        lines.append(indent(close_after(at_eof.quit_after), "    "))
    if at_eof.half_close_after:
        lines.append(
            f"    while heard.wait({literal(at_eof.half_close_after)}):  # a server may drop a client that half-closes"
        )
        lines.append("        heard.clear()")
        program.add("heard = threading.Event()\n")
        program.add("")
    if at_eof.half_close_after is not None and at_eof.quit_after is not None:
        lines.append("    with contextlib.suppress(ClosedError):")
        lines.append("        sock.shutdown_write()")
    elif at_eof.half_close_after is not None:
        lines.append("    sock.shutdown_write()")
    program.use("os")
    program.use("threading")
    program.define("\n".join(lines))


def close_after(seconds: float) -> str:
    """The lines that close ``sock`` later, in a thread that does not keep the interpreter alive."""
    return f"""\
timer = threading.Timer({literal(seconds)}, sock.close)
timer.daemon = True
timer.start()"""


def pump(at_eof: EndOfInput, sock: str = "sock", *, expect_reply: bool = False) -> str:
    """The lines that move standard input to a socket, and received data to standard output."""
    heard = "\n    heard.set()" if at_eof.half_close_after else ""
    counted = "\n    received = True" if expect_reply else ""
    loop = f"""\
while chunk := {sock}.recv_some():
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush(){heard}{counted}"""
    if at_eof.quit_after is not None:
        closed = "with contextlib.suppress(ClosedError):  # send_input closes the socket"
        loop = f"{closed}\n{indent(loop, '    ')}"
    lines = [
        f"sender = threading.Thread(target=send_input, args=({sock},), daemon=True)",
        "sender.start()",
        loop,
        "sender.join(0.5)  # send the rest of the input, but do not wait for a terminal",
    ]
    if expect_reply:
        lines = ["received = False", *lines, "if not received:", '    sys.exit("the peer sent nothing")']
    return "\n".join(lines)
