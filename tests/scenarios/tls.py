"""TLS for the scenarios: the contexts, and a raw peer that uses TLS, does each step of the test and nothing else."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading

from tests.tls import certificates
from wireline.tls import Handshake, SslContext

RECORD = 16 * 1024
"""Bytes in a record at most."""

OVERHEAD = {"TLSv1.2": 29, "TLSv1.3": 22}
"""Bytes that a record takes besides (AES-GCM)."""

_SLICE = 4 * RECORD


@functools.cache
def context(version: ssl.TLSVersion) -> SslContext:
    """A context for both roles with one version of TLS."""
    leaf = certificates.server()
    ours = SslContext(cert_file=leaf.cert, key_file=leaf.key, ca_file=certificates.ca_file())
    for role in Handshake:
        only(ours.ssl_context(role), version)
    return ours


@functools.cache
def raw_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    """The standard library's, for a server."""
    leaf = certificates.server()
    raw = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    raw.load_cert_chain(leaf.cert, leaf.key)
    raw.num_tickets = 0  # so that all that was sent is in the kernel
    only(raw, version)
    return raw


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    context.minimum_version = context.maximum_version = version


class TlsPeer:
    """The server side of a connection, with the methods of ``socket.socket`` that the scenarios use.

    ``shutdown`` sends ``close_notify`` and leaves the TCP connection alone; ``cut`` does it the other way round. Over
    memory and with a lock, like every peer that one thread writes to while another one reads.
    """

    def __init__(self, sock: socket.socket, version: ssl.TLSVersion) -> None:
        self.sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # so that the data is on its way
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._obj = raw_context(version).wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._lock = threading.Lock()
        self._ended = False
        while True:
            try:
                self._obj.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(self.sock.recv(65536))
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.sock.sendall(self._outgoing.read())

    def sendall(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE):
            with self._lock:
                self._obj.write(data[start : start + _SLICE])
                ciphertext = self._outgoing.read()
            self.sock.sendall(ciphertext)

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        while not self._ended:
            with self._lock:
                try:
                    return self._obj.read(size)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:
                    return b""
            data = self.sock.recv(65536)
            if data:
                with self._lock:
                    self._incoming.write(data)
            else:
                self._ended = True
                raise ssl.SSLEOFError("the wire was cut")
        return b""

    def shutdown(self, how: int) -> None:
        assert how in (socket.SHUT_WR, socket.SHUT_RDWR)
        with self._lock, contextlib.suppress(ssl.SSLWantReadError):
            self._obj.unwrap()
        self._flush()
        if how == socket.SHUT_RDWR:
            self.sock.shutdown(how)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self.shutdown(socket.SHUT_WR)
            self.sock.close()

    def cut(self) -> None:
        """End the TCP connection without a word."""
        self.sock.close()

    def setsockopt(self, *args: int | bytes) -> None:
        self.sock.setsockopt(*args)  # type: ignore[call-overload]

    def getsockopt(self, *args: int) -> int:
        return self.sock.getsockopt(*args)

    def settimeout(self, seconds: float | None) -> None:
        self.sock.settimeout(seconds)

    def fileno(self) -> int:
        return self.sock.fileno()
