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
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ._tls_options import VerifyMode

__all__ = ["Trust", "find", "require_file"]

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
_DER_SEQUENCE = b"\x30"  # an ASN.1 sequence
_SERVER_AUTH = "1.3.6.1.5.5.7.3.1"  # the extended key usage "TLS web server authentication"


@dataclass(frozen=True, slots=True)
class Trust:
    """A source of CAs: files and directories that exist, or the certificate store of Windows."""

    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    windows: bool = False

    def load(self, context: ssl.SSLContext) -> None:
        """Make a context trust these CAs.

        Raises:
            OSError: a file or directory cannot be read, or contains no certificate of a CA.
        """
        for file in self.files:
            _load_file(context, file)
        for directory in self.directories:
            _load_directory(context, directory)
        if self.windows:
            _load_windows(context)


def find(verify_mode: VerifyMode, ca_file: str = "", ca_dir: str = "") -> Trust:
    """Return the source of CAs: the given one only, else the environment's (if the mode says so), else the system's.

    Raises:
        OSError: the named source does not exist, or none is named and the system has no CAs.
    """
    if ca_file or ca_dir:
        return _given((ca_file,) if ca_file else (), (ca_dir,) if ca_dir else ())
    if verify_mode is VerifyMode.PEER_USE_ENV_VARS:
        # Empty counts as unset: many tools have no other way to unset a variable for a child.
        if file := os.environ.get("SSL_CERT_FILE"):
            return _given((file,), (), " (from SSL_CERT_FILE)")
        if directories := os.environ.get("SSL_CERT_DIR"):
            return _given((), tuple(filter(None, directories.split(os.pathsep))), " (from SSL_CERT_DIR)")
    return _system_trust()


def require_file(path: str, origin: str = "") -> None:
    """Check that a file can be read; the errors of OpenSSL do not name the file.

    Raises:
        OSError: it is missing, not readable or a directory; ``filename`` is set.
    """
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with open(path, "rb"):
            pass
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path + origin) from None


def _given(files: tuple[str, ...], directories: tuple[str, ...], origin: str = "") -> Trust:
    for file in files:
        require_file(file, origin)
    for directory in directories:
        try:
            os.listdir(directory)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, directory + origin) from None
    return Trust(files, directories)


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


def _certificate_count(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509"]


def _load_file(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise _no_ca_error(path, error) from error
    if not _certificate_count(context):  # OpenSSL accepts a file with only a revocation list
        raise _no_ca_error(path)


def _load_directory(context: ssl.SSLContext, path: str) -> None:
    loaded = [_load_if_certificate(context, file) for file in _files_in(path)]
    if not any(loaded) or not _certificate_count(context):
        raise _no_ca_error(path)


def _files_in(directory: str) -> Iterator[str]:
    """Iterate over the files of a directory, each once: most have a second name, a link named by a hash."""
    try:
        paths = sorted({os.path.realpath(os.path.join(directory, name)) for name in os.listdir(directory)})
    except OSError:
        return
    yield from filter(os.path.isfile, paths)


def _load_if_certificate(context: ssl.SSLContext, path: str) -> bool:
    """Load a file of a directory, PEM or DER; skip one that is not a certificate or not readable."""
    try:
        context.load_verify_locations(cafile=path)
        return True
    except ssl.SSLError:
        pass  # not PEM
    except OSError:
        return False
    try:
        with open(path, "rb") as file:
            data = file.read(1)
            if data == _DER_SEQUENCE:
                context.load_verify_locations(cadata=data + file.read())
        return data == _DER_SEQUENCE
    except OSError:  # includes `ssl.SSLError`
        return False


def _load_windows(context: ssl.SSLContext) -> None:
    if sys.platform == "win32":
        for store in _WINDOWS_STORES:
            for data, encoding, purposes in ssl.enum_certificates(store):
                if encoding == "x509_asn" and (purposes is True or _SERVER_AUTH in purposes):
                    context.load_verify_locations(cadata=data)
    if not _certificate_count(context):
        raise FileNotFoundError(errno.ENOENT, "the certificate store of Windows has no trusted CAs")


def _no_ca_error(path: str, error: ssl.SSLError | None = None) -> ssl.SSLError:
    """Return the error for a source without CAs: it exists, its content is wrong."""
    reason = f" ({error.reason})" if error is not None and error.reason else ""
    failure = ssl.SSLError(errno.EINVAL, f"there is no certificate of a CA in {path!r}{reason}")
    failure.filename = path
    return failure
