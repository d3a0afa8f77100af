"""A chat server: what somebody says in a line, everybody else gets.

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
"""Bytes of a line at most. Somebody who says more at once is put out."""


class Room:
    """Everybody who is connected."""

    def __init__(self, patience: float = 2.0) -> None:
        """Open an empty room.

        Args:
            patience: seconds that somebody may take to receive a line. Who takes longer is put out, because
                the others wait meanwhile.
        """
        self._patience = patience
        self._lock = threading.Lock()
        self._people: set[Socket] = set()

    def welcome(self, client: Socket, address: Address) -> None:
        """Pass on what one client says until it leaves. ``serve`` calls this in a thread of the client's own."""
        with self._lock:
            self._people.add(client)
            count = len(self._people)
        try:
            client.send(b"* welcome, you are one of %d\r\n" % count, timeout=self._patience)
            for line in client.lines(max_length=LONGEST):
                self._tell_others(client, line + b"\r\n")
        except LineTooLongError:
            client.send(b"that was too much at once\r\n", timeout=self._patience)
            client.close(linger=2)  # the rest is still coming in: a plain close might eat our last words
        except ClosedError:
            pass  # put out by `_tell_others`
        finally:
            with self._lock:
                self._people.discard(client)

    def _tell_others(self, speaker: Socket, message: bytes) -> None:
        with self._lock:  # not held while sending: who is slow must not keep others from coming and going
            others = self._people - {speaker}
        for client in others:
            try:
                client.send(message, timeout=self._patience)
            except OSError:
                # Out of time, perhaps in the middle of a line: there is no going on with this one. Its own thread
                # is waiting in `lines`, gets a ClosedError there, and takes it off the list.
                client.close()


def start(port: int, host: str = "127.0.0.1", patience: float = 2.0) -> Server:
    """Return a running server; it listens already. Use it in a ``with`` statement, or call ``stop()``."""
    return serve(Room(patience).welcome, port, host)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Pass on everybody's lines to everybody else.")
    parser.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends it as Ctrl-C does
    with start(options.port, options.host) as server:
        try:
            print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
            server.wait()
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
