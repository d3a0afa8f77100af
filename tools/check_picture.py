"""Draw ``docs/_static/check.svg``: what ``wireline check`` prints on a terminal, for a server that this program starts.

Run it after a change of the command's output: ``python tools/check_picture.py`` (with the extra ``cli``, on POSIX).
"""

from __future__ import annotations

import datetime
import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rich.console import Console
from rich.text import Text

from wireline.net import serve
from wireline.tls import SslContext

PICTURE = Path(__file__).resolve().parent.parent / "docs/_static/check.svg"
NAME = "localhost"
PORT = 8443
COLUMNS = 84
DAYS_LEFT = 16


Identity = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def certify(subject: str, days: int, issuer: Identity | None = None) -> Identity:
    """Make a key and its certificate: one for `NAME` if there is an issuer, else that of a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[0].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=74))
        .not_valid_after(now + datetime.timedelta(days=days, hours=12))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key())
        builder = builder.add_extension(names, critical=False).add_extension(signer, critical=False)
    else:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def run_on_a_terminal(words: list[str]) -> tuple[str, int]:
    """Run the command on a new terminal; return what it printed and its exit code."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "wireline", *words]
    ran = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    printed = b""
    try:
        while data := os.read(ours, 4096):
            printed += data
    except OSError:  # EIO: the other end of the terminal is closed
        pass
    os.close(ours)
    return printed.decode().replace("\r\n", "\n"), ran.wait()


def draw(command: str, printed: str) -> str:
    """Return the text of a terminal as SVG. It loads no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(printed.rstrip("\n")))
    picture = console.export_svg(title="wireline check", unique_id="check")
    return re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)


def main() -> None:
    """Check a server whose certificate ends soon, and write the picture."""
    authority = certify("Example CA", 3000)
    certificate, key = certify(NAME, DAYS_LEFT, authority)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        pem = serialization.Encoding.PEM
        Path("ca.pem").write_bytes(authority[0].public_bytes(pem))
        Path("server.pem").write_bytes(certificate.public_bytes(pem))
        Path("server.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = SslContext(cert_file="server.pem", key_file="server.key")
        with serve(lambda client, _: client.recv_some(timeout=10), PORT, NAME, tls=context):
            words = ["--days", "21", "--ca-file", "ca.pem", f"tls://{NAME}:{PORT}"]
            printed, code = run_on_a_terminal(["check", *words])
    print(printed, f"exit code {code}", sep="\n")
    PICTURE.write_text(draw(f"wireline check {' '.join(words)}", printed), encoding="utf-8")


if __name__ == "__main__":
    main()
