# async: The blocking twin of this file is psk_greeter.py; `make twins` makes it.
"""TLS without any certificate: both sides know a key (PSK), and prove it to each other.

It is for two ends with one administrator. The file has one line ``identity:keyhex`` for each client, as the command
takes it too::

    echo "alice:$(openssl rand -hex 32)" > keys.txt
    python examples/async_psk_greeter.py serve 7000 keys.txt
    python examples/async_psk_greeter.py ask localhost 7000 keys.txt
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
from wireline.tls import SslContext, VerifyMode

PATIENCE = 10.0
"""Seconds for each step."""


def read_keys(path: str) -> dict[str, bytes]:
    """Read a file of keys."""
    entries = (line.rpartition(":") for line in Path(path).read_text().split())
    return {identity: bytes.fromhex(key) for identity, _, key in entries}


async def greet(client: AsyncSocket, address: Address) -> None:
    """Greet the client by its identity: it has proved to know the key of that one."""
    await client.send(f"hello {client.get_psk_identity()}\r\n".encode(), timeout=PATIENCE)


def start(port: int, keys: dict[str, bytes]) -> StartingServer:
    """Return a server for ``with``, or ``async with``, which accepts clients that know one of the keys."""
    # Without certificates there is no CA to check. Keys are checked in any mode.
    context = SslContext(verify_mode=VerifyMode.NONE)
    context.server_get_psk = lambda identity: keys.get(identity, b"")  # b"": unknown, refused
    return serve(greet, port, "127.0.0.1", tls=context)


async def ask(host: str, port: int, identity: str, key: bytes) -> str:
    """Return the greeting of a server that knows our key. Another server is an ``SslError``."""
    context = SslContext(verify_mode=VerifyMode.NONE)
    context.client_get_psk = lambda hint: (identity, key)
    async with await dial(host, port, tls=context, timeout=PATIENCE) as sock:
        return (await sock.recv_line(PATIENCE)).decode()


async def run(starting: StartingServer) -> None:
    """Serve until Ctrl-C."""
    async with starting as server:
        print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
        await server.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, or serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="TLS with a pre-shared key.")
    roles = parser.add_subparsers(dest="role", required=True)
    serving = roles.add_parser("serve", help="greet clients that know a key, until Ctrl-C")
    serving.add_argument("port", type=int)
    serving.add_argument("keys", help="file with a line identity:keyhex for each client")
    asking = roles.add_parser("ask", help="show the greeting of a server")
    asking.add_argument("host")
    asking.add_argument("port", type=int)
    asking.add_argument("keys", help="file with our line; the first of several")
    options = parser.parse_args(argv)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    # `kill` ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        keys = read_keys(options.keys)
        if options.role == "ask":
            print(asyncio.run(ask(options.host, options.port, *next(iter(keys.items())))))
            return 0
        asyncio.run(run(start(options.port, keys)))
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError, NotImplementedError) as error:  # NotImplementedError: this Python has no PSK
        print(f"{Path(__file__).stem}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
