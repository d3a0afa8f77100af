"""Every scenario runs once for each flavour and transport that it makes sense for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.scenarios.flavours import FLAVOURS, Flavour
from tests.scenarios.names import Names
from tests.scenarios.scene import DATAGRAMS, PLAIN_STREAMS, STREAMS, Pair, Scene, Transport, Wire


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    chosen: Flavour = request.param
    with chosen.in_place():
        yield chosen


@pytest.fixture
def anyio_backend(flavour: Flavour) -> object:
    """Tell anyio's plugin what loop to run the scenario on."""
    return flavour.backend


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Transport:
    """What the scenario runs over, see ``pytest_generate_tests``."""
    return (STREAMS | DATAGRAMS)[request.param]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a scenario over every kind of stream in clear, or over the ``TRANSPORTS`` that its module names.

    A scenario for some of them says ``@over("tcp4", "tcp6")``.
    """
    said = any(mark.args[0] == "transport" for mark in metafunc.definition.iter_markers("parametrize"))
    if "transport" in metafunc.fixturenames and not said:
        metafunc.parametrize(
            "transport", getattr(metafunc.module, "TRANSPORTS", PLAIN_STREAMS), indirect=True
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The version of TLS makes no difference to a loop: TLS 1.2 runs for the blocking flavour and on asyncio's."""
    items[:] = [
        item for item in items if not any(f"[{loop}-tls12" in item.name for loop in ("uvloop", "portable"))
    ]


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
