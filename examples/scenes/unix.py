"""An example serves on a Unix socket, the command is the client."""

from __future__ import annotations

import subprocess

from examples import unix_echo
from examples.scenes.stage import Stage, wireline

MESSAGE = bytes(range(256)) * 400


def play(stage: Stage) -> None:
    """Send bytes of every kind and get them back."""
    path = stage.directory / "echo.sock"
    stage.show(">>> server = unix_echo.start('echo.sock')")
    with unix_echo.start(str(path)):
        stage.check(path.is_socket(), "the address is a file")
        with wireline(
            stage, "connect", "--at-eof", "half-close", f"unix:{path}", stdin=subprocess.PIPE
        ) as client:
            back = client.finish(MESSAGE)
        stage.check_bytes(back, MESSAGE, f"{len(MESSAGE)} bytes were echoed, then the end")
    stage.check(not path.exists(), "the server has removed the file")
