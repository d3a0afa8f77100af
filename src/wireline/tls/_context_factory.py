"""From a configuration to the ``ssl.SSLContext`` of a client or of a server.

Every default that matters is set here and not left to the standard library: those differ between the releases of
Python and between distributions.
"""

from __future__ import annotations

import errno
import os
import ssl
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import _trust
from ._policy import on_server_name
from ._tls_options import (
    CIPHERS_INTERMEDIATE,
    CIPHERS_MODERN,
    CIPHERS_PSK,
    TlsOptions,
    VerifyMode,
)

if TYPE_CHECKING:
    from ._psk import ClientGetPsk, ServerGetPsk

__all__ = ["check", "client_context", "create_keylog", "server_context"]


def client_context(options: TlsOptions, get_psk: ClientGetPsk | None) -> ssl.SSLContext:
    """Make the context of a client.

    Raises:
        OSError: a file is missing, or there is no CA.
        ssl.SSLError: a key that does not fit, or bad ciphers.
        NotImplementedError: this interpreter cannot do something that was asked for.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, options, psk=get_psk is not None)
    if get_psk is not None:
        # A server is let in for the key it knows, and never for a certificate. Certificates stay verified, with
        # VerifyMode.NONE too: it is how an impostor without the key fails in the handshake already.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if options.has_own_cas:
            _load_trust(context, options)
        _install_client_psk(context, get_psk)
    elif options.verify_mode is VerifyMode.NONE:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _load_trust(context, options)
    return context


def server_context(options: TlsOptions, get_psk: ServerGetPsk | None, hint: str) -> ssl.SSLContext:
    """Make the context of a server.

    Raises:
        OSError: a file is missing, or there is no CA.
        ssl.SSLError: a key that does not fit, bad ciphers, or there is nothing to show to a client.
        NotImplementedError: this interpreter cannot do something that was asked for.
    """
    if not options.cert_file and get_psk is None and options.server_name_callback is None:
        raise ssl.SSLError(
            ssl.SSL_ERROR_SSL, "a server needs a certificate (cert_file and key_file) or server_get_psk"
        )
    context = _context(ssl.PROTOCOL_TLS_SERVER, options, psk=get_psk is not None)
    context.verify_mode = options.client_certs
    # Also for those that do not ask: a name may lead here from a context that does.
    if options.client_certs is not ssl.CERT_NONE or options.has_own_cas:
        _load_trust(context, options)
    # With a callback `_ssl` complains on stderr of each name that is no ASCII, which any stranger can send. So there is
    # one only where it is needed: to be called back, or where the name cannot be asked for afterwards.
    from . import _openssl

    if options.server_name_callback is not None or not _openssl.available():
        _set_sni_callback(context, on_server_name)
    if options.server_name_callback is not None:
        # A session of TLS 1.3 is resumed before the name has led to its context, and whatever that name is: with one
        # made for another name a client would get past the certificates that this one asks for. (In TLS 1.2 the name
        # belongs to the session, and it is that one which the callback is told.)
        context.num_tickets = 0
    if get_psk is not None:
        _install_server_psk(context, get_psk, hint)
    return context


def _set_sni_callback(context: ssl.SSLContext, callback: Callable[..., int | None]) -> None:
    """Set ``sni_callback`` by the setter of `_ssl`, below any class that is derived from it.

    gevent puts a class of its own in place of ``ssl.SSLContext``. Its setter wraps the callback for sockets of gevent,
    and what it sets fails on every ``ssl.SSLObject``.
    """
    lowest = next(kind for kind in reversed(type(context).__mro__) if "sni_callback" in vars(kind))
    vars(lowest)["sni_callback"].__set__(context, callback)


def check(options: TlsOptions) -> None:
    """Try everything that can be tried before the first connection.

    Raises:
        OSError: a file is missing, or there is no CA.
        ssl.SSLError: a key that does not fit, or bad ciphers.
        NotImplementedError: this interpreter cannot set TLS 1.3 suites.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, options, psk=False, keylog=False)
    if options.has_own_cas:
        _load_trust(context, options)
    elif options.verify_mode is not VerifyMode.NONE and not options.cert_file:
        trust = _trust.find(options.verify_mode)
        if options.verify_mode is VerifyMode.PEER_USE_ENV_VARS:
            trust.load(context)
    if options.keylog_file:
        create_keylog(options.keylog_file)


def create_keylog(path: str) -> None:
    """Make the file that keys are logged to, for its owner alone; OpenSSL would make it readable by everybody.

    One that is there already is taken if it is a regular file of ours that no other user can open, and not through a
    symbolic link at its end: else the keys of all connections would go where another user chose.

    Raises:
        OSError: it cannot be written, or it is there and another user can open it.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    # A pipe without a reader is refused, and not waited for.
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    fd = os.open(path, flags, 0o600)
    try:
        if os.name == "posix":
            _require_privacy(path, os.fstat(fd))
    finally:
        os.close(fd)


def _require_privacy(path: str, status: os.stat_result) -> None:
    reason = ""
    if not stat.S_ISREG(status.st_mode):
        reason = "it is no regular file"
    elif status.st_uid != os.geteuid():
        reason = "it belongs to another user"
    elif status.st_mode & 0o077:
        reason = f"other users can open it (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 it"
    if reason:
        raise PermissionError(errno.EPERM, f"not a place for the keys of connections, {reason}", path)


def _log_keys(context: ssl.SSLContext, path: str) -> None:
    create_keylog(path)
    context.keylog_filename = path
    if os.name == "posix":
        # `ssl` has opened it by its name: it may have been another file by then, but not for longer than that.
        _require_privacy(path, os.lstat(path))


def _context(protocol: int, options: TlsOptions, *, psk: bool, keylog: bool = True) -> ssl.SSLContext:
    """What client and server have in common."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # 3.11.0 to 3.11.2 set it: a connection that was cut would read as one that was ended.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:
        context.hostname_checks_common_name = False
    _set_ciphers(context, options.cipher_list, psk=psk)
    if (
        options.ciphersuites != CIPHERS_MODERN
    ):  # those are on anyway, and to set them is not possible everywhere
        _set_ciphersuites(context, options.ciphersuites)
    if options.cert_file:
        _load_certificate(context, options)
    if options.alpn:
        context.set_alpn_protocols(list(options.alpn))
    if options.keylog_file and keylog:
        _log_keys(context, options.keylog_file)
    return context


def _set_ciphers(context: ssl.SSLContext, cipher_list: str, *, psk: bool) -> None:
    if psk and cipher_list == CIPHERS_INTERMEDIATE:
        # Before the others: a server takes the first that fits, and with a certificate it would never take the key.
        cipher_list = f"{CIPHERS_PSK}:{cipher_list}"
    names = cipher_list.split(":")
    if all(name.startswith("TLS_") for name in names) and set(names) <= set(CIPHERS_MODERN.split(":")):
        context.minimum_version = (
            ssl.TLSVersion.TLSv1_3
        )  # OpenSSL's list is about TLS 1.2, and refuses to be empty
        return
    try:
        context.set_ciphers(cipher_list)
    except ssl.SSLError as error:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"no cipher of {cipher_list!r} can be used") from error


def _set_ciphersuites(context: ssl.SSLContext, suites: str) -> None:
    public: Callable[[str], None] | None = getattr(context, "set_ciphersuites", None)  # from 3.15 on
    if public is not None:
        public(suites)
        return
    from . import _openssl

    _openssl.set_ciphersuites(context, suites)


def _load_certificate(context: ssl.SSLContext, options: TlsOptions) -> None:
    _trust.require_file(options.cert_file)
    if options.key_file:
        _trust.require_file(options.key_file)
    key_file = options.key_file or options.cert_file

    def no_password() -> str:
        # Without an answer from here OpenSSL asks on the terminal.
        raise ssl.SSLError(
            ssl.SSL_ERROR_SSL, f"the key in {key_file!r} is encrypted, and no password was given"
        )

    password = no_password if options.password is None else options.password
    try:
        context.load_cert_chain(options.cert_file, key_file, password)
    except ssl.SSLError as error:
        error.add_note(f"while loading the certificate {options.cert_file!r} with the key {key_file!r}")
        raise


def _load_trust(context: ssl.SSLContext, options: TlsOptions) -> None:
    _trust.find(options.verify_mode, options.ca_file, options.ca_dir).load(context)


def _install_client_psk(context: ssl.SSLContext, get_psk: ClientGetPsk) -> None:
    from . import _psk

    _psk.install_client(context, get_psk)


def _install_server_psk(context: ssl.SSLContext, get_psk: ServerGetPsk, hint: str) -> None:
    from . import _psk

    _psk.install_server(context, get_psk, hint)
