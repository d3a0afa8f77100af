"""A server of the standard library with TLS inside TLS: two ``ssl.SSLObject`` over memory, one in the other."""

from __future__ import annotations

import contextlib
import ssl

from tests.tls import certificates

__all__ = ["NestedPeer"]


class _Layer:
    """One layer."""

    def __init__(self, version: ssl.TLSVersion) -> None:
        leaf = certificates.server()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf.cert, leaf.key)
        context.minimum_version = context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.obj = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.established = self.ended = False

    def read(self) -> bytes:
        """Decrypt all that there is."""
        plaintext = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while self.established and not self.ended:
                try:
                    piece = self.obj.read(2**16)
                except ssl.SSLZeroReturnError:
                    piece = b""
                self.ended = not piece
                plaintext.append(piece)
        return b"".join(plaintext)


class NestedPeer:
    """Takes and gives the bytes of the wire. Layer 0 is the outer one."""

    def __init__(self, *versions: ssl.TLSVersion) -> None:
        self._layers = [_Layer(version) for version in versions]
        self._received = b""

    def feed(self, wire: bytes) -> None:
        """Take bytes of the wire."""
        for layer in self._layers:
            layer.incoming.write(wire)
            wire = layer.read()
        self._received += wire

    def shake(self, number: int) -> None:
        """Go on with the handshake of a layer."""
        layer = self._layers[number]
        with contextlib.suppress(ssl.SSLWantReadError):
            layer.obj.do_handshake()
            layer.established = True

    def established(self, number: int) -> bool:
        """Whether the handshake of a layer is done."""
        return self._layers[number].established

    def output(self) -> bytes:
        """Take the bytes for the wire."""
        for inner, outer in zip(self._layers[:0:-1], self._layers[-2::-1], strict=True):
            if data := inner.outgoing.read():
                outer.obj.write(data)
        return self._layers[0].outgoing.read()

    def read(self) -> bytes:
        """Take what was received through every layer."""
        received, self._received = self._received, b""
        return received

    def write(self, data: bytes) -> None:
        """Send through every layer."""
        self._layers[-1].obj.write(data)

    def close(self, number: int) -> None:
        """Send the ``close_notify`` of a layer."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._layers[number].obj.unwrap()

    def ends(self) -> list[bool]:
        """Which layers the peer has ended."""
        return [layer.ended for layer in self._layers]
