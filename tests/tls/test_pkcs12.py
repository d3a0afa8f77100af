"""Certificates and keys in PKCS#12 files."""

from __future__ import annotations

import base64
import contextlib
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.cases import in_turn
from tests.tls import certificates
from tests.tls.memory import chain, client_context, connect
from wireline.tls import Certificate, Handshake, SslContext, SslError, _libssl, _openssl, _openssl_pkcs12

needs_bridge = pytest.mark.skipif(not _openssl.available(), reason="PKCS#12 needs the bridge to OpenSSL")

SECRET = "s\u00e4cret"

RC2 = """
MIIDcgIBAzCCAzgGCSqGSIb3DQEHAaCCAykEggMlMIIDITCCAhcGCSqGSIb3DQEHBqCCAggwggIEAgEAMIIB/QYJKoZIhvcNAQcB
MBwGCiqGSIb3DQEMAQYwDgQI4l/53kmWRZYCAggAgIIB0EiK6HHOxC/hvQBkkCszkva1JIjfdyca/FHMJfEg79cawChghvvNwMZc
VxrDufGJXLtQa6YgYk1TAaPl60T6EBY3r/S8NYKO6gEUMGr6YvHUc04o5+ing6JwnEiu1QQA+95IaYcMXHq+KU2wgLmENz2hgQBV
HHOcsSMagFpF+Ywx2NPgyzGiYnkgXD76hR5YPbZge5J5lebmvhQu8gR8TgrzHbkqq/Vn03edrAlAYbdT5Z31PEfcatJrgs5sEE4L
yNFHt1OGYTVPkubmqstwSbdQ/CsFzbC7g2UsNRm3RePImRaxz8/y6Rw6WLGjBw40BwS8yB0Sp6pn+iRcYB+JBftTmP6vzgiYBuYn
idG1M/GroDXNRXu8qsFkLkhVUnzZV5oqDN8oNpAnK5iQdqSRUYwx5lbtEErDfiNhRShU5paEm38cX6UCUIt1FTk49fEIsuQxRMv4
4L7gn2tMoXw2ZfDW8VnP7oHASVHaMUU6C0gHuRpcCbq5F5uVIaGW7i/nrOlJQMLv40BQ/fIXB4xMRjeXaie/Jbdp3BlA75z4v8l8
gAoyj2IymQ6Oz0kjlKRV4JpBkAtGBEwJNo0Kl+vphwUl+Ggcrjs3DqVlk+i0d+dTMIIBAgYJKoZIhvcNAQcBoIH0BIHxMIHuMIHr
BgsqhkiG9w0BDAoBAqCBtDCBsTAcBgoqhkiG9w0BDAEDMA4ECNh9AIlDVmR1AgIIAASBkJScY2Wg2xUcJMKh4D1ULa6IsRSBL2fC
jWOqaJo9wJozw08OLMHgRdeNDpgQhiO1+J0Z6X4HDvGlXF6oC527TPBk/wRyMTxYOZOY67QR9KPBPjK2Nlt0tLLHuQ5w9v152POr
RZzuHLQVxGs2qGGqV08Ld130eoel3lER3Kl9gZXTFbT5Ha/ZCgQvTyNOk8fubzElMCMGCSqGSIb3DQEJFTEWBBT3nQlrKcBEA+Pm
7PfEGSxE810XYDAxMCEwCQYFKw4DAhoFAAQUx2asiPgrrZOKtQCl9i3UDqPOw6kECGbnXvvTtMOGAgIIAA==
"""
"""Made with `openssl pkcs12 -export -legacy`; the password is "secret"."""


def parts(leaf: certificates.Leaf) -> tuple[pkcs12.PKCS12PrivateKeyTypes, list[x509.Certificate]]:
    """The key and the certificates of files."""
    key = serialization.load_pem_private_key(Path(leaf.key).read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
    return key, x509.load_pem_x509_certificates(Path(leaf.cert).read_bytes())


def bundle(
    key: pkcs12.PKCS12PrivateKeyTypes | None,
    cert: x509.Certificate | None,
    others: list[x509.Certificate],
    password: str | None = SECRET,
) -> bytes:
    """A PKCS#12 structure."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return pkcs12.serialize_key_and_certificates(b"x", key, cert, others, encryption)


def of(leaf: certificates.Leaf, password: str | None = SECRET) -> bytes:
    key, (cert, *others) = parts(leaf)
    return bundle(key, cert, others, password)


def names(context: SslContext) -> list[str]:
    """The names of the certificates that a server sends."""
    pair = connect(client_context(ca_file=certificates.below()[1]), context)
    return [certificate.subject for certificate in pair.client.policy.sent_certificates(pair.client.obj)]


@needs_bridge
@in_turn("form", ["der", "pem"])
@in_turn("password", [SECRET, SECRET.encode(), lambda: SECRET])
def test_a_server_presents_the_chain(form: str, password: object, tmp_path: Path) -> None:
    data = of(certificates.below()[0])
    if form == "pem":
        text = base64.encodebytes(data)
        data = b"-----BEGIN PKCS12-----\n" + text + b"-----END PKCS12-----\n"
    file = tmp_path / "own"
    file.write_bytes(data)
    for words in ({"cert_file": file}, {"cert_data": data}, {"cert_file": file, "key_file": file}):
        context = SslContext(**words, password=password)  # type: ignore[arg-type]
        assert names(context) == ["CN=localhost", "CN=the intermediate"]


@needs_bridge
@in_turn("password", [None, "anything"])
def test_a_file_without_a_password(password: str | None) -> None:
    context = SslContext(cert_data=of(certificates.below()[0], None), password=password)
    assert names(context)[0] == "CN=localhost"


@needs_bridge
def test_the_chain_is_in_order_whatever_the_order_of_the_file() -> None:
    leaf, ca_file = certificates.below()
    key, (cert, intermediate) = parts(leaf)
    root = x509.load_pem_x509_certificate(Path(ca_file).read_bytes())
    for others in ([root, intermediate], [intermediate, root]):
        context = SslContext(cert_data=bundle(key, cert, others), password=SECRET)
        assert names(context) == ["CN=localhost", "CN=the intermediate", "CN=the root"]


@needs_bridge
def test_a_client_presents_it() -> None:
    server = SslContext(
        cert_file=certificates.server().cert,
        key_file=certificates.server().key,
        ca_file=certificates.ca_file(),
        client_certs="required",
    )
    pair = connect(client_context(cert_data=of(certificates.client()), password=SECRET), server)
    assert chain(pair.server)[0].fingerprint() == Certificate(cert_of(certificates.client())).fingerprint()


def cert_of(leaf: certificates.Leaf) -> bytes:
    return parts(leaf)[1][0].public_bytes(serialization.Encoding.DER)


def legacy() -> bytes:
    return base64.b64decode(RC2)


def foreign() -> bytes:
    key, _ = parts(certificates.client())
    _, (cert, *_) = parts(certificates.server())
    return bundle(key, None, [cert])


def damaged() -> bytes:
    """The structure is whole, and its content is not PKCS#12."""
    return bytes.fromhex("30 0a 02 01 03 30 05 06 03 2a 03 04")


def without_a_checksum() -> bytes:
    """A damaged file without a password and a checksum, which is optional (RFC 7292, 4)."""
    return bytes.fromhex("30 1e 02 01 03 30 19") + bytes.fromhex(
        "06 09 2a 86 48 86 f7 0d 01 07 01 a0 0c 04 0a 30 08 30 06 06 01 2a a0 01 05"
    )


REFUSED = {
    "no password": (
        lambda: of(certificates.server()),
        None,
        "the PKCS#12 file cert_data is encrypted, and no password",
    ),
    "wrong password": (
        lambda: of(certificates.server()),
        "x",
        "the password does not open the PKCS#12 file cert_data",
    ),
    "no key": (
        lambda: bundle(None, None, parts(certificates.server())[1]),
        SECRET,
        "there is no private key in cert_data: it has only certificates",
    ),
    "no certificate": (
        lambda: bundle(parts(certificates.server())[0], None, []),
        SECRET,
        "there is no certificate in cert_data",
    ),
    "another key": (foreign, SECRET, "no certificate in cert_data belongs to its key"),
    "RC2 without a password": (legacy, None, "is encrypted, and no password was given"),
    "RC2": (
        legacy,
        "secret",
        "has an encryption that OpenSSL does not load (RC2, most likely); convert it: openssl",
    ),
    "damaged inside, without a checksum": (
        without_a_checksum,
        None,
        "the PKCS#12 file cert_data is damaged, or encrypted, and no password was given",
    ),
    "damaged": (damaged, SECRET, "the PKCS#12 file cert_data is damaged"),
}


@needs_bridge
@in_turn("case", REFUSED)
def test_the_error_says_what_is_wrong(case: str) -> None:
    make, password, words = REFUSED[case]
    with pytest.raises(SslError) as raised:
        SslContext(cert_data=make(), password=password)
    assert words in str(raised.value)
    assert SECRET not in str(raised.value)


@needs_bridge
def test_a_key_beside_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.p12"
    file.write_bytes(of(certificates.server()))
    key = certificates.server().key
    with pytest.raises(
        SslError, match=r"own\.p12' is a PKCS#12 file, which has its own key: leave out "
    ) as raised:
        SslContext(cert_file=file, key_file=key, password=SECRET)
    assert raised.value.filename == str(file)
    with pytest.raises(SslError, match="it has a PKCS#12 structure; give it in place of the certificate"):
        SslContext(cert_file=certificates.server().cert, key_file=file)


def test_without_the_bridge_the_error_has_the_line_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")
    with pytest.raises(SslError) as raised:
        SslContext(cert_data=of(certificates.server()), password=SECRET)
    assert "cert_data is a PKCS#12 file, which cannot be read here (" in str(raised.value)
    assert str(raised.value).endswith("; convert it: openssl pkcs12 -in FILE -nodes -out NEW.pem")


@needs_bridge
def test_the_password_is_asked_for_once_and_only_if_it_is_needed() -> None:
    asked: list[int] = []

    def password() -> str:
        asked.append(1)
        return SECRET

    SslContext(cert_data=of(certificates.server(), None), password=password)
    assert asked == []
    context = SslContext(cert_data=of(certificates.server()), password=password)
    for role in Handshake:
        context.ssl_context(role)
    assert len(asked) == 1


@needs_bridge
def test_reload_reads_the_file_again(tmp_path: Path) -> None:
    file = tmp_path / "own.p12"
    file.write_bytes(of(certificates.below()[0]))
    context = SslContext(cert_file=file, password=SECRET)
    assert names(context)[0] == "CN=localhost"
    file.write_bytes(b"\x30\x03\x02\x01\x03")
    with pytest.raises(SslError, match="is damaged"):
        context.reload()
    assert names(context)[0] == "CN=localhost"
    file.write_bytes(of(certificates.below(leaf=(-2, 300))[0]))
    context.reload()


def refusal(data: bytes) -> str:
    """The error about a structure; ``""`` if it is good."""
    try:
        SslContext(cert_data=data, password=SECRET)
    except SslError as error:
        return str(error)
    return ""


@needs_bridge
def test_a_file_with_any_byte_changed_is_read_or_refused() -> None:
    """C code reads what may be an attacker's file: no byte crashes it, and no error stays in OpenSSL's queue."""
    data = of(certificates.server())
    refused = 0
    for position in range(0, len(data), 31):
        changed = bytearray(data)
        changed[position] ^= 0x55
        problem = refusal(bytes(changed))
        refused += bool(problem)
        assert "cert_data" in (problem or "cert_data")
        ssl.create_default_context().load_verify_locations(certificates.ca_file())
    for size in range(0, len(data), 100):
        with pytest.raises(SslError, match="cert_data"):
            SslContext(cert_data=data[:size], password=SECRET)
    assert refused > len(data) // 62


@needs_bridge
def test_other_threads_run_while_a_file_is_decrypted() -> None:
    """The file says how many rounds that takes: up to 2**31, in which a signal must still end the command."""
    data = of(certificates.server())
    assert data[-4:] == b"\x02\x02\x08\x00", "the rounds of the checksum"
    slow = bytearray(data[:-4] + b"\x02\x03\x20\0\0")
    slow[2:4] = (int.from_bytes(slow[2:4]) + 1).to_bytes(2)  # of the file
    checksum = data.rindex(b"\x30", 0, data.rindex(b"\x30\x31"))
    slow[checksum + 1] += 1

    def parse() -> None:
        with contextlib.suppress(ssl.SSLError):
            _openssl_pkcs12.parse(bytes(slow), b"x")
        parsed.set()

    parsed, turns = threading.Event(), 0
    thread = threading.Thread(target=parse)
    thread.start()
    while not parsed.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 20


@needs_bridge
def test_what_openssl_has_freed_after_an_error_is_not_freed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL 1.1.1 leaves the pointers."""
    freed: list[int] = []

    def fail(lib: object, function: str, pointer: int, password: bytes | None, *outputs: int) -> None:
        for address in outputs:
            _libssl.write_word(address, 0xDEAD)
        raise ssl.SSLError

    monkeypatch.setattr(_openssl_pkcs12, "call", fail)
    for name in ("EVP_PKEY_free", "X509_free", "OPENSSL_sk_free"):
        monkeypatch.setattr(_openssl.library(), name, freed.append)
    with pytest.raises(ssl.SSLError):
        _openssl_pkcs12.parse(of(certificates.server()), b"x")
    assert 0xDEAD not in freed


@needs_bridge
def test_many_threads_read_at_once() -> None:
    data = of(certificates.below()[0])
    errors: list[Exception] = []

    def read() -> None:
        try:
            for number in range(5):
                good = number % 2 == 0
                try:
                    context = SslContext(cert_data=data, password=SECRET if good else "wrong")
                except SslError:
                    assert not good
                else:
                    assert good
                    context.ssl_context(Handshake.AS_SERVER)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
