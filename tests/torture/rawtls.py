"""TLS over memory and a bare socket: a peer that can cut, reorder and repeat records, and write some by hand."""

from __future__ import annotations

import socket
import ssl


class RawTls:
    """One end of a TLS connection.

    Attributes:
        sock: the bare socket; data written to it is sent as it is.
        tls: the TLS connection over memory.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool = False) -> None:
        self.sock = sock
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=server_side)

    def hello(self) -> bytes:
        """A client's first flight, which is not sent."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._out.read()
        raise AssertionError("a handshake that needs no answer")

    def pending(self) -> bytes:
        """Records that are to be sent, and are not."""
        return self._out.read()

    def flush(self) -> None:
        """Send the pending output."""
        self.sock.sendall(self._out.read())

    def _receive(self) -> bool:
        data = self.sock.recv(65536)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return bool(data)

    def handshake(self) -> None:
        """Make the handshake, or finish it."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                if not self._receive():
                    raise ConnectionResetError("the connection ended in the handshake") from None
            else:
                self.flush()
                return

    def seal(self, data: bytes) -> bytes:
        """Records with this data, which are not sent."""
        self.tls.write(data)
        return self._out.read()

    def write(self, data: bytes) -> None:
        """Send data."""
        self.sock.sendall(self.seal(data))

    def goodbye(self) -> bytes:
        """A record with close_notify, which is not sent."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # the other end's close_notify is not here yet, and need not be
        return self._out.read()

    def read(self, size: int = 65536) -> bytes:
        """Receive some data; ``b""`` at the end."""
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                self._receive()
            except ssl.SSLZeroReturnError:
                return b""
