"""TLS of ``connect``, ``listen`` and ``relay``: contexts made from the options, and handshakes with detailed errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar

from wireline import Deadline, SocketTimeout, Target
from wireline.cli._certificate_capture import PeerCertificateCapture
from wireline.cli._outcome import HandshakeFailure, HandshakeTimeout
from wireline.cli._peer import ANY_SOURCE, Source, dial_stream
from wireline.cli._psk_files import read_key, read_keys
from wireline.cli._secrets import is_descriptor, key_password
from wireline.cli._stderr import print_stderr
from wireline.net import Socket
from wireline.tls import Handshake, SslContext, VerifyMode

if TYPE_CHECKING:
    from wireline.cli._self_signed import SelfSigned

T = TypeVar("T")

_HANDSHAKE_TIMEOUT = 10.0
"""Seconds for the handshake of a client without ``--timeout``: the handshake timeout of ``serve``."""

SETTINGS = ("keylog", "tls_min", "tls_max", "ciphers", "pin", "key_password")
"""The options that clients and servers share."""

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""Names of this machine for its own clients."""


class TlsClient:
    """TLS connections to a target."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Make the context, and warn about unsafe options.

        Raises:
            OSError, ValueError: a file is missing, or its content is wrong.
            NotImplementedError: this interpreter has no pre-shared keys.
        """
        self._name: str = options.sni or ""
        self._starttls: str | None = getattr(options, "starttls", None)
        self._options = options
        self._psk = read_key(options.psk_file) if options.psk_file else None
        if options.no_verify:
            print_stderr(
                "wireline: warning: with --no-verify, anyone on the network path can impersonate the server, and read "
                "and change all data"
            )
        with explain_missing_cas(options):
            self._context = _client_context(options)
            if self._psk is not None:
                self._context.client_get_psk = self._get_psk
            # Made now, so that an error in the files is not reported as an error of the connection.
            self._ssl_context = self._context.ssl_context(Handshake.AS_CLIENT)
        self._capture = PeerCertificateCapture()
        self._lock = threading.Lock()
        self._handshakes = 0

    def _get_psk(self, hint: str | None) -> tuple[str, bytes]:
        assert self._psk is not None
        return self._psk

    def reload(self) -> None:
        """Read the files again, for the connections from now on.

        Raises:
            OSError, ValueError: a file is missing, or its content is wrong. Nothing has changed.
        """
        psk = _read_again(read_key, self._options.psk_file, self._psk)
        with explain_missing_cas(self._options):
            self._context.reload()
            self._psk = psk
            self._ssl_context = self._context.ssl_context(Handshake.AS_CLIENT)

    def connect(self, target: Target, timeout: float | None, source: Source = ANY_SOURCE) -> Socket:
        """Connect and make the handshake, both within ``timeout``.

        Raises:
            HandshakeFailure: the handshake failed.
            OSError, ValueError: as ``dial`` raises them.
        """
        with self._watched():
            try:
                return self._connect(target, timeout, source)
            except ssl.SSLError as error:
                raise HandshakeFailure(
                    error,
                    server=False,
                    psk=self._psk is not None,
                    name=self._name or target.host,
                    sent=self._capture.sent,
                    chain=self._capture.chain(),
                ) from error

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Capture the certificates of this thread's handshake; other threads may make theirs with the same context."""
        with self._lock:
            self._handshakes += 1
            self._capture.watch(self._ssl_context)
        try:
            yield
        finally:
            self._capture.reset()
            with self._lock:
                self._handshakes -= 1
                if not self._handshakes:
                    self._capture.unwatch(self._ssl_context)

    def _connect(self, target: Target, timeout: float | None, source: Source) -> Socket:
        deadline = Deadline(timeout)
        sock = dial_stream(target, timeout, source)
        name = self._name or target.host
        try:
            if self._starttls:
                from wireline.cli.starttls import _starttls  # only --starttls needs it

                _starttls.begin(sock, self._starttls, name, timeout, None if timeout is None else deadline)
            # Not `dial(tls=)`: its timeout does not tell a silent server from one that does not exist.
            self._context.wrap_connected_socket(sock, Handshake.AS_CLIENT, name, deadline)
        except SocketTimeout as error:
            sock.close(linger=0)
            raise HandshakeTimeout(f"within {timeout:g} s") from error
        except BaseException:
            sock.close()
            raise
        if source.verbose:
            from wireline.cli._verbose import report_tls  # only --verbose needs it

            report_tls(sock)
        return sock


@contextlib.contextmanager
def explain_missing_cas(options: argparse.Namespace) -> Iterator[None]:
    """Name the options of the command where the library's error names its own arguments."""
    try:
        yield
    except FileNotFoundError as error:
        password = getattr(options, "key_password", None) or ""
        keylog = getattr(options, "keylog", None) or os.environ.get("SSLKEYLOGFILE")
        named = (options.ca_file, options.cert, options.key, password.partition(":")[2])
        if error.filename == keylog:
            words = f"{error.strerror} (it is the file of --keylog or SSLKEYLOGFILE)"
            raise OSError(error.errno, words, error.filename) from error
        if error.filename in named:
            raise
        raise FileNotFoundError(
            "this system has no trusted CAs; install the package ca-certificates, or name a CA with --ca-file FILE"
        ) from error


def _read_again(read: Callable[[str], T], path: str | None, before: T) -> T:
    """What a file of keys has now; a descriptor can be read only once."""
    return read(path) if path and not is_descriptor(path) else before


def _client_context(options: argparse.Namespace) -> SslContext:
    unverified = options.no_verify or options.psk_file
    context = SslContext(
        # A pre-shared key authenticates the server: without the key its handshake fails.
        verify_mode=VerifyMode.NONE if unverified else VerifyMode.PEER,
        cert_file=options.cert or "",
        key_file=options.key or "",
        ca_file=options.ca_file or "",
        alpn=options.alpn or (),
        **read_settings(options),
    )
    if options.alpn:
        context.require_alpn = True
    return context


class Settings(TypedDict, total=False):
    """The arguments of a context that clients and servers share; an absent one has the library's default."""

    keylog_file: str | Literal[True]
    min_version: ssl.TLSVersion
    max_version: ssl.TLSVersion
    cipher_list: str
    ciphersuites: str
    pinned: list[str]
    password: bytes | Callable[[], str | bytes]


_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def read_settings(options: argparse.Namespace) -> Settings:
    """The settings of the options, of which a command may have only some. A password is read, or will be asked for."""
    given = {name: value for name in SETTINGS if (value := getattr(options, name, None))}
    settings: Settings = {"keylog_file": given.get("keylog") or True}  # True: that of SSLKEYLOGFILE
    if "tls_min" in given:
        settings["min_version"] = _VERSIONS[given["tls_min"]]
    if "tls_max" in given:
        settings["max_version"] = _VERSIONS[given["tls_max"]]
    if "ciphers" in given:
        settings |= _cipher_settings(*given["ciphers"])
    if "pin" in given:
        settings["pinned"] = given["pin"]
    if "key_password" in given:
        settings["password"] = key_password(given["key_password"], options.key or options.cert)
    return settings


def _cipher_settings(older: str, newer: str) -> Settings:
    settings: Settings = {}
    if older:
        settings["cipher_list"] = older
    else:
        settings["min_version"] = ssl.TLSVersion.TLSv1_3
    if newer:
        settings["ciphersuites"] = newer
    return settings


class TlsServer:
    """TLS handshakes with clients."""

    def __init__(
        self, options: argparse.Namespace, own: SelfSigned | None = None, ca_file: Path | None = None
    ) -> None:
        """Make the context.

        Args:
            options: the options of the command.
            own: the throw-away certificate, if there is one.
            ca_file: the file with its CA, which clients must trust.

        Raises:
            OSError, ValueError: a file is missing, or its content is wrong.
            NotImplementedError: this interpreter has no pre-shared keys.
        """
        self._options = options
        self._ca_file = ca_file
        self._keys = read_keys(options.psk_file) if options.psk_file else {}
        self._timeout = _HANDSHAKE_TIMEOUT if options.timeout is None else options.timeout
        self._context = _server_context(options, own)
        if options.psk_file:
            self._context.server_get_psk = lambda identity: self._keys.get(identity, b"")
        self._capture = PeerCertificateCapture()
        self._prepare()

    def _prepare(self) -> None:
        # Made now, so that an error in the files is not reported as an error of the first client.
        ssl_context = self._context.ssl_context(Handshake.AS_SERVER)
        if self._options.client_ca:  # otherwise clients send no certificate
            self._capture.watch(ssl_context)

    def reload(self) -> None:
        """Read the files again, for the handshakes from now on.

        Raises:
            OSError, ValueError: a file is missing, or its content is wrong. Nothing has changed.
        """
        keys = _read_again(read_keys, self._options.psk_file, self._keys)
        self._context.reload()
        self._keys = keys
        self._prepare()

    def handshake(self, client: Socket) -> None:
        """Make the handshake with a client.

        Raises:
            HandshakeFailure: it failed.
            TimeoutError: it took too long.
            ClosedError: the socket was closed in the meantime.
        """
        try:
            self._context.wrap_connected_socket(client, Handshake.AS_SERVER, timeout=self._timeout)
        except SocketTimeout as error:
            raise TimeoutError(f"no TLS handshake within {error.seconds:g} s") from error
        except ssl.SSLError as error:
            raise HandshakeFailure(
                error,
                server=True,
                psk=bool(self._keys),
                sent=self._capture.sent,
                chain=self._capture.chain(),
            ) from error
        finally:
            self._capture.reset()

    def announce(self, address: Target) -> None:
        """Print the throw-away CA and the command of a client, if there is one."""
        if self._ca_file is None:
            return
        print_stderr(self._ca_file.read_text().rstrip())
        words = ["wireline", "connect", "--ca-file", str(self._ca_file)]
        if address.path:
            words += ["--tls", "--sni", _LOCAL_NAMES[0]]
        elif address.host in ("", "0.0.0.0", "::"):
            address = address._replace(host=_LOCAL_NAMES[0])
        print_stderr(f"a client needs this CA: {shlex.join([*words, str(address)])}")


@contextlib.contextmanager
def serving(options: argparse.Namespace) -> Iterator[TlsServer]:
    """The TLS server of the options. The file of a throw-away CA exists while the block runs.

    Raises:
        OSError, ValueError: a file is missing, or its content is wrong.
        ImportError: ``--self-signed`` needs a package that is not installed.
        NotImplementedError: this interpreter has no pre-shared keys.
    """
    if not options.self_signed:
        yield TlsServer(options)
        return
    own = _make_self_signed(options.target)
    with tempfile.TemporaryDirectory(prefix="wireline-") as directory:
        ca_file = Path(directory, "ca.pem")
        ca_file.write_bytes(own.ca)
        yield TlsServer(options, own, ca_file)


def _make_self_signed(target: Target) -> SelfSigned:
    try:
        from wireline.cli import _self_signed
    except ImportError as error:
        raise ImportError(
            "--self-signed needs the package cryptography: pip install 'wireline[cli]'"
        ) from error
    names = [*_LOCAL_NAMES, target.host.partition("%")[0], socket.gethostname()]
    return _self_signed.make([name for name in names if name and name.isascii()])


def _server_context(options: argparse.Namespace, own: SelfSigned | None) -> SslContext:
    return SslContext(
        verify_mode=VerifyMode.PEER if options.client_ca else VerifyMode.NONE,
        cert_file=options.cert or "",
        key_file=options.key or "",
        cert_data=own.server if own else None,
        ca_file=options.client_ca or "",
        client_certs="required" if options.client_ca else "ignore",
        alpn=getattr(options, "alpn", None) or (),  # only `relay` has it
        **read_settings(options),
    )
