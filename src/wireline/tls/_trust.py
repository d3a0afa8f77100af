"""The source of the trusted CAs.

OpenSSL's own functions (``load_default_certs``, ``set_default_verify_paths``) always obey ``SSL_CERT_FILE`` and
``SSL_CERT_DIR``, treat a missing file as an empty list, and read a directory only when a certificate is verified. Here
the source is read when the context is made, the environment counts only if the context asks for it, and an empty source
is an error.
"""

from __future__ import annotations

import errno
import os
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ._pem import Source, broken, certificates_in, read_source
from ._tls_options import VerifyMode

__all__ = ["Trust", "find"]

# The bundles and directories of the distributions, as in Go's crypto/x509 and Nim's ssl_certs.
_KNOWN_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL 7 and later
    "/etc/ssl/cert.pem",  # Alpine, macOS, OpenBSD
    "/usr/local/etc/ssl/cert.pem",  # FreeBSD
    "/usr/local/share/certs/ca-root-nss.crt",  # FreeBSD before 12.2
)
_KNOWN_DIRECTORIES = (
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/system/etc/security/cacerts",  # Android
)
_WINDOWS_STORES = ("ROOT", "CA")
_SERVER_AUTH = "1.3.6.1.5.5.7.3.1"  # the extended key usage "TLS web server authentication"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The certificates of one source.

    Attributes:
        source: for errors; without its data, which would double the memory.
        certificates: as DER, in their order; at least one.
    """

    source: Source
    certificates: tuple[bytes, ...]

    @classmethod
    def of(cls, source: Source) -> Bundle:
        """Take a source apart.

        Raises:
            ssl.SSLError: there is no certificate in it, or one is damaged.
        """
        return cls(replace(source, data=b""), tuple(certificates_in(source)))

    def load(self, context: ssl.SSLContext) -> None:
        """Make a context trust these certificates.

        Raises:
            ssl.SSLError: one is damaged.
        """
        try:
            context.load_verify_locations(cadata=b"".join(self.certificates))
        except ssl.SSLError:
            for number, der in enumerate(self.certificates, 1):
                try:
                    context.load_verify_locations(cadata=der)
                except ssl.SSLError as error:
                    message = f"certificate {number} of {self.source.name} is damaged ({error.reason})"
                    raise broken(self.source, message) from error


@dataclass(frozen=True, slots=True)
class Trust:
    """A source of CAs.

    Attributes:
        given: CAs that the caller has named, read already.
        files: bundles of the system.
        directories: directories of the system.
        windows: the certificate store of Windows.
    """

    given: tuple[Bundle, ...] = ()
    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    windows: bool = False

    def load(self, context: ssl.SSLContext) -> None:
        """Make a context trust these CAs.

        Raises:
            OSError: a file or directory cannot be read, or contains no certificate of a CA.
        """
        for bundle in self.given:
            bundle.load(context)
        for file in self.files:
            _load_file(context, file)
        for directory in self.directories:
            for bundle in _bundles_of(directory):
                bundle.load(context)
        if self.windows:
            _load_windows(context)


def find(verify_mode: VerifyMode, ca_file: str = "", ca_dir: str = "", ca_data: bytes | None = None) -> Trust:
    """Return the source of CAs: the given one only, else the environment's (if the mode says so), else the system's.

    Raises:
        OSError: the named source does not exist or has no certificate, or none is named and the system has no CAs.
    """
    if ca_file or ca_dir or ca_data is not None:
        given = _given((ca_file,) if ca_file else (), (ca_dir,) if ca_dir else ())
        if ca_data is not None:
            given += (Bundle.of(Source(ca_data, "ca_data")),)
        return Trust(given)
    if verify_mode is VerifyMode.PEER_USE_ENV_VARS:
        # Empty counts as unset: many tools have no other way to unset a variable for a child.
        if file := os.environ.get("SSL_CERT_FILE"):
            return Trust(_given((file,), (), " (from SSL_CERT_FILE)"))
        if directories := os.environ.get("SSL_CERT_DIR"):
            paths = tuple(filter(None, directories.split(os.pathsep)))
            return Trust(_given((), paths, " (from SSL_CERT_DIR)"))
    return _system_trust()


def _given(files: tuple[str, ...], directories: tuple[str, ...], origin: str = "") -> tuple[Bundle, ...]:
    given = [Bundle.of(read_source(file, origin)) for file in files]
    for directory in directories:
        try:
            os.listdir(directory)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, directory + origin) from None
        found = list(_bundles_of(directory))
        if not found:
            nothing = Source(b"", repr(directory) + origin, directory)
            raise broken(nothing, f"there is no certificate in the files of {nothing.name}")
        given += found
    return tuple(given)


def _system_trust() -> Trust:
    if sys.platform == "win32":
        return Trust(windows=True)
    paths = ssl.get_default_verify_paths()
    # Not its `cafile` and `capath`: those are the environment's.
    for file in (*_KNOWN_FILES, paths.openssl_cafile):
        if os.path.isfile(file) and os.path.getsize(file):
            return Trust(files=(file,))
    for directory in (*_KNOWN_DIRECTORIES, paths.openssl_capath):
        if any(_files_in(directory)):
            return Trust(directories=(directory,))
    raise FileNotFoundError(
        errno.ENOENT,
        "no trusted CAs were found on this system: install them (ca-certificates), or give ca_file or ca_dir; "
        "to verify no certificate (a pre-shared key only), use VerifyMode.NONE",
        paths.openssl_cafile,
    )


def _load_file(context: ssl.SSLContext, path: str) -> None:
    """Load a bundle of the system, by OpenSSL alone: it is large, and not the caller's."""
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        source = Source(b"", repr(path), path)
        raise broken(source, f"the CAs of the system in {path!r} cannot be read ({error.reason})") from error


def _bundles_of(directory: str) -> Iterator[Bundle]:
    """Iterate over the files of a directory that have certificates; others are skipped, as OpenSSL does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in _files_in(directory):
        try:
            bundle = Bundle.of(read_source(path))
            bundle.load(context)
        except OSError:  # includes `ssl.SSLError`
            continue
        yield bundle


def _files_in(directory: str) -> Iterator[str]:
    """Iterate over the files of a directory, each once: most have a second name, a link named by a hash."""
    try:
        paths = sorted({os.path.realpath(os.path.join(directory, name)) for name in os.listdir(directory)})
    except OSError:
        return
    yield from filter(os.path.isfile, paths)


def _load_windows(context: ssl.SSLContext) -> None:
    if sys.platform == "win32":
        for store in _WINDOWS_STORES:
            for data, encoding, purposes in ssl.enum_certificates(store):
                if encoding == "x509_asn" and (purposes is True or _SERVER_AUTH in purposes):
                    context.load_verify_locations(cadata=data)
    if not context.cert_store_stats()["x509"]:
        raise FileNotFoundError(errno.ENOENT, "the certificate store of Windows has no trusted CAs")
