"""libssl through ``ctypes``: the functions with their signatures, and memory. The only file that knows ``ctypes``.

Whoever calls these answers for what is at the addresses: see ``_openssl``, which finds out.

``PyDLL`` and not ``CDLL``: the GIL stays held, so nobody frees a structure between "read the pointer" and "use it". No
function here waits. Callbacks are ``CFUNCTYPE``: OpenSSL calls them while ``ssl`` has let go of the GIL.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

HAS_CTYPES = True
if TYPE_CHECKING:
    import ctypes
else:
    try:
        import ctypes
    except ImportError:  # an interpreter without libffi: then everything but the bridge works
        HAS_CTYPES = False

__all__ = [
    "HAS_CTYPES",
    "Library",
    "call_with_two_outputs",
    "in_main_interpreter",
    "is_mapped",
    "make_callback",
    "read_bytes",
    "read_word",
    "write_bytes",
    "write_word",
]

# Result and arguments, in the letters of `_types`.
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
    "SSL_SESSION_free": "vp",
    "SSL_SESSION_get0_ticket_appdata": "ippp",
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
    "SSL_set_session_id_context": "ipsu",
    "SSL_set_verify": "vpip",
    "SSL_version": "ip",
    "TLS_client_method": "p",
    "TLS_server_method": "p",
    "TLS_method": "p",
    "write": "lipz",
}


class Library:
    """The functions of the OpenSSL that ``_ssl`` is linked with. Pointers are numbers, NULL is 0."""

    def __init__(self, path: str) -> None:
        """Look them up through an extension module that is linked with it; ``LookupError``: one is not there."""
        loaded = ctypes.PyDLL(path)
        for name, signature in _FUNCTIONS.items():
            try:
                function = loaded[name]
            except AttributeError:
                raise LookupError(f"{name} is not reachable through {path}") from None
            function.restype, *function.argtypes = _types(signature)
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Callable[..., int]:
        raise AttributeError(name)  # all there are were set above; this is for the type checker


def _types(signature: str) -> list[Any]:
    """Result and arguments by their letters."""
    types: dict[str, Any] = {
        "v": None,
        "i": ctypes.c_int,
        "u": ctypes.c_uint,
        "l": ctypes.c_long,
        "L": ctypes.c_ulong,
        "q": ctypes.c_uint64,
        "z": ctypes.c_size_t,
        "p": ctypes.c_size_t,  # any pointer, as a number
        "s": ctypes.c_char_p,  # bytes, of a length that is told beside or ended by NUL
    }
    return [types[letter] for letter in signature]


# --------------------------------------------------------------------------------------------------------- memory

_kept: list[object] = []


def make_callback(signature: str, function: Callable[..., int]) -> int:
    """Make a C function, for ever, and give its address. ``function`` must not raise.

    Raises:
        MemoryError, OSError: the system forbids memory that is written and executed.
    """
    made = ctypes.CFUNCTYPE(*_types(signature))(function)
    _kept.append(made)
    return ctypes.cast(made, ctypes.c_void_p).value or 0


def read_bytes(address: int, length: int = -1) -> bytes:
    """Read bytes from memory; without ``length`` up to a NUL."""
    return ctypes.string_at(address, length)


def write_word(address: int, value: int) -> None:
    """Write a pointer or a ``size_t``."""
    ctypes.c_size_t.from_address(address).value = value


def write_bytes(address: int, data: bytes, room: int) -> int:
    """Write bytes where there is ``room`` for so many, and give their number. ``ValueError``: there is not."""
    if len(data) > room:
        raise ValueError(f"OpenSSL has room for {room} bytes here, not for {len(data)}")
    ctypes.memmove(address, data, len(data))
    return len(data)


def read_word(thing: object, index: int) -> int:
    """Read the word at ``index`` behind the head that every Python object has."""
    offset = object.__basicsize__ + index * ctypes.sizeof(ctypes.c_size_t)
    return ctypes.c_size_t.from_address(id(thing) + offset).value


def is_mapped(lib: Library, address: int) -> bool:
    """Whether there is memory at ``address``. The kernel is asked to read it: that fails where a look would kill."""
    if address == 0 or address % ctypes.alignment(ctypes.c_void_p):
        return False
    reader, writer = os.pipe()
    try:
        return lib.write(writer, address, 64) == 64
    finally:
        os.close(reader)
        os.close(writer)


def call_with_two_outputs(function: Callable[..., int], argument: int) -> tuple[int, int]:
    """Call a function that writes a pointer and a ``size_t`` where it is told; give these."""
    written = (ctypes.c_size_t * 2)()
    at = ctypes.addressof(written)
    function(argument, at, at + ctypes.sizeof(ctypes.c_size_t))
    return written[0], written[1]


def in_main_interpreter() -> bool:
    """Whether this is the interpreter that callbacks run in."""
    current, main = ctypes.pythonapi.PyInterpreterState_Get, ctypes.pythonapi.PyInterpreterState_Main
    current.restype = main.restype = ctypes.c_void_p
    return bool(current() == main())
