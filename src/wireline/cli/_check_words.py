"""The words of ``check`` and ``completion`` on the command line, and what ``--help`` says about them."""

from __future__ import annotations

import argparse

from wireline.cli import _completion, _tls_words
from wireline.cli._signals import Signals

CHECK_ABOUT = """\
Look at a server: who answers, how fast, and, with TLS, whether its certificates hold and for how long. Nothing is sent
but handshakes, and the few words before them with --starttls.

Every address of the target is tried at the same time. With TLS the fastest one is asked for version, cipher, protocol
(ALPN), key exchange, certificates, and whether a session is resumed. If the certificate is refused the server is looked
at all the same, without trusting it, to show why; the exit code is 5 then."""

CHECK_EXAMPLES = """\
examples:
  wireline check example.com:80
  wireline check tls://example.com:443
  wireline check --days 21 --json tls://example.com:443
  wireline check --starttls smtp --timeout 5 mail.example.com:25
  wireline check --ca-file ca.pem --cert me.pem --key me.key tls://[::1]:9000
  wireline check --tls --sni example.com unix:/run/app.sock

With --starttls the target is host:port, and TLS comes after the words of smtp, imap, pop3, ftp or postgres.
"""

COMPLETION_ABOUT = """\
Print a script that makes a shell complete the words of this command."""

COMPLETION_EXAMPLES = """\
examples:
  wireline completion bash > ~/.local/share/bash-completion/completions/wireline
  wireline completion zsh > ~/.zfunc/_wireline        (~/.zfunc has to be in fpath)
  wireline completion fish > ~/.config/fish/completions/wireline.fish
"""

_PATIENCE = 10.0
"""Seconds for each connection and each handshake without ``--timeout``; as a server gives its clients."""


def describe_check(check: argparse.ArgumentParser) -> None:
    """Add what ``check`` may be told, besides its target and what every command has."""
    check.set_defaults(run=_run_check, timeout=_PATIENCE)
    check.add_argument(
        "--days",
        metavar="DAYS",
        type=_days,
        default=0,
        help="fail if a certificate has fewer days left than this (0: only if it has none)",
    )
    check.add_argument("--json", action="store_true", help="print everything as JSON, for programs")
    _tls_words.describe_check(check)


def _run_check(options: argparse.Namespace, signals: Signals) -> None:
    # A fifth of the start-up time of all other commands if it were imported above.
    from wireline.cli import _check

    _check.run(options, signals)


def describe_completion(completion: argparse.ArgumentParser) -> None:
    """Add what ``completion`` has to be told."""
    completion.set_defaults(run=_completion.run)
    shells = ", ".join(_completion.SHELLS)
    completion.add_argument("shell", metavar="SHELL", choices=_completion.SHELLS, help=f"one of {shells}")


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return int(text)
