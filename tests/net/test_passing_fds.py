"""Descriptors over Unix sockets of the blocking flavour: signal handlers, forks, threads."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pytest

from tests.core.interrupts import Interruption, interrupted
from wireline import BusyError, ClosedError, SocketTimeout
from wireline.net import ReceivedFds, Socket
from wireline.tls import Handshake, SslContext, SslError, VerifyMode

FILES = (
    "_os/passed_fds.py",
    "_os/datagram.py",
    "_os/inbox.py",
    "_core/stream.py",
    "_core/buffer.py",
    "net/_socket.py",
    "net/_stream_io.py",
    "net/_datagram_io.py",
    "net/_retry.py",
)

Kind = socket.SocketKind
T = TypeVar("T")


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def close(fds: list[int]) -> None:
    for each in fds:
        os.close(each)


@pytest.fixture
def fd() -> Iterator[int]:
    """An open file."""
    one, other = os.pipe()
    os.close(other)
    yield one
    os.close(one)


@contextlib.contextmanager
def ends(kind: Kind = socket.SOCK_STREAM, *, buffered: bool = True) -> Iterator[tuple[Socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with Socket.from_socket(one, buffered=buffered) as sock, other:
        yield sock, other


def send(peer: socket.socket, data: bytes, fd: int, count: int = 1) -> None:
    socket.send_fds(peer, [data], [fd] * count)


def passed_to(peer: socket.socket) -> tuple[bytes, int]:
    """Everything that was sent to a peer: the bytes, and how many descriptors."""
    peer.setblocking(False)
    data, count = b"", 0
    with contextlib.suppress(BlockingIOError):
        while True:
            piece, fds, _, _ = socket.recv_fds(peer, 65536, 253)
            close(fds)
            data, count = data + piece, count + len(fds)
    return data, count


def rest_of(sock: Socket) -> tuple[bytes, int, int]:
    """All that is left to read: the bytes, how many descriptors, and how many were closed."""
    data, count, closed = b"", 0, 0
    for size, timeout in ((0, None), (1000, 0), (1000, 0), (1000, 0), (0, None)):
        with contextlib.suppress(SocketTimeout):
            received = sock.recv_fds(size, 253, timeout)
            close(received.fds)
            data, count, closed = data + received.data, count + len(received.fds), closed + received.truncated
    return data, count, closed


class Moment:
    """One of the moments at which a signal handler may interrupt a call."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reached = False

    def interrupt(self, call: Callable[[Socket], T], sock: Socket, spare: Socket) -> list[T]:
        """Make a call with each socket, and raise in one of them; return what that with ``sock`` has returned, if any.

        CPython 3.13 tells the instructions of a function from its second call on: that with ``spare`` is the first.
        """
        answers: list[T] = []

        def both() -> None:
            rehearsed = call(spare)
            close(getattr(rehearsed, "fds", []))
            answers.append(call(sock))

        try:
            self.reached = interrupted(both, self.number, *FILES)
        except Interruption:
            self.reached = True
        return answers


def every_moment() -> Iterator[Moment]:
    """Play a scene for every moment, and count descriptors before and after it."""
    yield Moment(10**9)  # objects of the process are made in the first call
    for number in itertools.count():
        moment = Moment(number)
        before = open_fds()
        yield moment
        assert open_fds() == before, number
        if not moment.reached:
            assert number > 5
            return


def every_moment_of(cases: Iterable[T]) -> Iterator[tuple[T, Moment]]:
    """The same for each of several cases."""
    for case in cases:
        for moment in every_moment():
            yield case, moment


READS: dict[str, Callable[[Socket], bytes]] = {
    "recv_some": lambda sock: sock.recv_some(),
    "recv_some, timed": lambda sock: sock.recv_some(timeout=5),
    "recv_line": lambda sock: sock.recv_line() + b"\n",
    "recv_exactly": lambda sock: sock.recv_exactly(8),
    "recv_until": lambda sock: sock.recv_until(b"\n", 100, 5),
}


def test_P5_no_descriptor_is_lost_when_a_read_is_interrupted(fd: int) -> None:
    for read, moment in every_moment_of(READS):
        with ends() as (sock, peer), ends() as (spare, spare_peer):
            for _ in range(2):  # the second read takes the fast path
                send(peer, b"one\n", fd)
                send(peer, b"two\n", fd)
                READS[read](sock)
                rest_of(sock)
            for each in (peer, spare_peer):
                send(each, b"one\n", fd, 3)
                send(each, b"two\n", fd, 2)
            taken = moment.interrupt(READS[read], sock, spare)
            data, count, closed = rest_of(sock)
            assert (b"".join(taken) + data, count, closed) == (b"one\ntwo\n", 5, 0), moment.number


def test_P5_what_an_interrupted_read_has_received_is_readable(fd: int) -> None:
    for moment in every_moment():
        with ends(buffered=False) as (sock, peer), ends(buffered=False) as (spare, spare_peer):
            for each in (peer, spare_peer):
                send(each, b"one\n", fd)
            if not moment.interrupt(lambda sock: sock.recv_some(), sock, spare):
                sock.wait_readable(0)
                assert sock.recv_some(timeout=0) == b"one\n"
            rest_of(sock)


def _recv_fds(max_fds: int) -> Callable[[Socket], ReceivedFds]:
    return lambda sock: sock.recv_fds(100, max_fds)


def _send_fds(fd: int, timeout: float | None) -> Callable[[Socket], None]:
    return lambda sock: sock.send_fds(b"one", [fd, fd], timeout)


def test_P5_no_descriptor_is_lost_when_recv_fds_is_interrupted(fd: int) -> None:
    states = ("arriving", "kept", "buffered")
    for (how, max_fds), moment in every_moment_of(itertools.product(states, (2, 9))):
        with ends() as (sock, peer), ends() as (spare, spare_peer):
            for each, other in ((sock, peer), (spare, spare_peer)):
                send(other, b"one\n", fd, 3)
                send(other, b"two\n", fd, 2)
                if how == "kept":
                    assert each.recv_exactly(4) == b"one\n"
                elif how == "buffered":
                    assert each.fill(8) == b"one\ntwo\n"
            answers = moment.interrupt(_recv_fds(max_fds), sock, spare)
            data, count, closed = rest_of(sock)
            for answer in answers:
                data, count, closed = answer.data + data, len(answer.fds) + count, answer.truncated + closed
                close(answer.fds)
            assert data == (b"two\n" if how == "kept" else b"one\ntwo\n"), moment.number
            assert count + closed == 5, moment.number
            assert closed in ((1,) if answers and max_fds == 2 else (0, 1) if max_fds == 2 else (0,)), (
                moment.number
            )


@pytest.mark.full
def test_P5_an_interrupted_read_notes_each_descriptor_once(fd: int) -> None:
    for moment in every_moment():
        with ends() as (sock, peer), ends() as (spare, spare_peer):
            for each, other in ((sock, peer), (spare, spare_peer)):
                send(other, b"many", fd, 252)
                assert each.recv_exactly(4) == b"many"
                send(other, b"one\n", fd, 3)
            moment.interrupt(lambda sock: sock.fill(4), sock, spare)
            spare.close()
            assert sock.fill(4, 0) == b"one\n"
            for size, data, count, closed in ((0, b"", 252, 2), (9, b"one\n", 1, 0)):
                received = sock.recv_fds(size, 253, 0)
                close(received.fds)
                assert received == (data, received.fds, closed), moment.number
                assert len(received.fds) == count, moment.number


def test_P5_no_descriptor_of_a_datagram_is_lost_or_left_open(fd: int) -> None:
    datagrams = socket.SOCK_DGRAM
    for moment in every_moment():
        with ends(datagrams) as (sock, peer), ends(datagrams) as (spare, spare_peer):
            before = open_fds()
            for each in (peer, spare_peer):
                send(each, b"one", fd, 3)
                send(each, b"two", fd, 2)
            answers = moment.interrupt(lambda sock: sock.recv_fds(100, 2), sock, spare)
            if not answers and moment.number % 2:
                # A datagram that the interrupted call has received belongs to the next read, of any kind.
                assert sock.recv_some(timeout=0) == b"one", moment.number
            elif not answers:
                answers.append(sock.recv_fds(100, 2, 0))
            for answer in answers:
                assert answer == (b"one", answer.fds, 1), moment.number
                assert len(answer.fds) == 2, moment.number
                close(answer.fds)
            spare.close()
            assert open_fds() == before - 1, moment.number
            assert sock.recv_some(timeout=0) == b"two"


def test_P5_send_fds_that_is_interrupted_has_counted_what_it_sent(fd: int) -> None:
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    for (kind, timeout), moment in every_moment_of(itertools.product(kinds, (None, 5))):
        with ends(kind) as (sock, peer), ends(kind) as (spare, spare_peer):
            moment.interrupt(_send_fds(fd, timeout), sock, spare)
            passed_to(spare_peer)
            data, count = passed_to(peer)
            assert (data, count) in ((b"one", 2), (b"", 0)), moment.number
            if kind == socket.SOCK_STREAM:
                assert sock.last_bytes_sent == len(data), moment.number
            sock.send_fds(b"two", [fd], 5)
            assert passed_to(peer) == (b"two", 1), moment.number


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_P3_a_forked_child_closes_its_own_copies(fd: int) -> None:
    with ends() as (sock, peer):
        send(peer, b"x", fd, 3)
        assert sock.recv_some() == b"x"
        pid = os.fork()
        if pid == 0:
            try:
                before = open_fds()
                sock.close()
                os._exit(0 if open_fds() == before - 4 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        received = sock.recv_fds(0, 3)
        assert len(received.fds) == 3
        for each in received.fds:
            os.fstat(each)
            os.close(each)


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_P3_a_forked_child_receives_what_its_parent_has_kept(fd: int) -> None:
    with ends() as (sock, peer):
        send(peer, b"x", fd, 2)
        assert sock.recv_some() == b"x"
        pid = os.fork()
        if pid == 0:
            try:
                fds = sock.recv_fds(0, 3).fds
                os._exit(0 if [os.fstat(each).st_ino for each in fds] == [os.fstat(fd).st_ino] * 2 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_P2_sockets_in_a_cycle_close_what_they_keep(fd: int) -> None:
    gc.collect()
    before = open_fds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(20):
            one, other = socket.socketpair()
            send(other, b"x", fd, 4)
            other.close()
            sock = Socket.from_socket(one)
            assert sock.recv_some() == b"x"
            cycle: list[object] = [sock]
            cycle.append(cycle)
        del sock, cycle
        gc.collect()
    assert open_fds() == before


def test_R13_close_wakes_recv_fds_and_send_fds(fd: int) -> None:
    with ends() as (sock, _):
        sock.send_fds(b"x", [fd])
        outcomes: list[BaseException] = []

        def catch(call: Callable[[], object]) -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                outcomes.append(error)

        calls = (lambda: sock.recv_fds(10, 10), lambda: sock.send_fds(bytes(10_000_000), [fd]))
        threads = [threading.Thread(target=catch, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        with contextlib.suppress(BusyError, SocketTimeout):
            while not outcomes:
                sock.recv_fds(0, 0, 0)
        sock.close()
        for thread in threads:
            thread.join(5)
        assert [type(each) for each in outcomes] == [ClosedError, ClosedError]


def test_FB4_detach_refuses_to_lose_descriptors(fd: int) -> None:
    with ends() as (sock, peer):
        send(peer, b"x", fd)
        assert sock.recv_some() == b"x"
        with pytest.raises(OSError, match="received descriptors would be lost"):
            sock.detach()
        os.close(sock.recv_fds(0, 1).fds[0])
        os.close(sock.detach())


def test_FB4_descriptors_that_are_kept_are_closed_when_tls_begins(fd: int) -> None:
    with ends() as (sock, peer):
        before = open_fds()
        send(peer, b"x", fd, 3)
        assert sock.recv_some() == b"x"
        assert open_fds() == before + 3
        context = SslContext(verify_mode=VerifyMode.NONE)
        with pytest.raises(SocketTimeout):
            context.wrap_connected_socket(sock, Handshake.AS_CLIENT, "localhost", timeout=0.01)
        assert open_fds() == before
        with pytest.raises(SslError, match="cannot carry descriptors"):
            sock.recv_fds(1, 1)
