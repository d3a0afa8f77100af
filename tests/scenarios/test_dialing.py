"""C1, C2, C5, C6 for ``dial``: the addresses of a name race each other, under one deadline."""

from __future__ import annotations

import errno
import socket

import pytest

from tests.scenarios.flavours import Sock
from tests.scenarios.names import Names
from tests.scenarios.scene import (
    PATIENCE,
    STREAMS,
    TOO_LONG,
    Scene,
    Stopwatch,
    address_of,
    arrived,
    eventually,
    no_descriptor_is_lost,
    over,
    read_exactly,
    soon,
    turns,
)
from wireline import AF_INET, AF_INET6, IPPROTO_UDP, Address, DialError, SocketTimeout, parse_ip_address

pytestmark = [pytest.mark.anyio, over("tcp4", "tcp6")]  # the kinds of stream that have names


async def assert_talks_to(sock: Sock, listener: socket.socket, scene: Scene) -> None:
    assert sock.peer_addr == address_of(listener)
    peer = scene.raw_accept(listener)
    await soon(sock.send(b"hello"))
    assert read_exactly(peer, 5) == b"hello"
    peer.sendall(b"welcome\n")
    assert await soon(sock.recv_line()) == b"welcome"


def black_hole(scene: Scene) -> tuple[object, ...]:
    """A socket address that answers nothing."""
    where = scene.black_hole()
    return (*where, 0, 0) if ":" in where.host else tuple(where)


# C1.


async def test_C1_a_dead_address_costs_a_quarter_of_a_second(scene: Scene, names: Names) -> None:
    live = scene.raw_listener()
    name = names.add("some.test", black_hole(scene), live.getsockname())
    with Stopwatch() as took:
        sock = await scene.dial(name, 80, timeout=10)
    assert 0.24 < took.seconds < TOO_LONG
    await assert_talks_to(sock, live, scene)


async def test_C1_a_refusal_costs_nothing(scene: Scene, names: Names) -> None:
    live = scene.raw_listener()
    addresses = [scene.refusing().getsockname() for _ in range(5)]
    with Stopwatch() as took:
        sock = await scene.dial(names.add("some.test", *addresses, live.getsockname()), 80, timeout=10)
    assert took.seconds < TOO_LONG
    await assert_talks_to(sock, live, scene)


async def test_C1_the_losers_are_closed(scene: Scene, names: Names) -> None:
    """A slow address, one that refuses and one that is never tried: of all of them nothing is left."""
    first, live, never = scene.raw_listener(0), scene.raw_listener(), scene.raw_listener()
    scene.raw_connect(address_of(first))
    addresses = [first.getsockname(), scene.refusing().getsockname(), live.getsockname(), never.getsockname()]
    name = names.add("some.test", *addresses)
    with no_descriptor_is_lost():
        sock = await scene.dial(name, 80)
        assert sock.peer_addr == address_of(live)
        sock.close()
        await turns()
    never.setblocking(False)
    with pytest.raises(BlockingIOError):
        never.accept()


async def test_C1_the_name_is_resolved_once(scene: Scene, names: Names) -> None:
    live = scene.raw_listener()
    addresses = [scene.refusing().getsockname() for _ in range(3)]
    await scene.dial(names.add("some.test", *addresses, live.getsockname()), 80)
    assert names.asked == ["some.test"]


async def test_C1_all_failed_is_one_error_that_tells_of_each(scene: Scene, names: Names) -> None:
    addresses = [scene.refusing().getsockname() for _ in range(3)]
    with pytest.raises(DialError) as caught:
        await scene.dial(names.add("none.test", *addresses), 80, timeout=10)
    error = caught.value
    assert [sockaddr for sockaddr, _, _ in error.attempts] == addresses
    for sockaddr, reason, seconds in error.attempts:
        assert isinstance(reason, ConnectionRefusedError)
        assert 0 <= seconds < TOO_LONG
        assert repr(sockaddr) in str(error)
    assert "none.test" in str(error)
    assert error.errno == errno.ECONNREFUSED
    assert isinstance(error, OSError)


@over("tcp4")
async def test_C1_the_families_take_turns(scene: Scene, names: Names) -> None:
    six = Scene(scene.flavour, STREAMS["tcp6"])
    async with six:
        v4 = [scene.refusing().getsockname() for _ in range(3)]
        v6 = [six.refusing().getsockname() for _ in range(2)]
        with pytest.raises(DialError) as caught:
            await scene.dial(names.add("both.test", *v4, *v6), 80)
        assert [sockaddr for sockaddr, _, _ in caught.value.attempts] == [v4[0], v6[0], v4[1], v6[1], v4[2]]


@over("tcp4")
async def test_C1_one_family_is_dead_and_the_other_alive(scene: Scene, names: Names) -> None:
    async with Scene(scene.flavour, STREAMS["tcp6"]) as six:
        live = scene.raw_listener()
        dead = [black_hole(six) for _ in range(3)]
        fourth = six.raw_listener().getsockname()
        sock = await scene.dial(
            names.add("both.test", *dead, fourth, live.getsockname()), 80, timeout=PATIENCE
        )
        # The second attempt: one after the other, the fourth would have got there first.
        await assert_talks_to(sock, live, scene)


@over("tcp4")
async def test_C1_an_address_of_another_family_is_not_dialled_in_its_mapped_form(scene: Scene) -> None:
    """The system adds ``::ffff:127.0.0.1`` to the IPv6 addresses of a host that has none."""
    where = address_of(scene.raw_listener())
    with pytest.raises(socket.gaierror, match="no IPv6 address"):
        await scene.dial(where.host, where.port, family=AF_INET6)
    with pytest.raises(socket.gaierror):
        await scene.dial("::1", where.port, family=AF_INET)


async def test_C1_an_address_is_a_name_too(scene: Scene) -> None:
    listener = scene.raw_listener()
    host, port = address_of(listener)
    for where in (host, parse_ip_address(host)):
        await assert_talks_to(await scene.dial(where, port), listener, scene)


@pytest.mark.parametrize("buffered", [True, False])
async def test_C1_buffering_is_as_it_was_asked_for(scene: Scene, buffered: bool) -> None:
    listener = scene.raw_listener()
    sock = await scene.dial(*address_of(listener), buffered=buffered)
    scene.raw_accept(listener).sendall(b"abc")
    await arrived(sock, 3)
    assert await soon(sock.recv(1)) == b"a"
    assert sock.has_data_buffered is buffered
    assert await soon(sock.recv_exactly(2)) == b"bc"


# C2.


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, IPPROTO_UDP])
@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_C2_the_deadline_holds_while_the_name_is_looked_up(
    scene: Scene, names: Names, protocol: int, timeout: float
) -> None:
    name = names.add_silent("silent.test")
    with no_descriptor_is_lost(), Stopwatch() as took:
        for _ in range(3):
            with pytest.raises(SocketTimeout) as caught:
                await scene.dial(name, 80, protocol, timeout=timeout)
            assert caught.value.seconds == timeout
    assert took.seconds < TOO_LONG
    await eventually(lambda: bool(names.asked))  # a caller that does not wait is faster than the worker
    assert names.asked == ["silent.test"], "a second call joins the lookup that is in progress"


async def test_C2_the_deadline_holds_without_an_answer(scene: Scene, names: Names) -> None:
    holes = [black_hole(scene) for _ in range(3)]
    name = names.add("dead.test", *holes)
    with no_descriptor_is_lost():
        with Stopwatch() as took, pytest.raises(SocketTimeout) as caught:
            await scene.dial(name, 80, timeout=0.5)
        await turns()
    assert 0.49 < took.seconds < TOO_LONG
    assert caught.value.operation == "dial"
    assert any("dead.test" in note for note in caught.value.__notes__)
    assert any(repr(holes[0]) in note for note in caught.value.__notes__), "what was tried is in the notes"


async def test_C2_an_attempt_under_way_at_the_deadline_is_in_the_notes(scene: Scene, names: Names) -> None:
    refused = scene.refusing().getsockname()
    name = names.add("dead.test", refused, black_hole(scene))
    with pytest.raises(SocketTimeout) as caught:
        await scene.dial(name, 80, timeout=0.5)
    notes = "\n".join(caught.value.__notes__)
    assert "refused" in notes
    assert "no answer" in notes


# C5, C6.


async def test_C5_no_failing_path_of_dial_loses_a_descriptor(scene: Scene, names: Names) -> None:
    hole, refused = black_hole(scene), scene.refusing().getsockname()
    paths = [
        names.add("hole.test", hole),
        names.add("refused.test", refused),
        names.add("both.test", hole, refused, hole),
        names.add("unknown.test"),
        names.add_silent("silent.test"),
    ]
    with no_descriptor_is_lost():
        for name in paths:
            with pytest.raises(OSError):
                await scene.dial(name, 80, timeout=0.03)


async def test_C5_nor_does_success(scene: Scene) -> None:
    listener = scene.raw_listener()
    with no_descriptor_is_lost():
        for _ in range(5):
            sock = await scene.dial(*address_of(listener))
            sock.close()


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, IPPROTO_UDP])
async def test_C6_a_name_that_does_not_resolve_is_in_the_error(
    scene: Scene, names: Names, protocol: int
) -> None:
    names.add("unknown.test")
    for name in ("unknown.test", "a..b"):
        with pytest.raises(socket.gaierror) as caught:
            await scene.dial(name, 80, protocol)
        assert name in str(caught.value)


async def test_C1_the_result_of_dial_is_an_ordinary_socket(scene: Scene) -> None:
    listener = scene.raw_listener()
    sock = await scene.dial(*address_of(listener))
    assert isinstance(sock.local_addr, Address)
    assert not sock.is_closed
    assert sock.fileno() > 0
    assert "connected" in repr(sock)
