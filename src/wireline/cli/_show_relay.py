"""``--show-code`` of ``relay``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

from wireline.cli._program import Name, Program, call
from wireline.cli._relay_words import listen_options, target_options
from wireline.cli._show_code import client_context, connecting, server_context, serving

if TYPE_CHECKING:
    from wireline.testing import Faults


def relay(options: argparse.Namespace) -> Program:
    """The program of ``relay``."""
    program = Program(options)
    inside, outside = target_options(options), listen_options(options)
    _define_handler(program, inside)
    # First the target's: a file of keys is read into the same name for both sides, and only the clients' stay there.
    if options.target_tls:
        client_context(program, inside, name="target_context")
    if options.listen_tls:
        server_context(program, outside, name="listen_context")
    if options.fault:
        program.use("wireline.testing", "Faults")
        program.add(f"faults = {_faults(options.fault)}")
    if options.target_tls or options.listen_tls or options.fault:
        program.add("")
    patience = options.timeout if options.listen_tls else None
    context = Name("listen_context") if options.listen_tls else None
    serving(program, outside.target, tls=context, max_connections=options.max, handshake_timeout=patience)
    return program


_HANDLER = """\
def handle(client, address):
    try:
{connecting}
            StreamRelay({arguments}).run()
    except OSError:
        client.close(linger=0)  # a reset: nobody shall take it for an end
        raise"""


def _define_handler(program: Program, inside: argparse.Namespace) -> None:
    options = program.options
    program.use("wireline.testing", "StreamRelay")
    lines = connecting(program, inside, "server", "target_context" if options.target_tls else None)
    program.define(
        _HANDLER.format(
            connecting="\n".join(f"        {line}" for line in lines.split("\n")),
            arguments="client, server, faults" if options.fault else "client, server",
        )
    )


def _faults(faults: Faults) -> str:
    """As one writes them: only what is wrong with the network, and not what is right."""
    values = {field.name: getattr(faults, field.name) for field in fields(faults)}
    usual = {field.name: field.default for field in fields(faults)}
    return call("Faults", **{name: value for name, value in values.items() if value != usual[name]})
