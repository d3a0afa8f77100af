"""Throw-away certificates, made once a process, and the files they are in.

The CA is trustme's. What trustme does not make (expired, not yet valid, self-signed, signed with a weak key, with
an encrypted key) is made with ``cryptography`` here. Every function returns the same files each time it is called.
"""

from __future__ import annotations

import atexit
import functools
import ipaddress
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.tools import require_tool

NAMES = ("localhost", "127.0.0.1", "::1")
"""What the usual leaf is for."""

PASSWORD = "correct horse"
"""Of the encrypted key."""


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Leaf(NamedTuple):
    """A certificate with those that lead to its root, and its key: paths of PEM files."""

    cert: str
    key: str


@functools.cache
def directory() -> Path:
    """Where the files are; gone when the process ends."""
    path = Path(tempfile.mkdtemp(prefix="wireline-certificates-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _file(name: str, *parts: bytes) -> str:
    path = directory() / name
    path.write_bytes(b"".join(parts))
    return str(path)


@functools.cache
def ca() -> trustme.CA:
    """The CA that the tests trust."""
    return trustme.CA(organization_name="wireline tests")


@functools.cache
def intermediate() -> trustme.CA:
    """A CA that the trusted one has signed."""
    return ca().create_child_ca()


@functools.cache
def other_ca() -> trustme.CA:
    """A CA that nobody trusts."""
    return trustme.CA(organization_name="somebody else")


@functools.cache
def ca_file() -> str:
    """The certificate of the trusted CA."""
    return _file("ca.pem", ca().cert_pem.bytes())


@functools.cache
def other_ca_file() -> str:
    """The certificate of the other CA."""
    return _file("other-ca.pem", other_ca().cert_pem.bytes())


@functools.cache
def ca_directory() -> str:
    """A directory with both CAs under names that are no hashes, one of them as DER, and a text."""
    path = directory() / "cas"
    path.mkdir()
    (path / "ours.pem").write_bytes(ca().cert_pem.bytes())
    der = x509.load_pem_x509_certificate(other_ca().cert_pem.bytes()).public_bytes(serialization.Encoding.DER)
    (path / "theirs.cer").write_bytes(der)
    (path / "README").write_text("Certificates live here.")
    (path / "deeper").mkdir()
    return str(path)


def issue(name: str, issuer: trustme.CA, *identities: str) -> Leaf:
    """Write a leaf that a CA issues; ``name`` is what its files are called."""
    leaf = issuer.issue_cert(*identities)
    chain = b"".join(each.bytes() for each in leaf.cert_chain_pems)
    return Leaf(_file(f"{name}.pem", chain), _file(f"{name}.key", leaf.private_key_pem.bytes()))


@functools.cache
def server() -> Leaf:
    """For localhost, 127.0.0.1 and ::1."""
    return issue("server", ca(), *NAMES)


@functools.cache
def client() -> Leaf:
    """For a client that says who it is."""
    return issue("client", ca(), "client@example.org")


@functools.cache
def chained() -> Leaf:
    """For localhost, through the CA in between; the chain is in the file."""
    return issue("chained", intermediate(), *NAMES)


@functools.cache
def incomplete() -> Leaf:
    """The same without the certificate in between: nobody can verify it."""
    pem = Path(chained().cert).read_bytes()
    end = b"-----END CERTIFICATE-----\n"
    return Leaf(_file("incomplete.pem", pem.partition(end)[0], end), chained().key)


@functools.cache
def elsewhere() -> Leaf:
    """For elsewhere.test: the wrong host, wherever it is shown."""
    return issue("elsewhere", ca(), "elsewhere.test")


@functools.cache
def name_only() -> Leaf:
    """For localhost, and for no IP address."""
    return issue("name-only", ca(), "localhost")


@functools.cache
def crowded() -> Leaf:
    """For localhost and 4,500 other names: `ssl` makes no copy of a session with so large a certificate."""
    return issue("crowded", ca(), *NAMES, *(f"name-{number:05}.test" for number in range(4500)))


@functools.cache
def stranger() -> Leaf:
    """For localhost, by the CA that nobody trusts."""
    return issue("stranger", other_ca(), *NAMES)


@functools.cache
def expired() -> Leaf:
    """Valid until yesterday."""
    return _made("expired", days=(-30, -1))


@functools.cache
def not_yet_valid() -> Leaf:
    """Valid from tomorrow on."""
    return _made("not-yet-valid", days=(1, 30))


@functools.cache
def ending() -> Leaf:
    """Valid for five more days."""
    return _made("ending", days=(-1, 5))


@functools.cache
def self_signed() -> Leaf:
    """Signed by nobody else."""
    return _made("self-signed", by_itself=True)


class Weak(NamedTuple):
    """A leaf, and the CA that signed it with a key that is too short."""

    leaf: Leaf
    ca_file: str


@functools.cache
def weak() -> Weak:
    """For localhost, signed by a CA with an RSA key of 1024 bits."""
    ca_key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a weak CA")])
    ca_cert = (
        _builder(name, name, (-1, 30))
        .public_key(ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    leaf = (
        _builder(subject, name, (-1, 30))
        .public_key(key.public_key())
        .add_extension(_alternative_names(NAMES), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return Weak(_written("weak", leaf, key), _file("weak-ca.pem", _certificate_pem(ca_cert)))


@functools.cache
def short_key() -> Leaf:
    """With an RSA key of 1024 bits of its own. Whoever shows it has to lower the security level of OpenSSL."""
    key = rsa.generate_private_key(65537, 1024)
    return _written("short-key", _builder_of_a_leaf(key).sign(_ca_key(), hashes.SHA256()), key)


@functools.cache
def sha1() -> Leaf:
    """Signed with SHA-1, which only the ``openssl`` program still does. To show it needs a low level as well."""
    request, ca_key = directory() / "sha1.csr", _file("ca.key", ca().private_key_pem.bytes())
    cert, key = directory() / "sha1.pem", directory() / "sha1.key"
    words = [
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
    ]
    _openssl(*words, "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(request))
    words = ["x509", "-req", "-in", str(request), "-copy_extensions", "copy", "-days", "1", "-sha1"]
    _openssl(*words, "-CA", ca_file(), "-CAkey", ca_key, "-CAcreateserial", "-out", str(cert))
    return Leaf(str(cert), str(key))


def _openssl(*words: str) -> None:
    subprocess.run([require_tool("openssl", "openssl"), *words], check=True, capture_output=True, timeout=10)


@functools.cache
def common_name_only() -> Leaf:
    """With the name where it was looked for in the last century."""
    return _made("common-name-only", names=())


@functools.cache
def encrypted() -> Leaf:
    """The key needs ``PASSWORD``."""
    key = serialization.load_pem_private_key(Path(server().key).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    locked = _pem(key, serialization.BestAvailableEncryption(PASSWORD.encode()))
    return Leaf(server().cert, _file("encrypted.key", locked))


def _made(
    name: str, *, days: tuple[int, int] = (-1, 30), by_itself: bool = False, names: tuple[str, ...] = NAMES
) -> Leaf:
    """Make a leaf of the trusted CA by hand."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder_of_a_leaf(key, days=days, by_itself=by_itself, names=names)
    return _written(name, builder.sign(key if by_itself else _ca_key(), hashes.SHA256()), key)


def _ca_key() -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(ca().private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _builder_of_a_leaf(
    key: Key, *, days: tuple[int, int] = (-1, 30), by_itself: bool = False, names: tuple[str, ...] = NAMES
) -> x509.CertificateBuilder:
    issuer = x509.load_pem_x509_certificate(ca().cert_pem.bytes())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    builder = (
        _builder(subject, subject if by_itself else issuer.subject, days)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(_alternative_names(names), critical=False)
    if not by_itself:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(_ca_key().public_key())
        builder = builder.add_extension(identifier, critical=False)
    return builder


def _builder(subject: x509.Name, issuer: x509.Name, days: tuple[int, int]) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


def _alternative_names(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(list(map(_general_name, names)))


def _written(name: str, leaf: x509.Certificate, key: Key) -> Leaf:
    secret = _pem(key, serialization.NoEncryption())
    return Leaf(_file(f"{name}.pem", _certificate_pem(leaf)), _file(f"{name}.key", secret))


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: Key, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@functools.cache
def revocation_list() -> str:
    """A list of revoked certificates, with nothing in it, as PEM text."""
    now = datetime.now(UTC)
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.load_pem_x509_certificate(ca().cert_pem.bytes()).subject)
        .last_update(now - timedelta(days=1))
        .next_update(now + timedelta(days=1))
        .sign(_ca_key(), hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()
