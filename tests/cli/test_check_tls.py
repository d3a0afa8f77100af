"""``wireline check`` with TLS: good and bad certificates, and the facts about a connection."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.checked import the_report, the_tls
from tests.cli.command import accept, read_all, reset, tcp_server
from tests.cli.conftest import Start
from tests.tls import certificates
from wireline import Address
from wireline.cli import main
from wireline.net import Socket, serve
from wireline.tls import SslContext


def until_the_end(client: Socket, address: Address) -> None:
    """Read, and close when the client is done."""
    while client.recv_some():
        pass


@contextlib.contextmanager
def serving(
    leaf: certificates.Leaf, host: str = "localhost", context: SslContext | ssl.SSLContext | None = None
) -> Iterator[str]:
    """A TLS server of this library; yields the target."""
    if isinstance(context, ssl.SSLContext):
        context.load_cert_chain(*leaf)
        context = SslContext.from_ssl(context)
    tls = context or SslContext(cert_file=leaf.cert, key_file=leaf.key)
    with serve(until_the_end, 0, "127.0.0.1", tls=tls) as server:
        yield f"tls://{host}:{server.local_addr.port}"


def only_tls_1_2() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


TRUSTING = ["check", "--first", "--ca-file", certificates.ca_file()]


class Checked(NamedTuple):
    """The result of a check in this process, which is faster than one in its own."""

    code: int
    out: str
    err: str


Check = Callable[..., Checked]


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str]) -> Check:
    def checker(*words: str) -> Checked:
        code = main([*TRUSTING, *words])
        return Checked(code, *capfd.readouterr())

    return checker


def test_a_good_server(start: Start) -> None:
    with serving(certificates.chained()) as target:
        code, out, err = start(*TRUSTING, target).finish()
    assert (code, err) == (0, "")
    text = out.decode()
    for line in (
        "  version       TLSv1.3\n",
        "  key exchange  X25519",
        "  name          matches: localhost\n",
        "  chain         trusted\n",
        "  resumption    yes\n",
        "names      localhost, 127.0.0.1, ::1\n",
        "key        EC secp256r1\n",
        "signature  ECDSA with SHA-256\n",
        " days left\n",
    ):
        assert line in text
    # Each issuer is above the certificate that it signed, which is indented further.
    titles = [line for line in text.partition("certificates\n")[2].splitlines() if "O=" in line]
    assert [len(line) - len(line.lstrip()) for line in titles] == [2, 4, 6]
    assert titles[0].endswith("O=wireline tests [not sent, trusted here]")


def test_the_json_of_a_good_server(check: Check) -> None:
    with serving(certificates.chained()) as target:
        code, out, err = check("--json", target)
    assert (code, err) == (0, "")
    found = the_report(out)
    assert (found["target"], found["ok"], found["exit_code"], found["problems"]) == (target, True, 0, [])
    tls = the_tls(out)
    assert tls["name_matches"] is tls["chain_trusted"] is tls["resumes"] is True
    assert tls["name"] == "localhost"
    assert [each["sent"] for each in tls["chain"]] == [True, True, False]
    assert [each["self_signed"] for each in tls["chain"]] == [False, False, True]
    leaf = tls["chain"][0]
    assert leaf["names"] == ["localhost", "127.0.0.1", "::1"]
    assert leaf["sha256"] in {certificates_fingerprint(certificates.chained().cert)}


def certificates_fingerprint(path: str) -> str:
    """The fingerprint of the first certificate of a file, by the standard library."""
    pem = Path(path).read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def test_FB15_a_certificate_of_4500_names_is_reported(check: Check) -> None:
    """FB15: `ssl` cannot copy the session of such a connection, and the report of the check was lost."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        with serving(certificates.crowded(), context=context) as target:
            code, out, err = check("--json", target)
        assert (code, err) == (0, "")
        tls = the_tls(out)
        assert tls["name_matches"] is tls["chain_trusted"] is True
        assert len(tls["chain"][0]["names"]) == 4503
        assert tls["resumes"] is False


def test_a_sentence_has_few_of_many_names(check: Check) -> None:
    with serving(certificates.crowded()) as target:
        code, out, err = check("--sni", "elsewhere.test", "--json", target)
    assert code == 5
    assert "it is for localhost, 127.0.0.1, ::1, name-00000.test" in err
    assert len(err) < 600
    assert len(the_tls(out)["chain"][0]["names"]) == 4503


# name matches, chain is trusted, words on standard error
BAD = {
    "expired": (certificates.expired, True, False, "has expired on"),
    "not yet valid": (certificates.not_yet_valid, True, False, "is not valid yet"),
    "wrong name": (certificates.elsewhere, False, True, "it is for elsewhere.test; if it should"),
    "self-signed": (certificates.self_signed, True, False, "is self-signed"),
    "incomplete": (certificates.incomplete, True, False, "was sent without its intermediate certificates"),
    "stranger": (certificates.stranger, True, False, "was signed by a CA that is not trusted here"),
    "common name only": (certificates.common_name_only, False, True, "it is for no name at all"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_certificate_is_shown_and_is_exit_code_5(check: Check, case: str) -> None:
    make, name_matches, chain_trusted, words = BAD[case]
    with serving(make()) as target:
        code, out, err = check("--json", target)
    assert code == 5
    assert err.startswith("wireline: the certificate of tls://localhost:")
    assert words in err
    assert err.count("\n") == 1
    found = the_report(out)
    tls = the_tls(out)
    assert (found["ok"], found["exit_code"]) == (False, 5)
    assert [problem["message"] for problem in found["problems"]] == [err.strip().removeprefix("wireline: ")]
    assert (tls["name_matches"], tls["chain_trusted"]) == (name_matches, chain_trusted)
    # The certificate was read all the same.
    assert (tls["version"], tls["cipher"][:4], tls["resumes"]) == ("TLSv1.3", "TLS_", True)
    assert tls["chain"][0]["sent"] is True


def test_name_and_expiry_are_both_reported(check: Check) -> None:
    with serving(certificates.expired()) as target:
        code, out, err = check("--sni", "elsewhere.test", "--json", target)
    assert code == 5
    tls = the_tls(out)
    assert (tls["name"], tls["name_matches"], tls["chain_trusted"]) == ("elsewhere.test", False, False)
    assert tls["chain_error"] == "certificate has expired"
    first, second = err.splitlines()
    assert "has expired on" in first
    assert "is not for 'elsewhere.test': it is for localhost, 127.0.0.1, ::1" in second


def test_a_missing_certificate_has_its_place_in_the_chain(check: Check) -> None:
    with serving(certificates.incomplete()) as target:
        out = check(target).out
    assert "  chain         not trusted: unable to get local issuer certificate\n" in out
    assert " [not sent, and not trusted here]\n" in out


@pytest.mark.parametrize(("days", "code"), [("4", 0), ("21", 5)])
def test_a_certificate_that_expires_soon(check: Check, days: str, code: int) -> None:
    with serving(certificates.ending()) as target:
        result = check("--days", days, target)
    assert result.code == code
    assert "4 days left\n" in result.out
    assert ("4 days are fewer than the 21 of --days; it must be renewed" in result.err) is (code == 5)


def test_an_ip_address_is_matched_as_an_address(check: Check) -> None:
    with serving(certificates.name_only(), "127.0.0.1") as target:
        code, _, err = check(target)
    assert code == 5
    assert "is not for '127.0.0.1': it is for localhost;" in err


def test_tls_1_2_alone(check: Check) -> None:
    with serving(certificates.server(), context=only_tls_1_2()) as target:
        code, out, err = check("--json", target)
    assert (code, err) == (0, "")
    tls = the_tls(out)
    assert (tls["version"], tls["key_exchange"], tls["resumes"]) == ("TLSv1.2", "X25519", True)
    assert tls["cipher"].startswith("ECDHE-ECDSA-")


def test_a_server_without_sessions(check: Check) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    with serving(certificates.server(), context=context) as target:
        code, out, _ = check(target)
    assert code == 0
    assert "  resumption    no: the server sent no session\n" in out


def test_another_group_is_recognised(check: Check) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ecdh_curve("secp384r1")  # the server requests it with a HelloRetryRequest
    with serving(certificates.server(), context=context) as target:
        out = check(target).out
    assert "  key exchange  P-384\n" in out


@pytest.mark.parametrize(
    ("offered", "code", "shown"),
    [("h2,http/1.1", 0, "http/1.1"), ("h2", 5, "none of h2"), ("", 0, "not offered")],
)
def test_alpn(check: Check, offered: str, code: int, shown: str) -> None:
    leaf = certificates.server()
    context = SslContext(cert_file=leaf.cert, key_file=leaf.key, alpn=["http/1.1"])
    if offered == "h2":
        context = SslContext(cert_file=leaf.cert, key_file=leaf.key)
    with serving(leaf, context=context) as target:
        words = ["--alpn", offered] if offered else []
        result = check(*words, target)
    assert result.code == code
    assert f"  ALPN          {shown}" in result.out
    assert ("supports none of the protocols" in result.err) is (code == 5)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("known", [True, False])
def test_mutual_tls(check: Check, version: str, known: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.ca_file())
    if version == "TLSv1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    cert, key = certificates.client()
    with serving(certificates.server(), context=context) as target:
        words = ["--cert", cert, "--key", key] if known else []
        code, out, err = check(*words, "--json", target)
    tls = the_tls(out)
    # A refused client has received the server's certificate before.
    assert tls["chain"][0]["names"] == ["localhost", "127.0.0.1", "::1"]
    if known:
        assert (code, err, tls["version"]) == (0, "", version)
    else:
        assert code == 5
        assert err.startswith(f"wireline: {target} refused the handshake: ")
        assert "--cert" in err


def test_through_a_unix_socket(check: Check, tmp_path: Path) -> None:
    leaf = certificates.server()
    path = f"unix:{tmp_path}/sock"
    with serve(until_the_end, 0, path, tls=SslContext(cert_file=leaf.cert, key_file=leaf.key)):
        code, out, err = check("--tls", "--sni", "localhost", path)
    assert (code, err) == (0, "")
    assert "  resumption    yes\n" in out


def test_a_server_that_speaks_no_tls_is_exit_code_5(start: Start) -> None:
    with tcp_server() as (server, target):
        command = start(*TRUSTING, f"tls://{target}")
        with accept(server) as peer:
            peer.sendall(b"220 not TLS at all\r\n")
            code, out, err = command.finish()
    assert code == 5
    assert b"  handshake     none\n" in out
    assert (
        err
        == f"wireline: tls://{target} does not use TLS on this port: check the port, or connect without TLS\n"
    )


def test_a_server_that_sends_nothing_is_exit_code_4(check: Check) -> None:
    with tcp_server() as (_, target):
        code, out, err = check("--timeout", "1", f"tls://{target}")
    assert code == 4
    assert "connected" in out
    assert "no TLS handshake within 1 s" in err


def test_a_server_that_closes_during_the_handshake_is_exit_code_5(check: Check) -> None:
    with tcp_server() as (server, target):

        def leave() -> None:
            with accept(server) as peer:
                assert peer.recv(1)
                reset(peer)

        thread = threading.Thread(target=leave)
        thread.start()
        code, _, err = check(f"tls://{target}")
        thread.join()
    assert code == 5
    assert "closed the connection during the handshake" in err


def test_a_file_that_is_missing_is_exit_code_1(check: Check) -> None:
    with tcp_server() as (_, target):
        code, out, err = check("--cert", "/none.pem", f"tls://{target}")
    assert (code, out) == (1, "")
    assert err == "wireline: cannot use TLS: /none.pem: No such file or directory\n"


def test_without_cryptography_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["check", "tls://127.0.0.1:9"]) == 1
    assert "pip install 'wireline[cli]'" in capfd.readouterr().err


def test_the_self_signed_certificate_of_listen_has_no_problems(start: Start, tmp_path: Path) -> None:
    listener = start("listen", "--echo", "--keep", "--self-signed", "tls://localhost:0")
    target = listener.listening_on()
    assert listener.process.stderr is not None
    pem, line = b"", b""
    while b"a client needs this CA" not in line:
        line = listener.process.stderr.readline()
        pem += line
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(pem.partition(b"a client needs")[0])
    code, out, err = start("check", "--first", "--ca-file", str(ca_file), "--days", "21", target).finish()
    assert (code, err) == (0, "")
    assert b"29 days left" in out


def test_an_untrusted_and_expired_certificate(check: Check) -> None:
    with serving(certificates.expired()) as target:
        code, _, err = check("--ca-file", certificates.other_ca_file(), target)
    assert code == 5
    first, second = err.splitlines()
    assert "was signed by a CA that is not trusted here" in first
    assert re.search(r"has expired on \d{4}-\d\d-\d\d; it must be renewed$", second)


# The second connection.


@contextlib.contextmanager
def in_turn(*contexts: ssl.SSLContext) -> Iterator[str]:
    """A server that sends first, accepts as many connections as it has contexts, and sends no close_notify."""

    def welcome() -> None:
        for context in contexts:
            with context.wrap_socket(accept(server), server_side=True) as peer:
                peer.sendall(b"hello")
                read_all(peer)
        server.close()

    with tcp_server() as (server, target):
        for context in contexts:
            context.load_cert_chain(*certificates.server())
        thread = threading.Thread(target=welcome)
        thread.start()
        yield f"tls://{target}"
        thread.join()


def test_data_of_the_server_is_dropped(check: Check) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with in_turn(context, context) as target:
        code, out, err = check(target)
    assert (code, err) == (0, "")
    assert "  resumption    yes\n" in out
    assert "hello" not in out


def test_a_session_that_the_server_does_not_resume(check: Check) -> None:
    with in_turn(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as target:
        code, out, _ = check(target)
    assert code == 0
    assert "  resumption    no: the server started a new session\n" in out


def test_if_the_second_connection_fails_resumption_is_unknown(check: Check) -> None:
    with in_turn(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as target:
        code, out, _ = check(target)
    assert code == 0
    assert "  resumption    not known: the second connection failed: " in out


def test_without_rich_a_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, check: Check) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    monkeypatch.delitem(sys.modules, "wireline.cli.check._tables", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with serving(certificates.server()) as target:
        assert "\n  version       TLSv1.3\n" in check(target).out
