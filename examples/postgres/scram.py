"""Authentication: SCRAM-SHA-256 (RFC 5802, RFC 7677), bound to the TLS connection where there is one.

The server gets a proof that the client knows the password, and no password. It has to prove that it knows the password,
too. With channel binding (RFC 5929) the proof is valid for the server's certificate only: an attacker between the two,
with another certificate, cannot pass it on.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from base64 import b64decode, b64encode

from examples.postgres.protocol import ProtocolError, message, read_strings, string
from wireline.tls import Certificate

MOST_ITERATIONS = 1_000_000
"""A guess: half a second, in which an event loop stands. The server chooses the number, and may be hostile."""

# The last bytes of the signature algorithm's object identifier, and the hash of tls-server-end-point.
_RSA, _ECDSA = bytes.fromhex("2a864886f70d0101"), bytes.fromhex("2a8648ce3d0403")
_HASHES = {
    **{_RSA + bytes([n]): name for n, name in [(4, "sha256"), (5, "sha256"), (11, "sha256")]},
    **{_RSA + bytes([n]): name for n, name in [(12, "sha384"), (13, "sha512"), (14, "sha224")]},
    **{_ECDSA + bytes([n]): name for n, name in [(1, "sha224"), (2, "sha256"), (3, "sha384"), (4, "sha512")]},
}


class Authentication:
    """The client's side of the dialogue.

    Attributes:
        accepted: the server has let the client in.
    """

    def __init__(self, password: str, certificate: Certificate | None) -> None:
        self.accepted = False
        self._password = _prepare(password)
        self._nonce = b64encode(secrets.token_bytes(18)).decode()
        self._end_point = certificate and end_point(certificate)
        self._first = ""
        self._bound = b""
        self._server_signature: bytes | None = None
        self._verified = True  # until SCRAM begins: a server may trust the client without it

    def answer(self, payload: bytes) -> bytes:
        """Return the answer to an authentication message; empty if it needs none.

        Raises:
            ProtocolError: the server wants another method, or does not know the password.
        """
        kind, data = int.from_bytes(payload[:4]) if len(payload) >= 4 else -1, payload[4:]
        if kind == 0:
            if not self._verified:
                raise ProtocolError("the server did not prove that it knows the password")
            self.accepted = True
            return b""
        steps = {10: self._begin, 11: self._prove, 12: self._verify}
        if kind not in steps:
            name = {3: "the password in clear text", 5: "the password hashed by MD5"}.get(
                kind, f"method {kind}"
            )
            raise ProtocolError(f"the server asks for {name}; this client knows SCRAM-SHA-256")
        return steps[kind](data)

    def _begin(self, data: bytes) -> bytes:
        """Choose a mechanism, and send the nonce."""
        offered = set(read_strings(data))
        self._verified = False
        name = "SCRAM-SHA-256"
        header, bound = b"n,,", b""
        if self._end_point and f"{name}-PLUS" in offered:
            name += "-PLUS"
            header, bound = b"p=tls-server-end-point,,", self._end_point
        elif name not in offered:
            raise ProtocolError(f"the server offers {', '.join(sorted(offered))}; this client knows {name}")
        elif self._end_point:
            # The client would have bound: a server that did offer it sees that an attacker has removed its offer.
            header = b"y,,"
        self._bound = header + bound
        self._first = f"n=,r={self._nonce}"  # PostgreSQL takes the user of the start-up message
        first = header + self._first.encode()
        return message(b"p", string(name), len(first).to_bytes(4), first)

    def _prove(self, data: bytes) -> bytes:
        """Answer the challenge."""
        salt, iterations, nonce = self._read_challenge(data)
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        last = b"c=" + b64encode(self._bound) + b",r=" + nonce
        transcript = b",".join((self._first.encode(), data, last))
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), transcript)
        proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), transcript)
        return message(b"p", last + b",p=" + b64encode(proof))

    def _read_challenge(self, data: bytes) -> tuple[bytes, int, bytes]:
        try:
            values = {item[:2]: item[2:] for item in data.split(b",")}
            nonce, salt, iterations = values[b"r="], b64decode(values[b"s="]), int(values[b"i="])
        except (KeyError, ValueError):
            raise ProtocolError(f"this is no challenge of SCRAM: {data[:100]!r}") from None
        # A nonce that is not ours, and longer, is an answer to another dialogue.
        if not nonce.startswith(self._nonce.encode()) or len(nonce) == len(self._nonce):
            raise ProtocolError("the server did not extend the client's nonce")
        if not 0 < iterations <= MOST_ITERATIONS:
            raise ProtocolError(
                f"the server asks for {iterations} iterations, at most {MOST_ITERATIONS} are done"
            )
        return salt, iterations, nonce

    def _verify(self, data: bytes) -> bytes:
        expected = self._server_signature
        if expected is None or not hmac.compare_digest(data, b"v=" + b64encode(expected)):
            raise ProtocolError("the server does not know the password")
        self._verified = True
        return b""


def end_point(certificate: Certificate) -> bytes | None:
    """The channel binding of RFC 5929, section 4.1; None where that defines none (Ed25519, RSA-PSS)."""
    # Certificate ::= SEQUENCE { tbsCertificate, SEQUENCE { signature algorithm, ... }, signature }
    start, _ = _der(certificate, 0)
    _, end_of_tbs = _der(certificate, start)
    start, _ = _der(certificate, end_of_tbs)
    start, end = _der(certificate, start)
    name = _HASHES.get(bytes(certificate[start:end]))
    return hashlib.new(name, certificate).digest() if name else None


def _der(data: bytes, at: int) -> tuple[int, int]:
    """Where the contents of the element at an offset begin and end."""
    size, start = data[at + 1], at + 2
    if size >= 0x80:  # the low bits are the number of bytes of the length
        start += size & 0x7F
        size = int.from_bytes(data[at + 2 : start])
    return start, start + size


def _prepare(password: str) -> bytes:
    """The mapping and normalization of SASLprep (RFC 4013), which PostgreSQL applies too."""
    kept = (character for character in password if not stringprep.in_table_b1(character))
    mapped = "".join(" " if stringprep.in_table_c12(character) else character for character in kept)
    return unicodedata.normalize("NFKC", mapped).encode()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
