"""What a socket says about its connection: certificates."""

from __future__ import annotations

import pytest

from tests.scenarios.scene import Scene, over_every_stream

pytestmark = [pytest.mark.anyio, over_every_stream]


async def test_T8_certificates_that_were_sent_can_be_asked_for(scene: Scene) -> None:
    """FB7."""
    client, server = await scene.pair()
    assert server.get_peer_certificates(verified=False) == server.get_peer_certificates() == []
    sent = client.get_peer_certificates(verified=False)
    if scene.transport.tls is None:
        assert sent == []
    else:
        assert sent
        assert client.get_peer_certificates()[: len(sent)] == sent
