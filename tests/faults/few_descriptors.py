"""A program: an echo server that may have only so many descriptors, and reports how it copes.

It prints its port, and ends when its standard input does. To the line ``report`` it answers with JSON: processor time
used so far, the moments at which something was logged, and the number of connections. To any other line with that line.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time

from wireline import Address
from wireline.net import Socket, serve


class Moments(logging.Handler):
    """Keeps when something was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(time.monotonic())


def main(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    moments = Moments()
    log = logging.getLogger("wireline")
    log.addHandler(moments)
    log.propagate = False

    def echo(client: Socket, _: Address) -> None:
        for line in client.lines():
            if line == b"report":
                report = [time.process_time(), moments.seen, server.connections]
                line = json.dumps(report).encode()
            client.send(line + b"\n")

    with serve(echo, 0, "127.0.0.1") as server:
        print(server.local_addr.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
