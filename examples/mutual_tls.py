# Made by 'wireline twin' from async_mutual_tls.py: edit that file.
# From line 12 on, line N here is line N there.
# isort: skip_file
# fmt: off
"""Mutual TLS: the server shows a certificate, and so does the client. One CA has signed both::

python examples/mutual_tls.py serve 7000 --ca-file ca.pem --cert server.pem --key server.key
python examples/mutual_tls.py ask localhost 7000 --ca-file ca.pem --cert me.pem --key me.key
"""
from __future__ import annotations
import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from wireline import Address
from wireline.net import Server, Socket, dial, serve
from wireline.tls import SslContext

PATIENCE = 10.0
"""Seconds for each step."""


def greet(client: Socket, address: Address) -> None:
    """Greet the client by the name in its certificate. Clients without one are refused earlier."""
    certificate, *_ = client.get_peer_certificates()
    client.send(f"hello {certificate.subject}\r\n".encode(), timeout=PATIENCE)


def start(port: int, ca_file: str, cert_file: str, key_file: str) -> Server:
    """Return a server for ``with``, or ``async with``, which accepts clients with a certificate of the CA."""
    context = SslContext(ca_file=ca_file, cert_file=cert_file, key_file=key_file, client_certs="required")
    return serve(greet, port, "127.0.0.1", tls=context)


def ask(host: str, port: int, ca_file: str, cert_file: str = "", key_file: str = "") -> str:
    """Show our certificate, and return the greeting.

    A client without a certificate learns about the refusal late: in TLS 1.3 its handshake ends before the server has
    checked, and the first read raises the ``SslError``.
    """
    context = SslContext(ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    with dial(host, port, tls=context, timeout=PATIENCE) as sock:
        return sock.recv_line(PATIENCE).decode()


def run(starting: Server) -> None:
    """Serve until Ctrl-C."""
    with starting as server:
        print(f"listening on {server.local_addr.host}:{server.local_addr.port}", flush=True)
        server.wait()


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
            print(ask(options.host, options.port, options.ca_file, options.cert, options.key))
            return 0
        run(start(options.port, options.ca_file, options.cert, options.key))
    except KeyboardInterrupt:
        return 0
    except OSError as error:  # an SslError is one
        print(f"{Path(__file__).stem}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
