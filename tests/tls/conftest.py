"""Both ways a connection can be: with the bridge to OpenSSL and without, TLS 1.2 and 1.3."""

from __future__ import annotations

import pytest

from wireline.tls import _openssl, _psk


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest) -> str:
    """A version of TLS, as ``tls_info`` writes it."""
    text: str = request.param
    return text


@pytest.fixture
def no_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that does not let anybody at OpenSSL."""
    monkeypatch.setenv("WIRELINE_NO_BRIDGE", "1")


@pytest.fixture
def bridge() -> None:
    """An interpreter that does; where there is none the test has nothing to look at."""
    if not _openssl.available():
        pytest.skip(_openssl.why_not())


@pytest.fixture
def psk() -> None:
    """An interpreter that can do pre-shared keys, by the bridge or by itself."""
    try:
        _psk.require_available()
    except NotImplementedError as error:
        pytest.skip(str(error))
