"""The bridge: its pointers are right, its calls work, and it is off if any assumption fails."""

from __future__ import annotations

import _ssl
import asyncio
import ctypes
import gc
import math
import os
import pathlib
import re
import shutil
import socket
import ssl
import sys
import types

import pytest

from tests.cases import in_turn
from tests.tls import certificates
from tests.tls.bare import HAS_BRIDGE, TLS1_2, TLS1_3, Link, plain_client, plain_server
from wireline.tls import _libssl, _openssl

pytestmark = pytest.mark.skipif(not HAS_BRIDGE, reason="there is no bridge in this interpreter")

SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY = 20
BOTH_VERSIONS = pytest.mark.parametrize("version", [TLS1_2, TLS1_3], ids=["1.2", "1.3"])


@pytest.fixture(autouse=True)
def _bridge_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WIRELINE_NO_BRIDGE", raising=False)


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look the library up again, and forget the result after the test."""
    monkeypatch.setattr(_openssl, "_found", None)


def queue_is_empty() -> bool:
    peek = ctypes.PyDLL(_ssl.__file__).ERR_peek_error
    peek.restype = ctypes.c_ulong
    return peek() == 0


# ----------------------------------------------------------------------------------------- finding, and refusing


def test_it_is_there() -> None:
    assert _openssl.available()
    assert _openssl.why_not() == ""


@in_turn("value, there", [("1", False), ("yes", False), ("0", True), ("", True)])
def test_the_environment_switches_it_off_at_any_time(
    monkeypatch: pytest.MonkeyPatch, value: str, there: bool
) -> None:
    context = plain_server()
    monkeypatch.setenv("WIRELINE_NO_BRIDGE", value)
    assert _openssl.available() is there
    if not there:
        assert "WIRELINE_NO_BRIDGE" in _openssl.why_not()
        obj = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
        with pytest.raises(NotImplementedError, match="WIRELINE_NO_BRIDGE"):
            _openssl.ctx_pointer(context)
        with pytest.raises(_openssl.BridgeUnavailable, match="WIRELINE_NO_BRIDGE"):
            _openssl.ssl_pointer(obj)
        with pytest.raises(NotImplementedError):
            _openssl.set_session_id_context(obj, b"app")
        with pytest.raises(NotImplementedError):
            _openssl.set_verify(obj, ssl.CERT_NONE)
        with pytest.raises(NotImplementedError):
            _openssl.verify_result(obj)
        with pytest.raises(NotImplementedError):
            _openssl.clear_session_id_context(context)
        with pytest.raises(NotImplementedError):
            _openssl.disable_session_cache(context)


@pytest.mark.usefixtures("anew")
class TestRefusals:
    def test_ssl_built_into_the_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(_ssl, "__file__")
        assert _openssl.why_not() == "_ssl is built into the interpreter"

    @in_turn("module", ["_hashlib", "math"])
    def test_an_extension_that_is_not_linked_with_libssl(
        self, monkeypatch: pytest.MonkeyPatch, module: str
    ) -> None:
        path = getattr(__import__(module), "__file__", None)
        if path is None:  # the module is built in; any path that is not a library does
            path = math.__doc__
        monkeypatch.setattr(_ssl, "__file__", path)
        assert not _openssl.available()
        assert _openssl.why_not()

    def test_no_such_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
        monkeypatch.setattr(_ssl, "__file__", str(tmp_path / "_ssl.so"))
        assert "_ssl.so" in _openssl.why_not()

    def test_a_missing_symbol(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in sorted(_libssl._FUNCTIONS):
            functions = dict(_libssl._FUNCTIONS)
            functions[f"{name}_of_tomorrow"] = functions.pop(name)
            with monkeypatch.context() as patch:
                patch.setattr(_libssl, "_FUNCTIONS", functions)
                patch.setattr(_openssl, "_found", None)
                assert f"{name}_of_tomorrow is not reachable through" in _openssl.why_not()

    @in_turn("name, value", [("OPENSSL_VERSION", "OpenSSL 9.9.9"), ("OPENSSL_VERSION_NUMBER", 0x90909)])
    def test_another_version(self, monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
        monkeypatch.setattr(ssl, name, value)
        assert "ssl was loaded with" in _openssl.why_not()

    def test_another_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_openssl.sys, "implementation", types.SimpleNamespace(name="pypy"))
        assert "CPython" in _openssl.why_not()

    def test_an_untested_version_of_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_openssl, "_KNOWN_PYTHONS", ((3, 10),))
        assert f"Python 3.{sys.version_info[1]}" in _openssl.why_not()

    def test_no_gil(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
        assert "GIL" in _openssl.why_not()

    def test_windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "win32")
        assert "Windows" in _openssl.why_not()

    def test_no_ctypes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_openssl, "HAS_CTYPES", False)
        assert "ctypes" in _openssl.why_not()

    def test_a_sub_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert _libssl.in_main_interpreter()
        monkeypatch.setattr(_openssl, "in_main_interpreter", lambda: False)
        assert "main interpreter" in _openssl.why_not()

    @pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="finds libssl by Linux's /proc")
    def test_another_copy_of_the_same_library(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
    ) -> None:
        # It differs in its addresses only. Loading libssl by name could lead to such a copy.
        maps = pathlib.Path("/proc/self/maps").read_text()
        found = re.search(r"(/\S*/libssl\.so\S*)", maps)
        assert found is not None, "ssl is linked with libssl statically here"
        shutil.copy(found[1], tmp_path / "libssl-copy.so")
        monkeypatch.setattr(_ssl, "__file__", str(tmp_path / "libssl-copy.so"))
        assert _openssl.why_not() == "an SSL_CTX belongs to another copy of OpenSSL"

    def test_another_layout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read_word = _libssl.read_word
        monkeypatch.setattr(_openssl, "read_word", lambda thing, index: read_word(thing, index + 1))
        assert "not where it should be" in _openssl.why_not()

    def test_a_layout_in_which_only_connections_differ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read_word = _libssl.read_word
        monkeypatch.setattr(
            _openssl,
            "read_word",
            lambda thing, index: read_word(thing, 0 if isinstance(thing, ssl.SSLContext) else 2),
        )
        assert not _openssl.available()

    def test_the_library_is_looked_up_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert _openssl.available()
        monkeypatch.setattr(_openssl, "_open", lambda: pytest.fail("looked for again"))
        assert _openssl.available()


@in_turn("protocol", [ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT])
def test_no_other_word_of_the_object_is_accepted_as_the_pointer(protocol: int) -> None:
    context, another, library = ssl.SSLContext(protocol), ssl.SSLContext(protocol), _openssl.library()
    context.options |= ssl.OP_NO_TICKET
    good = _libssl.read_word(context, 0)
    _openssl.check_new_context(library, context, good)
    size, head = _ssl._SSLContext.__basicsize__ // 8, object.__basicsize__ // 8
    others = [_libssl.read_word(context, index) for index in range(-head, size - head) if index != 0]
    assert len(others) >= 10
    for pointer in [*others, 0, 8, good + 1, good + 8, 2**47, _libssl.read_word(another, 0)]:
        with pytest.raises(_openssl.BridgeUnavailable):
            _openssl.check_new_context(library, context, pointer)


# ------------------------------------------------------------------------------------------------------- pointers


class Slotted(ssl.SSLContext):
    __slots__ = ("more",)


class Delegating(ssl.SSLContext):
    """A context that delegates to another one, as truststore's does."""

    def __new__(cls) -> Delegating:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self.inside = plain_client(verify=False)
        return self

    def __init__(self) -> None:
        pass

    def wrap_bio(self, *args: object, **kwargs: object) -> ssl.SSLObject:
        return self.inside.wrap_bio(*args, **kwargs)  # type: ignore[arg-type]

    @property
    def options(self) -> ssl.Options:
        return self.inside.options

    @property
    def verify_mode(self) -> ssl.VerifyMode:
        return self.inside.verify_mode


@in_turn(
    "make",
    [plain_server, plain_client, ssl.create_default_context, lambda: Slotted(ssl.PROTOCOL_TLS_SERVER)],
)
def test_the_pointer_of_a_context(make: object) -> None:
    context = make()  # type: ignore[operator]
    pointer = _openssl.ctx_pointer(context)
    context.options ^= ssl.OP_NO_TICKET
    context.minimum_version = TLS1_3
    assert _openssl.ctx_pointer(context) == pointer


def test_a_delegating_context_is_refused_and_its_connections_are_accepted() -> None:
    context = Delegating()
    with pytest.raises(_openssl.BridgeUnavailable, match="Delegating has its own wrap_bio"):
        _openssl.ctx_pointer(context)
    obj = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
    assert _openssl.ssl_pointer(obj)


def test_a_context_whose_values_differ_from_openssls_is_refused() -> None:
    class Lying(ssl.SSLContext):
        @property
        def security_level(self) -> int:
            return 7

    with pytest.raises(_openssl.BridgeUnavailable, match="not the one"):
        _openssl.ctx_pointer(Lying(ssl.PROTOCOL_TLS_SERVER))


@BOTH_VERSIONS
def test_the_pointer_of_a_connection(version: ssl.TLSVersion) -> None:
    link = Link(plain_client(version), plain_server(version))
    before = _openssl.ssl_pointer(link.client), _openssl.ssl_pointer(link.server)
    assert link.shake().is_good
    assert (_openssl.ssl_pointer(link.client), _openssl.ssl_pointer(link.server)) == before
    assert _openssl.library().SSL_version(before[0]) == version


def test_a_connection_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(_openssl.BridgeUnavailable, match="the type object of a connection is unknown"):
        _openssl.ssl_pointer(types.SimpleNamespace(_sslobj=object()))  # type: ignore[arg-type]


def test_closed_and_unconnected_sockets_have_no_pointer() -> None:
    context = plain_client(verify=False)
    with context.wrap_socket(socket.socket()) as unconnected:
        with pytest.raises(ValueError, match="no TLS connection"):
            _openssl.ssl_pointer(unconnected)
    ours, theirs = socket.socketpair()
    with theirs:
        closed = context.wrap_socket(ours, do_handshake_on_connect=False)
        assert _openssl.ssl_pointer(closed)
        closed.close()
        with pytest.raises(ValueError, match="no TLS connection"):
            _openssl.ssl_pointer(closed)


def test_the_ssl_object_of_asyncio() -> None:
    async def main() -> int:
        got: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.set_result(_openssl.ssl_pointer(writer.get_extra_info("ssl_object")))
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=plain_server()) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port, ssl=plain_client())
            await reader.read()
            writer.close()
            await writer.wait_closed()
        return await got

    assert asyncio.run(main())


# --------------------------------------------------------------------------------------------------- ciphersuites


def negotiated(client: ssl.SSLContext, server: ssl.SSLContext) -> str:
    link = Link(client, server).shake()
    assert link.is_good, link.errors
    return link.client.cipher()[0]  # type: ignore[index]


@in_turn("suite", SUITES)
@in_turn("role", ["client", "server"])
def test_each_ciphersuite_alone(suite: str, role: str) -> None:
    client, server = plain_client(TLS1_3), plain_server(TLS1_3)
    _openssl.set_ciphersuites(client if role == "client" else server, suite)
    assert negotiated(client, server) == suite


def test_the_order_of_ciphersuites_is_the_servers() -> None:
    for suites in (SUITES, SUITES[::-1]):
        server = plain_server(TLS1_3)
        _openssl.set_ciphersuites(server, " : ".join(suites))
        assert _openssl.tls13_suites(server) == list(suites)
        assert negotiated(plain_client(), server) == suites[0]


def test_no_ciphersuite_in_common() -> None:
    client, server = plain_client(TLS1_3), plain_server(TLS1_3)
    _openssl.set_ciphersuites(client, SUITES[0])
    _openssl.set_ciphersuites(server, SUITES[1])
    errors = Link(client, server).shake().errors
    assert errors["server"].reason == "NO_SHARED_CIPHER"
    assert set(errors) == {"client", "server"}


@in_turn("names", ["TLS_NO_SUCH_SUITE", f"{SUITES[0]}:NONSENSE", "ECDHE-RSA-AES128-GCM-SHA256"])
def test_an_unknown_ciphersuite_is_an_error_and_changes_nothing(names: str) -> None:
    client, server = plain_client(TLS1_3), plain_server(TLS1_3)
    before = _openssl.tls13_suites(server)
    with pytest.raises(ssl.SSLError, match=r"no cipher match|no such"):
        _openssl.set_ciphersuites(server, names)
    assert queue_is_empty()
    assert _openssl.tls13_suites(server) == before
    assert negotiated(client, server) == before[0]


def test_a_ciphersuite_that_openssl_skips_silently_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, library = plain_server(), _openssl.library()
    before, true = _openssl.tls13_suites(server), library.SSL_CTX_set_ciphersuites

    def lenient(pointer: int, names: bytes) -> int:
        return true(pointer, b":".join(name for name in names.split(b":") if name.startswith(b"TLS_")))

    monkeypatch.setattr(library, "SSL_CTX_set_ciphersuites", lenient)
    with pytest.raises(ssl.SSLError, match=r"no such .* ciphersuite: NONSENSE"):
        _openssl.set_ciphersuites(server, f"{SUITES[2]}:NONSENSE")
    assert _openssl.tls13_suites(server) == before


def test_no_error_is_left_in_the_queue_by_a_call_that_records_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, library = plain_server(), _openssl.library()
    true = library.SSL_CTX_set_ciphersuites
    monkeypatch.setattr(library, "SSL_CTX_set_ciphersuites", lambda *given: true(*given) + true(*given))
    with pytest.raises(ssl.SSLError) as caught:
        _openssl.set_ciphersuites(server, "NONSENSE")
    assert (caught.value.library, caught.value.reason) == ("SSL", "NO_CIPHER_MATCH")
    assert queue_is_empty()


@in_turn("names", ["", ":", "  ", "\0", f"{SUITES[0]}\0:NONSENSE", "TLS_Ü"])
def test_an_empty_list_of_ciphersuites_is_refused(names: str) -> None:
    server = plain_server()
    with pytest.raises(ValueError):
        _openssl.set_ciphersuites(server, names)
    assert _openssl.tls13_suites(server) == list(SUITES)


def test_python_3_15_sets_ciphersuites_without_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow(ssl.SSLContext):
        def set_ciphersuites(self, names: str) -> None:
            self.suites = names

    monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    context = Tomorrow(ssl.PROTOCOL_TLS_SERVER)
    _openssl.set_ciphersuites(context, SUITES[0])
    assert context.suites == SUITES[0]


def test_without_the_bridge_ciphersuites_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    if not hasattr(ssl.SSLContext, "set_ciphersuites"):
        with pytest.raises(NotImplementedError):
            _openssl.set_ciphersuites(plain_server(), SUITES[0])


# --------------------------------------------------------------------------------------------- session id context


def id_context(obj: ssl.SSLObject) -> bytes:
    library = ctypes.PyDLL(_ssl.__file__)
    function, length = library.SSL_SESSION_get0_id_context, ctypes.c_uint()
    function.argtypes, function.restype = (ctypes.c_size_t, ctypes.c_void_p), ctypes.c_void_p
    session = _openssl.library().SSL_get_session(_openssl.ssl_pointer(obj))
    at = function(session, ctypes.byref(length))
    return ctypes.string_at(at, length.value)


@BOTH_VERSIONS
@in_turn("size", [1, 32])
def test_the_session_id_context_is_seen_on_the_connection(version: ssl.TLSVersion, size: int) -> None:
    link = Link(plain_client(version), plain_server(version))
    _openssl.set_session_id_context(link.server, b"x" * size)
    assert link.shake().is_good
    assert id_context(link.server) == b"x" * size


@in_turn("size", [0, 33])
def test_a_session_id_context_of_a_wrong_length_is_refused(size: int) -> None:
    link = Link(plain_client(), plain_server())
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        _openssl.set_session_id_context(link.server, b"x" * size)
    with (
        pytest.raises(ssl.SSLError) if size else pytest.raises(AssertionError)
    ):  # 33 bytes: the error is OpenSSL's own
        pointer = _openssl.ssl_pointer(link.server)
        _openssl.call(_openssl.library(), "SSL_set_session_id_context", pointer, b"x" * size, size)
        raise AssertionError
    assert queue_is_empty()


@BOTH_VERSIONS
@in_turn("verify", [False, True])
@in_turn("second, resumed", [(b"app", True), (b"another", False)])
def test_T10_a_session_is_resumed_for_the_same_context_only(
    version: ssl.TLSVersion, verify: bool, second: bytes, resumed: bool
) -> None:
    client, server = plain_client(version), plain_server(version)
    if verify:
        client.load_cert_chain(certificates.client().cert, certificates.client().key)
        server.load_verify_locations(certificates.ca_file())
        server.verify_mode = ssl.CERT_REQUIRED
    first = Link(client, server)
    _openssl.set_session_id_context(first.server, b"app")
    assert first.shake().is_good
    assert first.say() == b"hello"
    again = Link(client, server, session=first.client.session)
    _openssl.set_session_id_context(again.server, second)
    assert again.shake().is_good
    assert bool(again.client.session_reused) is resumed


# --------------------------------------------------------------------------------------------- verification


@BOTH_VERSIONS
@in_turn("mode", [ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
def test_the_verify_mode_can_be_set_in_the_sni_callback(
    version: ssl.TLSVersion, mode: ssl.VerifyMode
) -> None:
    client, server, strict = plain_client(version), plain_server(version), plain_server(version)
    strict.verify_mode = ssl.CERT_REQUIRED
    strict.load_verify_locations(certificates.ca_file())

    def switch(obj: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        obj.context = strict
        _openssl.set_verify(obj, mode)

    server.sni_callback = switch  # type: ignore[assignment]
    link = Link(client, server).shake()
    assert ("server" in link.errors) is (mode == ssl.CERT_REQUIRED)
    if mode == ssl.CERT_REQUIRED:
        assert link.errors["server"].reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


@BOTH_VERSIONS
def test_the_verify_result_is_known_with_CERT_NONE(version: ssl.TLSVersion) -> None:
    client = plain_client(version, verify=False)
    link = Link(client, plain_server(version)).shake()
    assert link.is_good
    assert _openssl.verify_result(link.client) == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    client.load_verify_locations(certificates.ca_file())
    assert _openssl.verify_result(Link(client, plain_server(version)).shake().client) == 0


@BOTH_VERSIONS
def test_a_server_without_a_cache_resumes_nothing(version: ssl.TLSVersion) -> None:
    client, server = plain_client(version), plain_server(version)
    server.options |= ssl.OP_NO_TICKET  # TLS 1.2 then uses session ids, which need the server's cache
    server.num_tickets = 0
    _openssl.disable_session_cache(server)
    first = Link(client, server).shake()
    first.say()
    again = Link(client, server, session=first.client.session).shake()
    assert again.is_good
    assert not again.client.session_reused


# --------------------------------------------------------------------------------------------- copies of sessions


def test_before_a_handshake_there_is_no_session() -> None:
    assert _openssl.get_session(Link(plain_client(), plain_server()).client) is None


@BOTH_VERSIONS
def test_a_copy_of_a_session_can_be_resumed_after_its_connection_is_gone(version: ssl.TLSVersion) -> None:
    client, server = plain_client(version), plain_server(version)
    first = Link(client, server).shake()
    early = _openssl.get_session(first.client)
    assert early is not None
    assert early.has_ticket is (version == TLS1_2)
    assert first.say() == b"hello"
    session = _openssl.get_session(first.client)
    assert session is not None
    assert session.has_ticket
    del first  # without `close_notify`: OpenSSL marks the connection's own session as not resumable
    gc.collect()
    for _ in range(1 if version == TLS1_3 else 3):
        again = Link(client, server)
        _openssl.set_session(again.client, session)
        assert again.shake().is_good
        assert again.client.session_reused


def test_each_copy_of_a_session_is_freed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    link, library = Link(plain_client(), plain_server()).shake(), _openssl.library()
    copied: list[int] = []
    freed: list[int] = []
    copy, free = library.SSL_SESSION_dup, library.SSL_SESSION_free
    monkeypatch.setattr(library, "SSL_SESSION_dup", lambda at: copied.append(copy(at)) or copied[-1])
    monkeypatch.setattr(library, "SSL_SESSION_free", lambda at: freed.append(at) or free(at))
    session = _openssl.get_session(link.client)
    assert session is not None
    _openssl.set_session(Link(plain_client(), plain_server()).client, session)
    assert (len(copied), len(freed)) == (2, 1)
    del session
    gc.collect()
    assert sorted(freed) == sorted(copied)


def test_without_memory_for_a_copy_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(plain_client(), plain_server()).shake()
    monkeypatch.setattr(_openssl.library(), "SSL_SESSION_dup", lambda at: 0)
    with pytest.raises(MemoryError):
        _openssl.get_session(link.client)
