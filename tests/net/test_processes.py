"""FA5, FA25: a forked child may close, drop or use its copies of the blocking flavour's sockets."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from wireline.testing import TestCA

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

BEGIN = """
import gc, os, resource, signal, socket, sys, tempfile, threading, time, warnings
from wireline import AF_UNIX, BusyError, ClosedError, SocketTimeout
from wireline.net import Socket, dial, serve
from wireline.tls import Handshake, SslContext

warnings.simplefilter("ignore")
directory = sys.argv[1]


def contexts():
    server = SslContext(cert_file=directory + "/server.pem", key_file=directory + "/server.key")
    return server, SslContext(ca_file=directory + "/ca.pem")


def pair(tls):
    one, other = (Socket.from_socket(each) for each in socket.socketpair())
    if tls:
        server, client = contexts()
        answering = threading.Thread(target=server.wrap_connected_socket, args=(other, Handshake.AS_SERVER))
        answering.start()
        client.wrap_connected_socket(one, Handshake.AS_CLIENT, "127.0.0.1", timeout=5)
        answering.join()
    return one, other


def listening():
    listener = Socket()
    listener.bind_addr(0, "127.0.0.1")
    listener.listen()
    return listener


class Doing:
    def __init__(self, call):
        self.outcome = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call):
        try:
            self.outcome = call()
        except BaseException as error:
            self.outcome = error

    def get(self):
        self._thread.join(5)
        assert not self._thread.is_alive(), "it hangs"
        return self.outcome

    @property
    def goes_on(self):
        return self._thread.is_alive()


def in_child(call):
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        status = 1
        try:
            call()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def ends_well(pid):
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child: {'it hung' if status == signal.SIGALRM else status}"


def sleep_until(condition):
    limit = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.001)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with certificates."""
    path = tmp_path_factory.mktemp("certificates")
    TestCA().write(path)
    return str(path)


def run(directory: str, program: str, *arguments: str) -> None:
    """Run a program that forks, and may hang."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGIN + textwrap.dedent(program), directory, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr[-3000:]


LET_GO = {
    "close": "lambda: [each.close() for each in ours]",
    "abort": "lambda: [each.close(linger=0) for each in ours]",
    "drop": "lambda: (ours.clear(), globals().update(sock=None, listener=None), gc.collect())",
}


@pytest.mark.parametrize("how", LET_GO)
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_FA5_a_child_closes_a_stream_that_threads_of_the_parent_use(
    directory: str, kind: str, how: str
) -> None:
    """FA5 a, b: the child's ``close`` shut the parent's connection down, or sent the end of its TLS connection."""
    run(
        directory,
        f"""
        sock, peer = pair({kind == "tls"})
        ours = [sock]
        reading = Doing(lambda kept=sock: kept.recv_line())
        sending = Doing(lambda kept=sock: kept.send(bytes(4_000_000)))
        sleep_until(lambda: not sock._io.core_slot and not sock._io.write_lock.free)
        kept = [sock]
        ends_well(in_child(lambda: (kept.clear(), ({LET_GO[how]})())))
        assert reading.goes_on and sending.goes_on, (reading.outcome, sending.outcome)
        peer.send(b"still there\\n")
        assert reading.get() == b"still there", reading.outcome
        peer.recv_exactly(4_000_000, timeout=5)
        assert sending.get() is None
        kept[0].send(b"and back\\n")
        assert peer.recv_line(5) == b"and back"
        """,
    )


@pytest.mark.parametrize("how", LET_GO)
def test_FA5_a_child_closes_a_listener_in_whose_accept_a_thread_of_the_parent_waits(
    directory: str, how: str
) -> None:
    """FA25: the child woke the parent's ``accept``, which spun forever."""
    run(
        directory,
        f"""
        listener = listening()
        address = listener.local_addr[:2]
        ours = [listener]
        accepting = Doing(lambda kept=listener: kept.accept())
        time.sleep(0.05)
        kept = [listener]
        ends_well(in_child(lambda: (kept.clear(), ({LET_GO[how]})())))
        began = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - began < 0.1, "it spins"
        assert accepting.goes_on, accepting.outcome
        with socket.create_connection(address) as client:
            client.sendall(b"hello\\n")
            assert accepting.get().recv_line(5) == b"hello"
        """,
    )


def test_FA5_a_child_closes_a_socket_that_a_thread_of_the_parent_connects(directory: str) -> None:
    """FA5: the parent's ``connect`` was ended."""
    run(
        directory,
        """
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        sock = Socket()
        connecting = Doing(lambda: sock.connect(*full.getsockname(), timeout=0.5))
        time.sleep(0.05)
        ends_well(in_child(sock.close))
        assert connecting.goes_on
        assert isinstance(connecting.get(), SocketTimeout | None), connecting.outcome
        """,
    )


def test_FA25_a_childs_accept_is_not_woken_by_the_parents_close(directory: str) -> None:
    """FA25: both waited for one wake-up pair, and after the parent's ``close`` the child's ``accept`` spun."""
    run(
        directory,
        """
        listener = listening()
        address = listener.local_addr[:2]
        accepting = Doing(listener.accept)  # makes the wake-up pair
        time.sleep(0.05)
        ready, go = os.pipe()

        def accept():
            os.read(ready, 1)
            began = time.process_time()
            try:
                listener.accept(timeout=0.5)
                raise AssertionError("accepted")
            except SocketTimeout:
                pass
            assert time.process_time() - began < 0.25, "it spins"
            with socket.create_connection(address) as client:
                client.sendall(b"to the child\\n")
                with listener.accept(timeout=2) as sock:
                    assert sock.recv_line(2) == b"to the child"

        child = in_child(accept)
        listener.close()
        assert isinstance(accepting.get(), ClosedError)
        os.write(go, b"!")
        ends_well(child)
        """,
    )


def test_FA25_parent_and_child_accept_from_one_listener(directory: str) -> None:
    """FA25: both get clients, and a close in one process does not affect the other."""
    run(
        directory,
        """
        path = os.path.join(tempfile.mkdtemp(), "socket")
        listener = Socket(AF_UNIX)
        listener.bind_unix(path)
        listener.listen()
        waiting = Doing(listener.accept)
        time.sleep(0.05)

        def accept():
            accepting = Doing(listener.accept)
            time.sleep(0.3)
            assert accepting.goes_on, accepting.outcome
            listener.close()  # while a call of this process is in it
            assert isinstance(accepting.get(), ClosedError), accepting.outcome
            assert listener.is_closed

        ends_well(in_child(accept))
        assert waiting.goes_on, waiting.outcome
        assert os.path.exists(path), "the path is the parent's"
        with Socket(AF_UNIX) as client:
            client.connect_unix(path, timeout=2)
            client.send(b"to the parent\\n")
            assert waiting.get().recv_line(2) == b"to the parent"
        listener.close()
        assert not os.path.exists(path)
        """,
    )


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_FA5_a_child_uses_a_socket_in_its_own_threads(directory: str, kind: str) -> None:
    """FA5: a child's first calls did not exclude each other, so two threads read at one time."""
    run(
        directory,
        f"""
        sock, peer = pair({kind == "tls"})
        peer.send(b"first")
        assert sock.recv_some() == b"first"

        def go_on():
            reading = Doing(sock.recv_some)
            time.sleep(0.05)
            sock.send(b"from the child\\n")
            for _ in range(2):
                try:
                    sock.recv_some(timeout=0.01)
                    raise AssertionError("two threads read at one time")
                except BusyError:
                    pass
                sock.adopt()
            assert reading.goes_on
            peer.send(b"to the child")
            assert reading.get() == b"to the child"
            assert len(sock._io.core_slot) == 1
            reading = Doing(sock.recv_some)
            time.sleep(0.05)
            sock.close(linger=0)
            assert isinstance(reading.get(), ClosedError), reading.outcome

        ends_well(in_child(go_on))
        """,
    )


def test_FA5_a_child_closes_while_its_first_call_goes_on(directory: str) -> None:
    """FA5: the call was not woken, and went on with a closed descriptor."""
    run(
        directory,
        """
        sock, peer = pair(False)
        peer.send(b"first")
        assert sock.recv_some() == b"first"

        def close():
            reading = Doing(sock.recv_some)
            time.sleep(0.05)
            sock.close()
            assert isinstance(reading.get(), ClosedError), reading.outcome

        ends_well(in_child(close))
        """,
    )


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_FA5_a_child_adopts_a_connection_that_threads_of_the_parent_used(directory: str, kind: str) -> None:
    """FA5: a lock held by the parent's threads stayed locked in the child forever."""
    run(
        directory,
        f"""
        sock, peer = pair({kind == "tls"})
        reading = Doing(sock.recv_line)
        sending = Doing(lambda: [sock.send(bytes(4_000_000)) for _ in range(2)])
        # A fork during SSL_write leaves half a record in the child, so wait until the send buffer is full.
        in_poll = (lambda: sock._io._writable is not None) if {kind == "tls"} else (lambda: True)
        sleep_until(lambda: not sock._io.core_slot and not sock._io.write_lock.free and in_poll())

        def adopt():
            sock.adopt()
            assert len(sock._io.core_slot) == 1 and len(sock._io.write_lock.free) == 1
            try:
                sock.recv_some(timeout=0.01)
                raise AssertionError("nothing was sent")
            except SocketTimeout:
                pass
            try:
                sock.send(b"x", timeout=0.01)
                raise AssertionError("the send buffer is not full")
            except SocketTimeout as error:
                assert error.operation == "send"
            sock.close(linger=0)

        ends_well(in_child(adopt))
        """,
    )


def test_FA5_adopt_in_the_owner_changes_nothing(directory: str) -> None:
    run(
        directory,
        """
        sock, peer = pair(False)
        reading = Doing(sock.recv_line)
        sleep_until(lambda: not sock._io.core_slot)
        sock.adopt()
        try:
            sock.recv_some(timeout=0)
            raise AssertionError("two threads read at one time")
        except BusyError:
            pass
        peer.send(b"line\\n")
        assert reading.get() == b"line"
        """,
    )


def test_FA25_a_child_asks_a_tls_socket_whose_lock_was_held(directory: str) -> None:
    """FA25: ``repr`` and others waited for a lock whose holder does not exist in the child."""
    run(
        directory,
        """
        sock, peer = pair(True)
        held, over = threading.Event(), threading.Event()

        def hold():
            with sock._io.core._lock:
                held.set()
                over.wait()

        threading.Thread(target=hold, daemon=True).start()
        held.wait()

        def look():
            assert "tls=TLSv1" in repr(sock)
            sock.tls_info, sock.get_peer_certificates(), sock.ssl_handle, sock.got_handshake, sock.get_psk_identity()
            sock.close()

        ends_well(in_child(look))
        over.set()
        sock.send(b"still there\\n")
        assert peer.recv_line(5) == b"still there"
        """,
    )


@pytest.mark.parametrize("what", ["context", "sessions"])
def test_FA25_a_child_uses_a_context_whose_lock_was_held(directory: str, what: str) -> None:
    """FA25: a child that connected with the parent's ``SslContext`` hung."""
    run(
        directory,
        f"""
        server, client = contexts()

        def echo(sock, _):
            sock.send(sock.recv_line() + b"\\n")

        with serve(echo, 0, "127.0.0.1", tls=server) as serving:
            address = serving.local_addr[:2]
            with dial(*address, tls=client, timeout=5) as sock:
                sock.send(b"first\\n")
                sock.recv_line(5)
            lock = (client if {what!r} == "context" else client._session_cache)._lock
            held, over = threading.Event(), threading.Event()

            def hold():
                with getattr(lock, "here", lock):
                    held.set()
                    over.wait()

            threading.Thread(target=hold, daemon=True).start()
            held.wait()

            def use():
                with dial(*address, tls=client, timeout=5) as sock:
                    sock.send(b"from the child\\n")
                    assert sock.recv_line(3) == b"from the child"

            ends_well(in_child(use))
            over.set()
        """,
    )


def test_FA5_a_fork_in_a_signal_handler_during_a_read_leaves_the_read_alone(directory: str) -> None:
    """FA5: the child could read although its own read was still in progress."""
    run(
        directory,
        """
        sock, peer = pair(False)
        pids = []

        def fork(*_):
            def look():
                try:
                    sock.recv_some(timeout=0)
                    raise AssertionError("the read that was interrupted, and goes on here, is not alone")
                except BusyError:
                    pass

            pids.append(in_child(look))

        signal.signal(signal.SIGALRM, fork)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        threading.Timer(0.2, lambda: peer.send(b"line\\n")).start()
        assert sock.recv_line() == b"line"
        ends_well(pids[0])
        """,
    )


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_FA25_forks_at_any_moment(directory: str, kind: str) -> None:
    """FA25: of 40 children 29 hung."""
    run(
        directory,
        f"""
        sock, peer = pair({kind == "tls"})
        over = threading.Event()

        def talk():
            while not over.is_set():
                sock.send(b"question\\n", timeout=5)
                assert sock.recv_line(5) == b"answer"

        def answer():
            for line in peer.lines():
                peer.send(b"answer\\n", timeout=5)

        talking, answering = Doing(talk), Doing(answer)

        def look_and_close():
            repr(sock), repr(peer)
            sock.close()
            peer.close(linger=0)

        for _ in range(25):
            time.sleep(0.001)
            ends_well(in_child(look_and_close))
        assert talking.goes_on, talking.outcome
        over.set()
        assert talking.get() is None, talking.outcome
        """,
    )
