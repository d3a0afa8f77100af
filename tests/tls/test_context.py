"""``SslContext``: its checks, the contexts that it makes, and that the first use freezes it."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import stat
import types
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.tls import certificates
from tests.tls.memory import client_context, connect, engines, info, only, server_context, shake
from wireline.errors import ClosedError
from wireline.tls import (
    CIPHERS_INTERMEDIATE,
    CIPHERS_MODERN,
    Handshake,
    ProtocolVersion,
    SessionCache,
    SslContext,
    SslError,
    VerifyMode,
    _context_factory,
    _openssl,
    raise_ssl_error,
)

CLIENT, SERVER = Handshake.AS_CLIENT, Handshake.AS_SERVER
NONE = VerifyMode.NONE

# The contexts that are made.


@in_turn("handshake", Handshake)
def test_T2_every_default_that_matters_is_set(handshake: Handshake) -> None:
    context = server_context(ca_file=certificates.ca_file()).ssl_context(handshake)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.maximum_version is ssl.TLSVersion.MAXIMUM_SUPPORTED
    assert not context.hostname_checks_common_name
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
    assert context.keylog_filename is None
    assert context.check_hostname == (handshake is CLIENT)
    assert context.verify_mode == (ssl.CERT_REQUIRED if handshake is CLIENT else ssl.CERT_NONE)


def test_options_that_an_older_python_sets_are_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.11.0 to 3.11.2 set ``OP_IGNORE_UNEXPECTED_EOF`` in every context; Debian 12 has 3.11.2."""

    def older(protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        return context

    monkeypatch.setattr(_context_factory, "ssl", types.SimpleNamespace(**{**vars(ssl), "SSLContext": older}))
    context = client_context().context
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_each_role_has_its_own_context_and_context_is_the_clients() -> None:
    context = server_context(ca_file=certificates.ca_file())
    assert context.context is context.ssl_context(CLIENT)
    assert context.context is not context.ssl_context(SERVER)
    assert context.ssl_context(SERVER) is context.ssl_context(SERVER)
    with pytest.raises(TypeError):
        context.ssl_context("server")  # type: ignore[arg-type]


def test_the_common_name_is_not_checked() -> None:
    leaf = certificates.common_name_only()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        connect(client_context(), server_context(cert_file=leaf.cert, key_file=leaf.key))


@in_turn("version", [each for each in ProtocolVersion if each is not ProtocolVersion.SSLV23])
def test_old_versions_are_refused_with_the_reason(version: ProtocolVersion) -> None:
    with pytest.raises(ValueError, match=r"RFC \d+.*SSLV23"):
        SslContext(version)


# Invalid arguments.


@in_turn(
    "error, options",
    [
        (TypeError, {"prot_version": 2}),
        (TypeError, {"verify_mode": "peer"}),
        (TypeError, {"cert_file": 1}),
        (TypeError, {"cert_file": b"cert.pem"}),
        (TypeError, {"ca_file": None}),
        (TypeError, {"cipher_list": None}),
        (TypeError, {"ciphersuites": None}),
        (TypeError, {"client_certs": True}),
        (TypeError, {"alpn": "h2"}),
        (TypeError, {"alpn": b"h2"}),
        (TypeError, {"alpn": [b"h2"]}),
        (TypeError, {"password": 1}),
        (TypeError, {"server_name_callback": "name"}),
        (TypeError, {"keylog_file": 1}),
        (TypeError, {"ragged_eof": 1}),
        (ValueError, {"ciphersuites": ""}),
        (ValueError, {"client_certs": "none"}),
        (ValueError, {"alpn": [""]}),
        (ValueError, {"alpn": ["x" * 256]}),
        (ValueError, {"alpn": ["hé"]}),
        (ValueError, {"cert_file": "a\0b"}),
        (ValueError, {"key_file": "key.pem"}),
        (SslError, {"cipher_list": "NONSENSE"}),
        (SslError, {"cipher_list": ""}),
    ],
)
def test_bad_arguments_are_refused_at_once(error: type[Exception], options: dict[str, object]) -> None:
    with pytest.raises(error) as caught:
        SslContext(**{"verify_mode": NONE, **options})  # type: ignore[arg-type]
    assert not isinstance(caught.value, RuntimeError)


@in_turn("which", ["cert_file", "key_file", "ca_file", "ca_dir", "keylog_file"])
def test_a_file_that_is_missing_is_named(which: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing" / "file")
    with pytest.raises(FileNotFoundError) as caught:
        server_context(**{which: missing, "verify_mode": NONE})
    assert caught.value.filename == missing


def test_a_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(SslError, match="does not belong to the key in") as caught:
        server_context(key_file=certificates.stranger().key)
    assert certificates.stranger().key in str(caught.value)
    assert caught.value.filename == certificates.server().cert


def test_a_file_without_a_certificate_is_refused() -> None:
    with pytest.raises(SslError):
        server_context(cert_file=__file__)


def test_the_key_may_be_in_the_file_of_the_certificate(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    leaf = certificates.server()
    both.write_text(Path(leaf.key).read_text() + Path(leaf.cert).read_text())
    connect(client_context(), SslContext(cert_file=both))


def test_an_encrypted_key_never_asks_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = certificates.encrypted()
    # OpenSSL opens the terminal by itself. Without a terminal that is another error than this one.
    with pytest.raises(SslError, match="is encrypted, and no password was given"):
        SslContext(cert_file=leaf.cert, key_file=leaf.key)
    with pytest.raises(SslError):
        SslContext(cert_file=leaf.cert, key_file=leaf.key, password="wrong")


@in_turn("password", [certificates.PASSWORD, certificates.PASSWORD.encode()])
def test_a_key_with_its_password_is_loaded(password: str | bytes) -> None:
    leaf = certificates.encrypted()
    connect(client_context(), SslContext(cert_file=leaf.cert, key_file=leaf.key, password=password))


def test_a_password_callback_is_called_once() -> None:
    leaf = certificates.encrypted()
    asked = []

    def password() -> str:
        asked.append(1)
        return certificates.PASSWORD

    context = SslContext(
        cert_file=leaf.cert, key_file=leaf.key, password=password, ca_file=certificates.ca_file()
    )
    context.ssl_context(CLIENT)
    context.ssl_context(SERVER)
    assert len(asked) == 1


def test_a_server_without_certificate_and_psk_is_refused() -> None:
    with pytest.raises(SslError, match="a server needs a certificate"):
        client_context()._engine(SERVER)


# Ciphers.


def test_the_cipher_lists_are_mozillas() -> None:
    assert CIPHERS_INTERMEDIATE.startswith(CIPHERS_MODERN + ":")
    names = {cipher["name"] for cipher in client_context().context.get_ciphers()}
    assert names == set(CIPHERS_INTERMEDIATE.split(":"))


def test_a_list_of_tls_13_ciphers_excludes_tls_12() -> None:
    context = server_context(cipher_list=CIPHERS_MODERN)
    assert context.ssl_context(SERVER).minimum_version is ssl.TLSVersion.TLSv1_3
    assert info(connect(client_context(), context).client).version == "TLSv1.3"


def test_a_cipher_can_be_chosen() -> None:
    client = client_context(cipher_list="ECDHE-ECDSA-CHACHA20-POLY1305")
    only("TLSv1.2", client)
    assert info(connect(client, server_context()).client).cipher == "ECDHE-ECDSA-CHACHA20-POLY1305"


@pytest.mark.usefixtures("bridge")
def test_a_tls_13_suite_can_be_chosen() -> None:
    context = server_context(ciphersuites="TLS_CHACHA20_POLY1305_SHA256")
    assert info(connect(client_context(), context).client).cipher == "TLS_CHACHA20_POLY1305_SHA256"
    with pytest.raises(SslError):
        server_context(ciphersuites="NONSENSE")


@pytest.mark.usefixtures("no_bridge")
@pytest.mark.skipif(hasattr(ssl.SSLContext, "set_ciphersuites"), reason="ssl can do it by itself")
def test_without_the_bridge_only_the_default_suites_are_accepted() -> None:
    with pytest.raises(NotImplementedError, match="WIRELINE_NO_BRIDGE"):
        server_context(ciphersuites="TLS_CHACHA20_POLY1305_SHA256")
    connect(client_context(), server_context())


# ALPN.


def test_the_servers_order_of_protocols_wins() -> None:
    pair = connect(client_context(alpn=["h2", "http/1.1"]), server_context(alpn=["http/1.1", "h2"]))
    assert info(pair.client).alpn == info(pair.server).alpn == "http/1.1"


def test_without_a_common_protocol_the_handshake_succeeds_unless_one_is_required() -> None:
    assert info(connect(client_context(alpn=["h2"]), server_context(alpn=["x"])).client).alpn is None
    for end in (0, 1):
        contexts = client_context(alpn=["h2"]), server_context(alpn=["x"])
        contexts[end].require_alpn = True
        error = shake(engines(*contexts))[end]
        assert error is not None
        assert "ALPN" in str(error)


# The key log.


def test_the_key_log_is_for_its_owner_alone(tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    before = os.umask(0)
    try:
        client = client_context(keylog_file=log)
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        log.unlink()
        client.ssl_context(CLIENT)
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    connect(client, server_context())
    assert "CLIENT_TRAFFIC_SECRET_0" in log.read_text()


def other_places(tmp_path: Path) -> dict[str, Path]:
    """Make files that are refused as a key log."""
    victim = tmp_path / "ours"
    victim.touch(0o600)
    link, dangling, pipe = tmp_path / "link", tmp_path / "dangling", tmp_path / "pipe"
    link.symlink_to(victim)
    dangling.symlink_to(tmp_path / "nothing")
    os.mkfifo(pipe, 0o600)
    loose = {}
    for mode in (0o644, 0o660, 0o602):
        loose[f"mode {mode:o}"] = path = tmp_path / f"loose{mode:o}"
        path.touch()
        path.chmod(mode)
    return {"link": link, "dangling": dangling, "pipe": pipe, "device": Path("/dev/null"), **loose}


@pytest.mark.skipif(os.name != "posix", reason="there are no modes here")
@in_turn("case", ["link", "dangling", "pipe", "device", "mode 644", "mode 660", "mode 602"])
def test_FB17_a_key_log_that_others_could_read_is_refused(tmp_path: Path, case: str) -> None:
    """FB17: a file of mode 0644 stayed so, and a symbolic link was followed."""
    path = other_places(tmp_path)[case]
    with pytest.raises(OSError) as caught:
        client_context(keylog_file=path)
    assert caught.value.filename == str(path)
    assert not (tmp_path / "nothing").exists()
    assert (tmp_path / "ours").read_bytes() == b""


@pytest.mark.skipif(os.name != "posix", reason="there are no modes here")
def test_FB17_a_key_log_that_was_replaced_after_the_check_is_refused(tmp_path: Path) -> None:
    """FB17: the file is looked at again when it is opened, at the first use of the context."""
    log = tmp_path / "keys.log"
    client = client_context(keylog_file=log)
    log.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        client.ssl_context(CLIENT)
    log.unlink()
    log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        client.ssl_context(CLIENT)


def test_FB17_the_password_of_a_key_is_in_no_repr() -> None:
    """FB17: secrets never reach output."""
    leaf = certificates.encrypted()
    context = SslContext(cert_file=leaf.cert, key_file=leaf.key, password=certificates.PASSWORD)
    assert certificates.PASSWORD not in repr(context) + repr(context._options)


def test_the_environment_does_not_switch_the_key_log_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    connect(client_context(), server_context())
    assert not list(tmp_path.iterdir())


# Frozen by use, and destroyed.


def setters() -> dict[str, object]:
    return {
        "session_id_context": "x",
        "psk_identity_hint": "x",
        "client_get_psk": lambda _hint: ("x", b"x"),
        "server_get_psk": lambda _identity: b"x",
        "session_cache": None,
        "require_alpn": True,
    }


@pytest.mark.usefixtures("bridge")
@in_turn("name", setters())
def test_the_first_use_freezes(name: str) -> None:
    context = client_context()
    setattr(context, name, setters()[name])
    context = client_context()
    context.ssl_context(CLIENT)
    with pytest.raises(RuntimeError, match="in use"):
        setattr(context, name, setters()[name])
    assert "frozen" in repr(context)


def test_a_failed_first_use_does_not_freeze() -> None:
    context = client_context()
    with pytest.raises(SslError):
        context.ssl_context(SERVER)
    context.require_alpn = True
    assert context.require_alpn


def test_a_name_that_does_not_exist_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        client_context().verify_mod = NONE  # type: ignore[attr-defined]


def test_extra_data_is_kept_under_numbers() -> None:
    context = client_context()
    data = object()
    context.set_extra_data(7, data)
    context.ssl_context(CLIENT)
    context.set_extra_data(8, None)
    assert context.get_extra_data(7) is data
    assert context.get_extra_data(9) is None
    for wrong in ("7", 7.0):
        with pytest.raises(TypeError):
            context.get_extra_data(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            context.set_extra_data(wrong, data)  # type: ignore[arg-type]


USES: list[Callable[[SslContext], object]] = [
    lambda context: context.context,
    lambda context: context.ssl_context(SERVER),
    lambda context: context._engine(CLIENT, "localhost"),
    lambda context: context.wrap_socket(Anything()),
    lambda context: context.get_extra_data(1),
    lambda context: context.set_extra_data(1, 1),
    lambda context: setattr(context, "session_cache", None),
    lambda context: context.__enter__(),
]


@in_turn("use", USES)
def test_use_after_destroy_is_a_closed_error(use: Callable[[SslContext], object]) -> None:
    with client_context() as context:
        context.set_extra_data(1, 1)
        assert not context.is_destroyed
        assert not repr(context).endswith("destroyed>")
    assert context.is_destroyed
    assert repr(context) == "<SslContext destroyed>"
    with pytest.raises(ClosedError):
        use(context)
    context.destroy()


def test_destroy_releases_the_extra_data() -> None:
    context, data = client_context(), Anything()
    context.set_extra_data(1, data)
    alive = weakref.ref(data)
    del data
    context.destroy()
    gc.collect()
    assert alive() is None


def test_connections_outlive_their_context() -> None:
    client, server = client_context(), server_context()
    pair = engines(client, server)
    client.destroy()
    server.destroy()
    assert shake(pair) == [None, None]


# Settings.


@pytest.mark.usefixtures("bridge")
def test_a_session_id_context_has_1_to_32_bytes() -> None:
    context = server_context()
    assert context.session_id_context == ""
    for good in ("a", "a" * 32, "é" * 16):
        context.session_id_context = good
        assert context.session_id_context == good
    for bad in ("", "a" * 33, "é" * 17, "a\0b"):
        with pytest.raises(ValueError):
            context.session_id_context = bad
    with pytest.raises(TypeError):
        context.session_id_context = b"a"  # type: ignore[assignment]


@pytest.mark.usefixtures("no_bridge")
def test_without_the_bridge_a_session_id_context_is_refused_with_the_reason() -> None:
    with pytest.raises(NotImplementedError, match="WIRELINE_NO_BRIDGE"):
        server_context().session_id_context = "a"


def test_settings_of_another_type_are_refused() -> None:
    context = server_context()
    for name, wrong in (
        ("client_get_psk", b"key"),
        ("server_get_psk", {"me": b"key"}),
        ("psk_identity_hint", b"hint"),
        ("session_cache", {}),
        ("require_alpn", 1),
    ):
        with pytest.raises(TypeError):
            setattr(context, name, wrong)
    for long in ("x" * 256, "é" * 128, "a\0b"):
        with pytest.raises(ValueError):
            context.psk_identity_hint = long
    context.session_cache = cache = SessionCache()
    assert context.session_cache is cache


# Adopted contexts.


def test_an_adopted_context_is_used_unchanged() -> None:
    theirs = ssl.create_default_context(cafile=certificates.ca_file())
    options = theirs.options
    client = SslContext.from_ssl(theirs)
    assert client.context is client.ssl_context(SERVER) is theirs
    assert theirs.options == options
    assert repr(theirs) in repr(client)
    connect(client, server_context())
    leaf = certificates.server()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(leaf.cert, leaf.key)
    connect(client_context(), SslContext.from_ssl(theirs))


def test_an_adopted_context_that_verifies_needs_a_hostname_too() -> None:
    client = SslContext.from_ssl(ssl.create_default_context())
    with pytest.raises(ValueError, match="hostname"):
        client._engine(CLIENT)
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    SslContext.from_ssl(unchecked)._engine(CLIENT)


@in_turn("name", ["session_id_context", "psk_identity_hint", "client_get_psk", "server_get_psk"])
def test_settings_of_an_adopted_context_cannot_be_set(name: str) -> None:
    context = SslContext.from_ssl(ssl.create_default_context())
    with pytest.raises(RuntimeError, match="used unchanged"):
        setattr(context, name, setters()[name])


def test_sessions_are_cached_for_ssl_contexts_and_not_for_derived_classes() -> None:
    class Own(ssl.SSLContext):
        pass

    assert SslContext.from_ssl(ssl.create_default_context()).session_cache is not None
    assert SslContext.from_ssl(Own(ssl.PROTOCOL_TLS_CLIENT)).session_cache is None


def test_only_contexts_are_adopted() -> None:
    with pytest.raises(TypeError):
        SslContext.from_ssl(client_context())  # type: ignore[arg-type]


# Host names.


def test_T1_a_client_that_verifies_needs_a_hostname() -> None:
    """``wrap_bio`` accepts this, and then checks no name."""
    with pytest.raises(ValueError, match="hostname"):
        client_context()._engine(CLIENT)
    SslContext(verify_mode=NONE)._engine(CLIENT)
    server_context()._engine(SERVER)


# Sockets.


class Anything:
    """A fake socket that records the calls of a context."""

    def __init__(self) -> None:
        self.wrapped: list[object] = []

    def _wrap(self, context: SslContext, hostname: str) -> None:
        self.wrapped = [context, hostname]

    def _upgrade(self, secure: object, timeout: float | None, operation: str, leftover: str) -> None:
        self.wrapped = [secure, timeout, operation, leftover]


class AnythingAsync(Anything):
    async def _upgrade(  # type: ignore[override]
        self, secure: object, timeout: float | None, operation: str, leftover: str
    ) -> None:
        self.wrapped = [secure, timeout, operation, leftover]


def test_wrap_socket_passes_the_context_and_the_normalised_name() -> None:
    context, sock = client_context(), Anything()
    context.wrap_socket(sock, "LocalHost.")
    assert sock.wrapped == [context, "localhost"]
    with pytest.raises(ValueError):
        context.wrap_socket(sock, "no host")


@in_turn("thing", [None, 1, object()])
def test_objects_that_are_not_our_sockets_are_refused(thing: object) -> None:
    context = client_context()
    with pytest.raises(TypeError, match=r"wireline\.net"):
        context.wrap_socket(thing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"wireline\.net"):
        context.wrap_connected_socket(thing, CLIENT, "localhost")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"wireline\.net"):
        asyncio.run(context.wrap_connected_async(thing, CLIENT, "localhost"))  # type: ignore[arg-type]


def test_a_socket_of_the_other_flavour_is_refused() -> None:
    context = client_context()
    with pytest.raises(TypeError, match="wrap_connected_async"):
        context.wrap_connected_socket(AnythingAsync(), CLIENT, "localhost")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="wrap_connected_socket"):
        asyncio.run(context.wrap_connected_async(Anything(), CLIENT, "localhost"))  # type: ignore[arg-type]


def test_an_upgrade_passes_its_arguments_to_the_socket() -> None:
    context = client_context()
    sock, other = Anything(), AnythingAsync()
    context.wrap_connected_socket(sock, CLIENT, "localhost", 5)
    asyncio.run(context.wrap_connected_async(other, CLIENT, "localhost", leftover="tls"))
    assert sock.wrapped[1:] == [5, "wrap_connected_socket", "refuse"]
    assert other.wrapped[1:] == [None, "wrap_connected_async", "tls"]
    with pytest.raises(ValueError, match="leftover"):
        context.wrap_connected_socket(sock, CLIENT, "localhost", leftover="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hostname"):
        context.wrap_connected_socket(sock, CLIENT)


# The features of this interpreter.


def test_features_are_printed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    features = SslContext.available_features()
    missing = [feature for feature in features if not feature.available]
    assert len(missing) >= 3
    assert all("WIRELINE_NO_BRIDGE" in feature.reason for feature in missing)
    assert "no, the environment variable" in str(features)
    assert len(str(features).splitlines()) == len(features)


@pytest.mark.usefixtures("bridge")
def test_with_the_bridge_every_feature_is_available() -> None:
    assert all(feature.available for feature in SslContext.available_features())
    assert "no, " not in str(SslContext.available_features())


def test_raise_ssl_error() -> None:
    with pytest.raises(SslError, match="it is broken"):
        raise_ssl_error("it is broken")
    with pytest.raises(SslError, match="OpenSSL recorded no error"):
        raise_ssl_error()


@pytest.mark.usefixtures("bridge")
def test_raise_ssl_error_takes_the_last_error_that_openssl_recorded() -> None:
    library, context = _openssl.library(), client_context().context
    library.SSL_CTX_set_ciphersuites(_openssl.ctx_pointer(context), b"NONSENSE")
    with pytest.raises(SslError, match="no cipher match"):
        raise_ssl_error()
    with pytest.raises(SslError, match="OpenSSL recorded no error"):
        raise_ssl_error()


@pytest.mark.usefixtures("no_bridge")
def test_raise_ssl_error_without_the_bridge() -> None:
    with pytest.raises(SslError, match="OpenSSL recorded no error"):
        raise_ssl_error()


def test_suites_are_set_with_the_method_of_ssl_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.15 and later have one."""
    suites: list[str] = []

    class Later(ssl.SSLContext):
        def set_ciphersuites(self, names: str) -> None:
            suites.append(names)

    monkeypatch.setattr(_context_factory, "ssl", types.SimpleNamespace(**{**vars(ssl), "SSLContext": Later}))
    client_context(ciphersuites="TLS_AES_256_GCM_SHA384").ssl_context(CLIENT)
    assert set(suites) == {"TLS_AES_256_GCM_SHA384"}


@pytest.mark.usefixtures("bridge")
def test_settings_can_be_read_and_restored() -> None:
    context = server_context()
    for name, value in setters().items():
        before = getattr(context, name)
        setattr(context, name, value)
        assert getattr(context, name) == value
        if name != "session_id_context":
            setattr(context, name, before)
            assert getattr(context, name) == before
    assert repr(context).startswith("<SslContext verify=PEER cert=")
    context.server_get_psk = lambda _identity: b"x"
    assert repr(context).endswith("psk>")


def test_ragged_eof_is_off_by_default() -> None:
    assert not client_context()._engine(CLIENT, "localhost").policy.ragged_eof
    assert client_context(ragged_eof=True)._engine(CLIENT, "localhost").policy.ragged_eof
    theirs = ssl.create_default_context()
    assert SslContext.from_ssl(theirs, ragged_eof=True)._engine(CLIENT, "localhost").policy.ragged_eof
