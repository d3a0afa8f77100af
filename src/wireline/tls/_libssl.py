"""libssl through ``ctypes``: functions with their signatures, and access to memory. The only file that uses ``ctypes``.

Nothing here checks an address: that is the duty of the caller (``_openssl``).

``PyDLL`` and not ``CDLL``: the GIL stays held, so no thread frees a structure between "read the pointer" and "use it".
No function here waits; those of `_SLOW` compute for long, and release it. Callbacks are ``CFUNCTYPE``: OpenSSL calls
them while ``ssl`` has released the GIL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

HAS_CTYPES = True
if TYPE_CHECKING:
    import ctypes
else:
    try:
        import ctypes
    except ImportError:  # an interpreter without libffi; only the bridge needs it
        HAS_CTYPES = False

__all__ = [
    "HAS_CTYPES",
    "Library",
    "buffer_of",
    "call_with_two_outputs",
    "in_main_interpreter",
    "is_mapped",
    "make_callback",
    "read_bytes",
    "read_output",
    "read_word",
    "words",
    "write_bytes",
    "write_word",
]

# The types of result and arguments, by the letters of `_types`.
_FUNCTIONS = {
    "ERR_clear_error": "v",
    "ERR_get_error": "L",
    "ERR_reason_error_string": "pL",
    "OpenSSL_version": "pi",
    "OpenSSL_version_num": "L",
    "SSL_CIPHER_find": "pps",
    "SSL_CTX_ctrl": "lpilp",
    "SSL_CTX_get_num_tickets": "zp",
    "SSL_CTX_get_options": "qp",
    "SSL_CTX_get_security_level": "ip",
    "SSL_CTX_get_ssl_method": "pp",
    "SSL_CTX_get_verify_mode": "ip",
    "SSL_CTX_set_ciphersuites": "ips",
    "SSL_CTX_set_psk_client_callback": "vpp",
    "SSL_CTX_set_psk_find_session_callback": "vpp",
    "SSL_CTX_set_psk_server_callback": "vpp",
    "SSL_CTX_set_psk_use_session_callback": "vpp",
    "SSL_CTX_set_session_id_context": "ipsu",
    "SSL_CTX_use_psk_identity_hint": "ips",
    "SSL_ctrl": "lpilp",
    "SSL_SESSION_dup": "pp",
    "SSL_SESSION_free": "vp",
    "SSL_SESSION_get0_ticket_appdata": "ippp",
    "SSL_SESSION_has_ticket": "ip",
    "SSL_SESSION_new": "p",
    "SSL_SESSION_set1_master_key": "ipsz",
    "SSL_SESSION_set1_ticket_appdata": "ipsz",
    "SSL_SESSION_set_cipher": "ipp",
    "SSL_SESSION_set_protocol_version": "ipi",
    "SSL_get_SSL_CTX": "pp",
    "SSL_get_ex_data": "ppi",
    "SSL_get_psk_identity": "pp",
    "SSL_get_servername": "ppi",
    "SSL_get_session": "pp",
    "SSL_get_ssl_method": "pp",
    "SSL_get_verify_result": "lp",
    "SSL_is_server": "ip",
    "SSL_set_session": "ipp",
    "SSL_set_session_id_context": "ipsu",
    "SSL_set_verify": "vpip",
    "SSL_version": "ip",
    "TLS_client_method": "p",
    "TLS_server_method": "p",
    "TLS_method": "p",
    "write": "lipz",
}


_OPTIONAL = {
    "CRYPTO_clear_free": "vpzpi",
    "EVP_PKEY2PKCS8": "pp",
    "EVP_PKEY_free": "vp",
    "OPENSSL_sk_free": "vp",
    "OPENSSL_sk_shift": "pp",
    "PKCS12_free": "vp",
    "PKCS12_parse": "ipsppp",
    "PKCS8_PRIV_KEY_INFO_free": "vp",
    "SSL_group_to_name": "ppi",  # since 3.0
    "X509_free": "vp",
    "d2i_PKCS12": "pppl",
    "i2d_PKCS8_PRIV_KEY_INFO": "ipp",
    "i2d_X509": "ipp",
}
"""Functions for features that the bridge can do without; where one is missing, its attribute is None."""

_SLOW = ("PKCS12_parse",)
"""Functions whose input sets their time: a PKCS#12 file may ask for 2**31 rounds of a hash, minutes in which no other
thread would run and no signal would be handled. Their arguments belong to the caller alone."""


class Library:
    """The functions of the OpenSSL that ``_ssl`` is linked with. Pointers are numbers, NULL is 0."""

    def __init__(self, path: str) -> None:
        """Look the functions up through the extension module at ``path``, which is linked with OpenSSL.

        Raises:
            LookupError: a function is missing.
            OSError: the module cannot be loaded.
        """
        loaded = ctypes.PyDLL(path)
        for name, signature in _FUNCTIONS.items():
            try:
                function = loaded[name]
            except AttributeError:
                raise LookupError(f"{name} is not reachable through {path}") from None
            function.restype, *function.argtypes = _types(signature)
            setattr(self, name, function)
        for name, signature in _OPTIONAL.items():
            setattr(self, name, None)
            if hasattr(loaded, name):
                function = (ctypes.CDLL(path) if name in _SLOW else loaded)[name]
                function.restype, *function.argtypes = _types(signature)
                setattr(self, name, function)

    if TYPE_CHECKING:  # the attributes are set in a loop, which a type checker does not follow

        def __getattr__(self, name: str) -> Callable[..., int]: ...


def _types(signature: str) -> list[Any]:
    """Return the types that the letters of a signature stand for: the result first, then the arguments."""
    types: dict[str, Any] = {
        "v": None,
        "i": ctypes.c_int,
        "u": ctypes.c_uint,
        "l": ctypes.c_long,
        "L": ctypes.c_ulong,
        "q": ctypes.c_uint64,
        "z": ctypes.c_size_t,
        "p": ctypes.c_size_t,  # any pointer, as a number
        "s": ctypes.c_char_p,  # bytes, with their length in another argument or ended by NUL
    }
    return [types[letter] for letter in signature]


# --------------------------------------------------------------------------------------------------------- memory

_kept: list[object] = []  # callbacks; `ctypes` frees one that is not referenced


def make_callback(signature: str, function: Callable[..., int]) -> int:
    """Make a C function that is never freed; return its address. ``function`` must not raise.

    Raises:
        MemoryError, OSError: the system forbids memory that is both writable and executable.
    """
    made = ctypes.CFUNCTYPE(*_types(signature))(function)
    _kept.append(made)
    return ctypes.cast(made, ctypes.c_void_p).value or 0


def read_bytes(address: int, length: int = -1) -> bytes:
    """Read ``length`` bytes, or up to a NUL."""
    return ctypes.string_at(address, length)


def write_word(address: int, value: int) -> None:
    """Write a pointer or a ``size_t``."""
    ctypes.c_size_t.from_address(address).value = value


def write_bytes(address: int, data: bytes, capacity: int) -> int:
    """Write bytes to memory; return how many.

    Raises:
        ValueError: they are more than ``capacity``.
    """
    if len(data) > capacity:
        raise ValueError(f"OpenSSL accepts {capacity} bytes here, not {len(data)}")
    ctypes.memmove(address, data, len(data))
    return len(data)


def read_word(thing: object, index: int) -> int:
    """Read a word of a Python object; 0 is the first one after the head that all objects have."""
    offset = object.__basicsize__ + index * ctypes.sizeof(ctypes.c_size_t)
    return ctypes.c_size_t.from_address(id(thing) + offset).value


def is_mapped(lib: Library, address: int) -> bool:
    """Whether 64 bytes at ``address`` can be read. The kernel tries it (EFAULT); a direct read would crash."""
    if address == 0 or address % ctypes.alignment(ctypes.c_void_p):
        return False
    reader, writer = os.pipe()
    try:
        return lib.write(writer, address, 64) == 64
    finally:
        os.close(reader)
        os.close(writer)


def buffer_of(data: bytes) -> tuple[object, int]:
    """Return an object that owns a copy of data with a NUL behind it, and the copy's address."""
    buffer = ctypes.create_string_buffer(data)
    return buffer, ctypes.addressof(buffer)


def words(*values: int) -> tuple[Sequence[int], list[int]]:
    """Return an array of pointers or sizes for a function to read and to write, and the address of each."""
    array = (ctypes.c_size_t * len(values))(*values)
    size = ctypes.sizeof(ctypes.c_size_t)
    addresses = [ctypes.addressof(array) + index * size for index in range(len(values))]
    return array, addresses  # type: ignore[return-value]  # it has the methods of a sequence


def read_output(function: Callable[[int], int]) -> bytes:
    """Call ``function(pointer *)``, which returns a length and writes where the bytes are; return a copy of these."""
    written = ctypes.c_size_t(0)
    length = function(ctypes.addressof(written))
    return read_bytes(written.value, length) if length > 0 and written.value else b""


def call_with_two_outputs(function: Callable[..., int], argument: int) -> tuple[int, int]:
    """Call ``function(argument, pointer *, size_t *)``; return the two values that it writes."""
    written = (ctypes.c_size_t * 2)()
    address = ctypes.addressof(written)
    function(argument, address, address + ctypes.sizeof(ctypes.c_size_t))
    return written[0], written[1]


def in_main_interpreter() -> bool:
    """Whether this is the main interpreter, in which callbacks run; it is false in a subinterpreter."""
    current, main = ctypes.pythonapi.PyInterpreterState_Get, ctypes.pythonapi.PyInterpreterState_Main
    current.restype = main.restype = ctypes.c_void_p
    return bool(current() == main())
