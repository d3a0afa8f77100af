"""The ``openssl`` program at the other end: keys instead of certificates, and sessions that are taken up again.

These tests are below ``SslContext``: plain ``ssl`` contexts, changed by ``_psk`` and ``_openssl``.
"""

from __future__ import annotations

import pathlib
import socket
import ssl
import sys
from collections.abc import Iterator

import pytest

from tests.interop.programs import PATIENCE, Program
from tests.tls import certificates
from tests.tls.bare import HAS_BRIDGE, KEYS, TLS1_2, TLS1_3, plain_server, psk_client, psk_server
from tests.tools import require_tool
from wireline.tls import _openssl, _psk

pytestmark = pytest.mark.interop

BOTH = pytest.mark.parametrize("version", [TLS1_2, TLS1_3], ids=["1.2", "1.3"])
FLAGS = {TLS1_2: ["-tls1_2"], TLS1_3: ["-tls1_3"], None: []}
WAYS = [*(["bridge"] if HAS_BRIDGE else []), *(["native"] if sys.version_info >= (3, 13) else [])]
BRIDGE_ONLY = pytest.mark.parametrize("way", ["bridge"] if HAS_BRIDGE else [], indirect=True)


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Through libssl, or with the callbacks of ``ssl``."""
    if request.param == "bridge":
        monkeypatch.delenv("WIRELINE_NO_BRIDGE", raising=False)
    else:
        monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    way: str = request.param
    return way


_open: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _sockets_are_closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


class Wire:
    """A connection in memory, brought to a socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_side: bool) -> None:
        _open.append(sock)
        sock.settimeout(PATIENCE)
        self.sock, self.incoming, self.outgoing = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.obj = context.wrap_bio(self.incoming, self.outgoing, server_side, name)

    def handshake(self) -> Wire:
        self._do(self.obj.do_handshake)
        return self

    def read(self) -> bytes:
        data = self._do(self.obj.read)
        assert isinstance(data, bytes)
        return data

    def write(self, data: bytes) -> None:
        self._do(lambda: self.obj.write(data))

    def close(self) -> None:
        with self.sock:
            try:
                self.obj.unwrap()
            except ssl.SSLError:  # the peer's answer is not waited for, or it is gone
                pass
            self.sock.sendall(self.outgoing.read())

    def _do(self, step: object) -> object:
        while True:
            try:
                return step()  # type: ignore[operator]
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                data = self.sock.recv(65536)
                self.incoming.write(data) if data else self.incoming.write_eof()
            finally:
                if self.outgoing.pending:
                    self.sock.sendall(self.outgoing.read())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


def s_client(listener: socket.socket, *arguments: str) -> Program:
    host, port = listener.getsockname()
    return Program(require_tool("openssl", "openssl"), "s_client", "-connect", f"{host}:{port}", *arguments)


def s_server(*arguments: str) -> Program:
    # For port 0 it says which one it got.
    return Program(require_tool("openssl", "openssl"), "s_server", "-accept", "127.0.0.1:0", *arguments)


def accept(listener: socket.socket, context: ssl.SSLContext) -> Wire:
    return Wire(listener.accept()[0], context, server_side=True)


def connect(program: Program, context: ssl.SSLContext) -> Wire:
    port = int(program.says(rb"ACCEPT 127\.0\.0\.1:(\d+)\n", on_stdout=True)[1])
    return Wire(socket.create_connection(("127.0.0.1", port), PATIENCE), context, server_side=False)


def converse(program: Program, wire: Wire) -> None:
    """A line in each direction."""
    program.type(b"hello\n")
    assert wire.read() == b"hello\n"
    wire.write(b"olleh\n")
    program.says(rb"olleh\n", on_stdout=True)


def as_option(key: bytes, identity: str) -> list[str]:
    return ["-psk", key.hex(), "-psk_identity", identity]


# -------------------------------------------------------------------------------------------------- it connects


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3, None], ids=["1.2", "1.3", "any"])
@pytest.mark.parametrize("identity", ["alice", "zoë ☂"])
def test_T9_s_client_proves_a_key(
    listener: socket.socket, version: ssl.TLSVersion | None, identity: str
) -> None:
    with s_client(listener, *FLAGS[version], *as_option(KEYS[identity], identity)) as program:
        wire = accept(listener, psk_server(hint="büro")).handshake()
        assert _psk.identity(wire.obj) == identity
        assert _psk.was_used(wire.obj)
        converse(program, wire)
        wire.close()


@BOTH
@pytest.mark.parametrize("arguments", [as_option(b"wrong", "alice"), as_option(b"k", "mallory")])
def test_T9_s_client_with_a_wrong_key_or_name_is_refused(
    listener: socket.socket, version: ssl.TLSVersion, arguments: list[str]
) -> None:
    with s_client(listener, *FLAGS[version], *arguments) as program:
        wire = accept(listener, psk_server(version))
        with pytest.raises(ssl.SSLError):
            wire.handshake()
        assert _psk.identity(wire.obj) == ""
        program.says(b"alert")
        wire.sock.close()


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3, None], ids=["1.2", "1.3", "any"])
def test_T9_s_server_is_proved_a_key(version: ssl.TLSVersion | None) -> None:
    hints: list[str | None] = []

    def answer(hint: str | None) -> tuple[str, bytes]:
        hints.append(hint)
        return "alice", KEYS["alice"]

    options = [
        "-nocert",
        "-psk_hint",
        "hint of s_server",
        *as_option(KEYS["alice"], "alice"),
        *FLAGS[version],
    ]
    with s_server(*options) as program:
        wire = connect(program, psk_client(callback=answer)).handshake()
        assert _psk.identity(wire.obj) == "alice"
        # Asked again for TLS 1.2, with the hint; 1.3 has none.
        assert hints == ([None, "hint of s_server"] if version == TLS1_2 else [None])
        program.says(b"CIPHER is ", on_stdout=True)
        converse(program, wire)
        wire.close()


@BOTH
def test_T9_s_server_does_not_take_a_wrong_key(version: ssl.TLSVersion) -> None:
    with s_server("-nocert", *as_option(KEYS["alice"], "alice"), *FLAGS[version]) as program:
        wire = connect(program, psk_client(version, "alice", b"wrong"))
        with pytest.raises(ssl.SSLError):
            wire.handshake()
        assert not _psk.was_used(wire.obj)
        wire.sock.close()


# ---------------------------------------------------------------------------------------------------- the traps


def test_trap_A_s_server_with_a_certificate_and_no_key_has_not_used_one() -> None:
    leaf = certificates.server()
    client = psk_client(TLS1_3)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with s_server("-cert", leaf.cert, "-key", leaf.key) as program:
        wire = connect(program, client).handshake()
        assert wire.obj.version() == "TLSv1.3"
        assert not _psk.was_used(wire.obj)
        wire.close()


@pytest.mark.parametrize("key", [b"\x00\xff", KEYS["alice"]], ids=["wrong", "right"])
def test_trap_B_s_client_whose_key_is_dropped_has_no_identity(listener: socket.socket, key: bytes) -> None:
    # The client chooses: with a suite that its key does not fit, the key is never used.
    suite = ["-ciphersuites", "TLS_AES_256_GCM_SHA384"]
    with s_client(listener, "-tls1_3", *suite, *as_option(key, "alice")) as program:
        wire = accept(listener, psk_server(certificate=True)).handshake()
        assert _psk.identity(wire.obj) == ""
        assert not _psk.was_used(wire.obj)
        program.says(b"New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384", on_stdout=True)
        wire.close()


@BRIDGE_ONLY
def test_trap_B_s_client_with_a_wrong_key_is_refused_by_a_server_with_a_certificate(
    listener: socket.socket,
) -> None:
    with s_client(listener, "-tls1_3", *as_option(b"\x00\xff", "alice")) as program:
        wire = accept(listener, psk_server(certificate=True))
        with pytest.raises(ssl.SSLError) as caught:
            wire.handshake()
        assert caught.value.reason == "BINDER_DOES_NOT_VERIFY"
        program.says(b"alert")
        wire.sock.close()


@BRIDGE_ONLY
def test_trap_B_s_client_with_the_right_key_uses_it_with_a_server_with_a_certificate(
    listener: socket.socket,
) -> None:
    with s_client(listener, "-tls1_3", *as_option(KEYS["alice"], "alice")) as program:
        wire = accept(listener, psk_server(certificate=True)).handshake()
        assert _psk.identity(wire.obj) == "alice"
        program.says(rb"Reused, TLSv1.3, Cipher is \S*SHA256", on_stdout=True)
        wire.close()


@BOTH
def test_traps_E_and_F_s_client_gets_no_session_that_outlives_its_key(
    listener: socket.socket, version: ssl.TLSVersion, tmp_path: pathlib.Path, way: str
) -> None:
    server, path = psk_server(version, lambda identity: b"one for all clients"), str(tmp_path / "session")
    options = [*FLAGS[version], *as_option(b"one for all clients", "alice")]
    got_one = take_session(listener, server, path, *options)
    assert version == TLS1_2 or not got_one
    if got_one:
        with s_client(listener, *options, "-sess_in", path):
            wire = accept(listener, server).handshake()
            assert wire.obj.session_reused is (way == "native")  # which has no way to forget
            assert _psk.identity(wire.obj) == ("" if way == "native" else "alice")
            wire.close()


def take_session(
    listener: socket.socket, server: ssl.SSLContext, path: str, *options: str, context: bytes = b""
) -> bool:
    """Let s_client keep the session of a first connection; whether it got one."""
    with s_client(listener, *options, "-sess_out", path) as program:
        wire = accept(listener, server)
        if context:
            _openssl.set_session_id_context(wire.obj, context)
        wire.handshake()
        converse(program, wire)
        wire.close()
        program.process.communicate(timeout=PATIENCE)
    return pathlib.Path(path).exists()


# --------------------------------------------------------------------------------------------- session id contexts


@BRIDGE_ONLY
@BOTH
@pytest.mark.parametrize("verify", [False, True], ids=["", "with-client-certificates"])
@pytest.mark.parametrize(("context", "resumed"), [(b"app", True), (b"another", False)])
def test_T10_s_client_resumes_its_session_for_the_same_context_only(
    listener: socket.socket,
    version: ssl.TLSVersion,
    tmp_path: pathlib.Path,
    verify: bool,
    context: bytes,
    resumed: bool,
) -> None:
    server, path, options = plain_server(version), str(tmp_path / "session"), list(FLAGS[version])
    if verify:
        server.load_verify_locations(certificates.ca_file())
        server.verify_mode = ssl.CERT_REQUIRED
        options += ["-cert", certificates.client().cert, "-key", certificates.client().key]
    assert take_session(listener, server, path, *options, context=b"app")
    with s_client(listener, *options, "-sess_in", path) as program:
        wire = accept(listener, server)
        _openssl.set_session_id_context(wire.obj, context)
        wire.handshake()
        assert wire.obj.session_reused is resumed
        program.says(b"Reused, " if resumed else b"New, ", on_stdout=True)
        wire.close()
