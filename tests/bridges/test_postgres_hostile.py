"""``examples/postgres`` in both flavours against servers that are none, break off, or are hostile."""

from __future__ import annotations

import fcntl
import hashlib
import socket
import struct
import sys
import termios
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from examples.postgres import PostgresError, ProtocolError, protocol, scram
from tests.bridges.postgres_peers import CONNECT, in_both_flavours, saying, server
from tests.tls import certificates
from wireline import SocketTimeout
from wireline.tls import Certificate, SslContext, SslError


def said(kind: bytes, *parts: bytes) -> bytes:
    return protocol.message(kind, *parts)


def asks(number: int, data: bytes = b"") -> bytes:
    return said(b"R", struct.pack("!I", number), data)


LET_IN = asks(0) + said(b"K", bytes(8))
READY = said(b"Z", b"I")
SASL = asks(10, b"SCRAM-SHA-256\0\0")
FATAL = said(b"E", b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0")

AT_THE_START: dict[str, tuple[bytes, type[Exception]]] = {
    "the longest length": (b"R" + b"\xff" * 4, ProtocolError),
    "a negative length": (b"R" + struct.pack("!I", 3) + b"x" * 99, ProtocolError),
    "a long message": (b"R" + struct.pack("!I", 1 << 20), ProtocolError),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", ProtocolError),
    "nothing asked": (said(b"K", bytes(8)) + READY, ProtocolError),
    "a parameter without a value": (said(b"S", b"name") + said(b"@"), ProtocolError),
    "a short key": (asks(0) + said(b"K", bytes(3)), ProtocolError),
    "an answer to nothing": (said(b"D", b"\0\0"), ProtocolError),
    "a short question": (said(b"R"), ProtocolError),
    "another method": (asks(7), ProtocolError),
    "another mechanism": (asks(10, b"OAUTHBEARER\0\0"), ProtocolError),
    "a challenge to nothing": (asks(11, b"r=abc,s=YWJj,i=4096"), ProtocolError),
    "a proof of nothing": (asks(12, b"v=YWJj"), ProtocolError),
    "let in before the proof": (SASL + LET_IN + READY, ProtocolError),
    "a fatal error, and no end": (FATAL, PostgresError),
}


@pytest.mark.sampled
@in_both_flavours
async def test_a_hostile_server_at_the_start_is_refused_at_once(flavour: str) -> None:
    for name, (data, error) in AT_THE_START.items():
        began = time.monotonic()
        with server(saying(data)) as config:
            with pytest.raises(error):
                pytest.fail(f"{name}: {await CONNECT[flavour](config)}")
        assert time.monotonic() - began < 5, name


CHALLENGES = {
    "no challenge": lambda nonce: b"hello",
    "no base64": lambda nonce: b"r=" + nonce + b"more,s=!,i=4096",
    "no number": lambda nonce: b"r=" + nonce + b"more,s=YWJj,i=many",
    "the nonce of another": lambda nonce: b"r=more,s=YWJj,i=4096",
    "the nonce as it was": lambda nonce: b"r=" + nonce + b",s=YWJj,i=4096",
    "hours of work": lambda nonce: b"r=" + nonce + b"more,s=YWJj,i=4000000000",
    "no work": lambda nonce: b"r=" + nonce + b"more,s=YWJj,i=0",
    "a wrong proof": lambda nonce: b"r=" + nonce + b"more,s=YWJj,i=4096",
}


def challenging(make: Callable[[bytes], bytes]) -> Callable[[socket.socket], None]:
    def talk(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(SASL)
        nonce = sock.recv(65536).partition(b",r=")[2]
        sock.sendall(asks(11, make(nonce)))
        if sock.recv(65536):
            sock.sendall(asks(12, b"v=" + b64encode(bytes(32))) + LET_IN + READY)
            assert sock.recv(65536) == b""

    return talk


@in_both_flavours
async def test_a_server_that_does_not_know_the_password_is_refused(flavour: str) -> None:
    for name, make in CHALLENGES.items():
        with server(challenging(make)) as config:
            with pytest.raises(ProtocolError):
                pytest.fail(f"{name}: {await CONNECT[flavour](config)}")


IN_AN_ANSWER = {
    "no result": READY,
    "two results": said(b"C", b"SELECT 1\0") * 2 + READY,
    "the longest length": b"D" + b"\xff" * 4,
    "a negative length": b"D" + bytes(4),
    "an unknown message": said(b"@"),
    "a row that is cut": said(b"D", b"\0\1" + struct.pack("!i", 100) + b"x"),
    "a row with a rest": said(b"D", b"\0\0rest"),
    "a row without its size": said(b"D", b"\0\2" + struct.pack("!i", -1)),
    "no UTF-8": said(b"D", b"\0\1" + struct.pack("!i", 1) + b"\xff"),
    "columns that are cut": said(b"T", b"\0\2name\0" + bytes(18)),
    "no end of a name": said(b"T", b"\0\1name"),
}


@pytest.mark.sampled
@in_both_flavours
async def test_a_hostile_answer_closes_the_connection(flavour: str) -> None:
    for name, data in IN_AN_ANSWER.items():
        with server(saying(LET_IN + READY, data)) as config:
            async with await CONNECT[flavour](config) as connection:
                with pytest.raises((ProtocolError, UnicodeDecodeError)):
                    pytest.fail(f"{name}: {await connection.query('SELECT 1', timeout=5)}")
                assert connection.is_closed, name


@in_both_flavours
async def test_hostile_rows_of_a_copy_close_the_connection(flavour: str) -> None:
    row = said(b"d", b"row\n")
    for data in (b"d" + b"\xff" * 4, b"d" + struct.pack("!I", 3), b"d" + bytes(4)):
        with server(saying(LET_IN + READY, said(b"H", b"\0\0\0") + row * 3 + data + b"x" * 100)) as config:
            async with await CONNECT[flavour](config) as connection:
                rows = []
                with pytest.raises(ProtocolError):
                    async for each in connection.copy_out("COPY words TO STDOUT", timeout=5):
                        rows.append(each)
                assert rows == [b"row\n"] * 3
                assert connection.is_closed


@in_both_flavours
async def test_a_server_that_breaks_off_is_a_connection_error(flavour: str) -> None:
    def breaking_off(data: bytes) -> Callable[[socket.socket], None]:
        def talk(sock: socket.socket) -> None:
            sock.recv(65536)
            sock.sendall(data)

        return talk

    for data in (b"", b"R", asks(10)[:-1], LET_IN, LET_IN + READY[:-1]):
        with server(breaking_off(data)) as config, pytest.raises(ConnectionError):
            await CONNECT[flavour](config)


@pytest.mark.sampled
@in_both_flavours
async def test_the_deadline_covers_a_server_that_says_something_all_the_time(flavour: str) -> None:
    def notices(sock: socket.socket) -> None:
        while True:
            sock.sendall(said(b"N", b"Mwait\0\0") * 1000)

    def slow_notices(sock: socket.socket) -> None:
        while True:
            sock.sendall(said(b"N", b"Mwait\0\0"))
            time.sleep(0.01)

    for talk in (notices, slow_notices, saying(b""), saying(asks(0))):
        with server(talk) as config, pytest.raises(SocketTimeout):
            await CONNECT[flavour](config, 0.2)


@in_both_flavours
async def test_a_server_without_tls_or_with_injected_plaintext_is_refused(flavour: str) -> None:
    context = SslContext(ca_file=certificates.ca_file())
    for answer, error in {b"N": ProtocolError, b"E": ProtocolError, b"S" + asks(0): SslError}.items():
        with server(saying(answer)) as config, pytest.raises(error):
            await CONNECT[flavour](replace(config, tls=context))


@in_both_flavours
async def test_a_timeout_that_cuts_a_request_closes_the_connection(flavour: str) -> None:
    def not_reading(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(LET_IN + READY)
        sock.recv(10)
        sock.sendall(said(b"G", b"\0\0\0"))
        cut.wait(10)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    cut = threading.Event()
    with server(not_reading) as config:
        async with await CONNECT[flavour](config) as connection:
            with pytest.raises(SocketTimeout):
                await connection.copy_in("COPY words FROM STDIN", endless(), timeout=0.3)
            assert connection.is_closed
            cut.set()


def wait_until_it_grows_no_more(sock: socket.socket) -> None:
    """Wait until the peer cannot send, because nothing is read."""
    before, now = -1, 0
    while not now or now != before:
        time.sleep(0.1)
        before, now = now, int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.sampled
@in_both_flavours
async def test_a_copy_in_goes_on_with_a_server_that_speaks_before_it_reads(flavour: str) -> None:
    notices = said(b"N", b"M" + bytes(1000)) * 1000

    def speaking_first(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(LET_IN + READY)
        sock.recv(65536)
        sock.sendall(said(b"G", b"\0\0\0"))
        wait_until_it_grows_no_more(sock)
        for _ in range(30):  # more than the kernel holds
            sock.sendall(notices)
        last = b""
        while not last.endswith(protocol.COPY_DONE):
            last = last[-10:] + sock.recv(1 << 20)
        sock.sendall(said(b"C", b"COPY 30\0") + READY)
        sock.recv(65536)

    async def rows() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * (1 << 20)

    with server(speaking_first) as config:
        async with await CONNECT[flavour](config) as connection:
            assert await connection.copy_in("COPY words FROM STDIN", rows(), timeout=8) == "COPY 30"


# SCRAM by itself.


@pytest.mark.sampled
def test_scram_gives_the_proof_of_rfc_7677(monkeypatch: pytest.MonkeyPatch) -> None:
    nonce = b"rOprNGfwEbeRWgbNEkqO"
    dialogue = scram.Authentication("pencil", None)
    dialogue.answer(struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0")
    monkeypatch.setattr(dialogue, "_nonce", nonce.decode())
    monkeypatch.setattr(dialogue, "_first", f"n=user,r={nonce.decode()}")
    rest = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    proof = dialogue.answer(
        struct.pack("!I", 11) + b"r=" + nonce + rest + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert proof[5:] == b"c=biws,r=" + nonce + rest + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    dialogue.answer(struct.pack("!I", 12) + b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert not dialogue.accepted
    dialogue.answer(bytes(4))
    assert dialogue.accepted


def test_a_client_that_could_bind_says_so_if_the_server_cannot() -> None:
    der = x509.load_pem_x509_certificate(certificates.ca().cert_pem.bytes()).public_bytes(
        serialization.Encoding.DER
    )
    for offered, name, header in [
        (b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", b"SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,"),
        (b"SCRAM-SHA-256\0\0", b"SCRAM-SHA-256", b"y,,"),
    ]:
        sent = scram.Authentication("pencil", Certificate(der)).answer(struct.pack("!I", 10) + offered)
        assert sent[5:].startswith(name + b"\0")
        assert header in sent
    assert b"n,," in scram.Authentication("pencil", None).answer(struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0")


def test_the_end_point_is_hashed_as_the_certificate_is_signed() -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
            der = signed(key, algorithm)
            assert scram.end_point(Certificate(der)) == hashlib.new(algorithm.name, der).digest()
    assert scram.end_point(Certificate(signed(ed25519.Ed25519PrivateKey.generate(), None))) is None


def signed(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
    algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None,
) -> bytes:
    builder = certificates._builder(x509.Name([]), x509.Name([]), (-1, 1)).public_key(key.public_key())
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)
