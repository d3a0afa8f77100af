"""``--show-code`` of ``relay``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from textwrap import indent
from typing import TYPE_CHECKING

from wireline.cli._relay_targets import ONE_OF_SEVERAL_TIMEOUT, RETRY_AFTER
from wireline.cli.parser._relay_tls_options import LISTEN, TARGET
from wireline.cli.show_code._dump_program import define_dump
from wireline.cli.show_code._fragments import (
    client_context,
    connecting,
    define_handler,
    define_is_allowed,
    server_context,
    serving,
)
from wireline.cli.show_code._program import Name, Program, call, literal

if TYPE_CHECKING:
    from wireline.testing import Faults


def relay(options: argparse.Namespace) -> Program:
    """The program of ``relay``."""
    program = Program(options)
    target_side, listen_side = TARGET.options(options), LISTEN.options(options)
    if len(options.relay_targets) > 1:
        _define_connect(program, target_side)
    _define_handler(program, target_side)
    # The target's context first: both sides read keys into the variable `keys`, which the server's callback uses later.
    if options.target_tls:
        client_context(program, target_side, name="target_context")
    if options.listen_tls:
        server_context(program, listen_side, name="listen_context")
    if options.fault:
        program.use("wireline.testing", "Faults")
        program.add(f"faults = {_faults(options.fault)}")
    if options.target_tls or options.listen_tls or options.fault:
        program.add("")
    serving(
        program,
        options.listen,
        tls=Name("listen_context") if options.listen_tls else None,
        max_connections=options.max,
        handshake_timeout=options.timeout if options.listen_tls else None,
    )
    return program


_HANDLER = """\
def handle(client, address):
    try:
{connecting}
{relaying}
    except OSError:
        client.close(linger=0)  # a reset: the client must not mistake this for a normal end
        raise"""


_IN_THREADS = """\
            StreamRelay({}).run()"""

_AT_ONCE = """\
            report = relay(client, server)
            if report.error is not None:
                server.close(linger=0)
                raise report.error"""


def _define_handler(program: Program, target_side: argparse.Namespace) -> None:
    options = program.options
    arguments = ["client, server"]
    if options.fault:
        arguments.append("faults")
    if options.dump:
        arguments.append(define_dump(program))
    in_threads = len(arguments) > 1
    program.use(*("wireline.testing", "StreamRelay") if in_threads else ("wireline.net", "relay"))
    if len(options.relay_targets) > 1:
        lines = "with connect() as server:"
    else:
        (target_side.target,) = options.relay_targets
        lines = connecting(program, target_side, "server", "target_context" if options.target_tls else None)
    define_is_allowed(program)
    define_handler(
        program,
        _HANDLER.format(
            connecting=indent(lines, "        "),
            relaying=_IN_THREADS.format(", ".join(arguments)) if in_threads else _AT_ONCE,
        ),
    )


_CONNECT = """\
targets = [{targets}]{turns}
retry_at = {{}}  # targets that have failed, and when they are tried in their place again


def connect():
    {start}
    while True:
        now = time.monotonic()
        usable = [target for target in left if retry_at.get(target, now) <= now] or left
        target = usable[{index}]
        if target in retry_at:
            retry_at[target] = now + {retry}  # for the other clients
        try:
            server = {dial}
        except OSError:
            retry_at[target] = time.monotonic() + {retry}
            left = [each for each in left if each != target]
            if not left:
                raise
        else:
            retry_at.pop(target, None)
            return server"""


def _define_connect(program: Program, target_side: argparse.Namespace) -> None:
    """Add the function that connects to one of several targets."""
    options = program.options
    program.use("time")
    program.use("wireline.net", "dial")
    in_turn = options.balance == "round-robin"
    if in_turn:
        program.use("itertools")
    wheres = [(str(each), None) if each.path else (each.host, each.port) for each in options.relay_targets]
    timeout = ONE_OF_SEVERAL_TIMEOUT if options.timeout is None else options.timeout
    tls = {"tls": Name("target_context"), "hostname": target_side.sni} if options.target_tls else {}
    program.define(
        _CONNECT.format(
            targets=", ".join(f"({literal(host)}, {port})" for host, port in wheres),
            turns="\nturns = itertools.count()" if in_turn else "",
            start="turn, left = next(turns), list(targets)" if in_turn else "left = list(targets)",
            index="turn % len(usable)" if in_turn else "0",
            retry=f"{RETRY_AFTER:g}",
            dial=call("dial", Name("*target"), timeout=timeout, **tls),
        )
    )


def _faults(faults: Faults) -> str:
    """The call that makes the faults, with the arguments that differ from their defaults."""
    values = {field.name: getattr(faults, field.name) for field in fields(faults)}
    defaults = {field.name: field.default for field in fields(faults)}
    return call("Faults", **{name: value for name, value in values.items() if value != defaults[name]})
