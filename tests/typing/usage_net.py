"""How a typed program uses `wireline.net`. Type checkers read this file; nothing runs it."""

from __future__ import annotations

import io
import pathlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import assert_type

from wireline import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_UDP,
    IPV4_LOOPBACK,
    MAX_FRAME_SIZE,
    SAFE_DISCONN,
    SOCK_DGRAM,
    Address,
    Deadline,
    Frame,
    IpAddress,
    KeepAlive,
    ReadLineResult,
    RelayReport,
    SocketFlag,
    SocketStats,
    SockOpt,
    parse_ip_address,
)
from wireline.net import (
    Accepted,
    Datagram,
    Pool,
    PoolStats,
    ReceivedFds,
    Server,
    ServerStats,
    Socket,
    StopReport,
    dial,
    relay,
    serve,
)
from wireline.tls import Certificate, Handshake, SslContext


def make(plain: socket.socket) -> list[Socket]:
    sockets = [
        Socket(),
        Socket(AF_INET6),
        Socket(AF_UNIX, buffered=False),
        Socket(sock_type=SOCK_DGRAM, inheritable=True),
    ]
    sockets.append(Socket.from_socket(plain))
    sockets.append(Socket.from_fd(plain.detach(), buffered=False, default_flags=SocketFlag.NONE))
    assert_type(sockets[0].detach(), int)
    return sockets


def connect(sock: Socket) -> None:
    sock.connect("localhost", 80, timeout=1)
    sock.connect(parse_ip_address("::1"), 80)
    sock.connect_unix(pathlib.Path("/run/peer"), timeout=0.5)
    assert_type(dial("localhost", 80, timeout=1.5), Socket)
    assert_type(dial("localhost", 53, IPPROTO_UDP, buffered=False), Socket)
    assert_type(dial("localhost", 80, default_flags=SocketFlag.NONE), Socket)
    assert_type(dial("unix:/run/store.sock", options=[(1, 2, 3), (1, 2, b"4")]), Socket)
    assert_type(dial("localhost", 80, local_addr=("::1", 0), family=AF_INET6, keep_alive=None), Socket)
    assert_type(dial("localhost", 80, keep_alive=KeepAlive(60), resolver=socket.getaddrinfo), Socket)


def read(sock: Socket, flags: SocketFlag = SAFE_DISCONN) -> Iterator[bytes]:
    assert_type(sock.recv(10, 1.0, flags), bytes)
    assert_type(sock.recv_some(), bytes)
    assert_type(sock.recv_exactly(10, timeout=None), bytes)
    assert_type(sock.recv_until(b"\0", max_length=100), bytes)
    assert_type(sock.recv_line(1, flags, 100, on_long="raise"), bytes)
    assert_type(sock.recv_into(bytearray(10)), int)
    assert_type(sock.recv_into(memoryview(bytearray(10)), 5, timeout=1), int)
    assert_type(sock.recv_line_into(bytearray()), int)
    sock.skip(10, timeout=1)
    outcome, line = sock.try_recv_line()
    assert_type(outcome, ReadLineResult)
    assert_type(line, bytes)
    assert_type(sock.recv_until((b"\r\n", bytearray(b"\n")), 100, timeout=1), bytes)
    assert_type(sock.recv_until(bytearray(b"\n")), bytes)
    assert_type(sock.recv_some_into(bytearray(10), 1.0, flags), int)
    assert_type(sock.try_recv(), bytes | None)
    assert_type(sock.wait_readable(timeout=1), None)
    assert_type(sock.wait_writable(), None)
    assert_type(sock.try_recv(max_size=10), bytes | None)
    yield from sock.lines(max_length=100, timeout=1, flags=flags)


def measure(view: memoryview) -> tuple[int, int] | None:
    return (4, int.from_bytes(view[:3], "big")) if len(view) >= 4 else None


def frames(sock: Socket, flags: SocketFlag = SAFE_DISCONN) -> Iterator[bytes]:
    view = sock.fill(4, timeout=1)
    assert_type(view, memoryview)
    sock.consume(4)
    sock.unread(b"data")
    sock.unread(view[:2])
    kind, size = sock.recv_struct("!cI", 1.0)
    print(kind, size, *sock.recv_struct(struct.Struct("!H")), *sock.recv_struct(b"!H"))
    frame = sock.recv_frame("!cI", length_field=-1, length_adjust=-4, max_size=100, timeout=1)
    assert_type(frame, Frame)
    fields, payload = frame
    print(*fields)
    assert_type(payload, bytes)
    assert_type(sock.recv_frame(measure).payload, bytes)
    assert_type(sock.frames(struct.Struct("!H"), timeout=1, flags=flags), Iterator[Frame])
    for frame in sock.frames(measure, max_size=MAX_FRAME_SIZE):
        yield frame.payload


def descriptors(sock: Socket) -> int:
    sock.send_fds(b"data", [0, 1], timeout=1)
    sock.send_fds(bytearray(b"data"), (number for number in (0, 1)))
    received = sock.recv_fds(100, 2, timeout=1)
    assert_type(received, ReceivedFds)
    data, fds, truncated = received
    assert_type(data, bytes)
    assert_type(fds, list[int])
    return truncated


def write(sock: Socket) -> None:
    sock.send(b"data", timeout=1)
    sock.send(bytearray(b"data"), SAFE_DISCONN)
    sock.send(memoryview(b"data"))
    sock &= b"data"
    assert_type(sock, Socket)
    assert_type(sock.send_some(b"data"), int)
    with open("file", "rb") as file:
        assert_type(sock.sendfile(file), int)
        assert_type(sock.sendfile(io.BytesIO(b"data"), 1, count=None, timeout=Deadline(1)), int)
    assert_type(sock.try_send(b"data"), bool)
    assert_type(sock.try_send_some(b"data"), int)
    sock.shutdown_write(timeout=1)


def start_tls(sock: Socket, ctx: SslContext) -> None:
    sock.start_tls(ctx, hostname="localhost", timeout=1)
    sock.start_tls(ctx, Handshake.AS_SERVER, leftover="tls")
    sock.start_tls(ctx, Handshake.AS_CLIENT, parse_ip_address("::1"), Deadline(1), leftover="refuse")


def datagrams(sock: Socket) -> None:
    assert_type(sock.send_to("localhost", 53, b"data", timeout=1), int)
    datagram = sock.recv_from(1500, timeout=1)
    assert_type(datagram, Datagram)
    data, address = datagram
    assert_type(data, bytes)
    assert_type(address, Address)
    assert_type(datagram.truncated, bool)
    size, address = sock.recv_from_into(bytearray(1500))
    assert_type(size, int)
    several = sock.recv_many_from(64, size=1500, timeout=1)
    assert_type(several, list[Datagram])
    assert_type(sock.send_many_to([(b"data", "localhost", 53), *several], timeout=1), int)
    with Socket(AF_INET, SOCK_DGRAM, packet_info=True) as informed:
        informed.join_group("239.1.2.3", "lo")
        informed.leave_group(IPV4_LOOPBACK, interface=1)
        assert_type(informed.multicast_ttl, int)
        assert_type(informed.multicast_loop, bool)
        assert_type(informed.multicast_interface, str | int | IPv4Address | None)
        informed.multicast_ttl = 4
        informed.multicast_loop = False
        informed.multicast_interface = IPV4_LOOPBACK
        informed.multicast_interface = None
    assert_type(datagram.destination, IpAddress | None)
    assert_type(datagram.interface, str | None)


def accept(listener: Socket) -> None:
    listener.bind_addr(0, "::1")
    listener.bind_unix("/run/here")
    listener.listen(5)
    accepted = listener.accept_addr(inheritable=True, timeout=1)
    assert_type(accepted, Accepted)
    client, address = accepted
    assert_type(client, Socket)
    assert_type(address, Address)
    assert_type(listener.accept(timeout=0), Socket)
    _, maybe, where = listener.try_accept_addr()
    assert_type(maybe, Socket | None)
    assert_type(where, Address | None)


def look(sock: Socket) -> None:
    assert_type(sock.local_addr, Address)
    assert_type(sock.peer_addr.port, int)
    assert_type(sock.is_closed or sock.is_ssl or sock.has_data_buffered, bool)
    assert_type(sock.fileno(), int)
    assert_type(sock.get_sock_opt(SockOpt.NO_DELAY), bool)
    sock.set_sock_opt(SockOpt.KEEP_ALIVE, True, level=socket.SOL_SOCKET)
    assert_type(sock.get_socket_error(), int)
    assert_type(sock.get_peer_certificates(), list[Certificate])
    stats = sock.stats
    assert_type(stats, SocketStats)
    assert_type(stats.bytes_received + stats.wire_bytes_sent, int)
    assert_type(stats.opened_at, float | None)
    assert_type(sock.get_peer_certificates(verified=False), list[Certificate])
    sock.close(linger=1)


class Client:
    def __init__(self, sock: Socket) -> None:
        self.sock = sock

    def close(self) -> None:
        self.sock.close()


def pools() -> PoolStats:
    def connect(deadline: Deadline) -> Socket:
        return dial("localhost", 80)

    pool = Pool(
        connect, max_size=5, max_idle=None, idle_timeout=None, healthy=lambda sock: not sock.is_closed
    )
    assert_type(pool, Pool[Socket])
    with pool as same, same.acquire() as sock, pool.acquire(Deadline(1)), pool.acquire(1):
        assert_type(sock, Socket)
    clients = Pool(lambda deadline: Client(connect(deadline)))
    with clients.acquire(timeout=None) as client:
        assert_type(client, Client)
    clients.close()
    assert_type(clients.is_closed, bool)
    assert_type(pool.stats.idle, int)
    return pool.stats


def handler(client: Socket, address: Address) -> None:
    client.send(address.host.encode())


def failed(error: Exception, client: Socket) -> None:
    print(error, client.peer_addr)


def take_over(plain: socket.socket, ours: Socket) -> list[Server]:
    servers = [serve(handler, sock=plain), serve(handler, sock=ours), serve(handler, sock=[plain, ours])]
    servers.append(serve(handler, address="unix:/run/store.sock", mode=0o600))
    servers.append(serve(handler, default_flags=SocketFlag.NONE))
    return servers


def server() -> StopReport:
    with serve(
        handler,
        0,
        "localhost",
        max_connections=10,
        backlog=5,
        reuse_port=True,
        buffered=False,
        on_error=failed,
        options=[(1, 2, 3)],
        keep_alive=None,
    ) as one:
        assert_type(one, Server)
        assert_type(one.local_addr, Address)
        assert_type(one.local_addrs, tuple[Address, ...])
        assert_type(one.sockets, tuple[Socket, ...])
        assert_type(one.connections, int)
        assert_type(one.stats, ServerStats)
        assert_type(one.stats.bytes_sent, int)
        assert_type(one.clients, tuple[Socket, ...])
        assert_type(one.stopping.is_set() or one.stopping.wait(1.5), bool)
        one.request_stop(drain=1.5)
        one.wait(timeout=1)
        report = one.stop(drain=1.5)
        one.request_stop(drain=None)  # no limit
    assert_type(report.drained + report.forced, int)
    return report


def managed() -> bytes:
    with dial("localhost", 80) as sock:
        return sock.recv_some()


def pass_on(a: Socket, b: Socket) -> int:
    report = relay(a, b, idle_timeout=60, half_close_timeout=1.5, progress=lambda up, down: print(up, down))
    assert_type(report, RelayReport)
    assert_type(report.error, OSError | None)
    if report.reason == "reset" and report.failed == "a":
        b.close(linger=0)
    return report.a_to_b + report.b_to_a
