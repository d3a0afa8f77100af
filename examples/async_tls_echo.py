# async: The blocking twin of this file is tls_echo.py; `make twins` makes it.
"""An echo server over TLS: ``serve`` with a context. Each handshake runs in the task or thread of its connection.

It needs a certificate that its clients trust, and its key::

    python examples/async_tls_echo.py 7000 --cert server.pem --key server.key
    wireline connect --ca-file ca.pem tls://localhost:7000
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from wireline import Address
from wireline.asyncnet import AsyncSocket, StartingServer, serve
from wireline.tls import SslContext, SslError

PATIENCE = 60.0
"""Seconds that a client may neither send nor receive before it is dropped."""


async def echo(client: AsyncSocket, address: Address) -> None:
    """Send data back as it arrives. TLS needs no code here: the handshake is done."""
    try:
        while data := await client.recv_some(timeout=PATIENCE):
            await client.send(data, timeout=PATIENCE)
    except TimeoutError:
        print(f"{address.host}:{address.port} has fallen asleep", flush=True)
    except SslError as error:  # a TruncatedError, if the client left without close_notify
        print(f"{address.host}:{address.port}: {error}", flush=True)


def start(port: int, cert_file: str, key_file: str, host: str = "127.0.0.1") -> StartingServer:
    """Return a server for ``with``, or ``async with``."""
    return serve(echo, port, host, tls=SslContext(cert_file=cert_file, key_file=key_file))


async def run(port: int, cert_file: str, key_file: str, host: str) -> None:
    """Serve until Ctrl-C."""
    async with start(port, cert_file, key_file, host) as server:
        print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
        await server.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Echo the bytes of each client, over TLS.")
    parser.add_argument("port", type=int, nargs="?", default=7000, help="7000 by default, 0 is a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    parser.add_argument("--cert", required=True, help="PEM file with the certificate, and those up to its CA")
    parser.add_argument("--key", required=True, help="PEM file with its key")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    # `kill` ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        asyncio.run(run(options.port, options.cert, options.key, options.host))
    except KeyboardInterrupt:
        return 0
    except OSError as error:  # the port is taken, a file is missing, the key belongs to another certificate
        print(f"{Path(__file__).stem}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
