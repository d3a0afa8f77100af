"""An echo server for many clients at once: ``serve`` gives every connection a thread of its own.

Try it with ``wireline connect localhost:7000``, more than once at the same time.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from wireline import Address
from wireline.net import Server, Socket, serve

PATIENCE = 60.0
"""Seconds that a client may neither send nor receive before it is dropped."""


def echo(client: Socket, address: Address) -> None:
    """Send data back as it arrives, until the client is done."""
    try:
        while data := client.recv_some(timeout=PATIENCE):
            client.send(data, timeout=PATIENCE)
    except TimeoutError:
        print(f"{address.host}:{address.port} has fallen asleep", flush=True)
    # `serve` closes the client when this returns.


def start(port: int, host: str = "127.0.0.1", max_connections: int = 100) -> Server:
    """Return a running server; it listens already. Use it in a ``with`` statement, or call ``stop()``."""
    return serve(echo, port, host, max_connections=max_connections)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C, then let connected clients finish."""
    parser = argparse.ArgumentParser(description="Echo the bytes of each client.")
    parser.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends it as Ctrl-C does
    with start(options.port, options.host) as server:
        try:
            print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
            server.wait()
        except KeyboardInterrupt:
            report = server.stop(drain=1.0)
            print(f"{report.drained} clients finished, {report.forced} were cut off", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
