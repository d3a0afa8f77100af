"""The command serves TLS with a certificate to throw away, and prints what a client needs to trust it."""

from __future__ import annotations

import shlex
import subprocess

from examples.scenes.stage import Failed, Program, Stage, wireline

MESSAGE = bytes(range(256)) * 4000
_LINE = "a client needs this CA: wireline "


def play(stage: Stage) -> None:
    """Talk to the server with what it prints, and see that nobody talks to it by accident."""
    with wireline(stage, "listen", "--self-signed", "--echo", "--keep", "tls://127.0.0.1:0") as server:
        target = server.listening_on()
        words = _words_for_a_client(server)
        with wireline(stage, *words, stdin=subprocess.PIPE) as client:
            stage.check_bytes(client.finish(MESSAGE), MESSAGE, f"{len(MESSAGE)} bytes came back, encrypted")
        with wireline(stage, "connect", target) as client:
            code, said = client.fail()
        stage.check(code == 5, "without its CA nobody trusts it: that is exit code 5", code)
        stage.show(said)
        stage.check(
            "not trusted here" in said and "--ca-file" in said, "and a sentence that says what to do", said
        )
        server.terminate()


def _words_for_a_client(server: Program) -> list[str]:
    """What the server says that a client needs; before that it prints its CA."""
    assert server.process.stderr is not None
    for line in server.process.stderr:
        if line.decode().startswith(_LINE):
            return shlex.split(line.decode().removeprefix(_LINE))
    raise Failed("the server does not say what a client needs")
