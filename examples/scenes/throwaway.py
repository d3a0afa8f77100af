"""The command serves TLS with a throw-away certificate, and prints the command line of a client that trusts it."""

from __future__ import annotations

import shlex
import subprocess

from examples.scenes.stage import Failed, Program, Stage, wireline

MESSAGE = bytes(range(256)) * 4000
_LINE = "a client needs this CA: wireline "


def play(stage: Stage) -> None:
    """Connect with the printed command line, and check that a client without it is refused."""
    with wireline(stage, "listen", "--self-signed", "--echo", "--keep", "tls://127.0.0.1:0") as server:
        target = server.listening_on()
        words = _words_for_a_client(server)
        with wireline(stage, *words, stdin=subprocess.PIPE) as client:
            stage.check_bytes(client.finish(MESSAGE), MESSAGE, f"{len(MESSAGE)} bytes were echoed over TLS")
        with wireline(stage, "connect", "--at-eof", "half-close", target) as client:
            code, said = client.fail()
        stage.check(code == 5, "a client without its CA refuses it: exit code 5", code)
        stage.show(said)
        stage.check(
            "not trusted here" in said and "--ca-file" in said, "and the message says what to do", said
        )
        server.terminate()


def _words_for_a_client(server: Program) -> list[str]:
    """The arguments for a client, from the line that the server prints after its CA."""
    assert server.process.stderr is not None
    for line in server.process.stderr:
        if line.decode().startswith(_LINE):
            return shlex.split(line.decode().removeprefix(_LINE))
    raise Failed("the server did not print a line for clients")
