"""Blocking libraries on ``as_socket``, each with a real server."""

from __future__ import annotations

import contextlib
import ftplib
import http.client
import io
import queue
import smtplib
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pg8000.dbapi
import pymysql
import pytest
import redis
import websockets.sync.client
import websockets.sync.server
from aiosmtpd.controller import Controller

from tests.bridges.servers import Postgres, Tcp
from tests.interop.programs import _free_port
from tests.interop.responder import PAGES
from tests.tls import certificates
from wireline import AF_UNIX
from wireline.net import Socket, as_socket, dial
from wireline.tls import Handshake, SslContext

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of `asyncore`, which is in Python 3.11 still
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer

pytestmark = pytest.mark.interop

PATIENCE = 10.0

in_clear_and_over_tls = pytest.mark.parametrize("encrypted", [False, True], ids=["clear", "tls"])
buffered_or_not = pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])


def dialled(where: Tcp, encrypted: bool, trusting: SslContext, *, buffered: bool = True) -> socket.socket:
    """Connect to one of the two ports of a server."""
    tls = trusting if encrypted else None
    port = where.tls_port if encrypted else where.port
    bridge = as_socket(dial("127.0.0.1", port, timeout=PATIENCE, tls=tls, buffered=buffered))
    bridge.settimeout(PATIENCE)
    return bridge


# HTTP


@buffered_or_not
def test_http_client_over_tls(nginx_over_tls: int, trusting: SslContext, buffered: bool) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = as_socket(dial("localhost", nginx_over_tls, tls=trusting, buffered=buffered))
    for _ in range(3):
        for path, body in PAGES.items():
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, body)
    connection.request("GET", "/nothing", headers={"Connection": "close"})
    answer = connection.getresponse()  # it closes the socket, and the file of the answer is still open
    assert answer.status == 404
    assert b"404" in answer.read()
    connection.close()


# Redis


@contextlib.contextmanager
def closing_pool(pool: redis.ConnectionPool) -> Iterator[redis.Redis]:
    try:
        yield redis.Redis(connection_pool=pool)
    finally:
        pool.disconnect()


@in_clear_and_over_tls
@pytest.mark.parametrize("protocol", [2, 3])
def test_redis(redis_server: Tcp, trusting: SslContext, encrypted: bool, protocol: int) -> None:
    class Connection(redis.Connection):
        def _connect(self) -> socket.socket:
            return dialled(redis_server, encrypted, trusting)

    pool = redis.ConnectionPool(connection_class=Connection, protocol=protocol)
    large = bytes(range(256)) * 8192
    with closing_pool(pool) as client:
        client.flushall()
        assert client.set("key", large)
        assert client.get("key") == large
        with client.pipeline() as pipeline:
            for number in range(1000):
                pipeline.set(f"key{number}", number).get(f"key{number}")
            assert pipeline.execute() == [each for n in range(1000) for each in (True, b"%d" % n)]
        with client.pubsub() as subscriber:
            subscriber.subscribe("news")
            assert subscriber.get_message(timeout=PATIENCE)["type"] == "subscribe"
            assert subscriber.get_message(timeout=0.01) is None
            client.publish("news", "hello")
            assert subscriber.get_message(timeout=PATIENCE)["data"] == b"hello"
        with pytest.raises(redis.ResponseError):
            client.execute_command("NONSENSE")


def test_redis_after_the_server_has_closed_the_connection(redis_server: Tcp, trusting: SslContext) -> None:
    class Connection(redis.Connection):
        def _connect(self) -> socket.socket:
            return dialled(redis_server, False, trusting)

    pool = redis.ConnectionPool(connection_class=Connection)
    with closing_pool(pool) as client:
        with closing_pool(redis.ConnectionPool(connection_class=Connection)) as other:
            number = client.client_id()
            other.client_kill_filter(_id=number)
            assert client.ping()  # the pool has noticed, and has connected again
            assert client.client_id() != number


# Databases


def unix_socket(path: str) -> socket.socket:
    sock = Socket(AF_UNIX)
    sock.connect_unix(path, PATIENCE)
    return as_socket(sock)


def test_pymysql(mariadb: str) -> None:
    connection = pymysql.connect(user="root", defer_connect=True, read_timeout=10, write_timeout=10)
    connection.connect(unix_socket(mariadb))
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 + 1, REPEAT('x', 100000)")
        assert cursor.fetchall() == ((2, "x" * 100_000),)
        cursor.execute("CREATE DATABASE IF NOT EXISTS bridge")
        cursor.execute("USE bridge")
        cursor.execute("CREATE OR REPLACE TABLE t (number INT, name VARCHAR(20))")
        rows = [(number, f"name {number}") for number in range(2000)]
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", rows)
        cursor.execute("SELECT * FROM t ORDER BY number")
        assert list(cursor.fetchall()) == rows
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.execute("SELECT nonsense FROM nowhere")
        connection.ping(reconnect=False)


def test_pymysql_starts_its_own_tls(mariadb: str) -> None:
    own = ssl.create_default_context(cafile=certificates.ca_file())
    connection = pymysql.connect(user="root", host="localhost", ssl=own, defer_connect=True)
    connection.connect(unix_socket(mariadb))
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
        assert cursor.fetchone() == ("Ssl_version", "TLSv1.3")


def test_pymysql_reports_a_timeout_as_its_own_error(mariadb: str) -> None:
    connection = pymysql.connect(user="root", defer_connect=True, read_timeout=1)
    connection.connect(unix_socket(mariadb))
    connection._read_timeout = 0.05  # type: ignore[attr-defined] # the argument is whole seconds
    with connection.cursor() as cursor, pytest.raises(pymysql.err.OperationalError, match="timed out"):
        cursor.execute("SELECT SLEEP(5)")
    connection.close()


def postgres_over_tls(server: Postgres, trusting: SslContext) -> Socket:
    """Ask for TLS as PostgreSQL has it, and start it."""
    sock = dial("127.0.0.1", server.port, timeout=PATIENCE)
    sock.send(struct.pack("!ii", 8, 80877103))
    assert sock.recv_exactly(1, PATIENCE) == b"S"
    trusting.wrap_connected_socket(sock, Handshake.AS_CLIENT, "localhost", PATIENCE)
    return sock


@in_clear_and_over_tls
def test_pg8000(postgres: Postgres, trusting: SslContext, encrypted: bool) -> None:
    sock = (
        postgres_over_tls(postgres, trusting)
        if encrypted
        else dial("127.0.0.1", postgres.port, timeout=PATIENCE)
    )
    with contextlib.closing(
        pg8000.dbapi.connect("postgres", password=postgres.password, sock=as_socket(sock), ssl_context=False)
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cursor.fetchone() == [encrypted]
        cursor.execute("CREATE TEMPORARY TABLE t (number INT, name TEXT)")
        rows = "".join(f"{number}\tname {number}\n" for number in range(5000))
        cursor.execute("COPY t FROM STDIN", stream=io.BytesIO(rows.encode()))
        copied = io.BytesIO()
        cursor.execute("COPY (SELECT * FROM t ORDER BY number) TO STDOUT", stream=copied)
        assert copied.getvalue().decode() == rows
        with pytest.raises(pg8000.dbapi.DatabaseError):
            cursor.execute("SELECT nonsense")
    assert sock.is_closed


def test_pg8000_starts_its_own_tls_on_a_plain_socket(postgres: Postgres) -> None:
    """``ssl.SSLContext.wrap_socket`` takes the descriptor over, as it does with a ``socket.socket``."""
    sock = dial("127.0.0.1", postgres.port, timeout=PATIENCE)
    own = ssl.create_default_context(cafile=certificates.ca_file())
    with contextlib.closing(
        pg8000.dbapi.connect(
            "postgres", host="localhost", password=postgres.password, sock=as_socket(sock), ssl_context=own
        )
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cursor.fetchone() == [True]
        assert sock.is_closed


# Mail and files


class Mailbox:
    """What aiosmtpd hands over."""

    def __init__(self) -> None:
        self.mails: queue.Queue[bytes] = queue.Queue()

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        self.mails.put(envelope.content)
        return "250 OK"


class WirelineSMTP(smtplib.SMTP):
    """The recipe of the documentation."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        bridge = as_socket(dial(host, port, timeout=timeout))
        bridge.settimeout(timeout)
        return bridge


def test_smtplib() -> None:
    mailbox = Mailbox()
    port = _free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        body = "\r\n".join(f"line {number}" for number in range(2000))
        with WirelineSMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            client.sendmail("a@example.org", ["b@example.org"], f"Subject: x\r\n\r\n{body}")
        assert mailbox.mails.get(timeout=PATIENCE).endswith(body.encode() + b"\r\n")
    finally:
        controller.stop()


def test_smtplib_starts_its_own_tls() -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*certificates.server())
    mailbox = Mailbox()
    port = _free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, tls_context=server)
    controller.start()
    try:
        with WirelineSMTP("localhost", port, timeout=PATIENCE) as client:
            client.starttls(context=ssl.create_default_context(cafile=certificates.ca_file()))
            client.sendmail("a@example.org", ["b@example.org"], "hello")
        assert mailbox.mails.get(timeout=PATIENCE) == b"hello\r\n"
    finally:
        controller.stop()


class WirelineFTP(ftplib.FTP):
    """The recipe of the documentation: commands and passive data connections by ``dial``."""

    def connect(self, host: str = "", port: int = 0, timeout: float = 10, source_address: Any = None) -> str:
        self.sock = as_socket(dial(host, port, timeout=timeout))
        self.sock.settimeout(timeout)
        self.af = self.sock.family
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()
        return self.welcome

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        data = as_socket(dial(*self.makepasv(), timeout=PATIENCE))
        if rest is not None:
            self.sendcmd(f"REST {rest}")
        if not self.sendcmd(cmd).startswith("1"):
            raise ftplib.error_reply
        return data, None


@pytest.fixture
def ftp_server(tmp_path: Any) -> Iterator[int]:
    authorizer = DummyAuthorizer()
    authorizer.add_user("user", "secret", str(tmp_path), perm="elradfmw")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer, "banner": "ready"})
    server = ThreadedFTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.02})
    thread.start()
    try:
        yield server.address[1]
    finally:
        server.close_all()
        thread.join(PATIENCE)


def test_ftplib(ftp_server: int) -> None:
    large = bytes(range(256)) * 4000
    with WirelineFTP() as client:
        client.connect("127.0.0.1", ftp_server)
        client.login("user", "secret")
        assert client.storbinary("STOR file", io.BytesIO(large)).startswith("226")
        assert client.nlst() == ["file"]
        pieces: list[bytes] = []
        client.retrbinary("RETR file", pieces.append)
        assert b"".join(pieces) == large
        with pytest.raises(ftplib.error_perm):
            client.delete("nothing")


# MQTT


@in_clear_and_over_tls
@buffered_or_not
def test_paho(mosquitto: Tcp, trusting: SslContext, encrypted: bool, buffered: bool) -> None:
    class Client(mqtt.Client):
        def _create_socket_connection(self) -> socket.socket:
            return dialled(mosquitto, encrypted, trusting, buffered=buffered)

    received: queue.Queue[bytes] = queue.Queue()
    subscribed = threading.Event()
    client = Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe("topic", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: received.put(message.payload)
    client.connect("127.0.0.1", 1)
    client.loop_start()
    try:
        assert subscribed.wait(PATIENCE)
        messages = [b"%d " % number * (number * 50) for number in range(100)]
        for message in messages:
            client.publish("topic", message, qos=1)
        assert [received.get(timeout=PATIENCE) for _ in messages] == messages
    finally:
        client.disconnect()
        client.loop_stop()


# WebSocket


def echo(connection: websockets.sync.server.ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@contextlib.contextmanager
def serving(server: websockets.sync.server.Server) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join(PATIENCE)


def converse(client: websockets.sync.client.ClientConnection) -> None:
    for message in ("hello", bytes(range(256)) * 2000, ""):
        client.send(message)
        assert client.recv(PATIENCE) == message
    for number in range(100):  # many at once: a receive may give several
        client.send(f"{number}" * number)
    assert [client.recv(PATIENCE) for _ in range(100)] == [f"{number}" * number for number in range(100)]
    with pytest.raises(TimeoutError):
        client.recv(0.05)
    client.send("after the timeout")
    assert client.recv(PATIENCE) == "after the timeout"


@pytest.mark.parametrize("encrypted", [False, True], ids=["in clear", "TLS"])
def test_websockets_as_client_and_server(trusting: SslContext, encrypted: bool) -> None:
    """It waits with ``select`` on its own, so nothing may be read ahead."""
    listener = Socket(buffered=False)
    if encrypted:
        leaf = certificates.server()
        SslContext(cert_file=leaf.cert, key_file=leaf.key).wrap_socket(listener)
    listener.bind_addr(0, "127.0.0.1")
    listener.listen()
    port = listener.local_addr.port
    with serving(websockets.sync.server.serve(echo, sock=as_socket(listener))):
        bridge = dialled(Tcp(port, port), encrypted, trusting, buffered=False)
        with websockets.sync.client.connect("ws://localhost/", sock=bridge, proxy=None) as client:
            converse(client)


def test_websockets_starts_its_own_tls_on_a_plain_socket(trusting: SslContext) -> None:
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(*certificates.server())
    server = websockets.sync.server.serve(echo, "127.0.0.1", 0, ssl=own)
    port = server.socket.getsockname()[1]
    with serving(server):
        bridge = dialled(Tcp(port, port), False, trusting)
        with websockets.sync.client.connect(
            "wss://localhost/", sock=bridge, ssl=trusting.context, proxy=None
        ) as client:
            converse(client)
