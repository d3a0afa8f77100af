# async: The blocking twin of this file is mutual_tls.py; `make twins` makes it.
"""Mutual TLS: the server shows a certificate, and so does the client. One CA has signed both::

python examples/async_mutual_tls.py serve 7000 --ca-file ca.pem --cert server.pem --key server.key
python examples/async_mutual_tls.py ask localhost 7000 --ca-file ca.pem --cert me.pem --key me.key
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from wireline import Address
from wireline.asyncnet import AsyncSocket, StartingServer, dial, serve
from wireline.tls import SslContext

PATIENCE = 10.0
"""Seconds for each step."""


async def greet(client: AsyncSocket, address: Address) -> None:
    """Greet the client by the name in its certificate. Clients without one are refused earlier."""
    certificate, *_ = client.get_peer_certificates()
    await client.send(f"hello {certificate.subject}\r\n".encode(), timeout=PATIENCE)


def start(port: int, ca_file: str, cert_file: str, key_file: str) -> StartingServer:
    """Return a server for ``with``, or ``async with``, which accepts clients with a certificate of the CA."""
    context = SslContext(ca_file=ca_file, cert_file=cert_file, key_file=key_file, client_certs="required")
    return serve(greet, port, "127.0.0.1", tls=context)


async def ask(host: str, port: int, ca_file: str, cert_file: str = "", key_file: str = "") -> str:
    """Show our certificate, and return the greeting.

    A client without a certificate learns about the refusal late: in TLS 1.3 its handshake ends before the server has
    checked, and the first read raises the ``SslError``.
    """
    context = SslContext(ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    async with await dial(host, port, tls=context, timeout=PATIENCE) as sock:
        return (await sock.recv_line(PATIENCE)).decode()


async def run(starting: StartingServer) -> None:
    """Serve until Ctrl-C."""
    async with starting as server:
        print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
        await server.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, or serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="TLS with certificates on both sides.")
    roles = parser.add_subparsers(dest="role", required=True)
    serving = roles.add_parser("serve", help="greet clients with a certificate, until Ctrl-C")
    asking = roles.add_parser("ask", help="show the greeting of a server")
    asking.add_argument("host")
    for role, required in ((serving, True), (asking, False)):
        role.add_argument("port", type=int)
        role.add_argument("--ca-file", required=True, help="PEM file with the CA of both sides")
        role.add_argument("--cert", required=required, default="", help="PEM file with our certificate")
        role.add_argument("--key", required=required, default="", help="PEM file with its key")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    # `kill` ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if options.role == "ask":
            print(asyncio.run(ask(options.host, options.port, options.ca_file, options.cert, options.key)))
            return 0
        asyncio.run(run(start(options.port, options.ca_file, options.cert, options.key)))
    except KeyboardInterrupt:
        return 0
    except OSError as error:  # an SslError is one
        print(f"{Path(__file__).stem}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
