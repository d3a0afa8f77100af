"""Two engines that are connected in memory."""

from __future__ import annotations

import contextlib
import ssl
from typing import NamedTuple

from tests.tls import certificates
from wireline._core.tls_engine import TlsEngine
from wireline.tls import Certificate, Handshake, SslContext, TlsInfo

PORT = 4433
"""The port in the keys of sessions; no server listens on it."""


_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class Pair(NamedTuple):
    """Both ends of one connection."""

    client: TlsEngine
    server: TlsEngine


def server_context(**options: object) -> SslContext:
    """Make the context of a server for localhost."""
    leaf = certificates.server()
    return SslContext(**{"cert_file": leaf.cert, "key_file": leaf.key, **options})  # type: ignore[arg-type]


def client_context(**options: object) -> SslContext:
    """Make the context of a client that trusts the CA of the tests."""
    return SslContext(**{"ca_file": certificates.ca_file(), **options})  # type: ignore[arg-type]


def only(version: str, *contexts: SslContext) -> None:
    """Restrict contexts to one version of TLS. The public API has no such setting. This freezes the contexts."""
    for context in contexts:
        for handshake in Handshake:
            with contextlib.suppress(ssl.SSLError):  # a client without a certificate has no server role
                inner = context.ssl_context(handshake)
                inner.maximum_version = inner.minimum_version = _VERSIONS[version]


def engines(client: SslContext, server: SslContext, hostname: str = "localhost", port: int = PORT) -> Pair:
    """Make both ends."""
    return Pair(client._engine(Handshake.AS_CLIENT, hostname, port), server._engine(Handshake.AS_SERVER))


def shake(pair: Pair) -> list[ssl.SSLError | None]:
    """Do the handshake; return the error of each end, None for success."""
    errors: list[ssl.SSLError | None] = [None, None]

    def step(me: int, data: bytes | None) -> bytes:
        engine = pair[me]
        try:
            if engine.established:
                engine.feed(data or b"", lambda _: None)  # tickets, or an alert
            else:
                engine.feed_handshake(data or b"")
                engine.handshake()
        except ssl.SSLError as error:
            errors[me] = errors[me] or error
        return engine.take_output()

    me, wire = 1, step(0, None)
    while wire:
        me, wire = 1 - me, step(me, wire)
    return errors


def connect(client: SslContext, server: SslContext, hostname: str = "localhost", port: int = PORT) -> Pair:
    """Make both ends and do the handshake; raise the error of the client, else that of the server."""
    pair = engines(client, server, hostname, port)
    for error in shake(pair):
        if error is not None:
            raise error
    return pair


def info(engine: TlsEngine) -> TlsInfo:
    """Return the result of a handshake."""
    return engine.policy.info(engine.obj)


def chain(engine: TlsEngine) -> list[Certificate]:
    """Return the peer's certificates, like ``get_peer_certificates``."""
    return engine.policy.certificates(engine.obj)


def say(sender: TlsEngine, receiver: TlsEngine, data: bytes = b"hello") -> bytes:
    """Send application data; return what the receiver gets."""
    sender.encrypt(data)
    received: list[bytes] = []
    receiver.feed(sender.take_output(), received.append)
    return b"".join(received)
