"""Contexts of ``ssl`` and connections in memory, for tests of the layers below ``SslContext``."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from unittest import mock

from tests.tls import certificates
from tests.tools import IN_CI
from wireline.tls import _openssl, _psk

TLS1_2, TLS1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def _has_bridge() -> bool:
    with mock.patch.dict(os.environ):
        os.environ.pop("WIRELINE_NO_BRIDGE", None)
        return _openssl.available()


HAS_BRIDGE = IN_CI or _has_bridge()
"""Whether to test the bridge. In CI it must be there."""

KEYS = {"alice": b"a" * 16, "bob": b"b" * 32, "zoë ☂": b"\0" * 16}


class Link:
    """Both ends of one connection. Each step is one ``do_handshake`` of one end.

    Attributes:
        client, server: the connections.
        errors: the error of each end that failed.
        flights: how many times each end had output.
    """

    def __init__(
        self,
        client: ssl.SSLContext,
        server: ssl.SSLContext,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        to_client, to_server, from_client, from_server = (ssl.MemoryBIO() for _ in range(4))
        self.client = client.wrap_bio(to_client, from_client, server_hostname=name, session=session)
        self.server = server.wrap_bio(to_server, from_server, server_side=True)
        self.errors: dict[str, ssl.SSLError] = {}
        self.flights = {"client": 0, "server": 0}
        self._ends = {
            "client": (self.client, from_client, to_server),
            "server": (self.server, from_server, to_client),
        }
        self._next = "client"

    def step(self) -> bool:
        """Continue the handshake of one end and pass its output to the other; return whether there was any."""
        me = self._next
        self._next = "server" if me == "client" else "client"
        connection, output, other = self._ends[me]
        if me not in self.errors and connection.version() is None:
            try:
                connection.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.errors[me] = error
        data = output.read()
        self.flights[me] += bool(data)
        other.write(data)
        return bool(data)

    def shake(self) -> Link:
        """Step until neither end has output."""
        self.step()
        while self.step():
            pass
        self.step()
        return self

    def say(self, data: bytes = b"hello") -> bytes:
        """Send from the server to the client, which also reads the tickets before the data."""
        self.server.write(data)
        _, output, other = self._ends["server"]
        other.write(output.read())
        return self.client.read()

    @property
    def is_good(self) -> bool:
        """Whether the handshake succeeded at both ends."""
        return not self.errors and bool(self.client.version()) and bool(self.server.version())


def plain_server(version: ssl.TLSVersion | None = None, certificate: bool = True) -> ssl.SSLContext:
    """Make the context of a server, by default with the certificate for localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        context.load_cert_chain(certificates.server().cert, certificates.server().key)
    return _only(context, version)


def plain_client(version: ssl.TLSVersion | None = None, verify: bool = True) -> ssl.SSLContext:
    """Make the context of a client; if it verifies, it trusts the CA of the tests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if verify:
        context.load_verify_locations(certificates.ca_file())
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return _only(context, version)


def _only(context: ssl.SSLContext, version: ssl.TLSVersion | None) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def look_up(identity: str) -> bytes:
    """Return the key of an identity in ``KEYS``: the usual callback of a server."""
    return KEYS.get(identity, b"")


def psk_server(
    version: ssl.TLSVersion | None = None,
    callback: Callable[..., object] = look_up,
    hint: str = "",
    certificate: bool = False,
) -> ssl.SSLContext:
    """Make the context of a server with PSK."""
    context = plain_server(version, certificate)
    context.set_ciphers("ECDHE+AESGCM:PSK" if certificate else "PSK")
    _psk.install_server(context, callback, hint)  # type: ignore[arg-type]
    return context


def psk_client(
    version: ssl.TLSVersion | None = None,
    identity: object = "alice",
    key: object = None,
    callback: Callable[..., object] | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """Make the context of a client with a key. It trusts no CA; without ``verify`` it accepts any certificate."""
    context = _only(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), version)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("PSK")
    answer = identity, KEYS.get(str(identity), b"?") if key is None else key
    _psk.install_client(context, callback or (lambda hint: answer))  # type: ignore[arg-type]
    return context
