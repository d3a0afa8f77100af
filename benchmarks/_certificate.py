"""The certificate of every contestant that speaks TLS: made once in a run, and thrown away with it."""

from __future__ import annotations

import functools
from pathlib import Path

from benchmarks._programs import absent
from benchmarks._scratch import write


def obstacle() -> str:
    """Why there can be no certificate here; empty if there can."""
    return absent(["trustme"])


@functools.cache
def certificate() -> Path:
    """A PEM file with a key (P-256) and the certificate for it."""
    import trustme

    leaf = trustme.CA().issue_cert("127.0.0.1", "localhost")
    return write("certificate.pem", leaf.private_key_and_cert_chain_pem.bytes())
