# Made by 'wireline twin' from async_echo.py: edit that file.
# From line 11 on, line N here is line N there.
# isort: skip_file
# fmt: off
"""An echo server for many clients at once: ``serve`` gives every connection a task, or a thread, of its own.

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
            # If the client does not read, this waits here, and reads no more from it.
            client.send(data, timeout=PATIENCE)
    except TimeoutError:
        print(f"{address.host}:{address.port} has fallen asleep", flush=True)
    # `serve` closes the client when this returns.


def start(port: int, host: str = "127.0.0.1", max_connections: int = 1000) -> Server:
    """Return a server for ``with``, which stops it at the end; in the async flavour, for ``async with``."""
    return serve(echo, port, host, max_connections=max_connections)


def run(port: int, host: str) -> None:
    """Serve until Ctrl-C, then let connected clients finish."""
    with start(port, host) as server:
        try:
            print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
            server.wait()
        except KeyboardInterrupt:
            report = server.stop(drain=1.0)
            print(f"{report.drained} clients finished, {report.forced} were cut off", flush=True)
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Echo the bytes of each client.")
    parser.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    # `kill` ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        run(options.port, options.host)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
