"""The source of the CAs (T11): only the named one counts, and an empty one is an error."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.tls import certificates
from wireline.tls import SslContext, SslError, VerifyMode, _trust
from wireline.tls._pem import Source
from wireline.tls._trust import Trust, find

ENV_VARS = VerifyMode.PEER_USE_ENV_VARS


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the variables; a test may set them."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system with one bundle, which contains only our CA."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Path(certificates.ca_file()).read_bytes())
    monkeypatch.setattr(_trust, "_KNOWN_FILES", (str(tmp_path / "missing"), str(bundle)))
    return bundle


@pytest.fixture
def bare_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system without CAs. Its directory of certificates exists and is empty."""
    paths = ssl.get_default_verify_paths()
    empty = tmp_path / "certs"
    empty.mkdir()
    bare = paths._replace(openssl_cafile=str(tmp_path / "cert.pem"), openssl_capath=str(empty))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: bare)
    monkeypatch.setattr(_trust, "_KNOWN_FILES", ())
    monkeypatch.setattr(_trust, "_KNOWN_DIRECTORIES", ())
    return tmp_path


def loaded(trust: Trust) -> set[bytes]:
    """The certificates that a context trusts after loading."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load(context)
    return set(context.get_ca_certs(binary_form=True))


def der(path: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(path).read_text())


OURS = der(certificates.ca_file())
THEIRS = der(certificates.other_ca_file())


# Named by the caller.


def test_T11_a_file_that_is_given_is_the_only_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificates.other_ca_file())
    assert loaded(find(ENV_VARS, certificates.ca_file())) == {OURS}
    assert loaded(find(VerifyMode.PEER, certificates.ca_file())) == {OURS}


def test_T11_every_certificate_of_a_directory_is_loaded(tmp_path: Path) -> None:
    directory = certificates.ca_directory()
    assert loaded(find(VerifyMode.PEER, "", directory)) == {OURS, THEIRS}
    shutil.copy(f"{directory}/theirs.cer", tmp_path)  # DER alone
    assert loaded(find(VerifyMode.PEER, "", str(tmp_path))) == {THEIRS}


def test_T11_file_and_directory_may_both_be_given(tmp_path: Path) -> None:
    (tmp_path / "theirs.pem").write_bytes(Path(certificates.other_ca_file()).read_bytes())
    assert loaded(find(VerifyMode.PEER, certificates.ca_file(), str(tmp_path))) == {OURS, THEIRS}


def test_a_certificate_with_two_file_names_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "ours.pem").write_bytes(Path(certificates.ca_file()).read_bytes())
    (tmp_path / "0123abcd.0").symlink_to(tmp_path / "ours.pem")
    (tmp_path / "dangling.pem").symlink_to(tmp_path / "gone.pem")
    assert loaded(find(VerifyMode.PEER, "", str(tmp_path))) == {OURS}


def test_T11_a_missing_source_is_an_error_that_names_it(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for file, directory in ((missing, ""), ("", missing), (str(tmp_path), ""), ("", certificates.ca_file())):
        with pytest.raises(OSError) as caught:
            find(VerifyMode.PEER, file, directory)
        assert caught.value.filename == (file or directory)


@in_turn("content", [b"", b"nothing to see", b"\x30\x82\x00", b"-----BEGIN CERTIFICATE-----\nAA=="])
def test_T11_a_source_without_a_certificate_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "empty.pem"
    file.write_bytes(content)
    for arguments, name in (((str(file),), file), (("", str(tmp_path)), tmp_path)):
        with pytest.raises(OSError, match=f"'{name}'") as caught:
            find(VerifyMode.PEER, *arguments)
        assert isinstance(caught.value, SslError)
        assert caught.value.filename == str(name)


def test_a_file_with_only_a_revocation_list_is_refused(tmp_path: Path) -> None:
    """OpenSSL loads such a file without an error."""
    file = tmp_path / "list.pem"
    file.write_text(certificates.revocation_list())
    with pytest.raises(OSError, match=r"no certificate in .*: it has a revocation list"):
        find(VerifyMode.PEER, str(file))


# Named by the environment.


def test_T11_the_environment_names_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificates.ca_file())
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "missing"))
    assert loaded(find(ENV_VARS)) == {OURS}


@in_turn("file", [None, ""])
def test_T11_the_environment_names_a_directory(monkeypatch: pytest.MonkeyPatch, file: str | None) -> None:
    if file is not None:
        monkeypatch.setenv("SSL_CERT_FILE", file)
    monkeypatch.setenv("SSL_CERT_DIR", certificates.ca_directory())
    assert loaded(find(ENV_VARS)) == {OURS, THEIRS}


def test_T11_the_environment_names_several_directories(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, file in (("a", certificates.ca_file()), ("b", certificates.other_ca_file())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ca.pem").write_bytes(Path(file).read_bytes())
    monkeypatch.setenv("SSL_CERT_DIR", os.pathsep.join([str(tmp_path / "a"), "", str(tmp_path / "b")]))
    assert loaded(find(ENV_VARS)) == {OURS, THEIRS}


@pytest.mark.usefixtures("system")
def test_T11_without_variables_the_system_is_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "")
    monkeypatch.setenv("SSL_CERT_DIR", "")
    assert loaded(find(ENV_VARS)) == {OURS}


@in_turn("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_T11_a_bad_value_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    missing = str(tmp_path / "missing")
    monkeypatch.setenv(variable, missing)
    with pytest.raises(FileNotFoundError) as caught:
        SslContext(verify_mode=ENV_VARS)
    assert missing in str(caught.value)
    assert variable in str(caught.value)


def test_T11_a_file_without_certificates_is_a_bad_value_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "empty.pem"
    file.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(OSError, match=r"empty\.pem"):
        SslContext(verify_mode=ENV_VARS)


@pytest.mark.usefixtures("system")
def test_T11_the_environment_counts_only_with_PEER_USE_ENV_VARS(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``load_default_certs`` always obeys it, and treats a missing file as an empty list."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing"))
    assert loaded(find(VerifyMode.PEER)) == {OURS}
    monkeypatch.setenv("SSL_CERT_FILE", certificates.other_ca_file())
    assert loaded(find(VerifyMode.PEER)) == {OURS}
    assert SslContext().context.get_ca_certs(binary_form=True) == [OURS]


# The system.


def test_the_file_openssl_was_built_with_is_the_last_one_tried(bare_system: Path) -> None:
    (bare_system / "cert.pem").write_bytes(Path(certificates.ca_file()).read_bytes())
    assert loaded(find(VerifyMode.PEER)) == {OURS}


def test_the_directory_openssl_was_built_with_is_tried_after_its_file(bare_system: Path) -> None:
    (bare_system / "cert.pem").touch()
    (bare_system / "certs" / "ours").write_bytes(Path(certificates.ca_file()).read_bytes())
    assert loaded(find(VerifyMode.PEER)) == {OURS}


@pytest.mark.usefixtures("bare_system")
def test_T11_a_system_without_cas_is_an_error_at_once_and_not_an_empty_list() -> None:
    with pytest.raises(OSError, match="no trusted CAs"):
        SslContext()


@pytest.mark.usefixtures("bare_system")
def test_a_server_needs_no_cas_until_it_is_a_client() -> None:
    leaf = certificates.server()
    context = SslContext(cert_file=leaf.cert, key_file=leaf.key)
    with pytest.raises(OSError, match="no trusted CAs"):
        _ = context.context
    SslContext(verify_mode=VerifyMode.NONE)


# Windows.


class Windows:
    """A fake ``ssl.enum_certificates``. A certificate may be restricted to some purposes."""

    def __init__(self, **stores: list[tuple[bytes, str, set[str] | bool]]) -> None:
        self.stores = stores

    def __call__(self, store: str) -> list[tuple[bytes, str, set[str] | bool]]:
        return self.stores.get(store, [])


def on_windows(monkeypatch: pytest.MonkeyPatch, found: Windows) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(ssl, "enum_certificates", found, raising=False)


def test_windows_has_a_store_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    root: list[tuple[bytes, str, set[str] | bool]] = [
        (OURS, "x509_asn", True),
        (b"something else", "pkcs_7_asn", True),
        (THEIRS, "x509_asn", {"1.3.6.1.5.5.7.3.2"}),  # for clients
    ]
    on_windows(monkeypatch, Windows(ROOT=root))
    assert loaded(find(VerifyMode.PEER)) == {OURS}
    on_windows(monkeypatch, Windows(ROOT=root, CA=[(THEIRS, "x509_asn", {"1.3.6.1.5.5.7.3.1"})]))
    assert loaded(find(VerifyMode.PEER)) == {OURS, THEIRS}


def test_a_windows_without_cas_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    on_windows(monkeypatch, Windows())
    with pytest.raises(FileNotFoundError, match="Windows"):
        loaded(find(VerifyMode.PEER))


def test_an_unreadable_file_of_a_directory_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A permission would not stop root, who may run the tests; so the reading itself fails."""
    (tmp_path / "secret.pem").write_bytes(Path(certificates.other_ca_file()).read_bytes())
    (tmp_path / "ours.pem").write_bytes(Path(certificates.ca_file()).read_bytes())
    read = _trust.read_source

    def guarded(path: str, origin: str = "") -> Source:
        if path.endswith("secret.pem"):
            raise PermissionError(13, "Permission denied", path)
        return read(path, origin)

    monkeypatch.setattr(_trust, "read_source", guarded)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    find(VerifyMode.PEER, "", str(tmp_path)).load(context)
    assert context.get_ca_certs(binary_form=True) == [OURS]
