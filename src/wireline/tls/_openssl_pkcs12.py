"""PKCS#12 over the bridge: ``ssl`` does not read it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ._libssl import Library, buffer_of, read_bytes, words
from ._openssl import BridgeUnavailable, call, library

__all__ = ["Content", "parse"]


class Content(NamedTuple):
    """The content of a PKCS#12 structure, all DER.

    Attributes:
        key: PKCS#8; ``b""`` if there is none.
        certificate: of the key; ``b""`` if there is none.
        others: the other certificates.
    """

    key: bytes
    certificate: bytes
    others: tuple[bytes, ...]


def parse(data: bytes, password: bytes | None) -> Content:
    """Decrypt a PKCS#12 structure and take it apart.

    Args:
        data: the structure, as DER.
        password: None stands for no password, and for an empty one.

    Raises:
        BridgeUnavailable: the bridge is off, or this OpenSSL has no PKCS#12.
        ssl.SSLError: OpenSSL refuses it; ``reason`` says why.
    """
    lib = library()
    if not all((lib.d2i_PKCS12, lib.PKCS12_parse, lib.EVP_PKEY2PKCS8, lib.CRYPTO_clear_free)):
        raise BridgeUnavailable("this OpenSSL has no PKCS#12")
    buffer, address = buffer_of(data)
    position, (position_address,) = words(address)
    pointer = lib.d2i_PKCS12(0, position_address, len(data))
    del buffer, position
    if not pointer:
        lib.ERR_clear_error()
        error = ssl.SSLError(ssl.SSL_ERROR_SSL, "d2i_PKCS12 failed")
        error.library, error.reason = "PKCS12", "DECODE_ERROR"
        raise error
    found, outputs = words(0, 0, 0)
    try:
        # A failure leaves nothing to free, but OpenSSL 1.1.1 leaves the pointers to what it has freed itself.
        call(lib, "PKCS12_parse", pointer, password, *outputs)
    finally:
        lib.PKCS12_free(pointer)
    try:
        return Content(_key(lib, found[0]), _certificate(lib, found[1]), tuple(_others(lib, found[2])))
    finally:
        lib.EVP_PKEY_free(found[0])
        lib.X509_free(found[1])
        lib.OPENSSL_sk_free(found[2])
        lib.ERR_clear_error()


def _key(lib: Library, key: int) -> bytes:
    if not key:
        return b""
    info = lib.EVP_PKEY2PKCS8(key)
    try:
        return _encoded(lib, lib.i2d_PKCS8_PRIV_KEY_INFO, info)
    finally:
        lib.PKCS8_PRIV_KEY_INFO_free(info)


def _certificate(lib: Library, certificate: int) -> bytes:
    return _encoded(lib, lib.i2d_X509, certificate) if certificate else b""


def _others(lib: Library, stack: int) -> Iterator[bytes]:
    """Take the certificates off a stack, which may be NULL."""
    while certificate := lib.OPENSSL_sk_shift(stack):
        try:
            yield _certificate(lib, certificate)
        finally:
            lib.X509_free(certificate)


def _encoded(lib: Library, encode: Callable[..., int], structure: int) -> bytes:
    """Encode a structure as DER.

    Raises:
        ssl.SSLError: OpenSSL cannot encode it.
    """
    output, (address,) = words(0)
    size = encode(structure, address) if structure else 0
    if size <= 0:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, "OpenSSL cannot encode a part of the PKCS#12 structure")
    try:
        return read_bytes(output[0], size)
    finally:
        lib.CRYPTO_clear_free(output[0], size, 0, 0)
