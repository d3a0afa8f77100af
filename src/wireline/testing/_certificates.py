"""A certificate authority for tests with TLS, made by the package ``trustme``, which only this module needs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wireline.tls import Handshake, SslContext

if TYPE_CHECKING:
    import trustme

__all__ = ["CertificateFiles", "TestCA"]

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""The names of a server on its own machine."""


class CertificateFiles(NamedTuple):
    """Paths of PEM files."""

    ca: str
    """The certificate of the CA, which a client has to trust."""
    cert: str
    """The server's certificate."""
    key: str
    """The server's private key."""


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
            raise ImportError("TestCA needs the package trustme: pip install trustme") from error
        self._ca: trustme.CA = trustme.CA(organization_name="wireline tests")

    @property
    def pem(self) -> bytes:
        """The certificate of the CA, as PEM."""
        return self._ca.cert_pem.bytes()

    def write(self, directory: str | Path, *names: str) -> CertificateFiles:
        """Issue a server certificate and write the files ``ca.pem``, ``server.pem`` and ``server.key``.

        Args:
            directory: for the files.
            names: the names and addresses of the server; ``localhost`` and its addresses by default.

        Raises:
            OSError: a file cannot be written.
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
        """Make a context for both ends: a server with a new certificate, and a client that trusts this CA.

        Args:
            names: the names and addresses of the server; ``localhost`` and its addresses by default.
        """
        with tempfile.TemporaryDirectory(prefix="wireline-") as directory:
            files = self.write(directory, *names)
            context = SslContext(cert_file=files.cert, key_file=files.key, ca_file=files.ca)
            for role in Handshake:  # this reads the files, which are removed below
                context.ssl_context(role)
        return context
