"""The servers of the libraries: each starts with the first test that needs it, and once.

These tests belong to the full product; the few that are in the sample have the mark ``sampled``.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.bridges import servers
from tests.interop import web
from tests.tls import certificates
from wireline.tls import SslContext


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = pathlib.Path(__file__).parent
    for item in items:
        if item.path.parent == here and not item.get_closest_marker("sampled"):
            item.add_marker(pytest.mark.full)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Tcp]:
    with servers.redis() as where:
        yield where


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[servers.Tcp]:
    with servers.mosquitto() as where:
        yield where


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    with servers.mariadb() as path:
        yield path


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    with servers.postgres() as where:
        yield where


@pytest.fixture(scope="session")
def nginx_over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory: pathlib.Path = tmp_path_factory.mktemp("nginx")
    with web.nginx(directory, certificates.server()) as port:
        yield port


@pytest.fixture(scope="session")
def trusting() -> SslContext:
    """The context of a client that trusts the tests' CA."""
    return SslContext(ca_file=certificates.ca_file())
