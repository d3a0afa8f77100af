"""A TCP client: connect, send lines, show the answers.

Run it against any server that answers a line with a line, the one beside it for example::

    python examples/tcp_server.py 7000
    python examples/tcp_client.py localhost 7000 "good morning" "good night"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence

from wireline import WirelineError
from wireline.net import dial


def ask(host: str, port: int, lines: Iterable[bytes], timeout: float = 5.0) -> Iterator[bytes]:
    """Send each line and yield its answer; end early if the server does.

    Args:
        host: a name or an address. All addresses of a name are tried, so it may be one with IPv6 and IPv4.
        port: 0 to 65535.
        lines: without line ends.
        timeout: seconds to wait for the connection, and for each answer.
    """
    with dial(host, port, timeout=timeout) as sock:
        answers = sock.lines(timeout=timeout)
        for line in lines:
            sock.send(line + b"\r\n", timeout=timeout)
            answer = next(answers, None)  # None: the server is done
            if answer is None:
                return
            yield answer


def main(argv: Sequence[str] | None = None) -> int:
    """Send the lines of the command line, or those of standard input."""
    parser = argparse.ArgumentParser(description="Send lines to a server and show its answers.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("lines", nargs="*", help="the lines to send; by default those of standard input")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for each answer (5)")
    options = parser.parse_args(argv)

    typed = (line.rstrip("\r\n") for line in options.lines or sys.stdin)
    try:
        for answer in ask(options.host, options.port, (line.encode() for line in typed), options.timeout):
            print(answer.decode(errors="replace"), flush=True)
    except (OSError, WirelineError) as error:  # the network failed, or a line was too long
        print(f"tcp_client: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
