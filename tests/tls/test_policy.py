"""The policy of one connection: which peers are refused, and what is reported about them."""

from __future__ import annotations

import ssl
from typing import cast

import pytest

from tests.cases import in_turn
from tests.tls import certificates
from tests.tls.both import needs_the_bridge
from tests.tls.memory import (
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
from wireline._core.tls_engine import TlsEngine
from wireline.tls import Certificate, Handshake, SslContext, SslError, VerifyMode, _openssl
from wireline.tls._policy import TlsPolicy
from wireline.tls._role_context import RoleContext

CLIENT, SERVER = Handshake.AS_CLIENT, Handshake.AS_SERVER


def errors(client: SslContext, server: SslContext, hostname: str = "localhost") -> list[ssl.SSLError | None]:
    return shake(engines(client, server, hostname))


# T1: the checks of a client.


@in_turn("hostname", ["localhost", "LOCALHOST.", "127.0.0.1", "::1", "[::1]", "0::1", "::1%lo"])
def test_T1_every_name_of_the_certificate_is_accepted(hostname: str, version: str) -> None:
    client, server = client_context(), server_context()
    only(version, client, server)
    pair = connect(client, server, hostname)
    assert say(pair.client, pair.server) == say(pair.server, pair.client) == b"hello"
    assert info(pair.client).version == info(pair.server).version == version


@in_turn(
    "leaf, reason",
    [
        (certificates.elsewhere, "Hostname mismatch"),
        (certificates.stranger, "unable to get local issuer"),
        (certificates.incomplete, "unable to get local issuer"),
        (certificates.self_signed, "self-signed"),
        (certificates.expired, "has expired"),
        (certificates.not_yet_valid, "not yet valid"),
    ],
)
def test_T1_an_invalid_certificate_is_an_error_at_both_ends(leaf: object, reason: str, version: str) -> None:
    assert callable(leaf)
    client, server = client_context(), server_context(cert_file=leaf().cert, key_file=leaf().key)
    only(version, client, server)
    theirs, ours = errors(client, server)
    assert isinstance(theirs, ssl.SSLCertVerificationError)
    assert reason in str(theirs)
    assert "'localhost'" in theirs.__notes__[0]
    assert ours is not None
    assert "alert" in str(ours)  # the client sent its alert


def test_T1_an_address_needs_an_address_in_the_certificate() -> None:
    leaf = certificates.name_only()
    server = server_context(cert_file=leaf.cert, key_file=leaf.key)
    connect(client_context(), server, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        connect(client_context(), server, "127.0.0.1")


def test_T1_a_ca_with_a_weak_key_is_refused() -> None:
    weak = certificates.weak()
    server = server_context(cert_file=weak.leaf.cert, key_file=weak.leaf.key)
    with pytest.raises(ssl.SSLCertVerificationError, match="too weak"):
        connect(client_context(ca_file=weak.ca_file), server)


@in_turn("hostname", ["localhost", "", "elsewhere.test"])
def test_T1_with_verify_mode_none_nothing_is_checked(hostname: str) -> None:
    leaf = certificates.stranger()
    server = server_context(cert_file=leaf.cert, key_file=leaf.key)
    pair = connect(SslContext(verify_mode=VerifyMode.NONE), server, hostname)
    # OpenSSL's "verified" chain exists here too.
    assert chain(pair.client) == []
    assert info(pair.client).server_name == hostname == info(pair.server).server_name


# T8: the certificates of the peer.


def test_T8_the_chain_is_leaf_to_root(version: str) -> None:
    leaf = certificates.chained()
    client, server = client_context(), server_context(cert_file=leaf.cert, key_file=leaf.key)
    only(version, client, server)
    pair = engines(client, server)
    assert chain(pair.client) == []
    assert info(pair.client) == ("", "", None, False, "localhost", None, None)
    assert shake(pair) == [None, None]
    found = chain(pair.client)
    assert len(found) == 3
    assert found[0].issuer == found[1].subject
    assert found[1].issuer == found[2].subject == found[2].issuer
    assert found[2].to_pem() == ssl.DER_cert_to_PEM_cert(
        ssl.PEM_cert_to_DER_cert(open_text(certificates.ca_file()))
    )
    assert chain(pair.server) == []


def test_FB7_certificates_that_were_sent_are_known_without_verification(version: str) -> None:
    leaf, ours = certificates.chained(), certificates.client()
    client = client_context(verify_mode=VerifyMode.NONE, cert_file=ours.cert, key_file=ours.key)
    server = server_context(
        cert_file=leaf.cert, key_file=leaf.key, client_certs="optional", ca_file=certificates.ca_file()
    )
    only(version, client, server)
    pair = engines(client, server)
    assert sent(pair.client) == sent(pair.server) == []
    assert shake(pair) == [None, None]
    assert chain(pair.client) == []
    assert [each.to_pem() for each in sent(pair.client)] == pems(leaf.cert)
    assert [each.to_pem() for each in sent(pair.server)] == pems(ours.cert)
    trusting = connect(client_context(), server)
    assert sent(trusting.client) == chain(trusting.client)[:-1], "the root is not sent"
    assert sent(trusting.server) == [], "the client has sent none"


@in_turn("bridged", [True, False])
def test_FB7_after_a_resumption_the_own_certificate_of_the_peer_is_known(
    version: str, bridged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not bridged:
        monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    elif not _openssl.available():
        pytest.skip(_openssl.why_not())
    leaf, ours = certificates.chained(), certificates.client()
    client = client_context(verify_mode=VerifyMode.NONE, cert_file=ours.cert, key_file=ours.key)
    server = server_context(
        cert_file=leaf.cert, key_file=leaf.key, client_certs="required", ca_file=certificates.ca_file()
    )
    only(version, client, server)
    first = connect(client, server)
    say(first.server, first.client)
    second = connect(client, server)
    assert info(second.client).resumed
    assert sent(second.client) == sent(first.client)[: None if bridged else 1]
    assert sent(second.server) == sent(first.server)[:1]


def test_FB7_a_peer_that_the_policy_refuses_has_still_sent_its_certificate(version: str) -> None:
    leaf = certificates.server()
    client, server = client_context(alpn=("h2",)), server_context()
    client.require_alpn = True
    only(version, client, server)
    pair = engines(client, server)
    assert "ALPN" in str(shake(pair)[0])
    assert [each.to_pem() for each in sent(pair.client)] == pems(leaf.cert)


@pytest.mark.usefixtures("psk")
def test_FB7_a_pre_shared_key_sends_no_certificate(version: str) -> None:
    if version == "TLSv1.3":
        needs_the_bridge()  # else the server, which has a certificate too, does not prefer the key
    client, server = psk_contexts(server_context())
    only(version, client, server)
    pair = connect(client, server)
    assert sent(pair.client) == sent(pair.server) == []


def sent(engine: TlsEngine) -> list[Certificate]:
    return engine.policy.sent_certificates(engine.obj)


def pems(path: str) -> list[str]:
    end = "-----END CERTIFICATE-----\n"
    return [pem + end for pem in open_text(path).split(end) if pem]


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()


@in_turn(
    "client_certs, shown, accepted, known",
    [
        ("ignore", None, True, 0),
        ("ignore", certificates.client, True, 0),
        ("optional", None, True, 0),
        ("optional", certificates.client, True, 2),
        ("optional", certificates.stranger, False, 0),
        ("required", None, False, 0),
        ("required", certificates.client, True, 2),
        ("required", certificates.stranger, False, 0),
        ("required", certificates.expired, False, 0),
    ],
)
def test_T8_client_certificates(
    client_certs: str, shown: object, accepted: bool, known: int, version: str
) -> None:
    leaf = shown() if callable(shown) else None
    client = client_context(cert_file=leaf.cert, key_file=leaf.key) if leaf else client_context()
    # `verify_mode` is for clients, and does not matter here.
    server = server_context(
        client_certs=client_certs, ca_file=certificates.ca_file(), verify_mode=VerifyMode.NONE
    )
    only(version, client, server)
    pair = engines(client, server)
    assert (shake(pair)[1] is None) == pair.server.established == accepted
    assert len(chain(pair.server)) == known


def test_a_peer_without_a_required_certificate_is_refused_even_if_openssl_accepts_it() -> None:
    pair = connect(client_context(), server_context())
    required = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    required.verify_mode = ssl.CERT_REQUIRED
    with pytest.raises(SslError, match="no certificate"):
        TlsPolicy(RoleContext(required, server=True)).check(pair.server.obj)


# PSK.


def psk_contexts(
    server: SslContext | None = None, client: SslContext | None = None
) -> tuple[SslContext, SslContext]:
    """Make contexts with a common key; the server has a certificate only if it is given one."""
    client, server = (
        client or SslContext(verify_mode=VerifyMode.NONE),
        server or SslContext(verify_mode=VerifyMode.NONE),
    )
    client.client_get_psk = lambda _hint: ("alice", b"a key")
    server.server_get_psk = lambda identity: b"a key" if identity == "alice" else b""
    return client, server


@pytest.mark.usefixtures("bridge")
def test_T9_a_server_with_a_certificate_prefers_the_key(version: str) -> None:
    client, server = psk_contexts(server_context())
    only(version, client, server)
    pair = connect(client, server, "")
    assert pair.server.policy.psk_identity(pair.server.obj) == "alice"
    assert chain(pair.client) == []
    pair = connect(client_context(), server)
    assert pair.server.policy.psk_identity(pair.server.obj) == ""


@pytest.mark.usefixtures("psk")
def test_T9_psk_adds_suites_to_the_defaults_and_none_without_encryption() -> None:
    client, server = psk_contexts()
    for context in (client.context, server.ssl_context(SERVER)):
        names = [cipher["name"] for cipher in context.get_ciphers()]
        assert not [name for name in names if "NULL" in name or "CCM8" in name]
        assert {"ECDHE-PSK-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"} <= set(names)


@pytest.mark.usefixtures("psk")
def test_FB18_every_suite_of_the_defaults_has_forward_secrecy() -> None:
    """FB18: with some of the suites, a key that is stolen later decrypted earlier recordings."""
    client, server = psk_contexts()
    for context in (client.context, server.ssl_context(SERVER)):
        old = [cipher["name"] for cipher in context.get_ciphers() if not cipher["name"].startswith("TLS_")]
        assert len(old) > 10
        assert [name for name in old if not name.startswith(("ECDHE-", "DHE-"))] == []


@pytest.mark.usefixtures("psk")
def test_FB18_a_suite_without_forward_secrecy_must_be_named() -> None:
    """FB18: a device without forward secrecy is served if its suite is named."""
    suite = "PSK-AES128-GCM-SHA256"
    device, _ = psk_contexts(client=SslContext(verify_mode=VerifyMode.NONE, cipher_list=suite))
    _, server = psk_contexts()
    only("TLSv1.2", device, server)
    with pytest.raises(ssl.SSLError):
        connect(device, server, "")
    _, lenient = psk_contexts(
        SslContext(verify_mode=VerifyMode.NONE, cipher_list=f"ECDHE-PSK-CHACHA20-POLY1305:{suite}")
    )
    only("TLSv1.2", lenient)
    pair = connect(device, lenient, "")
    assert info(pair.server).cipher == suite
    assert pair.server.policy.psk_identity(pair.server.obj) == "alice"


@pytest.mark.usefixtures("psk")
def test_psk_adds_nothing_to_an_explicit_cipher_list() -> None:
    client = SslContext(verify_mode=VerifyMode.NONE, cipher_list="ECDHE+AESGCM")
    client.client_get_psk = lambda _hint: ("alice", b"a key")
    assert not [cipher for cipher in client.context.get_ciphers() if "PSK" in cipher["name"]]


@pytest.mark.usefixtures("psk")
@in_turn("verify_mode", VerifyMode)
def test_T9_a_psk_client_accepts_no_server_for_its_certificate(verify_mode: VerifyMode, version: str) -> None:
    """Trap A: with ``CERT_NONE``, ``ssl`` accepts a TLS 1.3 server without the key, and with a trusted CA as well."""
    for ca_file in (certificates.ca_file(), certificates.other_ca_file()):
        client = SslContext(verify_mode=verify_mode, ca_file=ca_file)
        client.client_get_psk = lambda _hint: ("alice", b"a key")
        server = server_context()
        only(version, client, server)
        pair = engines(client, server)
        error = shake(pair)[0]
        assert isinstance(error, SslError)
        assert not pair.client.established
        # With an untrusted certificate the handshake itself fails.
        trusted = ca_file == certificates.ca_file()
        assert isinstance(error, ssl.SSLCertVerificationError) != trusted


@pytest.mark.usefixtures("psk")
def test_T9_an_exception_of_a_psk_callback_is_the_cause(version: str) -> None:
    def fails(_: object) -> bytes:
        raise LookupError("no database")

    for end in (0, 1):
        client, server = psk_contexts()
        if end:
            server.server_get_psk = fails
        else:
            client.client_get_psk = fails  # type: ignore[assignment]
        only(version, client, server)
        error = errors(client, server, "")[end]
        assert isinstance(error, SslError)
        assert isinstance(error.__cause__, LookupError)


@pytest.mark.usefixtures("psk")
def test_T9_psk_needs_no_ca_and_keeps_no_sessions(version: str) -> None:
    client, server = psk_contexts()
    only(version, client, server)
    for _ in range(2):
        pair = connect(client, server, "localhost")
        say(pair.server, pair.client)
    assert client.session_cache is not None
    assert len(client.session_cache) == 0
    assert client.context.cert_store_stats()["x509"] == 0
    assert server.ssl_context(SERVER).num_tickets == 0


def test_without_psk_there_is_no_identity() -> None:
    pair = connect(client_context(), server_context())
    assert pair.client.policy.psk_identity(pair.client.obj) == ""


# The pointer.


@pytest.mark.usefixtures("bridge")
def test_the_pointer_is_a_number_and_every_connection_has_its_own() -> None:
    pair = engines(client_context(), server_context())
    pointers = {engine.policy.pointer(engine.obj) for engine in pair}
    assert len(pointers) == 2
    assert all(pointers)


@pytest.mark.usefixtures("no_bridge")
def test_without_the_bridge_the_pointer_is_refused_with_the_reason() -> None:
    engine = engines(client_context(), server_context()).client
    with pytest.raises(NotImplementedError, match="WIRELINE_NO_BRIDGE"):
        engine.policy.pointer(engine.obj)


# SNI.


class Names:
    """The contexts of virtual hosts, and the names that the callback got."""

    def __init__(self, default: dict[str, object] | None = None, **hosts: dict[str, object]) -> None:
        leaf = certificates.issue("hosts", certificates.ca(), "a.test", "b.test", "c.test")
        shown = {"cert_file": leaf.cert, "key_file": leaf.key, "ca_file": certificates.ca_file()}
        self.asked: list[str | None] = []
        self.hosts = {f"{name}.test": SslContext(**{**shown, **options}) for name, options in hosts.items()}  # type: ignore[arg-type]
        self.context = SslContext(server_name_callback=self.choose, **{**shown, **(default or {})})  # type: ignore[arg-type]

    def choose(self, name: str | None) -> SslContext | None:
        self.asked.append(name)
        return self.hosts.get(name or "")


def test_the_callback_leads_to_the_context_of_a_name(version: str) -> None:
    names = Names(a={"alpn": ["a"]}, b={"alpn": ["b"]})
    client = client_context(alpn=["a", "b"])
    only(version, client, names.context, *names.hosts.values())
    assert info(connect(client, names.context, "a.test").client).alpn == "a"
    pair = connect(client, names.context, "b.test")
    assert info(pair.server)[2:5] == ("b", False, "b.test")
    assert info(connect(client, names.context, "c.test").client).alpn is None
    assert names.asked == ["a.test", "b.test", "c.test"]


def test_without_sni_the_callback_gets_none() -> None:
    names = Names()
    pair = connect(SslContext(verify_mode=VerifyMode.NONE), names.context, "127.0.0.1")
    assert names.asked == [None]
    assert info(pair.server).server_name == ""


def test_the_context_of_a_name_decides_the_rest() -> None:
    names = Names(a={})
    names.hosts["a.test"].require_alpn = True
    assert "ALPN" in str(errors(client_context(), names.context, "a.test")[1])
    connect(client_context(), names.context, "b.test")


ASKED = ["ignore", "optional", "required"]


@pytest.mark.usefixtures("bridge")
@in_turn("before", ASKED)
@in_turn("after", ASKED)
def test_the_context_of_a_name_asks_for_its_own_certificates(before: str, after: str, version: str) -> None:
    """OpenSSL itself keeps the verify mode of the first context."""
    names = Names(default={"client_certs": before}, a={"client_certs": after})
    leaf = certificates.client()
    known = client_context(cert_file=leaf.cert, key_file=leaf.key)
    unknown = client_context()
    only(version, known, unknown, names.context, *names.hosts.values())
    pair = engines(unknown, names.context, "a.test")
    assert (shake(pair)[1] is None) == (after != "required")
    assert len(chain(connect(known, names.context, "a.test").server)) == (0 if after == "ignore" else 2)


@pytest.mark.usefixtures("no_bridge")
@in_turn("before", ASKED)
@in_turn("after", ASKED)
def test_without_the_bridge_a_context_that_asks_for_more_is_refused(
    before: str, after: str, version: str
) -> None:
    names = Names(default={"client_certs": before}, a={"client_certs": after})
    leaf = certificates.client()
    client = client_context(cert_file=leaf.cert, key_file=leaf.key)
    only(version, client, names.context, *names.hosts.values())
    error = errors(client, names.context, "a.test")[1]
    if ASKED.index(after) <= ASKED.index(before):
        assert error is None
    else:
        assert error is not None
        assert isinstance(error.__cause__, NotImplementedError)
        assert "WIRELINE_NO_BRIDGE" in str(error.__cause__)
    # The first context's mode still applies.
    error = errors(client_context(), names.context, "a.test")[1]
    assert (error is None) == (before != "required" and ASKED.index(after) <= ASKED.index(before))


@in_turn("raised", [LookupError("unknown name"), KeyboardInterrupt(), None])
def test_an_exception_in_the_callback_fails_that_handshake_and_is_the_cause(
    raised: BaseException | None, version: str
) -> None:
    def choose(name: str | None) -> SslContext | None:
        if name == "127.test":
            return None
        if raised is None:
            return "a context"  # type: ignore[return-value]
        raise raised

    client, server = client_context(verify_mode=VerifyMode.NONE), server_context(server_name_callback=choose)
    only(version, client, server)
    theirs, ours = errors(client, server)
    assert ours is not None
    assert isinstance(ours.__cause__, type(raised) if raised else TypeError)
    assert theirs is not None
    assert "internal error" in str(theirs)
    connect(client, server, "127.test")


def mutual() -> tuple[Names, SslContext]:
    """Make hosts that accept different clients, and a client that only a.test accepts."""
    asks: dict[str, object] = {"client_certs": "required"}
    names = Names(default=asks, a={**asks, "ca_file": certificates.other_ca_file()}, b=asks)
    leaf = certificates.stranger()
    return names, client_context(cert_file=leaf.cert, key_file=leaf.key)


def test_a_session_made_for_one_name_does_not_open_another(version: str) -> None:
    """OpenSSL resumes TLS 1.3 before the SNI callback, so b.test would accept the clients of a.test."""
    names, client = mutual()
    only(version, client, names.context, *names.hosts.values())
    friend = connect(client, names.context, "a.test")
    say(friend.server, friend.client)
    for name in ("b.test", "c.test"):
        assert shake(engines(client, names.context, name))[1] is not None
        pair = _with_the_session_of(friend, client, names.context, name)
        error = shake(pair)[1]
        if version == "TLSv1.3":
            assert error is not None
        else:  # the name is part of the session: the callback gets a.test
            assert (error, info(pair.server).server_name) == (None, "a.test")


def test_a_ticket_of_another_name_is_refused() -> None:
    """Should a server send tickets all the same: the check after the handshake."""
    names, client = mutual()
    names.context.ssl_context(SERVER).num_tickets = 2
    friend = connect(client, names.context, "a.test")
    say(friend.server, friend.client)
    pair = _with_the_session_of(friend, client, names.context, "b.test")
    assert "does not replace the client certificate" in str(shake(pair)[1])


def test_a_client_that_returns_to_a_name_is_accepted(version: str) -> None:
    asks: dict[str, object] = {"client_certs": "required"}
    names = Names(default=asks, a=asks, b=asks)
    leaf = certificates.client()
    client = client_context(cert_file=leaf.cert, key_file=leaf.key)
    only(version, client, names.context, *names.hosts.values())
    for name in ("a.test", "b.test", "a.test", "c.test", "a.test", "c.test"):
        pair = connect(client, names.context, name)
        say(pair.server, pair.client)
        assert chain(pair.server)
        assert info(pair.server).server_name == name


def _with_the_session_of(friend: Pair, client: SslContext, server: SslContext, name: str) -> Pair:
    """Make a client that offers the session of another name."""
    pair = engines(client, server, name, 0)
    pair.client.obj.session = friend.client.obj.session
    return pair


@pytest.mark.usefixtures("bridge")
def test_a_name_that_is_not_ascii_prints_nothing() -> None:
    client = client_context()._engine(Handshake.AS_CLIENT, "localhost")
    server = server_context()._engine(Handshake.AS_SERVER)
    assert not client.handshake()
    hello = client.take_output()
    assert hello.count(b"localhost") == 1
    server.feed_handshake(hello.replace(b"localhost", b"l\xf6calhost"))
    assert not server.handshake()  # a call of `sys.unraisablehook` fails the test
    assert server.has_output


def test_the_result_of_a_handshake_is_copied_and_openssl_is_not_asked_again() -> None:
    """Any thread may ask, also while OpenSSL runs in another one."""
    unused = cast(ssl.SSLObject, object())
    pair = connect(client_context(alpn=("h2",)), server_context(alpn=("h2",)))
    client, server = pair.client.policy, pair.server.policy
    before = client.info(pair.client.obj), client.certificates(pair.client.obj)
    assert (client.info(unused), client.certificates(unused), client.psk_identity(unused)) == (*before, "")
    assert before[0].alpn == "h2"
    assert len(before[1]) >= 1
    assert len(client.sent_certificates(unused)) >= 1
    assert (server.certificates(unused), server.sent_certificates(unused)) == ([], [])
    assert server.psk_identity(unused) == ""
