# Made by 'wireline twin' from async_chat.py: edit that file.
# From line 11 on, line N here is line N there.
# isort: skip_file
# fmt: off
"""A chat server: it sends each line of a client to all other clients.

Talk to it with ``wireline connect localhost:7000``, from two terminals at least.
"""
from __future__ import annotations
import argparse
import signal
import sys

import threading
from collections.abc import Sequence

from wireline import Address, ClosedError, LineTooLongError
from wireline.net import Server, Socket, serve

LONGEST = 4000
"""The limit of a line in bytes. A client that exceeds it is disconnected."""


class Room:
    """The clients that are connected."""

    def __init__(self, patience: float = 2.0) -> None:
        """Open an empty room.

        Args:
            patience: seconds in which a client must receive a line. The speaker's next line waits meanwhile, so a
                slower client is disconnected.
        """
        self._patience = patience
        self._people: set[Socket] = set()

        self._lock = threading.Lock()

    def welcome(self, client: Socket, address: Address) -> None:
        """Pass on the lines of one client until it leaves. ``serve`` calls this in a task or thread for each."""
        with self._lock:
            self._people.add(client)
            count = len(self._people)

        try:
            client.send(b"* welcome, you are one of %d\r\n" % count, timeout=self._patience)
            for line in client.lines(max_length=LONGEST):
                self._tell_others(client, line + b"\r\n")
        except LineTooLongError:
            client.send(b"that was too much at once\r\n", timeout=self._patience)
            client.close(linger=2)  # the client is still sending: a plain close might destroy our last line
        except ClosedError:
            pass  # disconnected by `_tell`
        finally:
            with self._lock:
                self._people.discard(client)

    def _tell_others(self, speaker: Socket, message: bytes) -> None:

        with self._lock:  # not held while sending
            others = self._people - {speaker}
        for client in others:
            self._tell(client, message)


    def _tell(self, client: Socket, message: bytes) -> None:
        try:
            client.send(message, timeout=self._patience)
        except OSError:
            # A timeout, perhaps in the middle of a line, so this client cannot be used any more. Its own call waits in
            # `lines`, gets a ClosedError there, and removes it.
            client.close()


def start(port: int, host: str = "127.0.0.1", patience: float = 2.0) -> Server:
    """Return a server for ``with``, which stops it at the end; in the async flavour, for ``async with``."""
    return serve(Room(patience).welcome, port, host)


def run(port: int, host: str, patience: float) -> None:
    """Serve until Ctrl-C."""
    with start(port, host, patience) as server:
        print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
        server.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Send the lines of each client to all others.")
    parser.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    parser.add_argument(
        "--patience", type=float, default=2.0, help="seconds in which a client must receive a line (2)"
    )
    options = parser.parse_args(argv)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    # `kill` ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        run(options.port, options.host, options.patience)
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
