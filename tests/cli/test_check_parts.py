"""The parsers of ``wireline check``: key exchanges, malformed certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from tests.tls import certificates
from wireline.cli.check._certificate_info import read
from wireline.cli.check._handshake_observer import HandshakeObserver
from wireline.tls import Certificate

HANDSHAKE, SERVER_HELLO, SERVER_KEY_EXCHANGE = 22, 2, 12


def server_hello(group: bytes, *, retry: bool = False) -> bytes:
    share = b"\x00\x33" + (2 if retry else 4).to_bytes(2) + group + (b"" if retry else b"\0\0")
    extensions = b"\x00\x2b\x00\x02\x03\x04" + share
    body = (
        b"\x03\x03"
        + bytes(32)
        + b"\x20"
        + bytes(32)
        + b"\x13\x01\x00"
        + len(extensions).to_bytes(2)
        + extensions
    )
    return b"\x02" + len(body).to_bytes(3) + body


def observed(message: int, data: bytes) -> HandshakeObserver:
    observer = HandshakeObserver()
    observer.on_message(None, "read", 0x0304, HANDSHAKE, message, data)
    return observer


@in_turn(
    "group, name",
    [(b"\x00\x1d", "X25519"), (b"\x11\xec", "X25519 and ML-KEM-768"), (b"\xfe\xdc", "group 0xfedc")],
)
def test_the_group_of_tls_1_3(group: bytes, name: str) -> None:
    assert observed(SERVER_HELLO, server_hello(group)).key_exchange("TLS_AES_128_GCM_SHA256") == name


def test_the_last_hello_counts_and_the_next_handshake_begins_anew() -> None:
    observer = observed(SERVER_HELLO, server_hello(b"\x00\x18", retry=True))
    observer.on_message(None, "read", 0x0304, HANDSHAKE, SERVER_HELLO, server_hello(b"\x00\x17"))
    assert observer.key_exchange("TLS_AES_128_GCM_SHA256") == "P-256"
    observer.reset()
    assert observer.key_exchange("TLS_AES_128_GCM_SHA256") == ""


@in_turn(
    "cipher, body, name",
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", b"\x03\x00\x17", "P-256"),
        ("ECDHE-RSA-AES128-GCM-SHA256", b"", "ECDHE"),
        ("DHE-RSA-AES128-GCM-SHA256", b"\x01\x00" + bytes(256), "DHE with 2048 bits"),
        ("DHE-RSA-AES128-GCM-SHA256", b"", "DHE"),
        ("AES128-GCM-SHA256", b"", ""),
    ],
)
def test_the_key_exchange_of_tls_1_2(cipher: str, body: bytes, name: str) -> None:
    observer = observed(SERVER_KEY_EXCHANGE, b"\x0c" + len(body).to_bytes(3) + body)
    assert observer.key_exchange(cipher) == name


@given(st.binary(max_size=120), st.sampled_from([SERVER_HELLO, SERVER_KEY_EXCHANGE, 11]))
def test_any_bytes_are_accepted_as_a_message(data: bytes, message: int) -> None:
    observer = observed(message, data)
    for cipher in ("TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
        assert isinstance(observer.key_exchange(cipher), str)


@in_turn(
    "key, words, signature",
    [
        (rsa.generate_private_key(65537, 2048), "RSA 2048", "RSA with SHA-256"),
        (ec.generate_private_key(ec.SECP384R1()), "EC secp384r1", "ECDSA with SHA-256"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519", "Ed25519"),
        (ed448.Ed448PrivateKey.generate(), "Ed448", "Ed448"),
    ],
)
def test_keys_and_signatures_have_names(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey,
    words: str,
    signature: str,
) -> None:
    info = read(Certificate(signed(key)), sent=True)
    assert (info.key, info.signature) == (words, signature)
    assert info.subject == r"CN=a\x1bb", "unprintable characters do not reach the terminal"


def signed(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey,
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\x1bb")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(1)
        .public_key(key.public_key())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    plain = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(key, None if plain else hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@given(st.data())
def test_a_broken_certificate_is_reported_without_an_exception(data: st.DataObject) -> None:
    whole = bytearray(x509.load_pem_x509_certificate(pem()).public_bytes(serialization.Encoding.DER))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    info = read(Certificate(bytes(whole)), sent=True)
    assert len(info.sha256) == 64
    assert info.subject.isprintable()


def pem() -> bytes:
    return Path(certificates.server().cert).read_bytes()
