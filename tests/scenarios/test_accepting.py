"""S1 to S4, S8, A3: accepting, and the addresses that are bound."""

# ruff: noqa: ASYNC240 - a look at a path holds up no test

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from tests.scenarios.scene import (
    Scene,
    address_of,
    arrived,
    begin,
    no_descriptor_is_lost,
    over,
    over_one,
    raw_option,
    read_exactly,
    readable,
    reset,
    soon,
)
from wireline import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    SOCK_DGRAM,
    Address,
    SocketFlag,
    SocketTimeout,
    parse_ip_address,
)
from wireline.options import AcceptResult

pytestmark = pytest.mark.anyio

tcp = over("tcp4", "tcp6")
unix = over("unix")

NO_FLAGS = SocketFlag(0)


# S1.


async def test_S1_every_accepted_socket_starts_with_an_empty_buffer_of_its_own(scene: Scene) -> None:
    """The original hands one client's bytes to the next."""
    listener = scene.listener()
    first, second = (scene.raw_connect(listener.local_addr) for _ in range(2))
    first.sendall(b"first line\nfirst's rest")
    one = await scene.accept(listener)
    assert await soon(one.recv_line()) == b"first line"
    two = await scene.accept(listener)
    assert not two.has_data_buffered
    with pytest.raises(SocketTimeout):
        await two.recv_some(timeout=0)
    second.sendall(b"second line\n")
    assert await soon(two.recv_line()) == b"second line"
    assert await soon(one.recv(12)) == b"first's rest"


@pytest.mark.parametrize("buffered", [True, False])
async def test_S1_the_client_inherits_buffering(scene: Scene, buffered: bool) -> None:
    listener = scene.listener(buffered=buffered)
    peer = scene.raw_connect(listener.local_addr)
    client = await scene.accept(listener)
    peer.sendall(b"one\ntwo\n")
    await arrived(client, 8)
    assert await soon(client.recv_line()) == b"one"
    with socket.socket(fileno=os.dup(client.fileno())) as twin:
        twin.setblocking(False)
        if buffered:
            assert client.has_data_buffered
        else:
            assert not client.has_data_buffered
            assert twin.recv(10) == b"two\n"


async def test_S1_clients_come_in_the_order_of_their_arrival(scene: Scene) -> None:
    listener = scene.listener()
    peers = [scene.raw_connect(listener.local_addr) for _ in range(5)]
    for number, peer in enumerate(peers):
        peer.sendall(b"%d" % number)
    for number in range(5):
        assert await soon((await scene.accept(listener)).recv(1)) == b"%d" % number


# S2.


async def test_S2_the_true_peer_is_reported(scene: Scene) -> None:
    listener = scene.listener()
    peer = scene.raw_bound()
    peer.connect(listener.local_addr.host if scene.transport.is_unix else listener.local_addr)
    client, address = await soon(listener.accept_addr())
    scene.closed_at_the_end(client)
    assert address == address_of(peer)
    assert client.peer_addr == address
    assert client.local_addr == listener.local_addr
    assert isinstance(address, Address)


@over("tcp6")
async def test_S2_a_mapped_peer_is_plain_ipv4(scene: Scene) -> None:
    listener = scene.socket()
    raw_option(listener, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind_addr(0, "::")
    listener.listen()
    with socket.create_connection(("127.0.0.1", listener.local_addr.port)) as peer:
        client, address = await soon(listener.accept_addr())
        scene.closed_at_the_end(client)
        assert address == address_of(peer)
        assert address.host == "127.0.0.1"
        assert client.peer_addr == address
        assert client.local_addr == Address("127.0.0.1", listener.local_addr.port)


@unix
async def test_S2_a_unix_peer_without_a_path_has_an_empty_address(scene: Scene) -> None:
    listener = scene.listener()
    scene.raw_connect(listener.local_addr)
    client, address = await soon(listener.accept_addr())
    scene.closed_at_the_end(client)
    assert address == ("", 0)
    assert client.peer_addr == ("", 0)


@unix
async def test_S2_abstract_names(scene: Scene) -> None:
    name = f"\0{scene.path()}"
    listener = scene.socket()
    listener.bind_unix(name)
    listener.listen()
    assert listener.local_addr == (name, 0)
    sock = scene.socket()
    await soon(sock.connect_unix(name))
    client = await scene.accept(listener)
    assert sock.peer_addr == client.local_addr == (name, 0)
    listener.close()
    again = scene.socket()
    again.bind_unix(name)


# S3.


@pytest.mark.parametrize("inheritable", [False, True])
async def test_S3_inheritable_is_as_requested(scene: Scene, inheritable: bool) -> None:
    fresh = scene.socket(inheritable=inheritable)
    assert os.get_inheritable(fresh.fileno()) is inheritable
    listener = scene.listener()
    scene.raw_connect(listener.local_addr)
    scene.raw_connect(listener.local_addr)
    accepted = scene.closed_at_the_end(await soon(listener.accept(inheritable=inheritable)))
    assert os.get_inheritable(accepted.fileno()) is inheritable
    with_address = await soon(listener.accept_addr(inheritable=inheritable))
    assert os.get_inheritable(scene.closed_at_the_end(with_address.client).fileno()) is inheritable


async def test_S3_nothing_is_inheritable_by_default(scene: Scene) -> None:
    pair = await scene.pair()
    listener = scene.listener()
    assert not any(os.get_inheritable(sock.fileno()) for sock in (*pair, listener))
    scene.raw_connect(listener.local_addr)
    await readable(listener)
    _, client, _ = listener.try_accept_addr()
    assert not os.get_inheritable(scene.closed_at_the_end(client).fileno())


# S4.


@tcp
async def test_S4_a_client_that_resets_before_it_is_accepted_is_no_failure(scene: Scene) -> None:
    listener = scene.listener()
    for _ in range(3):
        reset(scene.raw_connect(listener.local_addr))
    alive = scene.raw_connect(listener.local_addr)
    alive.sendall(b"alive")
    heard = []
    while heard[-1:] != [b"alive"]:  # Linux reports the dead ones, each as a connection that is over already
        client, address = await soon(listener.accept_addr())
        scene.closed_at_the_end(client)
        assert address.host == scene.transport.host
        assert client.peer_addr == address
        heard.append(await soon(client.recv(5)))
    assert set(heard[:-1]) <= {b""}


FAILED_BEFORE = [errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.EHOSTUNREACH]


@over_one
@pytest.mark.parametrize("code", FAILED_BEFORE, ids=[errno.errorcode[code] for code in FAILED_BEFORE])
async def test_S4_an_error_of_one_client_is_skipped(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    listener = scene.listener()
    peers = [scene.raw_connect(listener.local_addr) for _ in range(2)]
    failures = [OSError(code, os.strerror(code)) for _ in range(3)]
    accept = socket.socket._accept  # type: ignore[attr-defined]

    def failing_accept(sock: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return accept(sock)

    monkeypatch.setattr(socket.socket, "_accept", failing_accept)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        await soon(listener.accept(NO_FLAGS))
    assert caught.value.errno == code
    peers[0].sendall(b"alive")
    assert await soon((await scene.accept(listener)).recv(5)) == b"alive"
    assert not failures


# Accepting, and not waiting.


@pytest.mark.parametrize("timeout", [0, 0.02])
async def test_R4_accept_with_a_timeout(scene: Scene, timeout: float) -> None:
    listener = scene.listener()
    with pytest.raises(SocketTimeout) as caught:
        await listener.accept(timeout=timeout)
    assert caught.value.seconds == timeout
    scene.raw_connect(listener.local_addr)
    await readable(listener)
    scene.closed_at_the_end(await listener.accept(timeout=timeout))


async def test_R4_try_accept_addr_never_waits(scene: Scene) -> None:
    listener = scene.listener()
    assert listener.try_accept_addr() == (AcceptResult.NO_CLIENT, None, None)
    peer = scene.raw_connect(listener.local_addr)
    peer.sendall(b"hello")
    await readable(listener)
    result, client, address = listener.try_accept_addr()
    scene.closed_at_the_end(client)
    assert result is AcceptResult.SUCCESS
    assert address == address_of(peer)
    assert await soon(client.recv(5)) == b"hello"


async def test_accept_waits_for_a_client(scene: Scene) -> None:
    listener = scene.listener()
    several = [await begin(listener.accept()) for _ in range(3)]
    peers = [scene.raw_connect(listener.local_addr) for _ in range(3)]
    for peer in peers:
        peer.sendall(b"x")
    for accepting in several:
        assert await soon(scene.closed_at_the_end(await soon(accepting)).recv(1)) == b"x"


async def test_accept_needs_a_listener(scene: Scene) -> None:
    for sock in (scene.socket(), (await scene.wire()).sock):
        with pytest.raises(OSError, match="not listening") as caught:
            await soon(sock.accept())
        assert caught.value.errno == errno.EINVAL


# S8.


@unix
async def test_S8_a_path_with_a_listener_is_in_use(scene: Scene) -> None:
    path = scene.path()
    living = scene.socket()
    living.bind_unix(path)
    living.listen()
    for _ in range(2):
        with pytest.raises(OSError, match="in use") as caught:
            scene.socket().bind_unix(path)
        assert caught.value.errno == errno.EADDRINUSE
    scene.raw().connect(path)  # it is still there, and so is the listener


@unix
async def test_S8_a_full_listener_is_a_living_one(scene: Scene) -> None:
    path = scene.path()
    listener = scene.raw()
    listener.bind(path)
    listener.listen(0)
    scene.raw().connect(path)
    with pytest.raises(OSError, match="in use"):
        scene.socket().bind_unix(path)
    assert Path(path).is_socket()


@unix
async def test_S8_a_socket_file_without_a_listener_is_replaced(scene: Scene) -> None:
    path = scene.path()
    dead = scene.raw()
    dead.bind(path)
    dead.listen()
    dead.close()
    assert Path(path).is_socket()
    listener = scene.socket()
    listener.bind_unix(path)
    listener.listen()
    peer = scene.raw()
    peer.connect(path)
    peer.sendall(b"x")
    assert await soon((await scene.accept(listener)).recv(1)) == b"x"


@unix
@pytest.mark.parametrize("what", ["file", "directory", "link to nothing"])
async def test_S8_a_file_that_is_no_socket_is_never_replaced(scene: Scene, what: str) -> None:
    path = Path(scene.path())
    match what:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to(scene.path())
    with pytest.raises(OSError, match="in use") as caught:
        scene.socket().bind_unix(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert path.is_symlink() or path.is_dir() or path.read_text() == "precious"


@over("unix", "unixgram")
async def test_S8_close_removes_the_file_that_this_socket_made(scene: Scene) -> None:
    path = Path(scene.path())
    sock = scene.socket()
    sock.bind_unix(os.fsencode(path))
    assert path.is_socket()
    assert sock.local_addr == (str(path), 0)
    sock.close()
    assert not path.exists()
    again = scene.socket()
    again.bind_unix(path)
    again.close()


@unix
async def test_S8_close_leaves_files_of_others_alone(scene: Scene) -> None:
    path = Path(scene.path())
    sock = scene.socket()
    sock.bind_unix(path)
    path.unlink()
    other = scene.raw()
    other.bind(str(path))
    sock.close()
    assert path.is_socket(), "a socket of another process at the same path"
    path.unlink()

    raw = scene.raw_listener()
    with_path = Path(raw.getsockname())
    adopted = scene.flavour.from_socket(raw)
    adopted.close()
    assert with_path.is_socket(), "a socket that was taken over"

    listener = scene.listener()
    scene.raw_connect(listener.local_addr)
    (await scene.accept(listener)).close()
    assert Path(listener.local_addr.host).is_socket(), "an accepted socket has the listener's path"

    given_up = scene.listener()
    its_path = Path(given_up.local_addr.host)
    socket.socket(fileno=given_up.detach()).close()
    assert its_path.is_socket(), "one that was given up"


@over("unixgram")
async def test_S8_a_datagram_socket_that_is_alive_keeps_its_path(scene: Scene) -> None:
    path = scene.path()
    living = scene.socket()
    living.bind_unix(path)
    with pytest.raises(OSError, match="in use"):
        scene.socket().bind_unix(path)
    living.close()
    dead = scene.raw()
    dead.bind(path)
    dead.close()
    scene.socket().bind_unix(path)


@unix
@pytest.mark.parametrize("path", ["/tmp/" + "x" * 200, b"/tmp/" + b"x" * 200, "\0" + "x" * 200, ""])
async def test_S8_a_path_that_does_not_fit_is_a_value_error(scene: Scene, path: str | bytes) -> None:
    sock = scene.socket()
    with pytest.raises(ValueError):
        sock.bind_unix(path)
    with pytest.raises(ValueError):
        await soon(sock.connect_unix(path))


@unix
async def test_S8_a_path_in_no_directory_is_the_operating_systems_error(scene: Scene) -> None:
    with pytest.raises(FileNotFoundError):
        scene.socket().bind_unix(scene.path() + "/nowhere")


# A3.


@tcp
@pytest.mark.parametrize("spelling", ["", None])
async def test_A3_the_empty_address_is_every_interface_of_the_family(
    scene: Scene, spelling: str | None
) -> None:
    listener = scene.socket()
    if spelling is None:
        listener.bind_addr()
    else:
        listener.bind_addr(0, spelling)
    listener.listen()
    host, port = listener.local_addr
    assert host == ("::" if scene.transport.family == AF_INET6 else "0.0.0.0")
    sock = scene.socket()
    await soon(sock.connect(scene.transport.host, port))
    assert (await scene.accept(listener)).peer_addr == sock.local_addr


@over("tcp6")
async def test_A3_an_ipv6_wildcard_is_dual_stack_where_the_system_has_it_so(scene: Scene) -> None:
    with socket.socket(AF_INET6) as raw:
        dual = not raw.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    listener = scene.socket()
    listener.bind_addr()
    listener.listen()
    assert raw_option(listener, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) != dual
    four = scene.closed_at_the_end(scene.flavour.socket(AF_INET))
    if dual:
        await soon(four.connect("127.0.0.1", listener.local_addr.port))
        assert (await scene.accept(listener)).peer_addr == four.local_addr
    else:
        with pytest.raises(ConnectionRefusedError):
            await soon(four.connect("127.0.0.1", listener.local_addr.port))


@tcp
async def test_A3_one_address_is_that_address_only(scene: Scene) -> None:
    sock = scene.socket()
    sock.bind_addr(0, parse_ip_address(scene.transport.host))
    assert sock.local_addr.host == scene.transport.host
    taken = scene.socket()
    with pytest.raises(OSError, match="in use") as caught:
        taken.bind_addr(sock.local_addr.port, scene.transport.host)
    assert caught.value.errno == errno.EADDRINUSE
    assert any(str(sock.local_addr.port) in note for note in caught.value.__notes__)


async def test_the_default_protocol_fits_domain_and_type(scene: Scene) -> None:
    for domain in (AF_INET, AF_INET6, AF_UNIX):
        for sock_type in (socket.SOCK_STREAM, SOCK_DGRAM):
            scene.closed_at_the_end(scene.flavour.socket(domain, sock_type))


async def test_a_socket_of_the_standard_library_is_taken_over(scene: Scene) -> None:
    listener = scene.raw_listener()
    peer = scene.raw_connect(address_of(listener))
    peer.sendall(b"hello\n")
    theirs = scene.raw_accept(listener)
    ours = scene.closed_at_the_end(scene.flavour.from_socket(theirs))
    assert theirs.fileno() == -1
    assert await soon(ours.recv_line()) == b"hello"
    await soon(ours.send(b"answer"))
    assert read_exactly(peer, 6) == b"answer"
    accepting = scene.closed_at_the_end(scene.flavour.from_socket(listener))
    waiting = await begin(accepting.accept())
    scene.raw_connect(accepting.local_addr)
    scene.closed_at_the_end(await soon(waiting))
    fresh = scene.closed_at_the_end(scene.flavour.from_socket(scene.raw()))
    await scene.connect(fresh, accepting.local_addr)


@pytest.mark.parametrize("said", [True, False], ids=["all said", "nothing said"])
async def test_a_descriptor_is_taken_over(scene: Scene, said: bool) -> None:
    listener = scene.raw_listener()
    peer = scene.raw_connect(address_of(listener))
    peer.sendall(b"hello\n")
    theirs = scene.raw_accept(listener)
    kind = (theirs.family, theirs.type, theirs.proto) if said else ()
    ours = scene.closed_at_the_end(scene.flavour.from_fd(theirs.detach(), *kind))
    assert await soon(ours.recv_line(timeout=5)) == b"hello"
    assert ours.peer_addr == address_of(peer)
    again = scene.closed_at_the_end(scene.flavour.from_fd(ours.detach(), buffered=False))
    peer.sendall(b"and again")
    await arrived(again, 9)
    assert await soon(again.recv(3)) == b"and"
    assert not again.has_data_buffered


async def test_only_an_open_socket_is_adopted(scene: Scene) -> None:
    with open(os.devnull) as no_socket, no_descriptor_is_lost():  # noqa: ASYNC230 - it holds up nothing
        with pytest.raises(OSError):
            scene.flavour.from_fd(no_socket.fileno())
    closed = scene.raw()
    number = closed.fileno()
    closed.close()
    with pytest.raises(OSError) as caught:
        scene.flavour.from_fd(number, socket.AF_INET, socket.SOCK_STREAM, 0)
    assert caught.value.errno == errno.EBADF


async def test_a_stream_that_is_not_connected_neither_reads_nor_writes(scene: Scene) -> None:
    for sock, code in ((scene.socket(), errno.ENOTCONN), (scene.listener(), errno.EINVAL)):
        for call in (
            sock.recv(1),
            sock.recv_line(),
            sock.send(b"x"),
            sock.send_some(b"x"),
            sock.shutdown_write(),
        ):
            with pytest.raises(OSError) as caught:
                await soon(call)
            assert caught.value.errno == code
        with pytest.raises(OSError):
            sock.lines()
        with pytest.raises(OSError):
            sock.peer_addr  # noqa: B018 - looking is what raises


async def test_a_connected_socket_does_not_listen(scene: Scene) -> None:
    with pytest.raises(OSError, match="connected"):
        (await scene.wire()).sock.listen()
