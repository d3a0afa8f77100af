"""Sessions: resumed with the server they were made with, and never offered to another."""

from __future__ import annotations

import dataclasses
import ssl

import pytest

from tests.tls import certificates
from tests.tls.memory import PORT, Pair, chain, client_context, connect, info, only, say, server_context
from wireline.tls import Handshake, SessionCache, SslContext, TlsSession


def talk(client: SslContext, server: SslContext, hostname: str = "localhost", port: int = PORT) -> Pair:
    """A connection on which the server has said something: from then on its session is worth keeping."""
    pair = connect(client, server, hostname, port)
    say(pair.server, pair.client)
    return pair


def kept(context: SslContext) -> SessionCache:
    assert context.session_cache is not None
    return context.session_cache


def test_the_second_connection_resumes_and_still_knows_the_chain(version: str) -> None:
    leaf = certificates.chained()
    client, server = client_context(), server_context(cert_file=leaf.cert, key_file=leaf.key)
    only(version, client, server)
    first = talk(client, server)
    second = talk(client, server)
    assert info(first.client) == (version, info(first.client).cipher, None, False, "localhost")
    assert info(second.client).resumed
    assert info(second.server).resumed
    assert len(chain(first.client)) == 3
    assert chain(second.client) == chain(first.client)


def test_T10_a_server_that_verifies_resumes_too(version: str) -> None:
    leaf = certificates.client()
    client = client_context(cert_file=leaf.cert, key_file=leaf.key)
    server = server_context(client_certs="required", ca_file=certificates.ca_file())
    only(version, client, server)
    first, second = talk(client, server), talk(client, server)
    assert info(second.server).resumed
    # A resumed handshake sends no certificates, and a server has only kept the leaf.
    assert chain(second.server) == chain(first.server)[:1]


@pytest.mark.usefixtures("bridge")
def test_T10_with_a_session_id_context_of_ones_own(version: str) -> None:
    leaf = certificates.client()
    client = client_context(cert_file=leaf.cert, key_file=leaf.key)
    server = server_context(client_certs="required", ca_file=certificates.ca_file())
    server.session_id_context = "the tests"
    only(version, client, server)
    talk(client, server)
    assert info(talk(client, server).client).resumed


@pytest.mark.usefixtures("bridge")
def test_T10_a_session_of_another_id_context_is_not_resumed(version: str) -> None:
    """The same keys for tickets, as two processes of one service have them: one context, set between connections."""
    client, server = client_context(), server_context()
    server.session_id_context = "one"
    only(version, client, server)
    talk(client, server)
    settings = server._settings(Handshake.AS_SERVER)
    server._roles[Handshake.AS_SERVER] = dataclasses.replace(settings, session_id_context=b"two")
    assert not info(talk(client, server).client).resumed


def test_a_session_is_never_offered_to_another_host_or_port() -> None:
    """OpenSSL would resume it, and skip the check of the name."""
    leaf = certificates.elsewhere()
    client, server = client_context(), server_context()
    only("TLSv1.2", client)
    talk(client, server)
    for hostname, port in (("elsewhere.test", PORT), ("localhost", PORT + 1), ("127.0.0.1", PORT)):
        engine = client._engine(Handshake.AS_CLIENT, hostname, port)
        assert engine.obj.session is None
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect(client, server, "elsewhere.test")
    other = server_context(cert_file=leaf.cert, key_file=leaf.key)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect(client, other, "localhost")


def test_every_spelling_of_a_name_is_the_same_host() -> None:
    client, server = client_context(), server_context()
    talk(client, server, "LOCALHOST.")
    assert info(talk(client, server, "localhost").client).resumed


def test_a_ticket_of_tls_13_is_used_once_and_one_session_of_tls_12_serves_all(version: str) -> None:
    client, server = client_context(), server_context()
    only(version, client, server)
    talk(client, server)
    engines = [client._engine(Handshake.AS_CLIENT, "localhost", PORT) for _ in range(3)]
    offered = [engine.obj.session is not None for engine in engines]
    assert offered == ([True, False, False] if version == "TLSv1.3" else [True, True, True])


def test_a_ticket_does_not_come_back_when_the_server_gives_no_new_one() -> None:
    client, server = client_context(), server_context()
    talk(client, server)
    server.ssl_context(Handshake.AS_SERVER).num_tickets = 0
    assert info(talk(client, server).client).resumed
    assert len(kept(client)) == 0


def test_before_the_server_has_sent_a_ticket_there_is_nothing_to_keep() -> None:
    client, server = client_context(), server_context()
    server.ssl_context(Handshake.AS_SERVER).num_tickets = 0
    talk(client, server)
    assert len(kept(client)) == 0


def test_a_session_whose_handshake_failed_is_forgotten() -> None:
    leaf = certificates.elsewhere()
    client, server = client_context(), server_context()
    only("TLSv1.2", client, server)
    talk(client, server)
    assert len(kept(client)) == 1
    # Another server at the same address, which cannot resume it and is not who it should be.
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(client, server_context(cert_file=leaf.cert, key_file=leaf.key))
    assert len(kept(client)) == 0


def test_none_are_kept_without_a_cache_without_a_port_and_without_a_name() -> None:
    server = server_context()
    client = client_context()
    client.session_cache = None
    talk(client, server)
    assert not info(talk(client, server).client).resumed
    client = client_context()
    talk(client, server, port=0)
    assert len(kept(client)) == 0


def test_another_offer_of_protocols_is_another_session() -> None:
    client, server = client_context(alpn=["h2"]), server_context(alpn=["h2"])
    talk(client, server)
    session = kept(client).take(client.context, "localhost", PORT, ("h2",))
    assert session is not None
    assert session.key == ("localhost", PORT, ("h2",))
    assert "localhost" in repr(session)
    assert kept(client).take(client.context, "localhost", PORT, ()) is None


def test_contexts_do_not_share_sessions() -> None:
    first, second, server = client_context(), client_context(), server_context()
    cache = SessionCache()
    first.session_cache = second.session_cache = cache
    talk(first, server)
    assert len(cache) == 1
    assert not info(talk(second, server).client).resumed


def test_the_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    client, server = client_context(), server_context()
    talk(client, server)
    session = kept(client).take(client.context, "localhost", PORT, ())
    assert session is not None
    cache = SessionCache()
    for port in range(1, 201):
        for _ in range(6):
            cache.put(dataclasses.replace(session, port=port))
    assert len(cache) == 128 * 4
    assert cache.take(client.context, "localhost", 72, ()) is None
    assert cache.take(client.context, "localhost", 73, ()) is not None
    assert repr(cache) == "<SessionCache with 511 sessions>"
    cache.discard(session)  # is not there
    cache.clear()
    assert len(cache) == 0


def test_one_session_of_tls_12_is_enough() -> None:
    client, server = client_context(), server_context()
    talk(client, server)
    session = kept(client).take(client.context, "localhost", PORT, ())
    assert session is not None
    old = [dataclasses.replace(session, version="TLSv1.2") for _ in range(2)]
    cache = SessionCache()
    for each in old:
        cache.put(each)
    assert len(cache) == 1
    assert cache.take(client.context, "localhost", PORT, ()) is old[1]
    cache.discard(old[0])
    assert len(cache) == 1
    cache.discard(old[1])
    assert len(cache) == 0


def test_destroying_a_context_forgets_its_sessions() -> None:
    client, server = client_context(), server_context()
    talk(client, server)
    cache = kept(client)
    client.destroy()
    assert len(cache) == 0


def test_a_session_says_who_it_belongs_to() -> None:
    client, server = client_context(), server_context()
    pair = talk(client, server)
    session = kept(client).take(client.context, "localhost", PORT, ())
    assert isinstance(session, TlsSession)
    assert session.context is client.context
    assert (session.host, session.port, session.version) == ("localhost", PORT, "TLSv1.3")
    assert list(session.chain) == chain(pair.client)
