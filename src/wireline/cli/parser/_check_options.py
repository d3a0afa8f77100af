"""Options and help of ``check``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wireline.cli.parser import _option_types, _tls_options
from wireline.cli.parser._common_options import Command, add_show_code_and_debug, add_timeout

if TYPE_CHECKING:
    from wireline.cli.show_code._program import Program

SUMMARY = "test a server and its certificates"

ABOUT = """\
Test whether a server can be reached, and how long that takes. With TLS, also test whether its certificates are trusted
and match its name, and show when they expire. check sends only TLS handshakes and the dialogue of --starttls.

All addresses of the target are connected to at the same time. With TLS, the first to answer is tested: version, cipher,
protocol (ALPN), key exchange, certificates, and session resumption. If the certificate is refused, check connects again
without verification to show the reason, and exits with 5."""

EXAMPLES = """\
examples:
  wireline check example.com:80
  wireline check tls://example.com:443
  wireline check --days 21 --json tls://example.com:443
  wireline check --starttls smtp --timeout 5 mail.example.com:25
  wireline check --ca-file ca.pem --cert me.pem --key me.key tls://[::1]:9000
  wireline check --tls --sni example.com unix:/run/app.sock

With --starttls the target is host:port; TLS starts after the dialogue of smtp, imap, pop3, ftp or postgres.
"""

_TIMEOUT = 10.0
"""Seconds for each connection and each handshake without ``--timeout``: the handshake timeout of ``serve``."""


def describe(check: argparse.ArgumentParser) -> None:
    """Add the options of ``check``."""
    check.set_defaults(load=_load, program=_program)
    check.add_argument(
        "target",
        metavar="TARGET",
        type=_option_types.stream_target,
        help="address of the server: tls://host:port, host:port, unix:/path",
    )
    add_timeout(check, "for each connection and each handshake (10)")
    check.set_defaults(timeout=_TIMEOUT)
    add_show_code_and_debug(check)
    check.add_argument(
        "--days",
        metavar="DAYS",
        type=_option_types.days,
        default=0,
        help="fail if a certificate expires in fewer days (default 0: only if it has expired)",
    )
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    _tls_options.describe_check(check)


def _load() -> Command:
    from wireline.cli.check import _check

    return _check.run


def _program(options: argparse.Namespace) -> Program:
    from wireline.cli.show_code._check_program import check

    return check(options)
