"""Both flavours together: a blocking client asks an async server, and async clients ask a blocking server."""

from __future__ import annotations

import asyncio

from examples import echo_threads
from examples.scenes.stage import PATIENCE, Stage, example
from wireline import Address
from wireline.asyncnet import dial

SAID = ["good morning", "", "good night"]

CLIENTS = 20
ROUNDS = 10
MESSAGE = bytes(range(256)) * 16


def play(stage: Stage) -> None:
    """Hold the same conversation both ways round."""
    _blocking_to_async(stage)
    _async_to_blocking(stage)


def _blocking_to_async(stage: Stage) -> None:
    with example(stage, "async_echo.py", "0") as server:
        host, _, port = server.listening_on(on_stdout=True).rpartition(":")
        with example(stage, "tcp_client.py", host, port, *SAID) as client:
            answers = client.finish()
        expected = "".join(f"{line}\n" for line in SAID).encode()
        stage.check_bytes(answers.replace(b"\r\n", b"\n"), expected, "the async server answered every line")
        server.terminate()


def _async_to_blocking(stage: Stage) -> None:
    with echo_threads.start(0) as server:
        stage.show(f">>> await asyncio.gather(*[converse(address) for _ in range({CLIENTS})])")
        answers = asyncio.run(_converse_at_once(server.local_addr))
    stage.check_bytes(
        b"".join(answers),
        MESSAGE * ROUNDS * CLIENTS,
        f"{CLIENTS} async clients got {ROUNDS} answers each from a blocking server",
    )


async def _converse_at_once(server: Address) -> list[bytes]:
    return await asyncio.gather(*[_converse(server) for _ in range(CLIENTS)])


async def _converse(server: Address) -> bytes:
    """Ask, wait for the answer, ask again; return the answers."""
    answers = []
    async with await dial(server.host, server.port, timeout=PATIENCE) as sock:
        for _ in range(ROUNDS):
            await sock.send(MESSAGE, timeout=PATIENCE)
            answers.append(await sock.recv_exactly(len(MESSAGE), timeout=PATIENCE))
    return b"".join(answers)
