"""Fixtures: the version of TLS, the bridge to OpenSSL on or off, PSK."""

from __future__ import annotations

import pytest

from wireline.tls import _openssl, _psk


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest) -> str:
    """A version of TLS, in the words of ``tls_info``."""
    text: str = request.param
    return text


@pytest.fixture
def no_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the bridge off."""
    monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")


@pytest.fixture
def bridge() -> None:
    """Skip the test if there is no bridge."""
    if not _openssl.available():
        pytest.skip(_openssl.why_not())


@pytest.fixture
def psk() -> None:
    """Skip the test if there are no pre-shared keys, neither with the bridge nor in ``ssl``."""
    try:
        _psk.require_available()
    except NotImplementedError as error:
        pytest.skip(str(error))
