"""Every example runs, alone and against the standard library, and the demonstration tells its story."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from examples import (
    async_http_client,
    async_mutual_tls,
    async_psk_greeter,
    async_starttls,
    async_udp_echo,
    chat_server,
    demo,
    echo_threads,
    http_client,
    mutual_tls,
    psk_greeter,
    starttls,
    tcp_client,
    tcp_server,
    udp_exchange,
    unix_echo,
)
from examples.scenes.stage import Scene, Stage
from tests.cases import few_in_sample, in_turn
from tests.tls import certificates
from wireline import SocketTimeout
from wireline.tls import SslContext, SslError, TruncatedError

P = ParamSpec("P")
T = TypeVar("T")

EXAMPLES = Path(demo.__file__).resolve().parent
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))

PATIENCE = 10.0
"""Seconds after which an answer counts as lost."""


def run(
    name: str, *words: str, typed: str | None = None, text: bool = True
) -> subprocess.CompletedProcess[Any]:
    """Run an example to its end."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        input=typed,
        capture_output=True,
        text=text,
        timeout=PATIENCE,
        check=False,
    )


def awaited(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a plain function of one that is awaited."""

    def call_and_wait(*args: P.args, **options: P.kwargs) -> T:
        return asyncio.run(call(*args, **options))

    return call_and_wait


@contextlib.contextmanager
def running(name: str, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run an example that serves; gives the process and its address. It has to end well when it is asked to."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            announced = re.fullmatch(r"listening on (\S+)\n", process.stdout.readline())
            assert announced, process.communicate()
            yield process, announced[1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, process.communicate()
        finally:
            process.kill()


@contextlib.contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server of the standard library that serves one client; gives the port."""

    def serve_one() -> None:
        client, _ = listener.accept()
        with client:
            client.settimeout(PATIENCE)
            talk(client)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve_one)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


@contextlib.contextmanager
def client(port: int) -> Iterator[socket.socket]:
    """A client of the standard library."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        yield sock


def read_line(sock: socket.socket) -> bytes:
    """Read one line byte by byte, so that nothing is lost between two calls."""
    line = b""
    while not line.endswith(b"\n") and (byte := sock.recv(1)):
        line += byte
    return line


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory with a short path: the path of a socket has at most about 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="wl-") as directory:
        yield Path(directory)


@pytest.fixture
def unused_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_the_recipes_are_all_here() -> None:
    recipes = "tcp_client tcp_server echo_threads udp_exchange unix_echo http_client chat_server".split()
    recipes += "tls_echo starttls psk_greeter mutual_tls".split()
    recipes += "async_echo async_chat async_http_client async_udp_echo".split()
    recipes += "async_tls_echo async_starttls async_psk_greeter async_mutual_tls".split()
    assert {f"{name}.py" for name in recipes} <= set(PROGRAMS)


@pytest.mark.parametrize("name", few_in_sample(PROGRAMS, "tcp_client.py", "async_chat.py"))
def test_an_example_explains_itself(name: str) -> None:
    result = run(name, "--help")
    assert result.stdout.startswith("usage: ")
    assert (result.returncode, result.stderr) == (0, "")


# TCP.


def test_the_tcp_client_talks_to_the_tcp_server() -> None:
    with running("tcp_server.py", "0") as (server, address):
        host, _, port = address.rpartition(":")
        for _ in range(2):
            result = run("tcp_client.py", host, port, "good morning", "", "good night")
            assert (result.stdout, result.stderr) == ("GOOD MORNING\n\nGOOD NIGHT\n", "")
            assert server.stdout is not None
            assert re.fullmatch(r"client connected from 127\.0\.0\.1:\d+\n", server.stdout.readline())


def test_the_tcp_server_goes_on_after_a_client_with_a_line_that_is_too_long() -> None:
    with running("tcp_server.py", "0") as (_, address):
        port = int(address.rpartition(":")[2])
        with client(port) as loud, contextlib.suppress(ConnectionResetError):
            loud.sendall(b"x" * 5000)
            assert loud.recv(1) == b""
        assert list(tcp_client.ask("127.0.0.1", port, [b"next"])) == [b"NEXT"]


def test_the_tcp_server_listens_at_its_argument() -> None:
    with tcp_server.listen(0, "127.0.0.1") as listener:
        assert listener.local_addr.host == "127.0.0.1"
        with pytest.raises(OSError, match="in use"):
            tcp_server.listen(listener.local_addr.port, "127.0.0.1")


def test_the_tcp_client_sends_what_is_typed() -> None:
    with echo_threads.start(0) as server:
        result = run("tcp_client.py", "127.0.0.1", str(server.local_addr.port), typed="one\ntwo\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "one\ntwo\n", "")


def test_the_tcp_client_ends_with_the_server() -> None:
    def answer_once(sock: socket.socket) -> None:
        assert read_line(sock) == b"one\r\n"
        sock.sendall(b"1\n")

    with peer(answer_once) as port:
        assert list(tcp_client.ask("127.0.0.1", port, [b"one", b"two", b"three"])) == [b"1"]


def test_the_tcp_client_reports_a_closed_port(unused_port: int) -> None:
    result = run("tcp_client.py", "127.0.0.1", str(unused_port), "hello")
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"tcp_client: .*refused.*\n", result.stderr)


ECHOES = ["echo_threads.py", "async_echo.py"]


@in_turn("name", ECHOES)
def test_an_echo_serves_all_clients_at_once(name: str) -> None:
    with running(name, "0") as (_, address), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client(int(address.rpartition(":")[2]))) for _ in range(8)]
        for number, sock in enumerate(clients):
            sock.sendall(b"this is %d\n" % number)
        for number, sock in reversed(list(enumerate(clients))):
            assert read_line(sock) == b"this is %d\n" % number


@in_turn("name", ECHOES)
def test_an_echo_reports_the_end_of_each_client(name: str) -> None:
    with running(name, "0") as (server, address):
        with client(int(address.rpartition(":")[2])) as sock:
            sock.sendall(b"hello\n")
            assert read_line(sock) == b"hello\n"
            server.send_signal(signal.SIGTERM)
            assert server.stdout is not None
            assert server.stdout.readline() == "0 clients finished, 1 were cut off\n"
            assert sock.recv(1) == b""
            assert server.wait(PATIENCE) == 0


# UDP and Unix.


UDP_ASK_ALL = {"udp_exchange.py": udp_exchange.ask_all, "async_udp_echo.py": awaited(async_udp_echo.ask_all)}


@in_turn("name", UDP_ASK_ALL)
def test_udp_asks_many_things(name: str) -> None:
    with running(name, "serve", "0") as (_, address):
        host, _, port = address.rpartition(":")
        result = run(name, "ask", host, port, "anybody there?", "and you?")
        assert (result.returncode, result.stdout, result.stderr) == (0, "anybody there?\nand you?\n", "")
        questions = [b"", *[b"%d" % number * number for number in range(1, 50)]]
        assert UDP_ASK_ALL[name](host, int(port), questions) == questions


UDP_ASK = {"blocking": udp_exchange.ask, "async": awaited(async_udp_echo.ask)}


@in_turn("ask", UDP_ASK.values())
def test_udp_asks_again_when_a_datagram_is_lost(ask: Callable[..., bytes]) -> None:
    def lose_the_first(sock: socket.socket) -> None:
        assert sock.recvfrom(100)[0] == b"hello"
        question, sender = sock.recvfrom(100)
        sock.sendto(question * 2, sender)

    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        thread = threading.Thread(target=lose_the_first, args=(sock,))
        thread.start()
        answer = ask("127.0.0.1", sock.getsockname()[1], b"hello", tries=50, timeout=0.1)
        thread.join()
    assert answer == b"hellohello"


@in_turn("ask", UDP_ASK.values())
def test_udp_gives_up_without_an_answer(ask: Callable[..., bytes]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(SocketTimeout):
            ask("127.0.0.1", silent.getsockname()[1], b"hello", tries=2, timeout=0.05)


@in_turn("name", ["udp_exchange.py", "async_udp_echo.py"])
def test_udp_reports_a_closed_port(name: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    result = run(name, "ask", "127.0.0.1", str(port), "hello")
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(rf"{name.removesuffix('.py')}: .*refused.*\n", result.stderr)


def test_the_unix_echo_serves_its_own_client_and_another(short_directory: Path) -> None:
    path = short_directory / "echo"
    with running("unix_echo.py", "serve", str(path)) as (_, address):
        assert address == str(path)
        result = run("unix_echo.py", "ask", address, "is this me?")
        assert (result.returncode, result.stdout, result.stderr) == (0, "is this me?\n", "")
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(PATIENCE)
            plain.connect(address)
            plain.sendall(b"plain\n")
            assert read_line(plain) == b"plain\n"
    assert not path.exists()


def test_the_unix_echo_sends_back_more_than_the_buffers_hold(short_directory: Path) -> None:
    message = bytes(range(256)) * 64
    with unix_echo.start(str(short_directory / "echo")):
        assert unix_echo.ask(str(short_directory / "echo"), message) == message


def test_the_unix_client_reports_a_missing_server(short_directory: Path) -> None:
    result = run("unix_echo.py", "ask", str(short_directory / "none"), "hello")
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"unix_echo: .*No such file.*\n", result.stderr)


# HTTP.


@contextlib.contextmanager
def web(answer: bytes) -> Iterator[str]:
    """A server that sends the same answer to every request; gives a URL."""

    def talk(sock: socket.socket) -> None:
        while read_line(sock) != b"\r\n":
            pass
        sock.sendall(answer)

    with peer(talk) as port:
        yield f"http://127.0.0.1:{port}/page?of=1"


PAGES = {
    "counted": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Two:a:b \r\n\r\nhello, and more",
    "to the end": b"HTTP/1.0 200 OK\n\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"2\r\nhe\r\n3;colour=blue\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n",
    "after a moment": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello",
}


HTTP_GET = {"blocking": http_client.get, "async": awaited(async_http_client.get)}


@in_turn("get", HTTP_GET.values())
def test_http_finds_the_end_of_a_page(get: Callable[..., Any]) -> None:
    for kind, answer in PAGES.items():
        with web(answer) as url:
            response = get(url)
        assert (kind, response.status, response.body) == (kind, 200, b"hello")


@in_turn("get", HTTP_GET.values())
def test_http_gives_headers_and_knows_pages_without_a_body(get: Callable[..., Any]) -> None:
    with web(b"HTTP/1.1 204 No Content\r\nX-Two:  a:b \r\nContent-Length: 5\r\n\r\n") as url:
        assert get(url) == (204, {"x-two": "a:b", "content-length": "5"}, b"")


BROKEN = {
    "cut off in the headers": (b"HTTP/1.1 200 OK\r\nContent-", EOFError),
    "cut off in the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", EOFError),
    "cut off in a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello", EOFError),
    "cut off between chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        EOFError,
    ),
    "a wrong chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n", ValueError),
    "no number": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ValueError),
    "no header": (b"HTTP/1.1 200 OK\r\nhello\r\n\r\n", ValueError),
    "no end of headers": (
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: 1\r\n" % n for n in range(200)),
        ValueError,
    ),
    "a long header": (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 10_000 + b"\r\n\r\n", ValueError),
    "no HTTP": (b"SSH-2.0-Server\r\n", ValueError),
    "nothing": (b"", ValueError),
}


@in_turn("get", HTTP_GET.values())
def test_http_does_not_return_a_cut_page_as_whole(get: Callable[..., object]) -> None:
    for kind, (answer, error) in BROKEN.items():
        with web(answer) as url, pytest.raises(error):
            pytest.fail(f"{kind}: {get(url)}")


@in_turn("get", HTTP_GET.values())
def test_http_does_not_take_a_reset_for_the_end_of_a_page(get: Callable[..., object]) -> None:
    def break_off(sock: socket.socket) -> None:
        while read_line(sock) != b"\r\n":
            pass
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nhel")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with peer(break_off) as port, pytest.raises(ConnectionResetError):
        get(f"http://127.0.0.1:{port}/")


@in_turn("get", HTTP_GET.values())
@in_turn("url", ["ftp://localhost/", "localhost", "http:///", "http://localhost/a b"])
def test_http_refuses_a_url_that_is_no_address_of_a_page(url: str, get: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="is not http://host/path"):
        get(url)


@in_turn("name", ["http_client.py", "async_http_client.py"])
def test_http_gives_up_on_a_page_that_takes_too_long(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        result = run(name, "--timeout", "0.1", url)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(rf"{name.removesuffix('.py')}: {url}: .* 0\.1 s.*\n", result.stderr)


def test_http_gets_a_file_from_the_standard_librarys_server(tmp_path: Path) -> None:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, directory=str(tmp_path), **options)  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    (tmp_path / "page.bin").write_bytes(bytes(range(256)) * 100)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            response = http_client.get(f"{url}/page.bin")
            found = run("http_client.py", "--headers", f"{url}/")
            pages = (f"{url}/page.bin", f"{url}/none")
            results = [run(f"{name}http_client.py", *pages, text=False) for name in ("", "async_")]
        finally:
            server.shutdown()
            thread.join()
    assert response.body == bytes(range(256)) * 100
    assert (found.returncode, "page.bin" in found.stdout) == (0, True)
    assert "content-type: text/html" in found.stderr
    for result in results:
        assert result.stdout.startswith(bytes(range(256)) * 100)
        assert result.stderr.startswith(f"{url}/page.bin: 200, 25600 bytes\n{url}/none: 404, ".encode())
        assert result.returncode == 1


# TLS.


def https(answer: bytes, *, goodbye: bool = True) -> contextlib.AbstractContextManager[int]:
    """A server of the standard library that sends one answer inside TLS; gives the port."""

    def talk(sock: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificates.server())
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as secure:
            while read_line(secure) != b"\r\n":
                pass
            secure.sendall(answer)
            if goodbye:
                secure.unwrap()

    return peer(talk)


@in_turn("get", HTTP_GET.values())
def test_https_gets_a_page_of_a_server_with_the_right_certificate(get: Callable[..., Any]) -> None:
    trusting = SslContext(ca_file=certificates.ca_file())
    with https(PAGES["to the end"]) as port:
        assert get(f"https://localhost:{port}/", tls=trusting)[::2] == (200, b"hello")
    with https(PAGES["to the end"]) as port, pytest.raises(SslError):
        get(f"https://localhost:{port}/", tls=SslContext(ca_file=certificates.other_ca_file()))


@in_turn("get", HTTP_GET.values())
def test_https_does_not_take_a_cut_for_the_end_of_a_page(get: Callable[..., Any]) -> None:
    with https(PAGES["to the end"], goodbye=False) as port, pytest.raises(TruncatedError):
        get(f"https://localhost:{port}/", tls=SslContext(ca_file=certificates.ca_file()))


@in_turn("name", ["http_client.py", "async_http_client.py"])
def test_https_names_the_certificate_that_it_does_not_trust(name: str) -> None:
    with https(b"") as port:
        result = run(name, "--ca-file", certificates.other_ca_file(), f"https://localhost:{port}/")
    assert (result.returncode, result.stdout) == (1, "")
    assert "certificate verify failed" in result.stderr
    result = run(name, "--ca-file", "none.pem", "https://localhost:1/")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


@in_turn("name", ["tls_echo.py", "async_tls_echo.py"])
def test_the_tls_echo_serves_all_clients_and_survives_one_without_tls(name: str) -> None:
    leaf = certificates.server()
    context = ssl.create_default_context(cafile=certificates.ca_file())
    with running(name, "0", "--cert", leaf.cert, "--key", leaf.key) as (_, address):
        port = int(address.rpartition(":")[2])
        with client(port) as plain:
            plain.sendall(b"hello\n")
            assert b"hello" not in plain.recv(100)
        for _ in range(2):
            with context.wrap_socket(client_socket(port), server_hostname="localhost") as secure:
                secure.sendall(b"hello\n")
                assert read_line(secure) == b"hello\n"


def client_socket(port: int) -> socket.socket:
    """A connection that other code closes."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


@in_turn("name", ["tls_echo.py", "async_tls_echo.py"])
def test_the_tls_echo_says_what_is_wrong_with_its_files(name: str) -> None:
    result = run(name, "0", "--cert", certificates.server().cert, "--key", certificates.client().key)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(rf"{name.removesuffix('.py')}: .* does not belong to the key in .*\n", result.stderr)


STARTTLS = {"blocking": starttls.ask, "async": awaited(async_starttls.ask)}


@in_turn("ask", STARTTLS.values())
def test_starttls_changes_to_tls(ask: Callable[..., bytes]) -> None:
    with starttls.start(0, *certificates.server()) as server:
        port = server.local_addr.port
        assert ask("localhost", port, b"is this safe?", certificates.ca_file()) == b"IS THIS SAFE?"
        with pytest.raises(SslError):
            ask("localhost", port, b"is this safe?", certificates.other_ca_file())


@in_turn("ask", STARTTLS.values())
def test_starttls_does_not_go_on_in_clear(ask: Callable[..., bytes]) -> None:
    def decline(sock: socket.socket) -> None:
        assert read_line(sock) == b"STARTTLS\r\n"
        sock.sendall(b"not today\r\n")
        assert read_line(sock) == b""

    with peer(decline) as port, pytest.raises(OSError, match="does not want TLS, but says b'not today'"):
        ask("localhost", port, b"a secret", certificates.ca_file())


@in_turn("name", ["starttls.py", "async_starttls.py"])
def test_starttls_as_a_program(name: str) -> None:
    leaf = certificates.server()
    with running(name, "serve", "0", "--cert", leaf.cert, "--key", leaf.key) as (server, address):
        port = address.rpartition(":")[2]
        result = run(name, "ask", "localhost", port, "hello", "--ca-file", certificates.ca_file())
        assert (result.returncode, result.stdout, result.stderr) == (0, "HELLO\n", "")
        with client(int(port)) as careless:
            careless.sendall(b"hello\r\n")
            assert read_line(careless) == b"say STARTTLS first\r\n"
        with client(int(port)) as injecting:
            injecting.sendall(b"STARTTLS\r\ninjected\r\n")
            assert read_line(injecting) == b"go ahead\r\n"
            assert b"INJECTED" not in injecting.recv(1000)
        assert server.stdout is not None
        assert "received in clear" in server.stdout.readline()


needs_psk = pytest.mark.skipif(
    not all(each.available for each in SslContext.available_features() if "pre-shared" in each.name),
    reason="this interpreter has no pre-shared keys",
)
PSK_ASK = {"blocking": psk_greeter.ask, "async": awaited(async_psk_greeter.ask)}


@needs_psk
@in_turn("ask", PSK_ASK.values())
def test_a_key_is_all_that_is_needed_and_the_right_one(ask: Callable[..., str]) -> None:
    with psk_greeter.start(0, {"alice": b"a" * 32, "bob": b"b" * 32}) as server:
        port = server.local_addr.port
        assert ask("localhost", port, "alice", b"a" * 32) == "hello alice"
        for identity, key in (("alice", b"b" * 32), ("eve", b"a" * 32)):
            with pytest.raises(SslError):
                ask("localhost", port, identity, key)


@needs_psk
@in_turn("name", ["psk_greeter.py", "async_psk_greeter.py"])
def test_the_greeter_as_a_program(name: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(f"alice:{'0a' * 32}\nbob:{'0b' * 32}\n")
    with running(name, "serve", "0", str(keys)) as (_, address):
        result = run(name, "ask", "localhost", address.rpartition(":")[2], str(keys))
    assert (result.returncode, result.stdout, result.stderr) == (0, "hello alice\n", "")
    keys.write_text("alice:no-key")
    assert run(name, "serve", "0", str(keys)).returncode == 1


MUTUAL_ASK = {"blocking": mutual_tls.ask, "async": awaited(async_mutual_tls.ask)}


@in_turn("ask", MUTUAL_ASK.values())
def test_only_a_client_with_a_certificate_is_greeted(ask: Callable[..., str]) -> None:
    with mutual_tls.start(0, certificates.ca_file(), *certificates.server()) as server:
        port = server.local_addr.port
        greeting = ask("localhost", port, certificates.ca_file(), *certificates.client())
        assert greeting.startswith("hello ")
        with pytest.raises(SslError):
            ask("localhost", port, certificates.ca_file())
        with pytest.raises(SslError):
            ask("localhost", port, certificates.ca_file(), *certificates.stranger())


@in_turn("name", ["mutual_tls.py", "async_mutual_tls.py"])
def test_mutual_tls_as_a_program(name: str) -> None:
    ours, mine = certificates.server(), certificates.client()
    trust = ("--ca-file", certificates.ca_file())
    with running(name, "serve", "0", *trust, "--cert", ours.cert, "--key", ours.key) as (_, address):
        port = address.rpartition(":")[2]
        known = run(name, "ask", "localhost", port, *trust, "--cert", mine.cert, "--key", mine.key)
        unknown = run(name, "ask", "localhost", port, *trust)
    assert (known.returncode, known.stderr) == (0, "")
    assert known.stdout.startswith("hello ")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "certificate required" in unknown.stderr


# Chat.


@contextlib.contextmanager
def people(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Clients that have been welcomed."""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(1, count + 1):
            clients.append(stack.enter_context(client(port)))
            assert read_line(clients[-1]) == b"* welcome, you are one of %d\r\n" % number
        yield clients


@contextlib.contextmanager
def blocking_chat(patience: float = 2.0) -> Iterator[int]:
    with chat_server.start(0, patience=patience) as server:
        yield server.local_addr.port


@contextlib.contextmanager
def async_chat(patience: float = 2.0) -> Iterator[int]:
    with running("async_chat.py", "0", "--patience", str(patience)) as (_, address):
        yield int(address.rpartition(":")[2])


Chat = Callable[..., contextlib.AbstractContextManager[int]]
CHATS = {"blocking": blocking_chat, "async": async_chat}


@in_turn("name", ["chat_server.py", "async_chat.py"])
def test_chat_forwards_lines_to_all_others(name: str) -> None:
    with running(name, "0") as (_, address):
        with people(int(address.rpartition(":")[2]), 3) as (ann, bob, eve):
            ann.sendall(b"hello\n")
            assert (read_line(bob), read_line(eve)) == (b"hello\r\n", b"hello\r\n")
            bob.sendall(b"hi ann\r\n")
            assert (read_line(ann), read_line(eve)) == (b"hi ann\r\n", b"hi ann\r\n")


@in_turn("chat", CHATS.values())
def test_chat_disconnects_a_client_that_does_not_read(chat: Chat) -> None:
    line = b"x" * 3999 + b"\n"
    with chat(patience=0.3) as port, contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        assert read_line(deaf) == b"* welcome, you are one of 1\r\n"
        ann = stack.enter_context(client(port))
        bob = stack.enter_context(client(port))
        assert read_line(ann) + read_line(bob)
        # More than all the buffers on the way to a peer that does not read.
        talk = threading.Thread(target=ann.sendall, args=(line * 3000,))
        talk.start()
        heard = 0
        while heard < 3000 * (len(line) + 1) and (data := bob.recv(1 << 20)):
            heard += len(data)
        talk.join()
        assert heard == 3000 * (len(line) + 1)
        deaf.settimeout(PATIENCE)
        while deaf.recv(1 << 20):  # the data sent before; then the end
            pass


@in_turn("chat", CHATS.values())
def test_chat_answers_a_client_whose_line_is_too_long(chat: Chat) -> None:
    with chat() as port, people(port, 1) as (ann,):
        ann.sendall(b"x" * 100_000)
        assert read_line(ann) == b"that was too much at once\r\n"
        assert ann.recv(1) == b""


# The demonstration.


@pytest.mark.long
@pytest.mark.stress
@pytest.mark.timeout(120)
def test_the_demonstration_moves_bytes_and_leaves_nothing_behind(short_directory: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / "demo.py"), "--size", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(short_directory)},
        start_new_session=True,
    )
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert re.fullmatch(
        r"demo: 15 steps, \d\.\d MiB moved and verified, every one of \d+ checks passed, \d+\.\d s",
        out.splitlines()[-1],
    )
    assert list(short_directory.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_the_demonstration_ends_at_the_first_check_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def holds(stage: Stage) -> None:
        stage.check(True, "water is wet")
        stage.check(False, "the moon is made of cheese", "stone")

    def is_never_played(stage: Stage) -> None:
        raise AssertionError

    assert demo.main([], [Scene("Truths", holds), Scene("Never", is_never_played)]) == 1
    out, err = capsys.readouterr()
    assert "ok: water is wet" in out
    claim = "it is not true that the moon is made of cheese; there was 'stone'"
    assert err == f"\ndemo: FAILED: {claim} (step 1: Truths)\n"
