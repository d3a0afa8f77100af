"""Helpers of the tests with the ``openssl`` program at the other end."""

from __future__ import annotations

import pathlib

import pytest

VERSIONS = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}
"""Our name of a version, and the program's option for it."""

KEY_UPDATE = rb"TLS 1.3, Handshake .*KeyUpdate\n"
"""The messages that the program prints with ``-msg``, after an arrow."""


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """A version of TLS, as ``tls_info`` writes it."""
    chosen: str = request.param
    return chosen


def read(*names: str) -> list[str]:
    """The content of these files."""
    return [pathlib.Path(name).read_text() for name in names]
