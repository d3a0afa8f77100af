"""One TLS configuration for both roles.

An ``SslContext`` is what was asked for. It makes the ``ssl.SSLContext`` of a role when that role is first used, and
is frozen from then on: OpenSSL does not say what happens to the connections of a context that is changed (gh-134698),
and two roles that are made at different times are to agree.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Self

from wireline._core.locked_tls import LockedTlsCore
from wireline._core.tls import TlsCore
from wireline._core.tls_engine import TlsEngine
from wireline._os.process import ProcessLock
from wireline.address import IpAddress

from . import _build, _features
from ._connection import Connection, Settings
from ._names import normalise
from ._options import (
    CIPHERS_INTERMEDIATE,
    CIPHERS_MODERN,
    Configuration,
    FilePath,
    Handshake,
    Password,
    ProtocolVersion,
    ServerNameCallback,
    VerifyMode,
    alpn_protocols,
    certificate_paths,
    check_version,
    client_certs_mode,
    key_password,
    path,
    require,
    require_callable,
)
from ._session import SessionCache
from ._settings import ContextSettings
from ._wrapping import AsyncUpgradable, Upgradable, Wrappable, require_method

__all__ = ["SslContext"]

_LEFTOVER = ("refuse", "tls")

Leftover = Literal["refuse", "tls"]
"""What becomes of bytes that were received in clear before an upgrade."""


class SslContext(ContextSettings):
    """One TLS configuration, for clients and servers, of both flavours.

    It may be used by any number of sockets, threads and loops. The first use freezes it: to change it then is a
    ``RuntimeError``. A ``with`` block destroys it at the end; connections that were made with it live on.
    """

    __slots__ = ("__weakref__", "_adopted", "_config", "_lock", "_ragged_eof", "_roles")

    def __init__(
        self,
        prot_version: ProtocolVersion = ProtocolVersion.SSLV23,
        verify_mode: VerifyMode = VerifyMode.PEER,
        cert_file: FilePath = "",
        key_file: FilePath = "",
        cipher_list: str = CIPHERS_INTERMEDIATE,
        ca_dir: FilePath = "",
        ca_file: FilePath = "",
        ciphersuites: str = CIPHERS_MODERN,
        *,
        client_certs: str = "ignore",
        alpn: Sequence[str] = (),
        password: Password | None = None,
        server_name_callback: ServerNameCallback | None = None,
        keylog_file: FilePath | None = None,
        ragged_eof: bool = False,
    ) -> None:
        """Check what can be checked before the first connection.

        Args:
            prot_version: ``SSLV23``; the others are of the past.
            verify_mode: what a client asks of a server's certificate, and where CAs come from.
            cert_file: PEM file with our certificate and those that lead to its root. A server needs one, or
                ``server_get_psk``.
            key_file: PEM file with its key, if that is not in ``cert_file``.
            cipher_list: the ciphers of TLS 1.2, as OpenSSL writes lists. TLS 1.3 names alone: nothing older is spoken.
            ca_dir: directory of CAs to trust, every certificate in it.
            ca_file: PEM file of CAs to trust. With neither it is the system's CAs, with either only those.
            ciphersuites: the suites of TLS 1.3.
            client_certs: what a server asks of its clients: ``"ignore"``, ``"optional"`` (verified if given),
                ``"required"``.
            alpn: protocols to negotiate, the preferred one first. The server's order wins; without one in common the
                handshake goes on and ``tls_info.alpn`` is None, or see ``require_alpn``.
            password: of the key. A callable is asked once. Nobody is ever asked on the terminal.
            server_name_callback: is called in a server with the name that a client asks for (None: it did not say),
                and returns the context to go on with, or None to stay. An exception fails that handshake alone.
                Sessions of TLS 1.3 are not resumed then.
            keylog_file: file that the keys of all connections are appended to, for Wireshark. Made readable for its
                owner alone; one that is there has to be so, a regular file of ours and no symbolic link.
            ragged_eof: take the end of the TCP stream for an end, as peers of HTTP/1.0 days need it.

        Raises:
            OSError: a file is missing, or no CA is found. A context with a certificate and no ``ca_*`` looks for CAs
                when it is first used as a client.
            ssl.SSLError: key and certificate do not belong together, the key is encrypted, no cipher is known.
            ValueError: a value that is none.
            NotImplementedError: ``ciphersuites`` cannot be set in this interpreter; the message says why.
        """
        check_version(prot_version)
        require("verify_mode", verify_mode, VerifyMode)
        require("cipher_list", cipher_list, str)
        require("ciphersuites", ciphersuites, str)
        if not ciphersuites:
            raise ValueError("ciphersuites is empty, which would leave nothing of TLS 1.3")
        require_callable("server_name_callback", server_name_callback)
        cert, key = certificate_paths(cert_file, key_file)
        self._set_up(
            Configuration(
                verify_mode=verify_mode,
                cert_file=cert,
                key_file=key,
                cipher_list=cipher_list,
                ca_dir=path("ca_dir", ca_dir),
                ca_file=path("ca_file", ca_file),
                ciphersuites=ciphersuites,
                client_certs=client_certs_mode(client_certs),
                alpn=alpn_protocols(alpn),
                password=key_password(password),
                server_name_callback=server_name_callback,
                keylog_file=None if keylog_file is None else path("keylog_file", keylog_file),
            ),
            None,
            ragged_eof,
        )
        assert self._config is not None
        _build.check(self._config)

    @classmethod
    def from_ssl(cls, context: ssl.SSLContext, *, ragged_eof: bool = False) -> Self:
        """Adopt an ``ssl.SSLContext``, as it is and for whichever role it can take.

        It stays the caller's: nothing in it is changed. A class derived from ``ssl.SSLContext`` may verify in ways of
        its own, so no sessions are kept for one.

        Args:
            context: the caller's own, or truststore's.
            ragged_eof: as in the constructor.

        Raises:
            TypeError: ``context`` is no ``ssl.SSLContext``.
        """
        require("context", context, ssl.SSLContext)
        self = cls.__new__(cls)
        self._set_up(None, context, ragged_eof)
        return self

    def _set_up(self, config: Configuration | None, adopted: ssl.SSLContext | None, ragged_eof: bool) -> None:
        require("ragged_eof", ragged_eof, bool)
        # A class of somebody's may verify in ways of its own, and would not when a session is resumed.
        plain = adopted is None or type(adopted) is ssl.SSLContext
        super().__init__(adopted=adopted is not None, sessions=SessionCache() if plain else None)
        self._config = config
        self._adopted = adopted
        self._ragged_eof = ragged_eof
        self._lock = ProcessLock()
        self._roles: dict[Handshake, Settings] = {}

    @staticmethod
    def available_features() -> _features.Features:
        """Say for each feature that not every Python has whether this one has it, and why not. Made to be printed."""
        return _features.find_features()

    # -------------------------------------------------------------------------------------------- what is beneath

    @property
    def context(self) -> ssl.SSLContext:
        """The ``ssl.SSLContext`` underneath: the adopted one, or the client's. Asking for it freezes this one.

        Raises:
            OSError: a file is missing, or there is no CA.
            ClosedError: the context was destroyed.
        """
        return self.ssl_context(Handshake.AS_CLIENT)

    def ssl_context(self, handshake: Handshake) -> ssl.SSLContext:
        """Return the ``ssl.SSLContext`` of a role, made now if it is the first use.

        Raises:
            OSError: a file is missing, or there is no CA.
            ssl.SSLError: a server without a certificate and without a pre-shared key.
            ClosedError: the context was destroyed.
        """
        return self._settings(handshake).context

    def _settings(self, handshake: Handshake) -> Settings:
        require("handshake", handshake, Handshake)
        with self._lock.here:
            self._require_alive()
            settings = self._roles.get(handshake)
            if settings is None:
                settings = self._roles[handshake] = self._make(handshake)
                self._frozen = True
            return settings

    def _make(self, handshake: Handshake) -> Settings:
        server = handshake is Handshake.AS_SERVER
        get_psk = self._server_get_psk if server else self._client_get_psk
        return Settings(
            context=self._ssl_context(server),
            server=server,
            ragged_eof=self._ragged_eof,
            require_alpn=self._require_alpn,
            alpn=self._config.alpn if self._config else (),
            psk=get_psk is not None,
            session_id_context=self._session_id_context.encode(),
            # A resumed session would let in a server that has forgotten the key since.
            sessions=None if server or get_psk is not None else self._session_cache,
            choose=_chooser(self._config.server_name_callback) if self._config else None,
        )

    def _ssl_context(self, server: bool) -> ssl.SSLContext:
        if self._config is None:
            assert self._adopted is not None
            return self._adopted
        if server:
            return _build.server_context(self._config, self._server_get_psk, self._psk_identity_hint)
        return _build.client_context(self._config, self._client_get_psk)

    # --------------------------------------------------------------------------------------------------- sockets

    def wrap_socket(self, sock: Wrappable, hostname: str | IpAddress = "") -> None:
        """Make a socket speak TLS that is not connected yet: the handshake happens in ``connect`` or ``accept``.

        Args:
            sock: a socket of either flavour.
            hostname: what the server's certificate is checked for, instead of what ``connect`` is given.

        Raises:
            TypeError: ``sock`` is no socket of this library.
            ValueError: ``hostname`` is none.
            ClosedError: the context was destroyed, or the socket closed.
        """
        self._require_alive()
        require_method(sock, "_wrap", awaited=False)
        sock._wrap(self, normalise(hostname))

    def wrap_connected_socket(
        self,
        sock: Upgradable,
        handshake: Handshake,
        hostname: str | IpAddress = "",
        timeout: float | None = None,
        *,
        leftover: Leftover = "refuse",
    ) -> None:
        """Shake hands on a connected socket, now (STARTTLS).

        Args:
            sock: a ``wireline.net.Socket``.
            handshake: which side we are.
            hostname: what the server's certificate is checked for. A client that verifies needs it.
            timeout: seconds for the whole handshake. A timeout leaves a socket that is good for nothing but ``close``.
            leftover: what becomes of bytes that were received before: ``"refuse"`` is an error, for they were not
                protected; ``"tls"`` takes them for the beginning of the handshake.

        Raises:
            TypeError: ``sock`` is of the other flavour or no socket of this library.
            ValueError: a client that verifies and has no hostname, or ``leftover`` is something else.
            ssl.SSLError: the handshake failed, or bytes were left over.
            SocketTimeout: the timeout passed.
            ClosedError: the context was destroyed, or the socket closed.
        """
        require_method(sock, "_upgrade", awaited=False)
        engine = self._upgrade_engine(handshake, hostname, leftover)
        sock._upgrade(_core(engine, buffered=sock._buffered, shared=True), timeout, leftover)

    async def wrap_connected_async(
        self,
        sock: AsyncUpgradable,
        handshake: Handshake,
        hostname: str | IpAddress = "",
        timeout: float | None = None,
        *,
        leftover: Leftover = "refuse",
    ) -> None:
        """Shake hands on a connected ``wireline.asyncnet.AsyncSocket``, now (STARTTLS).

        Args:
            sock: a ``wireline.asyncnet.AsyncSocket``.
            handshake: which side we are.
            hostname: what the server's certificate is checked for. A client that verifies needs it.
            timeout: seconds for the whole handshake. A timeout or a cancellation leaves a socket that is good for
                nothing but ``close``.
            leftover: what becomes of bytes that were received before: ``"refuse"`` is an error, for they were not
                protected; ``"tls"`` takes them for the beginning of the handshake.

        Raises:
            TypeError: ``sock`` is of the other flavour or no socket of this library.
            ValueError: a client that verifies and has no hostname, or ``leftover`` is something else.
            ssl.SSLError: the handshake failed, or bytes were left over.
            SocketTimeout: the timeout passed.
            ClosedError: the context was destroyed, or the socket closed.
        """
        require_method(sock, "_upgrade", awaited=True)
        engine = self._upgrade_engine(handshake, hostname, leftover)
        await sock._upgrade(TlsCore(engine, buffered=sock._buffered), timeout, leftover)

    def _upgrade_engine(self, handshake: Handshake, hostname: str | IpAddress, leftover: str) -> TlsEngine:
        if leftover not in _LEFTOVER:
            raise ValueError(f"leftover is one of {', '.join(_LEFTOVER)}, got {leftover!r}")
        return self._engine(handshake, hostname)

    def _engine(self, handshake: Handshake, hostname: str | IpAddress = "", port: int = 0) -> TlsEngine:
        """Make the engine of one connection.

        Args:
            handshake: which side we are.
            hostname: of a client, what the certificate is checked for and SNI asks for.
            port: of a client, the server's: with the name it is what sessions are kept under; 0: none is kept.

        Raises:
            ValueError: a client that verifies and has no hostname, or it is none.
            OSError: a file is missing, or there is no CA.
            ssl.SSLError: a server without a certificate and without a pre-shared key.
            ClosedError: the context was destroyed.
        """
        settings = self._settings(handshake)
        name = "" if settings.server else normalise(hostname)
        if not settings.server and not name and settings.context.check_hostname:
            # `ssl` would connect, and check the certificate for no name at all.
            raise ValueError(
                "a client that verifies needs the hostname that the certificate is to be checked for"
            )
        offered = None
        if settings.sessions is not None and name and port:
            offered = settings.sessions.take(settings.context, name, port, settings.alpn)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        obj = settings.context.wrap_bio(
            incoming,
            outgoing,
            server_side=settings.server,
            server_hostname=name or None,
            session=offered.session if offered else None,
        )
        return TlsEngine(obj, incoming, outgoing, Connection(settings, name, port, offered))

    def _client_core(
        self, hostname: str, port: int, *, buffered: bool = True, shared: bool = False
    ) -> TlsCore:
        """What a socket needs that is to be connected; ``shared``: by a reader and a writer that are threads."""
        return _core(self._engine(Handshake.AS_CLIENT, hostname, port), buffered=buffered, shared=shared)

    def _server_core(self, *, buffered: bool = True, shared: bool = False) -> TlsCore:
        """What a socket needs that was accepted."""
        return _core(self._engine(Handshake.AS_SERVER), buffered=buffered, shared=shared)

    # ------------------------------------------------------------------------------------------------------- end

    def destroy(self) -> None:
        """Let go of everything. Later use is a ``ClosedError``; connections live on; twice is fine."""
        with self._lock.here:
            self._destroyed = True
            self._roles.clear()
            self._extra.clear()
            self._adopted = self._config = None
            self._client_get_psk = self._server_get_psk = None
            if self._session_cache is not None:
                self._session_cache.clear()

    @property
    def is_destroyed(self) -> bool:
        """Whether ``destroy`` was called."""
        return self._destroyed

    def __enter__(self) -> Self:
        self._require_alive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    def __repr__(self) -> str:
        if self._destroyed:
            return "<SslContext destroyed>"
        if self._config is None:
            return f"<SslContext of {self._adopted!r}>"
        parts = [f"verify={self._config.verify_mode.name}"]
        if self._config.cert_file:
            parts.append(f"cert={self._config.cert_file!r}")
        if self._client_get_psk or self._server_get_psk:
            parts.append("psk")
        return f"<SslContext {' '.join(parts)}{' frozen' if self._frozen else ''}>"


def _core(engine: TlsEngine, *, buffered: bool, shared: bool) -> TlsCore:
    if not shared:
        return TlsCore(engine, buffered=buffered)
    # A lock that its holder may take again: OpenSSL calls back in the midst of a handshake, and a callback may ask
    # the socket something.
    return LockedTlsCore(engine, threading.RLock(), buffered=buffered)


def _chooser(callback: ServerNameCallback | None) -> Callable[[str | None], Settings | None] | None:
    """The user's callback, with what it returned turned into what a connection needs."""
    if callback is None:
        return None

    def choose(name: str | None) -> Settings | None:
        chosen = callback(name)
        if chosen is None:
            return None
        require("what server_name_callback returned", chosen, SslContext)
        return chosen._settings(Handshake.AS_SERVER)

    return choose
