"""A TCP server, the plain way: bind, listen, and serve one client after the other.

The next client waits until the one before has left. ``echo_threads.py`` serves many at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from wireline import SockOpt
from wireline.net import Socket

PATIENCE = 60.0
"""Seconds that a client may be silent before it is dropped, and the next one is served."""


def listen(port: int, host: str = "") -> Socket:
    """Return a socket that listens; port 0 lets the operating system choose, ``""`` is every interface."""
    listener = Socket()
    try:
        if os.name == "posix":  # so that the port can be used again right after the server has ended
            listener.set_sock_opt(SockOpt.REUSE_ADDR, True)
        listener.bind_addr(port, host)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def serve_next(listener: Socket) -> None:
    """Wait for a client, and send back its lines in capitals until it leaves."""
    client, address = listener.accept_addr()
    print(f"client connected from {address.host}:{address.port}", flush=True)
    with client:
        try:
            for line in client.lines(max_length=1000, timeout=PATIENCE):
                client.send(line.upper() + b"\r\n", timeout=PATIENCE)
        except (OSError, ValueError) as error:  # a timeout or a reset; or a line of more than 1000 bytes
            print(f"lost {address.host}:{address.port}: {error}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Send back each client's lines in capitals.")
    parser.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends it as Ctrl-C does
    try:
        with listen(options.port, options.host) as listener:
            print(f"listening on {listener.local_addr.host}:{listener.local_addr.port}", flush=True)
            while True:
                serve_next(listener)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
