"""FA13: under ``gevent.monkey.patch_all()`` the blocking flavour keeps its deadlines, and lets other greenlets run."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.tls import certificates

pytest.importorskip("gevent")

PATIENCE = 25.0

PROLOGUE = """
    from gevent import monkey
    monkey.patch_all()
    import gevent, socket, sys, time
    from wireline import AF_INET, IPPROTO_UDP, SOCK_DGRAM, ClosedError, DialError, SocketTimeout
    from wireline.net import Socket, dial, serve
    cert, key, ca = sys.argv[1:]
    turns = 0

    def count():
        global turns
        while True:
            turns += 1
            gevent.sleep(0.01)

    def expect(error, call, *args, seconds, **kwargs):
        '''The call waits so long, in which others run, and then raises.'''
        began, before = time.monotonic(), turns
        try:
            call(*args, **kwargs)
        except error as problem:
            caught = problem
        else:
            raise AssertionError("it did not raise")
        assert seconds <= time.monotonic() - began < seconds + 5, time.monotonic() - began
        assert turns - before >= 2 or not seconds, turns - before
        return caught

    def echo(client, address):
        try:
            for line in client.lines(timeout=20):
                client.send(line + b"\\n", timeout=20)
        except ConnectionError:
            pass

    gevent.spawn(count)
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
"""


def run(program: str, prologue: str = PROLOGUE) -> str:
    leaf = certificates.server()
    files = [leaf.cert, leaf.key, certificates.ca_file()]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prologue) + textwrap.dedent(program), *files],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_FA13_timeouts_of_a_stream() -> None:
    """FA13: recv_line(timeout=.5) waited forever."""
    run("""
        sock = dial("127.0.0.1", port, timeout=5)
        expect(SocketTimeout, sock.recv_line, timeout=0.2, seconds=0.2)
        expect(SocketTimeout, sock.recv_some, timeout=0.2, seconds=0.2)
        expect(SocketTimeout, sock.recv_exactly, 10, timeout=0.2, seconds=0.2)
        expect(SocketTimeout, sock.recv_line, timeout=0, seconds=0)
        error = expect(SocketTimeout, sock.send, bytes(50_000_000), timeout=0.2, seconds=0.2)
        assert 0 < error.bytes_sent < 50_000_000
        sock.close(linger=0)
    """)


def test_FA13_timeouts_of_calls_that_are_not_for_streams() -> None:
    """FA13: accept, recv_from and connect keep their deadlines, too."""
    run("""
        with Socket() as listener, Socket(AF_INET, SOCK_DGRAM) as datagrams:
            listener.bind_addr(0, "127.0.0.1")
            listener.listen()
            expect(SocketTimeout, listener.accept, timeout=0.2, seconds=0.2)
            datagrams.bind_addr(0, "127.0.0.1")
            expect(SocketTimeout, datagrams.recv_from, 10, timeout=0.2, seconds=0.2)
        full = socket.create_server(("127.0.0.1", 0), backlog=1)
        queued = []
        while True:
            queued.append(socket.socket())
            queued[-1].settimeout(0.1)
            try:
                queued[-1].connect(full.getsockname())
            except TimeoutError:
                break
        expect(SocketTimeout, dial, *full.getsockname(), timeout=0.2, seconds=0.2)
    """)


def test_FA13_close_wakes_a_greenlet_that_waits() -> None:
    """FA13: R13 holds between greenlets as it does between threads."""
    run("""
        sock = dial("127.0.0.1", port, timeout=5)
        listener = Socket()
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        for each, call in ((sock, sock.recv_line), (listener, listener.accept)):
            waiting = gevent.spawn(expect, ClosedError, call, seconds=0.2)
            gevent.sleep(0.21)
            each.close()
            waiting.get(timeout=5)
    """)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_FA13_a_server_and_many_clients(tls: bool) -> None:
    """FA13: dial, serve and the echo of lines, in greenlets, plain and over TLS; stop ends the rest."""
    run(f"""
        from wireline.tls import SslContext
        outside = SslContext(ca_file=ca) if {tls} else None
        inside = SslContext(cert_file=cert, key_file=key) if {tls} else None

        def client(number):
            with dial("localhost", server.local_addr.port, tls=outside, timeout=20) as sock:
                for _ in range(20):
                    sock.send(b"%d\\n" % number)
                    assert sock.recv_line() == b"%d" % number
                block = b"x" * 500_000
                sender = gevent.spawn(sock.send, block + b"\\n")
                assert sock.recv_exactly(len(block) + 1, timeout=20) == block + b"\\n"
                sender.get(timeout=5)
                sock.shutdown_write()
                assert sock.recv_line(timeout=20) == b""

        server = serve(echo, 0, "127.0.0.1", tls=inside)
        clients = [gevent.spawn(client, number) for number in range(20)]
        gevent.joinall(clients, timeout=30, raise_error=True)
        assert all(each.successful() for each in clients)
        with dial("localhost", server.local_addr.port, tls=outside, timeout=5) as sock:
            expect(SocketTimeout, sock.recv_line, timeout=0.2, seconds=0.2)
            report = server.stop(drain=0.2)
            assert (report.drained, report.forced) == (0, 1)
    """)


def test_FA13_a_server_name_chooses_the_context() -> None:
    """FA13: gevent's ``ssl.SSLContext`` wraps an ``sni_callback`` so that it fails, and with it every handshake."""
    printed = run("""
        from wireline.tls import SslContext
        def choose(name):
            print(name)
        inside = SslContext(cert_file=cert, key_file=key, server_name_callback=choose)
        with serve(echo, 0, "127.0.0.1", tls=inside) as server:
            with dial("localhost", server.local_addr.port, tls=SslContext(ca_file=ca), timeout=5) as sock:
                sock.send(b"hello\\n")
                assert sock.recv_line(timeout=5) == b"hello"
    """)
    assert printed == "localhost\n"


def test_FA13_a_handshake_keeps_its_deadline() -> None:
    """FA13: a server that accepts and says nothing does not hang a TLS dial."""
    run("""
        from wireline.tls import SslContext
        expect(SocketTimeout, dial, "127.0.0.1", port, tls=SslContext(ca_file=ca), timeout=0.3, seconds=0.3)
    """)


def test_FA13_patching_too_late_is_refused() -> None:
    """FA13: a program that patches after the import gets an error, where its timeouts would have been ignored."""
    printed = run(
        """
        from wireline.net import dial
        from gevent import monkey
        monkey.patch_all()
        import socket
        silent = socket.create_server(("127.0.0.1", 0))
        try:
            dial(*silent.getsockname(), timeout=5)
        except RuntimeError as error:
            print(error)
        """,
        prologue="",
    )
    assert "import wireline after the patch" in printed


def test_FA13_without_gevent_streams_wait_in_the_kernel() -> None:
    """FA13: the support of gevent costs other programs nothing: they still wait inside the system call."""
    run(
        """
        import os, socket
        from wireline.net import Socket
        one, other = socket.socketpair()
        with Socket.from_socket(one) as sock:
            assert os.get_blocking(sock.fileno())
        """,
        prologue="",
    )
