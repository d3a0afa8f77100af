"""``--verbose``: how a name was resolved, which address answered, and what TLS agreed on, a line each."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from wireline import Address, Target
from wireline.cli._printable import sanitize_for_terminal
from wireline.cli._stderr import print_stderr
from wireline.net import Socket

if TYPE_CHECKING:
    from wireline.tls import TlsInfo

AddrInfo = list[tuple[Any, ...]]

_MAX_SUBJECT = 100
"""Characters of the name of a certificate."""


class ConnectionReport:
    """The lines about one connection, on standard error."""

    def __init__(self, target: Target, timeout: float | None) -> None:
        """Start the time.

        Args:
            target: the address to connect to.
            timeout: seconds for the resolution of the name.
        """
        self._target = target
        self._timeout = timeout
        self._began = monotonic()

    def resolve(self, host: str, port: int, family: int, kind: int) -> AddrInfo:
        """Resolve a name as the system does, and say what it found.

        Raises:
            TimeoutError: it took too long.
            OSError, UnicodeError: the name does not resolve.
        """
        found = _within(self._timeout, lambda: socket.getaddrinfo(host, port, family, kind))
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        if addresses != [host]:
            _say(f"{host} has the addresses {', '.join(addresses)}")
        return found

    def connected(self, sock: Socket, verb: str = "connected to") -> None:
        """Say which address answered, from which one, and after how long."""
        if self._target.path:
            _say(f"{verb} {self._target}")
            return
        peer, local = _spelled(sock.peer_addr), _spelled(sock.local_addr)
        _say(f"{verb} {peer} from {local}, {1000 * (monotonic() - self._began):.0f} ms after the start")


def report_tls(sock: Socket) -> None:
    """Say what TLS agreed on, and which certificate the server has."""
    info: TlsInfo | None = sock.tls_info
    if info is None:
        return
    parts = [info.version, info.cipher]
    parts += [f"key exchange {info.group}"] if info.group else []
    parts += [f"protocol {info.alpn}"] if info.alpn else []
    with contextlib.suppress(
        ImportError, ValueError, IndexError
    ):  # the package cryptography reads certificates
        certificate = sock.get_peer_certificates()[0]
        subject = sanitize_for_terminal(certificate.subject or "without a subject", _MAX_SUBJECT)
        parts.append(f"certificate {subject}, valid until {certificate.not_valid_after:%Y-%m-%d}")
    _say(", ".join(parts))


def _say(text: str) -> None:
    print_stderr(f"wireline: {text}")


def _spelled(address: Address) -> str:
    return str(Target("tcp", address.host, address.port))


def _within(timeout: float | None, lookup: Callable[[], AddrInfo]) -> AddrInfo:
    """The result of a lookup, which cannot be interrupted: after the timeout its thread is left to itself."""
    results: list[AddrInfo] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(lookup())
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"its name was not resolved within {timeout:g} s")
    return results[0]
