"""Pre-shared keys in handshakes: whose key was proved, and the traps of the usual recipes.

Each test runs with the bridge and, from Python 3.13 on, with the callbacks of ``ssl``. The two differ in two things:
without the bridge the order of ciphersuites cannot be changed, and the session cache cannot be switched off.
"""

from __future__ import annotations

import gc
import random
import ssl
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from tests.tls.bare import (
    HAS_BRIDGE,
    KEYS,
    TLS1_2,
    TLS1_3,
    Link,
    look_up,
    plain_client,
    plain_server,
    psk_client,
    psk_server,
)
from wireline.tls import _openssl, _openssl_psk, _psk

VERSIONS = pytest.mark.parametrize("version", [TLS1_2, TLS1_3, None], ids=["1.2", "1.3", "any"])
BOTH = pytest.mark.parametrize("version", [TLS1_2, TLS1_3], ids=["1.2", "1.3"])
ROLES = pytest.mark.parametrize("role", ["client", "server"])
SHA384_FIRST = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"


class Trouble(Exception):
    """The exception of callbacks."""


WAYS = [*(["bridge"] if HAS_BRIDGE else []), *(["native"] if sys.version_info >= (3, 13) else [])]
BRIDGE_ONLY = pytest.mark.parametrize("way", ["bridge"] if HAS_BRIDGE else [], indirect=True)


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Use the bridge, or the callbacks of ``ssl``."""
    if request.param == "bridge":
        monkeypatch.delenv("WIRELINE_NO_BRIDGE", raising=False)
    else:
        monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    yield request.param
    left = _psk.take_callback_error()
    assert left is None, f"the test did not expect {left!r}"


def whose(link: Link) -> tuple[str, str]:
    """Return the identity at both ends; it must be known exactly if a key was used."""
    for end in (link.client, link.server):
        assert _psk.was_used(end) is bool(_psk.identity(end))
    return _psk.identity(link.client), _psk.identity(link.server)


def failed(link: Link) -> set[str]:
    """Return the ends that failed, after checking that no identity was proved."""
    assert whose(link) == ("", "")
    return set(link.errors)


# -------------------------------------------------------------------------------------------------- it works


@VERSIONS
@pytest.mark.parametrize("identity", list(KEYS))
def test_T9_the_identity_is_known_at_both_ends_and_no_certificate_is_needed(
    version: ssl.TLSVersion | None, identity: str
) -> None:
    # `CERT_REQUIRED` and `check_hostname` are on, and there is nothing to verify.
    link = Link(psk_client(version, identity), psk_server(version)).shake()
    assert link.is_good, link.errors
    assert whose(link) == (identity, identity)
    assert link.say() == b"hello"


@BOTH
def test_there_is_no_identity_before_the_handshake_is_done(version: ssl.TLSVersion) -> None:
    link = Link(psk_client(version), psk_server(version))
    while not link.server.version() or not link.client.version():
        for end in (link.client, link.server):
            assert _psk.identity(end) == ("alice" if end.version() else "")
        link.step()
    assert whose(link) == ("alice", "alice")


@pytest.mark.parametrize(
    ("client", "server", "hint", "seen"),
    [
        (TLS1_2, TLS1_2, "büro", ["büro"]),
        (TLS1_2, TLS1_2, "", [None]),
        (TLS1_2, TLS1_2, "h" * 255, ["h" * 255]),
        (TLS1_3, TLS1_3, "büro", [None]),
        # Called again when the server chooses TLS 1.2.
        (None, TLS1_2, "büro", [None, "büro"]),
        (None, TLS1_2, "", [None, None]),
    ],
)
def test_T9_the_clients_callback_gets_the_hint(
    client: ssl.TLSVersion | None, server: ssl.TLSVersion, hint: str, seen: list[str | None]
) -> None:
    hints: list[str | None] = []

    def answer(hint: str | None) -> tuple[str, bytes]:
        hints.append(hint)
        return "alice", KEYS["alice"]

    link = Link(psk_client(client, callback=answer), psk_server(server, hint=hint)).shake()
    assert whose(link) == ("alice", "alice")
    assert hints == seen


@VERSIONS
@pytest.mark.parametrize(("identity", "key"), [("mallory", b"m" * 16), ("alice", b"m" * 16)])
def test_T9_unknown_identity_and_wrong_key_are_errors_at_both_ends(
    version: ssl.TLSVersion | None, identity: str, key: bytes
) -> None:
    link = Link(psk_client(version, identity, key), psk_server(version)).shake()
    assert failed(link) == {"client", "server"}


@BOTH
def test_a_connection_without_psk_has_no_identity(version: ssl.TLSVersion) -> None:
    link = Link(plain_client(version), plain_server(version)).shake()
    assert link.is_good
    assert whose(link) == ("", "")


@BOTH
def test_a_server_with_a_certificate_serves_clients_with_and_without_keys(version: ssl.TLSVersion) -> None:
    server = psk_server(version, certificate=True)
    with_key = psk_client(version)
    if _openssl.available() or version == TLS1_2:
        assert whose(Link(with_key, server).shake()) == ("alice", "alice")
    without = Link(plain_client(version), server).shake()
    assert without.is_good
    assert whose(without) == ("", "")


# ---------------------------------------------------------------------- results of callbacks; see test_psk_checks.py


@BOTH
@pytest.mark.parametrize(
    ("identity", "size"), [("x", 512), ("i" * 255, 1), ("é" * 127, 512), ("with space and \n", 1)]
)
def test_identities_and_keys_of_the_shortest_and_longest_length(
    version: ssl.TLSVersion, identity: str, size: int
) -> None:
    key = b"\0" * size
    server = psk_server(version, lambda asked: key if asked == identity else b"")
    assert whose(Link(psk_client(version, identity, key), server).shake()) == (identity, identity)


@BOTH
@pytest.mark.parametrize(("result", "error"), [(("", b"k"), ValueError), (None, TypeError)])
def test_T9_an_invalid_result_of_a_client_callback_fails_the_handshake(
    version: ssl.TLSVersion, result: object, error: type[Exception]
) -> None:
    link = Link(psk_client(version, callback=lambda hint: result), psk_server(version)).shake()
    assert failed(link) == {"client", "server"}
    assert type(_psk.take_callback_error()) is error


@BOTH
@pytest.mark.parametrize("certificate", [False, True], ids=["", "with-certificate"])
@pytest.mark.parametrize(
    ("result", "error"), [(None, TypeError), (b"k" * 513, ValueError)], ids=["none", "long"]
)
def test_T9_an_invalid_result_of_a_server_callback_fails_the_handshake(
    version: ssl.TLSVersion, result: object, error: type[Exception], certificate: bool
) -> None:
    server = psk_server(version, lambda identity: result, certificate=certificate)
    # A client that accepts any certificate, so that the server ends the handshake.
    link = Link(psk_client(version, verify=False), server).shake()
    assert "server" in link.errors
    assert whose(link) == ("", "")
    assert type(_psk.take_callback_error()) is error


@BOTH
@pytest.mark.parametrize("error", [Trouble("trouble"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
@ROLES
@pytest.mark.parametrize("certificate", [False, True], ids=["", "with-certificate"])
def test_T9_an_exception_of_a_callback_is_kept_and_fails_that_handshake_only(
    version: ssl.TLSVersion, error: BaseException, role: str, certificate: bool
) -> None:
    errors: list[BaseException] = [error]

    def answer(asked: str | None) -> object:
        if errors:
            raise errors.pop()
        return KEYS["alice"] if role == "server" else ("alice", KEYS["alice"])

    if role == "server":
        server, client = (
            psk_server(version, answer, certificate=certificate),
            psk_client(version, verify=False),
        )
    else:
        server = psk_server(version, certificate=certificate)
        client = psk_client(version, callback=answer, verify=False)
    assert failed(Link(client, server).shake()) >= {role}
    assert _psk.take_callback_error() is error
    assert _psk.take_callback_error() is None
    if _openssl.available() or version == TLS1_2 or not certificate:
        assert whose(Link(client, server).shake()) == ("alice", "alice")


@BOTH
@ROLES
def test_a_callback_that_is_set_again_replaces_the_first(version: ssl.TLSVersion, role: str) -> None:
    client, server = psk_client(version, key=b"wrong"), psk_server(version, lambda identity: b"wrong as well")
    assert failed(Link(client, server).shake())
    _psk.install_client(client, lambda hint: ("bob", KEYS["bob"]))
    assert failed(Link(client, server).shake())
    _psk.install_server(server, look_up, "")
    assert whose(Link(client, server).shake()) == ("bob", "bob")


@BRIDGE_ONLY
@BOTH
@pytest.mark.parametrize(
    "identity",
    [b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"i" * 256],
    ids=["no-utf8", "latin1", "surrogate", "long"],
)
def test_the_servers_callback_is_not_called_with_an_invalid_identity(
    version: ssl.TLSVersion, identity: bytes
) -> None:
    asked: list[str] = []

    def answer(name: str) -> bytes:
        asked.append(name)
        return b"k"

    client = psk_client(version)
    _openssl_psk.install_client(client, lambda hint: (identity, b"k"))
    assert failed(Link(client, psk_server(version, answer)).shake())
    _psk.take_callback_error()  # TLS 1.2 accepts at most 255 bytes
    assert not asked


@BRIDGE_ONLY
def test_an_identity_with_a_nul_is_refused() -> None:
    client = psk_client(TLS1_3)
    _openssl_psk.install_client(client, lambda hint: (b"alice\0", KEYS["alice"]))
    assert failed(Link(client, psk_server(TLS1_3)).shake())


# -------------------------------------------------------------------------------------------- where there is none


def test_T9_without_psk_setting_a_callback_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _psk.require_available()
    monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    monkeypatch.setattr(_psk, "_has_native_callbacks", lambda: False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for ask in (
        _psk.require_available,
        lambda: _psk.install_server(context, look_up, ""),
        lambda: _psk.install_client(plain_client(), lambda hint: ("alice", b"k")),
    ):
        with pytest.raises(NotImplementedError, match="WIRELINE_NO_BRIDGE"):
            ask()
    link = Link(plain_client(), plain_server()).shake()
    assert whose(link) == ("", "")


@BRIDGE_ONLY
@pytest.mark.parametrize("error", [MemoryError(), OSError("not permitted")])
def test_a_system_that_forbids_c_callbacks_uses_those_of_ssl(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def forbidden(signature: str, function: object) -> int:
        raise error

    monkeypatch.setattr(_openssl_psk, "make_callback", forbidden)
    monkeypatch.setattr(_openssl_psk, "_loaded", None)
    assert "forbids callbacks" in _openssl_psk.why_not()
    with pytest.raises(_openssl.BridgeUnavailable, match="forbids callbacks"):
        _openssl_psk.install_client(psk_plain(), lambda hint: (b"alice", b"k"))
    if sys.version_info >= (3, 13):
        assert whose(Link(psk_client(), psk_server()).shake()) == ("alice", "alice")
    else:
        with pytest.raises(NotImplementedError, match="forbids callbacks"):
            _psk.require_available()


def psk_plain() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


# ------------------------------------------------------------------------------------------------- mixing them up


def interleave(links: list[Link], order: random.Random) -> None:
    """Interleave handshakes, one step at a time, in random order."""
    quiet = dict.fromkeys(links, 0)
    while quiet:
        link = order.choice(list(quiet))
        quiet[link] = 0 if link.step() else quiet[link] + 1
        if quiet[link] == 3:
            del quiet[link]


@VERSIONS
def test_T9_three_hundred_handshakes_in_any_order_and_every_tenth_with_a_wrong_key(
    version: ssl.TLSVersion | None,
) -> None:
    keys = {f"user-{number}": bytes([number % 256, number // 256]) * 8 for number in range(300)}
    server = psk_server(version, lambda identity: keys.get(identity, b""))
    names = iter(keys)
    # The clients share the server's context and callback, so a record outside of the connection would mix them up.
    clients = {
        name: psk_client(version, name, b"wrong" if number % 10 == 0 else keys[name])
        for number, name in enumerate(names)
    }
    links = {name: Link(client, server) for name, client in clients.items()}
    interleave(list(links.values()), random.Random(7))
    for number, (name, link) in enumerate(links.items()):
        if number % 10:
            assert whose(link) == (name, name)
        else:
            assert failed(link) == {"client", "server"}


def test_T9_many_threads_share_one_context() -> None:
    server = psk_server(callback=lambda identity: identity.encode() * 3)
    wrong: list[object] = []

    def shake(thread: int) -> None:
        for number in range(20):
            name = f"{thread}-{number}"
            found = whose(Link(psk_client(None, name, name.encode() * 3), server).shake())
            if found != (name, name):
                wrong.append((name, found))

    threads = [threading.Thread(target=shake, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_exception_in_one_thread_is_not_seen_in_another() -> None:
    def answer(identity: str) -> bytes:
        raise Trouble

    thread = threading.Thread(target=lambda: Link(psk_client(), psk_server(callback=answer)).shake())
    thread.start()
    thread.join()
    assert _psk.take_callback_error() is None


@BOTH
def test_a_callback_may_make_a_handshake_of_its_own(version: ssl.TLSVersion) -> None:
    inner_server, found = psk_server(version), []

    def answer(identity: str) -> bytes:
        found.append(whose(Link(psk_client(version, "bob"), inner_server).shake()))
        return look_up(identity)

    link = Link(psk_client(version), psk_server(version, answer)).shake()
    assert whose(link) == ("alice", "alice")
    assert found == [("bob", "bob")]


def test_after_a_hello_retry_request_the_identity_is_right() -> None:
    asked: list[str] = []

    def answer(identity: str) -> bytes:
        asked.append(identity)
        return look_up(identity)

    server = psk_server(TLS1_3, answer)
    server.set_ecdh_curve("secp384r1")  # not the client's key share: the server sends HelloRetryRequest
    link = Link(psk_client(TLS1_3), server).shake()
    assert link.flights == {"client": 3, "server": 2}
    assert whose(link) == ("alice", "alice")
    assert asked == ["alice", "alice"]


@BOTH
def test_T9_a_context_may_be_dropped_in_the_middle_of_a_handshake(version: ssl.TLSVersion) -> None:
    client, server = psk_client(version), psk_server(version)
    link = Link(client, server)
    link.step()
    del client, server
    gc.collect()
    assert whose(link.shake()) == ("alice", "alice")


@BOTH
def test_contexts_are_freed_also_when_their_callbacks_refer_to_them(version: ssl.TLSVersion) -> None:
    references = []
    gc.collect()
    before = len(_openssl_psk._psk_callbacks)
    for _ in range(50):
        client, server = psk_client(version), psk_server(version)
        keys = {"alice": (KEYS["alice"], server)}
        _psk.install_server(server, lambda identity, keys=keys: keys[identity][0], "")  # type: ignore[misc]
        _psk.install_client(client, lambda hint, me=client: ("alice", KEYS["alice"]))  # type: ignore[misc]
        link = Link(client, server).shake()
        assert whose(link) == ("alice", "alice")
        references += [weakref.ref(client), weakref.ref(server)]
    del client, server, keys, link
    gc.collect()
    assert not any(reference() for reference in references)
    assert len(_openssl_psk._psk_callbacks) <= before


# ---------------------------------------------------------------------------------------------------- the traps


def test_trap_A_an_impostor_with_an_untrusted_certificate_is_refused() -> None:
    link = Link(psk_client(TLS1_3), plain_server()).shake()
    assert link.errors["client"].reason == "CERTIFICATE_VERIFY_FAILED"


@BOTH
def test_trap_A_an_impostor_with_a_certificate_has_not_used_a_key(version: ssl.TLSVersion) -> None:
    client = psk_client(version, verify=False)  # the usual recipe
    link = Link(client, plain_server(version)).shake()
    assert "client" not in link.errors if version == TLS1_3 else "client" in link.errors
    assert whose(link) == ("", "")


def test_trap_A_the_certificate_of_a_server_with_psk_proves_no_key() -> None:
    client = psk_client(TLS1_3, "mallory", b"m", verify=False)
    link = Link(client, psk_server(TLS1_3, certificate=True)).shake()
    assert link.is_good
    assert whose(link) == ("", "")


def server_that_drops_keys(way: str) -> ssl.SSLContext:
    """Make a server with a certificate that prefers a suite that no PSK fits."""
    server = psk_server(TLS1_3, certificate=True)
    if way == "bridge":
        _openssl.set_ciphersuites(server, SHA384_FIRST)
    return server


@pytest.mark.parametrize("key", [KEYS["alice"], b"wrong"], ids=["right", "wrong"])
def test_trap_B_a_key_that_openssl_ignores_proves_no_identity(way: str, key: bytes) -> None:
    asked: list[str] = []
    client, server = psk_client(TLS1_3, "alice", key, verify=False), server_that_drops_keys(way)

    def answer(identity: str) -> bytes:
        asked.append(identity)
        return look_up(identity)

    if way == "bridge":
        _openssl_psk.install_server(server, lambda identity: answer(identity.decode()), b"")
    else:
        _psk.install_server(server, answer, "")
    link = Link(client, server).shake()
    assert link.is_good
    assert asked == ["alice"]  # the key was returned, but not used
    assert whose(link) == ("", "")


@BRIDGE_ONLY
def test_trap_B_a_server_with_a_certificate_prefers_suites_that_a_key_fits() -> None:
    server = psk_server(TLS1_3, certificate=True)
    suites = _openssl.tls13_suites(server)
    assert suites == ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]
    assert whose(Link(psk_client(TLS1_3), server).shake()) == ("alice", "alice")
    client = psk_client(TLS1_3, "alice", b"wrong", verify=False)
    assert failed(Link(client, server).shake()) == {"client", "server"}


def test_trap_C_a_failed_handshake_proves_no_identity() -> None:
    link = Link(psk_client(TLS1_2, "alice", b"wrong"), psk_server(TLS1_2)).shake()
    if _openssl.available():
        library = _openssl.library()
        at = library.SSL_get_psk_identity(_openssl.ssl_pointer(link.server))
        assert _openssl_psk.read_bytes(at) == b"alice"  # OpenSSL's own record, in spite of the failure
    assert failed(link) == {"client", "server"}


@BOTH
def test_traps_E_and_F_nothing_outlives_a_key(version: ssl.TLSVersion, way: str) -> None:
    keys = dict(KEYS)
    # The callback returns the same key for every identity: also for a ticket, if the server sent one.
    server = psk_server(version, lambda identity: keys.get("alice", b""))
    client = psk_client(version)
    assert server.num_tickets == 0
    assert server.options & ssl.OP_NO_TICKET
    first = Link(client, server).shake()
    assert first.say() == b"hello"
    assert whose(first) == ("alice", "alice")
    session = first.client.session
    assert session is None or not session.has_ticket
    again = Link(client, server, session=session if version == TLS1_2 else None).shake()
    if version == TLS1_2 and way == "native":  # the cache cannot be switched off, and has no identity
        assert again.server.session_reused
        assert whose(again)[1] == ""
        return
    assert version == TLS1_3 or not again.server.session_reused
    assert whose(again) == ("alice", "alice")
    keys.clear()
    assert failed(Link(client, server, session=session if version == TLS1_2 else None).shake())


def switching(first: ssl.SSLContext, other: ssl.SSLContext) -> ssl.SSLContext:
    """Make a server that switches to another context for every name."""

    def switch(obj: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        obj.context = other

    first.sni_callback = switch  # type: ignore[assignment]
    return first


@BOTH
def test_a_server_may_switch_by_name_between_contexts_with_the_same_keys(version: ssl.TLSVersion) -> None:
    server = switching(psk_server(version), psk_server(version))
    link = Link(psk_client(version), server).shake()
    assert whose(link) == ("alice", "alice")


@BOTH
@pytest.mark.parametrize("certificate", [False, True], ids=["", "with-certificate"])
@pytest.mark.parametrize("keys", [False, True], ids=["no-keys", "other-keys"])
def test_a_key_proves_nothing_in_a_context_that_does_not_know_it(
    version: ssl.TLSVersion, keys: bool, certificate: bool
) -> None:
    if keys:
        other = psk_server(version, lambda identity: b"another key", certificate=certificate)
    else:
        other = plain_server(version, certificate)
    link = Link(psk_client(version), switching(psk_server(version), other)).shake()
    # TLS 1.3 asks for the key before the SNI callback. OpenSSL accepts it then, and the identity is withheld.
    assert link.is_good is (version == TLS1_3)
    assert _psk.identity(link.server) == ""
    assert not _psk.was_used(link.server)


@BRIDGE_ONLY
def test_a_suite_that_no_key_fits_is_refused_without_a_certificate() -> None:
    server = psk_server(TLS1_3)
    _openssl.set_ciphersuites(server, "TLS_AES_256_GCM_SHA384")
    assert failed(Link(psk_client(TLS1_3), server).shake()) == {"client", "server"}


# ------------------------------------------------------------------------------------------- without the bridge


@pytest.mark.parametrize("way", [way for way in WAYS if way == "native"], indirect=True)
class TestNative:
    def test_nothing_is_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        def answer(identity: str) -> bytes:
            raise Trouble

        Link(psk_client(), psk_server(callback=answer)).shake()
        assert isinstance(_psk.take_callback_error(), Trouble)
        assert capsys.readouterr() == ("", "")

    @BOTH
    @ROLES
    def test_a_handshake_of_an_unknown_connection_fails(self, version: ssl.TLSVersion, role: str) -> None:
        client, server = psk_client(version), psk_server(version)
        (client if role == "client" else server).sslobject_class = ssl.SSLObject
        assert failed(Link(client, server).shake()) == {"client", "server"}

    def test_a_resumed_session_proves_no_identity(self) -> None:
        client, server = psk_client(), psk_server(TLS1_2)
        first = Link(client, server).shake()
        again = Link(client, server, session=first.client.session).shake()
        assert again.client.session_reused
        # The client's callback was called, for TLS 1.3; but the session may be that of another identity.
        assert whose(again) == ("", "")
