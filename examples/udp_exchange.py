"""UDP: ask a question in one datagram, get the answer in another.

Datagrams may be lost, so a client has to repeat its question::

    python examples/udp_exchange.py answer 7000
    python examples/udp_exchange.py ask localhost 7000 "good morning"
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from wireline import IPPROTO_UDP, SOCK_DGRAM, SocketTimeout
from wireline.net import Socket, dial

LARGEST = 65535
"""The limit of a datagram, in bytes."""


def listen(port: int, host: str = "127.0.0.1") -> Socket:
    """Return a datagram socket with an address of its own; port 0 lets the operating system choose."""
    sock = Socket(sock_type=SOCK_DGRAM)
    try:
        sock.bind_addr(port, host)
    except BaseException:
        sock.close()
        raise
    return sock


def answer_next(sock: Socket) -> bytes:
    """Wait for a datagram, answer its sender with the same in capitals, and return the datagram."""
    question, sender = sock.recv_from(LARGEST)
    sock.send_to(sender.host, sender.port, question.upper())
    return question


def ask(host: str, port: int, question: bytes, tries: int = 3, timeout: float = 1.0) -> bytes:
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
    with dial(host, port, IPPROTO_UDP, timeout=timeout) as sock:
        while True:
            sock.send(question)
            try:
                return sock.recv_from(LARGEST, timeout=timeout).data
            except SocketTimeout:
                tries -= 1
                if tries < 1:
                    raise


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, or answer until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Ask or answer by UDP.")
    roles = parser.add_subparsers(dest="role", required=True)
    answering = roles.add_parser("answer", help="answer with the same in capitals, until Ctrl-C")
    answering.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    asking = roles.add_parser("ask", help="send a question and show the answer")
    asking.add_argument("host")
    asking.add_argument("port", type=int)
    asking.add_argument("question")
    options = parser.parse_args(argv)

    if options.role == "answer":
        return _answer(options.port)
    try:
        print(ask(options.host, options.port, options.question.encode()).decode(errors="replace"))
    except OSError as error:
        print(f"udp_exchange: {error}", file=sys.stderr)
        return 1
    return 0


def _answer(port: int) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends it as Ctrl-C does
    try:
        with listen(port) as sock:
            print(f"listening on {sock.local_addr.host}:{sock.local_addr.port}", flush=True)
            while True:
                answer_next(sock)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
