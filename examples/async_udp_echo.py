# async: The blocking twin of this file is udp_exchange.py; `make twins` makes it.
"""UDP: a server that sends every datagram back, and a client with several questions.

Datagrams may be lost, so a client has to repeat its question::

    python examples/async_udp_echo.py serve 7000
    python examples/async_udp_echo.py ask localhost 7000 "good morning" "good night"
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from wireline import IPPROTO_UDP, SOCK_DGRAM, SocketTimeout
from wireline.asyncnet import AsyncSocket, dial

LARGEST = 65535
"""The limit of a datagram, in bytes."""


def listen(port: int, host: str = "127.0.0.1") -> AsyncSocket:
    """Return a datagram socket with an address of its own; port 0 lets the operating system choose."""
    sock = AsyncSocket(sock_type=SOCK_DGRAM)
    try:
        sock.bind_addr(port, host)
    except BaseException:
        sock.close()
        raise
    return sock


async def echo(sock: AsyncSocket) -> None:
    """Send every datagram back, for ever."""
    while True:
        # A datagram that was received goes back to the address it has. One that cannot be sent is lost, as on the way.
        await sock.send_many_to(await sock.recv_many_from(size=LARGEST))


async def ask(host: str, port: int, question: bytes, tries: int = 3, timeout: float = 1.0) -> bytes:
    """Send a datagram and return the answer.

    Args:
        host: a name or an address.
        port: 1 to 65535.
        question: the datagram; it may be empty.
        tries: how often to ask.
        timeout: seconds to wait for an answer each time.

    Raises:
        SocketTimeout: there was no answer.
        ConnectionRefusedError: the port is closed, and the other machine says so.
    """
    # A connected datagram socket receives from its peer only, and reports a closed port.
    async with await dial(host, port, IPPROTO_UDP, timeout=timeout) as sock:
        while True:
            await sock.send(question)
            try:
                return (await sock.recv_from(LARGEST, timeout=timeout)).data
            except SocketTimeout:
                tries -= 1
                if tries < 1:
                    raise


async def ask_all(host: str, port: int, questions: Sequence[bytes]) -> list[bytes]:
    """Ask each question from a socket of its own; the answers have the order of the questions."""
    # async: All at once, and so all of them may be in the queue of the server.
    return await asyncio.gather(*(ask(host, port, question) for question in questions))  # async:
    # blocking: return [ask(host, port, question) for question in questions]


async def serve(port: int) -> None:
    """Echo until Ctrl-C."""
    async with listen(port) as sock:
        print(f"listening on {sock.local_addr.host}:{sock.local_addr.port}", flush=True)
        await echo(sock)


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, or echo until Ctrl-C."""
    parser = argparse.ArgumentParser(description="An echo by UDP.")
    roles = parser.add_subparsers(dest="role", required=True)
    serving = roles.add_parser("serve", help="send everything back, until Ctrl-C")
    serving.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    asking = roles.add_parser("ask", help="send questions and show the answers")
    asking.add_argument("host")
    asking.add_argument("port", type=int)
    asking.add_argument("questions", metavar="question", nargs="+")
    options = parser.parse_args(argv)

    if options.role == "serve":
        return _serve(options.port)
    questions = [question.encode() for question in options.questions]
    try:
        answers = asyncio.run(ask_all(options.host, options.port, questions))
    except OSError as error:
        print(f"{Path(__file__).stem}: {error}", file=sys.stderr)
        return 1
    for answer in answers:
        print(answer.decode(errors="replace"))
    return 0


def _serve(port: int) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    # `kill` ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        asyncio.run(serve(port))
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
