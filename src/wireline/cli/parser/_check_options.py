"""Options and help of ``check``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from wireline.cli.parser import _option_types, _tls_options
from wireline.cli.parser._common_options import Command, add_show_code_and_debug, add_timeout, option_name

if TYPE_CHECKING:
    from wireline import Target
    from wireline.cli.show_code._program import Program

SUMMARY = "test a server and its certificates"

ABOUT = """\
Test whether a server can be reached, and how long that takes. With TLS, also test whether its certificates are trusted
and match its name, and show when they expire. check sends only TLS handshakes and the dialogue of --starttls.

All addresses of a target are tested at the same time. With TLS that is: version, cipher, protocol (ALPN), key exchange,
certificates, and session resumption. The first line is the verdict. If a certificate is refused, check connects again
without verification to show which one and why, and exits with 5. With several targets the exit code is that of the
first one that fails.

Without a target, check tests the files of --cert and --key before they are deployed."""

EXAMPLES = """\
examples:
  wireline check example.com:80
  wireline check tls://example.com:443
  wireline check --days 21 --json tls://example.com:443
  wireline check localhost:8000-8010 unix:/run/app.sock
  wireline check --nagios --days 21 tls://example.com:443
  wireline check --starttls smtp --timeout 5 mail.example.com:25
  wireline check --ca-file ca.pem --cert me.pem --key me.key tls://[::1]:9000
  wireline check --cert server.pem --key server.key --sni example.com
  wireline check --tls --sni example.com unix:/run/app.sock
"""

_FOR_TARGETS = (
    "starttls",
    "alpn",
    "first",
    "all_addresses",
    "show_code",
    "tls_min",
    "tls_max",
    "ciphers",
    "keylog",
)

_TIMEOUT = 10.0
"""Seconds for each connection and each handshake without ``--timeout``: the handshake timeout of ``serve``."""


def describe(check: argparse.ArgumentParser) -> None:
    """Add the options of ``check``."""
    check.set_defaults(load=_load, program=_program, validate=_validate, of_files=False)
    check.add_argument(
        "targets",
        metavar="TARGET",
        nargs="*",
        type=_option_types.stream_targets,
        help="address of a server: tls://host:port, host:port, host:port-port, unix:/path",
    )
    check.add_argument(
        "--targets",
        metavar="FILE",
        dest="targets_file",
        help="also check the targets in this file, one a line; - is standard input",
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
    addresses = check.add_mutually_exclusive_group()
    addresses.add_argument(
        "--first", action="store_true", help="test only the address that answers first, and ignore dead ones"
    )
    addresses.add_argument(
        "--all-addresses",
        action="store_true",
        help="fail if an address cannot be reached, even if others of the name can",
    )
    formats = check.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print the reports as JSON")
    formats.add_argument(
        "--nagios",
        action="store_true",
        help="print one line for Nagios, and use its exit codes: 0 OK, 1 WARNING (--days), 2 CRITICAL, 3 UNKNOWN",
    )
    formats.add_argument(
        "--prometheus", action="store_true", help="print metrics in the text format of Prometheus"
    )
    _tls_options.describe_check(check)


def _validate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Check that the options go together with each target. Afterwards ``options.checks`` has the options of each.

    Raises:
        SystemExit: they do not; the error was printed.
    """
    targets = [target for each in options.targets for target in each]
    if options.targets_file:
        targets += _read_targets(parser, options.targets_file)
    options.of_files = bool(options.cert and not targets and not options.targets_file)
    if options.of_files:
        _validate_files(parser, options)
        return
    if not targets:
        parser.error("there is no TARGET: write tls://host:port, host:port or unix:/path")
    options.checks = []
    for target in dict.fromkeys(targets):
        check = argparse.Namespace(**vars(options))
        check.target = target
        _tls_options.validate(parser, check)
        options.checks.append(check)
    if options.show_code and len(options.checks) > 1:
        parser.error("--show-code shows the program for one target")
    vars(options).update({**vars(options.checks[0]), "checks": options.checks})


def _validate_files(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for name in _FOR_TARGETS:
        if getattr(options, name):
            parser.error(f"{option_name(name)} needs a TARGET; without one, check tests files")
    options.target, options.tls = None, True
    options.checks = [options]


def _read_targets(parser: argparse.ArgumentParser, path: str) -> list[Target]:
    """Read a file of targets; a line may be empty or a comment."""
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"--targets {path}: {getattr(error, 'strerror', None) or error}")
    targets: list[Target] = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        try:
            targets += _option_types.stream_targets(word) if word else []
        except argparse.ArgumentTypeError as error:
            # It may be another file, of keys for example: nothing of it is quoted.
            quotes = "'" in str(error)
            reason = "it is no target; write tls://host:port, host:port or unix:/path" if quotes else error
            parser.error(f"--targets {path}, line {number}: {reason}")
    return targets


def _load() -> Command:
    from wireline.cli.check import _check

    return _check.run


def _program(options: argparse.Namespace) -> Program:
    from wireline.cli.show_code._check_program import check

    return check(options)
