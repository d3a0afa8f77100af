"""FA7, FA26: a call of the blocking flavour may be ended by a signal handler's exception at any moment."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from tests.net.interrupting import at_instructions, by_signals, in_except
from wireline import BusyError
from wireline._core.tls import TlsCore
from wireline.net import Socket
from wireline.net._stream_io import StreamIO
from wireline.testing import TestCA
from wireline.tls import Handshake, SslContext

PATIENCE = 5.0
KINDS = ("plain", "tls12", "tls13")

READS = [
    "Recv",
    "RecvSome",
    "RecvSmall",
    "RecvLine",
    "RecvLineAhead",
    "Lines",
    "RecvExactly",
    "RecvUntil",
    "Skip",
]
MORE_READS = ["RecvInto", "RecvLineInto", "TryRecvLine", "Peek"]
FRAMED_READS = [
    "RecvStruct",
    "RecvFrame",
    "RecvFrameByFunction",
    "Frames",
    "FramesAhead",
    "Fill",
    "RecvSomeInto",
    "TryRecv",
    "Unread",
]
SENDS = ["Send", "SendTimed", "SendMany", "SendSome", "TrySend", "SendQueued", "ShutdownWrite"]
CONNECTIONS = ["Dial", "Connect", "Accept", "Close"]
DATAGRAMS = ["RecvFrom", "SendTo", "RecvManyFrom", "SendManyTo"]
# `Server.stop` is a matter of `test_serve`: it reports the errors of closing its connections.
CALLS = [*READS, "Frames", *MORE_READS, *SENDS, *CONNECTIONS, *DATAGRAMS]

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers here")


OVER_TLS = [
    "RecvSome",
    "RecvLine",
    "Lines",
    "RecvExactly",
    "RecvInto",
    "Send",
    "SendSome",
    "SendQueued",
    "Accept",
    "Connect",
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with certificates."""
    path = tmp_path_factory.mktemp("certificates")
    TestCA().write(path)
    return str(path)


def expect_nothing(found: Sequence[object]) -> None:
    # A cache of sessions may be the program's: its exceptions are logged, and the read goes on. An exception that a
    # signal handler raises in it looks the same.
    found = [each for each in found if "swallowed" not in str(each) or "_policy.py" not in str(each)]
    if found:
        pytest.fail("\n".join(map(str, found)), pytrace=False)


@pytest.mark.parametrize("scene", CALLS)
def test_P5_an_exception_before_any_instruction(scene: str, directory: str) -> None:
    """FA7: the next call hung or was refused forever, the descriptor stayed open, received bytes were lost."""
    expect_nothing(at_instructions("plain", [scene], "raise", directory, 0.8, everything=False))


@pytest.mark.parametrize("scene", OVER_TLS)
def test_FA26_an_exception_before_any_instruction_over_tls(scene: str, directory: str) -> None:
    """FA26: the same, and the connection could not be decrypted any more, here or at the peer."""
    expect_nothing(at_instructions("tls13", [scene], "raise", directory, 0.8, everything=False))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["plain", "tls13"])
@pytest.mark.parametrize("action", ["raise", "disturb"])
def test_P5_a_handler_before_any_instruction_of_a_framed_read(kind: str, action: str, directory: str) -> None:
    expect_nothing(at_instructions(kind, FRAMED_READS, action, directory, 8, everything=False))


# Every instruction of every call, and 30,000 signals: `make torture ARGS=interruptions`.


@pytest.mark.parametrize(
    ("kind", "scene"),
    [(kind, name) for kind in ("plain", "tls13") for name in ("RecvLine", "Send", "Accept")]
    + [("plain", name) for name in ("RecvSome", "RecvFrom", "RecvManyFrom")],
)
def test_FA7_real_signals(kind: str, scene: str, directory: str) -> None:
    """FA7, FA26: as above, by a timer: a quarter of the interruptions made the socket useless."""
    expect_nothing(by_signals(kind, scene, directory, 0.7))


@pytest.mark.parametrize(
    ("kind", "scene"),
    [("plain", name) for name in ("RecvLine", "Send", "SendSome", "Accept", "RecvFrom", "Close", "Connect")]
    + [("tls13", "RecvLine"), ("tls13", "Send")],
)
def test_FA7_closing_while_the_exception_is_handled(kind: str, scene: str, directory: str) -> None:
    """FA7: ``with`` closes while the traceback keeps the call's frames, which were taken for a call that goes on."""
    expect_nothing(in_except(kind, scene, directory, 0.7))


# One thing at a time.


@pytest.fixture
def contexts(directory: str) -> tuple[SslContext, SslContext]:
    """A server's and a client's."""
    server = SslContext(cert_file=f"{directory}/server.pem", key_file=f"{directory}/server.key")
    return server, SslContext(ca_file=f"{directory}/ca.pem")


@pytest.fixture(params=["plain", "tls"])
def pair(
    request: pytest.FixtureRequest, contexts: tuple[SslContext, SslContext]
) -> Iterator[tuple[Socket, Socket]]:
    """Two connected sockets."""
    one, other = (Socket.from_socket(each) for each in socket.socketpair())
    with one, other:
        if request.param == "tls":
            server, client = contexts
            answering = threading.Thread(
                target=server.wrap_connected_socket,
                args=(other, Handshake.AS_SERVER),
                kwargs={"timeout": PATIENCE},
            )
            answering.start()
            client.wrap_connected_socket(one, Handshake.AS_CLIENT, "127.0.0.1", timeout=PATIENCE)
            answering.join()
        yield one, other


@contextlib.contextmanager
def alarm(handler: Callable[[], object], seconds: float = 0.02) -> Iterator[None]:
    """Call the handler once, in this thread, in so many seconds."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_out() -> None:
    raise TimeoutError("the handler's")


READING: dict[str, Callable[[Socket], object]] = {
    "recv_some": lambda sock: sock.recv_some(),
    "recv_some with a timeout": lambda sock: sock.recv_some(timeout=PATIENCE),
    "recv_line": lambda sock: sock.recv_line(),
    "recv_exactly": lambda sock: sock.recv_exactly(5),
    "skip": lambda sock: sock.skip(5, PATIENCE),
}


@pytest.mark.parametrize("name", READING)
def test_FA7_a_timeout_error_of_a_handler_is_not_the_end_of_the_stream(
    pair: tuple[Socket, Socket], name: str
) -> None:
    """FA7: a handler raised ``TimeoutError``, which is an ``OSError``, and every later read failed with it."""
    sock, peer = pair
    peer.send(b"first")
    assert sock.recv_some(timeout=PATIENCE) == b"first"  # now `recv_some` has a shorter way
    for _ in range(2):
        with alarm(run_out), pytest.raises(TimeoutError, match="the handler's"):
            READING[name](sock)
        peer.send(b"alive")
        assert sock.recv_exactly(5, PATIENCE) == b"alive"


def test_FA7_an_error_of_another_connection_is_not_the_end_of_the_stream(pair: tuple[Socket, Socket]) -> None:
    """FA7: the same with an error that a handler's own system call has raised."""
    sock, peer = pair

    def fail() -> None:
        with socket.socket() as nowhere, socket.create_server(("127.0.0.1", 0)) as full:
            address = full.getsockname()
            full.close()
            nowhere.connect(address)

    with alarm(fail), pytest.raises(ConnectionRefusedError):
        sock.recv_line()
    peer.send(b"alive\n")
    assert sock.recv_line(PATIENCE) == b"alive"


def lose_the_core(sock: Socket) -> None:
    """The effect of an exception right after a read has taken the core."""
    sock._io.core_slot.pop()
    raise ZeroDivisionError


def test_FA7_a_core_that_an_exception_lost_is_found_again(pair: tuple[Socket, Socket]) -> None:
    """FA7: ``BusyError`` forever, over TLS."""
    sock, peer = pair
    peer.send(b"one\ntwo\nthree\n")
    for line in (b"one", b"two", b"three"):
        with pytest.raises(ZeroDivisionError):
            lose_the_core(sock)
        assert sock.recv_line(PATIENCE) == line
    fd = sock.fileno()
    with pytest.raises(ZeroDivisionError):
        lose_the_core(sock)
    sock.close(linger=0)
    with pytest.raises(OSError, match="Bad file"):
        socket.socket(fileno=fd)


def interrupt(*_: object) -> NoReturn:
    """In place of a function of the library: a signal handler can raise before its first instruction."""
    raise ZeroDivisionError


def test_FA7_a_traceback_that_is_kept_does_not_keep_the_core(
    pair: tuple[Socket, Socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, peer = pair
    peer.send(b"one")
    assert sock.recv_some() == b"one"
    peer.send(b"two, three")
    with monkeypatch.context() as patch:
        patch.setattr(StreamIO, "end_fast_recv", interrupt)
        with pytest.raises(ZeroDivisionError) as kept:
            sock.recv_some(3)
    assert sock.recv_exactly(10, PATIENCE) == b"two, three"
    assert kept.tb is not None


@pytest.mark.parametrize("pair", ["tls"], indirect=True)
def test_FA7_a_traceback_that_is_kept_does_not_keep_the_permit(
    pair: tuple[Socket, Socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, peer = pair
    with monkeypatch.context() as patch:
        patch.setattr(TlsCore, "accepted", property(interrupt))
        with pytest.raises(ZeroDivisionError) as kept:
            sock.send(b"lost")
    sock.send(b"one", timeout=PATIENCE)
    assert peer.recv_some(timeout=PATIENCE) == b"one"
    assert kept.tb is not None


def test_FA7_a_connect_that_is_interrupted_after_the_connection_was_made_may_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Socket() as sock:
        with monkeypatch.context() as patch:
            patch.setattr(StreamIO, "publish", interrupt)
            with pytest.raises(ZeroDivisionError):
                sock.connect(*listener.getsockname())
        listener.accept()[0].close()
        sock.connect(*listener.getsockname(), timeout=PATIENCE)
        with listener.accept()[0] as peer:
            sock.send(b"x")
            assert peer.recv(1) == b"x"


def test_bytes_of_an_interrupted_read_begin_the_handshake_that_follows(
    contexts: tuple[SslContext, SslContext],
) -> None:
    """They were taken for the end of the stream."""
    one, other = (Socket.from_socket(each) for each in socket.socketpair())
    with one, other:
        connecting = threading.Thread(
            target=contexts[1].wrap_connected_socket,
            args=(other, Handshake.AS_CLIENT, "127.0.0.1"),
            kwargs={"timeout": PATIENCE},
        )
        connecting.start()
        assert one._io.core is not None
        one._io.core.inbox = one._fd.sock.recv(65_536)
        contexts[0].wrap_connected_socket(one, Handshake.AS_SERVER, timeout=PATIENCE, leftover="tls")
        connecting.join()
        assert one.got_handshake


def test_FA7_an_iterator_of_lines_does_not_keep_a_lost_core(pair: tuple[Socket, Socket]) -> None:
    """FA7: the same, while an iterator of lines was alive."""
    sock, peer = pair
    peer.send(b"one\ntwo\n")
    lines = sock.lines(timeout=PATIENCE)
    assert next(lines) == b"one"
    with pytest.raises(ZeroDivisionError):
        lose_the_core(sock)
    assert sock.recv_line(PATIENCE) == b"two"


def test_R11_one_that_is_held_is_not_taken_for_lost(pair: tuple[Socket, Socket]) -> None:
    sock, peer = pair
    core = sock._io.core_slot.pop()
    for _ in range(2):
        with pytest.raises(BusyError):
            sock.recv_some(timeout=0)
    sock._io.core_slot.append(core)
    del core
    peer.send(b"x")
    assert sock.recv_some(timeout=PATIENCE) == b"x"


# Handlers that use the socket themselves.


def test_FA26_a_handler_that_reads_while_a_read_waits_is_refused(pair: tuple[Socket, Socket]) -> None:
    """FA26: the handler waited for the call that it had interrupted, or took its bytes."""
    sock, peer = pair
    refused: list[str] = []

    def read() -> None:
        try:
            sock.recv_line(PATIENCE)
        except BusyError as error:
            refused.append(str(error))
        sock.send(b"from the handler\n", timeout=PATIENCE)
        peer.send(b"line\n")

    with alarm(read):
        assert sock.recv_line() == b"line"
    assert len(refused) == 1
    assert peer.recv_line(PATIENCE) == b"from the handler"


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_FA26_a_handler_that_sends_while_a_send_waits_is_refused(
    pair: tuple[Socket, Socket], timeout: float | None
) -> None:
    """FA26: it queued behind the call that it had interrupted, forever."""
    sock, peer = pair
    outcome: list[object] = []
    received = bytearray()
    begin = threading.Event()

    def drain() -> None:
        begin.wait(PATIENCE)
        while len(received) < len(payload):
            received.extend(peer.recv_some(timeout=PATIENCE))

    def send() -> None:
        try:
            sock.send(b"from the handler", timeout=timeout)
        except BusyError as error:
            outcome.append(error)
        outcome.append(sock.try_send(b"from the handler"))
        begin.set()

    payload = bytes(4_000_000)
    draining = threading.Thread(target=drain)
    draining.start()
    with alarm(send, 0.1):
        sock.send(payload)
    draining.join(PATIENCE)
    assert isinstance(outcome[0], BusyError)
    assert outcome[1] is False
    assert received == payload


def test_FA8_a_handler_that_closes_while_a_line_that_is_there_is_taken() -> None:
    """FA8: ``close`` takes the lines away that were split off ahead, and ``recv_line`` raised ``IndexError``."""
    run(
        """
        import signal, socket
        from wireline import ClosedError
        from wireline.net import Socket
        from tests.torture.opcodes import Interrupter

        def case(at, arguments):
            one, other = socket.socketpair()
            sock = Socket.from_socket(one)
            other.sendall(b"a line that is sent again and again\\n" * 50)
            for _ in range(20):
                sock.recv_line()
            assert sock._io.buffer.lines
            with Interrupter(at, sock.close) as interrupter:
                try:
                    line = sock.recv_line(**arguments)
                    assert line == b"a line that is sent again and again"
                except ClosedError:
                    pass
            assert sock.is_closed == (at > 0)
            sock.close()
            other.close()
            return interrupter

        for arguments in ({}, {"timeout": 1}, {"max_length": 100}, {"timeout": 1, "max_length": 100}):
            for _ in range(2):
                moments = case(0, arguments).reachable
            assert moments
            for at in moments:
                case(at, arguments)
        """
    )


# All at once.


def run(program: str, *arguments: str, seconds: float = 30.0) -> str:
    """Run a program that may hang; return its output."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


HAMMER = """
    import gc, os, signal, socket, sys, threading, time
    from wireline.net import Socket
    from wireline.tls import Handshake, SslContext

    kind, directory = sys.argv[1:]
    library = os.path.dirname(sys.modules["wireline"].__file__)
    sock, peer = (Socket.from_socket(each) for each in socket.socketpair())
    if kind == "tls":
        server = SslContext(cert_file=directory + "/server.pem", key_file=directory + "/server.key")
        answering = threading.Thread(target=server.wrap_connected_socket, args=(peer, Handshake.AS_SERVER))
        answering.start()
        SslContext(ca_file=directory + "/ca.pem").wrap_connected_socket(sock, Handshake.AS_CLIENT, "127.0.0.1")
        answering.join()

    class Soft(Exception):
        pass

    depth = 0

    def handle(number, frame):
        global depth
        if not frame.f_code.co_filename.startswith(library):
            return
        if number == signal.SIGALRM and depth == 0:
            depth = 1
            try:
                signal.raise_signal(signal.SIGUSR1)  # a signal in the handler of another one
            finally:
                depth = 0
        raise Soft

    signal.signal(signal.SIGALRM, handle)
    signal.signal(signal.SIGUSR1, handle)

    seen = []
    reading = threading.Thread(target=lambda: seen.extend(peer.lines(timeout=20)))
    reading.start()
    over = threading.Event()
    counts = [0] * 8

    def hammer(me):
        while not over.is_set():
            sock.send(b"%d %d\\n" % (me, counts[me]), timeout=10)
            counts[me] += 1
            time.sleep(0.0005)

    threads = [threading.Thread(target=hammer, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    gc.set_threshold(50)
    until, number, interrupted = time.monotonic() + 1.0, 0, 0
    whole = []
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0002)
    while time.monotonic() < until:
        number += 1
        try:
            sock.send(b"8 %d\\n" % number, timeout=10)
            whole.append(number)
        except Soft:
            interrupted += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    over.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a thread is stuck"
    sock.send(b"end\\n", timeout=5)
    sock.close()
    reading.join(20)
    assert seen.pop() == b"end"
    mine = []
    found = {me: [] for me in range(9)}
    for line in seen:
        me, value = line.split()
        found[int(me)].append(int(value))
    for me in range(8):
        assert found[me] == list(range(counts[me])), f"thread {me}"
    assert found[8] == sorted(set(found[8])), "sent twice, or in another order"
    assert set(whole) <= set(found[8]), "not sent"
    assert interrupted > 20
"""


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_FA26_threads_that_send_on_while_one_is_interrupted(kind: str, directory: str) -> None:
    """FA26: each message of a thread that is not interrupted arrives, whole and in order; nothing is sent twice."""
    run(HAMMER, kind, directory)


def test_a_detach_that_races_with_reads_gives_a_descriptor_or_says_why_not() -> None:
    for _ in range(50):
        one, other = socket.socketpair()
        sock = Socket.from_socket(one)
        strange: list[BaseException] = []

        def read(sock: Socket = sock, strange: list[BaseException] = strange) -> None:
            try:
                while True:
                    with contextlib.suppress(TimeoutError):
                        sock.recv_some(timeout=0)
                    threading.Event().wait(1e-4)  # else it is inside a call each time the other thread looks
            except OSError:  # detached
                assert sock.is_closed
            except BaseException as error:  # noqa: BLE001 -- anything else is looked for
                strange.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        while True:
            try:
                fd = sock.detach()
                break
            except OSError:
                assert not sock.is_closed
        reader.join(PATIENCE)
        with socket.socket(fileno=fd) as raw:
            other.sendall(b"alive")
            assert raw.recv(5) == b"alive"
        other.close()
        assert not strange
