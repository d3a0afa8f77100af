"""R13, R14: the last user of a descriptor closes it, so that no call uses a number that belongs to another file."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal

import pytest
import trustme

from wireline import BusyError, ClosedError, SocketFlag, SockOpt, testing
from wireline._os.process import process
from wireline.net import Socket, _stream_io
from wireline.net._fd_guard import FdGuard, Use
from wireline.net._stream_io import StreamIO
from wireline.tls import Handshake, SslContext

Pair = tuple[Socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    there.settimeout(5)
    with Socket.from_socket(here) as sock, there:
        yield sock, there


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# Three ways to use a descriptor.


def by_a_call(sock: Socket) -> AbstractContextManager[object]:
    return sock._use("a call")


@contextlib.contextmanager
def by_reading(sock: Socket) -> Iterator[None]:
    core = sock._io.core_slot.pop()
    yield
    sock._io.core_slot.append(core)
    del core
    sock._io.leave(sock)


@contextlib.contextmanager
def by_writing(sock: Socket) -> Iterator[None]:
    permit = sock._io.write_lock.try_acquire()
    assert permit is not None
    yield
    del permit
    sock._io.release_permit(sock)


USES: list[Callable[[Socket], AbstractContextManager[object]]] = [by_a_call, by_reading, by_writing]


@pytest.mark.parametrize("use", USES)
def test_R14_the_descriptor_stays_open_while_it_is_in_use(
    pair: Pair, use: Callable[[Socket], AbstractContextManager[object]]
) -> None:
    sock, _ = pair
    fd = sock.fileno()
    with use(sock):
        sock.close()
        assert sock.is_closed
        assert sock.fileno() == -1
        assert is_open(fd)
        with pytest.raises(ClosedError):
            sock.recv(1)
        with pytest.raises(ClosedError):
            sock.send(b"x")
        assert is_open(fd)
    assert not is_open(fd)


def test_R14_the_last_of_several_users_closes_it(pair: Pair) -> None:
    sock, _ = pair
    fd = sock.fileno()
    with by_a_call(sock):
        with by_writing(sock):
            with by_reading(sock), by_a_call(sock):
                sock.close()
            assert is_open(fd)
        assert is_open(fd)
    assert not is_open(fd)


def test_R14_close_closes_it_while_it_is_not_in_use(pair: Pair) -> None:
    sock, _ = pair
    fd = sock.fileno()
    with by_a_call(sock), by_reading(sock), by_writing(sock):
        pass
    sock.close()
    assert not is_open(fd)


@pytest.mark.parametrize("reads", [True, False])
def test_the_lingering_close_knows_whether_reading_was_shut_down(
    pair: Pair, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(raw: socket.socket, *_: object, read_shutdown: bool) -> None:
        raw.close()
        known.append(read_shutdown)

    known: list[bool] = []
    monkeypatch.setattr(_stream_io, "close_in_background", close)
    sock, _ = pair
    with by_reading(sock) if reads else contextlib.nullcontext():
        sock.close()
    assert known == [reads]


def test_FA5_close_in_another_process_closes_the_descriptor(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, _ = pair
    fd = sock.fileno()
    monkeypatch.setattr(process, "epoch", object())
    sock.close()
    assert not is_open(fd)


def test_R14_a_listener_and_a_datagram_socket_too() -> None:
    for sock in (Socket(), Socket(socket.AF_UNIX, socket.SOCK_DGRAM)):
        fd = sock.fileno()
        with by_a_call(sock):
            sock.close()
            assert is_open(fd)
        assert not is_open(fd)


@pytest.mark.parametrize("use", USES)
def test_a_descriptor_in_use_is_not_given_away(
    pair: Pair, use: Callable[[Socket], AbstractContextManager[object]]
) -> None:
    sock, there = pair
    with use(sock), pytest.raises(OSError, match="detach") as caught:
        sock.detach()
    assert caught.value.errno == errno.EBUSY
    assert not sock.is_closed
    sock.send(b"unharmed")
    assert there.recv(8) == b"unharmed"
    there.send(b"unharmed")
    assert sock.recv(8) == b"unharmed"


def test_calls_after_detach_are_refused(pair: Pair) -> None:
    sock, there = pair
    with socket.socket(fileno=sock.detach()) as raw:
        for call in (lambda: sock.send(b"x"), lambda: sock.recv(1), lambda: sock.local_addr, sock.detach):
            with pytest.raises(ClosedError):
                call()
        sock.close()
        raw.send(b"alive")
        assert there.recv(5) == b"alive"


def test_two_at_a_time_are_one_too_many(pair: Pair) -> None:
    sock, _ = pair
    with Use(sock._fd, "connect", alone=True):
        with pytest.raises(BusyError, match="recv_from"), Use(sock._fd, "recv_from", alone=True):
            raise AssertionError("not reached")
    with Use(sock._fd, "connect", alone=True):
        pass


@pytest.mark.parametrize("timeout", [None, 5])
def test_R14_no_call_gets_the_bytes_of_the_next_owner_of_the_number(timeout: float | None) -> None:
    for _ in range(40):
        here, there = socket.socketpair()
        sock = Socket.from_socket(here)
        number = sock.fileno()
        outcome: list[object] = []

        def read(sock: Socket = sock, outcome: list[object] = outcome) -> None:
            try:
                outcome.append(sock.recv(1, timeout))
            except ClosedError as error:
                outcome.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        sock.close()
        while True:  # until another file has the number
            other, peer = socket.socketpair()
            with other, peer:
                peer.send(b"!")
                has_it = number in (other.fileno(), peer.fileno())
                reader.join(0 if not has_it else 5)
                assert other.recv(1) == b"!"
            if has_it or not reader.is_alive():
                break
        reader.join(5)
        there.close()
        assert isinstance(outcome[0], ClosedError)


def test_R14_calls_and_closing_at_the_same_time() -> None:
    strange: list[BaseException] = []

    def keep_on(call: Callable[[], object], go: threading.Barrier) -> None:
        go.wait()
        try:
            while True:
                call()
        except ClosedError:
            pass
        except BaseException as error:  # noqa: BLE001 - anything else is what this test looks for
            strange.append(error)

    for _ in range(20):
        here, there = socket.socketpair()
        sock = Socket.from_socket(here)
        calls: list[Callable[[], object]] = [
            functools.partial(getattr, sock, "local_addr"),
            sock.try_recv_line,
            functools.partial(sock.get_sock_opt, SockOpt.KEEP_ALIVE),
        ]
        go = threading.Barrier(len(calls) + 1)
        threads = [threading.Thread(target=keep_on, args=(call, go)) for call in calls]
        for thread in threads:
            thread.start()
        go.wait()
        sock.close()
        for thread in threads:
            thread.join(5)
        there.close()
    assert strange == []


# Sockets that are forgotten.


def test_a_socket_that_is_forgotten_open_is_closed_with_a_warning() -> None:
    sock = Socket()
    fd = sock.fileno()
    with pytest.warns(ResourceWarning, match=r"unclosed <wireline.net.Socket fd="):  # noqa: PT031 - both make it go
        del sock
        gc.collect()
    assert not is_open(fd)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_a_socket_is_closed_without_the_collector_after_a_send_has_failed(
    kind: Literal["tcp", "tls"],
) -> None:
    """The reset is kept for the next read: it must not keep the frames of the send."""
    sock, peer = testing.pair(kind)
    fd = sock.fileno()
    peer.close(linger=0)
    with pytest.raises(ConnectionResetError):
        sock.send(b"x", SocketFlag(0), 5)
    gc.disable()
    try:
        with pytest.warns(ResourceWarning, match=f"unclosed <wireline.net.Socket fd={fd}"):
            del sock
    finally:
        gc.enable()


def test_a_socket_is_closed_without_the_collector_after_a_handshake_has_failed() -> None:
    """The exception kept itself by a variable of a frame of its traceback."""

    def answer(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1)
            peer.sendall(b"this is not TLS\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=answer, args=(listener,))
        answering.start()
        sock = Socket()
        testing.TestCA().context().wrap_socket(sock, "localhost")
        gc.disable()
        try:
            with contextlib.suppress(OSError):
                sock.connect("127.0.0.1", listener.getsockname()[1], 5)
                pytest.fail("there was no handshake")
            answering.join()
            with pytest.warns(ResourceWarning, match="unclosed <wireline.net.Socket fd="):
                del sock
        finally:
            gc.enable()


@pytest.mark.parametrize("timeout", [None, 0.0])
def test_the_error_of_a_send_that_cannot_begin_has_no_context(timeout: float | None) -> None:
    with Socket() as sock, pytest.raises(OSError) as unconnected:
        sock.send(b"x", timeout=timeout)
    with pytest.raises(ClosedError) as closed:
        sock.send(b"x", timeout=timeout)
    assert unconnected.value.__context__ is None
    assert closed.value.__context__ is None


def test_a_socket_that_was_never_made_is_collected_silently() -> None:
    with pytest.raises(OSError):
        Socket(99)
    gc.collect()


def test_a_descriptor_that_is_adopted_is_closed_if_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    here, there = socket.socketpair()
    fd = here.fileno()
    monkeypatch.setattr(StreamIO, "open", fail)
    with pytest.raises(ZeroDivisionError):
        Socket.from_socket(here)
    assert not is_open(fd)
    there.close()


# FA7: cores and permits that no call holds.


@pytest.mark.parametrize("tls", [False, True])
def test_FA7_a_core_whose_reader_was_ended_by_an_exception_is_free(pair: Pair, tls: bool) -> None:
    """FA7: a core that was lost between `pop` and the name made every later read a BusyError."""
    sock, there = pair
    with contextlib.ExitStack() as stack:
        if tls:
            peer = stack.enter_context(Socket.from_socket(socket.socket(fileno=there.detach())))
            shake_hands(sock, peer)
            send: Callable[[bytes], object] = peer.send
        else:
            send = there.send
        send(b"one")
        assert sock.recv_some() == b"one"
        send(b"two")
        sock._io.core_slot.pop()
        assert sock.recv_some(timeout=5) == b"two"
        core = sock._io.core_slot.pop()
        with pytest.raises(BusyError):
            sock.recv_some(timeout=0)
        del core
        with pytest.raises(TimeoutError):
            sock.recv_some(timeout=0)
        sock._io.core_slot.pop()
        fd = sock.fileno()
        sock.close()
        assert sock._fd.disposed
        assert tls or not is_open(fd)


def shake_hands(server: Socket, client: Socket) -> None:
    authority = trustme.CA()
    with (
        authority.cert_pem.tempfile() as ca_file,
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.tempfile() as own,
    ):
        serving = SslContext(cert_file=own, key_file=own)
        connecting = SslContext(ca_file=ca_file)
        thread = threading.Thread(
            target=serving.wrap_connected_socket, args=(server, Handshake.AS_SERVER), kwargs={"timeout": 5}
        )
        thread.start()
        connecting.wrap_connected_socket(client, Handshake.AS_CLIENT, "localhost", 5)
        thread.join()


def test_C5_of_two_threads_that_end_a_socket_neither_undoes_the_claim_of_the_other(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, _ = pair
    fd = sock._fd

    def claimed_by_another_thread(self: FdGuard) -> bool:
        self._core_claimed = True
        return False  # a traceback of the other thread still has the core

    monkeypatch.setattr(FdGuard, "_core_is_abandoned", claimed_by_another_thread)
    fd.resting.pop()
    sock.close()
    assert fd.disposed


def test_C5_a_read_that_looks_for_an_abandoned_core_never_takes_one_that_close_has_claimed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, _ = pair
    fd = sock._fd
    search = FdGuard._core_is_abandoned

    def closed_meanwhile(self: FdGuard, references: int = 0) -> bool:
        monkeypatch.setattr(FdGuard, "_core_is_abandoned", search)
        abandoned = search(self, references)
        sock.close()
        assert not self.disposed  # the read has a reference to the core
        return abandoned

    monkeypatch.setattr(FdGuard, "_core_is_abandoned", closed_meanwhile)
    fd.resting.pop()  # by a call that is gone
    with pytest.raises(ClosedError):
        sock.recv_exactly(1)
    assert fd.disposed


def count_searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each search for references looks at all objects of the process."""
    searched: list[str] = []
    search = gc.get_referrers

    def counted(thing: object) -> list[object]:
        searched.append(type(thing).__name__)  # the object itself would have one more reference
        return search(thing)

    monkeypatch.setattr(gc, "get_referrers", counted)
    return searched


def test_a_close_during_another_one_searches_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = pair[0]._fd
    begun, may_end = threading.Event(), threading.Event()

    def dispose() -> None:
        begun.set()
        assert may_end.wait(5)
        guard.sock.close()

    searched = count_searches(monkeypatch)
    thread = threading.Thread(target=guard.begin_close, args=(dispose,))
    thread.start()
    assert begun.wait(5)
    for _ in range(3):
        guard.begin_close(dispose)
    assert not guard.disposed
    may_end.set()
    thread.join()
    assert guard.disposed
    assert searched == []


def test_a_close_after_one_that_was_interrupted_finishes_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = pair[0]._fd
    results = iter([KeyboardInterrupt(), None])

    def dispose() -> None:
        if (error := next(results)) is not None:
            raise error
        guard.sock.close()

    searched = count_searches(monkeypatch)
    with pytest.raises(KeyboardInterrupt) as kept:
        guard.begin_close(functools.partial(dispose))
    assert kept.tb is not None  # its frames hold what was to be called
    guard.begin_close(functools.partial(dispose))
    assert guard.disposed
    assert len(searched) == 1


def test_a_close_after_one_that_was_interrupted_before_it_disposed_finishes_it(pair: Pair) -> None:
    guard = pair[0]._fd

    class Full(list[Callable[[], None]]):
        def append(self, _: Callable[[], None]) -> None:
            raise MemoryError

    guard._disposals = Full()
    with pytest.raises(MemoryError) as kept:
        guard.begin_close(functools.partial(guard.sock.close))
    guard._disposals = []
    assert kept.tb is not None  # its frames hold what was to be called
    guard.begin_close(functools.partial(guard.sock.close))
    assert guard.disposed
