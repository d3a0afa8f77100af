"""Python's own ``socket``, ``socketserver``, ``http.client`` and ``http.server`` at the other end, in both roles."""

from __future__ import annotations

import http.client
import http.server
import pathlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.interop.conversations import OURS, THEIRS, read_to_the_end
from tests.interop.responder import PAGES, PATIENCE, respond
from wireline import AF_INET, AF_INET6, AF_UNIX, IPPROTO_UDP, SOCK_DGRAM, Address
from wireline.net import Socket, dial, serve

pytestmark = pytest.mark.interop

IP = [pytest.param("127.0.0.1", AF_INET, id="v4"), pytest.param("::1", AF_INET6, id="v6")]


def exchange(ours: Socket, theirs: socket.socket) -> None:
    """Everything in both directions at once, then both half-close."""
    theirs.settimeout(PATIENCE)

    def send_theirs() -> None:
        theirs.sendall(THEIRS)
        theirs.shutdown(socket.SHUT_WR)

    def send_ours() -> None:
        ours.send(OURS, timeout=PATIENCE)
        ours.shutdown_write()

    with ThreadPoolExecutor(3) as pool, theirs.makefile("rb") as reader:
        sending = [pool.submit(send_theirs), pool.submit(send_ours)]
        reading = pool.submit(reader.read)
        assert read_to_the_end(ours) == THEIRS
        assert reading.result() == OURS
        for future in sending:
            future.result()


@pytest.mark.parametrize(("host", "family"), IP)
def test_socket_connects(host: str, family: int) -> None:
    with Socket(family) as listener:
        listener.bind_addr(0, host)
        listener.listen()
        with socket.create_connection(listener.local_addr, PATIENCE) as theirs:
            ours, address = listener.accept_addr(timeout=PATIENCE)
            with ours:
                assert address == theirs.getsockname()[:2]
                exchange(ours, theirs)


@pytest.mark.parametrize(("host", "family"), IP)
def test_socket_listens(host: str, family: int) -> None:
    with socket.create_server((host, 0), family=socket.AddressFamily(family)) as listener:
        with dial(host, listener.getsockname()[1], timeout=PATIENCE) as ours:
            theirs, address = listener.accept()
            with theirs:
                assert ours.local_addr == address[:2]
                exchange(ours, theirs)


def test_socket_connects_to_a_unix_socket(tmp_path: pathlib.Path) -> None:
    with Socket(AF_UNIX) as listener, socket.socket(AF_UNIX) as theirs:
        listener.bind_unix(tmp_path / "socket")
        listener.listen()
        theirs.connect(str(tmp_path / "socket"))
        with listener.accept(timeout=PATIENCE) as ours:
            exchange(ours, theirs)


def test_socket_listens_on_a_unix_socket(tmp_path: pathlib.Path) -> None:
    with socket.socket(AF_UNIX) as listener, Socket(AF_UNIX) as ours:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        ours.connect_unix(tmp_path / "socket", timeout=PATIENCE)
        theirs, _ = listener.accept()
        with theirs:
            exchange(ours, theirs)


def test_a_pair_of_sockets_taken_over() -> None:
    one, other = socket.socketpair()
    with Socket.from_socket(one) as ours, other:
        exchange(ours, other)


@pytest.mark.parametrize(("host", "family"), IP)
def test_datagrams(host: str, family: int) -> None:
    with socket.socket(family, SOCK_DGRAM) as theirs:
        theirs.settimeout(PATIENCE)
        theirs.bind((host, 0))
        with dial(host, theirs.getsockname()[1], IPPROTO_UDP, timeout=PATIENCE) as ours:
            for data in (b"one", b"", b"x" * 9000):
                ours.send(data)
                received, sender = theirs.recvfrom(10_000)
                assert (received, sender[:2]) == (data, ours.local_addr)
                theirs.sendto(data[::-1], sender)
                assert ours.recv_from(10_000, timeout=PATIENCE) == (data[::-1], ours.peer_addr)


@contextmanager
def running(server: socketserver.UDPServer | socketserver.TCPServer) -> Iterator[int]:
    """Run a server of the standard library in a thread; yield its port."""
    # The interval at which it looks whether it should stop; by default half a second.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class EchoLines(socketserver.StreamRequestHandler):
    """Sends back every line."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


def test_a_socketserver_echoes_our_lines() -> None:
    with running(socketserver.ThreadingTCPServer(("127.0.0.1", 0), EchoLines)) as port:
        with dial("127.0.0.1", port, timeout=PATIENCE) as sock:
            lines = [b"line %d" % number for number in range(1000)]
            with ThreadPoolExecutor(1) as pool:
                sent = pool.submit(sock.send, b"\n".join([*lines, b""]), timeout=PATIENCE)
                assert [sock.recv_line(PATIENCE) for _ in lines] == lines
                sent.result()
            sock.shutdown_write()
            assert sock.recv_line(PATIENCE) == b""


class EchoDatagrams(socketserver.DatagramRequestHandler):
    """Sends back every datagram."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.read())


def test_a_socketserver_echoes_our_datagrams() -> None:
    with running(socketserver.UDPServer(("127.0.0.1", 0), EchoDatagrams)) as port:
        with Socket(sock_type=SOCK_DGRAM) as sock:
            for number in range(20):
                sock.send_to("127.0.0.1", port, b"datagram %d" % number)
                assert sock.recv_from(1500, timeout=PATIENCE) == (
                    b"datagram %d" % number,
                    ("127.0.0.1", port),
                )


def test_many_clients_of_a_server_made_by_serve() -> None:
    def echo(client: Socket, _: Address) -> None:
        while data := client.recv_some(timeout=PATIENCE):
            client.send(data, timeout=PATIENCE)

    def converse(where: Address, number: int) -> bytes:
        with socket.create_connection(where, PATIENCE) as client:
            client.sendall(b"client %d " % number * 5000)
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as answer:
                return answer.read()

    with serve(echo, 0, "127.0.0.1") as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: converse(server.local_addr, number), range(24)))
        assert answers == [b"client %d " % number * 5000 for number in range(24)]


@pytest.mark.parametrize("page", PAGES)
def test_http_client_reads_from_our_responder(page: str) -> None:
    with serve(respond, 0, "127.0.0.1") as server:
        connection = http.client.HTTPConnection(*server.local_addr, timeout=PATIENCE)
        try:
            for method in ("GET", "HEAD"):
                connection.request(method, page)
                response = connection.getresponse()
                assert (response.status, response.version) == (200, 10)
                assert response.getheader("Content-Length") == str(len(PAGES[page]))
                assert response.read() == (PAGES[page] if method == "GET" else b"")
        finally:
            connection.close()


class Pages(http.server.BaseHTTPRequestHandler):
    """The same pages, served by the standard library, which keeps the connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = PAGES[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


def test_http_server_answers_our_requests_on_one_connection() -> None:
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)) as port:
        with dial("127.0.0.1", port, timeout=PATIENCE) as sock:
            for page in PAGES:
                sock.send(f"GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert sock.recv_line(PATIENCE) == b"HTTP/1.1 200 OK"
                headers = dict(_headers(lambda: sock.recv_line(PATIENCE)))
                assert sock.recv_exactly(int(headers[b"content-length"]), PATIENCE) == PAGES[page]


def _headers(next_line: Callable[[], bytes]) -> Iterator[tuple[bytes, bytes]]:
    while (line := next_line()) != b"\r\n":
        name, _, value = line.partition(b": ")
        yield name.lower(), value
