# async: The blocking twin of this file is redis_client.py; `make twins` makes it.
"""A Redis client: an example of lines that say how many bytes follow (RESP2), and of messages without a question.

A command is sent as an array of byte strings, and gets one reply::

    python examples/async_redis_client.py localhost 6379 SET colour blue
    python examples/async_redis_client.py localhost 6379 SUBSCRIBE news
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from wireline import Deadline
from wireline.asyncnet import AsyncSocket, dial
from wireline.timing import Timeout

PATIENCE = 10.0
"""Seconds for a reply, and for the rest of a message that has begun to arrive."""

# Guesses, against a hostile server: true lines are short, and true arrays hold arrays of arrays at most.
LONGEST_LINE = 64 * 1024  # bytes
LARGEST_STRING = 512 * 1024 * 1024  # bytes: the server's own limit
DEEPEST_ARRAY = 8


class RedisError(Exception):
    """An error that the server reported."""


class Redis:
    """One connection, for one call at a time.

    A reply is read in several steps. A timeout or a cancellation between them closes the connection: the next call
    would take the rest of that reply for its own.
    """

    def __init__(self, sock: AsyncSocket) -> None:
        self._sock = sock

    @classmethod
    async def connect(cls, host: str, port: int = 6379, timeout: Timeout = PATIENCE) -> Self:
        return cls(await dial(host, port, timeout=timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        return self._sock.is_closed

    def close(self) -> None:
        self._sock.close()

    async def execute(self, *words: str | bytes | int, timeout: Timeout = PATIENCE) -> object:
        """Send a command and return its reply: ``bytes``, ``str`` for a status, ``int``, None, or a list of these.

        Raises:
            RedisError: the server refused the command.
            OSError, EOFError, ValueError: the connection failed, or was cut off, or the reply is none. It is closed.
        """
        deadline = Deadline(timeout)
        try:
            await self._sock.send(command(*words), timeout=deadline)
            reply = await self._read_reply(deadline)
        except BaseException:
            self.close()
            raise
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def subscribe(self, *channels: str | bytes, timeout: Timeout = PATIENCE) -> None:
        """Ask for the messages of channels. From now on the connection is for ``messages`` only."""
        try:
            await self._sock.send(command("SUBSCRIBE", *channels), timeout=timeout)
        except BaseException:
            self.close()
            raise

    async def messages(self, timeout: Timeout = None) -> AsyncIterator[tuple[bytes, bytes]]:
        """Yield the channel and the data of every message.

        Args:
            timeout: seconds to wait for each message; None waits for ever. It loses nothing and leaves the connection
                open: another ``messages()`` goes on.
        """
        while True:
            # Only this wait has the caller's timeout: nothing of a message has been consumed.
            found, end = split_messages(bytes(await self._sock.fill(1, timeout)))
            self._sock.consume(end)
            for message in found:  # async:
                yield message
            # blocking: yield from found
            if not found and (other := await self._read_message()):
                yield other

    async def _read_message(self) -> tuple[bytes, bytes] | None:
        """Read what has begun to arrive; None if it is no message, but the reply to SUBSCRIBE."""
        try:
            reply = await self._read_reply(PATIENCE)
        except BaseException:
            self.close()
            raise
        match reply:
            case [b"message", bytes(channel), bytes(data)]:
                return channel, data
            case RedisError():
                raise reply
        return None

    async def _read_reply(self, timeout: Timeout, depth: int = 0) -> object:
        sock = self._sock
        line = await sock.recv_line(timeout, max_length=LONGEST_LINE, on_long="raise")
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            size = _size(rest, LARGEST_STRING)
            return None if size < 0 else (await sock.recv_exactly(size + 2, timeout))[:-2]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RedisError(rest.decode(errors="replace"))
        if kind == b"*" and depth < DEEPEST_ARRAY:
            # No memory is reserved for the number: each part has to arrive first.
            size = _size(rest, LARGEST_STRING)
            return None if size < 0 else [await self._read_reply(timeout, depth + 1) for _ in range(size)]
        if not line:
            raise EOFError("the server closed the connection")
        raise ValueError(f"this is no Redis: {line[:60]!r}")


def command(*words: str | bytes | int) -> bytes:
    """An array of byte strings, whose sizes make every byte allowed in them."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


_MESSAGE = re.compile(rb"\*3\r\n\$7\r\nmessage\r\n\$(\d{1,9})\r\n")
_STRING = re.compile(rb"\r\n\$(\d{1,9})\r\n")


def split_messages(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """The whole messages at the beginning of some bytes, and where they end.

    To split all that have arrived at once costs a fraction of reading each in seven steps. What has another form is
    left for those steps.
    """
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while begin := _MESSAGE.match(data, at):
        end_of_channel = begin.end() + int(begin[1])
        middle = _STRING.match(data, end_of_channel)
        if not middle:
            break
        end = middle.end() + int(middle[1])
        if data[end : end + 2] != b"\r\n":
            break
        found.append((data[begin.end() : end_of_channel], data[middle.end() : end]))
        at = end + 2
    return found, at


def _size(digits: bytes, limit: int) -> int:
    """Return a size, -1 for the reply that stands for nothing."""
    size = int(digits)
    if not -1 <= size <= limit:
        raise ValueError(f"the server announces {size}, at most {limit} is allowed")
    return size


async def talk(host: str, port: int, words: Sequence[str]) -> None:
    """Execute a command and show the reply; or show messages until Ctrl-C."""
    async with await Redis.connect(host, port) as redis:
        if words[0].upper() != "SUBSCRIBE":
            print(await redis.execute(*words))
            return
        await redis.subscribe(*words[1:])
        async for channel, data in redis.messages():
            print(channel, data, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Talk to the server of the arguments."""
    parser = argparse.ArgumentParser(description="Send a command to a Redis server.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("words", metavar="word", nargs="+", help="the command, such as GET colour")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    try:
        asyncio.run(talk(options.host, options.port, options.words))
    except KeyboardInterrupt:
        return 0
    except (RedisError, OSError, EOFError, ValueError) as error:
        print(f"{Path(__file__).stem}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
