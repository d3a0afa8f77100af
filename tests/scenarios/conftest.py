"""Every scenario runs once for each flavour and transport that it makes sense for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.scenarios.flavours import FLAVOURS, Flavour
from tests.scenarios.names import Names
from tests.scenarios.scene import DATAGRAMS, STREAMS, Pair, Scene, Transport, Wire


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    chosen: Flavour = request.param
    with chosen.in_place():
        yield chosen


@pytest.fixture
def anyio_backend(flavour: Flavour) -> object:
    """Tell anyio's plugin what loop to run the scenario on."""
    return flavour.backend


@pytest.fixture(params=STREAMS)
def transport(request: pytest.FixtureRequest) -> Transport:
    """The kinds of stream. A scenario for some of them says ``@over("tcp4", "tcp6")``."""
    return (STREAMS | DATAGRAMS)[request.param]


@pytest.fixture
async def scene(flavour: Flavour, transport: Transport) -> AsyncIterator[Scene]:
    async with Scene(flavour, transport) as scene:
        yield scene


@pytest.fixture
async def wire(scene: Scene) -> Wire:
    """A buffered socket of ours and a raw peer."""
    return await scene.wire()


@pytest.fixture
async def pair(scene: Scene) -> Pair:
    """A client and a server, both ours."""
    return await scene.pair()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Names that resolve to what the scenario says."""
    with Names().in_place(monkeypatch) as names:
        yield names
