"""``as_socket`` behaves as ``socket.socket`` does: the same tests run with the original."""

from __future__ import annotations

import contextlib
import errno
import gc
import inspect
import io
import os
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.tls import certificates
from wireline import AF_UNIX, SOCK_DGRAM, BusyError, ClosedError
from wireline.net import Socket, as_socket
from wireline.net._as_socket import SocketBridge, TlsSocketBridge
from wireline.tls import Handshake, SslContext

PATIENCE = 10.0
LARGE = bytes(range(256)) * 4096

full = pytest.mark.full  # not in the sample, even of a test that is


class Pair(NamedTuple):
    """The socket under test, and its peer."""

    near: socket.socket
    far: socket.socket


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return Pair(near, listener.accept()[0])


def tls_pair() -> Pair:
    near, far = map(Socket.from_socket, tcp_pair())
    leaf = certificates.server()
    with ThreadPoolExecutor(1) as pool:
        server = SslContext(cert_file=leaf.cert, key_file=leaf.key)
        done = pool.submit(server.wrap_connected_socket, far, Handshake.AS_SERVER, timeout=PATIENCE)
        client = SslContext(ca_file=certificates.ca_file())
        client.wrap_connected_socket(near, Handshake.AS_CLIENT, "localhost", PATIENCE)
        done.result()
    return Pair(as_socket(near), as_socket(far))


def bridged(pair: Pair) -> Pair:
    return Pair(as_socket(Socket.from_socket(pair.near)), pair.far)


PAIRS: dict[str, Callable[[], Pair]] = {
    "original": tcp_pair,
    "tcp": lambda: bridged(tcp_pair()),
    "unix": lambda: bridged(Pair(*socket.socketpair(AF_UNIX))),
    "tls": tls_pair,
}


@pytest.fixture(params=[pytest.param("original", marks=full), "tcp", pytest.param("unix", marks=full), "tls"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def pair(transport: str) -> Iterator[Pair]:
    made = PAIRS[transport]()
    with made.near, made.far:
        made.far.settimeout(PATIENCE)
        yield made


@pytest.fixture
def tcp() -> Iterator[Pair]:
    made = PAIRS["tcp"]()
    with made.near, made.far:
        yield made


def wait_for_the_reader(sock: socket.socket) -> None:
    """Wait until a thread reads. The original does not tell; what a test sees must not depend on it."""
    while isinstance(sock, SocketBridge):
        with contextlib.suppress(BlockingIOError):
            try:
                sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BusyError:
                return


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# Reading and writing


@pytest.mark.sampled
def test_recv_returns_what_is_there_and_at_most_that_much(pair: Pair) -> None:
    pair.far.sendall(b"hello")
    pair.near.settimeout(PATIENCE)
    assert pair.near.recv(2) == b"he"
    assert pair.near.recv(100) == b"llo"
    buffer = bytearray(b"......")
    pair.far.sendall(b"abcd")
    assert pair.near.recv_into(buffer, 2) == 2
    assert pair.near.recv_into(memoryview(buffer)[3:]) == 2
    assert buffer == b"ab.cd."
    pair.far.sendall(b"xyz")
    assert pair.near.recvfrom(1) == (b"x", None)
    assert pair.near.recvfrom_into(buffer) == (2, None)
    pair.far.shutdown(socket.SHUT_WR)
    assert (pair.near.recv(10), pair.near.recv(10)) == (b"", b"")


def test_sendall_and_send_return_what_they_should(pair: Pair) -> None:
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(pair.far.makefile("rb").read)
        assert pair.near.sendall(LARGE) is None
        rest = memoryview(LARGE)
        while rest:
            rest = rest[pair.near.send(rest) :]
        assert pair.near.send(b"") == 0
        pair.near.shutdown(socket.SHUT_WR)
        assert received.result() == LARGE * 2


@pytest.mark.sampled
def test_a_socket_that_does_not_block(pair: Pair) -> None:
    assert pair.near.getblocking()
    pair.near.setblocking(False)
    assert (pair.near.gettimeout(), pair.near.getblocking()) == (0.0, False)
    with pytest.raises(BlockingIOError) as caught:
        pair.near.recv(1)
    assert caught.value.errno == errno.EAGAIN
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sent += pair.near.send(b"x" * 65536)
    received = 0
    while received < sent:
        received += len(pair.far.recv(1 << 20))
    pair.near.setblocking(True)
    assert pair.near.gettimeout() is None


def test_a_record_that_the_system_does_not_take_counts_when_it_is_sent() -> None:
    """Over TLS: a caller that believes that its bytes are gone would wait for the answer for ever."""
    with contextlib.ExitStack() as stack:
        near, far = map(stack.enter_context, tls_pair())
        # Smaller than what TLS encrypts at a time.
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        near.setblocking(False)
        pieces = [bytes([number]) * 65536 for number in range(10)]
        blocked = 0
        with ThreadPoolExecutor(1) as pool:
            received = pool.submit(far.makefile("rb").read, 10 * 65536)
            for piece in pieces:
                rest = piece
                while rest:
                    try:
                        rest = rest[near.send(rest) :]
                    except BlockingIOError:
                        blocked += 1
                        select.select([], [near], [], PATIENCE)
            # Nothing more is sent: each byte that counts is on its way.
            assert received.result(PATIENCE) == b"".join(pieces)
        assert blocked


@pytest.mark.sampled
def test_a_timeout_is_the_error_of_socket_and_loses_nothing(pair: Pair) -> None:
    pair.near.settimeout(0.02)
    with pytest.raises(TimeoutError, match=r"^timed out$") as caught:
        pair.near.recv(10)
    assert caught.value.errno is None
    pair.far.sendall(b"later")
    pair.near.settimeout(PATIENCE)
    assert pair.near.recv(10) == b"later"


def test_bad_timeouts(pair: Pair) -> None:
    for value, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError)):
        with pytest.raises(error):
            pair.near.settimeout(value)  # type: ignore[arg-type]


def test_peek_and_the_flag_that_does_not_wait(tcp: Pair) -> None:
    with pytest.raises(BlockingIOError):
        tcp.near.recv(1, socket.MSG_DONTWAIT)
    tcp.far.sendall(b"hello")
    tcp.near.settimeout(PATIENCE)
    assert tcp.near.recv(2, socket.MSG_PEEK) == b"he"
    assert tcp.near.recv(10) == b"hello"
    with pytest.raises(NotImplementedError, match="flags"):
        tcp.near.recv(1, socket.MSG_OOB)
    with pytest.raises(NotImplementedError, match="flags"):
        tcp.near.send(b"x", socket.MSG_OOB)


def test_sendmsg_and_sendfile(pair: Pair, tmp_path: Any) -> None:
    assert pair.near.sendmsg([b"ab", bytearray(b"cd"), memoryview(b"ef")]) == 6
    assert pair.far.recv(10) == b"abcdef"
    (tmp_path / "file").write_bytes(LARGE)
    with open(tmp_path / "file", "rb") as file, ThreadPoolExecutor(1) as pool:
        received = pool.submit(pair.far.makefile("rb").read, 70_000)
        assert pair.near.sendfile(file, 100, 70_000) == 70_000
        assert file.tell() == 70_100
        assert received.result() == LARGE[100:70_100]


# Facts and options


def test_facts_and_options(pair: Pair, transport: str) -> None:
    near, far = pair
    assert isinstance(near, socket.socket)
    assert near.getpeername() == far.getsockname()
    assert near.getsockname() == far.getpeername()
    family = AF_UNIX if transport == "unix" else socket.AF_INET
    assert (near.family, near.type) == (family, socket.SOCK_STREAM)
    assert isinstance(near.family, socket.AddressFamily)
    assert near.proto in (0, socket.IPPROTO_TCP)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3))
    assert struct.unpack("ii", near.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 3)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    assert near.get_inheritable() is False
    near.set_inheritable(True)
    assert os.get_inheritable(near.fileno())
    assert near.timeout is None


def test_a_default_timeout_does_not_reach_the_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """`socket.socket(fileno=...)` would make it non-blocking, under the feet of the wireline socket."""
    monkeypatch.setattr(socket, "_default", None, raising=False)
    socket.setdefaulttimeout(5)
    try:
        near, far = tcp_pair()
        near.settimeout(None)
        with far, Socket.from_socket(near) as sock:
            assert os.get_blocking(sock.fileno())
            bridge = as_socket(sock)
            assert bridge.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            assert os.get_blocking(sock.fileno())
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.sampled
def test_every_method_of_socket_is_written_here() -> None:
    """An inherited one would act on a descriptor of its own, which is -1."""
    public = {name for name in dir(socket.socket) if not name.startswith("_")}
    assert public - set(vars(SocketBridge)) == set()


@pytest.mark.sampled
def test_the_facts_of_tls_are_those_of_an_ssl_socket() -> None:
    near, far = tls_pair()
    with near, far:
        assert isinstance(near, TlsSocketBridge)
        unknown = {"sendto", "recvfrom", "recvfrom_into", "verify_client_post_handshake"}
        unknown.add("selected_npn_protocol")  # until Python 3.13
        unknown |= {"get_verified_chain", "get_unverified_chain"}  # from Python 3.13 on
        public = {name for name in dir(ssl.SSLSocket) if not name.startswith("_")}
        assert public - set(dir(near)) <= unknown
        assert near.version() == "TLSv1.3"
        assert near.cipher()[1] == "TLSv1.3"  # type: ignore[index]
        assert ("DNS", "localhost") in near.getpeercert()["subjectAltName"]
        assert ssl.DER_cert_to_PEM_cert(near.getpeercert(True)).startswith("-----BEGIN")
        assert (near.server_side, far.server_side, near.server_hostname) == (False, True, "localhost")  # type: ignore[attr-defined]
        assert isinstance(near.context, ssl.SSLContext)
        assert (near.selected_alpn_protocol(), near.compression(), near.session_reused) == (None, None, False)
        near.do_handshake()
        assert near.write(b"hello") == 5
        assert far.read(10) == b"hello"  # type: ignore[attr-defined]
        with pytest.raises(NotImplementedError, match="clear text"):
            near.unwrap()
    assert not hasattr(SocketBridge, "getpeercert")


@pytest.mark.sampled
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_pending_is_what_select_does_not_see(transport: str) -> None:
    near, far = PAIRS[transport]()
    with near, far:
        assert isinstance(near, SocketBridge)
        near.settimeout(PATIENCE)
        assert near.pending() == 0
        far.sendall(b"hello")
        assert near.recv(1) == b"h"
        assert near.pending() == 4
        assert select.select([near], [], [], 0)[0] == []
        assert near.recv(100) == b"ello"
        assert near.pending() == 0


# What cannot be done


@pytest.mark.sampled
def test_what_cannot_be_done_says_so(tcp: Pair) -> None:
    near: Any = tcp.near
    for name, arguments in {
        "bind": (("", 0),),
        "connect": (("localhost", 1),),
        "connect_ex": (("localhost", 1),),
        "dup": (),
        "recvmsg": (1, 100),
        "recvmsg_into": ([bytearray(1)],),
        "sendto": (b"x", ("localhost", 1)),
        "sendmsg_afalg": (),
    }.items():
        with pytest.raises(NotImplementedError, match=f"^{name}: .{{20,}}"):
            getattr(near, name)(*arguments)
    with pytest.raises(NotImplementedError, match="ancillary"):
        near.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")])
    with pytest.raises(NotImplementedError, match="one peer"):
        near.sendmsg([b"x"], [], 0, ("localhost", 1))


def test_what_as_socket_refuses() -> None:
    with pytest.raises(TypeError, match="Socket"):
        as_socket(None)  # type: ignore[arg-type]
    with Socket(sock_type=SOCK_DGRAM) as datagrams, pytest.raises(TypeError, match="datagram"):
        as_socket(datagrams)
    with Socket() as unconnected, pytest.raises(OSError, match="peer_addr") as caught:
        as_socket(unconnected)
    assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(ClosedError):
        as_socket(unconnected)


def test_a_listener_accepts_bridges() -> None:
    with Socket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        bridge = as_socket(listener)
        bridge.settimeout(0)
        with pytest.raises(BlockingIOError):
            bridge.accept()
        bridge.settimeout(PATIENCE)
        with socket.create_connection(bridge.getsockname()) as peer:
            client, address = bridge.accept()
            with client:
                assert isinstance(client, SocketBridge)
                assert address == peer.getsockname() == client.getpeername()
                peer.sendall(b"hello")
                assert client.recv(10) == b"hello"


def test_a_listener_accepts_a_client_that_is_gone() -> None:
    with Socket() as listener:
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        bridge = as_socket(listener)
        peer = socket.create_connection(bridge.getsockname())
        name = peer.getsockname()
        reset(peer)
        client, address = bridge.accept()
        with client:
            assert address == name
            with pytest.raises(ConnectionResetError):
                client.recv(1)


# The end


def test_shutdown_of_reading_wakes_a_reader(pair: Pair) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pair.near.recv, 1)
        wait_for_the_reader(pair.near)
        pair.near.shutdown(socket.SHUT_RDWR)
        assert reading.result(PATIENCE) == b""
    assert pair.near.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        pair.near.send(b"x")
    assert pair.far.recv(1) == b""


def test_shutdown_of_writing_leaves_reading(pair: Pair) -> None:
    pair.near.sendall(b"question")
    pair.near.shutdown(socket.SHUT_WR)
    assert pair.far.makefile("rb").read() == b"question"
    pair.far.sendall(b"answer")
    assert pair.near.recv(10) == b"answer"
    with pytest.raises(BrokenPipeError):
        pair.near.sendall(b"x")


@pytest.mark.parametrize("transport", [pytest.param("original", marks=full), "tcp"])
def test_a_reset_is_an_error(transport: str) -> None:
    near, far = PAIRS[transport]()
    with near, far:
        reset(far)
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            near.sendall(b"x")


@pytest.mark.sampled
def test_close_wakes_a_reader(tcp: Pair) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(tcp.near.recv, 1)
        wait_for_the_reader(tcp.near)
        tcp.near.close()
        with pytest.raises(OSError, match="closed") as caught:
            reading.result(PATIENCE)
    assert caught.value.errno == errno.EBADF
    assert tcp.near.fileno() == -1
    for call in (lambda: tcp.near.recv(1), lambda: tcp.near.send(b"x"), tcp.near.getpeername):
        with pytest.raises(ClosedError):
            call()
    tcp.near.close()


@pytest.mark.sampled
def test_a_second_reader_is_refused(tcp: Pair) -> None:
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(tcp.near.recv, 1)
        wait_for_the_reader(tcp.near)
        with pytest.raises(BusyError):
            tcp.near.recv(1)
        tcp.far.sendall(b"x")
        assert reading.result(PATIENCE) == b"x"


def test_detach_gives_the_descriptor_and_is_refused_where_bytes_would_be_lost(tcp: Pair) -> None:
    tcp.far.sendall(b"hello")
    tcp.near.settimeout(PATIENCE)
    tcp.near.recv(1)
    with pytest.raises(OSError, match="unread") as caught:
        tcp.near.detach()
    assert caught.value.errno == errno.EBUSY
    tcp.near.recv(10)
    with socket.socket(fileno=tcp.near.detach()) as detached:
        assert tcp.near.fileno() == -1
        detached.sendall(b"x")
        assert tcp.far.recv(1) == b"x"


def test_ssl_does_not_take_a_descriptor_that_it_cannot_have(tcp: Pair) -> None:
    """``wrap_socket`` opens the descriptor before it calls ``detach``: its failure would close it under our feet."""
    context = ssl.create_default_context()
    tcp.far.sendall(b"hello")
    tcp.near.recv(1)
    with pytest.raises(OSError, match="unread"):
        context.wrap_socket(tcp.near, server_hostname="localhost", do_handshake_on_connect=False)
    gc.collect()
    assert tcp.near.recv(10) == b"ello"
    near, far = tls_pair()
    with near, far:
        with pytest.raises(NotImplementedError, match="TLS"):
            context.wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False)
        gc.collect()
        near.sendall(b"still here")
        assert far.recv(20) == b"still here"


# Files


def test_the_last_file_closes_the_socket(pair: Pair) -> None:
    first, second = pair.near.makefile("rb"), pair.near.makefile("wb")
    pair.near.close()
    assert pair.near.fileno() >= 0
    pair.far.sendall(b"hello\nrest")
    assert first.readline() == b"hello\n"
    first.close()
    second.write(b"answer")
    second.flush()
    assert pair.far.recv(10) == b"answer"
    assert pair.near.fileno() >= 0
    second.close()
    assert pair.near.fileno() == -1


def test_files_of_every_mode(pair: Pair) -> None:
    with pair.near.makefile("rwb") as both:
        assert both.readable()
        assert both.writable()
        both.write(b"x" * 10)
        both.flush()
        assert pair.far.recv(100) == b"x" * 10
    with pair.near.makefile("rw", encoding="utf-8", newline="\n") as text:
        assert text.mode == "rw"
        pair.far.sendall("grüße\n".encode())
        assert text.readline() == "grüße\n"
        text.write("grüße")
        text.flush()
        assert pair.far.recv(100).decode() == "grüße"
    with pair.near.makefile("rb", 0) as raw:
        assert (raw.mode, raw.seekable(), raw.writable()) == ("rb", False, False)
        assert raw.fileno() == raw.name == pair.near.fileno()  # type: ignore[attr-defined]
        with pytest.raises(io.UnsupportedOperation):
            raw.write(b"x")
    with pytest.raises(ValueError, match="closed"):
        raw.fileno()
    assert raw.name == -1  # type: ignore[attr-defined]
    with pair.near.makefile("wb", 0) as raw:
        with pytest.raises(io.UnsupportedOperation):
            raw.read(1)
    for arguments in (("a",), ("r", 0)):
        with pytest.raises(ValueError):
            pair.near.makefile(*arguments)


def test_a_file_of_a_socket_that_does_not_block(pair: Pair) -> None:
    pair.near.setblocking(False)
    with pair.near.makefile("rwb", 0) as raw:
        assert raw.read(1) is None
        while raw.write(b"x" * 65536) is not None:
            pass


@pytest.mark.parametrize("transport", [pytest.param("original", marks=full), "tcp"])
def test_a_reset_in_the_middle_of_a_line(transport: str) -> None:
    near, far = PAIRS[transport]()
    with near, far, near.makefile("rb") as file, ThreadPoolExecutor(1) as pool:
        far.sendall(b"half a li")
        reading = pool.submit(file.readline)
        reset(far)
        with pytest.raises(ConnectionResetError):
            reading.result(PATIENCE)


def test_a_file_cannot_be_read_after_a_timeout(pair: Pair) -> None:
    pair.near.settimeout(0.05)
    with pair.near.makefile("rb") as file:
        pair.far.sendall(b"half a li")
        with pytest.raises(TimeoutError):
            file.readline()
        with pytest.raises(OSError, match="timed out object"):
            file.readline()


def test_a_dropped_file_counts_as_closed(pair: Pair) -> None:
    file = pair.near.makefile("rb")
    pair.near.close()
    assert pair.near.fileno() >= 0
    del file
    gc.collect()
    assert pair.near.fileno() == -1


def test_a_dropped_bridge_warns_and_closes() -> None:
    near, far = tcp_pair()
    with far:
        bridges = [as_socket(Socket.from_socket(near))]
        with pytest.warns(ResourceWarning, match="unclosed"):
            bridges.clear()
        assert far.recv(1) == b""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_may_close_its_copy(pair: Pair) -> None:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            pair.near.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    pair.near.sendall(b"still here")
    assert pair.far.recv(20) == b"still here"


def test_reading_and_writing_at_once(pair: Pair) -> None:
    def echo() -> None:
        while data := pair.far.recv(65536):
            pair.far.sendall(data)

    with ThreadPoolExecutor(2) as pool:
        echoing = pool.submit(echo)
        received = pool.submit(pair.near.makefile("rb").read, 4 * len(LARGE))
        for _ in range(4):
            pair.near.sendall(LARGE)
        assert received.result(PATIENCE) == LARGE * 4
        pair.near.shutdown(socket.SHUT_WR)
        echoing.result(PATIENCE)


def test_the_annotation_is_that_of_socket() -> None:
    assert inspect.signature(as_socket).return_annotation == "socket.socket"
