"""A TLS 1.3 client that asks for key updates without end and never reads: OpenSSL itself, by ctypes.

    python -m tests.torture.flood PORT COUNT

It prints how many it has sent, every thousand. A server that stops reading, as it should, stops it, too.
"""

from __future__ import annotations

import _ssl
import ctypes
import socket
import sys

_KEY_UPDATE_REQUESTED = 1


def library() -> ctypes.CDLL:
    """The libssl that this Python has loaded."""
    found = ctypes.CDLL(_ssl.__file__)
    for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        getattr(found, name).restype = ctypes.c_void_p
    found.SSL_CTX_new.argtypes = [ctypes.c_void_p]
    found.SSL_new.argtypes = [ctypes.c_void_p]
    found.SSL_set_fd.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.SSL_connect.argtypes = [ctypes.c_void_p]
    found.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.SSL_do_handshake.argtypes = [ctypes.c_void_p]
    found.SSL_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    return found


def main(port: int, count: int) -> None:
    tls = library()
    sock = socket.create_connection(("127.0.0.1", port))
    connection = tls.SSL_new(tls.SSL_CTX_new(tls.TLS_client_method()))
    tls.SSL_set_fd(connection, sock.fileno())
    if tls.SSL_connect(connection) != 1:
        raise SystemExit("no handshake")
    tls.SSL_write(connection, b"flood\n", 6)
    print("begins", flush=True)
    for number in range(1, count + 1):
        if (
            tls.SSL_key_update(connection, _KEY_UPDATE_REQUESTED) != 1
            or tls.SSL_do_handshake(connection) != 1
        ):
            print("refused", number, flush=True)
            return
        if number % 1000 == 0:
            print(number, flush=True)
    print("sent", count, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
