"""The command echoes datagrams, an example sends them."""

from __future__ import annotations

from examples import udp_exchange
from examples.scenes.stage import Stage, example, wireline


def play(stage: Stage) -> None:
    """Exchange datagrams of several sizes: each is answered whole, an empty one too."""
    with wireline(stage, "listen", "--echo", "udp://127.0.0.1:0") as server:
        host, _, port = server.listening_on().removeprefix("udp://").rpartition(":")
        with example(stage, "udp_exchange.py", "ask", host, port, "good morning") as client:
            stage.check(client.finish().split() == [b"good", b"morning"], "the question was answered")
        for size in (1, 1400, 60_000, 0):
            sent = bytes(range(251)) * 240
            back = udp_exchange.ask(host, int(port), sent[:size])
            stage.check_bytes(back, sent[:size], f"a datagram of {size} bytes was echoed whole")
        server.terminate()
