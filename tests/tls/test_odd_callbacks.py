"""What a program's own parts raise in the midst of TLS: it ends that handshake, with the reason, and nothing else."""

from __future__ import annotations

import asyncio
import ssl
from typing import NoReturn

import pytest

from tests.scenarios.flavours import Face, Flavour
from tests.tls import both, certificates
from tests.tls.both import PATIENCE, at_home
from tests.tls.memory import client_context, server_context
from wireline.tls import Handshake, SslContext, SslError

pytestmark = pytest.mark.anyio

flavour, anyio_backend = both.flavour, both.anyio_backend


class Mistake(Exception):
    """What a callback raises."""


def trips(*_: object) -> NoReturn:
    raise Mistake("in a callback")


class OddCertificate(ssl.SSLObject):
    """A connection whose certificate cannot be had."""

    def getpeercert(self, binary_form: bool = False) -> NoReturn:  # type: ignore[override]
        raise Mistake("error parsing the certificate")


def tracing(context: SslContext, role: Handshake) -> None:
    """`ssl` keeps what its trace of messages raises, and raises it out of whatever call OpenSSL was in."""
    context.ssl_context(role)._msg_callback = trips  # type: ignore[attr-defined]


def odd(context: SslContext, role: Handshake) -> None:
    context.ssl_context(role).sslobject_class = OddCertificate


ODD = {"a trace that raises": (tracing, Mistake), "a certificate that cannot be had": (odd, Mistake)}


@pytest.mark.parametrize("case", ODD)
async def test_FB15_what_a_callback_raises_in_a_clients_handshake_is_its_cause(
    flavour: Flavour, case: str
) -> None:
    """FB15: it came out of dial as it was, and left an engine that did not know that it had failed."""
    spoil, kind = ODD[case]
    async with at_home(flavour) as house:
        bad = client_context()
        spoil(bad, Handshake.AS_CLIENT)
        with pytest.raises(SslError, match="the TLS handshake failed") as caught:
            await flavour.dial("localhost", house.port, tls=bad, timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, kind)
        async with await flavour.dial(
            "localhost", house.port, tls=client_context(), timeout=PATIENCE
        ) as sock:
            await sock.send(b"abc\n")
            assert await sock.recv_line(PATIENCE) == b"cba"


@pytest.mark.parametrize("how", ["serve", "accept", "try_accept"])
async def test_FB15_what_a_callback_raises_in_a_servers_handshake_ends_that_client_alone(
    flavour: Flavour, how: str
) -> None:
    """FB15: it left a listener's try_accept_addr, and the client's descriptor was never closed."""
    bad = server_context(client_certs="optional", ca_file=certificates.ca_file())
    odd(bad, Handshake.AS_SERVER)
    if how == "serve":
        async with at_home(flavour, bad) as house:
            with pytest.raises(SslError):
                async with await flavour.dial(
                    "localhost", house.port, tls=client_context(), timeout=PATIENCE
                ) as sock:
                    await sock.send(b"abc\n")
                    await sock.recv_line(PATIENCE)
            assert house.guests.seen.empty()
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
