"""STARTTLS, and an attacker who injects plaintext before it."""

from __future__ import annotations

import asyncio

from examples import async_starttls, starttls
from examples.scenes.certificates import Authority
from examples.scenes.stage import PATIENCE, Stage, example
from wireline.net import dial


def play(stage: Stage) -> None:
    """Ask each flavour's server with the other flavour's client."""
    authority = Authority(stage.directory)
    leaf = authority.issue("starttls", "localhost")
    with starttls.start(0, *leaf) as server:
        port = server.local_addr.port
        stage.show(">>> await async_starttls.ask('localhost', port, b'is this safe?', ca_file)")
        answer = asyncio.run(async_starttls.ask("localhost", port, b"is this safe?", authority.file))
    stage.check_bytes(answer, b"IS THIS SAFE?", "a blocking server answered an async client, in TLS")
    with example(stage, "async_starttls.py", "serve", "0", "--cert", leaf.cert, "--key", leaf.key) as running:
        port = int(running.listening_on(on_stdout=True).rpartition(":")[2])
        words = ("ask", "localhost", str(port), "and this?", "--ca-file", authority.file)
        with example(stage, "starttls.py", *words) as client:
            stage.check_bytes(client.finish().strip(), b"AND THIS?", "and an async server a blocking client")
        stage.show(">>> sock.send(b'STARTTLS\\r\\ninjected\\r\\n')   # an attacker's injection")
        with dial("localhost", port, timeout=PATIENCE) as sock:
            sock.send(b"STARTTLS\r\ninjected\r\n", timeout=PATIENCE)
            said = [*sock.lines(timeout=PATIENCE)]
        stage.check(b"INJECTED" not in said, "plaintext never passes for protected data", said)
        running.terminate()
