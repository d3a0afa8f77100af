"""A key that both sides know, and no certificate anywhere."""

from __future__ import annotations

import asyncio
import secrets

from examples import async_psk_greeter, psk_greeter
from examples.scenes.stage import Stage, example, wireline
from wireline.tls import SslContext, SslError


def play(stage: Stage) -> None:
    """Get the greeting of each flavour's server, and be refused with a wrong key."""
    pre_shared = next(feature for feature in SslContext.available_features() if "pre-shared" in feature.name)
    if not pre_shared.available:
        stage.show(f"this Python has no pre-shared keys: {pre_shared.reason}")
        return
    keys = {"alice": secrets.token_bytes(32), "bob": secrets.token_bytes(32)}
    path = stage.directory / "keys.txt"
    path.write_text("".join(f"{identity}:{key.hex()}\n" for identity, key in keys.items()))
    stage.show(">>> server = psk_greeter.start(0, keys)")
    with psk_greeter.start(0, keys) as server:
        port = server.local_addr.port
        greeting = asyncio.run(async_psk_greeter.ask("localhost", port, "bob", keys["bob"]))
        stage.check(greeting == "hello bob", "the server knows that it is bob", greeting)
        stage.check(_is_refused(port, "bob", keys["alice"]), "a client with the key of alice cannot be bob")
    mine = stage.directory / "mine.txt"
    mine.touch(0o600)
    mine.write_text(f"alice:{keys['alice'].hex()}\n")
    with example(stage, "async_psk_greeter.py", "serve", "0", str(path)) as running:
        address = running.listening_on(on_stdout=True)
        with wireline(
            stage, "connect", "--at-eof", "half-close", "--psk-file", str(mine), f"tls://{address}"
        ) as client:
            stage.check_bytes(client.finish(), b"hello alice\r\n", "the command takes the same file of keys")
        running.terminate()


def _is_refused(port: int, identity: str, key: bytes) -> bool:
    try:
        psk_greeter.ask("localhost", port, identity, key)
    except SslError:
        return True
    return False
