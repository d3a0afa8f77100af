"""Sessions: resumed with the server they were made with, and never offered to another."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import ssl
import subprocess
import sys

import pytest

from tests.tls import certificates
from tests.tls.memory import (
    PORT,
    Pair,
    chain,
    client_context,
    connect,
    engines,
    info,
    only,
    say,
    server_context,
    shake,
)
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


def test_each_ticket_of_tls_13_is_used_once_and_one_session_of_tls_12_serves_all(version: str) -> None:
    client, server = client_context(), server_context()
    only(version, client, server)
    talk(client, server)
    engines = [client._engine(Handshake.AS_CLIENT, "localhost", PORT) for _ in range(3)]
    offered = [engine.obj.session for engine in engines]
    ids = [session.id for session in offered if session is not None]
    assert len(ids) == (2 if version == "TLSv1.3" else 3)
    assert len(set(ids)) == (2 if version == "TLSv1.3" else 1)


def test_a_ticket_does_not_come_back_when_the_server_gives_no_new_one() -> None:
    client, server = client_context(), server_context()
    talk(client, server)
    server.ssl_context(Handshake.AS_SERVER).num_tickets = 0
    assert info(talk(client, server).client).resumed
    assert len(kept(client)) == 1


@pytest.mark.parametrize("cut", [0, 1, 3, 7, 20, 300, 600])
def test_FB8_two_tickets_of_a_full_handshake_resume_two_connections(cut: int) -> None:
    """FB8: of two tickets the first was thrown away, so that only every other connection was resumed."""
    client, server = client_context(), server_context()
    underneath = server.ssl_context(Handshake.AS_SERVER)
    resumed = []
    for _ in range(6):
        pair = engines(client, server)
        errors = shake(pair)
        assert errors == [None, None]
        resumed.append(info(pair.client).resumed)
        # The tickets come with the first data, in whatever pieces.
        pair.server.encrypt(b"hello")
        wire, taken = pair.server.take_output(), list[bytes]()
        for piece in (wire[:cut], wire[cut:]):
            pair.client.feed(piece, taken.append)
        assert taken == [b"hello"]
        underneath.num_tickets = 2 if len(resumed) % 3 == 0 else 0
    assert resumed == [False, True, True, False, True, True]


def test_FB8_a_server_with_many_tickets_fills_the_cache_and_no_more() -> None:
    """FB8: as many are kept as connections can use at the same time."""
    client, server = client_context(), server_context()
    server.ssl_context(Handshake.AS_SERVER).num_tickets = 9
    talk(client, server)
    assert len(kept(client)) == 4
    assert [info(talk(client, server).client).resumed for _ in range(5)] == [True] * 5


@pytest.mark.parametrize("how", ["data", "goodbye", "alert"])
def test_FB9_a_server_keeps_its_tickets_until_it_says_something(how: str) -> None:
    """FB9: unread tickets turned the close of a client that only wrote into a reset, which took its last lines."""
    client, server = client_context(), server_context()
    pair = engines(client, server)
    assert shake(pair) == [None, None]
    assert not pair.server.has_output
    assert pair.server.take_output() == b""
    assert len(kept(client)) == 0
    if how == "data":
        pair.server.encrypt(b"hello")
    elif how == "goodbye":
        pair.server.close_notify()
    else:
        with pytest.raises(ssl.SSLError):
            pair.server.feed(b"\x17\x03\x03\x00\x20" + bytes(32), print)
    assert pair.server.has_output
    with pytest.raises(ssl.SSLError, match="ALERT") if how == "alert" else contextlib.nullcontext():
        pair.client.feed(pair.server.take_output(), lambda _: None)
    assert len(kept(client)) == 2
    assert info(talk(client, server).client).resumed


# ------------------------------------------------------------------------------------------------- what it costs


class Asked(ssl.SSLObject):
    """Counts how often a session is asked for: CPython leaks 6.5 kB each time."""

    times = 0

    @property
    def session(self) -> ssl.SSLSession | None:  # type: ignore[override]
        type(self).times += 1
        return super().session

    @session.setter
    def session(self, value: ssl.SSLSession) -> None:
        self._sslobj.session = value  # type: ignore[attr-defined]


@pytest.fixture
def asked() -> type[Asked]:
    class Fresh(Asked):
        pass

    return Fresh


def counted(asked: type[Asked], **options: object) -> SslContext:
    client = client_context(**options)
    client.context.sslobject_class = asked
    return client


def test_FA27_a_session_is_asked_for_only_when_it_is_kept(version: str, asked: type[Asked]) -> None:
    """FA27: every connection with a ticket leaked 6.5 kB, resumed or not, with a cache that was full or not."""
    client, server = counted(asked), server_context()
    only(version, client, server)
    for _ in range(20):
        talk(client, server)
    # One copy for each ticket that was kept: two of the first connection, and then one for each one used.
    assert asked.times == (1 if version == "TLSv1.2" else 21)
    assert len(kept(client)) == (1 if version == "TLSv1.2" else 2)


def test_FA27_what_gains_nothing_does_not_ask(version: str, asked: type[Asked]) -> None:
    """FA27: a server without tickets, a client without a cache or a port, a cache that has enough."""
    client, server = counted(asked), server_context()
    only(version, client, server)
    talk(client, server, port=0)
    assert asked.times == 0
    if version == "TLSv1.3":
        server.ssl_context(Handshake.AS_SERVER).num_tickets = 0
        talk(client, server)
        assert asked.times == 0
        server.ssl_context(Handshake.AS_SERVER).num_tickets = 9
        pairs = [engines(client, server) for _ in range(10)]
        for pair in pairs:
            assert shake(pair) == [None, None]
            say(pair.server, pair.client)
        assert asked.times == 4
    without = client_context()
    without.session_cache = None
    without.context.sslobject_class = asked
    before = asked.times
    talk(without, server)
    assert asked.times == before


MEMORY = """
import sys
from tests.tls.memory import client_context, connect, only, say, server_context

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

client, server = client_context(), server_context()
only("TLSv1.2", client, server)

def run(count):
    for _ in range(count):
        pair = connect(client, server)
        say(pair.server, pair.client)

run(1000)
before = resident()
run(int(sys.argv[1]))
print(resident() - before)
"""


@pytest.mark.stress
@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="this system does not say how much memory is used"
)
def test_FA27_20_000_connections_that_resume_take_no_memory() -> None:
    """FA27: 54 to 157 MB were gone after 16,000 connections."""
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, "20000"], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 4_000_000


# ------------------------------------------------------------------------------------------------- what goes wrong


class Unwilling(ssl.SSLObject):
    """A session that cannot be had."""

    @property
    def session(self) -> ssl.SSLSession | None:  # type: ignore[override]
        raise ValueError("i2d() failed")


class BadCache(SessionCache):
    """A program's own, with a mistake in it."""

    def put(self, session: TlsSession) -> None:
        raise ZeroDivisionError("a mistake")


def test_FB15_a_session_that_cannot_be_copied_is_not_kept_and_no_data_is_lost(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """FB15: the ValueError of SSLObject.session came out of the first read, which lost what it had received."""
    client, server = client_context(), server_context()
    client.context.sslobject_class = Unwilling
    only(version, client, server)
    pair = connect(client, server)
    assert say(pair.server, pair.client, b"one") == b"one"
    assert say(pair.server, pair.client, b"two") == b"two"
    assert len(kept(client)) == 0
    assert caplog.records == []


def test_FB15_what_a_cache_raises_is_logged_and_not_the_readers_business(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    """FB15: the same of a cache of the program's own."""
    client, server = client_context(), server_context()
    client.session_cache = BadCache()
    only(version, client, server)
    pair = connect(client, server)
    assert say(pair.server, pair.client, b"one") == b"one"
    assert say(pair.server, pair.client, b"two") == b"two"
    assert {record.exc_info[0] for record in caplog.records if record.exc_info} == {ZeroDivisionError}


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
    assert len(cache) == 2
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
