"""FA21, FA28: clients of a TLS listener that ``try_accept_addr`` has accepted and that are in their handshake."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import select
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.descriptors import none_left, only
from tests.faults.syscalls import Syscalls, faults_of
from tests.scenarios.every_flavour import anyio_backend, flavour
from tests.scenarios.flavours import Face, Flavour
from tests.tls import certificates
from tests.tls.memory import server_context
from wireline import AcceptResult, Address
from wireline import _pending_handshakes as pending
from wireline.net import Socket

__all__ = ["anyio_backend", "flavour"]

pytestmark = pytest.mark.anyio

HOST = "127.0.0.1"
PATIENCE = 20.0
NOTHING = (AcceptResult.NO_CLIENT, None, None)
NOT_YET = (AcceptResult.NO_HANDSHAKE, None, None)


@pytest.fixture
async def listener(flavour: Flavour) -> Any:
    """A TLS listener, in the event loop of the test."""
    sock = flavour.socket()
    try:
        sock.bind_addr(0, HOST)
        sock.listen()
        server_context().wrap_socket(sock._sock if isinstance(sock, Face) else sock)
        yield sock
    finally:
        sock.close()


def plain_client(listener: Any) -> socket.socket:
    """A client that has connected and sends nothing."""
    return socket.create_connection(listener.local_addr, PATIENCE)


def silent_clients(stack: contextlib.ExitStack, listener: Any, count: int) -> list[socket.socket]:
    return [stack.enter_context(plain_client(listener)) for _ in range(count)]


class TlsClient:
    """A client whose handshake goes on by ``step``, without a thread."""

    def __init__(self, listener: Any) -> None:
        context = ssl.create_default_context(cafile=certificates.ca_file())
        plain = plain_client(listener)
        plain.setblocking(False)
        self.sock = context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
        self.done = False

    def step(self) -> bool:
        if not self.done:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.sock.do_handshake()
                self.done = True
        return self.done

    def __enter__(self) -> TlsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def all_are_done(clients: list[TlsClient]) -> bool:
    """Step each client; whether all handshakes are done on the client's side."""
    return sum([client.step() for client in clients]) == len(clients)


async def accepted(listener: Any, *clients: TlsClient) -> list[Any]:
    """Poll until all clients are returned."""
    socks: list[Any] = []
    limit = time.monotonic() + PATIENCE
    while len(socks) < len(clients):
        for client in clients:
            client.step()
        result, sock, address = listener.try_accept_addr()
        if result is AcceptResult.SUCCESS:
            assert address is not None
            socks.append(sock)
        else:
            assert sock is address is None
            await asyncio.sleep(0.001)
        assert time.monotonic() < limit, f"{len(socks)} of {len(clients)} were returned"
    return socks


def is_closed_by_peer(sock: socket.socket, seconds: float = 0) -> bool:
    if not select.select([sock], [], [], seconds)[0]:
        return False
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(4096):
            pass
    return True


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


# FA21.


async def test_FA21_a_listener_keeps_a_bounded_number_of_clients(listener: Any) -> None:
    """FA21: try_accept_addr on a TLS listener kept any number of silent clients."""
    with contextlib.ExitStack() as stack:
        silent_clients(stack, listener, pending.MAX_PENDING + 100)
        before = descriptors()
        for _ in range(3):
            assert listener.try_accept_addr() == NOT_YET
        assert descriptors() - before == pending.MAX_PENDING


async def test_FA21_a_call_does_not_look_at_every_client(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA21: each call of try_accept_addr stepped each silent client: a recv and a call of OpenSSL."""
    syscalls = Syscalls(monkeypatch)
    listener = flavour.socket()
    with contextlib.closing(listener), contextlib.ExitStack() as stack:
        listener.bind_addr(0, HOST)
        listener.listen()
        server_context().wrap_socket(listener._sock if isinstance(listener, Face) else listener)
        silent_clients(stack, listener, 100)
        assert listener.try_accept_addr() == NOT_YET
        with syscalls.recording() as calls:
            assert listener.try_accept_addr() == NOT_YET
        assert len(calls) < 10, calls


async def test_FA21_a_client_that_sends_is_found_among_silent_ones(listener: Any) -> None:
    """FA21: a client whose handshake is done is returned, at any place among silent ones."""
    with contextlib.ExitStack() as stack:
        silent_clients(stack, listener, 50)
        first = stack.enter_context(TlsClient(listener))
        silent_clients(stack, listener, 50)
        second = stack.enter_context(TlsClient(listener))
        for sock in await accepted(listener, first, second):
            sock.close()
        assert listener.try_accept_addr() == NOT_YET


async def test_FA21_silent_clients_do_not_keep_out_others_for_long(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA21: at the limit the oldest clients are closed for new ones."""
    monkeypatch.setattr(pending, "MAX_PENDING", 20)
    monkeypatch.setattr(pending, "_MIN_HANDSHAKE_TIME", 0.05)
    with contextlib.ExitStack() as stack:
        silent = silent_clients(stack, listener, 70)
        client = stack.enter_context(TlsClient(listener))
        (sock,) = await accepted(listener, client)
        sock.close()
        assert is_closed_by_peer(silent[0])
        assert not is_closed_by_peer(silent[-1])


async def test_FA21_a_crowd_that_arrives_at_once_loses_no_client(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA21: the limit does not close a client whose handshake has just begun."""
    monkeypatch.setattr(pending, "MAX_PENDING", 8)
    monkeypatch.setattr(
        pending, "_MIN_HANDSHAKE_TIME", PATIENCE
    )  # a busy machine may need more than a second
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(TlsClient(listener)) for _ in range(40)]
        socks = await accepted(listener, *clients)
        assert len({sock.peer_addr for sock in socks}) == 40
        for sock in socks:
            sock.close()


async def test_FA21_a_ready_client_is_not_closed_for_its_age(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA21: a program that polls seldom finds old clients whose handshake is done: they stay."""
    monkeypatch.setattr(pending, "MAX_PENDING", 2)
    monkeypatch.setattr(pending, "_MIN_HANDSHAKE_TIME", 0.0)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(TlsClient(listener)) for _ in range(2)]
        while not all_are_done(clients):
            assert listener.try_accept_addr() == NOT_YET
        silent_clients(stack, listener, 5)
        results = [listener.try_accept_addr() for _ in range(2)]
        assert [result for result, _, _ in results] == [AcceptResult.SUCCESS] * 2
        for _, sock, _ in results:
            sock.close()


async def test_FA21_a_silent_client_times_out(listener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """FA21: each client has a handshake timeout."""
    monkeypatch.setattr(pending, "_HANDSHAKE_TIMEOUT", 0.1)
    with plain_client(listener) as silent:
        assert listener.try_accept_addr() == NOT_YET
        assert not is_closed_by_peer(silent)
        await asyncio.sleep(0.11)
        assert listener.try_accept_addr() == NOTHING
        assert is_closed_by_peer(silent, PATIENCE)


async def test_FA21_a_client_that_sends_slowly_times_out_too(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA21: a client that sends a byte now and then has the same timeout as a silent one."""
    monkeypatch.setattr(pending, "_HANDSHAKE_TIMEOUT", 0.1)
    with plain_client(listener) as dripping:
        limit = time.monotonic() + PATIENCE
        with contextlib.suppress(OSError):
            for byte in b"\x16\x03\x01\x02\x00\x01\x00" + 2000 * b"\0":
                dripping.sendall(bytes([byte]))
                if listener.try_accept_addr() == NOTHING:
                    break
                await asyncio.sleep(0.02)
                assert time.monotonic() < limit
        assert is_closed_by_peer(dripping, PATIENCE)


async def test_FA21_a_client_that_reads_late_gets_the_rest(listener: Any, flavour: Flavour) -> None:
    """FA21: the server's flight is larger than the send buffer; the handshake goes on when the client reads."""
    leaf = certificates.ca().issue_cert(
        *[f"name-{number}.a-long-domain.test" for number in range(900)], "localhost"
    )
    with leaf.private_key_and_cert_chain_pem.tempfile() as file:
        tls = server_context(cert_file=file, key_file=file)
        sock = flavour.socket()
        with contextlib.closing(sock):
            sock.bind_addr(0, HOST)
            bare = (sock._sock if isinstance(sock, Face) else sock)._fd.sock
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the minimum; clients inherit it
            sock.listen()
            tls.wrap_socket(sock._sock if isinstance(sock, Face) else sock)
            context = ssl.create_default_context(cafile=certificates.ca_file())
            to_server, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
            engine = context.wrap_bio(from_server, to_server, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                engine.do_handshake()
            with socket.socket() as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                plain.connect(sock.local_addr)
                plain.sendall(to_server.read())
                for _ in range(20):  # it does not read
                    assert sock.try_accept_addr() == NOT_YET
                plain.setblocking(False)
                done = False
                limit = time.monotonic() + PATIENCE
                while (outcome := sock.try_accept_addr()) == NOT_YET:
                    with contextlib.suppress(BlockingIOError):
                        from_server.write(plain.recv(500))
                    if not done:
                        with contextlib.suppress(ssl.SSLWantReadError):
                            engine.do_handshake()
                            done = True
                        plain.sendall(to_server.read())
                    assert time.monotonic() < limit
                assert done
                outcome[1].close()


async def test_FA21_without_a_free_descriptor_the_pending_clients_are_served(listener: Any) -> None:
    """FA21: EMFILE of accept was raised first, so a client whose handshake was done was never returned."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(TlsClient(listener))
        while not client.step():
            assert listener.try_accept_addr()[1] is None
        another = stack.enter_context(TlsClient(listener))
        with only(0):
            result, sock, _ = listener.try_accept_addr()
            assert result is AcceptResult.SUCCESS
            with pytest.raises(OSError, match="Too many open files") as caught:
                listener.try_accept_addr()
            assert caught.value.errno == errno.EMFILE
        sock.close()
        (sock,) = await accepted(listener, another)
        sock.close()


async def test_FA21_closing_the_listener_closes_its_pending_clients(listener: Any) -> None:
    """FA21: pending clients are closed with the listener, whether their handshake is done or not."""
    with contextlib.ExitStack() as stack:
        silent = silent_clients(stack, listener, 20)
        done = [stack.enter_context(TlsClient(listener)) for _ in range(2)]
        while not all_are_done(done):
            if (sock := listener.try_accept_addr()[1]) is not None:
                sock.close()
        listener.close()
        assert all(is_closed_by_peer(sock, PATIENCE) for sock in silent)


async def test_FA21_a_client_that_fails_is_closed_and_the_next_is_returned(listener: Any) -> None:
    """FA21: a client that does not use TLS does not block others."""
    with plain_client(listener) as rude, TlsClient(listener) as polite:
        rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
        (sock,) = await accepted(listener, polite)
        sock.close()
        assert is_closed_by_peer(rude, PATIENCE)
        assert listener.try_accept_addr() == NOTHING


# FA28.


def stepping(monkeypatch: pytest.MonkeyPatch, listener: Any, what: Callable[[], object]) -> None:
    """Call a function during the first step of a handshake, as another thread may."""
    step = pending.step_handshake

    def first(io: Any, secure: Any) -> bool:
        monkeypatch.setattr(pending, "step_handshake", step)
        what()
        return step(io, secure)

    monkeypatch.setattr(pending, "step_handshake", first)


async def test_FA28_a_call_during_another_gets_the_documented_result(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA28: two threads that polled try_accept_addr got "IndexError: pop from an empty deque"."""
    results: list[Any] = []
    stepping(monkeypatch, listener, lambda: results.append(listener.try_accept_addr()))
    with plain_client(listener) as first, plain_client(listener) as second:
        for rude in (first, second):
            rude.sendall(b"GET / HTTP/1.1\r\n\r\n")
        results.append(listener.try_accept_addr())
        assert set(results) <= {NOTHING, NOT_YET}
        while listener.try_accept_addr() != NOTHING:
            pass
        assert is_closed_by_peer(first, PATIENCE)
        assert is_closed_by_peer(second, PATIENCE)


async def test_FA28_a_close_during_a_call_leaves_no_client(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA28: a close while another thread stepped the handshakes left a client open."""
    stepping(monkeypatch, listener, listener.close)
    with contextlib.ExitStack() as stack:
        clients = silent_clients(stack, listener, 3)
        for sock in clients:
            sock.sendall(b"\x16")
        with contextlib.suppress(OSError):
            listener.try_accept_addr()
        monkeypatch.undo()
        assert all(is_closed_by_peer(sock, PATIENCE) for sock in clients)
        with pytest.raises(OSError, match="closed"):
            listener.try_accept_addr()


async def test_FA28_an_exception_during_a_call_does_not_end_the_listener(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA28: an exception of a signal handler closes one client at most; the next call goes on."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    stepping(monkeypatch, listener, interrupt)
    with contextlib.ExitStack() as stack:
        rude = stack.enter_context(plain_client(listener))
        rude.sendall(b"\x16")
        with pytest.raises(KeyboardInterrupt):
            listener.try_accept_addr()
        assert is_closed_by_peer(rude, PATIENCE)
        client = stack.enter_context(TlsClient(listener))
        (sock,) = await accepted(listener, client)
        sock.close()


def test_FA28_four_threads_share_a_listener() -> None:
    """FA28: each client is returned to one thread only."""
    interval = sys.getswitchinterval()
    handed: list[tuple[Socket, Address]] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def poll(listener: Socket) -> None:
        try:
            while not stop.is_set():
                result, client, address = listener.try_accept_addr()
                if result is AcceptResult.SUCCESS:
                    assert client is not None
                    assert address is not None
                    handed.append((client, address))
                else:
                    assert client is address is None
                    time.sleep(0.0002)
        except BaseException as error:
            failures.append(error)
            raise

    with Socket() as listener, contextlib.ExitStack() as stack:
        listener.bind_addr(0, HOST)
        listener.listen()
        server_context().wrap_socket(listener)
        for _ in range(10):
            stack.enter_context(plain_client(listener)).sendall(b"rude")
        silent_clients(stack, listener, 10)
        clients = [stack.enter_context(TlsClient(listener)) for _ in range(40)]
        threads = [threading.Thread(target=poll, args=[listener]) for _ in range(4)]
        sys.setswitchinterval(1e-5)
        try:
            for thread in threads:
                thread.start()
            limit = time.monotonic() + PATIENCE
            while len(handed) < 40 and not failures and time.monotonic() < limit:
                for client in clients:
                    client.step()
                time.sleep(0.001)
        finally:
            sys.setswitchinterval(interval)
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures
        assert sorted(address.port for _, address in handed) == sorted(
            client.sock.getsockname()[1] for client in clients
        )
        for sock, _ in handed:
            sock.close()


# Forks, and the collector.


def run(program: str) -> str:
    leaf = certificates.server()
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            textwrap.dedent(program),
            leaf.cert,
            leaf.key,
            certificates.ca_file(),
        ],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("kind", ["net.Socket", "asyncnet.AsyncSocket"])
def test_FA21_a_child_does_not_touch_the_clients_of_its_parent(kind: str) -> None:
    """FA21, P3: a forked child that polled the listener went on with its parent's handshakes, and broke them."""
    program = f"""
        import os, socket, ssl, sys, asyncio
        from wireline import AcceptResult, asyncnet, net
        from wireline.tls import SslContext
        cert, key, ca = sys.argv[1:]
        async def main():
            listener = {kind}()
            listener.bind_addr(0, "127.0.0.1")
            listener.listen()
            SslContext(cert_file=cert, key_file=key).wrap_socket(listener)
            plain = socket.create_connection(listener.local_addr)
            plain.setblocking(False)
            tls = ssl.create_default_context(cafile=ca).wrap_socket(
                plain, server_hostname="localhost", do_handshake_on_connect=False)
            def step():
                try:
                    tls.do_handshake()
                    return True
                except ssl.SSLWantReadError:
                    return False
            step()
            while listener.try_accept_addr()[0] is AcceptResult.NO_CLIENT:
                pass
            if not (pid := os.fork()):
                listener.adopt()
                print(listener.try_accept_addr()[0].name, flush=True)
                print(listener.try_accept_addr()[0].name, flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            while True:
                step()
                result, client, _ = listener.try_accept_addr()
                if result is AcceptResult.SUCCESS:
                    break
            while not step():
                pass
            tls.setblocking(True)
            tls.sendall(b"still well")
            data = client.recv_exactly(10)
            print((await data if "async" in "{kind}" else data).decode())
            client.close()
            listener.close()
        asyncio.run(main())
    """
    assert run(program) == "NO_CLIENT\nNO_CLIENT\nstill well\n"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_FA21_a_collected_listener_closes_its_clients(flavour: Flavour) -> None:
    """FA21, P2: a listener that is garbage collected closes its pending clients."""
    sock = flavour.socket()
    sock.bind_addr(0, HOST)
    sock.listen()
    server_context().wrap_socket(sock._sock if isinstance(sock, Face) else sock)
    with contextlib.ExitStack() as stack:
        silent = silent_clients(stack, sock, 5)
        assert sock.try_accept_addr() == NOT_YET
        del sock
        gc.collect()
        assert all(is_closed_by_peer(each, PATIENCE) for each in silent)


async def test_FA21_a_system_call_that_fails_ends_one_client_at_most(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA21: each system call of try_accept_addr fails in turn: no descriptor leaks, and the listener goes on."""
    context = ssl.create_default_context(cafile=certificates.ca_file())
    to_server = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), to_server, server_hostname="localhost").do_handshake()
    hello = to_server.read()
    syscalls = Syscalls(monkeypatch)
    listener = flavour.socket()
    bare = listener._sock if isinstance(listener, Face) else listener
    with contextlib.closing(listener):
        listener.bind_addr(0, HOST)
        listener.listen()
        server_context().wrap_socket(bare)

        @contextlib.contextmanager
        def speaking() -> Iterator[None]:
            with Syscalls.plain() as client:
                client.connect(listener.local_addr)
                client.sendall(hello)
                yield
            while listener.try_accept_addr() != NOTHING:
                pass

        with speaking(), syscalls.recording() as calls:
            assert listener.try_accept_addr() == NOT_YET
        assert {"_accept", "recv", "send"} <= set(calls)
        for fault in faults_of(calls):
            if not isinstance(fault.error, OSError):
                continue  # exceptions of signal handlers have another test
            with none_left(), speaking():
                with syscalls.failing(fault):
                    try:
                        outcome: Any = listener.try_accept_addr()
                    except OSError as error:
                        outcome = error.errno
                assert outcome in (NOTHING, NOT_YET, fault.error.errno), str(fault)
