"""Certificates of the scenes: one that signs itself for ``localhost`` and its address, and one with very many names."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

DIRECTORY = "WIRELINE_TORTURE_CERTIFICATES"
"""The environment variable that says where they are, for processes without the one of the peers."""


def make(directory: str, name: str = "server", extra_names: int = 0) -> tuple[str, str]:
    """Write ``NAME.pem``, which a client has to trust, and ``NAME.key`` into ``directory``."""
    # Not at the top: the scenes import this module, and each of them would pay for this.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        *(x509.DNSName(f"name{number:05}.test") for number in range(extra_names)),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = os.path.join(directory, f"{name}.pem"), os.path.join(directory, f"{name}.key")
    Path(files[0]).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    Path(files[1]).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


def server_files() -> tuple[str, str]:
    """The certificate and the key that ``make`` wrote."""
    directory = os.environ[DIRECTORY]
    return os.path.join(directory, "server.pem"), os.path.join(directory, "server.key")
