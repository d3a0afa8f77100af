"""Exceptions of a program's own code inside a handshake: they fail that handshake only, and are its cause."""

from __future__ import annotations

import asyncio
import ssl
from typing import NoReturn

import pytest

from tests.scenarios.flavours import Face, Flavour
from tests.tls import both, certificates
from tests.tls.both import PATIENCE, recorded_server
from tests.tls.memory import client_context, server_context
from wireline.tls import Handshake, SslContext, SslError

pytestmark = pytest.mark.anyio

flavour, anyio_backend = both.flavour, both.anyio_backend


class Mistake(Exception):
    """The exception of a callback."""


def trips(*_: object) -> NoReturn:
    raise Mistake("in a callback")


class OddCertificate(ssl.SSLObject):
    """A connection whose certificate cannot be parsed."""

    def getpeercert(self, binary_form: bool = False) -> NoReturn:  # type: ignore[override]
        raise Mistake("error parsing the certificate")


def tracing(context: SslContext, role: Handshake) -> None:
    """Set a trace callback. `ssl` keeps its exception, and raises it from the call that OpenSSL is in."""
    context.ssl_context(role)._msg_callback = trips  # type: ignore[attr-defined]


def odd(context: SslContext, role: Handshake) -> None:
    context.ssl_context(role).sslobject_class = OddCertificate


ODD = {"a trace that raises": (tracing, Mistake), "a certificate that cannot be parsed": (odd, Mistake)}


@pytest.mark.parametrize("case", ODD)
async def test_FB15_an_exception_of_a_callback_is_the_cause_of_the_clients_error(
    flavour: Flavour, case: str
) -> None:
    """FB15: dial raised it unchanged, and the engine did not know that it had failed."""
    spoil, kind = ODD[case]
    async with recorded_server(flavour) as served:
        bad = client_context()
        spoil(bad, Handshake.AS_CLIENT)
        with pytest.raises(SslError, match="the TLS handshake failed") as caught:
            await flavour.dial("localhost", served.port, tls=bad, timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, kind)
        async with await flavour.dial(
            "localhost", served.port, tls=client_context(), timeout=PATIENCE
        ) as sock:
            await sock.send(b"abc\n")
            assert await sock.recv_line(PATIENCE) == b"cba"


@pytest.mark.parametrize("how", ["serve", "accept", "try_accept"])
async def test_FB15_an_exception_of_a_servers_callback_ends_that_client_only(
    flavour: Flavour, how: str
) -> None:
    """FB15: try_accept_addr of the listener raised it, and the client's descriptor was never closed."""
    bad = server_context(client_certs="optional", ca_file=certificates.ca_file())
    odd(bad, Handshake.AS_SERVER)
    if how == "serve":
        async with recorded_server(flavour, bad) as served:
            with pytest.raises(SslError):
                async with await flavour.dial(
                    "localhost", served.port, tls=client_context(), timeout=PATIENCE
                ) as sock:
                    await sock.send(b"abc\n")
                    await sock.recv_line(PATIENCE)
            assert served.connections.seen.empty()
        return
    async with flavour.socket() as listener:
        bad.wrap_socket(listener._sock if isinstance(listener, Face) else listener)
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        port = listener.local_addr.port
        dialling = asyncio.ensure_future(
            flavour.dial("localhost", port, tls=client_context(), timeout=PATIENCE)
        )
        if how == "accept":
            with pytest.raises(SslError, match="error parsing the certificate"):
                await listener.accept(timeout=PATIENCE)
        else:
            while not dialling.done():
                result = listener.try_accept_addr()
                assert result[1] is None
                await asyncio.sleep(0.01)
            listener.try_accept_addr()
        with pytest.raises(SslError):
            async with await dialling as sock:
                await sock.recv_line(PATIENCE)
