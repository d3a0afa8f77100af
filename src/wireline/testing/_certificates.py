"""A CA to throw away, for tests that speak TLS. The package ``trustme`` makes it, and is needed only for this."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wireline.tls import Handshake, SslContext

if TYPE_CHECKING:
    import trustme

__all__ = ["CertificateFiles", "TestCA"]

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""What a server is called on its own machine."""


class CertificateFiles(NamedTuple):
    """Paths of PEM files."""

    ca: str
    """The certificate of the CA: what a client has to trust."""
    cert: str
    """The server's certificate."""
    key: str
    """Its key."""


class TestCA:
    """A certificate authority for tests: only the test that made it trusts it."""

    __test__ = False  # pytest collects classes by this prefix

    def __init__(self) -> None:
        """Make the CA.

        Raises:
            ImportError: the package ``trustme`` is not installed.
        """
        try:
            import trustme
        except ImportError as error:
            raise ImportError(
                "certificates to throw away need the package trustme: pip install trustme"
            ) from error
        self._ca: trustme.CA = trustme.CA(organization_name="wireline tests")

    @property
    def pem(self) -> bytes:
        """The certificate of the CA."""
        return self._ca.cert_pem.bytes()

    def write(self, directory: str | Path, *names: str) -> CertificateFiles:
        """Issue a certificate, and write it and what belongs to it into files: ``ca.pem``, ``server.pem`` and the key.

        Args:
            directory: where to write ``ca.pem``, ``server.pem`` and ``server.key``.
            names: the names and addresses that it is for; ``localhost`` and its addresses by default.

        Raises:
            OSError: the directory is missing, or full.
        """
        leaf = self._ca.issue_cert(*(names or _LOCAL_NAMES))
        parts = {
            "ca.pem": self.pem,
            "server.pem": b"".join(blob.bytes() for blob in leaf.cert_chain_pems),
            "server.key": leaf.private_key_pem.bytes(),
        }
        for name, content in parts.items():
            Path(directory, name).write_bytes(content)
        return CertificateFiles(*(str(Path(directory, name)) for name in parts))

    def context(self, *names: str) -> SslContext:
        """Make a configuration for both ends: a server with a new certificate, a client that trusts this CA.

        Args:
            names: the names and addresses that the certificate is for; ``localhost`` and its addresses by default.
        """
        with tempfile.TemporaryDirectory(prefix="wireline-") as directory:
            files = self.write(directory, *names)
            context = SslContext(cert_file=files.cert, key_file=files.key, ca_file=files.ca)
            for role in Handshake:  # the files are read now, and needed no more
                context.ssl_context(role)
        return context
