# Made by 'wireline twin' from ../aio/opening.py: edit that file.
# From line 11 on, line N here is line N there.
# isort: skip_file
# fmt: off
"""A socket to the server, encrypted if it is to be."""
from __future__ import annotations
from examples.postgres.protocol import SSL_REQUEST, Config, ProtocolError
from wireline import Address, Deadline
from wireline.net import Socket, dial
from wireline.tls import Certificate

def open_socket(config: Config, deadline: Deadline, server: Address | None = None) -> Socket:
    """Connect and encrypt. A host name may have several addresses: a given one is that of a session's server."""
    host, port = server or (config.host, config.port)
    sock = dial(host, port, timeout=deadline)
    try:
        if config.tls is not None:
            sock.send(SSL_REQUEST, timeout=deadline)
            if sock.recv_exactly(1, deadline) != b"S":
                # Never continue in plaintext: an attacker may have removed the server's answer.
                raise ProtocolError("the server does not offer TLS")
            # Bytes that arrived together with that answer are refused here: an attacker may have injected them.
            sock.start_tls(config.tls, hostname=config.host, timeout=deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def certificate_of(sock: Socket) -> Certificate | None:
    """The certificate that the server has shown, whether or not it was verified."""
    if not sock.is_ssl:
        return None
    chain = sock.get_peer_certificates(verified=False)
    return chain[0] if chain else None
