# async: The blocking twin of this file is starttls.py; `make twins` makes it.
"""STARTTLS: start TLS on an open connection when both sides have agreed to.

Mail, LDAP and PostgreSQL do it so. Here the client says ``STARTTLS``, the server ``go ahead``, and then TLS begins. The
server answers each line in capitals, and answers nothing in plaintext::

    python examples/async_starttls.py serve 7000 --cert server.pem --key server.key
    python examples/async_starttls.py ask localhost 7000 "is this safe?" --ca-file ca.pem
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from wireline import Address
from wireline.asyncnet import AsyncSocket, StartingServer, dial, serve
from wireline.tls import Handshake, SslContext

PATIENCE = 10.0
"""Seconds for each step."""


async def shout(context: SslContext, client: AsyncSocket, address: Address) -> None:
    """Insist on TLS, then answer in capitals."""
    try:
        if (await client.recv_line(PATIENCE, max_length=100)).upper() != b"STARTTLS":
            await client.send(b"say STARTTLS first\r\n", timeout=PATIENCE)
            return
        await client.send(b"go ahead\r\n", timeout=PATIENCE)
        # Plaintext that arrived together with STARTTLS is refused: an attacker may have injected it.
        await client.start_tls(context, Handshake.AS_SERVER, timeout=PATIENCE)
        async for line in client.lines(max_length=1000, timeout=PATIENCE):
            await client.send(line.upper() + b"\r\n", timeout=PATIENCE)
    except (OSError, ValueError) as error:  # a timeout, a reset, no TLS; or a line of more than 1000 bytes
        print(f"lost {address.host}:{address.port}: {error}", flush=True)


def start(port: int, cert_file: str, key_file: str) -> StartingServer:
    """Return a server for ``with``, or ``async with``."""
    context = SslContext(cert_file=cert_file, key_file=key_file)
    context.ssl_context(Handshake.AS_SERVER)  # so that faults of the files are errors here
    return serve(functools.partial(shout, context), port, "127.0.0.1")


async def ask(host: str, port: int, line: bytes, ca_file: str = "") -> bytes:
    """Start TLS, send a line, and return the answer.

    Args:
        host: the name that the server's certificate must be for.
        port: of the server.
        line: without a line end.
        ca_file: PEM file with the CA to trust; by default the CAs of the system.

    Raises:
        OSError: the connection failed; an ``SslError`` if the server's certificate is refused.
    """
    context = SslContext(ca_file=ca_file)
    async with await dial(host, port, timeout=PATIENCE) as sock:
        await sock.send(b"STARTTLS\r\n", timeout=PATIENCE)
        answer = await sock.recv_line(PATIENCE)
        if answer != b"go ahead":
            # Never continue in plaintext: an attacker may have removed the server's answer.
            raise OSError(f"the server does not want TLS, but says {answer!r}")
        await sock.start_tls(context, hostname=host, timeout=PATIENCE)
        await sock.send(line + b"\r\n", timeout=PATIENCE)
        return await sock.recv_line(PATIENCE)


async def run(starting: StartingServer) -> None:
    """Serve until Ctrl-C."""
    async with starting as server:
        print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
        await server.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, or serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Start TLS on an open connection.")
    roles = parser.add_subparsers(dest="role", required=True)
    serving = roles.add_parser("serve", help="answer in capitals, until Ctrl-C")
    serving.add_argument("port", type=int)
    serving.add_argument(
        "--cert", required=True, help="PEM file with the certificate, and those up to its CA"
    )
    serving.add_argument("--key", required=True, help="PEM file with its key")
    asking = roles.add_parser("ask", help="send a line and show the answer")
    asking.add_argument("host")
    asking.add_argument("port", type=int)
    asking.add_argument("line")
    asking.add_argument(
        "--ca-file", default="", help="PEM file with the CA to trust, else those of the system"
    )
    options = parser.parse_args(argv)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    # `kill` ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        if options.role == "ask":
            answer = asyncio.run(ask(options.host, options.port, options.line.encode(), options.ca_file))
            print(answer.decode(errors="replace"))
            return 0
        asyncio.run(run(start(options.port, options.cert, options.key)))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"{Path(__file__).stem}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
