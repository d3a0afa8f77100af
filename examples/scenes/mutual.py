"""Mutual TLS: clients with a certificate of the CA are greeted by name; others are refused with the reason."""

from __future__ import annotations

import asyncio

from examples import async_mutual_tls, mutual_tls
from examples.scenes.certificates import Authority
from examples.scenes.stage import Stage, example, wireline


def play(stage: Stage) -> None:
    """Get the greeting of each flavour's server."""
    authority = Authority(stage.directory)
    ours, alice = authority.issue("greeter", "localhost"), authority.issue("alice")
    stage.show(">>> server = mutual_tls.start(0, 'ca.pem', 'greeter.pem', 'greeter.key')")
    with mutual_tls.start(0, authority.file, *ours) as server:
        port = server.local_addr.port
        greeting = asyncio.run(async_mutual_tls.ask("localhost", port, authority.file, *alice))
        stage.check(greeting == "hello CN=alice", "the server knows that it is alice", greeting)
    words = ("--ca-file", authority.file, "--cert", ours.cert, "--key", ours.key)
    with example(stage, "async_mutual_tls.py", "serve", "0", *words) as running:
        port = int(running.listening_on(on_stdout=True).rpartition(":")[2])
        target = f"tls://localhost:{port}"
        trust = ("connect", "--at-eof", "half-close", "--ca-file", authority.file)
        with wireline(stage, *trust, "--cert", alice.cert, "--key", alice.key, target) as client:
            stage.check_bytes(client.finish(), b"hello CN=alice\r\n", "so does the async one")
        with wireline(stage, *trust, target) as client:
            code, said = client.fail()
        stage.check(code == 5, "a client without a certificate is refused", code)
        stage.check("give one with --cert" in said, "and the message names the missing option", said)
        running.terminate()
