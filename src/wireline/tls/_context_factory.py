"""Makes the ``ssl.SSLContext`` of a client or of a server from ``TlsOptions``.

Every default that matters is set here: those of the standard library differ between the releases of Python and between
distributions. ``_openssl`` and ``_psk`` are imported where they are needed, because they load ctypes.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ._keylog import create_keylog, start_keylog
from ._material import Material
from ._policy import on_server_name
from ._tls_options import (
    CIPHERS_INTERMEDIATE,
    CIPHERS_MODERN,
    CIPHERS_PSK,
    TICKET_KEYS_SIZE,
    TlsOptions,
    VerifyMode,
)

if TYPE_CHECKING:
    from ._psk import ClientGetPsk, ServerGetPsk

__all__ = ["check_options", "make_client_context", "make_server_context"]


def make_client_context(
    options: TlsOptions, material: Material, get_psk: ClientGetPsk | None
) -> ssl.SSLContext:
    """Make the context of a client.

    Raises:
        OSError: a file is missing, or there is no CA.
        ssl.SSLError: certificate and key do not match, or the ciphers are unknown.
        NotImplementedError: this interpreter lacks a feature that the options need.
    """
    context = _common_context(ssl.PROTOCOL_TLS_CLIENT, options, material, psk=get_psk is not None)
    if get_psk is not None:
        # Only a server that proves the key is accepted, never one with a certificate. Certificates are verified all the
        # same, even with VerifyMode.NONE: so an impostor without the key fails during the handshake.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if options.has_own_cas:
            material.trust_in(context, options)
        from . import _psk

        _psk.install_client(context, get_psk)
    elif options.verify_mode is VerifyMode.NONE:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        material.trust_in(context, options)
    return context


def make_server_context(
    options: TlsOptions, material: Material, get_psk: ServerGetPsk | None, hint: str
) -> ssl.SSLContext:
    """Make the context of a server.

    Raises:
        OSError: a file is missing, or there is no CA.
        ssl.SSLError: certificate and key do not match, the ciphers are unknown, or the server has neither a certificate
            nor a pre-shared key.
        NotImplementedError: this interpreter lacks a feature that the options need.
    """
    if material.credentials is None and get_psk is None and options.server_name_callback is None:
        raise ssl.SSLError(
            ssl.SSL_ERROR_SSL,
            "a server needs a certificate (cert_file and key_file, or cert_data and key_data) or server_get_psk",
        )
    context = _common_context(ssl.PROTOCOL_TLS_SERVER, options, material, psk=get_psk is not None)
    context.verify_mode = options.client_certs
    # CAs also without client certificates: SNI may switch to this context from one that asks for them.
    if options.client_certs is not ssl.CERT_NONE or options.has_own_cas:
        material.trust_in(context, options)
    # With an SNI callback `_ssl` writes an error to stderr for each name that is not ASCII, which any peer can send. So
    # it is set only if needed: for the user's callback, or if the name cannot be read from OpenSSL after the handshake.
    from . import _openssl

    if options.server_name_callback is not None or not _openssl.available():
        _set_sni_callback(context, on_server_name)
    if options.server_name_callback is not None:
        # TLS 1.3 resumes a session before SNI switches the context, and for any name: with a session of another name a
        # client would pass without the certificate that this name requires. (In TLS 1.2 the name is part of the
        # session, and the callback gets that name.)
        context.num_tickets = 0
    if get_psk is not None:
        from . import _psk

        _psk.install_server(context, get_psk, hint, decoy=options.psk_decoy)
    else:
        _set_ticket_keys(context, options, material)
    return context


def _set_ticket_keys(context: ssl.SSLContext, options: TlsOptions, material: Material) -> None:
    """Set the keys of session tickets. They depend on the CAs and on the demand for client certificates.

    A ticket stands for a client that was verified. So one of other CAs or another demand, before a reload or of another
    process, must not be accepted.
    """
    from . import _openssl

    # OpenSSL's own keys are of this context alone, and void with it.
    own = (
        options.client_certs is not ssl.CERT_NONE and not options.has_own_cas
    )  # the CAs of the system may change
    if options.ticket_keys is None and (own or not _openssl.available()):
        return
    trust = hashlib.sha512(str(int(options.client_certs)).encode())
    for bundle in material.trust.given if material.trust is not None else ():
        for der in bundle.certificates:
            trust.update(der)
    secret = options.ticket_keys or material.ticket_secret
    keys = b"".join(hmac.digest(secret, bytes([part]) + trust.digest(), "sha512") for part in range(2))
    with _naming("ticket_keys"):
        _openssl.set_ticket_keys(context, keys[:TICKET_KEYS_SIZE])


@contextlib.contextmanager
def _naming(argument: str) -> Iterator[None]:
    """Name the argument in the error about a missing bridge to OpenSSL."""
    try:
        yield
    except NotImplementedError as error:
        raise NotImplementedError(f"{argument} cannot be set in this interpreter: {error}") from error


def _set_sni_callback(context: ssl.SSLContext, callback: Callable[..., int | None]) -> None:
    """Set ``sni_callback`` with the setter of ``_ssl``, not with that of a derived class.

    gevent replaces ``ssl.SSLContext``. Its setter wraps the callback for gevent's sockets, and the wrapper fails with
    every ``ssl.SSLObject``.
    """
    lowest = next(kind for kind in reversed(type(context).__mro__) if "sni_callback" in vars(kind))
    vars(lowest)["sni_callback"].__set__(context, callback)


def check_options(options: TlsOptions, material: Material) -> None:
    """Find the errors in the options that can be found before the first connection.

    Raises:
        OSError: the file of the key log cannot be written.
        ssl.SSLError: certificate and key do not match, or the ciphers are unknown.
        NotImplementedError: this interpreter cannot set an option.
    """
    context = _common_context(ssl.PROTOCOL_TLS_SERVER, options, material, psk=False, keylog=False)
    if material.trust is not None and material.trust.given:
        material.trust.load(context)
    if options.ticket_keys is not None:
        _set_ticket_keys(context, options, material)
    if options.keylog_file:
        create_keylog(options.keylog_file)


def _common_context(
    protocol: int, options: TlsOptions, material: Material, *, psk: bool, keylog: bool = True
) -> ssl.SSLContext:
    """Make a context with everything that client and server have in common."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if options.partial_chain:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # 3.11.0 to 3.11.2 set this option: a truncated stream would look like a clean end.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:
        context.hostname_checks_common_name = False
    _set_ciphers(context, options.cipher_list, psk=psk)
    # `CIPHERS_MODERN` is OpenSSL's default, and is not set: that needs Python 3.15 or the bridge.
    if options.ciphersuites != CIPHERS_MODERN:
        from . import _openssl

        with _naming("ciphersuites"):
            _openssl.set_ciphersuites(context, options.ciphersuites)
    _set_versions(context, options)
    if options.groups:
        from . import _openssl

        with _naming("groups"):
            _openssl.set_groups(context, options.groups)
    if material.credentials is not None:
        material.credentials.load(context, material.password)
    if options.alpn:
        context.set_alpn_protocols(list(options.alpn))
    if options.keylog_file and keylog:
        start_keylog(context, options.keylog_file)
    return context


def _set_ciphers(context: ssl.SSLContext, cipher_list: str, *, psk: bool) -> None:
    if psk and cipher_list == CIPHERS_INTERMEDIATE:
        # Before the others: a server takes the first suite that fits. With a certificate it would never use the key.
        cipher_list = f"{CIPHERS_PSK}:{cipher_list}"
    names = cipher_list.split(":")
    # OpenSSL's list is for TLS 1.2 and may not be empty: a list of TLS 1.3 suites only excludes TLS 1.2.
    if all(name.startswith("TLS_") for name in names) and set(names) <= set(CIPHERS_MODERN.split(":")):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return
    try:
        context.set_ciphers(cipher_list)
    except ssl.SSLError as error:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"OpenSSL has no cipher of {cipher_list!r}") from error


def _set_versions(context: ssl.SSLContext, options: TlsOptions) -> None:
    """Narrow the versions; after the ciphers, a list of which may exclude TLS 1.2."""
    if options.min_version is not None:
        context.minimum_version = max(context.minimum_version, options.min_version)
    if options.max_version is not None:
        if options.max_version < context.minimum_version:
            raise ValueError("cipher_list has suites of TLS 1.3 only, and max_version excludes TLS 1.3")
        context.maximum_version = options.max_version
