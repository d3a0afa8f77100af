"""TLS: clients, servers, and what is known about a certificate."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.cli.tasks.bench import Bench, Running
from tests.cli.tasks.scenarios import task
from tests.tls import certificates

S_SERVER = "openssl s_server -rev -cert server.pem -key server.key"
S_CLIENT = "openssl s_client -quiet -verify_return_error -CAfile ca.pem -connect example.com:9000"
KEY = "0123456789abcdef" * 2


def _answers_reversed(bench: Bench, line: str) -> Running:
    """The server, which serves one client after the other, answers the client. Its input may end now."""
    client = bench.start(line)
    client.type("hello\n")
    client.says("(?m)^olleh$")
    bench.end(client)
    return client


def _talk(server: Running, client: Running) -> None:
    client.type("hello\n")
    server.says("(?m)^hello$")
    server.type("welcome\n")
    client.says("(?m)^welcome$")


def _is_refused(bench: Bench, client: Running) -> None:
    code = client.code()
    assert code == 5 if bench.ours else code != 0


@task("Connect with TLS, with the CAs of the system or a CA of one's own")
def connect(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    server = bench.start(f"{S_SERVER} -accept 443", listens=443)
    _answers_reversed(bench, lines[0])
    bench.trust(certificates.other_ca_file())
    _is_refused(bench, bench.start(lines[0]))
    _answers_reversed(bench, lines[1])
    bench.end(server)
    bench.write_certificates(certificates.elsewhere())
    bench.start(f"{S_SERVER} -accept 443", listens=443)
    if "openssl" not in lines[1]:
        _is_refused(bench, bench.start(lines[1]))


@task("Serve TLS")
def serve(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    _talk(bench.start(lines[0], listens=9000), bench.start(S_CLIENT))


@task("Serve TLS with a throw-away certificate")
def self_signed(bench: Bench, lines: list[str]) -> None:
    server = bench.start(lines[0], listens=9000)
    trust = ""
    if bench.ours:
        (bench.where / "ca.pem").write_text(
            server.says(r"(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", on_stderr=True)[0]
        )
        trust = " -verify_return_error -CAfile ca.pem"
    bench.hosts["example.com"] = "localhost"
    _talk(server, bench.start(f"openssl s_client -quiet{trust} -connect example.com:9000"))


@task("Require certificates of both sides")
def mutual(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    server = bench.start(lines[0], listens=9000)
    _talk(server, bench.start(f"{S_CLIENT} -cert me.pem -key me.key"))
    bench.end(server)
    server = bench.start(lines[0], listens=9000)
    stranger = bench.start(S_CLIENT)
    with contextlib.suppress(BrokenPipeError):  # it may be refused, and gone, before it reads its input
        stranger.type("hello\n")
    assert stranger.code() != 0
    assert "hello" not in server.out
    bench.end(server)
    bench.start(f"{S_SERVER} -accept 9000 -CAfile ca.pem -Verify 1 -verify_return_error", listens=9000)
    _answers_reversed(bench, lines[1])


@task("Use a pre-shared key")
def psk(bench: Bench, lines: list[str]) -> None:
    bench.env["KEY"] = KEY
    (bench.where / "keys.txt").touch(0o600)
    (bench.where / "keys.txt").write_text(f"me:{KEY}\n")
    words = "-psk_identity me -psk $KEY"
    server = bench.start(lines[0], listens=9000)
    _talk(server, bench.start(f"openssl s_client -quiet -connect example.com:9000 {words}"))
    bench.end(server)
    bench.start(f"openssl s_server -rev -nocert -accept 9000 {words}", listens=9000)
    _answers_reversed(bench, lines[1])


@task("Ask for a name (SNI) and a protocol (ALPN)")
def sni_and_alpn(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.start_nginx(
        "listen 443 ssl; ssl_certificate server.pem; ssl_certificate_key server.key; "
        "location / { return 200 '$ssl_server_name, $ssl_alpn_protocol\n'; }",
        443,
    )
    client = bench.start(lines[0])
    client.type("GET / HTTP/1.0\r\n\r\n")
    client.says(r"\r\nwww.example.com, http/1\.1\n$")


@task("Show the certificates of a server")
def show(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.start(f"{S_SERVER} -accept 443", listens=443)
    done = bench.run(lines[0])
    assert done.code == 0
    assert "www.example.com" in done.out
    assert "wireline tests" in done.out


@task("Warn before a certificate expires, in cron or Nagios")
def expiry(bench: Bench, lines: list[str]) -> None:
    for leaf, codes in ((None, [0, 0]), (certificates.ending(), [5, 1])):
        bench.write_certificates(leaf)
        server = bench.start(f"{S_SERVER} -accept 443", listens=443)
        done = [bench.run(line) for line in lines]
        assert [each.code for each in done] == (codes if bench.ours else [min(codes[0], 1)]), done
        bench.end(server)
        if bench.ours:
            assert done[0].out == ""
            assert ("expires on" in done[0].err) == bool(done[0].code) == bool(done[0].err)
            assert done[1].out.startswith(f"WIRELINE {'WARNING' if done[1].code else 'OK'} - ")
    if bench.ours:
        assert [bench.run(line).code for line in lines] == [3, 2]


@task("Test certificate files before they are deployed")
def files(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    assert bench.run(lines[0]).code == 0
    (bench.where / "server.key").write_bytes(Path(certificates.server().key).read_bytes())
    done = bench.run(lines[0])
    assert done.code == 5 if bench.ours else done.code == 1


STARTTLS = {
    "smtp": (
        25,
        r"printf '220 here\r\n'; read line; printf '250-here\r\n250 STARTTLS\r\n'; read line; printf '220 go\r\n'",
    ),
    "imap": (
        143,
        (
            r"printf '* OK here\r\n'; read tag line; printf '* CAPABILITY IMAP4rev1 STARTTLS\r\n%s OK\r\n' $tag; "
            r"read tag line; printf '%s OK\r\n' $tag"
        ),
    ),
    "postgres": (5432, "head -c 8 > /dev/null; printf S"),
    "ldap": (389, r"head -c 31 > /dev/null; printf '0\014\002\001\001x\007\012\001\000\004\000\004\000'"),
}
"""The port of each protocol, and the half of a server until TLS begins, in the language of the shell."""


def _starttls_server(bench: Bench, protocol: str) -> None:
    """The dialogue, and then a server of openssl."""
    port, dialogue = STARTTLS[protocol]
    script = bench.where / f"{protocol}.sh"
    script.write_text(bench.here(f"{dialogue}; exec socat - TCP:127.0.0.1:443\n"))
    bench.start(f"socat TCP-LISTEN:{port},reuseaddr,fork EXEC:'sh {script}'", listens=port)


@task("Talk after STARTTLS")
def starttls_connect(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.start(f"{S_SERVER} -accept 443", listens=443)
    for line, protocol in zip(lines, ("smtp", "postgres"), strict=True):
        _starttls_server(bench, protocol)
        _answers_reversed(bench, line)


@task("Test a certificate behind STARTTLS")
def starttls_check(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.start(f"{S_SERVER} -accept 443", listens=443)
    for line, protocol in zip(lines, ("imap", "ldap"), strict=True):
        _starttls_server(bench, protocol)
        done = bench.run(line)
        assert done.code == 0, done
        assert "days left" in done.out if bench.ours else "notAfter=" in done.out


@task("Choose versions and ciphers")
def version_and_ciphers(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    server = bench.start(f"{S_SERVER} -accept 443", listens=443)
    client = _answers_reversed(bench, lines[0])
    server.says(
        "ECDHE-ECDSA-AES256-GCM-SHA384" if "ncat" not in lines[0] else "TLS_AES_256_GCM_SHA384",
        on_stderr=True,
    )
    if bench.ours:
        client.says("TLSv1.2, ECDHE-ECDSA-AES256-GCM-SHA384", on_stderr=True)


@task("Test whether sessions are resumed")
def resumption(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.start(f"{S_SERVER} -accept 443", listens=443)
    done = bench.run(lines[0])
    assert re.search("resumption +yes", done.out) if bench.ours else done.out.count("\nReused, TLSv1.2") == 5


@task("Log the keys for Wireshark")
def keylog(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.start(f"{S_SERVER} -accept 443", listens=443)
    _answers_reversed(bench, lines[0])
    labels = {row.split()[0] for row in (bench.where / "keys.log").read_text().splitlines() if row[0] != "#"}
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= labels


@task("Pin a public key")
def pin(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    bench.start(f"{S_SERVER} -accept 443", listens=443)
    spki = (
        x509.load_pem_x509_certificate((bench.where / "server.pem").read_bytes())
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    right = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    if not bench.ours:
        assert bench.run(lines[0]).out.strip() == right
        return
    bench.env["PIN"] = right
    _answers_reversed(bench, lines[0])
    bench.env["PIN"] = base64.b64encode(hashlib.sha256(b"another").digest()).decode()
    _is_refused(bench, bench.start(lines[0]))


@task("Use a key with a password, or PKCS#12")
def locked_key(bench: Bench, lines: list[str]) -> None:
    bench.write_certificates()
    (bench.where / "password.txt").touch(0o600)
    (bench.where / "password.txt").write_text("correct horse\n")
    words = "-inkey me.key -in me.pem -passout file:password.txt"
    for line in (
        "openssl pkey -in me.key -aes256 -passout file:password.txt -out locked.key",
        f"openssl pkcs12 -export {words} -out me.p12",
    ):
        subprocess.run(line.split(), cwd=bench.where, check=True, capture_output=True, timeout=10)
    bench.start(f"{S_SERVER} -accept 443 -CAfile ca.pem -Verify 1 -verify_return_error", listens=443)
    for line in lines:
        _answers_reversed(bench, line)
