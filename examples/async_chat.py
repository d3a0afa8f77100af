"""A chat server in one thread: what somebody says in a line, everybody else gets.

It is ``chat_server.py`` with ``await`` in it, and without the lock: a task is only interrupted where it awaits. Talk to
it with ``wireline connect localhost:7000``, from two terminals at least.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from wireline import Address, ClosedError, LineTooLongError
from wireline.asyncnet import AsyncSocket, StartingServer, serve

LONGEST = 4000
"""Bytes of a line at most. Somebody who says more at once is put out."""


class Room:
    """Everybody who is connected."""

    def __init__(self, patience: float = 2.0) -> None:
        """Open an empty room.

        Args:
            patience: seconds that somebody may take to receive a line. Who takes longer is put out, because the
                speaker's next line waits meanwhile.
        """
        self._patience = patience
        self._people: set[AsyncSocket] = set()

    async def welcome(self, client: AsyncSocket, address: Address) -> None:
        """Pass on what one client says until it leaves. ``serve`` calls this in a task of the client's own."""
        self._people.add(client)
        try:
            await client.send(b"* welcome, you are one of %d\r\n" % len(self._people), timeout=self._patience)
            async for line in client.lines(max_length=LONGEST):
                await self._tell_others(client, line + b"\r\n")
        except LineTooLongError:
            await client.send(b"that was too much at once\r\n", timeout=self._patience)
            client.close(linger=2)  # the rest is still coming in: a plain close might eat our last words
        except ClosedError:
            pass  # put out by `_tell`
        finally:
            self._people.discard(client)

    async def _tell_others(self, speaker: AsyncSocket, message: bytes) -> None:
        """Tell all of them at the same time, so that who is slow keeps nobody else waiting."""
        others = self._people - {speaker}
        await asyncio.gather(*(self._tell(client, message) for client in others))

    async def _tell(self, client: AsyncSocket, message: bytes) -> None:
        try:
            await client.send(message, timeout=self._patience)
        except OSError:
            # Out of time, perhaps in the middle of a line: there is no going on with this one. Its own task is waiting
            # in `lines`, gets a ClosedError there, and takes it off the list.
            client.close()


def start(port: int, host: str = "127.0.0.1", patience: float = 2.0) -> StartingServer:
    """Return a server to be started: ``async with start(0) as server``, or ``server = await start(0)``."""
    return serve(Room(patience).welcome, port, host)


async def run(port: int, host: str, patience: float) -> None:
    """Serve until the task is cancelled, which is what Ctrl-C does."""
    async with start(port, host, patience) as server:
        print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
        await server.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Pass on everybody's lines to everybody else.")
    parser.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds for somebody to take a line (2)")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # `kill` is Ctrl-C, too
    try:
        asyncio.run(run(options.port, options.host, options.patience))
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
