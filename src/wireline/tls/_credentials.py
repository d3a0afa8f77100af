"""The certificate chain and private key that a context presents, and what is wrong with them if OpenSSL refuses them.

``ssl`` loads them from files only. They are read once, so a pipe works and a file that changes is no half of a pair,
and are given to OpenSSL as a file in memory that no other process can open by a name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import _pkcs12
from ._pem import Block, Source, broken, certificates_in, pkcs12_in, private_key_in
from ._tls_options import Password

__all__ = ["Credentials"]

_WEAK = {
    "EE_KEY_TOO_SMALL": "the key of the first certificate of {cert} is too short for OpenSSL's security level",
    "CA_KEY_TOO_SMALL": "the key of an intermediate certificate of {cert} is too short for OpenSSL's security level",
    "CA_MD_TOO_WEAK": "a certificate of {cert} is signed with a digest that is broken (MD5 or SHA-1)",
}
"""OpenSSL's reasons, in words."""

_MISMATCHES = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""The last one is OpenSSL's for a key of another kind, RSA for example, than that of the certificate."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate with its intermediates, and its key.

    Attributes:
        chain: DER, in the order of the source.
        key: as PEM.
        cert_source: where the chain was read.
        key_source: where the key was read.
    """

    chain: tuple[bytes, ...]
    key: Block
    cert_source: Source
    key_source: Source

    @classmethod
    def of(cls, cert: Source, key: Source | None, password: Password | None) -> Credentials:
        """Take the sources apart.

        Args:
            cert: has the chain; it may be PKCS#12.
            key: has the key; None if the key is in ``cert``.
            password: of PKCS#12. That of a key is asked for when the key is loaded.

        Raises:
            ssl.SSLError: there is no certificate or no key, one is damaged, or the password of PKCS#12 is missing or
                wrong.
        """
        if (pkcs12 := pkcs12_in(cert)) is not None:
            if key is not None:
                raise broken(
                    cert, f"{cert.name} is a PKCS#12 file, which has its own key: leave out {key.name}"
                )
            chain, own_key = _pkcs12.read(cert, pkcs12, password)
            return cls(chain, own_key, cert, cert)
        key = key or cert
        return cls(tuple(certificates_in(cert)), private_key_in(key), cert, key)

    def load(self, context: ssl.SSLContext, password: Password | None) -> None:
        """Make a context present them.

        Raises:
            ssl.SSLError: certificate and key do not match, the password is missing or wrong, or OpenSSL refuses one;
                the message names the file and the fault.
        """

        def get_password() -> str | bytes:
            # Always a callable: without one OpenSSL would ask for the password on the terminal.
            if password is None:
                raise broken(
                    self.key_source,
                    f"the key in {self.key_source.name} is encrypted, and no password was given",
                )
            return password() if callable(password) else password

        try:
            self._load(context, self.chain, get_password)
        except ssl.SSLError as error:
            if not hasattr(error, "reason"):
                raise  # not OpenSSL's: that of `get_password`, or of the callable that it calls
            raise self._explained(error, get_password) from error

    def _load(
        self, context: ssl.SSLContext, chain: tuple[bytes, ...], get_password: Callable[[], str | bytes]
    ) -> None:
        text = b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in chain) + self.key.text
        with _in_memory(text) as path:
            context.load_cert_chain(path, None, get_password)

    def _explained(self, error: ssl.SSLError, get_password: Callable[[], str | bytes]) -> ssl.SSLError:
        cert, key = self.cert_source.name, self.key_source.name
        reason = f" ({error.reason})" if error.reason else ""
        if error.reason in _WEAK:
            return broken(self.cert_source, _WEAK[error.reason].format(cert=cert))
        if (number := self._damaged()) is not None:
            return broken(self.cert_source, f"certificate {number} of {cert} is damaged{reason}")
        if error.reason in _MISMATCHES:
            return self._mismatch(get_password)
        if error.reason == "UNKNOWN_CERTIFICATE_TYPE":
            return broken(
                self.key_source, f"the key in {key} cannot sign, as TLS needs: it is of another kind"
            )
        if self.key.is_encrypted:
            return broken(
                self.key_source, f"the password does not open the key in {key}, or the key is damaged"
            )
        return broken(
            self.key_source,
            f"the private key in {key} is damaged, or of a kind that OpenSSL cannot use{reason}",
        )

    def _damaged(self) -> int | None:
        """Return the number of the first certificate that OpenSSL cannot read, from 1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for number, der in enumerate(self.chain, 1):
            try:
                context.load_verify_locations(cadata=der)
            except ssl.SSLError:
                return number
        return None

    def _mismatch(self, get_password: Callable[[], str | bytes]) -> ssl.SSLError:
        cert, key = self.cert_source.name, self.key_source.name
        for number, der in enumerate(self.chain[1:], 2):
            try:
                self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), (der,), get_password)
            except ssl.SSLError:
                continue
            return broken(
                self.cert_source,
                f"the first certificate of {cert} does not belong to the key in {key}, and certificate {number} "
                "does: put it first",
            )
        return broken(self.cert_source, f"the certificate in {cert} does not belong to the key in {key}")


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """Give data a path as long as the block runs: of a file in memory, else of one that only this user can read."""
    fd = -1
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("wireline", os.MFD_CLOEXEC)
    path = f"/proc/self/fd/{fd}"
    try:
        if fd >= 0:
            _write_all(fd, data)
            if os.path.exists(path):  # /proc is mounted
                yield path
                return
        with tempfile.NamedTemporaryFile(prefix="wireline-") as file:  # mode 0600
            file.write(data)
            file.flush()
            yield file.name
    finally:
        if fd >= 0:
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if not written:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view = view[written:]
