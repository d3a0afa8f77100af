"""The event loops that the async flavour's tests are run on."""

from __future__ import annotations

import pytest
import uvloop

from wireline.asyncnet import _asyncio

# The first loop of libuv opens a pipe for signals, once for the process. No test is to be blamed for it.
uvloop.Loop().close()


@pytest.fixture(params=["asyncio", "uvloop", "portable"])
def anyio_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    """The event loop for anyio's plugin. "portable" is asyncio's, used as if it had no ``add_reader``."""
    monkeypatch.setattr(_asyncio, "FORCE_PORTABLE", request.param == "portable")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}
