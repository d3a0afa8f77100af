"""The command echoes, an example asks."""

from __future__ import annotations

from examples.scenes.stage import Stage, example, wireline

SAID = ["good morning", "", "how are you?", "good night"]


def play(stage: Stage) -> None:
    """Ask the same server twice, then end it."""
    with wireline(stage, "listen", "--echo", "--keep", "127.0.0.1:0") as server:
        host, _, port = server.listening_on().rpartition(":")
        for said in (SAID, SAID[::-1]):
            with example(stage, "tcp_client.py", host, port, *said) as client:
                answers = client.finish()
            expected = "".join(f"{line}\n" for line in said).encode()
            stage.check_bytes(
                answers.replace(b"\r\n", b"\n"), expected, "every line was echoed, the empty one too"
            )
        server.terminate()
        stage.check(server.process.returncode == 0, "the server ended cleanly when it was asked to")
