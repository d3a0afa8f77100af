"""Reads certificates and private keys: PEM text or DER, from a file that is read once or from memory.

OpenSSL's own messages name neither the file nor its fault ("PEM lib"). Here the content is taken apart first, and the
error says which file it is, what is in it, and what is missing or damaged.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "Block",
    "Source",
    "block_of",
    "broken",
    "certificates_in",
    "content",
    "elements",
    "pkcs12_in",
    "private_key_in",
    "read_source",
]

_BEGIN = re.compile(rb"^[ \t]*-----BEGIN ([A-Z0-9 ]+)-----[ \t\r]*$", re.MULTILINE)
_MAX_SIZE = 64 * 1024 * 1024
"""Bytes of a file, a guess: the largest bundles of CAs have less than one MiB, and ``/dev/zero`` never ends."""

_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_KEYS = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY")

_DECODED = (*_CERTIFICATES, *_KEYS, "PKCS12")
"""The other blocks are only named, and may have another form: those of PGP have a checksum."""

_NAMES = {
    "CERTIFICATE REQUEST": "a certificate request",
    "NEW CERTIFICATE REQUEST": "a certificate request",
    "PUBLIC KEY": "a public key",
    "RSA PUBLIC KEY": "a public key",
    "OPENSSH PRIVATE KEY": "a private key in OpenSSH's own format",
    "X509 CRL": "a revocation list",
    "PKCS7": "a PKCS#7 structure, whose certificates `openssl pkcs7 -print_certs -in FILE -out NEW` takes out",
    "PKCS12": "a PKCS#12 structure",
    "EC PARAMETERS": "parameters of a curve",
    "DH PARAMETERS": "Diffie-Hellman parameters",
    "SSH2 PUBLIC KEY": "a public key of SSH",
    "PGP PRIVATE KEY BLOCK": "a private key of PGP, which TLS does not use",
    "PGP PUBLIC KEY BLOCK": "a public key of PGP, which TLS does not use",
}
"""Blocks that are neither a certificate nor a private key, in words."""

_BEGINNINGS = {
    b"ssh-": "a public key of SSH, which TLS does not use",
    b"ecdsa-sha2-": "a public key of SSH, which TLS does not use",
    b"PuTTY-User-Key-File-": "a key of PuTTY; `puttygen FILE -O private-openssh -o NEW` converts it",
    b"\xfe\xed\xfe\xed": "a Java keystore; `keytool -importkeystore -deststoretype PKCS12` converts it",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"<": "HTML or XML, perhaps the error page of a download",
    b"-----BEGIN": "PEM text whose BEGIN line is damaged: it is a line of its own, with five hyphens at both ends",
    b"----BEGIN": "PEM text whose BEGIN line is damaged: it has five hyphens at both ends",
    b"\xff\xfe": "UTF-16 text; save it as ASCII",
    b"\xfe\xff": "UTF-16 text; save it as ASCII",
}
"""What a source is that has no blocks, told by its first bytes."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of a file or of an argument.

    Attributes:
        data: the bytes.
        name: for errors: ``'server.pem'`` with its quotes, or ``cert_data``.
        path: of the file, else ``""``.
    """

    data: bytes
    name: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """One object of a source.

    Attributes:
        label: the PEM label.
        der: the bytes; of an encrypted key of the old form the encrypted ones.
        text: the block as PEM, for OpenSSL.
    """

    label: str
    der: bytes
    text: bytes

    @property
    def is_encrypted(self) -> bool:
        """Whether it is a private key that needs a password."""
        return self.label == "ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in self.text.partition(b"\n\n")[0][27:]


def broken(source: Source, message: str) -> ssl.SSLError:
    """Return the error for content that cannot be used."""
    error = ssl.SSLError(errno.EINVAL, message)
    error.filename = source.path or None
    return error


def read_source(path: str, origin: str = "") -> Source:
    """Read a file once; it may be a pipe.

    Args:
        path: of the file.
        origin: for errors: why this file, in parentheses.

    Raises:
        OSError: it cannot be read; ``filename`` is set.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_SIZE + 1)
        if len(data) > _MAX_SIZE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path + origin) from None
    return Source(data, f"{path!r}{origin}", path)


def certificates_in(source: Source) -> list[bytes]:
    """Return the certificates as DER, in their order.

    Raises:
        ssl.SSLError: there is none, or one is damaged.
    """
    found = [first_element(block.der) for block in _blocks(source) if block.label in _CERTIFICATES]
    if not found:
        raise broken(source, f"there is no certificate in {source.name}: {_contents(source)}")
    for number, der in enumerate(found, 1):
        if not der:
            raise broken(
                source, f"certificate {number} of {source.name} is damaged: it is no ASN.1 structure"
            )
    return found


def private_key_in(source: Source) -> Block:
    """Return the first private key.

    Raises:
        ssl.SSLError: there is none, or it is damaged.
    """
    for block in _blocks(source):
        if block.label in _KEYS:
            return block
    hint = ""
    if pkcs12_in(source) is not None:
        hint = "; give it in place of the certificate, and no other file"
    if b"-----BEGIN OPENSSH PRIVATE KEY-----" in source.data:
        hint = "; `ssh-keygen -p -m PKCS8 -f FILE` converts it"
    raise broken(source, f"there is no private key in {source.name}: {_contents(source)}{hint}")


def pkcs12_in(source: Source) -> bytes | None:
    """Return the PKCS#12 structure that a source begins with, as DER; None if it begins with something else.

    Raises:
        ssl.SSLError: the source is damaged.
    """
    block = next(_blocks(source), None)
    return block.der if block is not None and block.label == "PKCS12" else None


def _blocks(source: Source) -> Iterator[Block]:
    """Iterate over the objects of a source, whatever their labels.

    Raises:
        ssl.SSLError: one is cut off, or is not base64.
    """
    data = source.data.removeprefix(b"\xef\xbb\xbf")
    begins = list(_BEGIN.finditer(data))
    if not begins and (block := _der_block(data)) is not None:
        yield block
    for index, begin in enumerate(begins):
        label = begin[1]
        stop = begins[index + 1].start() if index + 1 < len(begins) else len(data)
        end = data.find(b"-----END " + label + b"-----", begin.end(), stop)
        line = data.count(b"\n", 0, begin.start()) + 1
        where = f"the {label.decode()} that begins in line {line} of {source.name}"
        if end < 0:
            raise broken(source, f"{where} is cut off: its END line is missing")
        if label.decode() not in _DECODED:
            yield Block(label.decode(), b"", b"")
            continue
        body = data[begin.end() : end].replace(b"\r", b"").strip()
        headers, blank, rest = body.rpartition(b"\n\n")
        try:
            der = base64.b64decode(b"".join(rest.split()), validate=True)
        except binascii.Error as error:
            raise broken(source, f"{where} is damaged: {error}") from None
        text = b"-----BEGIN %b-----\n%b%b%b\n-----END %b-----\n" % (label, headers, blank, rest, label)
        yield Block(label.decode(), der, text)


def _der_block(data: bytes) -> Block | None:
    """Return what DER bytes are, told by their ASN.1 structure; None if they are nothing that is known."""
    label = _label_of(data)
    return None if label is None else block_of(label, data)


def block_of(label: str, der: bytes) -> Block:
    """Return the block of a structure."""
    name = label.encode()
    return Block(
        label, der, b"-----BEGIN %b-----\n%b-----END %b-----\n" % (name, base64.encodebytes(der), name)
    )


def _label_of(data: bytes) -> str | None:
    """Return the PEM label of a structure, told by its first two elements."""
    inner = content(data)
    if inner is None:
        return None
    first = first_element(inner)
    after = inner[len(first) : len(first) + 1]
    if first[:1] == b"\x06":  # an object identifier
        return "PKCS7"
    if first[:1] == b"\x02":  # a version
        if first == b"\x02\x01\x03":
            return "PKCS12"
        return {b"\x30": "PRIVATE KEY", b"\x02": "RSA PRIVATE KEY", b"\x04": "EC PRIVATE KEY"}.get(after)
    return {b"\x04": "ENCRYPTED PRIVATE KEY", b"\x03": "PUBLIC KEY"}.get(after) or _signed(content(first))


def _signed(value: bytes | None) -> str | None:
    """Return the label of a structure that is signed, from what was signed."""
    if value is None:
        return None
    if value[:1] == b"\xa0":  # a version that is tagged
        return "CERTIFICATE"
    if value[:3] == b"\x02\x01\x00":
        return "CERTIFICATE REQUEST"
    return "X509 CRL" if value[:1] == b"\x02" else None


def first_element(data: bytes) -> bytes:
    """Return the first ASN.1 element with its head; ``b""`` if it is not whole."""
    if len(data) < 2:
        return b""
    length, size = data[1], 2
    if length & 0x80:
        size += length & 0x7F
        if size == 2 or size > len(data) or size > 6:
            return b""
        length = int.from_bytes(data[2:size], "big")
    return data[: size + length] if size + length <= len(data) else b""


def elements(data: bytes | None) -> Iterator[bytes]:
    """Iterate over the ASN.1 elements of a content."""
    while data and (element := first_element(data)):
        yield element
        data = data[len(element) :]


def content(data: bytes) -> bytes | None:
    """Return the content of a sequence; None if the data does not begin with a whole one."""
    element = first_element(data)
    if element[:1] != b"\x30":
        return None
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]


def _contents(source: Source) -> str:
    """Say what a source has, for the error about what it has not."""
    data = source.data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not data:
        return "it is empty"
    labels = Counter(block.label for block in _blocks(source))
    if labels:
        words = [_in_words(label, count) for label, count in labels.items()]
        return f"it has {' and '.join(words)}"
    for beginning, words_of_it in _BEGINNINGS.items():
        if data.startswith(beginning):
            return f"it is {words_of_it}"
    if _label_of(_decoded(data)):
        return "it is base64 without its BEGIN and END lines"
    if data[:2] in (b"\x30\x81", b"\x30\x82"):  # a sequence with its length in one or two bytes
        return "it is DER that is cut off or damaged"
    return "it is no PEM text and no DER"


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        return b""


def _in_words(label: str, count: int) -> str:
    if label in _CERTIFICATES:
        return "a certificate" if count == 1 else f"{count} certificates"
    if label in _KEYS:
        return "a private key" if count == 1 else f"{count} private keys"
    return _NAMES.get(label, f"a block {label!r}")
