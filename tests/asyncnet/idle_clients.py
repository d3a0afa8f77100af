"""A program: so many clients of one server, idle at first, that send one message each on request.

It prints a line when all are connected. At the first line of its standard input each client sends its own number; it
prints how many of them got that back. It ends when its standard input does.
"""

from __future__ import annotations

import resource
import socket
import struct
import sys


def main(host: str, port: int, count: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    clients = []
    for _ in range(count):
        client = socket.create_connection((host, port), timeout=20)
        # Closing is a reset, so that no port has to be waited for.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        clients.append(client)
    print("connected", flush=True)
    sys.stdin.readline()
    for number, client in enumerate(clients):
        client.sendall(b"%d\n" % number)
    print(
        sum(client.recv(100) == b"%d\n" % number for number, client in enumerate(clients)),
        flush=True,
    )
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
