"""A Unix socket: an echo server whose address is a file, and a client for it.

Only programs on the same machine can connect, and only if the file's permissions allow it::

    python examples/unix_echo.py serve /tmp/echo.sock
    python examples/unix_echo.py ask /tmp/echo.sock "is this an echo?"
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from wireline import AF_UNIX, Address
from wireline.net import Server, Socket, serve

PATIENCE = 60.0
"""Seconds that a client may be silent."""


def echo(client: Socket, address: Address) -> None:
    """Send data back as it arrives. Most Unix clients have no address: ``address.host`` is ``""``."""
    while data := client.recv_some(timeout=PATIENCE):
        client.send(data, timeout=PATIENCE)


def start(path: str) -> Server:
    """Return a running server. It replaces a stale socket file; ``stop`` removes the file."""
    return serve(echo, 0, f"unix:{path}")


def ask(path: str, message: bytes, timeout: float = 5.0) -> bytes:
    """Send a message and its end, and return the whole answer.

    Args:
        path: of the server's socket.
        message: any bytes.
        timeout: seconds for each step.
    """
    with Socket(AF_UNIX) as sock:
        sock.connect_unix(path, timeout)
        sock.send(message, timeout=timeout)
        sock.shutdown_write()  # the server sees the end; we can still read
        pieces = []
        while piece := sock.recv_some(timeout=timeout):
            pieces.append(piece)
        return b"".join(pieces)


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, or serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="An echo on a Unix socket.")
    roles = parser.add_subparsers(dest="role", required=True)
    serving = roles.add_parser("serve", help="send everything back, until Ctrl-C")
    serving.add_argument("path")
    asking = roles.add_parser("ask", help="send a message and show the answer")
    asking.add_argument("path")
    asking.add_argument("message")
    options = parser.parse_args(argv)

    if options.role == "serve":
        return _serve(options.path)
    try:
        print(ask(options.path, options.message.encode()).decode(errors="replace"))
    except OSError as error:
        print(f"unix_echo: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(path: str) -> int:
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # else `kill` would leave the socket file behind
    with start(path) as server:
        try:
            print(f"listening on {server.local_addr.host}", flush=True)
            server.wait()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
