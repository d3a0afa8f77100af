"""``SslContext``: one TLS configuration for both roles.

The ``ssl.SSLContext`` of a role is made when the role is first used. From then on the context is frozen: changing an
``SSL_CTX`` that has connections is undefined (gh-134698), and two roles that are made at different times must agree.
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
from wireline._validation import Leftover, check_leftover
from wireline.address import IpAddress
from wireline.options import Handshake
from wireline.timing import Timeout

from . import _context_factory, _features
from ._material import Material
from ._mutable_settings import MutableSettings
from ._names import normalise
from ._pins import Pins
from ._policy import TlsPolicy
from ._role_context import RoleContext
from ._sessions import SessionCache, offer_session
from ._tls_options import (
    CIPHERS_INTERMEDIATE,
    CIPHERS_MODERN,
    FilePath,
    Password,
    ProtocolVersion,
    ServerNameCallback,
    TlsOptions,
    VerifyMode,
    alpn_protocols,
    check_combinations,
    check_version,
    client_certs_mode,
    flag,
    group_list,
    key_password,
    keylog_path,
    path,
    pem_or_der,
    require,
    require_callable,
    secret_for_tickets,
    tls_version,
)
from ._wrapping import AsyncUpgradable, Upgradable, Wrappable, require_method

__all__ = ["SslContext"]


class SslContext(MutableSettings):
    """One TLS configuration, for clients and servers, blocking and async.

    Any number of sockets, threads and event loops may use it. Its first use freezes it: a change is a ``RuntimeError``
    from then on. A ``with`` block destroys it at the end; its connections continue.
    """

    __slots__ = ("__weakref__", "_adopted", "_lock", "_material", "_options", "_ragged_eof", "_roles")

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
        keylog_file: FilePath | Literal[True] | None = None,
        ragged_eof: bool = False,
        cert_data: bytes | None = None,
        key_data: bytes | None = None,
        ca_data: bytes | None = None,
        min_version: ssl.TLSVersion | None = None,
        max_version: ssl.TLSVersion | None = None,
        partial_chain: bool = True,
        groups: Sequence[str] | None = None,
        pinned: Sequence[str] = (),
        psk_decoy: bool = False,
        ticket_keys: bytes | None = None,
    ) -> None:
        """Check the arguments and read the files, so that errors appear before the first connection.

        Args:
            prot_version: ``SSLV23``; the other values are refused.
            verify_mode: how a client verifies servers, and the source of its CAs.
            cert_file: file with our certificate and its intermediates, PEM, or one certificate as DER; or PKCS#12, with
                the key too. A server needs it, or ``cert_data`` or ``server_get_psk``. Each file is read once, here; it
                may be a pipe.
            key_file: PEM or DER file with the private key, if it is not in ``cert_file``.
            cipher_list: ciphers of TLS 1.2, as an OpenSSL cipher list. With TLS 1.3 names only, TLS 1.2 is excluded.
            ca_dir: directory of CAs to trust; every certificate in it counts.
            ca_file: file of CAs to trust, PEM or one as DER. With ``ca_file``, ``ca_dir`` or ``ca_data`` only those are
                trusted, otherwise the CAs of the system.
            ciphersuites: suites of TLS 1.3.
            client_certs: whether a server asks for client certificates: ``"ignore"``, ``"optional"`` (verified if
                sent), ``"required"``.
            alpn: protocols to negotiate, in order of preference. The server's order decides. Without a common protocol
                the handshake succeeds and ``tls_info.alpn`` is None; see ``require_alpn``.
            password: password of the private key, or of PKCS#12. A callable is called at most once, and once more for
                each ``reload``. There is never a prompt on the terminal.
            server_name_callback: called in a server with the name of the client's SNI (None without SNI); returns the
                context to continue with, or None to stay. An exception fails that handshake only. With a callback the
                server resumes no TLS 1.3 sessions.
            keylog_file: file to which the keys of all connections are appended, for Wireshark. It is created with mode
                0600. An existing file must be a regular file, owned by this user, without access for others; a symbolic
                link is refused. True takes the path from the environment variable ``SSLKEYLOGFILE``, if it is set.
            ragged_eof: accept the end of the TCP stream without ``close_notify`` as a clean end, for peers as old as
                HTTP/1.0.
            cert_data: our certificate and its intermediates as bytes, PEM, DER or PKCS#12, in place of ``cert_file``.
            key_data: the private key as bytes, in place of ``key_file``.
            ca_data: the CAs to trust as bytes, in place of ``ca_file``.
            min_version: the lowest version to negotiate, ``TLSv1_2`` (the default) or ``TLSv1_3``.
            max_version: the highest one; by default the highest that OpenSSL has.
            partial_chain: trust the chain of a peer as soon as it reaches a certificate of ``ca_file``, ``ca_dir`` or
                ``ca_data``, even if that is no root (``VERIFY_X509_PARTIAL_CHAIN``).
            groups: groups of the key exchange, in order of preference, by OpenSSL's names (``"X25519"``, and
                ``"X25519MLKEM768"`` from OpenSSL 3.5 on); by default OpenSSL's own.
            pinned: pins of which the verified chain of a peer must have one: ``"sha256/BASE64"`` of a public key, or
                the SHA-256 of a certificate in hexadecimal. With ``VerifyMode.NONE`` the certificate of the server
                itself must be pinned.
            psk_decoy: a server gives identities that ``server_get_psk`` does not know a random key, so that a client
                cannot tell an unknown identity from a wrong key.
            ticket_keys: 80 bytes, random and secret, that servers share so that one can resume the sessions of
                another. Tickets stay valid only where the CAs and ``client_certs`` are the same.

        Raises:
            OSError: a file is missing, or there is no CA. With a certificate of this side and without ``ca_file``,
                ``ca_dir`` and ``ca_data``, missing CAs of the system are only reported on the first use as a client.
            ssl.SSLError: certificate and key do not match, one is damaged, the password is missing or wrong, or the
                ciphers are unknown; the message names the file, and ``filename`` is set.
            ValueError: an argument has an invalid value.
            NotImplementedError: this interpreter cannot set ``ciphersuites``, ``groups`` or ``ticket_keys``; the
                message says why.
        """
        check_version(prot_version)
        require("verify_mode", verify_mode, VerifyMode)
        require("cipher_list", cipher_list, str)
        require("ciphersuites", ciphersuites, str)
        if not ciphersuites:
            raise ValueError("ciphersuites is empty, which would disable TLS 1.3")
        require_callable("server_name_callback", server_name_callback)
        options = TlsOptions(
            verify_mode=verify_mode,
            cert_file=path("cert_file", cert_file),
            key_file=path("key_file", key_file),
            cipher_list=cipher_list,
            ca_dir=path("ca_dir", ca_dir),
            ca_file=path("ca_file", ca_file),
            ciphersuites=ciphersuites,
            client_certs=client_certs_mode(client_certs),
            alpn=alpn_protocols(alpn),
            password=key_password(password),
            server_name_callback=server_name_callback,
            keylog_file=keylog_path(keylog_file),
            cert_data=pem_or_der("cert_data", cert_data),
            key_data=pem_or_der("key_data", key_data),
            ca_data=pem_or_der("ca_data", ca_data),
            min_version=tls_version("min_version", min_version),
            max_version=tls_version("max_version", max_version),
            partial_chain=flag("partial_chain", partial_chain),
            groups=group_list(groups),
            pins=Pins(pinned),
            psk_decoy=flag("psk_decoy", psk_decoy),
            ticket_keys=secret_for_tickets(ticket_keys),
        )
        check_combinations(options)
        require("ragged_eof", ragged_eof, bool)
        material = Material.read(options)
        _context_factory.check_options(options, material)
        self._set_up(options, material, None, ragged_eof)

    @classmethod
    def from_ssl(cls, context: ssl.SSLContext, *, ragged_eof: bool = False) -> Self:
        """Adopt an ``ssl.SSLContext``, for the role that it was made for.

        The context is not changed. If its class is derived from ``ssl.SSLContext``, no sessions are resumed: the class
        may verify in its own way, which a resumption would skip.

        Args:
            context: any context, for example truststore's.
            ragged_eof: as in the constructor.

        Raises:
            TypeError: ``context`` is not an ``ssl.SSLContext``.
        """
        require("context", context, ssl.SSLContext)
        self = cls.__new__(cls)
        self._set_up(None, None, context, ragged_eof)
        return self

    def _set_up(
        self,
        options: TlsOptions | None,
        material: Material | None,
        adopted: ssl.SSLContext | None,
        ragged_eof: bool,
    ) -> None:
        require("ragged_eof", ragged_eof, bool)
        # A derived class may verify in its own way, which a resumption would skip.
        can_resume = adopted is None or type(adopted) is ssl.SSLContext
        super().__init__(adopted=adopted is not None, sessions=SessionCache() if can_resume else None)
        self._options = options
        self._material = material
        self._adopted = adopted
        self._ragged_eof = ragged_eof
        self._lock = ProcessLock()
        self._roles: dict[Handshake, RoleContext] = {}

    def reload(self) -> None:
        """Read the files again, for new handshakes. Open connections keep the certificates that they have.

        Any thread may call it, and unlike a change of a setting it is allowed after the first use. Bytes that were
        given as arguments (``cert_data`` and so on) stay the same. The sessions of clients are forgotten; the tickets
        of servers stay valid if the CAs and the demand for client certificates are the same (without the bridge to
        OpenSSL they are all void). A callable ``password`` is called again.

        Raises:
            OSError, ssl.SSLError: a file is missing or wrong, as in the constructor. Nothing has changed.
            RuntimeError: the context was made by ``from_ssl``: it has no files of its own.
            ClosedError: the context was destroyed.
        """
        self._require_alive()
        self._require_own()
        options, before = self._options, self._material
        assert options is not None
        # Outside the lock: a handshake does not wait for a disk.
        material = Material.read(options, before.ticket_secret if before is not None else None)
        _context_factory.check_options(options, material)
        with self._lock.here:
            self._require_alive()
            self._material = material
            self._roles.clear()
            if self._session_cache is not None:
                self._session_cache.clear()

    @staticmethod
    def available_features() -> _features.Features:
        """Return the features that depend on the interpreter: whether each is available, and why not. ``print`` it."""
        return _features.find_features()

    # --------------------------------------------------------------------------------------- the ssl.SSLContexts

    @property
    def context(self) -> ssl.SSLContext:
        """The underlying ``ssl.SSLContext``: the adopted one, or the client's. Reading it freezes this context.

        Raises:
            OSError: a file is missing, or there is no CA.
            ClosedError: the context was destroyed.
        """
        return self.ssl_context(Handshake.AS_CLIENT)

    def ssl_context(self, handshake: Handshake) -> ssl.SSLContext:
        """Return the ``ssl.SSLContext`` of a role; the first call makes it and freezes this context.

        Raises:
            OSError: a file is missing, or there is no CA.
            ssl.SSLError: a server has neither a certificate nor a pre-shared key.
            ClosedError: the context was destroyed.
        """
        return self._role_context(handshake).context

    def _role_context(self, handshake: Handshake) -> RoleContext:
        require("handshake", handshake, Handshake)
        with self._lock.here:
            self._require_alive()
            role = self._roles.get(handshake)
            if role is None:
                role = self._roles[handshake] = self._make_role(handshake)
                self._frozen = True
            return role

    def _make_role(self, handshake: Handshake) -> RoleContext:
        server = handshake is Handshake.AS_SERVER
        get_psk = self._server_get_psk if server else self._client_get_psk
        return RoleContext(
            context=self._ssl_context(server),
            server=server,
            ragged_eof=self._ragged_eof,
            require_alpn=self._require_alpn,
            alpn=self._options.alpn if self._options else (),
            pins=self._options.pins if self._options else None,
            psk=get_psk is not None,
            session_id_context=self._session_id_context.encode(),
            # With PSK no sessions: resumption would accept a server whose key was revoked.
            sessions=None if server or get_psk is not None else self._session_cache,
            select_context=_context_selector(self._options.server_name_callback) if self._options else None,
        )

    def _ssl_context(self, server: bool) -> ssl.SSLContext:
        if self._options is None:
            assert self._adopted is not None
            return self._adopted
        assert self._material is not None
        if server:
            return _context_factory.make_server_context(
                self._options, self._material, self._server_get_psk, self._psk_identity_hint
            )
        return _context_factory.make_client_context(self._options, self._material, self._client_get_psk)

    # --------------------------------------------------------------------------------------------------- sockets

    def wrap_socket(self, sock: Wrappable, hostname: str | IpAddress = "") -> None:
        """Prepare an unconnected socket for TLS: ``connect`` or ``accept`` will do the handshake.

        Args:
            sock: a blocking or async socket.
            hostname: name that the server's certificate must have; by default the host that ``connect`` gets.

        Raises:
            TypeError: ``sock`` is not a socket of this library.
            ValueError: ``hostname`` is not a host name.
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
        timeout: Timeout = None,
        *,
        leftover: Leftover = "refuse",
    ) -> None:
        """Start TLS on a connected socket (STARTTLS): do the handshake now.

        Args:
            sock: a ``wireline.net.Socket``.
            handshake: our role.
            hostname: name that the server's certificate must have. A client that verifies needs it.
            timeout: seconds for the whole handshake. After a timeout the socket can only be closed.
            leftover: what is done with bytes received before the call and not read: ``"refuse"`` raises an error,
                because an attacker may have inserted them; ``"tls"`` takes them as the beginning of the handshake.

        Raises:
            TypeError: ``sock`` is not a socket of this library and of this flavour.
            ValueError: a client verifies and has no hostname, or ``leftover`` has another value.
            ssl.SSLError: the handshake failed, or there are unread bytes.
            SocketTimeout: the timeout passed.
            ClosedError: the context was destroyed, or the socket closed.
        """
        require_method(sock, "_upgrade", awaited=False)
        core = self._upgrade_core(handshake, hostname, leftover, shared=True)
        sock._upgrade(core, timeout, "wrap_connected_socket", leftover)

    async def wrap_connected_async(
        self,
        sock: AsyncUpgradable,
        handshake: Handshake,
        hostname: str | IpAddress = "",
        timeout: Timeout = None,
        *,
        leftover: Leftover = "refuse",
    ) -> None:
        """Start TLS on a connected ``wireline.asyncnet.AsyncSocket`` (STARTTLS): do the handshake now.

        Args:
            sock: a ``wireline.asyncnet.AsyncSocket``.
            handshake: our role.
            hostname: name that the server's certificate must have. A client that verifies needs it.
            timeout: seconds for the whole handshake. After a timeout or a cancellation the socket can only be closed.
            leftover: what is done with bytes received before the call and not read: ``"refuse"`` raises an error,
                because an attacker may have inserted them; ``"tls"`` takes them as the beginning of the handshake.

        Raises:
            TypeError: ``sock`` is not a socket of this library and of this flavour.
            ValueError: a client verifies and has no hostname, or ``leftover`` has another value.
            ssl.SSLError: the handshake failed, or there are unread bytes.
            SocketTimeout: the timeout passed.
            ClosedError: the context was destroyed, or the socket closed.
        """
        require_method(sock, "_upgrade", awaited=True)
        core = self._upgrade_core(handshake, hostname, leftover, shared=False)
        await sock._upgrade(core, timeout, "wrap_connected_async", leftover)

    def _upgrade_core(
        self, handshake: Handshake, hostname: str | IpAddress, leftover: Leftover, *, shared: bool
    ) -> TlsCore:
        check_leftover(leftover)
        return _make_core(self._engine(handshake, hostname), shared=shared)

    def _engine(self, handshake: Handshake, hostname: str | IpAddress = "", port: int = 0) -> TlsEngine:
        """Make the engine of one connection.

        Args:
            handshake: our role.
            hostname: for a client: the name in SNI, and the name that the certificate must have.
            port: for a client: the server's port, part of the key of its sessions; 0 means no resumption.

        Raises:
            ValueError: a client verifies and has no hostname, or ``hostname`` is not a host name.
            OSError: a file is missing, or there is no CA.
            ssl.SSLError: a server has neither a certificate nor a pre-shared key.
            ClosedError: the context was destroyed.
        """
        role = self._role_context(handshake)
        name = "" if role.server else normalise(hostname)
        if not role.server and not name and role.context.check_hostname:
            # `SSLContext.wrap_bio` would accept this, and then not check the name in the certificate.
            raise ValueError("a client that verifies needs a hostname, to check the certificate for it")
        offered = None
        if role.sessions is not None and name and port:
            offered = role.sessions.take(role.context, name, port, role.alpn)
            if offered is not None and (offered.context is not role.context or offered.host != name):
                offered = None  # a bug of a user's cache class; resuming it would skip the check of the name
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        obj = role.context.wrap_bio(
            incoming,
            outgoing,
            server_side=role.server,
            server_hostname=name or None,
        )
        if offered is not None:
            offer_session(obj, offered.session)
        policy = TlsPolicy(role, name, port, offered)
        policy.prepare(obj)
        return TlsEngine(obj, incoming, outgoing, policy)

    def _client_core(self, hostname: str | IpAddress, port: int, *, shared: bool = False) -> TlsCore:
        """Return the core of a socket that connects; ``shared``: one thread may read while another writes."""
        return _make_core(self._engine(Handshake.AS_CLIENT, hostname, port), shared=shared)

    def _server_core(self, *, shared: bool = False) -> TlsCore:
        """Return the core of an accepted socket."""
        return _make_core(self._engine(Handshake.AS_SERVER), shared=shared)

    # ------------------------------------------------------------------------------------------------------- end

    def destroy(self) -> None:
        """Release everything. Later use is a ``ClosedError``; connections continue; a second call does nothing."""
        with self._lock.here:
            self._destroyed = True
            self._roles.clear()
            self._extra.clear()
            self._adopted = self._options = self._material = None
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
        if self._options is None:
            return f"<SslContext of {self._adopted!r}>"
        parts = [f"verify={self._options.verify_mode.name}"]
        if self._material is not None and self._material.credentials is not None:
            parts.append(f"cert={self._material.credentials.cert_source.name}")
        if self._client_get_psk or self._server_get_psk:
            parts.append("psk")
        return f"<SslContext {' '.join(parts)}{' frozen' if self._frozen else ''}>"


def _make_core(engine: TlsEngine, *, shared: bool) -> TlsCore:
    if not shared:
        return TlsCore(engine)
    # A reentrant lock: OpenSSL calls callbacks during a handshake, and a callback may call methods of the socket.
    return LockedTlsCore(engine, threading.RLock())


def _context_selector(
    callback: ServerNameCallback | None,
) -> Callable[[str | None], RoleContext | None] | None:
    """Make ``RoleContext.select_context`` from the user's callback, which returns an ``SslContext``."""
    if callback is None:
        return None

    def select_context(name: str | None) -> RoleContext | None:
        chosen = callback(name)
        if chosen is None:
            return None
        require("the result of server_name_callback", chosen, SslContext)
        return chosen._role_context(Handshake.AS_SERVER)

    return select_context
