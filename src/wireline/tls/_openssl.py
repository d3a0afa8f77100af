"""The bridge: what OpenSSL offers and ``ssl`` does not.

It calls the libssl that ``ssl`` itself uses, on the structures that ``ssl`` made:

* Functions are looked up through ``_ssl`` (``dlsym`` also searches the libraries that it is linked with), never by the
  name of a library: a second copy of OpenSSL has the same version and defaults, and would crash on these structures.
* A pointer is one word of a Python object: ``SSL_CTX*`` is the first after the object's head, ``SSL*`` the second. This
  layout is private to CPython. It is tested on throw-away objects before its first use, and each pointer is compared
  with its Python object on every use. The deciding check is the method table: only the right copy of libssl has *this*
  table in *this* structure.

If any check fails, the bridge is off and says why: ``BridgeUnavailable``, a ``NotImplementedError``. The environment
variable ``WIRELINE_NO_BRIDGE=1`` switches it off at any time. No call leaves an error in OpenSSL's queue of this
thread, where the next call of ``ssl`` would report it as its own.

There is no policy here. The callbacks for pre-shared keys are in ``_openssl_psk``, their rules in ``_psk``.
"""

from __future__ import annotations

import _ssl
import os
import ssl
import sys

from wireline._os.process import ProcessLock

from ._libssl import (
    HAS_CTYPES,
    Library,
    buffer_of,
    in_main_interpreter,
    is_mapped,
    read_bytes,
    read_output,
    read_word,
)

__all__ = [
    "BridgeUnavailable",
    "SessionCopy",
    "available",
    "call",
    "clear_session_id_context",
    "ctx_pointer",
    "disable_session_cache",
    "get_session",
    "group",
    "library",
    "ocsp_response",
    "request_ocsp_response",
    "server_name",
    "set_ciphersuites",
    "set_groups",
    "set_session",
    "set_session_id_context",
    "set_ticket_keys",
    "set_verify",
    "ssl_pointer",
    "tls13_suites",
    "verify_result",
    "why_not",
]

# The layout was read in the source of these and tested on them. Add a version after tests/tls has passed on it.
_KNOWN_PYTHONS = ((3, 11), (3, 12), (3, 13))

_NAMETYPE_HOST_NAME = 0  # tls1.h: TLSEXT_NAMETYPE_host_name
_GET_MIN_PROTO, _GET_MAX_PROTO, _SET_SESS_CACHE_MODE = 130, 131, 44  # ssl.h: SSL_CTRL_...
_SET_TICKET_KEYS, _SET_GROUPS_LIST, _GET_NEGOTIATED_GROUP = 59, 92, 134
_SET_STATUS_TYPE, _GET_OCSP_RESPONSE = 65, 70
_STATUS_TYPE_OCSP = 1  # tls1.h


class BridgeUnavailable(NotImplementedError):
    """OpenSSL cannot be called safely in this interpreter; the message says why."""


# ------------------------------------------------------------------------------------------- finding and checking


_lock = ProcessLock()
_found: Library | str | None = None  # a str is the reason why the bridge is off


def why_not() -> str:
    """Return why the bridge cannot be used; ``""`` if it can."""
    found = _find()
    return found if isinstance(found, str) else ""


def available() -> bool:
    """Whether the bridge can be used, now."""
    return not why_not()


def library() -> Library:
    """Return OpenSSL's functions.

    Raises:
        BridgeUnavailable: the bridge is off.
    """
    found = _find()
    if isinstance(found, str):
        raise BridgeUnavailable(found)
    return found


def _find() -> Library | str:
    global _found
    if os.environ.get("WIRELINE_NO_BRIDGE", "0") not in ("", "0"):
        return "the environment variable WIRELINE_NO_BRIDGE switches the bridge to OpenSSL off"
    if _found is not None:
        return _found
    with _lock.here:
        if _found is None:
            try:
                _found = _open()
            except Exception as error:  # noqa: BLE001 - any error: an assumption about this interpreter is wrong
                _found = str(error) or type(error).__name__
        return _found


def _open() -> Library:
    """Load the library and test every assumption about it."""
    if reason := _wrong_interpreter():
        raise BridgeUnavailable(reason)
    path = getattr(_ssl, "__file__", None)
    if path is None:
        raise BridgeUnavailable("_ssl is built into the interpreter")
    lib = Library(path)
    version = read_bytes(lib.OpenSSL_version(0)).decode()
    if (version, lib.OpenSSL_version_num()) != (ssl.OPENSSL_VERSION, ssl.OPENSSL_VERSION_NUMBER):
        raise BridgeUnavailable(f"ssl was loaded with {ssl.OPENSSL_VERSION}, but {path} with {version}")
    _try_pointers(lib)
    return lib


def _wrong_interpreter() -> str:
    """Return why the object layout of this interpreter is unknown; ``""`` if it is known."""
    if sys.implementation.name != "cpython":
        return f"the bridge is for CPython, not for {sys.implementation.name}"
    if sys.version_info[:2] not in _KNOWN_PYTHONS:
        return f"the bridge has not been tried on Python {sys.version_info[0]}.{sys.version_info[1]}"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "the bridge needs the GIL"
    if sys.platform == "win32":
        return "the bridge has not been tried on Windows"
    if not HAS_CTYPES:
        return "this interpreter has no ctypes"
    return "" if in_main_interpreter() else "callbacks would run in the main interpreter, not in this one"


def _try_pointers(lib: Library) -> None:
    """Check the pointers of throw-away objects, while Python changes the values that are compared."""
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        check_new_context(lib, context, read_word(context, 0))
        context.check_hostname = False
        for version, mode, option in (
            (ssl.TLSVersion.TLSv1_2, ssl.CERT_OPTIONAL, ssl.OP_NO_TICKET),
            (ssl.TLSVersion.TLSv1_3, ssl.CERT_NONE, ssl.OP_NO_RENEGOTIATION),
        ):
            context.maximum_version, context.verify_mode = version, mode
            context.options |= option
            if protocol == ssl.PROTOCOL_TLS_SERVER:
                context.num_tickets += 1
            check_new_context(lib, context, read_word(context, 0))
        name = None if protocol == ssl.PROTOCOL_TLS_SERVER else "localhost"
        obj = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), name is None, name)
        pointer = read_word(_inner(obj), 1)
        if not is_mapped(lib, pointer) or lib.SSL_get_ssl_method(pointer) not in _methods(lib):
            raise BridgeUnavailable("an SSL* is not where it should be")
        _check_connection(lib, obj, pointer)


def check_new_context(lib: Library, context: ssl.SSLContext, pointer: int) -> None:
    """Check that ``pointer``, which may be any number, is the ``SSL_CTX*`` of ``context``.

    Raises:
        BridgeUnavailable: it is not.
    """
    if not is_mapped(lib, pointer):
        raise BridgeUnavailable("an SSL_CTX* is not where it should be")
    _check_context(lib, context, pointer)


def _methods(lib: Library) -> tuple[int, ...]:
    return lib.TLS_client_method(), lib.TLS_server_method(), lib.TLS_method()


def _check_context(lib: Library, context: ssl.SSLContext, pointer: int) -> None:
    """Compare the ``SSL_CTX`` at ``pointer`` with the values of ``context``."""
    if lib.SSL_CTX_get_ssl_method(pointer) not in _methods(lib):
        raise BridgeUnavailable("an SSL_CTX belongs to another copy of OpenSSL")
    theirs = (
        lib.SSL_CTX_get_options(pointer) & 0xFFFFFFFF,
        lib.SSL_CTX_get_security_level(pointer),
        lib.SSL_CTX_ctrl(pointer, _GET_MIN_PROTO, 0, 0) or ssl.TLSVersion.MINIMUM_SUPPORTED,
        lib.SSL_CTX_ctrl(pointer, _GET_MAX_PROTO, 0, 0) or ssl.TLSVersion.MAXIMUM_SUPPORTED,
        lib.SSL_CTX_get_verify_mode(pointer) & 3,
        lib.SSL_CTX_get_num_tickets(pointer),
    )
    ours = (
        int(context.options) & 0xFFFFFFFF,
        context.security_level,
        context.minimum_version,
        context.maximum_version,
        _verify_flags(context.verify_mode),
        context.num_tickets,
    )
    if theirs != ours:
        raise BridgeUnavailable("an SSL_CTX is not the one of its ssl.SSLContext")


def _check_connection(lib: Library, obj: ssl.SSLObject | ssl.SSLSocket, pointer: int) -> None:
    """Check that the ``SSL`` at ``pointer`` is that of ``obj``: it refers to its Python object and to its context."""
    inner = _inner(obj)
    if pointer == 0 or lib.SSL_get_ex_data(pointer, 0) != id(inner):
        raise BridgeUnavailable("an SSL is not the one of its Python object")
    if lib.SSL_get_SSL_CTX(pointer) != read_word(obj.context, 0):
        raise BridgeUnavailable("an SSL does not belong to the context of its Python object")
    if bool(lib.SSL_is_server(pointer)) != obj.server_side:
        raise BridgeUnavailable("an SSL and its Python object have different roles")


def _inner(obj: ssl.SSLObject | ssl.SSLSocket) -> object:
    """Return the object that has the ``SSL*``.

    Raises:
        ValueError: there is none: the socket is closed or not connected.
        BridgeUnavailable: it is of an unknown type.
    """
    inner: object = getattr(obj, "_sslobj", None)
    if inner is None:
        raise ValueError("there is no TLS connection")
    if type(inner) is not getattr(_ssl, "_SSLSocket", None):
        raise BridgeUnavailable(f"the type {type(inner).__name__} of a connection is unknown")
    return inner


def _verify_flags(mode: ssl.VerifyMode) -> int:
    """Return the ``SSL_VERIFY_...`` flags of a mode: PEER is 1, FAIL_IF_NO_PEER_CERT is 2."""
    return {ssl.CERT_NONE: 0, ssl.CERT_OPTIONAL: 1, ssl.CERT_REQUIRED: 3}[mode]


# -------------------------------------------------------------------------------------- contexts and connections


def ctx_pointer(context: ssl.SSLContext) -> int:
    """Return the ``SSL_CTX*`` of a context.

    Raises:
        BridgeUnavailable: the bridge is off, or the context makes connections from another context inside of it, as
            truststore's class does.
    """
    lib = library()
    if type(context).wrap_bio.__module__ != "ssl":
        raise BridgeUnavailable(
            f"{type(context).__qualname__} has its own wrap_bio, so its SSL_CTX may be unused"
        )
    pointer = read_word(context, 0)
    _check_context(lib, context, pointer)
    return pointer


def ssl_pointer(obj: ssl.SSLObject | ssl.SSLSocket) -> int:
    """Return the ``SSL*`` of a connection.

    Raises:
        BridgeUnavailable: the bridge is off.
        ValueError: the socket is closed or not connected.
    """
    lib = library()
    pointer = read_word(_inner(obj), 1)
    _check_connection(lib, obj, pointer)
    return pointer


def set_ciphersuites(context: ssl.SSLContext, names: str) -> None:
    """Set the TLS 1.3 suites, in order of preference. Python 3.15 and later need no bridge for it.

    Raises:
        ssl.SSLError: OpenSSL does not know a name; the suites stay as they were.
        ValueError: ``names`` is empty.
    """
    if not names.strip(": ") or "\0" in names:
        raise ValueError(f"not a list of TLS 1.3 ciphersuites: {names!r}")
    native = getattr(context, "set_ciphersuites", None)
    if native is not None:
        native(names)
        return
    lib, pointer, before = library(), ctx_pointer(context), tls13_suites(context)
    call(lib, "SSL_CTX_set_ciphersuites", pointer, names.encode("ascii"))
    unknown = {name.strip() for name in names.split(":")} - {*tls13_suites(context)}
    if unknown:  # OpenSSL may skip an unknown name silently if another one is known
        call(lib, "SSL_CTX_set_ciphersuites", pointer, ":".join(before).encode("ascii"))
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, f"no such TLS 1.3 ciphersuite: {', '.join(sorted(unknown))}")


def set_groups(context: ssl.SSLContext, names: str) -> None:
    """Set the groups of the key exchange, in order of preference.

    Raises:
        ssl.SSLError: OpenSSL does not know one of them.
    """
    lib = library()
    buffer, address = buffer_of(names.encode("ascii"))
    try:
        call(lib, "SSL_CTX_ctrl", ctx_pointer(context), _SET_GROUPS_LIST, 0, address)
    except ssl.SSLError as error:
        raise ssl.SSLError(
            ssl.SSL_ERROR_SSL, f"{ssl.OPENSSL_VERSION} does not know a group of {names!r}"
        ) from error
    finally:
        del buffer


def set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> None:
    """Set the keys that protect the session tickets of a server: 80 bytes."""
    buffer, address = buffer_of(keys)
    call(library(), "SSL_CTX_ctrl", ctx_pointer(context), _SET_TICKET_KEYS, len(keys), address)
    del buffer


def request_ocsp_response(obj: ssl.SSLObject) -> None:
    """Make a client ask for the OCSP response of the server's certificate, before its handshake."""
    library().SSL_ctrl(ssl_pointer(obj), _SET_STATUS_TYPE, _STATUS_TYPE_OCSP, 0)


def ocsp_response(obj: ssl.SSLObject) -> bytes | None:
    """Return the stapled OCSP response of a handshake, as DER; None if there is none."""
    lib, pointer = library(), ssl_pointer(obj)
    return read_output(lambda output: lib.SSL_ctrl(pointer, _GET_OCSP_RESPONSE, 0, output)) or None


def group(obj: ssl.SSLObject) -> str | None:
    """Return the name of the group of the key exchange; None if there was none, or OpenSSL cannot tell."""
    lib, pointer = library(), ssl_pointer(obj)
    if lib.SSL_group_to_name is None:
        return None
    number = lib.SSL_ctrl(pointer, _GET_NEGOTIATED_GROUP, 0, 0)
    name = lib.SSL_group_to_name(pointer, number) if number > 0 else 0
    return read_bytes(name).decode("ascii", "replace") if name else None


def tls13_suites(context: ssl.SSLContext) -> list[str]:
    """Return the names of the TLS 1.3 suites, in order of preference."""
    return [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.3"]


def set_session_id_context(obj: ssl.SSLObject, value: bytes) -> None:
    """Set the session id context of a server's connection: a session with another one is not resumed on it.

    From 3.13 on ``ssl`` sets its own value on each connection (gh-105293), so setting it on the context has no effect.

    Raises:
        ValueError: ``value`` is not 1 to 32 bytes. (If it is empty and clients are verified, OpenSSL fails each
            resumption.)
    """
    if not 1 <= len(value) <= 32:
        raise ValueError(f"a session id context has 1 to 32 bytes, not {len(value)}")
    call(library(), "SSL_set_session_id_context", ssl_pointer(obj), value, len(value))


def clear_session_id_context(context: ssl.SSLContext) -> None:
    """Clear the session id context that ``ssl`` sets up to 3.12: with it a client fails every PSK of TLS 1.3."""
    call(library(), "SSL_CTX_set_session_id_context", ctx_pointer(context), b"", 0)


def disable_session_cache(context: ssl.SSLContext) -> None:
    """Make a server cache no sessions."""
    library().SSL_CTX_ctrl(ctx_pointer(context), _SET_SESS_CACHE_MODE, 0, 0)


class SessionCopy:
    """A copy of an ``SSL_SESSION``, freed with this object.

    A copy, because OpenSSL marks the session of a connection as not resumable when the connection is freed without
    ``close_notify``, or fails.
    """

    __slots__ = ("_lib", "pointer")

    def __init__(self, lib: Library, original: int) -> None:
        self._lib = lib
        self.pointer = 0  # for `__del__`, should a signal handler raise an exception in the next line
        self.pointer = lib.SSL_SESSION_dup(original)
        if not self.pointer:
            raise MemoryError("OpenSSL cannot copy a session")

    def __del__(self) -> None:
        self._lib.SSL_SESSION_free(self.pointer)

    @property
    def has_ticket(self) -> bool:
        """Whether the server has sent a ticket for it."""
        return bool(self._lib.SSL_SESSION_has_ticket(self.pointer))


def get_session(obj: ssl.SSLObject) -> SessionCopy | None:
    """Return the session of a connection, like ``SSLObject.session``, which leaks a copy on each read (3.11 to 3.13).

    It also works for a session that is too large for that copy.
    """
    lib = library()
    pointer = lib.SSL_get_session(ssl_pointer(obj))
    return SessionCopy(lib, pointer) if pointer else None


def set_session(obj: ssl.SSLObject, session: SessionCopy) -> None:
    """Offer a session in the handshake of a client. The caller checks that it has the same context and host.

    Raises:
        ssl.SSLError: OpenSSL refuses it.
    """
    lib = library()
    copy = SessionCopy(
        lib, session.pointer
    )  # this connection must not change the cached one, see `SessionCopy`
    call(lib, "SSL_set_session", ssl_pointer(obj), copy.pointer)


def set_verify(obj: ssl.SSLObject, mode: ssl.VerifyMode) -> None:
    """Set the verify mode of one connection, before its handshake or in the SNI callback."""
    library().SSL_set_verify(ssl_pointer(obj), _verify_flags(mode), 0)


def verify_result(obj: ssl.SSLObject) -> int:
    """Return the result of verifying the peer's certificate: 0, or one of OpenSSL's ``X509_V_ERR_...``."""
    return library().SSL_get_verify_result(ssl_pointer(obj))


def server_name(obj: ssl.SSLObject) -> str:
    """Return the SNI name that a server's connection received; ``""`` if the client sent none."""
    name = library().SSL_get_servername(ssl_pointer(obj), _NAMETYPE_HOST_NAME)
    return read_bytes(name).decode("ascii", "replace") if name else ""


def call(lib: Library, function: str, *arguments: object) -> None:
    """Call a function that returns 0 on failure. OpenSSL's error queue is empty afterwards.

    Raises:
        ssl.SSLError: it failed; the message is OpenSSL's.
    """
    lib.ERR_clear_error()
    if getattr(lib, function)(*arguments) > 0:
        return
    text = lib.ERR_reason_error_string(lib.ERR_get_error())
    lib.ERR_clear_error()
    reason = read_bytes(text).decode() if text else "unknown reason"
    error = ssl.SSLError(ssl.SSL_ERROR_SSL, f"{function}: {reason}")
    error.library, error.reason = "SSL", reason.upper().replace(" ", "_")
    raise error
