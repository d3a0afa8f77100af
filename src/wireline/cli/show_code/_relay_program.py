"""``--show-code`` of ``relay``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

from wireline.cli.parser._relay_options import listen_options, target_options
from wireline.cli.show_code._fragments import client_context, connecting, server_context, serving
from wireline.cli.show_code._program import Name, Program, call

if TYPE_CHECKING:
    from wireline.testing import Faults


def relay(options: argparse.Namespace) -> Program:
    """The program of ``relay``."""
    program = Program(options)
    target_side, listen_side = target_options(options), listen_options(options)
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


_WITH_FAULTS = """\
            StreamRelay(client, server, faults).run()"""

_WITHOUT_FAULTS = """\
            report = relay(client, server)
            if report.error is not None:
                server.close(linger=0)
                raise report.error"""


def _define_handler(program: Program, target_side: argparse.Namespace) -> None:
    options = program.options
    if options.fault:
        program.use("wireline.testing", "StreamRelay")
    else:
        program.use("wireline.net", "relay")
    lines = connecting(program, target_side, "server", "target_context" if options.target_tls else None)
    program.define(
        _HANDLER.format(
            connecting="\n".join(f"        {line}" for line in lines.split("\n")),
            relaying=_WITH_FAULTS if options.fault else _WITHOUT_FAULTS,
        )
    )


def _faults(faults: Faults) -> str:
    """The call that makes the faults, with the arguments that differ from their defaults."""
    values = {field.name: getattr(faults, field.name) for field in fields(faults)}
    defaults = {field.name: field.default for field in fields(faults)}
    return call("Faults", **{name: value for name, value in values.items() if value != defaults[name]})
