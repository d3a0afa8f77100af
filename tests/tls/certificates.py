"""Certificates for tests, made once per process, and their files.

The CA is trustme's. Certificates that trustme cannot make (expired, not yet valid, self-signed, with a weak or an
encrypted key) are made with ``cryptography``. Every function returns the same files on each call.
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
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.tools import require_tool

NAMES = ("localhost", "127.0.0.1", "::1")
"""The names of the usual certificate."""

PASSWORD = "correct horse"
"""The password of the encrypted key."""


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Leaf(NamedTuple):
    """A certificate with its intermediates, and its key: paths of PEM files."""

    cert: str
    key: str


@functools.cache
def directory() -> Path:
    """The directory of the files; removed when the process ends."""
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
    """A CA that is signed by the trusted one."""
    return ca().create_child_ca()


@functools.cache
def other_ca() -> trustme.CA:
    """A CA that is not trusted."""
    return trustme.CA(organization_name="another CA")


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
    """A directory with both CAs, one as DER, and a text file. The file names are not hashes."""
    path = directory() / "cas"
    path.mkdir()
    (path / "ours.pem").write_bytes(ca().cert_pem.bytes())
    der = x509.load_pem_x509_certificate(other_ca().cert_pem.bytes()).public_bytes(serialization.Encoding.DER)
    (path / "theirs.cer").write_bytes(der)
    (path / "README").write_text("Certificates live here.")
    (path / "deeper").mkdir()
    return str(path)


def issue(name: str, issuer: trustme.CA, *identities: str) -> Leaf:
    """Write a certificate that ``issuer`` signs, to files that begin with ``name``."""
    leaf = issuer.issue_cert(*identities)
    chain = b"".join(each.bytes() for each in leaf.cert_chain_pems)
    return Leaf(_file(f"{name}.pem", chain), _file(f"{name}.key", leaf.private_key_pem.bytes()))


@functools.cache
def server() -> Leaf:
    """For localhost, 127.0.0.1 and ::1."""
    return issue("server", ca(), *NAMES)


@functools.cache
def client() -> Leaf:
    """For a client."""
    return issue("client", ca(), "client@example.org")


@functools.cache
def chained() -> Leaf:
    """For localhost, signed by the intermediate CA; the chain is in the file."""
    return issue("chained", intermediate(), *NAMES)


@functools.cache
def incomplete() -> Leaf:
    """The same without the intermediate certificate, so that it cannot be verified."""
    pem = Path(chained().cert).read_bytes()
    end = b"-----END CERTIFICATE-----\n"
    return Leaf(_file("incomplete.pem", pem.partition(end)[0], end), chained().key)


@functools.cache
def elsewhere() -> Leaf:
    """For elsewhere.test: the wrong host in every test."""
    return issue("elsewhere", ca(), "elsewhere.test")


@functools.cache
def name_only() -> Leaf:
    """For localhost, without an IP address."""
    return issue("name-only", ca(), "localhost")


@functools.cache
def crowded() -> Leaf:
    """For localhost and 4,500 other names: ``ssl`` cannot copy a session with so large a certificate."""
    return issue("crowded", ca(), *NAMES, *(f"name-{number:05}.test" for number in range(4500)))


@functools.cache
def stranger() -> Leaf:
    """For localhost, signed by the CA that is not trusted."""
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
    """For localhost, signed with its own key."""
    return _made("self-signed", by_itself=True)


class Weak(NamedTuple):
    """A certificate, and the CA that signed it with a key that is too short."""

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


class Issued(NamedTuple):
    """A certificate with its intermediates, its key, and the CA to trust."""

    leaf: Leaf
    ca_file: str


@functools.cache
def below(
    *,
    leaf: tuple[int, int] = (-1, 300),
    intermediate: tuple[int, int] = (-1, 300),
    root: tuple[int, int] = (-1, 300),
    intermediate_is_ca: bool = True,
    for_clients: int | None = None,
) -> Issued:
    """For localhost, with an intermediate CA and a root; each is valid from one day to another, counted from today.

    Args:
        leaf: the first and the last day of the first certificate.
        intermediate: those of the second.
        root: those of the CA.
        intermediate_is_ca: whether the second says that it is a CA.
        for_clients: which is only for clients: 0 the CA, 1 the second, 2 the first.
    """
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        for text in ("the root", "the intermediate", "localhost")
    ]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    made = []
    for index, days in enumerate((root, intermediate, leaf)):
        signer = max(index - 1, 0)
        is_ca = index == 0 or (index == 1 and intermediate_is_ca)
        builder = (
            _builder(names[index], names[signer], days)
            .public_key(keys[index].public_key())
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(keys[index].public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[signer].public_key()), critical=False
            )
        )
        if index == 2:
            builder = builder.add_extension(_alternative_names(NAMES), critical=False)
        if index == for_clients:
            uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
            builder = builder.add_extension(uses, critical=False)
        made.append(_certificate_pem(builder.sign(keys[signer], hashes.SHA256())))
    name = f"below-{root[1]}-{intermediate[0]}-{intermediate[1]}-{leaf[1]}-{intermediate_is_ca}-{for_clients}"
    secret = _pem(keys[2], serialization.NoEncryption())
    written = Leaf(_file(f"{name}.pem", made[2], made[1]), _file(f"{name}.key", secret))
    return Issued(written, _file(f"{name}-ca.pem", made[0]))


@functools.cache
def for_name(name: str, *, trusted: bool) -> Leaf:
    """For one name, which may be none that a CA would sign; of the trusted CA or the other one."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = ca() if trusted else other_ca()
    signer = serialization.load_pem_private_key(issuer.private_key_pem.bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    parsed = x509.load_pem_x509_certificate(issuer.cert_pem.bytes())
    made = (
        _builder(subject, parsed.subject, (-1, 30))
        .public_key(key.public_key())
        .add_extension(_alternative_names((name,)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    digits = name.encode().hex()
    return _written(f"for-{digits}-{trusted}", made, key)


@functools.cache
def short_key() -> Leaf:
    """With an RSA key of 1024 bits. A server with it must lower the security level of OpenSSL."""
    key = rsa.generate_private_key(65537, 1024)
    return _written("short-key", _builder_of_a_leaf(key).sign(_ca_key(), hashes.SHA256()), key)


@functools.cache
def sha1() -> Leaf:
    """Signed with SHA-1, by the ``openssl`` program. A server with it must lower the security level too."""
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
    """With the name in the common name only, which is not checked."""
    return _made("common-name-only", names=())


@functools.cache
def encrypted() -> Leaf:
    """The usual certificate with an encrypted key; see ``PASSWORD``."""
    key = serialization.load_pem_private_key(Path(server().key).read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    locked = _pem(key, serialization.BestAvailableEncryption(PASSWORD.encode()))
    return Leaf(server().cert, _file("encrypted.key", locked))


def _made(
    name: str, *, days: tuple[int, int] = (-1, 30), by_itself: bool = False, names: tuple[str, ...] = NAMES
) -> Leaf:
    """Make a certificate of the trusted CA, or a self-signed one, with ``cryptography``."""
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
    """An empty list of revoked certificates, as PEM text."""
    now = datetime.now(UTC)
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.load_pem_x509_certificate(ca().cert_pem.bytes()).subject)
        .last_update(now - timedelta(days=1))
        .next_update(now + timedelta(days=1))
        .sign(_ca_key(), hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()
