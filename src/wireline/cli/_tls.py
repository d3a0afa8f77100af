"""TLS as the command line asks for it: contexts made of options, and handshakes whose failures say enough."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wireline import AF_UNIX, SocketTimeout, Target
from wireline.cli._outcome import HandshakeFailure, say
from wireline.cli._psk import read_key, read_keys
from wireline.cli._witness import Witness
from wireline.net import Socket, dial
from wireline.tls import Handshake, SslContext, VerifyMode

if TYPE_CHECKING:
    from wireline.cli._throwaway import Throwaway

_HANDSHAKE_PATIENCE = 10.0
"""Seconds that a client gets for its handshake without ``--timeout``; as with ``serve``."""

_HERE = ("localhost", "127.0.0.1", "::1")
"""What a server is called on its own machine."""


class Client:
    """How ``connect`` speaks TLS."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Make the context, and warn of what is better not done.

        Raises:
            OSError, ValueError: a file is missing, or has not in it what it should.
            NotImplementedError: this interpreter has no pre-shared keys.
        """
        self._name: str = options.sni or ""
        self._psk = options.psk or (read_key(options.psk_file) if options.psk_file else None)
        if options.psk:
            say(
                "wireline: warning: the key of --psk is in the list of processes; --psk-file keeps it to yourself"
            )
        if options.no_verify:
            say(
                "wireline: warning: --no-verify: anybody between here and there can be the server, read everything, "
                "and change it"
            )
        with told_of_missing_cas(options):
            self._context = _client_context(options, self._psk)
            # Made now, and not on the first connection: what is wrong with the files is no matter of the server's.
            self._underneath = self._context.ssl_context(Handshake.AS_CLIENT)
        self._witness = Witness()

    def connect(self, target: Target, timeout: float | None) -> Socket:
        """Connect, and shake hands under the same deadline.

        Raises:
            HandshakeFailure: no TLS came of it.
            OSError, ValueError: as ``dial`` raises them.
        """
        self._witness.watch(self._underneath)
        try:
            return self._connect(target, timeout)
        except ssl.SSLError as error:
            raise HandshakeFailure(
                error,
                server=False,
                psk=self._psk is not None,
                name=self._name or target.host,
                certificate=self._witness.certificate,
            ) from error
        finally:
            self._witness.leave(self._underneath)

    def _connect(self, target: Target, timeout: float | None) -> Socket:
        if not target.path:
            return dial(
                target.host, target.port, timeout=timeout, tls=self._context, hostname=self._name or None
            )
        sock = Socket(AF_UNIX)
        try:
            self._context.wrap_socket(sock, self._name)
            sock.connect_unix(target.path, timeout)
        except BaseException:
            sock.close()
            raise
        return sock


@contextlib.contextmanager
def told_of_missing_cas(options: argparse.Namespace) -> Iterator[None]:
    """Say in the words of the command line that the system has no CAs: the library's are for programs."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename in (options.ca_file, options.cert, options.key):
            raise
        raise FileNotFoundError(
            "this system has no CAs that it trusts (the package ca-certificates); --ca-file FILE says whom to trust"
        ) from error


def _client_context(options: argparse.Namespace, psk: tuple[str, bytes] | None) -> SslContext:
    unverified = options.no_verify or psk is not None
    context = SslContext(
        # With a key no certificate is needed, nor any CA: who does not know the key is refused all the same.
        verify_mode=VerifyMode.NONE if unverified else VerifyMode.PEER,
        cert_file=options.cert or "",
        key_file=options.key or "",
        ca_file=options.ca_file or "",
        alpn=options.alpn or (),
    )
    if options.alpn:
        context.require_alpn = True
    if psk is not None:
        context.client_get_psk = lambda hint: psk
    return context


class Server:
    """How ``listen`` speaks TLS."""

    def __init__(
        self, options: argparse.Namespace, cert_file: str, key_file: str = "", ca_file: Path | None = None
    ) -> None:
        """Make the context.

        Args:
            options: what the command line says.
            cert_file: our certificate; ``""`` if there is none. It is needed no more afterwards.
            key_file: its key, if that is in another file.
            ca_file: the CA that clients have to be told of.

        Raises:
            OSError, ValueError: a file is missing, or has not in it what it should.
            NotImplementedError: this interpreter has no pre-shared keys.
        """
        self._ca_file = ca_file
        self._psk = bool(options.psk_file)
        self._timeout = _HANDSHAKE_PATIENCE if options.timeout is None else options.timeout
        self._context = _server_context(options, cert_file, key_file)
        self._witness = Witness()
        # Made now, and not for the first client: what is wrong with the files is no matter of the client's.
        underneath = self._context.ssl_context(Handshake.AS_SERVER)
        if options.client_ca:  # else no client shows anything
            self._witness.watch(underneath)

    def secure(self, client: Socket) -> None:
        """Shake hands with a client.

        Raises:
            HandshakeFailure: no TLS came of it.
            TimeoutError: the client took too long.
            ClosedError: the socket was closed meanwhile.
        """
        self._witness.certificate = None
        try:
            self._context.wrap_connected_socket(client, Handshake.AS_SERVER, timeout=self._timeout)
        except SocketTimeout as error:
            raise TimeoutError(f"no TLS handshake within {error.seconds:g} s") from error
        except ssl.SSLError as error:
            raise HandshakeFailure(
                error, server=True, psk=self._psk, certificate=self._witness.certificate
            ) from error

    def announce(self, address: Target) -> None:
        """Say what a client needs to trust the throw-away certificate, if there is one."""
        if self._ca_file is None:
            return
        say(self._ca_file.read_text().rstrip())
        words = ["wireline", "connect", "--ca-file", str(self._ca_file)]
        if address.path:
            words += ["--tls", "--sni", _HERE[0]]
        elif address.host in ("", "0.0.0.0", "::"):
            address = address._replace(host=_HERE[0])
        say(f"a client needs this CA: {shlex.join([*words, str(address)])}")


@contextlib.contextmanager
def serving(options: argparse.Namespace) -> Iterator[Server]:
    """TLS for the time of the block; the file of a throw-away CA lives as long.

    Raises:
        OSError, ValueError: a file is missing, or has not in it what it should.
        ImportError: ``--self-signed`` needs a package that is not installed.
        NotImplementedError: this interpreter has no pre-shared keys.
    """
    if not options.self_signed:
        yield Server(options, options.cert or "", options.key or "")
        return
    made = _make_throwaway(options.target)
    with tempfile.TemporaryDirectory(prefix="wireline-") as directory:
        ca_file, own_file = Path(directory, "ca.pem"), Path(directory, "server.pem")
        ca_file.write_bytes(made.ca)
        # `ssl` takes keys from files alone. The directory is for its owner's eyes only.
        own_file.write_bytes(made.server)
        server = Server(options, str(own_file), ca_file=ca_file)
        own_file.unlink()
        yield server


def _make_throwaway(target: Target) -> Throwaway:
    try:
        from wireline.cli import _throwaway
    except ImportError as error:
        raise ImportError(
            "--self-signed needs the package cryptography: pip install 'wireline[cli]'"
        ) from error
    names = [*_HERE, target.host.partition("%")[0], socket.gethostname()]
    return _throwaway.make([name for name in names if name and name.isascii()])


def _server_context(options: argparse.Namespace, cert_file: str, key_file: str) -> SslContext:
    context = SslContext(
        verify_mode=VerifyMode.PEER if options.client_ca else VerifyMode.NONE,
        cert_file=cert_file,
        key_file=key_file,
        ca_file=options.client_ca or "",
        client_certs="required" if options.client_ca else "ignore",
    )
    if options.psk_file:
        keys = read_keys(options.psk_file)
        context.server_get_psk = lambda identity: keys.get(identity, b"")
    return context
