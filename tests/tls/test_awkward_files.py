"""FB11: certificate and key files that are not what they should be. The error names the file, and the fault in it."""

from __future__ import annotations

import base64
import functools
import gzip
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.descriptors import open_descriptors
from tests.tls import certificates
from tests.tls.memory import connect
from tests.tools import require_tool
from wireline.cli import main
from wireline.tls import Handshake, SslContext, SslError


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def openssl(*words: str, data: bytes = b"") -> bytes:
    return subprocess.run(
        [require_tool("openssl", "openssl"), *words], input=data, capture_output=True, check=True, timeout=30
    ).stdout


def der_of(pem: bytes) -> bytes:
    lines = pem.split(b"-----")[2].split()
    return base64.b64decode(b"".join(lines))


def pem(label: str, der: bytes, line: int = 64) -> bytes:
    text = base64.b64encode(der)
    lines = b"\n".join(text[start : start + line] for start in range(0, len(text), line))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), lines, label.encode())


NOTHING = b"\x30\x03\x02\x01\x01"
"""An ASN.1 structure that is neither a certificate nor a key."""
DAMAGED = pem("CERTIFICATE", NOTHING)
OPENSSH = pem("OPENSSH PRIVATE KEY", b"openssh-key-v1\0")


@functools.cache
def cert() -> bytes:
    return read(certificates.server().cert)


@functools.cache
def key() -> bytes:
    return read(certificates.server().key)


@functools.cache
def ca() -> bytes:
    return read(certificates.ca_file())


@functools.cache
def old_locked() -> bytes:
    """The key in the form of OpenSSL before 1.0, whose encryption is said in lines above the base64."""
    return openssl("ec", "-aes128", "-passout", "pass:x", data=key())


class Case(NamedTuple):
    """The files, and the error: ``{cert}`` and ``{key}`` stand for their paths."""

    cert: bytes
    key: bytes | None
    message: str
    password: str | None = None


def not_pem() -> dict[str, Case]:
    """Files that look like PEM or like nothing that is known."""
    der = der_of(cert())
    return {
        "four hyphens": Case(
            cert()[1:], key(), "in {cert}: it is PEM text whose BEGIN line is damaged: it has five"
        ),
        "no line ends": Case(
            cert().replace(b"\n", rb"\n"),
            key(),
            "it is PEM text whose BEGIN line is damaged: it is a line of its own",
        ),
        "no BEGIN and no END": Case(
            base64.encodebytes(der), key(), "in {cert}: it is base64 without its BEGIN and END lines"
        ),
        "a key without BEGIN and END": Case(
            cert(),
            base64.encodebytes(der_of(key())),
            "in {key}: it is base64 without its BEGIN and END lines",
        ),
        "the END of another kind": Case(
            cert().replace(b"END CERTIFICATE", b"END PRIVATE KEY"),
            key(),
            "of {cert} is cut off: its END line is missing",
        ),
        "padding in the middle": Case(
            cert().replace(b"\nMI", b"\nMI==", 1), key(), "that begins in line 1 of {cert} is damaged: "
        ),
        "a UTF-16 key": Case(
            cert(), key().decode().encode("utf-16"), "in {key}: it is UTF-16 text; save it as ASCII"
        ),
        "DER cut off": Case(
            der[:-5], key(), "there is no certificate in {cert}: it is DER that is cut off or"
        ),
        "random bytes": Case(bytes(range(128, 256)), key(), "in {cert}: it is no PEM text and no DER"),
        "a page of HTML": Case(
            b"\n<!DOCTYPE html><html>", key(), "in {cert}: it is HTML or XML, perhaps the error page"
        ),
        "gzip": Case(gzip.compress(cert()), key(), "in {cert}: it is compressed by gzip; unpack it"),
        "a zip archive": Case(b"PK\x03\x04\x14\0", key(), "in {cert}: it is a zip archive; unpack it"),
    }


def other_objects() -> dict[str, Case]:
    """Files of something else than certificates and keys of TLS."""
    pkcs7 = openssl("crl2pkcs7", "-nocrl", "-certfile", certificates.server().cert)
    crl = certificates.revocation_list().encode()
    curve = openssl("ecparam", "-name", "prime256v1")
    pgp = b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nxVgE\n=abcd\n-----END PGP PRIVATE KEY BLOCK-----\n"
    return {
        "PKCS#7": Case(
            pkcs7,
            key(),
            "in {cert}: it has a PKCS#7 structure, whose certificates `openssl pkcs7",
        ),
        "PKCS#7 in DER": Case(
            der_of(pkcs7), key(), "in {cert}: it has a PKCS#7 structure, whose certificates `openssl pkcs7"
        ),
        "a revocation list": Case(crl, key(), "there is no certificate in {cert}: it has a revocation list"),
        "a revocation list in DER": Case(der_of(crl), key(), "in {cert}: it has a revocation list"),
        "parameters of a curve": Case(
            cert(), curve, "there is no private key in {key}: it has parameters of a curve"
        ),
        "Diffie-Hellman parameters": Case(
            cert(), pem("DH PARAMETERS", NOTHING), "in {key}: it has Diffie-Hellman parameters"
        ),
        "a public key of SSH": Case(
            cert(), b"ssh-ed25519 AAAA me", "in {key}: it is a public key of SSH, which"
        ),
        "a key of PuTTY": Case(
            cert(), b"PuTTY-User-Key-File-3: ssh-rsa\n", "in {key}: it is a key of PuTTY; `puttygen FILE -O"
        ),
        "a key of PGP": Case(cert(), pgp, "in {key}: it has a private key of PGP, which TLS does not use"),
        "a Java keystore": Case(
            b"\xfe\xed\xfe\xed\0\0\0\2", key(), "in {cert}: it is a Java keystore; `keytool -importkeystore"
        ),
        "an unknown block": Case(cert(), pem("MY KEY", NOTHING), "in {key}: it has a block 'MY KEY'"),
    }


def of_other_keys() -> dict[str, Case]:
    """Keys that are whole, and do not fit."""
    rsa = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024")
    x25519 = openssl("genpkey", "-algorithm", "X25519")
    locked = read(certificates.encrypted().key)
    cut = pem("ENCRYPTED PRIVATE KEY", der_of(locked)[:-40])
    weak = certificates.weak()
    return {
        "a key of another kind": Case(
            cert(), rsa, "the certificate in {cert} does not belong to the key in {key}"
        ),
        "a key that cannot sign": Case(cert(), x25519, "the key in {key} cannot sign, as TLS needs"),
        "the other key first": Case(
            cert(), rsa + key(), "the certificate in {cert} does not belong to the key in {key}"
        ),
        "a locked key in DER, another password": Case(
            cert(),
            der_of(locked),
            "the password does not open the key in {key}, or the key is damaged",
            "wrong",
        ),
        "a locked key in DER without a password": Case(
            cert(), der_of(locked), "the key in {key} is encrypted, and no password was given"
        ),
        "a locked key that is damaged": Case(
            cert(),
            cut,
            "the password does not open the key in {key}, or the key is damaged",
            certificates.PASSWORD,
        ),
        "a signature with SHA-1": Case(
            read(certificates.sha1().cert),
            read(certificates.sha1().key),
            "a certificate of {cert} is signed with a digest that is broken (MD5 or SHA-1)",
        ),
        "an intermediate that is too short": Case(
            cert() + read(weak.ca_file),
            key(),
            "the key of an intermediate certificate of {cert} is too short",
        ),
    }


def refused() -> dict[str, Case]:
    locked = read(certificates.encrypted().key)
    request = openssl("req", "-new", "-key", certificates.server().key, "-subj", "/CN=x")
    public = openssl("pkey", "-pubout", data=key())
    pkcs12 = openssl(
        "pkcs12", "-export", "-inkey", certificates.server().key, "-passout", "pass:x", data=cert()
    )
    short = certificates.short_key()
    return {
        **not_pem(),
        **other_objects(),
        **of_other_keys(),
        "an empty certificate": Case(b"", key(), "there is no certificate in {cert}: it is empty"),
        "blanks": Case(b" \n", key(), "there is no certificate in {cert}: it is empty"),
        "an empty key": Case(cert(), b"", "there is no private key in {key}: it is empty"),
        "text": Case(b"hello", key(), "there is no certificate in {cert}: it is no PEM text and no DER"),
        "text for a key": Case(
            cert(), b"hello", "there is no private key in {key}: it is no PEM text and no DER"
        ),
        "UTF-16": Case(
            cert().decode().encode("utf-16"), key(), "in {cert}: it is UTF-16 text; save it as ASCII"
        ),
        "the two exchanged": Case(key(), cert(), "there is no certificate in {cert}: it has a private key"),
        "a certificate for a key": Case(
            cert(), cert(), "there is no private key in {key}: it has a certificate"
        ),
        "a bundle for a key": Case(
            cert(), ca() + cert(), "there is no private key in {key}: it has 2 certificates"
        ),
        "no key in the one file": Case(
            cert(), None, "there is no private key in {cert}: it has a certificate"
        ),
        "a request": Case(request, key(), "there is no certificate in {cert}: it has a certificate request"),
        "a request in DER": Case(der_of(request), key(), "in {cert}: it has a certificate request"),
        "a public key": Case(cert(), public, "there is no private key in {key}: it has a public key"),
        "a public key in DER": Case(
            cert(), der_of(public), "there is no private key in {key}: it has a public key"
        ),
        "OpenSSH": Case(
            cert(),
            OPENSSH,
            "a private key in OpenSSH's own format; `ssh-keygen -p -m PKCS8 -f FILE` converts",
        ),
        "PKCS#12": Case(pkcs12, key(), "{cert} is a PKCS#12 file, which has its own key: leave out {key}"),
        "PKCS#12 for a key": Case(
            cert(), pkcs12, "there is no private key in {key}: it has a PKCS#12 structure"
        ),
        "a certificate cut off": Case(
            cert()[:-30], key(), "the CERTIFICATE that begins in line 1 of {cert} is cut off"
        ),
        "a key cut off": Case(
            cert(), key()[:-20], "that begins in line 1 of {key} is cut off: its END line is missing"
        ),
        "the second one cut off": Case(
            cert() + ca()[:60], key(), "of {cert} is cut off: its END line is missing"
        ),
        "a letter too few": Case(cert().replace(b"\nMI", b"\nI", 1), key(), "line 1 of {cert} is damaged: "),
        "a foreign letter": Case(cert().replace(b"\nMI", b"\nM*", 1), key(), "line 1 of {cert} is damaged: "),
        "no ASN.1": Case(
            pem("CERTIFICATE", b"abc"), key(), "certificate 1 of {cert} is damaged: it is no ASN.1 structure"
        ),
        "a damaged certificate": Case(DAMAGED, key(), "certificate 1 of {cert} is damaged"),
        "a damaged intermediate": Case(cert() + DAMAGED, key(), "certificate 2 of {cert} is damaged"),
        "a damaged key": Case(
            cert(),
            pem("PRIVATE KEY", NOTHING),
            "the private key in {key} is damaged, or of a kind that OpenSSL cannot use",
        ),
        "another key": Case(
            cert(),
            read(certificates.stranger().key),
            "the certificate in {cert} does not belong to the key in {key}",
        ),
        "the wrong order": Case(
            ca() + cert(),
            key(),
            "the first certificate of {cert} does not belong to the key in {key}, and certificate 2 does: put it first",
        ),
        "a key with a password": Case(
            cert(), locked, "the key in {key} is encrypted, and no password was given"
        ),
        "another password": Case(cert(), locked, "the password does not open the key in {key}", "wrong"),
        "an empty password": Case(cert(), locked, "the password does not open the key in {key}", ""),
        "a locked key of the old form": Case(
            cert(), old_locked(), "the key in {key} is encrypted, and no password was given"
        ),
        "its wrong password": Case(
            cert(), old_locked(), "the password does not open the key in {key}", "wrong"
        ),
        "a short key": Case(
            read(short.cert),
            read(short.key),
            "of {cert} is too short for OpenSSL's security level",
        ),
    }


def accepted() -> dict[str, tuple[bytes, bytes | None, str | None]]:
    locked = read(certificates.encrypted().key)
    request = openssl("req", "-new", "-key", certificates.server().key, "-subj", "/CN=x")
    pkcs8 = openssl("pkcs8", "-topk8", "-nocrypt", data=key())
    parameters = openssl("ecparam", "-name", "prime256v1")
    return {
        "one file": (cert() + key(), None, None),
        "the key first": (key() + cert(), None, None),
        "Windows lines": (cert().replace(b"\n", b"\r\n"), key().replace(b"\n", b"\r\n"), None),
        "a mark of byte order": (b"\xef\xbb\xbf" + cert(), b"\xef\xbb\xbf" + key(), None),
        "comments that are not ASCII": ("Zürich\n".encode() + cert(), key(), None),
        "indented": (b"  " + cert().replace(b"\n", b"\n  "), key(), None),
        "without the last newline": (cert().rstrip(), key().rstrip(), None),
        "long lines": (
            pem("CERTIFICATE", der_of(cert()), 10_000),
            key(),
            None,
        ),
        "DER": (der_of(cert()), der_of(key()), None),
        "PKCS#8 in DER": (cert(), der_of(pkcs8), None),
        "a locked key in DER": (cert(), der_of(locked), certificates.PASSWORD),
        "the old form of locked keys": (cert(), old_locked(), "x"),
        "a request beside it": (request + cert(), key(), None),
        "parameters before the key": (
            cert(),
            parameters + key(),
            None,
        ),
        "with its CA": (cert() + ca(), key(), None),
    }


def test_FB11_there_are_as_many_files_as_were_tried() -> None:
    assert len(refused()) >= 56


def test_FB11_the_error_names_the_file_and_the_fault(tmp_path: Path) -> None:
    before = open_descriptors()
    for name, case in refused().items():
        cert_file, key_file = tmp_path / "our cert.pem", tmp_path / "our key.pem"
        cert_file.write_bytes(case.cert)
        key_file.write_bytes(case.key or b"")
        message = case.message.format(cert=f"'{cert_file}'", key=f"'{key_file}'")
        with pytest.raises(SslError) as caught:
            SslContext(
                cert_file=cert_file, key_file="" if case.key is None else key_file, password=case.password
            )
        assert message in str(caught.value), name
        assert caught.value.filename in (str(cert_file), str(key_file)), name
        # The same bytes from memory: the argument is named.
        with pytest.raises(SslError) as caught:
            SslContext(cert_data=case.cert, key_data=case.key, password=case.password)
        assert case.message.format(cert="cert_data", key="key_data") in str(caught.value), name
    assert open_descriptors() == before


def unreadable(directory: Path) -> dict[str, tuple[Path, str]]:
    """Paths that cannot be read, and the reason of the system."""
    loop, peer = directory / "loop", directory / "socket"
    loop.symlink_to(loop)
    (directory / "dangling").symlink_to(directory / "none")
    (directory / "file").touch()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(peer))
    return {
        "missing": (directory / "none", "No such file or directory"),
        "a directory": (directory, "Is a directory"),
        "a link to nothing": (directory / "dangling", "No such file or directory"),
        "a loop of links": (loop, "Too many levels of symbolic links"),
        "below a file": (directory / "file" / "below", "Not a directory"),
        "a name too long": (directory / ("x" * 300), "File name too long"),
        "a socket": (peer, "No such device or address"),
        "without an end": (Path("/dev/zero"), "File too large"),
    }


def test_FB11_the_command_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, with the file and the fault, and exit code 1: before it listens, and before it connects."""
    for name, case in refused().items():
        cert_file, key_file = tmp_path / "our cert.pem", tmp_path / "our key.pem"
        cert_file.write_bytes(case.cert)
        key_file.write_bytes(case.key or b"")
        words = ["--cert", str(cert_file), *(["--key", str(key_file)] if case.key is not None else [])]
        if case.password is not None:
            (tmp_path / "password").touch(0o600)
            (tmp_path / "password").write_text(case.password)
            words += ["--key-password", f"file:{tmp_path}/password"]
        assert main(["listen", *words, "tls://127.0.0.1:0"]) == 1
        err = capsys.readouterr().err
        message = case.message.format(cert=f"'{cert_file}'", key=f"'{key_file}'")
        assert message.removesuffix(", and no password was given") in err, name
        assert err.startswith("wireline: cannot use TLS: "), name
        assert err.count("\n") == 1, name


def test_FB11_a_path_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = certificates.server()
    for name, (path, reason) in unreadable(tmp_path).items():
        for words in (
            ["listen", "--cert", str(path), "--key", good.key],
            ["listen", "--cert", good.cert, "--key", str(path)],
            ["listen", "--cert", good.cert, "--key", good.key, "--client-ca", str(path)],
            ["connect", "--ca-file", str(path)],
        ):
            assert main([*words, "tls://127.0.0.1:0" if words[0] == "listen" else "tls://127.0.0.1:1"]) == 1
            assert capsys.readouterr().err == f"wireline: cannot use TLS: {path}: {reason}\n", name


def test_FB11_files_of_every_usual_form_are_accepted(tmp_path: Path) -> None:
    for name, (chain, own_key, password) in accepted().items():
        try:
            SslContext(cert_data=chain, key_data=own_key, password=password).ssl_context(Handshake.AS_SERVER)
            (tmp_path / "cert").write_bytes(chain)
            (tmp_path / "key").write_bytes(own_key or b"")
            key_file = "" if own_key is None else tmp_path / "key"
            SslContext(cert_file=tmp_path / "cert", key_file=key_file, password=password)
        except SslError as error:
            error.add_note(name)
            raise


def test_FB11_a_broken_entry_of_a_bundle_is_named(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(ca() + cert() + DAMAGED)
    with pytest.raises(SslError, match=f"certificate 3 of '{bundle}' is damaged"):
        SslContext(ca_file=bundle)
    with pytest.raises(SslError, match="certificate 3 of ca_data is damaged"):
        SslContext(ca_data=bundle.read_bytes())


def test_FB12_T13_each_file_is_read_once(tmp_path: Path) -> None:
    """A pipe can be read once only; a file that is removed after that is not missed."""
    with Pipe(tmp_path / "cert", cert()), Pipe(tmp_path / "key", key()), Pipe(tmp_path / "ca", ca()):
        context = SslContext(cert_file=tmp_path / "cert", key_file=tmp_path / "key", ca_file=tmp_path / "ca")
    for name in ("cert", "key", "ca"):
        (tmp_path / name).unlink()
    connect(context, context)


class Pipe:
    """A named pipe, into which a thread writes once."""

    def __init__(self, path: Path, data: bytes) -> None:
        os.mkfifo(path)
        self.thread = threading.Thread(target=path.write_bytes, args=(data,))

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()


def test_FB12_without_proc_the_key_is_in_a_file_that_only_this_user_can_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    before = open_descriptors()
    SslContext(cert_data=cert(), key_data=key())
    monkeypatch.delattr(os, "memfd_create")
    SslContext(cert_data=cert(), key_data=key())
    assert open_descriptors() == before


def test_FB13_a_leaf_in_ca_file_is_trusted_unless_partial_chains_are_refused() -> None:
    server = SslContext(cert_data=cert(), key_data=key())
    connect(SslContext(ca_data=cert()), server)
    with pytest.raises(SslError):
        connect(SslContext(ca_data=cert(), partial_chain=False), server)


def test_combinations_that_mean_nothing_are_refused() -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"cert_file": "a", "cert_data": b""}, "cert_file and cert_data"),
        ({"ca_file": "a", "ca_data": b""}, "ca_file and ca_data"),
        ({"key_data": key()}, "key_data needs the cert_data"),
        ({"key_file": "a"}, "key_file needs the cert_file"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            SslContext(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cert_data is bytes"):
        SslContext(cert_data="text")  # type: ignore[arg-type]
