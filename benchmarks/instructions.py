"""User-space instructions of one exchange, which repeat exactly where times do not.

``python -m benchmarks.instructions`` runs each case twice under ``valgrind --tool=callgrind``, with few and with many
exchanges, and divides the difference. Only our side is counted: the peer is a process of its own. ``--source DIR``
counts another checkout's ``src`` beside this one's and prints the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

FEW, MANY = 500, 2500
"""Exchanges of the two runs. Enough of them for every fast path to be warm, and few enough for half a minute a case."""

CASES = tuple(
    f"{flavour}-{exchange}-{transport}"
    for flavour in ("net", "asyncnet")
    for exchange in ("echo", "lines")
    for transport in ("plain", "tls")
)

MESSAGE = b"x" * 63 + b"\n"


def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Give every client its bytes back; those of the TLS port in TLS."""
    while True:
        try:
            client = listener.accept()[0]
        except OSError:  # the end
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=echo, args=(client, context), daemon=True).start()


def echo(client: socket.socket, context: ssl.SSLContext) -> None:
    """Serve one client. The first byte of a TLS client is that of a handshake record (RFC 8446, 5.1)."""
    with client:
        stream = client
        if client.recv(1, socket.MSG_PEEK) == b"\x16":
            stream = context.wrap_socket(client, server_side=True)
        with stream:
            while data := stream.recv(65536):
                stream.sendall(data)


def exchange_blocking(port: int, kind: str, ca_file: str | None, count: int) -> None:
    """Make exchanges with the peer, the blocking way."""
    from wireline.net import dial

    context = None
    if ca_file:
        from wireline.tls import SslContext

        context = SslContext(ca_file=ca_file)
    with dial("127.0.0.1", port, tls=context, timeout=60) as sock:
        for _ in range(count):
            sock.send(MESSAGE)
            if kind == "echo":
                assert sock.recv_some() == MESSAGE
            else:
                assert sock.recv_line() == MESSAGE[:-1]


async def exchange_async(port: int, kind: str, ca_file: str | None, count: int) -> None:
    """Make exchanges with the peer, the async way."""
    from wireline.asyncnet import dial

    context = None
    if ca_file:
        from wireline.tls import SslContext

        context = SslContext(ca_file=ca_file)
    async with await dial("127.0.0.1", port, tls=context, timeout=60) as sock:
        for _ in range(count):
            await sock.send(MESSAGE)
            if kind == "echo":
                assert await sock.recv_some() == MESSAGE
            else:
                assert await sock.recv_line() == MESSAGE[:-1]


@contextmanager
def peer() -> Iterator[tuple[int, str]]:
    """Run the peer; its port and the CA of its certificate."""
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as listener:
        ca_file = os.path.join(directory, "ca.pem")
        authority.cert_pem.write_to_path(ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        threading.Thread(target=serve, args=(listener, context), daemon=True).start()
        yield listener.getsockname()[1], ca_file


def instructions(case: str, source: Path, port: int, ca_file: str) -> int:
    """Count the instructions of one exchange."""

    def total(count: int) -> int:
        environment = os.environ | {"PYTHONPATH": str(source), "PYTHONHASHSEED": "0"}
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
        command += ["--run", case, "--port", str(port), "--ca", ca_file, "--count", str(count)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=True
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert found is not None, done.stderr
        return int(found[1])

    return round((total(MANY) - total(FEW)) / (MANY - FEW))


def main() -> None:
    """Count the instructions of the rows on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all of them by default")
    parser.add_argument("--source", type=Path, help="the folder src of another checkout, to compare with")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ca", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        flavour, kind, transport = arguments.run.split("-")
        ca_file = arguments.ca if transport == "tls" else None
        if flavour == "net":
            exchange_blocking(arguments.port, kind, ca_file, arguments.count)
        else:
            asyncio.run(exchange_async(arguments.port, kind, ca_file, arguments.count))
        return
    here = Path(__file__).resolve().parent.parent / "src"
    print("| case | instructions |" + (" other | ratio |" if arguments.source else ""))
    print("|---|---|" + ("---|---|" if arguments.source else ""))
    with peer() as (port, ca_file):
        for case in arguments.cases or CASES:
            ours = instructions(case, here, port, ca_file)
            row = f"| {case} | {ours:,} |"
            if arguments.source:
                other = instructions(case, arguments.source, port, ca_file)
                row += f" {other:,} | {ours / other:.3f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
