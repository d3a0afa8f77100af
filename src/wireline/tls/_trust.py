"""Where the CAs come from.

OpenSSL's own ways (``load_default_certs``, ``set_default_verify_paths``) always obey ``SSL_CERT_FILE`` and
``SSL_CERT_DIR``, take a file that is missing for an empty list, and look at a directory only when a certificate
is checked. Here the source is known before, the environment counts only for who asks for it, and an empty source is
an error.
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

# Bundles, and directories of certificates, as distributions have them: Go's crypto/x509 and Nim's ssl_certs agree.
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
_DER_BEGIN = b"\x30"  # an ASN.1 sequence
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
            OSError: one of the files or directories cannot be read, or has no certificate in it.
        """
        for file in self.files:
            _load_file(context, file)
        for directory in self.directories:
            _load_directory(context, directory)
        if self.windows:
            _load_windows(context)


def find(verify_mode: VerifyMode, ca_file: str = "", ca_dir: str = "") -> Trust:
    """Say where the CAs are: what was given and nothing else, else the environment if it is asked, else the system.

    Raises:
        OSError: what was named does not exist, or nothing was named and the system has no CAs.
    """
    if ca_file or ca_dir:
        return _named((ca_file,) if ca_file else (), (ca_dir,) if ca_dir else ())
    if verify_mode is VerifyMode.PEER_USE_ENV_VARS:
        # An empty variable is one that is not set: there is no other way to unset one for a child, in many tools.
        if file := os.environ.get("SSL_CERT_FILE"):
            return _named((file,), (), " (from SSL_CERT_FILE)")
        if directories := os.environ.get("SSL_CERT_DIR"):
            return _named((), tuple(filter(None, directories.split(os.pathsep))), " (from SSL_CERT_DIR)")
    return _system()


def require_file(path: str, origin: str = "") -> None:
    """Refuse a file that cannot be read, before OpenSSL says less about it.

    Raises:
        OSError: it is missing or not readable, or it is a directory; the error names it.
    """
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with open(path, "rb"):
            pass
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path + origin) from None


def _named(files: tuple[str, ...], directories: tuple[str, ...], origin: str = "") -> Trust:
    for file in files:
        require_file(file, origin)
    for directory in directories:
        try:
            os.listdir(directory)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, directory + origin) from None
    return Trust(files, directories)


def _system() -> Trust:
    if sys.platform == "win32":
        return Trust(windows=True)
    paths = ssl.get_default_verify_paths()
    # `cafile` and `capath` of these would be what the environment says.
    for file in (*_KNOWN_FILES, paths.openssl_cafile):
        if os.path.isfile(file) and os.path.getsize(file):
            return Trust(files=(file,))
    for directory in (*_KNOWN_DIRECTORIES, paths.openssl_capath):
        if any(_files_in(directory)):
            return Trust(directories=(directory,))
    raise FileNotFoundError(
        errno.ENOENT,
        "no trusted CAs were found on this system: install them (ca-certificates), or give ca_file or ca_dir; "
        "where no certificate is to be checked, as with a pre-shared key alone, VerifyMode.NONE needs none",
        paths.openssl_cafile,
    )


def _count(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509"]


def _load_file(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise _nothing_in(path, error) from error
    if not _count(context):  # it may be a list of revoked certificates
        raise _nothing_in(path)


def _load_directory(context: ssl.SSLContext, path: str) -> None:
    loaded = [_load_if_certificate(context, file) for file in _files_in(path)]
    if not any(loaded) or not _count(context):
        raise _nothing_in(path)


def _files_in(directory: str) -> Iterator[str]:
    """The files of a directory, each once: most are there under the hash of their name as well."""
    try:
        paths = sorted({os.path.realpath(os.path.join(directory, name)) for name in os.listdir(directory)})
    except OSError:
        return
    yield from filter(os.path.isfile, paths)


def _load_if_certificate(context: ssl.SSLContext, path: str) -> bool:
    """Load a file of a directory; what is no certificate, or not for us to read, is not meant."""
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
            if data == _DER_BEGIN:
                context.load_verify_locations(cadata=data + file.read())
        return data == _DER_BEGIN
    except OSError:  # which `ssl.SSLError` is one of
        return False


def _load_windows(context: ssl.SSLContext) -> None:
    if sys.platform == "win32":
        for store in _WINDOWS_STORES:
            for data, encoding, purposes in ssl.enum_certificates(store):
                if encoding == "x509_asn" and (purposes is True or _SERVER_AUTH in purposes):
                    context.load_verify_locations(cadata=data)
    if not _count(context):
        raise FileNotFoundError(errno.ENOENT, "the certificate store of Windows has no trusted CAs")


def _nothing_in(path: str, error: ssl.SSLError | None = None) -> ssl.SSLError:
    """An ``OSError`` that is an ``SslError`` as well: the file is there, what is in it is the matter."""
    reason = f" ({error.reason})" if error is not None and error.reason else ""
    failure = ssl.SSLError(errno.EINVAL, f"there is no certificate of a CA in {path!r}{reason}")
    failure.filename = path
    return failure
