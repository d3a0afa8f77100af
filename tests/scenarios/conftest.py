"""Every scenario runs once for each flavour and transport for which it makes sense."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from ssl import TLSVersion

import pytest

from tests.scenarios.flavours import FLAVOURS, Flavour
from tests.scenarios.names import Names
from tests.scenarios.scene import ALL, PLAIN_STREAMS, Pair, Scene, Transport, Wire


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a scenario in every flavour, over the transports of its ``@over``, or else over every stream in clear."""
    if "transport" in metafunc.fixturenames:
        over = metafunc.definition.get_closest_marker("over")
        places = [
            pytest.param(flavour, transport, id=f"{flavour.name}-{transport.name}")
            for flavour in FLAVOURS
            for transport in (ALL[name] for name in (over.args if over else PLAIN_STREAMS))
            if makes_sense(flavour, transport)
            and not (flavour.name == "portable" and metafunc.definition.get_closest_marker("readiness"))
        ]
        metafunc.parametrize(("flavour", "transport"), places, indirect=True)
    elif "flavour" in metafunc.fixturenames:
        metafunc.parametrize("flavour", FLAVOURS, ids=lambda flavour: flavour.name, indirect=True)


def makes_sense(flavour: Flavour, transport: Transport) -> bool:
    """Whether a scenario may find something there that it finds nowhere else.

    The version of TLS makes no difference to a loop: TLS 1.2 runs in the blocking flavour and on asyncio's loop.
    """
    return transport.tls is not TLSVersion.TLSv1_2 or flavour.name in ("blocking", "asyncio")


@pytest.fixture
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    chosen: Flavour = request.param
    with chosen.in_place():
        yield chosen


@pytest.fixture
def anyio_backend(flavour: Flavour) -> object:
    """The event loop for anyio's plugin."""
    return flavour.backend


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.param
    return chosen


@pytest.fixture
async def scene(flavour: Flavour, transport: Transport) -> AsyncIterator[Scene]:
    async with Scene(flavour, transport) as scene:
        yield scene


@pytest.fixture
async def wire(scene: Scene) -> Wire:
    """A buffered socket and a raw peer."""
    return await scene.wire()


@pytest.fixture
async def pair(scene: Scene) -> Pair:
    """A client and a server, both of wireline."""
    return await scene.pair()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Names that resolve to the addresses of the scenario."""
    with Names().in_place(monkeypatch) as names:
        yield names
